"""Describe recipes: each key in words, and all of them as a JSON Schema for editors."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, Field, asdict, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin

from qkd_qiskit.recipe.arms import ARMS
from qkd_qiskit.recipe.recipe import Recipe
from qkd_qiskit.recipe.validation import Range, type_hints

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}
_LIMITS = {
    "least": "minimum",
    "most": "maximum",
    "above": "exclusiveMinimum",
    "below": "exclusiveMaximum",
}


@cache
def field_descriptions(kind: type) -> dict[str, str]:
    """Return the text of each field in the `Attributes:` of a dataclass's docstring."""
    _, _, text = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.split(r"^ {4}(\w+): ", text, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(words.split())
        for name, words in zip(entries[::2], entries[1::2], strict=True)
    }


def summary(kind: type) -> str:
    """Return the first line of a dataclass's docstring, without its full stop."""
    return (kind.__doc__ or "").strip().splitlines()[0].removesuffix(".")


def recipe_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a recipe's YAML file.

    It knows every key with its type, range, default and meaning; which values go together is
    checked when a recipe is read.
    """
    built_in = {"arms": {"items": {"enum": list(ARMS)}}}
    return {
        "$schema": _DIALECT,
        "title": "qkd recipe",
        **_object_schema(Recipe),
        "if": {"not": {"required": ["own_arms"]}},
        "then": {"properties": built_in},
    }


def _object_schema(kind: type) -> dict[str, Any]:
    hints, described = type_hints(kind), field_descriptions(kind)
    properties = {}
    for field in fields(kind):
        entry = _type_schema(hints[field.name])
        default = _default(field)
        if default is not MISSING and not is_dataclass(default):
            entry["default"] = list(default) if isinstance(default, tuple) else default
        properties[field.name] = {**entry, "description": described[field.name]}
    return {
        "description": summary(kind),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
    }


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _type_schema(kind: Any) -> dict[str, Any]:
    arguments, origin = get_args(kind), get_origin(kind)
    if origin is Annotated:
        limits: Range = arguments[1]
        given = {key: value for key, value in asdict(limits).items() if value is not None}
        return _type_schema(arguments[0]) | {
            name: given[key] for key, name in _LIMITS.items() if key in given
        }
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1])}
    if kind is Any:
        return {}
    if origin is tuple:
        return {"type": "array", "items": _type_schema(arguments[0])}
    if arguments:
        return {"anyOf": [_type_schema(argument) for argument in arguments]}
    return _object_schema(kind) if kind not in _TYPES else {"type": _TYPES[kind]}
