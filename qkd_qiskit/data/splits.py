"""What a run sees: training pool, validation and test images, and draws from the pool.

Three splits, made once per run: `test` is the data set's own, `validation` is held out of the
training images before anything is drawn, `pool` is the rest. Students and teachers train on draws
from the pool.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from qkd_qiskit.data.arrays import check_arrays, read_arrays
from qkd_qiskit.data.backbones import own_backbone
from qkd_qiskit.data.draws import draw_per_class, draw_points, require_one_of
from qkd_qiskit.data.folders import read_folder
from qkd_qiskit.data.images import Channels
from qkd_qiskit.data.partition import Split, partition
from qkd_qiskit.data.preparation import prepare
from qkd_qiskit.data.scaling import Scale, Scaling, fit_scaling
from qkd_qiskit.data.sources import Source, read_cifar10, read_digits, read_mnist
from qkd_qiskit.data.synthetic import generate
from qkd_qiskit.errors import DataError, RecipeError, require_kind
from qkd_qiskit.recipe import GENERATED, DataSpec
from qkd_qiskit.recipe.data import ColourChannels
from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.storage import CacheFolder, tensor_digest

__all__ = ["Data", "Split", "load_data"]

Labels = npt.NDArray[np.int64]


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
        unlabelled: Images whose classes nobody knows, as those of the pool; None = none. What
            learns without labels learns from them, in place of images whose labels are not used.
        fits: What reductions have been fitted to the pool, by the specification of the student.
    """

    name: str
    num_classes: int
    class_names: tuple[str, ...]
    pool: Split
    validation: Split
    test: Split
    spec: DataSpec | None = None
    scaling: Scaling | None = None
    unlabelled: torch.Tensor | None = None
    fits: dict[Any, tuple[torch.Tensor, ...]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    __repr__ = short_repr

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width) of an image."""
        channels, height, width = self.pool.images.shape[1:]
        return channels, height, width

    @functools.cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 over the bytes of each part: pool, validation, test, perhaps unlabelled."""
        digests = {name: getattr(self, name).fingerprint for name in ("pool", "validation", "test")}
        if self.unlabelled is not None:
            digests["unlabelled"] = tensor_digest({"images": self.unlabelled})
        return digests

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bytes of all parts."""
        return hashlib.sha256(" ".join(self.fingerprints.values()).encode()).hexdigest()

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
        return draw_per_class(
            self.pool.labels, per_class, draw=draw, seed=seed, class_names=self.class_names
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
        return draw_points(len(self.pool), points, draw=draw, seed=seed)

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
        unlabelled: Any = None,
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
            unlabelled: Images whose classes nobody knows, which the teacher labels for students
                that learn from it alone (`distill.unlabelled`, arms such as transfer).
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

        Example:
            >>> import numpy as np, qkd_qiskit as qkd
            >>> points = np.random.default_rng(0).random((90, 6))
            >>> qkd.Data.from_arrays(points, np.where(points.sum(1) > 3, "yes", "no")).class_names
            ('no', 'yes')
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
            unlabelled=unlabelled,
            class_names=class_names,
            channels=channels,
            teacher={"teacher_logits": teacher_logits, "teacher_logits_test": teacher_logits_test},
        )
        return _partitioned(source, None, spec=spec, name=str(name), seed=seed)

    @classmethod
    def from_folder(
        cls,
        root: str | Path,
        *,
        size: int | tuple[int, int] | None = None,
        channels: ColourChannels | None = None,
        scale: Scale = "none",
        validation_fraction: float = 0.1,
        test_per_class: int | None = None,
        seed: int = 0,
        name: str | None = None,
    ) -> Data:
        """Return pictures of your own as data: a folder for each class, which its name names.

        Args:
            root: ROOT/CLASS/NAME.png (or jpg, ...), a stratified third of which becomes the test
                images; or ROOT/train/CLASS/..., ROOT/test/CLASS/... and, if you like,
                ROOT/validation/CLASS/....
            size: Pixels that pictures are brought to, as `data.size`; None = all are of one size.
            channels: grey or rgb; None = grey where all pictures are.
            scale: none, standard or minmax, of each channel; see `qkd_qiskit.data.scaling`.
            validation_fraction: Share of the training images held out for validation.
            test_per_class: First test images per class to keep; None = all.
            seed: Seed of the splits.
            name: Name that reports show; default: that of the folder.

        Raises:
            DataError: A folder is empty or missing, a picture cannot be read, there is one class
                alone, pictures are of different sizes, or an argument is none of these.
        """
        try:  # as a recipe's
            spec = DataSpec(
                name="folder",
                root=str(root),
                size=size,
                channels=channels,
                scale=scale,
                validation_fraction=validation_fraction,
                test_per_class=test_per_class,
            )
        except RecipeError as error:
            raise DataError(str(error).removeprefix("data.")) from error
        data = load_data(spec, seed=seed)
        return data if name is None else replace(data, name=name)

    def through(
        self,
        network: nn.Module,
        *,
        layer: str | None = None,
        size: int | tuple[int, int] | None = None,
        scale: Scale = "none",
        cache: CacheFolder = None,
    ) -> Data:
        """Return the data with what a frozen network gives for its images in their place.

        They are feature vectors `(N, 1, 1, features)`, computed once for the same weights and
        images and then read from disk. The network is left as it is.

        Args:
            network: From images (batch, channels, height, width) to features, run in evaluation
                mode where it lies.
            layer: Layer whose outputs are the features; None = the network's own. Of maps (batch,
                channels, height, width) the mean over places is taken.
            size: Pixels that images are brought to before, as `data.size`.
            scale: What is done to the features: none, standard or minmax, fitted on the pool.
            cache: Folder that keeps them; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False =
                none.

        Raises:
            DataError: The network fails on the images, has no such layer, or gives no features.
        """
        try:
            spec = DataSpec(size=size, scale=scale)
        except RecipeError as error:
            raise DataError(str(error).removeprefix("data.")) from error
        backbone = own_backbone(network, layer=layer, size=spec.image_size)
        made = _with_images(self, lambda images: backbone.features(images, cache=cache))
        scaling = fit_scaling(made.pool.images, scale)
        if scaling is not None:
            made = _with_images(made, scaling)
        return replace(made, name=f"features of {self.name}", spec=None, scaling=scaling)


def _with_images(data: Data, change: Callable[[torch.Tensor], torch.Tensor]) -> Data:
    pool, validation, test = (
        replace(part, images=change(part.images))
        for part in (data.pool, data.validation, data.test)
    )
    others = None if data.unlabelled is None else change(data.unlabelled)
    return replace(data, pool=pool, validation=validation, test=test, unlabelled=others)


def load_data(spec: DataSpec, *, seed: int = 0) -> Data:
    """Return the data set of a recipe, split and with its classes selected.

    Args:
        spec: Which images.
        seed: Seed of the validation split, of the test split of a set that has none (digits,
            generated ones, your own without test images), and of generated points.

    Raises:
        DataError: Files are missing or damaged, a class has fewer images than asked for, or the set
            has no such class.

    Example:
        >>> from qkd_qiskit import DataSpec, load_data
        >>> load_data(DataSpec(name="digits")).image_shape
        (1, 8, 8)
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
    if spec.name not in GENERATED:
        source = prepare(source, spec, seed=seed)
    return replace(_partitioned(source, classes, spec=spec, name=spec.title, seed=seed), spec=spec)


def _partitioned(
    source: Source, classes: tuple[int, ...] | None, *, spec: DataSpec, name: str, seed: int
) -> Data:
    with torch.inference_mode(mode=False):  # whose tensors could not be trained on later
        parts = partition(
            source,
            classes,
            name=name,
            scale=spec.scale,
            validation_fraction=spec.validation_fraction,
            test_per_class=spec.test_per_class,
            seed=seed,
        )
    return Data(
        name,
        len(parts.class_names),
        parts.class_names,
        parts.pool,
        parts.validation,
        parts.test,
        scaling=parts.scaling,
        unlabelled=parts.unlabelled,
    )


def _read(spec: DataSpec, *, seed: int) -> Source:
    if spec.name == "digits":
        return read_digits()
    if spec.name in GENERATED:
        return generate(spec.generator, points=spec.points, seed=seed)
    if spec.file is not None:
        return read_arrays(spec.file, digest=spec.digest)
    if spec.name == "folder":
        assert spec.root is not None  # as the specification has seen to
        return read_folder(
            spec.root, size=spec.image_size, channels=spec.channels, digest=spec.digest
        )
    if spec.name == "cifar10":
        return read_cifar10(root=spec.root)
    return read_mnist(spec.name, root=spec.root)
