"""Labels of any sort as classes 0, 1, ... with names.

Whole numbers, floats that are whole, text, one-hot rows and columns (N, 1) are taken. What the
labels are stays visible in the names of the classes, whatever numbers they get.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qkd_qiskit.data.containers import Array
from qkd_qiskit.errors import DataError

logger = logging.getLogger(__name__)

_GIVE = "give one class per image: whole numbers from 0, or text"


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set.

    Attributes:
        labels: The label of each class, int64 or text.
        names: The name of each class.
    """

    labels: Array
    names: tuple[str, ...]

    def numbers_of(
        self, labels: Array, *, what: str, all_present: bool = True
    ) -> npt.NDArray[np.int64]:
        """Return the class (N,) of each label.

        Raises:
            DataError: A label is none of the classes', or a class has no label where all must.
        """
        if labels.dtype.kind != self.labels.dtype.kind:
            raise DataError(
                f"labels of the {what} are {_sort(labels)}, those of the training images "
                f"{_sort(self.labels)}; give both in one way"
            )
        order = np.argsort(self.labels)
        known = self.labels[order]
        position = np.minimum(np.searchsorted(known, labels), len(known) - 1)
        strange = labels[known[position] != labels]
        if len(strange) and labels.dtype.kind == "i":
            raise DataError(
                f"labels of the {what} run from {labels.min()} to {labels.max()}; give "
                + (
                    f"0 to {len(known) - 1}"
                    if self.counted
                    else f"those of the training images, {_few(known)}"
                )
            )
        if len(strange):
            raise DataError(
                f"labels of the {what} hold {str(strange[0])!r}, which is no class; give "
                f"{_few(known)}"
            )
        numbers = order[position].astype(np.int64)
        if all_present:
            _require_all(numbers, self.names, what=f"{what.removesuffix(' images')} labels")
        return numbers

    @property
    def counted(self) -> bool:
        """Whether the labels are the numbers of the classes."""
        return self.labels.dtype.kind == "i" and bool(
            np.array_equal(self.labels, np.arange(len(self.labels)))
        )


