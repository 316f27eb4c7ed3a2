"""Recipes by name and as YAML, and overrides by dotted key, all checked against the dataclasses."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import DataSpec, DistillSpec, Recipe, RuntimeSpec, StudentSpec, TeacherSpec

_RECIPES = Path(__file__).with_name("builtin")
_SUFFIXES = (".yaml", ".yml")
_GROUPS: dict[str, type] = {
    "data": DataSpec,
    "teacher": TeacherSpec,
    "student": StudentSpec,
    "distill": DistillSpec,
    "runtime": RuntimeSpec,
}


def list_recipes() -> dict[str, str]:
    """The built-in recipes: name -> the comment in the first line of its file."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for path in sorted(_RECIPES.glob("*.yaml"))
    }


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A built-in recipe by name, or a YAML file by path.

    Args:
        source: `digits`, or the path of a file that ends in .yaml or .yml.
        overrides: Values by dotted key, for example `{"student.qubits": 6}`.

    Raises:
        RecipeError: An unknown recipe, an unknown key, a wrong type or an impossible combination.
    """
    return parse_recipe(_read_tree(source), overrides=overrides)


def stated_keys(source: str | Path) -> set[str]:
    """Dotted keys that a user's own YAML file states; none for a built-in recipe.

    Raises:
        RecipeError: As `load_recipe`.
    """
    tree = _read_tree(source)
    return set() if Path(source).suffix not in _SUFFIXES else set(_flatten(tree))


def _read_tree(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        path = _RECIPES / f"{source}.yaml"
        if not path.is_file():
            names = ", ".join(list_recipes())
            raise RecipeError(
                f"recipe {str(source)!r} is unknown; give one of {names}, or a path ending in .yaml"
            )
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"recipe {path} cannot be read: {error}; give a YAML file") from error
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise RecipeError(f"recipe {path} is not YAML: {reason}") from error
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {path} holds {tree!r}; a recipe is a tree of keys")
    return tree


def parse_recipe(tree: Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe from a nested mapping, as YAML holds it; what it leaves out has its default.

    Raises:
        RecipeError: As `load_recipe`.
    """
    given = _flatten(tree) | dict(overrides or {})
    for key in given:
        if key not in recipe_keys():
            raise RecipeError(unknown_key(key))
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe)
    try:
        return recipe_from(parser.parse_object(_nest(given)).as_dict())
    except (ArgumentError, TypeError) as error:
        raise RecipeError(type_message(error, given)) from error


def recipe_from(tree: Mapping[str, Any]) -> Recipe:
    """A recipe from a complete tree of parsed values, one entry for each field."""
    values = {
        key: _GROUPS[key](**value) if isinstance(value, dict) else value
        for key, value in tree.items()
    }
    return Recipe(**values)


def dump_recipe(recipe: Recipe) -> str:
    """The recipe as YAML with every key, which `load_recipe` reads back to an equal recipe."""
    return yaml.safe_dump(_nest(flat_recipe(recipe)), sort_keys=False, default_flow_style=None)


def flat_recipe(recipe: Recipe) -> dict[str, Any]:
    """Every value by its dotted key, tuples as lists."""
    flat = _flatten(asdict(recipe))
    return {key: list(item) if isinstance(item, tuple) else item for key, item in flat.items()}


@cache
def recipe_keys() -> dict[str, Any]:
    """Every key of a recipe by its dotted path, for example `student.qubits`, with its type."""
    keys: dict[str, Any] = {}
    for name, kind in get_type_hints(Recipe).items():
        nested = get_type_hints(kind) if is_dataclass(kind) else {}
        keys |= {f"{name}.{key}": inner for key, inner in nested.items()} or {name: kind}
    return keys


def unknown_key(key: str) -> str:
    """The line that says that a recipe has no such key, with the nearest one or its siblings."""
    near = difflib.get_close_matches(key, recipe_keys(), n=1, cutoff=0.6)
    group = key.partition(".")[0] + "."
    siblings = [name for name in recipe_keys() if name.startswith(group)]
    keys = f"the keys are {', '.join(siblings)}" if siblings else "see `qkd distill --help`"
    return f"{key}: no such key in a recipe; {f'did you mean {near[0]}?' if near else keys}"


def type_message(error: Exception, given: Mapping[str, Any]) -> str:
    """The line for a value of the wrong type: the key's path, the value and what is accepted."""
    text = " ".join(str(error).split())
    named = re.search(r'Parser key "([^"]+)"', text)
    key = named[1] if named else next((key for key, item in given.items() if item is None), None)
    if key not in recipe_keys():
        return text
    kind, item = recipe_keys()[key], given.get(key)
    return f"{key}: {item!r} is not accepted; {_meant(kind, item)}give {_accepted(kind)}"


def _meant(kind: Any, item: Any) -> str:
    """A question for the first name that is none of those accepted, but like one of them."""
    accepted = [name for name in _names(kind) if isinstance(name, str)]
    for word in re.findall(r"\w+", str(item)) if accepted else ():
        near = difflib.get_close_matches(word, accepted, n=1)
        if near and word not in accepted:
            return f"did you mean {near[0]}? "
    return ""


def _names(kind: Any) -> list[Any]:
    """Everything that a literal type, or a tuple of one, accepts."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return list(arguments)
    return [name for argument in arguments for name in _names(argument)]


def _accepted(kind: Any) -> str:
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(arguments) if len(arguments) > 1 else str(arguments[0])
    if get_origin(kind) is tuple:
        return f"a list [a, b, ...], each {_accepted(arguments[0])}"
    if arguments:
        return " or ".join(_accepted(argument) for argument in arguments)
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    names[type(None)] = "null"
    return names[kind]


def _flatten(tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name in _GROUPS:
            if not isinstance(value, Mapping):
                raise RecipeError(f"{name}: {value!r} is not accepted; give a tree of keys")
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[str(name)] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        group, _, key = dotted.rpartition(".")
        (tree.setdefault(group, {}) if group else tree)[key] = value
    return tree
