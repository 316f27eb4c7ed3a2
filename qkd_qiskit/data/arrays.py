"""Your own images or feature vectors: checked, and read from an .npz file."""

from __future__ import annotations

import reprlib
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from qkd_qiskit.data.containers import (
    Array,
    as_array,
    image_label_arrays,
    names_of_classes,
    order_of_categories,
)
from qkd_qiskit.data.images import Channels, plain_images, require_same_type
from qkd_qiskit.data.labels import Classes, find_classes, plain_labels
from qkd_qiskit.data.soft_labels import soft_labels
from qkd_qiskit.data.sources import Pixels, Source
from qkd_qiskit.errors import DataError
from qkd_qiskit.storage import sha256_of

Arrays = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]

# What files call their parts: numpy.savez of this package, MedMNIST, Keras and scikit-learn.
_NAMES = {
    "images": ("images", "train_images", "x", "x_train", "train_x"),
    "labels": ("labels", "train_labels", "y", "y_train", "train_y"),
    "validation_images": ("validation_images", "val_images", "x_val", "val_x"),
    "validation_labels": ("validation_labels", "val_labels", "y_val", "val_y"),
    "test_images": ("test_images", "x_test", "test_x"),
    "test_labels": ("test_labels", "y_test", "test_y"),
    "unlabelled": (
        *("unlabelled", "unlabelled_images", "x_unlabelled"),
        *("unlabeled", "unlabeled_images", "x_unlabeled"),
    ),
    "class_names": ("class_names",),
    "teacher_logits": ("teacher_logits",),
    "teacher_probabilities": ("teacher_probabilities",),
    "teacher_logits_test": ("teacher_logits_test", "test_teacher_logits"),
    "teacher_probabilities_test": ("teacher_probabilities_test", "test_teacher_probabilities"),
}
_PARTS = {name: part for part, names in _NAMES.items() for name in names}
_HOW = (
    "write it with numpy.savez(path, images=images, labels=labels), if you like with test_images, "
    "test_labels, validation_images, validation_labels, unlabelled, class_names, teacher_logits "
    "and teacher_logits_test"
)


def read_arrays(path: str | Path, *, digest: str | None = None) -> Source:
    """Return the arrays in an .npz file: images and labels, perhaps other splits and class names.

    The names of MedMNIST (train_images, val_images, ...), `X` and `y`, and `x_train`, `y_train`,
    ... are understood too, in either case.

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
    parts = _parts(_read_npz(path), path)
    try:
        return check_arrays(
            parts["images"],
            parts["labels"],
            test=_pair(parts, "test"),
            validation=_pair(parts, "validation"),
            unlabelled=parts.get("unlabelled"),
            class_names=parts.get("class_names"),
            teacher=parts,
        )
    except DataError as error:
        raise DataError(f"data.file: {path}: {error}") from error


def _read_npz(path: str | Path) -> dict[str, Array]:
    try:
        with Path(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: np.asarray(file[name]) for name in file.files}
    except OSError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise DataError(f"data.file: {path} holds arrays that do not fit into memory") from error
    except (
        *(ValueError, EOFError, AttributeError, TypeError, KeyError, RuntimeError, SyntaxError),
        *(zipfile.BadZipFile, zlib.error, OverflowError),
    ) as error:
        pickled = ", but of pickled objects" if "Object arrays" in str(error) else ""
        raise DataError(
            f"data.file: {path} is not an .npz file of plain arrays{pickled}; {_HOW}"
        ) from error


def _parts(content: dict[str, Array], path: str | Path) -> dict[str, Array]:
    """Return the arrays by this package's own names for them."""
    parts = {_PARTS.get(name.lower(), name): array for name, array in content.items()}
    strange = len(parts) < len(content) or parts.keys() - _NAMES.keys()
    halves = [
        split
        for split in ("test_", "validation_")
        if (f"{split}images" in parts) != (f"{split}labels" in parts)
    ]
    if strange or halves or not {"images", "labels"} <= parts.keys():
        raise DataError(f"data.file: {path} holds {', '.join(content) or 'nothing'}; {_HOW}")
    return parts


def _pair(parts: dict[str, Array], split: str) -> tuple[Array, Array] | None:
    if f"{split}_images" not in parts:
        return None
    return parts[f"{split}_images"], parts[f"{split}_labels"]


def file_digest(path: str | Path) -> str:
    """Return the SHA-256 of a data file.

    Raises:
        DataError: The file cannot be read.
    """
    try:
        return sha256_of(path)
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise _unreadable(path, error) from error


