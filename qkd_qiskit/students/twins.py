"""Simple classical models that a circuit has to beat.

Each twin has at most as many trained numbers as the student that its specification describes, as
near as its shape allows. What comes before the first trained layer is fixed, fitted to the pool of
training images where it depends on data, and on one scale: the mean square of a feature is 1.

=================  ====================================================  =========================
kind               model                                                 trained, C classes
=================  ====================================================  =========================
pca_linear         k principal components, a linear layer                C (k + 1)
pooled_linear      means over h x w regions, a linear layer              C (h w + 1)
bilinear           p x q features u^T X v, X of h x w regions, a linear  h p + w q + C (p q + 1)
                   layer
random_features    k random projections (ReLU of them where k is more    C (k + 1)
                   than there are pixels), a linear layer
butterfly          L layers of 2^(m - 1) Givens rotations of 2^m         L 2^(m - 1)
                   amplitudes, squared into C bins
small_convolution  f filters of 3x3 pixels, leaky ReLU, means over       f (9 c + 1) + C (f g^2 + 1)
                   g x g regions, a linear layer
softmax            all p pixels or features, a linear layer: no twin,    C (p + 1)
                   the linear probe of whatever size
=================  ====================================================  =========================

The butterfly is that of Cherrat et al. (arXiv 2209.08167, section 3): rotations of pairs of
amplitudes at distance 1, 2, 4, ..., which a computer without qubits applies as well; here the
layers go on from the first distance where there are numbers left.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.twin_layers import (
    Bilinear,
    Butterfly,
    Components,
    Direction,
    Grey,
    RandomFeatures,
)

_MOST_OBLONG = 2  # times as many regions one way as the other, of an image of equal sides
_SLOPE = 0.2  # of the convolution's units below 0

Parts = tuple[nn.Sequential, nn.Module]
"""What is fixed, from images to inputs, and what is trained, from inputs to logits."""


class TwinStudent(Student):
    """A simple classical model of at most `matched` trained numbers.

    Attributes:
        network: What is trained, from the inputs that `reduction` gives to logits.
    """

    def __init__(
        self,
        spec: StudentSpec,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        matched: int,
    ) -> None:
        """Draw the parameters from torch's global random numbers.

        Raises:
            CircuitError: The smallest model of this kind has more trained numbers than `matched`.
        """
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        made = MAKERS[spec.kind](image_shape, num_classes, matched)
        if isinstance(made, int):
            raise CircuitError(
                f"kind {spec.kind}: the smallest for {num_classes} classes has {made} trained "
                f"numbers and the student only {matched}; leave this arm out, or give the student "
                "more layers"
            )
        self.reduction, self.network = made
        if isinstance(self.network, Butterfly) and spec.sharpness != "learned":
            self.network.sharpness = float(spec.sharpness)

    def features(self, images: Tensor) -> Tensor:
        """Return what is fixed, computed once for all images."""
        prepared: Tensor = self.reduction(images)
        return prepared

    def fit(self, images: Tensor) -> None:
        """Fit what depends on data to the training pool, once."""
        for module in self.reduction.children():
            if isinstance(module, Components):  # what is fitted stands last
                if not module.fitted:
                    module.fit(images)
            else:
                images = module(images)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images or prepared inputs."""
        logits: Tensor = self.network(self.reduce(inputs))
        return logits


