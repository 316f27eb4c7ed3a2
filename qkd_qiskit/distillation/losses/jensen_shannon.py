"""The symmetric, bounded divergence of Lin (IEEE Trans. Inf. Theory 37, 145, 1991)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import log_softmax


def jensen_shannon_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0
) -> Tensor:
    r"""Return the Jensen-Shannon divergence of student and teacher, in nats times T squared.

    With equal weights: :math:`T^2 [KL(p \,\|\, m) + KL(q \,\|\, m)] / 2` with
    :math:`m = (p + q) / 2`, p and q softened by T. Symmetric, and at most :math:`T^2 \log 2`: where
    a sure teacher is wrong it pulls less than Hinton's divergence.

    Deviation: the factor :math:`T^2`, which keeps the gradient's size, as in distillation.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        teacher_logits: Teacher's logits `(batch, num_classes)`.
        temperature: T of both, above 0.
    """
    own = log_softmax(logits / temperature, dim=-1)
    teacher = log_softmax(teacher_logits / temperature, dim=-1)
    middle = torch.logaddexp(own, teacher) - math.log(2)
    halves = own.exp() * (own - middle) + teacher.exp() * (teacher - middle)
    return temperature**2 * 0.5 * halves.sum(dim=-1).mean()
