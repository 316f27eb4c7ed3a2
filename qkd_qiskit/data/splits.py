"""What a run sees: training pool, validation and test images, and draws from the pool.

Three splits, made once per run: `test` is the data set's own, `validation` is held out of the
training images before anything is drawn, `pool` is the rest. Students and teachers train on draws
from the pool.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch

from qkd_qiskit.data.arrays import check_arrays, read_arrays
from qkd_qiskit.data.draws import choose_per_class, require_count, require_one_of
from qkd_qiskit.data.images import Channels
from qkd_qiskit.data.scaling import Scale, Scaling, fit_scaling, scale_hint
from qkd_qiskit.data.sources import Source, read_cifar10, read_digits, read_mnist
from qkd_qiskit.data.synthetic import generate
from qkd_qiskit.errors import DataError, RecipeError, require_kind
from qkd_qiskit.recipe import GENERATED, DataSpec
from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.recipe.unused import say_unused
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


@dataclass(frozen=True, eq=False)
class Data:
    """A data set in the three parts of a run.

    Attributes:
        name: Name of the data set.
        num_classes: Number of classes.
        class_names: Name of each class, in the order of the labels.
        pool: Training images without the validation images, in data-set order.
        validation: Images that choose epochs and settings.
        test: Images that are used once, at the end.
        spec: What they were loaded with: how many of the pool a student trains on.
        scaling: What has been done to the features of all three, to be done to others as well; None
            = nothing.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    pool: Split
    validation: Split
    test: Split
    spec: DataSpec | None = None
    scaling: Scaling | None = None
    __repr__ = short_repr

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.pool.images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of all three splits."""
        splits = (self.pool, self.validation, self.test)
        return hashlib.sha256(" ".join(split.fingerprint for split in splits).encode()).hexdigest()

    def draw(
        self,
        per_class: int | None,
        *,
        draw: Literal["random", "first"] = "random",
        seed: int = 0,
    ) -> torch.Tensor:
        """Return the indices into the pool of a class-balanced draw, in data-set order.

        Args:
            per_class: Images per class; None = the whole pool.
            draw: random = a draw per seed, where a smaller one is part of a larger one of the same
                seed; first = the first images of each class, as the code of arXiv:2311.13810 does.
            seed: Seed of a random draw; no global random state is touched.

        Raises:
            DataError: A class has fewer images than asked for.
        """
        require_one_of("draw", draw, ("random", "first"))
        if per_class is None:
            return torch.arange(len(self.pool))
        require_count("images per class", per_class)
        order = generator(seed, "draw")

        def choose(members: torch.Tensor) -> torch.Tensor:
            if draw == "first":
                return members[:per_class]
            return members[torch.randperm(len(members), generator=order)[:per_class]]

        return choose_per_class(
            self.pool.labels,
            choose,
            least=per_class,
            class_names=self.class_names,
            what="training images (after validation is held out)",
        )

    def draw_points(
        self, points: int, *, draw: Literal["random", "first"] = "random", seed: int = 0
    ) -> torch.Tensor:
        """Return the indices into the pool of a draw that takes no heed of classes, in order.

        Args:
            points: Images in all; a class may get few of them, or none.
            draw: random = a draw per seed, where a smaller one is part of a larger one of the same
                seed; first = the first images in data-set order.
            seed: Seed of a random draw; no global random state is touched.

        Raises:
            DataError: The pool has fewer images than asked for.
        """
        require_one_of("draw", draw, ("random", "first"))
        require_count("training points", points)
        if points > len(self.pool):
            raise DataError(
                f"{points} training points are asked for, the pool has {len(self.pool)} (after "
                "validation is held out); ask for fewer"
            )
        if draw == "first":
            return torch.arange(points)
        order = torch.randperm(len(self.pool), generator=generator(seed, "draw points"))
        return order[:points].sort().values

    def draw_for(self, spec: DataSpec, *, seed: int) -> torch.Tensor:
        """Return the indices into the pool that a recipe's student of this seed trains on.

        Raises:
            DataError: A class or the pool has fewer images than asked for.
        """
        if spec.train_points is not None:
            return self.draw_points(spec.train_points, draw=spec.draw, seed=seed)
        return self.draw(spec.train_per_class, draw=spec.draw, seed=seed)

    @classmethod
    def from_arrays(
        cls,
        images: Any,
        labels: Any = None,
        *,
        test: Any = None,
        validation: Any = None,
        class_names: Sequence[str] | None = None,
        channels: Channels | None = None,
        teacher_logits: Any = None,
        teacher_logits_test: Any = None,
        scale: Scale = "none",
        validation_fraction: float = 0.1,
        test_per_class: int | None = None,
        seed: int = 0,
        name: str = "arrays",
    ) -> Data:
        """Return your own arrays as data, split as the built-in data sets are.

        Args:
            images: (N, channels, height, width), (N, height, width, channels), (N, height, width)
                of one channel, or (N, features), which become images of shape (1, 1, features); of
                numpy, torch or pandas. uint8 values are divided by 255, others are taken as they
                are. Without `labels`: a pair (images, labels), a torch Dataset or a DataLoader.
            labels: (N,) or (N, 1) whole numbers or text, or one-hot (N, classes). Labels other than
                0 .. num_classes - 1 become these in sorted order, and name the classes.
            test: Test images and labels, as the first argument; default: a stratified third of the
                images.
            validation: Validation images and labels, as the first argument; default: held out of
                the training images.
            class_names: Names, one per class; default: the labels.
            channels: first or last; default: found from the shape.
            teacher_logits: What a teacher said of each of the images (N, classes), columns in the
                order of the classes: for `teacher.kind: logits`.
            teacher_logits_test: The same of the test images.
            scale: none, standard or minmax; see `qkd_qiskit.data.scaling`.
            validation_fraction: Share of the training images held out for validation.
            test_per_class: First test images per class to keep; None = all.
            seed: Seed of the splits.
            name: Name that reports show.

        Raises:
            DataError: Arrays that do not belong together, values that are not finite, labels that
                are no classes, classes with too few images, or an argument that is none of these.
        """
        require_one_of("channels", channels, (None, *get_args(Channels)))
        try:  # as a recipe's
            spec = DataSpec(
                scale=scale, validation_fraction=validation_fraction, test_per_class=test_per_class
            )
        except RecipeError as error:
            raise DataError(str(error).removeprefix("data.")) from error
        source = check_arrays(
            images,
            labels,
            test=test,
            validation=validation,
            class_names=class_names,
            channels=channels,
            teacher={"teacher_logits": teacher_logits, "teacher_logits_test": teacher_logits_test},
        )
        with torch.inference_mode(mode=False):  # whose tensors could not be trained on later
            return _split(
                source,
                None,
                name=str(name),
                scale=spec.scale,
                validation_fraction=spec.validation_fraction,
                test_per_class=spec.test_per_class,
                seed=seed,
            )


def load_data(spec: DataSpec, *, seed: int = 0) -> Data:
    """Return the data set of a recipe, split and with its classes selected.

    Args:
        spec: Which images.
        seed: Seed of the validation split, of the test split of a set that has none (digits,
            generated ones, your own without test images), and of generated points.

    Raises:
        DataError: Files are missing or damaged, a class has fewer images than asked for, or the set
            has no such class.
    """
    require_kind("spec", spec, DataSpec, accepted="a DataSpec")
    say_unused(spec)
    source = _read(spec, seed=seed)
    known = source.labels_given or tuple(range(len(source.class_names)))
    classes = None
    if spec.classes is not None:
        if not set(spec.classes) <= set(known):
            named = f"0 to {known[-1]}" if source.labels_given is None else str([*known])
            raise DataError(
                f"data.classes: {list(spec.classes)} is not accepted; {spec.title} has the classes "
                f"{named}"
            )
        classes = tuple(known.index(label) for label in spec.classes)
    with torch.inference_mode(mode=False):  # whose tensors could not be trained on later
        data = _split(
            source,
            classes,
            name=spec.title,
            scale=spec.scale,
            validation_fraction=spec.validation_fraction,
            test_per_class=spec.test_per_class,
            seed=seed,
        )
    return replace(data, spec=spec)


def _read(spec: DataSpec, *, seed: int) -> Source:
    if spec.name == "digits":
        return read_digits()
    if spec.name in GENERATED:
        return generate(spec.generator, points=spec.points, seed=seed)
    if spec.file is not None:
        return read_arrays(spec.file, digest=spec.digest)
    if spec.name == "cifar10":
        return read_cifar10(root=spec.root)
    return read_mnist(spec.name, root=spec.root)


def _select(
    part: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
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
    pixels = torch.from_numpy(images)
    return Split(
        pixels[:, None] if pixels.ndim == 3 else pixels,
        torch.from_numpy(labels),
        None if teacher_logits is None else torch.from_numpy(teacher_logits),
    )


def _split(
    source: Source,
    classes: tuple[int, ...] | None,
    *,
    name: str,
    scale: Scale,
    validation_fraction: float,
    test_per_class: int | None,
    seed: int,
) -> Data:
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
    hint = scale_hint(train.images) if scale == "none" else None
    if hint is not None:
        logger.warning("%s: %s", name, hint)
    scaling = fit_scaling(train.images, scale)
    if scaling is not None:
        train, validation, test = (
            replace(part, images=scaling(part.images)) for part in (train, validation, test)
        )
    return Data(name, len(class_names), class_names, train, validation, test, scaling=scaling)


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
