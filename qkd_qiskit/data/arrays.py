"""Your own images or feature vectors: checked, and read from an .npz file."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qkd_qiskit.data.sources import Source
from qkd_qiskit.errors import DataError

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

_NAMES = ("images", "labels", "test_images", "test_labels", "class_names")
_HOW = (
    "write it with numpy.savez(path, images=images, labels=labels), if you like with test_images, "
    "test_labels and class_names"
)


def read_arrays(path: str | Path, *, digest: str | None = None) -> Source:
    """Return the arrays in an .npz file: images and labels, perhaps a test set and class names.

    Args:
        path: File as `numpy.savez` writes it; nothing in it is unpickled.
        digest: SHA-256 that the file must have; None = any.

    Raises:
        DataError: The file is missing, is no such file or has changed, or its arrays cannot be
            trained on; see `check_arrays`.
    """
    if digest is not None and file_digest(path) != digest:
        raise DataError(
            f"data.file: {path} has changed since the run began (data.digest); bring the old file "
            "back, or start a new run with data.digest null"
        )
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = {name: np.asarray(file[name]) for name in file.files}
    except OSError as error:
        raise _unreadable(path, error) from error
    except (ValueError, EOFError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise DataError(f"data.file: {path} is not an .npz file of plain arrays; {_HOW}") from error
    strange = sorted(found.keys() - set(_NAMES))
    missing = [name for name in _NAMES[:2] if name not in found]
    if strange or missing or ("test_images" in found) != ("test_labels" in found):
        raise DataError(f"data.file: {path} holds {', '.join(found) or 'nothing'}; {_HOW}")
    try:
        return check_arrays(
            found["images"],
            found["labels"],
            test=(found["test_images"], found["test_labels"]) if "test_images" in found else None,
            class_names=tuple(map(str, np.atleast_1d(found["class_names"])))
            if "class_names" in found
            else None,
        )
    except DataError as error:
        raise DataError(f"data.file: {path}: {error}") from error


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a data file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        with Path(path).open("rb") as file:
            digest = hashlib.sha256()
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def check_arrays(
    images: npt.ArrayLike,
    labels: npt.ArrayLike,
    *,
    test: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    class_names: Sequence[str] | None = None,
) -> Source:
    """Return arrays as a data set with images (N, channels, height, width), float32.

    Args:
        images: (N, channels, height, width), (N, height, width) of one channel, or (N, features),
            which become images of shape (1, 1, features). uint8 values are divided by 255, others
            are taken as they are.
        labels: (N,) whole numbers, each of 0 .. num_classes - 1 at least once.
        test: Test images and labels.
        class_names: Names, one per class; default: the labels.

    Raises:
        DataError: Arrays that do not belong together, values that are not finite, or labels that
            are not 0 .. num_classes - 1.
    """
    given = _checked(images, labels, what="images", num_classes=None)
    num_classes = len(class_names) if class_names else int(given[1].max()) + 1
    names = tuple(class_names or (str(label) for label in range(num_classes)))
    _require_classes(given[1], names, what="labels")
    held_out = None
    if test is not None:
        held_out = _checked(*test, what="test images", num_classes=num_classes)
        _require_classes(held_out[1], names, what="test labels")
        if held_out[0].shape[1:] != given[0].shape[1:]:
            raise DataError(
                f"test images have shape {held_out[0].shape[1:]}, training images "
                f"{given[0].shape[1:]}; give both the same shape"
            )
    return Source(*given, held_out, names)


def _checked(
    images: npt.ArrayLike, labels: npt.ArrayLike, *, what: str, num_classes: int | None
) -> Arrays:
    pixels, classes = np.asarray(images), np.asarray(labels)
    if pixels.dtype.kind not in "fiub":
        raise DataError(f"{what} are of type {pixels.dtype}; give real numbers")
    if pixels.ndim not in (2, 3, 4) or 0 in pixels.shape:
        raise DataError(
            f"{what} have shape {pixels.shape}; give (N, channels, height, width), "
            "(N, height, width) or (N, features)"
        )
    if classes.shape != (len(pixels),):
        raise DataError(
            f"labels have shape {classes.shape} for {len(pixels)} {what}; give one label per image"
        )
    if classes.dtype.kind not in "iu":
        raise DataError(f"labels are of type {classes.dtype}; give whole numbers from 0")
    if classes.min() < 0 or (num_classes is not None and classes.max() >= num_classes):
        accepted = "0 or more" if num_classes is None else f"0 to {num_classes - 1}"
        raise DataError(
            f"labels of the {what} run from {classes.min()} to {classes.max()}; give {accepted}"
        )
    scale = 255.0 if pixels.dtype == np.uint8 else 1.0
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        values = pixels.astype(np.float32) / np.float32(scale)
    broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(values)} {what} hold NaN or infinite values, the first is "
            f"number {broken[0]}; mend them or leave them out"
        )
    if values.ndim == 2:
        values = values[:, None, None, :]
    elif values.ndim == 3:
        values = values[:, None]
    return values, classes.astype(np.int64)


def _require_classes(
    labels: npt.NDArray[np.int64], class_names: tuple[str, ...], *, what: str
) -> None:
    found = np.unique(labels)
    absent = sorted(set(range(len(class_names))) - set(found.tolist()))
    largest = int(found[-1])
    if largest >= len(class_names) or absent or len(class_names) < 2:
        raise DataError(
            f"{what} hold {len(found)} classes up to {largest}"
            + (f", none of class {absent[0]}" if absent else "")
            + f", there are {len(class_names)} class names; give 0, 1, ... for two or more "
            "classes, each at least once"
        )


def _unreadable(path: str | Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(f"data.file: {path} cannot be read: {reason}; {_HOW}")
