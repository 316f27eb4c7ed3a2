"""Decoupled knowledge distillation of Zhao, Cui, Song, Qiu and Liang (arXiv 2203.08679)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def decoupled_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    r"""Return the divergences of the label and of the other classes, weighted apart, in nats.

    Section 3: :math:`\alpha\, TCKD + \beta\, NCKD`. TCKD is the divergence of the pair (label, not
    label), NCKD that of the other classes among themselves; Hinton's loss is
    :math:`TCKD + (1 - p^T_y)\, NCKD`, so that a sure teacher says next to nothing of them there.
    Both are multiplied by the temperature squared, as the published code does.

    Deviation: the published code lets the loss grow over the first epochs; here it does not.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        teacher_logits: Teacher's logits `(batch, num_classes)`.
        labels: Labels `(batch,)`.
        temperature: T of both, above 0.
        alpha: Weight of the divergence of the label.
        beta: Weight of the divergence of the other classes; the paper tunes it for each teacher.
    """
    is_label = torch.arange(logits.shape[-1], device=logits.device) == labels[:, None]
    pair, others = _split(logits / temperature, is_label)
    teacher_pair, teacher_others = _split(teacher_logits / temperature, is_label)
    target = (teacher_pair.exp() * (teacher_pair - pair)).sum(dim=-1)
    other = (teacher_others.exp() * (teacher_others - others)).masked_fill(is_label, 0.0)
    return temperature**2 * (alpha * target + beta * other.sum(dim=-1)).mean()


def _split(logits: Tensor, is_label: Tensor) -> tuple[Tensor, Tensor]:
    """Return log probabilities of (label, not label), and of the others among themselves."""
    total = logits.logsumexp(dim=-1)
    left = logits.masked_fill(is_label, -torch.inf)
    label = torch.where(is_label, logits, 0.0).sum(dim=-1)
    pair = torch.stack([label - total, left.logsumexp(dim=-1) - total], dim=-1)
    # 0 in place of -inf at the label, which is masked: infinity times 0 has no gradient.
    return pair, log_softmax(left, dim=-1).masked_fill(is_label, 0.0)
