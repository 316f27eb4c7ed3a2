"""The keys of a recipe as options of a command: `--student.qubits 6 --targets exact,aer`."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.recipe import ARMS, FILTER_STUDENTS, TWINS, Recipe
from qkd_qiskit.recipe.parsing import (
    flat_recipe,
    list_recipes,
    load_recipe,
    recipe_keys,
    sections,
    stated_keys,
    unknown_key,
)
from qkd_qiskit.recipe.schema import field_descriptions, summary
from qkd_qiskit.recipe.validation import accepted, is_null, is_optional, names, type_hints

DEFAULT_RECIPE = "digits"
TARGET_KEYS = ("targets", "distill.train_target", "teacher.target")
_LONGEST_CHOICES = 60

ARMS_HELP = "\n".join(
    ["arms:", *(f"  {name:<20}  {arm.description}" for name, arm in ARMS.items())]
)
"""What each arm is, a line each."""


def add_keys(
    parser: CommandParser, words: Sequence[str], *, defaults: Mapping[str, Any] | None = None
) -> None:
    """Add the recipe and all its keys.

    Args:
        parser: The parser of the command.
        words: What was typed after the command; help shows the values of the recipe named first.
        defaults: Values by key that the command has in place of the recipe's.
    """
    parser.unknown_flag = _unknown_flag
    parser.add_argument(
        "recipe",
        nargs="?",
        help="a built-in recipe (`qkd recipes` lists them), or path of a YAML file; "
        f"without one: {DEFAULT_RECIPE}",
        values=list(list_recipes()),
    )
    values: dict[str, Any] = {}
    if {"-h", "--help"} & set(words):
        named = words[0] if words and not words[0].startswith("-") else DEFAULT_RECIPE
        values = flat_recipe(load_recipe(named)) | _unless_stated(named, defaults or {})
    add_key_options(parser, values)


def add_key_options(
    parser: CommandParser, values: Mapping[str, Any], *, only: tuple[str, ...] = ("",)
) -> None:
    """Add keys of a recipe.

    Args:
        parser: The parser of the command.
        values: Their defaults, as help shows them; a key without one follows from the run.
        only: How the keys begin that are added.
    """
    own = parser.add_argument_group(summary(Recipe))
    for field, kind in type_hints(Recipe).items():
        if is_dataclass(kind) and isinstance(kind, type):
            inner = [name for name in type_hints(kind) if f"{field}.{name}".startswith(only)]
            if inner:
                text = field_descriptions(Recipe)[field].removesuffix(".")
                group = parser.add_argument_group(text)
            for name in inner:
                text = field_descriptions(kind)[name]
                _add_key(parser, group, f"{field}.{name}", text, values)
        elif field.startswith(only):
            _add_key(parser, own, field, field_descriptions(Recipe)[field], values)


def given_keys(options: Namespace) -> dict[str, Any]:
    """Return the keys of a recipe that were given, with their values."""
    given = {key: value for key, value in vars(options).items() if key in recipe_keys()}
    for key, value in given.items():
        if is_optional(recipe_keys()[key]) and is_null(value):
            given[key] = None
    return given


def _add_key(
    parser: CommandParser, group: Any, key: str, text: str, values: Mapping[str, Any]
) -> None:
    kind = recipe_keys()[key]
    choices = "{" + ",".join(names(kind)) + "}"
    # Longer ones do not wrap, and names beside numbers are not all that is accepted.
    short = len(choices) in range(3, _LONGEST_CHOICES) and "number" not in accepted(kind)
    wanted = "" if short else f"{accepted(kind)}; "
    default = _written(values[key]) if key in values else "from RUN"
    group.add_argument(
        f"--{key}",
        default=SUPPRESS,
        metavar=choices if short else key.rpartition(".")[2].upper(),
        help=f"{text} ({wanted}default: {default})".replace("%", "%%"),
    )
    parser.values[f"--{key}"] = tuple(_choices(key, kind))


def _choices(key: str, kind: Any) -> list[str]:
    """Return what a shell offers as the value of a key; none where it is not a choice."""
    if key == "arms":
        return list(ARMS)
    if key in TARGET_KEYS:
        return [TARGETS]
    return ["true", "false"] if kind is bool else names(kind)


def _written(value: object) -> str:
    """Return a value as a recipe gives it, in words that wrap."""
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return (
        "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    )


def given_recipe(options: Namespace, *, defaults: Mapping[str, Any] | None = None) -> Recipe:
    """Return the recipe with the keys that were given.

    Args:
        options: What was parsed.
        defaults: Values by key that the command has in place of the recipe's, where no file of the
            user states them.

    Raises:
        RecipeError: A value or a combination of values is not accepted.
    """
    source = options.recipe or DEFAULT_RECIPE
    given = given_keys(options)
    unstated = _unless_stated(source, defaults or {})
    if "arms" in unstated and "arms" not in given:
        kind = given.get("student.kind") or load_recipe(source).student.kind
        if kind in FILTER_STUDENTS:  # twins are those of a circuit with a read-out
            twins = [arm for arm in unstated["arms"] if arm in ARMS and ARMS[arm].kind in TWINS]
            unstated["arms"] = [arm for arm in unstated["arms"] if arm not in twins]
    return load_recipe(source, unstated | given)


def _unless_stated(source: str, defaults: Mapping[str, Any]) -> dict[str, Any]:
    stated = stated_keys(source) if defaults else set()
    unstated = {key: value for key, value in defaults.items() if key not in stated}
    if "arms" in unstated and "own_arms" in stated:
        unstated["arms"] = [*unstated["arms"], *load_recipe(source).own_arms]
    return unstated


def _unknown_flag(flag: str) -> str:
    if flag in sections():
        return f"--{flag} is a group of keys; give its keys one by one, see `qkd distill --help`"
    return unknown_key(flag)
