"""The keys of a recipe as options of a command: `--student.qubits 6 --targets exact,aer`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, get_args

from jsonargparse import ArgumentParser, Namespace

from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import flat_recipe, load_recipe, recipe_from, recipe_keys

COMMANDS = ("distill", "study")
"""The commands that take a recipe and its keys."""
DEFAULT_RECIPE = "digits"
_LONGEST_CHOICES = 60


def add_keys(parser: ArgumentParser, *, recipe: str | None) -> None:
    """Add the recipe and all its keys, with the values of the recipe where it is known."""
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a built-in recipe (`qkd recipes` lists them), or path of a YAML file; "
        f"without one: {DEFAULT_RECIPE}",
    )
    parser.add_class_arguments(Recipe)
    for action in parser._actions:
        choices = ",".join(map(str, get_args(recipe_keys().get(action.dest))))
        if len(choices) > _LONGEST_CHOICES:  # they do not wrap, and the text has them too
            action.metavar = action.dest.rpartition(".")[2].upper()
    if recipe is not None:
        parser.set_defaults(flat_recipe(load_recipe(recipe)))


def given_recipe(options: Namespace) -> Recipe:
    """The recipe with the keys that were given.

    Raises:
        RecipeError: A value or a combination of values is not accepted.
    """
    values: dict[str, Any] = options.as_dict()
    return recipe_from({key: values[key] for key in sections()})


def sections() -> list[str]:
    """The first parts of the recipe's keys."""
    return list(dict.fromkeys(key.partition(".")[0] for key in recipe_keys()))


def bracket_lists(words: Sequence[str]) -> list[str]:
    """Let a list be written `a,b` or, where only a list is accepted, `a`."""
    result: list[str] = []
    for word in words:
        flag, equals, value = word.partition("=")
        if not equals and result and result[-1].startswith("--"):
            flag, value = result[-1], word
        kind = str(recipe_keys().get(flag.removeprefix("--"), ""))
        only_list = kind.startswith("tuple") and not value.startswith("-") and value != "null"
        if value and "tuple" in kind and value[0] != "[" and ("," in value or only_list):
            value = f"[{value}]"
            if equals:
                result.append(f"{flag}={value}")
            else:
                result.append(value)
        else:
            result.append(word)
    return result
