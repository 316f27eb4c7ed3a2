"""What another classifier said of your images, beside them: logits or probabilities per class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from qkd_qiskit.data.containers import as_array
from qkd_qiskit.errors import DataError

SoftLabels = npt.NDArray[np.float32]
_SMALLEST = 1e-12  # of a probability: its logarithm stays finite


def soft_labels(
    given: Mapping[str, Any], *, suffix: str = "", count: int, num_classes: int, what: str
) -> SoftLabels | None:
    """Return a teacher's logits `(count, num_classes)` for images; None where none are given.

    Args:
        given: `teacher_logits` or `teacher_probabilities`, each with the suffix.
        suffix: What the names end in.
        count: Number of the images.
        num_classes: Number of classes; a column for each, in their order.
        what: What messages call the images.

    Raises:
        DataError: Both are given, or one of another shape, of no real numbers or not finite, or
            logits that are probabilities, or probabilities that are none.
    """
    names = [f"{name}{suffix}" for name in ("teacher_logits", "teacher_probabilities")]
    known = [name for name in names if given.get(name) is not None]
    if len(known) == 2:
        raise DataError(f"{' and '.join(known)} are both given; give one of them")
    if not known:
        return None
    (name,) = known
    values = _numbers(as_array(given[name], what=name), name=name)
    if values.shape != (count, num_classes):
        raise DataError(
            f"{name} have shape {values.shape}; give {(count, num_classes)}, a row for each of the "
            f"{what} and a column for each class, in the order of the classes"
        )
    broken = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(broken):
        raise DataError(
            f"{name} hold NaN or infinite values in {len(broken)} of {count} rows, the first is "
            f"number {broken[0]}; mend them or leave {name} out"
        )
    sums = values.sum(axis=1)
    probable = bool((values >= 0).all()) and bool(np.allclose(sums, 1, rtol=0, atol=5e-3))
    if name.startswith("teacher_logits"):
        if probable:
            raise DataError(
                f"{name} are 0 or more and of sum 1 in every row, as probabilities are; name them "
                f"{names[1]}, or give logits"
            )
        return values
    if not probable:
        raise DataError(
            f"{name} are no probabilities: they go from {values.min():.4g} to {values.max():.4g}, "
            f"with sums from {sums.min():.4g} to {sums.max():.4g}; give rows of sum 1, or name "
            f"them {names[0]}"
        )
    logits: SoftLabels = np.log(np.maximum(values, np.float32(_SMALLEST)))
    return logits


def _numbers(values: npt.NDArray[Any], *, name: str) -> SoftLabels:
    if values.dtype.kind not in "fiu":
        raise DataError(f"{name} are of type {values.dtype}; give real numbers")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused
        return values.astype(np.float32)
