"""A data set as published, cut into training pool, validation and test images."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from qkd_qiskit.data.draws import choose_per_class
from qkd_qiskit.data.images import in_unit_range
from qkd_qiskit.data.scaling import Scale, Scaling, fit_scaling, scale_hint
from qkd_qiskit.data.sources import Pixels, Source
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec
from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.storage import tensor_digest

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Split:
    """Images and their classes.

    Attributes:
        images: (N, channels, height, width), float32; in [0, 1] for the built-in data sets.
        labels: (N,), int64 in 0 .. num_classes - 1.
        teacher_logits: What a teacher said of them elsewhere (N, num_classes), or None.
    """

    images: torch.Tensor
    labels: torch.Tensor
    teacher_logits: torch.Tensor | None = None
    __repr__ = short_repr

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, indices: torch.Tensor) -> Split:
        """Return the images and labels at `indices`, in that order."""
        logits = None if self.teacher_logits is None else self.teacher_logits[indices]
        return Split(self.images[indices], self.labels[indices], logits)

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of images and labels."""
        return tensor_digest({"images": self.images, "labels": self.labels})


@dataclass(frozen=True)
class Partition:
    """The three parts of a data set.

    Attributes:
        class_names: Name of each class, in the order of the labels.
        pool: Training images without the validation images.
        validation: Images that choose epochs and settings.
        test: Images that are used once, at the end.
        scaling: What was done to the features of all.
        unlabelled: Images whose classes nobody knows, or None.
    """

    class_names: tuple[str, ...]
    pool: Split
    validation: Split
    test: Split
    scaling: Scaling | None
    unlabelled: torch.Tensor | None


def _select(
    part: tuple[Pixels, npt.NDArray[np.int64]],
    classes: tuple[int, ...] | None,
    *,
    teacher_logits: npt.NDArray[np.float32] | None = None,
) -> Split:
    """Keep the images of `classes` and number the classes in the order given.

    Of a teacher's logits their columns are kept: its probabilities, given one of these classes.
    """
    images, labels = part
    if classes is not None:
        position = np.full(max(*classes, labels.max()) + 1, -1, dtype=np.int64)
        position[list(classes)] = np.arange(len(classes))
        kept = position[labels] >= 0
        images, labels = images[kept], position[labels[kept]]
        if teacher_logits is not None:
            teacher_logits = teacher_logits[kept][:, list(classes)]
    return Split(
        _with_channels(images),
        torch.from_numpy(labels),
        None if teacher_logits is None else torch.from_numpy(teacher_logits),
    )


def _with_channels(images: Pixels) -> torch.Tensor:
    pixels = torch.from_numpy(images)
    return pixels[:, None] if pixels.ndim == 3 else pixels


def partition(
    source: Source,
    classes: tuple[int, ...] | None,
    *,
    name: str,
    scale: Scale,
    validation_fraction: float,
    test_per_class: int | None,
    seed: int,
) -> Partition:
    """Return the parts of a data set, of some of its classes, or of all (None).

    Bytes stay bytes until the images are where they belong.

    Args:
        source: As it was read.
        classes: Positions of the classes to keep, which are numbered in this order.
        name: Name for messages.
        scale: What is done to the features, fitted on the pool.
        validation_fraction: Share of the training images that is held out.
        test_per_class: First test images of each class to keep; None = all.
        seed: Seed of what is held out.

    Raises:
        DataError: A class has too few images, or the set has validation images of its own.
    """
    logits = source.teacher_logits
    train = _select((source.images, source.labels), classes, teacher_logits=logits)
    names = source.class_names
    class_names = names if classes is None else tuple(names[label] for label in classes)
    if source.test is None:
        order = generator(seed, "test split")
        train, test = _hold_out(train, 1 / 3, class_names=class_names, order=order)
    else:
        test = _select(source.test, classes, teacher_logits=source.teacher_logits_test)
    if source.validation is None:
        order = generator(seed, "validation split")
        train, validation = _hold_out(
            train, validation_fraction, class_names=class_names, order=order
        )
    elif validation_fraction != DataSpec.validation_fraction:
        raise DataError(
            f"validation_fraction is {validation_fraction}, but the data has validation images of "
            f"its own; leave it at {DataSpec.validation_fraction}, which is not used"
        )
    else:
        validation = _select(source.validation, classes)
    if test_per_class is not None:
        first = choose_per_class(
            test.labels,
            lambda members: members[:test_per_class],
            least=test_per_class,
            class_names=class_names,
            what="test images",
        )
        test = test[first]
    train, validation, test = (
        replace(part, images=in_unit_range(part.images)) for part in (train, validation, test)
    )
    hint = scale_hint(train.images) if scale == "none" else None
    if hint is not None:
        logger.warning("%s: %s", name, hint)
    scaling = fit_scaling(train.images, scale)
    if scaling is not None:
        train, validation, test = (
            replace(part, images=scaling(part.images)) for part in (train, validation, test)
        )
    unlabelled = None if source.unlabelled is None else _with_channels(source.unlabelled)
    if unlabelled is not None:
        unlabelled = in_unit_range(unlabelled)
        unlabelled = unlabelled if scaling is None else scaling(unlabelled)
    return Partition(class_names, train, validation, test, scaling, unlabelled)


def _hold_out(
    split: Split, fraction: float, *, class_names: tuple[str, ...], order: torch.Generator
) -> tuple[Split, Split]:
    """Return the rest and a stratified share, at least one image per class in each, in order."""

    def choose(members: torch.Tensor) -> torch.Tensor:
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        return members[torch.randperm(len(members), generator=order)[:count]]

    held_out = choose_per_class(
        split.labels, choose, least=2, class_names=class_names, what="images to split"
    )
    kept = ~torch.isin(torch.arange(len(split)), held_out)
    return split[kept], split[held_out]