def check_arrays(
    images: Any,
    labels: Any = None,
    *,
    test: Any = None,
    validation: Any = None,
    unlabelled: Any = None,
    class_names: Sequence[str] | Array | None = None,
    channels: Channels | None = None,
    teacher: Mapping[str, Any] | None = None,
) -> Source:
    """Return arrays as a data set with images (N, channels, height, width), float32.

    Args:
        images: As `plain_images` takes them, of numpy, torch or pandas; without `labels` a pair
            (images, labels), or a torch Dataset or DataLoader.
        labels: As `plain_labels` and `find_classes` take them.
        test: Test images and labels.
        validation: Validation images and labels; a class may be absent there.
        unlabelled: Images whose classes nobody knows.
        class_names: Names, one per class; default: the labels, those of a torch Dataset, or the
            categories of pandas labels in their order.
        channels: Where the channels are; None = found.
        teacher: What a teacher said of the images: `teacher_logits` or `teacher_probabilities`,
            `teacher_logits_test` or `teacher_probabilities_test`; see `soft_labels`.

    Raises:
        DataError: Arrays that do not belong together, values that are not finite, or labels that
            are no classes.
    """
    raw, raw_labels = image_label_arrays(images, labels, what="images")
    pixels = plain_images(raw, what="images", channels=channels)
    plain = plain_labels(raw_labels, count=len(pixels), what="images")
    names = None if class_names is None else _distinct_names(class_names)
    if labels is None:
        names = names or names_of_classes(images)
    elif plain.dtype.kind == "U":
        names = names or order_of_categories(labels)
    classes = find_classes(plain, class_names=names)

    def other(given: Any, what: str) -> Arrays | None:
        if given is None:
            return None
        other_raw, other_labels = image_label_arrays(given, what=what)
        require_same_type(raw, other_raw, what=what)
        values = plain_images(other_raw, what=what, channels=channels)
        numbers = classes.numbers_of(
            plain_labels(other_labels, count=len(values), what=what),
            what=what,
            all_present=what == "test images",
        )
        _require_same_shape(pixels, values, what=what)
        return values, numbers

    without_labels = None
    if unlabelled is not None:
        other_raw = as_array(unlabelled, what="unlabelled images")
        require_same_type(raw, other_raw, what="unlabelled images")
        without_labels = plain_images(other_raw, what="unlabelled images", channels=channels)
        _require_same_shape(pixels, without_labels, what="unlabelled images")

    source = Source(
        pixels,
        classes.numbers_of(plain, what="images"),
        other(test, "test images"),
        classes.names,
        validation=other(validation, "validation images"),
        labels_given=_numbers(classes),
        unlabelled=without_labels,
    )
    return _with_teacher(source, teacher or {})


def _require_same_shape(pixels: Pixels, others: Pixels, *, what: str) -> None:
    if others.shape[1:] != pixels.shape[1:]:
        raise DataError(
            f"{what} have shape {others.shape[1:]}, training images "
            f"{pixels.shape[1:]}; give both the same shape"
        )


def _with_teacher(source: Source, teacher: Mapping[str, Any]) -> Source:
    """Return a data set with the soft labels of its training and test images."""
    classes, test = len(source.class_names), source.test
    of_others = [name for name in teacher if name.endswith("_test") and teacher[name] is not None]
    if of_others and test is None:
        raise DataError(
            f"{of_others[0]} are given without test images; of those that are held out of the "
            "images the teacher's outputs are among theirs: leave it out"
        )
    logits = soft_labels(
        teacher, count=len(source.labels), num_classes=classes, what="training images"
    )
    of_test = soft_labels(
        teacher,
        suffix="_test",
        count=0 if test is None else len(test[1]),
        num_classes=classes,
        what="test images",
    )
    if of_test is not None and logits is None:
        raise DataError(
            "teacher_logits_test are given without teacher_logits, from which a student learns; "
            "give both"
        )
    return replace(source, teacher_logits=logits, teacher_logits_test=of_test)


def _distinct_names(given: Any) -> tuple[str, ...]:
    names = as_array(given, what="class_names")
    items = [item.decode() if isinstance(item, bytes) else item for item in names.ravel().tolist()]
    if names.ndim != 1 or not all(isinstance(item, str | int) for item in items):
        raise DataError(f"class_names are {reprlib.repr(given)}; give a list of text")
    texts = tuple(map(str, items))
    if len(set(texts)) < len(texts):
        raise DataError(f"class_names are {reprlib.repr(texts)}; give each class a name of its own")
    return texts


def _numbers(classes: Classes) -> tuple[int, ...] | None:
    """Return what data.classes calls the classes, where that is not 0, 1, ..."""
    if classes.counted or classes.labels.dtype.kind == "U":
        return None
    return tuple(classes.labels.tolist())


def _unreadable(path: str | Path, error: OSError | ValueError) -> DataError:
    reason = getattr(error, "strerror", None) or str(error)
    return DataError(f"data.file: {path} cannot be read: {reason}; {_HOW}")