def plain_labels(labels: Array, *, count: int, what: str) -> Array:
    """Return labels (N,) as int64 or text.

    Args:
        labels: (N,) or (N, 1) whole numbers, floats that are whole, or text; or one-hot (N, C).
        count: Number of images.
        what: What messages call the images.

    Raises:
        DataError: Not one label per image, or labels that are no classes: NaN, fractions, mixed
            types, numbers past 64 bits.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and len(labels) == count:
        return _from_one_hot(labels)
    if labels.shape != (count,):
        raise DataError(
            f"labels have shape {labels.shape} for {count} {what}; give one label per image"
        )
    if labels.dtype.kind == "O":
        labels = _from_objects(labels)
    if labels.dtype.kind == "S":
        labels = np.char.decode(labels, "utf-8", "replace")
    if labels.dtype.kind == "U":
        return _text_or_numbers(labels)
    if labels.dtype.kind == "f":
        _require_whole(labels)
    elif labels.dtype.kind not in "iub":
        raise DataError(f"labels are of type {labels.dtype}; {_GIVE}")
    if labels.dtype.kind == "u" and labels.max() > np.iinfo(np.int64).max:
        raise DataError(f"labels run up to {labels.max()}, a number that wrapped around; {_GIVE}")
    return labels.astype(np.int64)


def find_classes(labels: Array, *, class_names: Sequence[str] | None = None) -> Classes:
    """Return the classes of the training labels: 0, 1, ... as they are, others in sorted order.

    Args:
        labels: As `plain_labels` gives them.
        class_names: Names, one per class in the order of the classes; of text labels, these labels
            in the order wanted.

    Raises:
        DataError: Fewer than two classes, negative numbers other than -1 beside 1, or names that do
            not fit.
    """
    known = np.unique(labels)
    if labels.dtype.kind == "U":
        names = tuple(class_names or known.tolist())
        if sorted(names) != known.tolist() or len(names) < 2:
            raise DataError(
                f"labels hold {len(known)} classes, {_few(known)}, and class_names are "
                f"{_few(names)}; give the same text in both, two or more classes"
            )
        return Classes(np.array(names), names)
    if known[0] < 0 and known.tolist() != [-1, 1]:
        raise DataError(
            f"labels of the images run from {known[0]} to {known[-1]}; give 0 or more, and leave "
            "images without a class as unlabelled="
        )
    names = tuple(class_names or map(str, known.tolist()))
    counted = np.arange(len(names))
    if len(known) == len(names) > 1 and not np.array_equal(known, counted):
        logger.warning(
            "labels are %s: they become classes 0 to %d in this order, which keep them as names",
            _few(known),
            len(known) - 1,
        )
        return Classes(known, names)
    _require_all(labels, names, what="labels")
    return Classes(counted, names)


def _require_all(labels: Array, names: Sequence[str], *, what: str) -> None:
    known = np.unique(labels)
    absent = np.setdiff1d(np.arange(len(names)), known)
    if known[-1] >= len(names) or len(absent) or len(names) < 2:
        raise DataError(
            f"{what} hold {len(known)} classes up to {known[-1]}"
            + (f", none of class {absent[0]}" if len(absent) else "")
            + f", there are {len(names)} class names; give 0, 1, ... for two or more "
            "classes, each at least once"
        )


def _from_one_hot(labels: Array) -> npt.NDArray[np.int64]:
    if labels.dtype.kind not in "fiub" or not (
        np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()
    ):
        raise DataError(
            f"labels have shape {labels.shape} and are not one-hot (rows of one 1 and zeros); "
            f"{_GIVE}"
        )
    numbers: npt.NDArray[np.int64] = labels.argmax(axis=1).astype(np.int64)
    return numbers


def _from_objects(labels: Array) -> Array:
    items = labels.tolist()
    if all(isinstance(item, bytes) for item in items):
        items = [item.decode("utf-8", "replace") for item in items]
    if all(isinstance(item, str) for item in items):
        return np.array(items, dtype=np.str_)
    numbers = all(isinstance(item, int | float) for item in items)
    whole = all(isinstance(item, int) for item in items)
    try:
        if numbers:
            return np.array(items, dtype=np.int64 if whole else np.float64)
    except OverflowError as error:
        raise DataError(f"labels hold numbers past 64 bits; {_GIVE}") from error
    kinds = sorted({type(item).__name__ for item in items})
    raise DataError(f"labels are of mixed or missing values ({', '.join(kinds)}); {_GIVE}")


def _text_or_numbers(labels: Array) -> Array:
    """Whole numbers that are written as text are numbers, so that 10 comes after 9."""
    known, inverse = np.unique(labels, return_inverse=True)
    if not all(re.fullmatch("0|[1-9][0-9]{0,17}", text) for text in known.tolist()):
        return labels
    return np.array([int(text) for text in known.tolist()], dtype=np.int64)[inverse]


def _require_whole(labels: Array) -> None:
    bits = np.finfo(labels.dtype).nmant + 1  # from 2**bits on, not every whole number is a float
    labels = labels.astype(np.float64)
    finite = np.isfinite(labels)
    if not finite.all():
        raise DataError(
            f"labels hold NaN or infinite values, the first is number {np.argmin(finite)}; {_GIVE}"
        )
    whole = (labels == np.floor(labels)) & (np.abs(labels) < 2.0**bits)
    if not whole.all():
        raise DataError(
            f"labels hold {labels[np.argmin(whole)]}, which is no whole number below 2**{bits}, "
            f"up to which their type is exact; {_GIVE}"
        )


def _sort(labels: Array) -> str:
    return "text" if labels.dtype.kind == "U" else "numbers"


def _few(labels: Sequence[object] | Array) -> str:
    shown = [str(label)[:40] for label in labels[:5]]
    return ", ".join(shown) + (f", ... ({len(labels)} in all)" if len(labels) > 5 else "")
