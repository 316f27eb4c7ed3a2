"""Check the values of a recipe against the type hints of its dataclasses.

Every field is checked when its dataclass is made, so that Python, YAML and flags are refused alike:
in one line with the key, what was given and what is accepted.
"""

from __future__ import annotations

import difflib
import math
import re
import reprlib
import types
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import cache
from numbers import Integral, Real
from os import PathLike, fspath
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import yaml

from qkd_qiskit.errors import RecipeError, nearest

_INT64 = 2**63
_WORDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
_WORDS[type(None)] = "null"
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_NULL = ("null", "~")
_LONGEST_WORD = 100  # a longer one is no misspelt name
_SHORT = reprlib.Repr()
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxdict = 40
_SHORT.maxlevel, _SHORT.maxstring, _SHORT.maxother, _SHORT.maxlong = 3, 120, 120, 60


@dataclass(frozen=True, kw_only=True)
class Range:
    """Which numbers a field accepts, as `Annotated[int, Range(...)]`.

    Attributes:
        accepted: What error texts call them.
        least: Smallest number that is accepted.
        most: Largest number that is accepted.
        above: Number that all accepted ones are larger than.
        below: Number that all accepted ones are smaller than.
    """

    accepted: str
    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Say whether a number is accepted."""
        return (
            (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )


def whole_number(*, most: int, least: int = 1) -> Range:
    """Return the whole numbers from `least` to `most`."""
    return Range(
        accepted=f"a whole number of at least {least}, at most {most}", least=least, most=most
    )


Seed = Annotated[int, Range(accepted="a whole number of at least 0", least=0)]
Count = Annotated[int, whole_number(most=10**9)]
Epochs = Annotated[int, whole_number(most=100_000)]
BatchSize = Annotated[int, whole_number(most=1_000_000)]
Width = Annotated[int, whole_number(most=10_000)]
# What comes near the largest 32-bit number overflows in the optimizer.
LearningRate = Annotated[
    float, Range(accepted="a number above 0, at most 1e+30", above=0, most=1e30)
]
Temperature = Annotated[float, Range(accepted="a number above 0, at most 1000", above=0, most=1000)]
Weight = Annotated[float, Range(accepted="a finite number, 0 or more", least=0)]
Positive = Annotated[float, Range(accepted="a number above 0", above=0)]
Share = Annotated[float, Range(accepted="a share between 0 and 1", above=0, below=1)]


class _RefusedError(Exception):
    """A value that a type hint does not accept, as far as it could be read."""

    def __init__(self, value: object) -> None:
        super().__init__()
        self.value = value


def no_such_key(key: str, known: Collection[str]) -> str:
    """Return the line for a key that no recipe has, with the nearest known one or its siblings."""
    near = difflib.get_close_matches(key[:_LONGEST_WORD], known, n=1, cutoff=0.6)
    group = key.partition(".")[0] + "."
    siblings = [name for name in known if name.startswith(group)]
    keys = f"the keys are {', '.join(siblings)}" if siblings else "see `qkd distill --help`"
    hint = f"did you mean {near[0]}?" if near else keys
    return f"{shown(key)[1:-1]}: no such key in a recipe; {hint}"


def require(condition: bool, key: str, given: object, accepted: str) -> None:
    """Refuse what was given for a key, and say what is accepted.

    Raises:
        RecipeError: The condition does not hold.
    """
    if not condition:
        raise RecipeError(f"{key}: {shown(given)} is not accepted; give {accepted}")


def check_fields(spec: Any, section: str = "") -> None:
    """Check every field of a new dataclass against its type hint, and store it in that type.

    Whole numbers become floats where a number is meant, lists become tuples.

    Args:
        spec: The dataclass, frozen or not.
        section: What its keys begin with in a recipe.

    Raises:
        RecipeError: A value is not accepted.
    """
    hints = type_hints(type(spec))
    for field in fields(spec):
        key = f"{section}.{field.name}" if section else field.name
        value = checked(key, hints[field.name], getattr(spec, field.name))
        object.__setattr__(spec, field.name, value)


def checked(key: str, kind: Any, given: object, *, text: bool = False) -> Any:
    """Return what was given for a key as the type that is hinted at.

    Args:
        key: What error texts name.
        kind: Type hint.
        given: The value.
        text: Whether numbers, truth values and lists may be given as text, as in a flag.

    Raises:
        RecipeError: The value is not accepted.
    """
    try:
        return _conform(kind, given, text=text)
    except _RefusedError as refused:
        sound = not isinstance(refused.value, str) or _is_sound(refused.value)
        wanted = accepted(kind) if sound else "text without null bytes and broken characters"
        raise RecipeError(
            f"{key}: {shown(refused.value)} is not accepted; {_meant(kind, refused.value)}"
            f"give {wanted}"
        ) from None


def type_hints(kind: Any) -> dict[str, Any]:
    """Return the type hints of a dataclass by field, ranges included."""
    return _type_hints(kind)


@cache
def _type_hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def is_optional(kind: Any) -> bool:
    """Say whether a type hint accepts null."""
    return type(None) in get_args(kind)


def is_null(text: str) -> bool:
    """Say whether text in a flag means null."""
    return text.lower() in _NULL


def names(kind: Any) -> list[str]:
    """Return every name that a literal type, or a type made of one, accepts."""
    arguments = get_args(kind)
    if get_origin(kind) is Literal:
        return list(arguments)
    return [name for argument in arguments for name in names(argument)]


def accepted(kind: Any) -> str:
    """Return what error texts say of a type hint."""
    arguments = get_args(kind)
    origin = get_origin(kind)
    if origin is Annotated:
        return str(arguments[1].accepted)
    if origin is Literal:
        return "one of " + ", ".join(arguments) if len(arguments) > 1 else str(arguments[0])
    if origin is tuple:
        item = arguments[0]
        keys = f"{{{', '.join(type_hints(item))}}}" if is_dataclass(item) else accepted(item)
        return f"a list [a, b, ...], each {keys}"
    if origin is dict:
        return "a tree of keys"
    if arguments:
        return " or ".join(accepted(argument) for argument in arguments)
    return _WORDS.get(kind) or f"a {kind.__name__}"


def shown(value: object) -> str:
    """Return the value as error texts show it: in one line, long ones shortened."""
    try:
        return " ".join(_SHORT.repr(value).split())
    except ValueError:  # Python prints no number of thousands of digits
        return f"{type(value).__name__} of too many digits"


def _conform(kind: Any, value: Any, *, text: bool) -> Any:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        number = _conform(arguments[0], value, text=text)
        if not arguments[1].holds(number):
            raise _RefusedError(number)
        return number
    if origin in (Union, types.UnionType):
        return _conform_to_any(arguments, value, text=text)
    if origin is tuple:
        if text and isinstance(value, str) and is_dataclass(arguments[0]):
            value = _read_yaml(value)
        elif text and isinstance(value, str) and value:
            items = value.removeprefix("[").removesuffix("]").rstrip().removesuffix(",").split(",")
            value = [item.strip().strip("'\"") for item in items]
        if isinstance(value, Sequence) and not isinstance(value, str | bytes):
            try:
                return tuple(_conform_item(arguments[0], item, text=text) for item in value)
            except _RefusedError:
                raise _RefusedError(value) from None
    elif origin is Literal:
        if isinstance(value, str) and value in arguments:
            return value
    elif origin is dict:
        value = _read_yaml(value) if text and isinstance(value, str) else value
        if isinstance(value, Mapping):
            key_kind, item_kind = arguments
            return {
                _conform(key_kind, key, text=False): _conform(item_kind, item, text=False)
                for key, item in value.items()
            }
    elif kind is Any:
        return value
    elif kind in _SCALARS:
        return _SCALARS[kind](value, text)
    elif is_dataclass(kind) and isinstance(kind, type) and isinstance(value, kind):
        return value
    raise _RefusedError(value)


def _conform_item(kind: Any, values: Any, *, text: bool) -> Any:
    """Return what an item of a list was given as; a dataclass can be a mapping, as in YAML."""
    if not isinstance(values, Mapping) or not is_dataclass(kind):
        return _conform(kind, values, text=text)
    hints, needed = type_hints(kind), {field.name for field in fields(kind) if _is_needed(field)}
    if not needed <= set(values) <= set(hints):
        raise _RefusedError(values)
    read = dict(values)
    for name, value in values.items():
        with suppress(_RefusedError):  # it is refused below, by its own name
            read[name] = _conform(hints[name], value, text=text)
    assert isinstance(kind, type)
    return kind(**read)


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read_yaml(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError):
        raise _RefusedError(text) from None


def _conform_to_any(kinds: Sequence[Any], value: Any, *, text: bool) -> Any:
    for kind in kinds:
        try:
            return _conform(kind, value, text=text)
        except _RefusedError as error:
            if get_origin(kind) is Annotated and type(error.value) is not type(value):
                raise  # it could be read, and is out of range
    raise _RefusedError(value)


def _boolean(value: Any, text: bool) -> bool:
    if text and isinstance(value, str):
        value = _TRUTH.get(value.lower(), value)
    if not isinstance(value, bool):
        raise _RefusedError(value)
    return value


def _whole(value: Any, text: bool) -> int:
    value = _read_number(int, value) if text else value
    if isinstance(value, bool) or not isinstance(value, Integral) or abs(int(value)) >= _INT64:
        raise _RefusedError(value)
    return int(value)


def _number(value: Any, text: bool) -> float:
    value = _read_number(float, value) if text else value
    if isinstance(value, bool) or not isinstance(value, Real):
        raise _RefusedError(value)
    try:
        number = float(value)
    except OverflowError:
        raise _RefusedError(value) from None
    if not math.isfinite(number):
        raise _RefusedError(number)
    return number


def _text(value: Any, text: bool) -> str:
    if isinstance(value, PathLike):
        value = fspath(value)
    if not isinstance(value, str) or not _is_sound(value):
        raise _RefusedError(value)
    return value


def _nothing(value: Any, text: bool) -> None:
    if value is not None:
        raise _RefusedError(value)


_SCALARS: dict[Any, Any] = {
    bool: _boolean,
    int: _whole,
    float: _number,
    str: _text,
    type(None): _nothing,
}


def _read_number(kind: type, value: Any) -> Any:
    try:
        return kind(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _is_sound(text: str) -> bool:
    """Say whether text can be a path and be written to a file."""
    return "\0" not in text and not any("\ud800" <= letter <= "\udfff" for letter in text)


def _meant(kind: Any, value: object) -> str:
    """Return a question for the first name that is not accepted, but like one that is."""
    known = names(kind)
    given = value if isinstance(value, list | tuple) else [value]
    for item in given if known else ():
        for word in re.findall(r"\w+", item) if isinstance(item, str) else ():
            if word not in known and (hint := nearest(word, known)):
                return hint
    return ""
