"""From an image to the few features that a circuit takes: fixed maps and trained ones.

==========  ========  ==============================================================
reduction   trained   features of an image `(channels, height, width)`
==========  ========  ==============================================================
none        no        the pixels; zeros after them where amplitudes are more
crop        no        the centre, as square as the number of features allows, of channel 0
avg_pool    no        averages over as many regions of channel 0
max_pool    no        maxima over as many regions of channel 0
pca         no        principal components, scaled to [0, 1] on the training pool
linear      yes       one linear layer
cnn         yes       two convolutions with ReLU and max pooling, then a linear layer
==========  ========  ==============================================================

A fixed reduction keeps pixels non-negative: outcome probabilities are even in an amplitude-encoded
image, so features around zero would lose their sign.
"""

from __future__ import annotations

import functools
import logging
import math

import torch
from torch import Tensor, nn

from qkd_qiskit.errors import CircuitError

logger = logging.getLogger(__name__)

TRAINED = ("linear", "cnn")
_warn_once = functools.cache(logger.warning)
_SMALLEST_SPAN = 1e-6  # of the widest component
_NEARLY_BLACK = 1e-3


class CenterCrop(nn.Module):
    """The middle `(height, width)` pixels of the first channel.

    Where all of them are 0, as inside the digit 0, they become a thousandth of white: amplitudes
    need a direction, and to angles it makes no difference.
    """

    def __init__(self, *, image_shape: tuple[int, int, int], size: tuple[int, int]) -> None:
        super().__init__()
        self.rows, self.columns = (
            slice((whole - part) // 2, (whole - part) // 2 + part)
            for whole, part in zip(image_shape[1:], size, strict=True)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return `(batch, height * width)` of images `(batch, channels, rows, columns)`."""
        cropped = images[:, 0, self.rows, self.columns].flatten(1)
        black = cropped.abs().amax(dim=1, keepdim=True) == 0
        return torch.where(black, torch.full_like(cropped, _NEARLY_BLACK), cropped)


class PrincipalComponents(nn.Module):
    """Principal components, each scaled to [0, 1] over the images that `fit` was given."""

    mean: Tensor
    components: Tensor
    low: Tensor
    span: Tensor

    def __init__(self, *, pixels: int, num_features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(pixels))
        self.register_buffer("components", torch.zeros(pixels, num_features))
        self.register_buffer("low", torch.zeros(num_features))
        self.register_buffer("span", torch.ones(num_features))
        self._fitted = False

    def fit(self, images: Tensor) -> None:
        """Take mean, components and range from images `(batch, channels, height, width)`.

        Raises:
            CircuitError: There are fewer images than components.
        """
        from sklearn.decomposition import PCA

        pixels = images.flatten(1).double().cpu().numpy()
        if len(pixels) < self.components.shape[1]:
            raise CircuitError(
                f"reduction pca: {self.components.shape[1]} components cannot be taken from "
                f"{len(pixels)} images; use fewer qubits or more training images"
            )
        model = PCA(n_components=self.components.shape[1], svd_solver="covariance_eigh")
        scores = torch.as_tensor(model.fit_transform(pixels))
        low, high = scores.min(dim=0).values, scores.max(dim=0).values
        self.mean.copy_(torch.as_tensor(model.mean_))
        self.components.copy_(torch.as_tensor(model.components_.T))
        self.low.copy_(low)
        span = high - low
        # A component that does not vary would be rounding noise, stretched to [0, 1].
        self.span.copy_(torch.where(span > _SMALLEST_SPAN * span.max(), span, 1))

    @property
    def fitted(self) -> bool:
        """Return whether `fit` has been called, or fitted buffers have been loaded.

        Once they are, they are not looked at again, which would wait for a GPU in every pass.
        """
        self._fitted = self._fitted or bool(self.components.any())
        return self._fitted

    def forward(self, images: Tensor) -> Tensor:
        """Return features `(batch, num_features)` in [0, 1] of images `(batch, ...)`.

        Raises:
            CircuitError: `fit` has not been called.
        """
        if not self.fitted:
            raise CircuitError(
                "reduction pca has not seen any images; call student.fit(images) with the "
                "training images first"
            )
        scores = (images.flatten(1) - self.mean) @ self.components
        return ((scores - self.low) / self.span).clamp(0, 1)


def make_reduction(
    name: str, *, image_shape: tuple[int, int, int], num_features: int, pad: bool = False
) -> nn.Sequential:
    """Return the module from images `(batch, channels, height, width)` to features.

    Args:
        name: Which reduction.
        image_shape: (channels, height, width).
        num_features: Features that it gives, `(batch, num_features)`.
        pad: Whether `none` may fill missing features with zeros, which is logged: to amplitudes
            they are outcomes of probability 0.

    Raises:
        CircuitError: The reduction is unknown, or cannot give that many features.
    """
    channels, height, width = image_shape
    pixels = math.prod(image_shape)
    if name == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(pixels, num_features))
    if name == "cnn":
        if min(height, width) < 4:
            raise CircuitError(f"reduction cnn takes images of at least 4x4, not {height}x{width}")
        body = [nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
        body += [nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
        return nn.Sequential(*body, nn.Linear(16 * (height // 4) * (width // 4), num_features))
    if name == "none":
        if pad and pixels < num_features:
            _warn_once(
                f"reduction none: {pixels} features fill {num_features} amplitudes, the rest are 0"
            )
            return nn.Sequential(nn.Flatten(), nn.ConstantPad1d((0, num_features - pixels), 0.0))
        if pixels != num_features:
            raise CircuitError(
                f"reduction none: the image has {pixels} features and this encoding takes "
                f"{num_features}; change student.qubits, or choose linear, crop, pca, avg_pool, "
                f"max_pool or cnn"
            )
        return nn.Sequential(nn.Flatten())
    if num_features > pixels:
        raise CircuitError(
            f"reduction {name}: {num_features} features cannot be taken from {pixels} pixels; "
            f"use fewer qubits"
        )
    if name == "pca":
        return nn.Sequential(PrincipalComponents(pixels=pixels, num_features=num_features))
    size = _most_square(num_features, image_shape=image_shape)
    if name == "crop":
        return nn.Sequential(CenterCrop(image_shape=image_shape, size=size))
    pools = {"avg_pool": nn.AdaptiveAvgPool2d, "max_pool": nn.AdaptiveMaxPool2d}
    if name not in pools:
        known = "none, linear, crop, pca, avg_pool, max_pool, cnn"
        raise CircuitError(f"reduction {name!r} is unknown; give one of {known}")
    return nn.Sequential(pools[name](size), _FirstChannel(), nn.Flatten())


class _FirstChannel(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images[:, :1]


def _most_square(num_features: int, *, image_shape: tuple[int, int, int]) -> tuple[int, int]:
    _, height, width = image_shape
    for rows in range(math.isqrt(num_features), 0, -1):
        columns, rest = divmod(num_features, rows)
        if rest == 0 and rows <= height and columns <= width:
            return rows, columns
    raise CircuitError(
        f"{num_features} features are not a rectangle inside {height}x{width} pixels; "
        f"choose pca or linear"
    )
