"""Frozen dataclasses as JSON objects and back.

The order of the keys is that of the fields. A field with the metadata `OMITTED` is left out where
it is None. Reading checks every value against the type of its field; what a file lacks takes the
default of the field, so that files of earlier versions load.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from qkd_qiskit.errors import CheckpointError

T = TypeVar("T")
Decoder = Callable[[Any], Any]
OMITTED = {"omitted": True}
"""Metadata of a field that is not written where it is None."""
_WORDS = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}


def encode(value: object) -> Any:
    """Return what JSON holds of a value; what is not finite becomes null."""
    if is_dataclass(value):
        return {
            item.name: encode(getattr(value, item.name))
            for item in fields(value)
            if getattr(value, item.name) is not None or not item.metadata.get("omitted")
        }
    if isinstance(value, Mapping):
        return {str(key): encode(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [encode(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def decode(kind: type[T], content: object, *, where: object) -> T:
    """Return a dataclass from what JSON holds of it.

    Args:
        kind: The dataclass.
        content: What `encode` gave, or an earlier version wrote.
        where: The file, for the error.

    Raises:
        CheckpointError: A value is missing or of another type.
    """
    try:
        value: T = _decoder(cast("Hashable", kind))(content)
    except ValueError as error:
        raise CheckpointError(
            f"{where} cannot be read: {str(error).removeprefix('.')}; delete it and run --resume "
            f"to write it again"
        ) from error
    return value


@cache
def _decoder(kind: Any) -> Decoder:
    """Return a function that reads values of a type, and raises ValueError for others."""
    origin, parts = get_origin(kind), get_args(kind)
    if is_dataclass(kind):
        return _object_decoder(kind)
    if origin in (Union, UnionType):
        (inner,) = (_decoder(part) for part in parts if part is not NoneType)
        return lambda content: None if content is None else inner(content)
    if origin is Mapping:
        return _mapping_decoder(_decoder(parts[1]))
    if origin in (tuple, list):
        return _sequence_decoder(origin, _decoder(parts[0]), None if ... in parts else len(parts))
    if origin is Literal:
        return _literal_decoder(parts)
    return _scalar_decoder(kind)


def _object_decoder(kind: Any) -> Decoder:
    hints = get_type_hints(kind)
    decoders = {item.name: _decoder(hints[item.name]) for item in fields(kind)}
    needed = {
        item.name
        for item in fields(kind)
        if item.default is MISSING and item.default_factory is MISSING
    }

    def read(content: Any) -> Any:
        _check(content, dict, "an object")
        for name in needed - content.keys():
            raise ValueError(f".{name} is missing")
        return kind(
            **{
                name: _inside(f".{name}", decoder, content[name])
                for name, decoder in decoders.items()
                if name in content
            }
        )

    return read


def _mapping_decoder(inner: Decoder) -> Decoder:
    def read(content: Any) -> dict[str, Any]:
        _check(content, dict, "an object")
        return {key: _inside(f".{key}", inner, item) for key, item in content.items()}

    return read


def _sequence_decoder(kind: type, inner: Decoder, length: int | None) -> Decoder:
    def read(content: Any) -> Any:
        _check(content, list, "a list")
        if kind is tuple and length not in (None, len(content)):
            raise ValueError(f" has {len(content)} entries, not {length}")
        return kind([inner(item) for item in content])

    return read


def _literal_decoder(accepted: tuple[Any, ...]) -> Decoder:
    def read(content: Any) -> Any:
        if content not in accepted:
            raise ValueError(f" is {content!r}, not one of {', '.join(map(str, accepted))}")
        return content

    return read


def _scalar_decoder(kind: Any) -> Decoder:
    if kind is object:
        return lambda content: content
    accepted = (int, float) if kind is float else kind

    def read(content: Any) -> Any:
        if content is None and kind is float:
            return math.nan  # as which null was written
        if not isinstance(content, accepted) or (isinstance(content, bool) and kind is not bool):
            raise ValueError(f" is {content!r}, not {_WORDS[kind]}")
        return content

    return read


def _check(content: Any, kind: type, name: str) -> None:
    if not isinstance(content, kind):
        raise ValueError(f" is {type(content).__name__}, not {name}")


def _inside(name: str, decoder: Decoder, content: Any) -> Any:
    try:
        return decoder(content)
    except ValueError as error:
        raise ValueError(f"{name}{error}") from None
