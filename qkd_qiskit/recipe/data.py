"""Which images, or points, a run sees."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.synthetic import Generator
from qkd_qiskit.recipe.validation import Count, Range, Share, check_fields, require, whole_number

DatasetName = Literal[
    "digits", "mnist", "fashion_mnist", "cifar10", "generated", "extended_xor", "arrays", "folder"
]
ColourChannels = Literal["grey", "rgb"]
RANDOM_WEIGHTS = "random"
BACKBONES = ("torchvision:", "module:")
GENERATED: tuple[DatasetName, ...] = ("generated", "extended_xor")
Side = Annotated[int, whole_number(most=4096)]
_MOST_VALUES = 50_000_000  # of generated data: 200 MB


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which images a run sees.

    Attributes:
        name: Data set: digits (8x8, no download), mnist or fashion_mnist (28x28), cifar10 (3x32x32,
            never downloaded), generated or extended_xor (feature vectors of three classes; see
            `qkd_qiskit.data.synthetic`), arrays (your own, in `file`), folder (your own pictures,
            in `root`).
        root: For name=folder: ROOT/CLASS/1.png (or jpg, ...), a third of which is held out for the
            test, or ROOT/train/CLASS/..., ROOT/test/CLASS/... and perhaps ROOT/validation/CLASS/...
            Else the folder of the torchvision data sets; default: $QKD_DATA, else the user's cache
            folder.
        file: For name=arrays: .npz file with `images` (N, channels, height, width), (N, height,
            width, channels), (N, height, width) or (N, features) and `labels` (N,); if you like
            `test_images` and `test_labels` (else a third is held out), `validation_images` and
            `validation_labels` (else `validation_fraction` is held out) and `class_names`; for
            `teacher.kind: logits` also `teacher_logits` (N, classes). The names of MedMNIST, and X
            and y, are understood too.
        digest: SHA-256 of `file`, or of all pictures of a folder, written into a run's recipe when
            it begins.
        size: Pixels that images are brought to, one number for square ones, or [height, width]: the
            shorter side is scaled, what is too long on the other cut off; null = as they are.
        channels: grey or rgb, which images are brought to; null = as they are (pictures of a
            folder: grey where all of them are).
        backbone: A frozen network whose features take the place of the images: a model of
            torchvision, such as torchvision:resnet18, whose images are normalised as those of
            ImageNet, or your own, module:package.file:factory, where factory() returns an nn.Module
            from images (batch, channels, height, width). They are computed once and cached.
        backbone_layer: Name of the layer whose outputs are the features; null = what goes into the
            last linear layer of a model of torchvision, or the output of your own. Of maps the mean
            over places is taken.
        backbone_weights: Weights of that network: a safetensors file or a file of torch.save, read
            without unpickling; random = drawn from the seed, a control; null = what torchvision
            publishes, downloaded, or those that your factory gives.
        backbone_digest: SHA-256 of that file, written into a run's recipe when it begins.
        classes: Labels to keep, relabelled 0, 1, ... in this order; default: all.
        train_per_class: Labelled training images per class for the student; null = all.
        train_points: Labelled training images for the student in all, drawn without regard to
            their classes; null = as train_per_class says.
        draw: Take the first images (of each class) in data-set order, or a random draw per seed.
        validation_fraction: Share of the training images held out before anything is drawn.
        test_per_class: First test images per class to keep; null = all.
        scale: What is done to the features: none, standard (mean 0, standard deviation 1) or minmax
            (0 to 1), of each feature of a vector, of each channel of images, fitted on the images
            that nothing is held out of.
        points: Of generated data: how many points, a third of them for the test.
        features: Of generated data: features of a point.
        informative: Of generated data: hidden numbers that decide the class.
        noise_features: Of generated data: features that say nothing.
        difficulty: Of generated data: 0 (clusters apart) to 1 (they overlap widely).
    """

    name: DatasetName = "digits"
    root: str | None = None
    file: str | None = None
    digest: str | None = None
    size: Side | tuple[Side, ...] | None = None
    channels: ColourChannels | None = None
    backbone: str | None = None
    backbone_layer: str | None = None
    backbone_weights: str | None = None
    backbone_digest: str | None = None
    classes: tuple[int, ...] | None = None
    train_per_class: Count | None = None
    train_points: Count | None = None
    draw: Literal["first", "random"] = "random"
    validation_fraction: Share = 0.1
    test_per_class: Count | None = None
    scale: Literal["none", "standard", "minmax"] = "none"
    points: Annotated[int, whole_number(least=30, most=10_000_000)] = 3000
    features: Annotated[int, whole_number(most=100_000)] = 64
    informative: Count = 4
    noise_features: Annotated[int, whole_number(least=0, most=100_000)] = 0
    difficulty: Annotated[float, Range(accepted="a number from 0 to 1", least=0, most=1)] = 0.25

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "data")
        require(
            (self.file is not None) == (self.name == "arrays"),
            "data.file",
            self.file,
            "an .npz file exactly when data.name is `arrays`",
        )
        self._check_images()
        if self.classes is not None:
            distinct = len(set(self.classes)) == len(self.classes)
            own = self.name in ("arrays", "folder")
            last = max(self.classes, default=0) if own else 9
            in_range = all(0 <= label <= last for label in self.classes)
            require(
                distinct and in_range and len(self.classes) >= 2,
                "data.classes",
                list(self.classes),
                "two or more distinct labels from 0 to 9, for example [0, 1, 2]",
            )
        require(
            self.train_points is None or self.train_per_class is None,
            "data.train_points",
            self.train_points,
            "either train_points or train_per_class, and null for the other",
        )
        if self.name in GENERATED:
            _ = self.generator
            most = _MOST_VALUES // self.features
            require(
                self.points <= most,
                "data.points",
                self.points,
                f"at most {most} points of {self.features} features",
            )

    def _check_images(self) -> None:
        require(
            self.name != "folder" or self.root is not None,
            "data.root",
            self.root,
            "the folder with a folder of pictures for each class where data.name is `folder`",
        )
        require(
            not isinstance(self.size, tuple) or len(self.size) == 2,
            "data.size",
            self.size,
            "one whole number, or [height, width]",
        )
        network = self.backbone
        if network is None:
            return
        require(
            network.startswith(BACKBONES) and bool(network.partition(":")[2]),
            "data.backbone",
            network,
            "torchvision:NAME, such as torchvision:resnet18, or module:package.file:factory",
        )
        require(
            self.name not in GENERATED,
            "data.backbone",
            network,
            f"null where data.name is {self.name}, whose points are no images",
        )

    @property
    def image_size(self) -> tuple[int, int] | None:
        """Return height and width that images are brought to; None = as they are."""
        if self.size is None:
            return None
        height, width = (self.size, self.size) if isinstance(self.size, int) else self.size
        return height, width

    @property
    def title(self) -> str:
        """Return what reports call it: the name of the data set, or of your own file or folder."""
        path = self.root if self.name == "folder" else self.file
        own = self.name if path is None else Path(path).name or path
        return own if self.backbone is None else f"features of {own}"

    @property
    def backbone_origin(self) -> str:
        """Return in words which network gives the features, and where its weights are from."""
        layer = f"layer {self.backbone_layer}" if self.backbone_layer else "what its head is given"
        theirs = str(self.backbone).startswith("torchvision:")
        if not theirs and not self.backbone_layer:
            layer = "its output"
        if self.backbone_weights == RANDOM_WEIGHTS:
            weights = "random weights, a control"
        elif self.backbone_weights is not None:
            weights = f"weights of {Path(self.backbone_weights).name}"
        else:
            weights = "weights as torchvision publishes them" if theirs else "weights of its own"
        return f"{self.backbone}, {layer}, {weights}"

    @property
    def generator(self) -> Generator:
        """Return what generates the points of generated data.

        Raises:
            RecipeError: Numbers that do not go together.
        """
        return Generator(
            name=self.name,
            features=self.features,
            informative=self.informative,
            noise_features=self.noise_features,
            difficulty=self.difficulty,
        )
