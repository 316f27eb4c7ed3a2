"""Copies of images that are shifted, turned or mixed, which the teacher labels one by one.

The copies are made once, before training: as many as `distill.copies` of each image, the first the
image itself. A training sees each of them equally often, in as many steps as it would take without.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample, pad

Augmentation = Literal["none", "shift", "jitter", "mixup"]
_SHIFT = 14  # an image of so many pixels is shifted by one: MNIST by two, the digits by one
_ANGLE = math.radians(10.0)
_SCALE = 0.1


def augmented_copies(
    images: Tensor, kind: Augmentation, *, copies: int, stream: torch.Generator
) -> Tensor:
    """Return copies `(copies, images, channels, height, width)`, the first the images themselves.

    shift: by whole pixels, up to a fourteenth of the width (at least one), zeros where nothing was.
    jitter: turned by up to 10 degrees, scaled by up to 10 %, shifted as before, bilinearly.
    mixup: with another of the images, in shares that are uniform (Zhang et al., arXiv 1710.09412,
    with alpha = 1; the teacher labels the mixture, where theirs mixes the labels).

    Args:
        images: `(images, channels, height, width)`.
        kind: What is done to them.
        copies: Copies of each.
        stream: Random numbers.
    """
    if kind == "mixup":
        varied = [_mixed(images, stream) for _ in range(copies - 1)]
        return torch.stack([images, *varied])
    move = _shifted if kind == "shift" else _jittered
    return torch.stack([images, *(move(images, stream) for _ in range(copies - 1))])


def _reach(size: int) -> int:
    return max(1, round(size / _SHIFT))


def _shifted(images: Tensor, stream: torch.Generator) -> Tensor:
    count, _, height, width = images.shape
    down, right = _reach(height), _reach(width)
    padded = pad(images, (right, right, down, down))
    tops = torch.randint(2 * down + 1, (count,), generator=stream)
    lefts = torch.randint(2 * right + 1, (count,), generator=stream)
    rows = (tops[:, None] + torch.arange(height))[:, None, :, None]
    columns = (lefts[:, None] + torch.arange(width))[:, None, None, :]
    which = torch.arange(count)[:, None, None, None]
    channels = torch.arange(images.shape[1])[None, :, None, None]
    return padded[which, channels, rows, columns]


def _jittered(images: Tensor, stream: torch.Generator) -> Tensor:
    count, _, height, width = images.shape

    def uniform(most: float) -> Tensor:
        return most * (2 * torch.rand(count, generator=stream) - 1)

    angle, scale = uniform(_ANGLE), 1 + uniform(_SCALE)
    # A grid reaches from -1 to 1: two units are the whole image.
    right, down = uniform(2 * _reach(width) / width), uniform(2 * _reach(height) / height)
    aspect = height / width
    cos, sin = angle.cos() / scale, angle.sin() / scale
    rows = [
        torch.stack([cos, -sin * aspect, right], dim=1),
        torch.stack([sin / aspect, cos, down], dim=1),
    ]
    grid = affine_grid(torch.stack(rows, dim=1), list(images.shape), align_corners=False)
    return grid_sample(images, grid.to(images), align_corners=False)


def _mixed(images: Tensor, stream: torch.Generator) -> Tensor:
    others = images[torch.randperm(len(images), generator=stream)]
    shares = torch.rand(len(images), generator=stream).to(images)[:, None, None, None]
    return shares * images + (1 - shares) * others
