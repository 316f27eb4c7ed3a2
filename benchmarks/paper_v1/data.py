"""The images of arXiv:2311.13810 (version 1): the first classes, the first 150 images of each.

Added to its splits is one of its own for validation, which it lacks: the last 100 training images
of each class, on which no teacher is trained either.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from qkd_qiskit.data.sources import read_mnist
from qkd_qiskit.data.splits import Data, Split

PER_CLASS = 150
VALIDATION_PER_CLASS = 100

Images = tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]


@dataclass(frozen=True, eq=False)
class PublishedData:
    """What students and teachers see.

    Attributes:
        data: Pool (what teachers train on), validation and the whole test set of the classes.
        train: Images and labels of the students: the first 150 per class of the training set.
        validation: Choose the epoch in the sound protocol.
        subset: The first 150 test images per class, which choose the epoch in the published one.
        test: All test images of the classes.
    """

    data: Data
    train: Images
    validation: Images
    subset: Images
    test: Images

    @property
    def train_images(self) -> torch.Tensor:
        """The students' images `(images, 1, 28, 28)`, as a teacher takes them."""
        return torch.from_numpy(self.train[0]).unsqueeze(1)


def published_data(name: str, *, num_classes: int, root: str | Path | None = None) -> PublishedData:
    """The classes 0 to `num_classes` - 1 of mnist or fashion_mnist.

    Raises:
        DataError: Files are missing or damaged.
    """
    source = read_mnist(name, root=root)
    assert source.test is not None
    train = _classes((source.images, source.labels), num_classes)
    test = _classes(source.test, num_classes)
    last = _rows(train[1], slice(-VALIDATION_PER_CLASS, None), num_classes)
    rest = np.setdiff1d(np.arange(len(train[1])), last)
    pool, validation = _take(train, rest), _take(train, last)
    data = Data(
        name=name,
        num_classes=num_classes,
        class_names=source.class_names[:num_classes],
        pool=_split(pool),
        validation=_split(validation),
        test=_split(test),
    )
    return PublishedData(
        data=data,
        train=_take(train, _rows(train[1], slice(PER_CLASS), num_classes)),
        validation=validation,
        subset=_take(test, _rows(test[1], slice(PER_CLASS), num_classes)),
        test=test,
    )


def _classes(images: Images, num_classes: int) -> Images:
    return _take(images, np.flatnonzero(images[1] < num_classes))


def _rows(labels: npt.NDArray[np.int64], part: slice, num_classes: int) -> npt.NDArray[np.int64]:
    """The same part of the images of every class, in data-set order."""
    return np.sort(np.concatenate([np.flatnonzero(labels == c)[part] for c in range(num_classes)]))


def _take(images: Images, rows: npt.NDArray[np.int64]) -> Images:
    return np.ascontiguousarray(images[0][rows]), images[1][rows]


def _split(images: Images) -> Split:
    return Split(torch.from_numpy(images[0]).unsqueeze(1), torch.from_numpy(images[1]))
