"""Lengths, directions and pairs of points, with a gradient of 0 where they have none.

The square root has no finite gradient at 0; here what has no length gives none.
"""

from __future__ import annotations

import torch
from torch import Tensor


def length(vectors: Tensor) -> Tensor:
    """Return the Euclidean lengths `(..., 1)` of vectors `(..., dimensions)`.

    What is too short for its square to be divided by (3e-10 in float32) has length 0.
    """
    squares = vectors.square().sum(dim=-1, keepdim=True)
    known = squares > torch.finfo(squares.dtype).tiny ** 0.5
    return torch.where(known, torch.where(known, squares, 1.0).sqrt(), 0.0)


def direction(vectors: Tensor) -> Tensor:
    """Return the vectors `(..., dimensions)` at length 1; 0 for those without length."""
    lengths = length(vectors)
    known = lengths > 0
    return torch.where(known, vectors, 0.0) / torch.where(known, lengths, 1.0)


def differences(points: Tensor) -> Tensor:
    """Return `points[j] - points[i]` at `[i, j]`, `(batch, batch, dimensions)`."""
    return points[None, :] - points[:, None]


def distinct(points: Tensor) -> Tensor:
    """Return 1 for each pair of two examples, 0 for an example with itself, `(batch, batch)`."""
    batch = len(points)
    return 1 - torch.eye(batch, dtype=points.dtype, device=points.device)
