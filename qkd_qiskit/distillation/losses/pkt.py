"""Probabilistic knowledge transfer of Passalis and Tefas (arXiv 1803.10837)."""

from __future__ import annotations

import torch
from torch import Tensor

from qkd_qiskit.distillation.losses.points import direction, distinct

_SMALLEST = 1e-7  # similarity of opposite points: its logarithm stays finite


def pkt_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Return the divergence of who is like whom in the batch, in nats.

    The cosine similarity :math:`K(a, b) = (\cos(a, b) + 1) / 2` gives the probability
    :math:`p_{j|i} = K(x_i, x_j) / \sum_{k \neq i} K(x_i, x_k)` of j to be the neighbour of i, and
    the loss is :math:`\sum_i \sum_{j \neq i} p^t_{j|i} \log (p^t_{j|i} / p^s_{j|i})`. Unchanged by
    the length of each point.

    Deviations: the mean over i, not the sum; K is at least 1e-7; the points are the logits
    `(batch, num_classes)`. In a batch of fewer than three everyone has the one neighbour: 0, and no
    gradient.
    """
    own, teacher = _log_neighbours(logits), _log_neighbours(teacher_logits)
    return (distinct(logits) * teacher.exp() * (teacher - own)).sum() / len(logits)


def _log_neighbours(points: Tensor) -> Tensor:
    """Return the logarithm of the probability of j for each i, `(batch, batch)`."""
    unit, apart = direction(points), distinct(points)
    similar = ((unit @ unit.transpose(-2, -1) + 1) / 2).clamp_min(_SMALLEST)
    total = (similar * apart).sum(dim=-1, keepdim=True)
    return similar.log() - torch.where(total > 0, total, 1.0).log()