def _pca_linear(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    pixels = math.prod(shape)
    components = min(most // classes - 1, pixels)
    if components < 1:
        return 2 * classes
    fixed = nn.Sequential(nn.Flatten(), Components(pixels, components=components))
    return fixed, nn.Linear(components, classes)


def _pooled_linear(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    rows, columns = _regions(shape, lambda rows, columns: classes * (rows * columns + 1) <= most)
    if rows == 0:
        return 2 * classes
    return _pooled(rows, columns), nn.Linear(rows * columns, classes)


def _bilinear(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    _, height, width = shape

    def count(rows: int, columns: int, left: int, right: int) -> int:
        return rows * left + columns * right + classes * (left * right + 1)

    # Features are at most half the regions each way: as many would be the regions themselves.
    sizes = [
        (rows, columns, left, right)
        for rows in range(1, height + 1)
        for columns in [max(1, round(rows * width / height))]
        for left in range(1, (rows if rows == height else rows // 2) + 1)
        for right in range(max(1, left - 1), min(left + 1, columns) + 1)
        if columns == width or 2 * right <= columns
    ]
    fit = [size for size in sizes if count(*size) <= most]
    if not fit:
        return min((count(*size) for size in sizes), default=2 + 2 * classes)
    rows, columns, left, right = max(fit, key=lambda it: (it[2] * it[3], it[0] * it[1]))
    trained = Bilinear((rows, columns), features=(left, right), classes=classes)
    return _pooled(rows, columns), trained


def _random_features(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    features, pixels = most // classes - 1, math.prod(shape)
    if features < 1:
        return 2 * classes
    fixed = nn.Sequential(nn.Flatten(), Components(pixels))
    return fixed, RandomFeatures(pixels, features=features, num_classes=classes)


def _butterfly(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    rows, columns = (side.bit_length() - 1 for side in shape[1:])  # powers of 2 in the image
    least = max(1, (classes - 1).bit_length())
    wires = rows + columns
    while wires > least and wires * 2 ** (wires - 1) > most:
        wires -= 1
    if wires < least or 2 ** (wires - 1) > most:
        return least << (least - 1)
    while rows + columns > wires:
        rows, columns = (rows - 1, columns) if rows >= columns else (rows, columns - 1)
    size = 2**rows, 2**columns
    fixed = nn.Sequential(Grey(), nn.AdaptiveAvgPool2d(size), nn.Flatten(), Direction())
    return fixed, Butterfly(wires, layers=most // 2 ** (wires - 1), num_classes=classes)


def _small_convolution(shape: tuple[int, int, int], classes: int, most: int) -> Parts | int:
    channels, height, width = shape

    def count(filters: int, side: int) -> int:
        regions = min(side, height) * min(side, width)
        return filters * (9 * channels + 1) + classes * (filters * regions + 1)

    sides = range(1, max(1, max(height, width) // 2) + 1)
    fit = [
        (filters, side)
        for side in sides
        for filters in range(1, (most - classes) // (9 * channels + 1 + classes) + 1)
        if count(filters, side) <= most
    ]
    if not fit:
        return count(1, 1)
    # One filter alone is hardly a convolution; beyond two, where things are matters more.
    filters, side = max(fit, key=lambda sizes: (sizes[0] > 1, sizes[1], sizes[0]))
    regions = min(side, height), min(side, width)
    trained = nn.Sequential(
        nn.Unflatten(1, shape),
        nn.Conv2d(channels, filters, 3, padding=1),
        nn.LeakyReLU(_SLOPE),  # of few filters none may die
        nn.AdaptiveAvgPool2d(regions),
        nn.Flatten(),
        nn.Linear(filters * math.prod(regions), classes),
    )
    return nn.Sequential(nn.Flatten(), Components(math.prod(shape))), trained


def _softmax(shape: tuple[int, int, int], classes: int, most: int) -> Parts:
    inputs = math.prod(shape)
    return nn.Sequential(nn.Flatten(), Components(inputs)), nn.Linear(inputs, classes)


MAKERS: dict[str, Callable[[tuple[int, int, int], int, int], Parts | int]] = {
    "pca_linear": _pca_linear,
    "pooled_linear": _pooled_linear,
    "bilinear": _bilinear,
    "random_features": _random_features,
    "butterfly": _butterfly,
    "small_convolution": _small_convolution,
    "softmax": _softmax,
}
"""Each twin by its kind: its parts from image shape, number of classes and the most trained
numbers; where that is too few, the number that the smallest has."""


def _pooled(rows: int, columns: int) -> nn.Sequential:
    return nn.Sequential(
        Grey(), nn.AdaptiveAvgPool2d((rows, columns)), nn.Flatten(), Components(rows * columns)
    )


def _regions(shape: tuple[int, int, int], fits: Callable[[int, int], bool]) -> tuple[int, int]:
    """Return the most regions that fit, rows and columns, not too oblong; 0, 0 where none do."""
    _, height, width = shape
    size: tuple[int, int] = max(
        (
            (rows, columns)
            for rows in range(1, height + 1)
            for columns in range(1, width + 1)
            if fits(rows, columns)
            and (
                min(height, width) == 1
                or max(rows * width, columns * height)
                <= _MOST_OBLONG * min(rows * width, columns * height)
            )
        ),
        key=lambda size: (size[0] * size[1], -abs(size[0] - size[1])),
        default=(0, 0),
    )
    return size
