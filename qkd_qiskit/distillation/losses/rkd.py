"""Relational knowledge distillation of Park, Kim, Lu and Cho (arXiv 1904.05068)."""

from __future__ import annotations

import torch
from torch import Tensor

from qkd_qiskit.distillation.losses.points import differences, direction, distinct, length


def rkd_distance_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Return the mean Huber loss of the distances between examples.

    Section 3.2.1: :math:`\psi(i, j) = |t_i - t_j| / \mu`, mu the mean distance of distinct pairs,
    and :math:`l_\delta(\psi^t, \psi^s)` with delta = 1. Unchanged by a rotation, shift or scale of
    all points.

    Deviations: the mean over distinct pairs, not their sum, so that the weight does not depend on
    the batch; the points are logits `(batch, num_classes)`; pairs at the same place have distance 0
    and no gradient.
    """
    error = _huber(_relative_distances(logits) - _relative_distances(teacher_logits))
    return error.sum() / max(1, len(logits) * (len(logits) - 1))


def rkd_angle_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Return the mean Huber loss of the angles that three examples make.

    Section 3.2.2: :math:`\psi(i, j, k) = \cos \angle t_i t_j t_k = \langle e^{ij}, e^{kj}
    \rangle` with :math:`e^{ij} = (t_i - t_j) / |t_i - t_j|`, and :math:`l_\delta` with delta = 1.
    Unchanged as the distances are. Takes memory for batch^3 numbers.

    Deviations: as for the distances, over distinct triples; 0 in a batch of fewer than three.
    """
    batch, apart = len(logits), distinct(logits)
    triples = apart[:, :, None] * apart[:, None, :] * apart[None, :, :]
    error = _huber(_cosines(logits) - _cosines(teacher_logits)) * triples
    return error.sum() / max(1, batch * (batch - 1) * (batch - 2))


def _relative_distances(points: Tensor) -> Tensor:
    """Return the distances over their mean `(batch, batch)`; 0 where all points are one."""
    distances = length(differences(points)).squeeze(-1)
    mean = distances.sum() / max(1, len(points) * (len(points) - 1))
    return distances / torch.where(mean > 0, mean, 1.0)


def _cosines(points: Tensor) -> Tensor:
    """Return at `[j, i, k]` the cosine of the angle at j between i and k."""
    to_others = direction(differences(points))
    return torch.einsum("jid,jkd->jik", to_others, to_others)


def _huber(difference: Tensor) -> Tensor:
    size = difference.abs()
    return torch.where(size <= 1, 0.5 * difference.square(), size - 0.5)
