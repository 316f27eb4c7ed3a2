"""Teacher networks: images (batch, channels, height, width) -> logits (batch, num_classes).

LeNet5, AlexNet and their ensemble are those of arXiv:2311.13810 (version 1), with its numbers of
parameters for its images; the others are small baselines that teach scarce-data students well.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import math
from collections import OrderedDict
from pathlib import Path

import torch
from torch import nn

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.teachers.own_module import Factory, ImageShape, build_own, import_factory

_LENET_LEAST = 16  # pixels each way: two convolutions of 5, each halved
_FILTERS = 3  # of the slides' pair of a quanvolution and a convolution


def build_teacher(
    spec: TeacherSpec, *, image_shape: ImageShape, num_classes: int, seed: int = 0
) -> nn.Module:
    """Return an untrained teacher, the same for the same seed; global random state is untouched.

    Args:
        spec: Architecture.
        image_shape: (channels, height, width).
        num_classes: Number of logits.
        seed: Seed of the initial weights.

    Raises:
        TeacherError: The architecture does not fit the images, or a module of your own cannot be
            imported or does not give logits of shape (batch, num_classes).
    """
    with seeded(derive_seed(seed, "teacher", "weights")):
        if spec.module:
            return build_own(spec.module, image_shape=image_shape, num_classes=num_classes)
        return _FACTORIES[spec.kind](image_shape, num_classes)


def architecture_digest(spec: TeacherSpec, module: nn.Module) -> str:
    """Return the SHA-256 of the layers and, for a module of your own, of its source file.

    What that file imports is not followed.
    """
    digest = hashlib.sha256(f"{spec.kind} {spec.module}\n{module}".encode())
    if spec.module:
        for part in (import_factory(spec.module), type(module)):
            try:
                digest.update(Path(inspect.getfile(part)).read_bytes())
            except (TypeError, OSError):  # made at run time, or built into Python
                digest.update(repr(part).encode())
    return digest.hexdigest()


def softmax(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return a softmax regression: one linear layer."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(image_shape), num_classes))


def mlp(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return a network with one hidden layer of 64 units."""
    features = math.prod(image_shape)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, num_classes)
    )


def small_cnn(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return two convolutions of 16 and 32 channels, each pooled, and a linear layer."""
    channels, height, width = image_shape
    if height < 4 or width < 4:
        raise TeacherError(
            f"teacher.kind small_cnn pools images twice and needs 4x4 pixels or more, these are "
            f"{height}x{width}; choose mlp or softmax"
        )
    return _network(
        [
            *(nn.Conv2d(channels, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        ],
        [nn.Linear(32 * (height // 4) * (width // 4), num_classes)],
    )


def lenet5(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the LeNet5 of arXiv:2311.13810: 44,086 parameters for 6 classes, 44,256 for 8.

    Images of other sizes and channels get the same layers, of as many inputs as these take.
    """
    channels, height, width = image_shape
    if min(height, width) < _LENET_LEAST:
        raise TeacherError(
            f"teacher.kind lenet5 needs {_LENET_LEAST}x{_LENET_LEAST} pixels or more, these are "
            f"{height}x{width}; choose small_cnn, mlp or softmax, or a larger data.size"
        )
    rows, columns = (((side - 4) // 2 - 4) // 2 for side in (height, width))
    return _network(
        [
            *(nn.Conv2d(channels, 6, 5), nn.Tanh(), nn.AvgPool2d(2)),
            *(nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)),
        ],
        [
            *(nn.Linear(16 * rows * columns, 120), nn.Tanh()),
            *(nn.Linear(120, 84), nn.Tanh()),
            nn.Linear(84, num_classes),
        ],
    )


def alexnet(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return AlexNet for 28x28 images of arXiv:2311.13810: 94,655,686 parameters for 6 classes."""
    _require_28x28("alexnet", image_shape)
    return _network(
        [
            *(nn.Conv2d(1, 64, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(64, 192, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        ],
        [
            *(nn.Dropout(), nn.Linear(384 * 7 * 7, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU()),
            nn.Linear(4096, num_classes),
        ],
    )


def quanvolution(image_shape: ImageShape, num_classes: int, *, trainable: bool = True) -> nn.Module:
    """Return three quanvolutional filters of 2x2 pixels, stride 2, and a linear layer.

    5,923 parameters for 28x28 images of 10 classes, 33 of them angles of circuits.

    Args:
        image_shape: (channels, height, width).
        num_classes: Number of logits.
        trainable: False: the filters stay as they were drawn.
    """
    from qkd_qiskit.circuits.quanvolution import Quanvolution

    layer = Quanvolution(_FILTERS, in_channels=image_shape[0], trainable=trainable)
    return _filter_network(layer, image_shape, num_classes)


def convolution(image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return `quanvolution` with a convolution in its place: 5,905 parameters, 15 in filters."""
    layer = nn.Conv2d(image_shape[0], _FILTERS, 2, stride=2)
    return _filter_network(layer, image_shape, num_classes)


class Ensemble(nn.Module):
    """The mean of AlexNet's and LeNet5's logits, trained jointly (arXiv:2311.13810)."""

    def __init__(self, image_shape: ImageShape, num_classes: int) -> None:
        super().__init__()
        self.alexnet = alexnet(image_shape, num_classes)
        self.lenet5 = lenet5(image_shape, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits (batch, num_classes) of images (batch, 1, 28, 28)."""
        logits: torch.Tensor = (self.alexnet(images) + self.lenet5(images)) / 2
        return logits


_FACTORIES: dict[str, Factory] = {
    "softmax": softmax,
    "mlp": mlp,
    "small_cnn": small_cnn,
    "lenet5": lenet5,
    "alexnet": alexnet,
    "ensemble": Ensemble,
    "quanvolution": quanvolution,
    "random_quanvolution": functools.partial(quanvolution, trainable=False),
    "convolution": convolution,
}


def _filter_network(filters: nn.Module, image_shape: ImageShape, num_classes: int) -> nn.Module:
    _, height, width = image_shape
    if min(height, width) < 2:
        raise TeacherError(
            f"filters of 2x2 pixels were asked for images of {height}x{width}; choose another kind"
        )
    parts: dict[str, nn.Module] = {
        "filters": filters,
        "flatten": nn.Flatten(),
        "classifier": nn.Linear(_FILTERS * (height // 2) * (width // 2), num_classes),
    }
    return nn.Sequential(OrderedDict(parts))


def _network(features: list[nn.Module], classifier: list[nn.Module]) -> nn.Module:
    parts = {
        "features": nn.Sequential(*features),
        "classifier": nn.Sequential(nn.Flatten(), *classifier),
    }
    return nn.Sequential(OrderedDict(parts))


def _require_28x28(kind: str, image_shape: ImageShape) -> None:
    if image_shape != (1, 28, 28):
        raise TeacherError(
            f"teacher.kind {kind} needs images of shape (1, 28, 28), as mnist and fashion_mnist "
            f"have; these are {image_shape}: choose lenet5, small_cnn, mlp or softmax"
        )
