"""Read recipes by name or from YAML, with overrides by dotted key, and write them as YAML."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import yaml

from qkd_qiskit.errors import RecipeError, nearest
from qkd_qiskit.recipe.recipe import Recipe
from qkd_qiskit.recipe.validation import checked, no_such_key, shown, type_hints

Spec = TypeVar("Spec")

_RECIPES = Path(__file__).with_name("builtin")
_SUFFIXES = (".yaml", ".yml")
_MOST_BYTES = 100_000
_MOST_VALUES = 10_000  # with every alias written out
_DEEPEST = 50  # brackets in brackets
# So that recipes without them are written as ever.
_LEFT_OUT: dict[str, object] = {
    "data.scale": "none",
    "data.size": None,
    "data.channels": None,
    "data.backbone": None,
    "data.backbone_layer": None,
    "data.backbone_weights": None,
    "data.backbone_digest": None,
    "teacher.outputs": None,
    "student.features": None,
    "student.loader_layers": 3,
    "student.observables": None,
    "student.module": None,
    "teacher.run": None,
    "teacher.arm": "distilled",
    "teacher.seed": "all",
    "teacher.target": "exact",
    "teacher.digest": None,
    "teacher.ensemble": 1,
    "teacher.average": "probabilities",
    "distill.terms": None,
    "distill.unlabelled": None,
    "distill.augment": "none",
    "distill.copies": 8,
    "distill.device": None,
    "distill.directions": 4,
    "distill.adaptive_shots": False,
    "own_arms": {},
    "runtime.layout": None,
    "runtime.optimization_level": 3,
    "runtime.fractional": False,
    "runtime.readout_mitigation": False,
}


def list_recipes() -> dict[str, str]:
    """Return the built-in recipes: name -> the comment in the first line of its file."""
    return {
        path.stem: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")
        for path in sorted(_RECIPES.glob("*.yaml"))
    }


def load_recipe(source: str | Path, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a built-in recipe by name, or that of a YAML file by path.

    Args:
        source: `digits`, or the path of a file that ends in .yaml or .yml.
        overrides: Values by dotted key, for example `{"student.qubits": 6}`.

    Raises:
        RecipeError: An unknown recipe, an unknown key, a wrong type or an impossible combination.

    Example:
        >>> from qkd_qiskit import load_recipe
        >>> recipe = load_recipe("digits", {"student.layers": 3, "seeds": 10})
        >>> recipe.student.layers, recipe.data.train_per_class
        (3, 10)
        >>> load_recipe("digits", {"student.layer": 3})
        Traceback (most recent call last):
            ...
        qkd_qiskit.errors.RecipeError: ...
    """
    return parse_recipe(_read_tree(source), overrides=overrides)


def stated_keys(source: str | Path) -> set[str]:
    """Return the dotted keys that a user's own YAML file states; none for a built-in recipe.

    Raises:
        RecipeError: As `load_recipe`.
    """
    return set(_flatten(_read_tree(source))) if Path(source).suffix in _SUFFIXES else set()


