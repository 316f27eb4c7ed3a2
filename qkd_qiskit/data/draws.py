"""Balanced draws from classes, and what draws ask for."""

from __future__ import annotations

from collections.abc import Callable
from numbers import Integral
from typing import Literal

import torch

from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe.seeds import generator

Draw = Literal["random", "first"]


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


def draw_per_class(
    labels: torch.Tensor,
    per_class: int | None,
    *,
    draw: Draw,
    seed: int,
    class_names: tuple[str, ...],
) -> torch.Tensor:
    """Return the indices of so many training images of each class; see `Data.draw`.

    Raises:
        DataError: A class has fewer images than asked for.
    """
    require_one_of("draw", draw, ("random", "first"))
    if per_class is None:
        return torch.arange(len(labels))
    require_count("images per class", per_class)
    order = generator(seed, "draw")

    def choose(members: torch.Tensor) -> torch.Tensor:
        if draw == "first":
            return members[:per_class]
        return members[torch.randperm(len(members), generator=order)[:per_class]]

    return choose_per_class(
        labels,
        choose,
        least=per_class,
        class_names=class_names,
        what="training images (after validation is held out)",
    )


def draw_points(pool: int, points: int, *, draw: Draw, seed: int) -> torch.Tensor:
    """Return the indices of so many of the images of a pool; see `Data.draw_points`.

    Raises:
        DataError: The pool has fewer images than asked for.
    """
    require_one_of("draw", draw, ("random", "first"))
    require_count("training points", points)
    if points > pool:
        raise DataError(
            f"{points} training points are asked for, the pool has {pool} (after "
            "validation is held out); ask for fewer"
        )
    if draw == "first":
        return torch.arange(points)
    order = torch.randperm(pool, generator=generator(seed, "draw points"))
    return order[:points].sort().values
