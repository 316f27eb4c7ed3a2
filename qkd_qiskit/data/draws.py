"""Balanced draws from classes, and what draws ask for."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral

import torch

from qkd_qiskit.errors import DataError


def require_one_of(key: str, given: object, accepted: tuple[object, ...]) -> None:
    """Refuse what is none of the accepted values.

    Raises:
        DataError: It is none of them.
    """
    if given not in accepted:
        raise DataError(f"{key} is {given!r}; give one of {', '.join(map(str, accepted))}")


def require_count(what: str, given: object) -> None:
    """Refuse what is no number of things.

    Raises:
        DataError: It is no whole number of at least 1.
    """
    if isinstance(given, bool) or not (isinstance(given, Integral) and int(given) >= 1):
        raise DataError(f"{given!r} {what} are asked for; give a whole number of at least 1")


def choose_per_class(
    labels: torch.Tensor,
    choose: Callable[[torch.Tensor], torch.Tensor],
    *,
    least: int,
    class_names: tuple[str, ...],
    what: str,
) -> torch.Tensor:
    """Return, sorted, what `choose` takes of the indices of each class.

    Args:
        labels: Class of each item.
        choose: Takes the indices of a class, and returns some of them.
        least: Items that every class must have.
        class_names: Name of each class.
        what: What the message calls the items.

    Raises:
        DataError: A class has fewer items.
    """
    chosen = []
    for label, name in enumerate(class_names):
        members = torch.nonzero(labels == label).flatten()
        if len(members) < least:
            raise DataError(
                f"class {name!r} has {len(members)} {what}, {least} per class are asked for; "
                "ask for fewer or leave the class out"
            )
        chosen.append(choose(members))
    return torch.cat(chosen).sort().values
