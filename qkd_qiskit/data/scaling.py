"""Scaling of features, fitted on the training pool, and a hint where one is needed.

Circuits turn features into angles pi * feature, and teachers train with a learning rate that
expects numbers around 1.

==========  ====================================================================================
scale       a feature x becomes
==========  ====================================================================================
none        x
standard    (x - mean) / standard deviation
minmax      (x - smallest) / (largest - smallest): 0 to 1 on the pool, perhaps more outside it
==========  ====================================================================================

Feature vectors are scaled feature by feature, images channel by channel. A feature that does not
vary becomes 0. Outcome probabilities of an amplitude-encoded circuit are even in its input, so
`minmax`, which has no negative numbers, suits it better than `standard`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qkd_qiskit.recipe.display import short_repr

Scale = Literal["none", "standard", "minmax"]
_ROWS = 4096  # images that are scaled at a time
_SMALL, _LARGE, _UNEQUAL = 0.1, 20.0, 1000.0


@dataclass(frozen=True, eq=False)
class Scaling:
    """The map x -> (x - offset) / divisor.

    Attributes:
        offset: For each feature or channel, broadcast to images (N, channels, height, width).
        divisor: Likewise, above 0.
    """

    offset: Tensor
    divisor: Tensor
    __repr__ = short_repr

    def __call__(self, images: Tensor) -> Tensor:
        """Return scaled images (N, channels, height, width), float32."""
        scaled = images.new_empty(images.shape, dtype=torch.float32)
        for start in range(0, len(images), _ROWS):  # as offset and divisor are of double precision
            rows = slice(start, start + _ROWS)
            scaled[rows] = (images[rows] - self.offset) / self.divisor
        return scaled


def fit_scaling(images: Tensor, how: Scale) -> Scaling | None:
    """Return the scaling that images (N, channels, height, width) call for; None for `none`."""
    if how == "none":
        return None
    if images.shape[1:3] != (1, 1) and images.shape[1] > 1:
        # Channel by channel: all of them at once would take twice the memory of the images.
        each = [fit_scaling(images[:, [channel]], how) for channel in range(images.shape[1])]
        offsets = torch.cat([it.offset for it in each if it is not None], dim=1)
        return Scaling(offsets, torch.cat([it.divisor for it in each if it is not None], dim=1))
    values, axes = _by_feature(images)
    if how == "standard":
        offset = values.mean(axis=axes, keepdims=True)
        spread = values.std(axis=axes, keepdims=True)
    else:
        offset = values.min(axis=axes, keepdims=True)
        spread = values.max(axis=axes, keepdims=True) - offset
    # What does not vary keeps a spread of rounding errors.
    rounding = 1e-6 * np.abs(values).max(axis=axes, keepdims=True)
    divisor = np.where(spread > rounding, spread, math.inf)
    return Scaling(torch.from_numpy(offset), torch.from_numpy(divisor))


def scale_hint(images: Tensor) -> str | None:
    """Return a line about features of a scale that circuits and teachers cannot use, or None.

    Args:
        images: (N, channels, height, width) of the training pool.
    """
    low, high = float(images.min()), float(images.max())
    if low == high:
        return f"all features are {low:.4g}, which tells no class from another"
    largest = max(abs(low), abs(high))
    scale = "set data.scale to minmax or standard, or scale the features to 0 to 1"
    if not _SMALL <= largest <= _LARGE:
        return f"features run from {low:.4g} to {high:.4g}, circuits expect about 0 to 1; {scale}"
    if images.shape[1:3] != (1, 1):
        return None  # pixels at the border may well vary little
    spread = images.double().numpy().std(axis=0).ravel()
    spread = spread[spread > 0]
    if len(spread) and spread.max() > _UNEQUAL * spread.min():
        return (
            f"some features vary {spread.max() / spread.min():.0f} times as much as others, which "
            f"circuits cannot see beside them; {scale}"
        )
    return None


def _by_feature(images: Tensor) -> tuple[npt.NDArray[np.float64], tuple[int, ...]]:
    """Return the images, and the axes that a feature's or a channel's numbers lie along."""
    vectors = images.shape[1:3] == (1, 1)
    return images.double().numpy(), (0,) if vectors else (0, 2, 3)
