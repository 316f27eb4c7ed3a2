"""Similarity-preserving distillation of Tung and Mori (arXiv 1907.09682)."""

from __future__ import annotations

from torch import Tensor

from qkd_qiskit.distillation.losses.points import direction


def similarity_loss(logits: Tensor, teacher_logits: Tensor) -> Tensor:
    r"""Return the mean squared difference of the similarities between examples.

    Section 3: :math:`\tilde G = Q Q^T` of the activations Q `(batch, dimensions)`, G its rows
    at length 1, and :math:`\| G^t - G^s \|_F^2 / b^2`.

    Deviations: the activations are the logits `(batch, num_classes)`; a row without length stays 0;
    in a batch of one G is 1 for both, which gives 0 and no gradient.
    """
    if len(logits) == 1:
        return 0 * logits.sum()
    return (_similarities(teacher_logits) - _similarities(logits)).square().mean()


def _similarities(points: Tensor) -> Tensor:
    return direction(points @ points.transpose(-2, -1))
