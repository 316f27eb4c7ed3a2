"""How good logits are: counts of choices, calibration, agreement with a teacher."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import kl_div, log_softmax

CALIBRATION_BINS = 15


def confusion_counts(choices: Tensor, labels: Tensor, *, num_classes: int) -> list[list[int]]:
    """Count how often each class was chosen: row = label, column = choice.

    Args:
        choices: Chosen classes `(images,)`.
        labels: True classes `(images,)`.
        num_classes: Number of rows and columns.
    """
    counts = torch.zeros(num_classes, num_classes, dtype=torch.int64)
    counts.index_put_((labels, choices), torch.ones_like(choices), accumulate=True)
    rows: list[list[int]] = counts.tolist()
    return rows


def calibration_error(probabilities: Tensor, labels: Tensor) -> float:
    """Return the expected calibration error: mean |accuracy - confidence| over bins of confidence.

    Guo et al. (arXiv 1706.04599, equation 3), 15 bins of equal width, weighted by their images.

    Args:
        probabilities: Class probabilities `(images, num_classes)`.
        labels: True classes `(images,)`.
    """
    confidence, choices = probabilities.double().max(dim=1)
    hits = (choices == labels).double()
    bins = (confidence * CALIBRATION_BINS).ceil().long().clamp(1, CALIBRATION_BINS) - 1
    gaps = torch.zeros(CALIBRATION_BINS, dtype=torch.float64).index_add(0, bins, hits - confidence)
    return float(gaps.abs().sum() / len(labels))


def agreement_and_divergence(
    logits: Tensor, teacher_logits: Tensor | None
) -> tuple[float | None, float | None]:
    """Return the share of equal choices and KL(teacher || student) in nats; None if no teacher."""
    if teacher_logits is None:
        return None, None
    divergence = kl_div(
        log_softmax(logits.double(), dim=1),
        log_softmax(teacher_logits.double(), dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return share(logits.argmax(dim=1) == teacher_logits.argmax(dim=1)), float(divergence)


def share(hits: Tensor) -> float:
    """Return the share of hits."""
    return float(hits.double().mean())