def _read_tree(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if path.suffix not in _SUFFIXES:
        path = _RECIPES / f"{source}.yaml"
        if "\0" in str(source) or not path.is_file():
            known = list_recipes()
            raise RecipeError(
                f"recipe {shown(str(source))} is unknown; {nearest(str(source), known)}give one of "
                f"{', '.join(known)}, or a path ending in .yaml"
            )
    tree = _parse_yaml(_read_text(path), source=f"recipe {path}")
    if not isinstance(tree, dict):
        raise RecipeError(f"recipe {path} holds {shown(tree)}; a recipe is a tree of keys")
    return tree


def _read_text(path: Path) -> str:
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise RecipeError(f"recipe {path} cannot be read: it is no file; give a YAML file")
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            raise RecipeError(f"recipe {path} is larger than {_MOST_BYTES} bytes; give a YAML file")
        return content.decode("utf-8-sig")
    except RecipeError:
        raise
    except (OSError, ValueError) as error:  # not UTF-8, or a null byte in the path
        raise RecipeError(
            f"recipe {shown(str(path))[1:-1]} cannot be read: {error}; give a YAML file"
        ) from error


def _parse_yaml(text: str, *, source: str) -> Any:
    """Return what YAML text holds, if it can be written out in full."""
    try:
        if _bracket_depth(text) > _DEEPEST:  # which takes PyYAML minutes
            raise RecursionError
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None:
            return None
        if _count_values(root, {}) > _MOST_VALUES:
            raise RecipeError(
                f"{source} holds more than {_MOST_VALUES} values, its aliases written out; a "
                "recipe is a tree of keys"
            )
        _refuse_repeated_keys(root, source=source)
        return yaml.safe_load(text)
    except RecipeError:
        raise
    except RecursionError as error:
        raise RecipeError(f"{source} is not a recipe: it is nested too deeply") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        # The others are of values that YAML knows and Python cannot hold, as the date 2026-13-32.
        raise RecipeError(f"{source} is not YAML: {' '.join(str(error).split())}") from error


def _bracket_depth(text: str) -> int:
    steps = {"[": 1, "{": 1, "]": -1, "}": -1}
    return max(itertools.accumulate(steps[letter] for letter in text if letter in steps), default=0)


def _refuse_repeated_keys(root: yaml.Node, *, source: str) -> None:
    """Refuse what YAML would keep the last of, at the top and in the parts of a recipe."""
    if isinstance(root, yaml.MappingNode):
        written = [key.value for key, _ in root.value if isinstance(key, yaml.ScalarNode)]
        for key in written:
            if written.count(key) > 1:
                raise RecipeError(f"{source} has the key {shown(key)} twice; give it once")
        for _, part in root.value:
            _refuse_repeated_keys(part, source=source)


def _count_values(node: yaml.Node, counts: dict[int, int]) -> int:
    """Return the number of values below a node; one that holds itself counts as too many."""
    if id(node) not in counts:
        counts[id(node)] = _MOST_VALUES + 1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [child for pair in node.value for child in pair]
        counts[id(node)] = 1 + sum(_count_values(child, counts) for child in children)
    return counts[id(node)]


def parse_recipe(tree: Mapping[str, Any], *, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Return a recipe from a nested mapping, as YAML holds it; what it leaves out has its default.

    Raises:
        RecipeError: As `load_recipe`.
    """
    return _build(Recipe, _nest(_flatten(tree) | dict(overrides or {})))


def parse_spec(kind: type[Spec], values: Mapping[str, Any], *, section: str) -> Spec:
    """Return one part of a recipe from its values by field, as YAML or JSON holds them.

    Args:
        kind: `StudentSpec` or another dataclass of a recipe.
        values: Values by field; what they leave out has its default.
        section: Its key in a recipe, for example `student`.

    Raises:
        RecipeError: An unknown key, a wrong type or an impossible combination.
    """
    return _build(kind, values, section=section)


def _build(kind: type[Spec], values: Mapping[str, Any], *, section: str = "") -> Spec:
    if not isinstance(values, Mapping):
        raise RecipeError(f"{section}: {shown(values)} is not accepted; give a tree of keys")
    hints = type_hints(kind)
    keys = {field: f"{section}.{field}" if section else str(field) for field in values}
    read: dict[str, Any] = {}
    for field in values:
        if field not in hints:
            raise RecipeError(unknown_key(keys[field]))
    for field, value in values.items():
        hint = hints[field]
        read[field] = (
            _build(hint, value, section=field)
            if is_dataclass(hint) and isinstance(hint, type)
            else checked(keys[field], hint, value, text=True)
        )
    return kind(**read)


def dump_recipe(recipe: Recipe) -> str:
    """Return the recipe as YAML, which `load_recipe` reads back to an equal one.

    Every key is in it, but for those of `_LEFT_OUT` that have their defaults.
    """
    flat = flat_recipe(recipe)
    for key, default in _LEFT_OUT.items():
        if flat[key] == default:
            del flat[key]
    return yaml.safe_dump(_nest(flat), sort_keys=False, default_flow_style=None)


def flat_recipe(recipe: Recipe) -> dict[str, Any]:
    """Return every value by its dotted key, tuples as lists."""
    flat = _flatten(asdict(recipe))
    return {key: _listed(item) for key, item in flat.items()}


def _listed(value: Any) -> Any:
    """Return a value with lists for the tuples in it, and loss terms without what is not given."""
    if isinstance(value, dict):
        return {key: _listed(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_listed(_given(item)) for item in value]
    return value


def _given(item: Any) -> Any:
    if not isinstance(item, dict):
        return item
    return {key: value for key, value in item.items() if value is not None}


@cache
def recipe_keys() -> dict[str, Any]:
    """Return every key of a recipe by its dotted path, such as `student.qubits`, with its type."""
    keys: dict[str, Any] = {}
    for name, kind in type_hints(Recipe).items():
        nested = type_hints(kind) if name in sections() else {}
        keys |= {f"{name}.{key}": inner for key, inner in nested.items()} or {name: kind}
    return keys


@cache
def sections() -> dict[str, type]:
    """Return the parts of a recipe that are trees of keys, with their dataclasses."""
    return {
        name: kind
        for name, kind in type_hints(Recipe).items()
        if isinstance(kind, type) and is_dataclass(kind)
    }


def unknown_key(key: str) -> str:
    """Return the line for a key that no recipe has, with the nearest one or its siblings."""
    return no_such_key(key, recipe_keys())


def _flatten(tree: Mapping[Any, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if name in sections() and isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[str(name)] = value
    return flat


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for dotted, value in flat.items():
        group, _, key = dotted.partition(".")
        if key and group in sections():
            inner = tree.setdefault(group, {})
            if not isinstance(inner, dict):
                raise RecipeError(f"{group}: {shown(inner)} is not accepted; give a tree of keys")
            inner[key] = value
        else:
            tree[dotted] = value
    return tree
