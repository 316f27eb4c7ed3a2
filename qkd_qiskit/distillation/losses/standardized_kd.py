"""Logit standardisation of Sun, Ren, Li, Wang and Cao (arXiv 2403.01427)."""

from __future__ import annotations

import math

from torch import Tensor

from qkd_qiskit.distillation.losses.kd import distillation_loss
from qkd_qiskit.distillation.losses.points import direction


def standardized_distillation_loss(
    logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0
) -> Tensor:
    r"""Return the divergence of standardised logits, in nats.

    Algorithms 1 and 2: :math:`\tau^2 KL(softmax(Z(t)) \,\|\, softmax(Z(s)))` with
    :math:`Z(x) = (x - \bar x) / \sigma(x) / \tau`, mean and standard deviation over the K classes
    of an example. Neither shift nor scale of the logits matters, so a student need not reach the
    teacher's margins.

    Deviations: the standard deviation is the paper's, divided by K (the published code divides by
    K - 1); logits that are all equal have Z = 0, with no gradient.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        teacher_logits: Teacher's logits `(batch, num_classes)`.
        temperature: Tau, the base temperature, above 0; the paper's is 2 in most settings.
    """
    return distillation_loss(
        _standardized(logits), _standardized(teacher_logits), temperature=temperature
    )


def _standardized(logits: Tensor) -> Tensor:
    # The standard deviation is the length of the centred logits over the root of K.
    return direction(logits - logits.mean(dim=-1, keepdim=True)) * math.sqrt(logits.shape[-1])
