"""What users hold their data in, as numpy arrays: torch, pandas, data sets and data loaders.

Pandas is not needed: whatever has `to_numpy` is asked for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
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
        convert = getattr(values, "to_numpy", None)
        return np.asarray(convert() if callable(convert) else values)
    except (ValueError, TypeError, RuntimeError) as error:
        raise DataError(
            f"{what} are a {type(values).__name__} that is no array ({first_line(error)}); "
            "give rows of equal length"
        ) from error


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
        return as_array(given, what=what), as_array(labels, what="labels")
    if isinstance(given, DataLoader | Dataset):
        return _read_dataset(given, what=what)
    if isinstance(given, tuple | list) and len(given) == 2:
        return image_label_arrays(*given, what=what)
    raise DataError(f"the {what} are a {type(given).__name__} without labels; {_PAIRS}")


def names_of_classes(given: Any) -> tuple[str, ...] | None:
    """Return the class names that a torch data set carries in `classes`, as torchvision's do."""
    names = getattr(getattr(given, "dataset", given), "classes", None)
    if isinstance(given, DataLoader | Dataset) and isinstance(names, list | tuple):
        return tuple(map(str, names)) or None
    return None


def _read_dataset(given: Any, *, what: str) -> tuple[Array, Array]:
    images, labels = [], []
    try:
        for pixels, classes in _batches(given):
            images.append(as_array(pixels, what=what))
            labels.append(np.atleast_1d(as_array(classes, what="labels")))
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
        return _single_items(given)
    sampler, dataset = given.sampler, given.dataset
    replaces = getattr(sampler, "replacement", False)
    shuffles = type(sampler) in (RandomSampler, SequentialSampler) and not replaces
    if not shuffles or given.batch_size is None or not hasattr(dataset, "__len__"):
        return given
    length = len(dataset)
    return (
        given.collate_fn([dataset[index] for index in range(start, stop)])
        for start in range(0, length, given.batch_size)
        for stop in [min(start + given.batch_size, length)]
    )


def _single_items(dataset: Any) -> Iterator[tuple[Any, Any]]:
    rows = iter(dataset) if isinstance(dataset, IterableDataset) else None
    for pixels, label in rows or (dataset[index] for index in range(len(dataset))):
        yield as_array(pixels, what="images")[None], label
