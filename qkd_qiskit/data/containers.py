"""What users hold their data in, as numpy arrays: torch, pandas, data sets and data loaders.

Pandas is not needed: whatever has `to_numpy` is asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler

from qkd_qiskit.errors import DataError, QKDError, first_line

Array = npt.NDArray[Any]
_PAIRS = "give (images, labels), or a torch Dataset or DataLoader of such pairs"


def as_array(values: Any, *, what: str) -> Array:
    """Return numpy, torch or pandas values, or nested lists, as one numpy array.

    Args:
        values: What was given.
        what: What the message calls it.

    Raises:
        DataError: They are no array, such as rows of different lengths.
    """
    try:
        if isinstance(values, torch.Tensor):
            tensor = values.detach().cpu().resolve_conj().resolve_neg()
            return (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        # Of pandas; of scipy's sparse matrices.
        convert = getattr(values, "to_numpy", getattr(values, "toarray", None))
        array = np.asanyarray(convert() if callable(convert) else values)
        if array.dtype.kind in "US" and array.ndim == 1 and isinstance(values, list | tuple):
            array = _without_numbers_as_text(array, values)
        plain = _stacked(np.asarray(array), what=what)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{what} are a {type(values).__name__} that is no array ({first_line(error)}); "
            "give rows of equal length"
        ) from error
    if isinstance(array, np.ma.MaskedArray) and np.any(array.mask):
        raise DataError(
            f"{what} are a masked array that hides {np.sum(array.mask)} values; fill them or leave "
            "them out"
        )
    return plain


def _without_numbers_as_text(array: Array, values: Sequence[Any]) -> Array:
    """Return mixed items as they are: numpy writes numbers beside text as text."""
    mixed = not all(isinstance(item, str | bytes) for item in values)
    return np.array(values, dtype=object) if mixed else array


def _stacked(array: Array, *, what: str) -> Array:
    """Return an array of arrays, such as a column of images in pandas, as one array."""
    items = array.tolist() if array.dtype.kind == "O" and array.ndim == 1 else []
    if not items or not all(hasattr(i, "__array__") or isinstance(i, list | tuple) for i in items):
        return array
    arrays = [as_array(item, what=what) for item in items]
    kinds = {item.dtype.kind in "USO" for item in arrays}
    return np.stack(arrays) if len(kinds) == 1 else array


def image_label_arrays(given: Any, labels: Any = None, *, what: str) -> tuple[Array, Array]:
    """Return images and labels as two arrays.

    A data set is read in its own order, once; a data loader too where it would only shuffle, else
    in the order in which it gives its batches.

    Args:
        given: Images where `labels` are given; else a pair (images, labels), a torch Dataset of
            pairs or a DataLoader of batches.
        labels: Labels.
        what: What the message calls the images.

    Raises:
        DataError: There are no labels, or the data set fails.
    """
    if labels is not None:
        _require_same_order(given, labels, what=what)
        return as_array(given, what=what), as_array(labels, what="labels")
    if isinstance(given, DataLoader | Dataset):
        return _read_dataset(given, what=what)
    if isinstance(given, tuple | list) and len(given) == 2:
        return image_label_arrays(*given, what=what)
    raise DataError(f"the {what} are a {type(given).__name__} without labels; {_PAIRS}")


def _require_same_order(given: Any, labels: Any, *, what: str) -> None:
    """Refuse pandas images and labels of the same rows in another order."""
    index: Any = getattr(given, "index", None)
    other: Any = getattr(labels, "index", None)
    if not (hasattr(index, "equals") and hasattr(other, "equals")) or index.equals(other):
        return
    if len(index) == len(other) and set(index) == set(other):
        raise DataError(
            f"the rows of the labels are those of the {what} in another order, by their index; "
            "give labels.loc[images.index], or reset both indices"
        )


def order_of_categories(labels: Any) -> tuple[str, ...] | None:
    """Return the categories of pandas labels that occur, in their order; None for others."""
    categories = getattr(getattr(labels, "dtype", None), "categories", None)
    if categories is None:
        return None
    known = set(labels.unique())
    return tuple(str(category) for category in categories if category in known)


def names_of_classes(given: Any) -> tuple[str, ...] | None:
    """Return the class names that a torch data set carries in `classes`, as torchvision's do."""
    names = getattr(getattr(given, "dataset", given), "classes", None)
    if isinstance(given, DataLoader | Dataset) and isinstance(names, list | tuple):
        return tuple(map(str, names)) or None
    return None


def _read_dataset(given: Any, *, what: str) -> tuple[Array, Array]:
    images, labels = [], []
    try:
        for item in _batches(given):
            if not isinstance(item, tuple | list) or len(item) != 2:
                raise DataError(
                    f"the {type(given).__name__} of {what} gives a {type(item).__name__} that is "
                    f"no pair; {_PAIRS}"
                )
            image, label = as_array(item[0], what=what), as_array(item[1], what="labels")
            # A loader with batch_size None gives items, or whole batches.
            single = not isinstance(given, DataLoader) or label.ndim == 0
            images.append(image[None] if single else image)
            labels.append(label[None] if single else label)
        if not images:
            raise DataError(f"the {type(given).__name__} of {what} is empty; {_PAIRS}")
        return np.concatenate(images), np.concatenate(labels)
    except QKDError:
        raise
    except (Exception, SystemExit) as error:  # the user's data set may fail in any way
        raise DataError(
            f"the {type(given).__name__} of {what} cannot be read "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason'})"
            f"; {_PAIRS}"
        ) from error


def _batches(given: Any) -> Iterable[Any]:
    if not isinstance(given, DataLoader):
        if isinstance(given, IterableDataset):
            return given
        return (given[index] for index in range(len(given)))
    sampler, dataset = given.sampler, given.dataset
    replaces = getattr(sampler, "replacement", False)
    shuffles = type(sampler) in (RandomSampler, SequentialSampler) and not replaces
    if not shuffles or given.batch_size is None or not hasattr(dataset, "__len__"):
        return given
    length = len(dataset)
    if getattr(sampler, "num_samples", length) != length:
        return given
    return (
        given.collate_fn([dataset[index] for index in range(start, stop)])
        for start in range(0, length, given.batch_size)
        for stop in [min(start + given.batch_size, length)]
    )
