"""Distillation from a stronger teacher of Huang, You, Wang, Qian and Xu (arXiv 2205.10536)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import softmax

from qkd_qiskit.distillation.losses.points import direction


def dist_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> Tensor:
    r"""Return how far predictions are from being correlated with the teacher's, 0 to 2 for each.

    With predictions :math:`Y = softmax(z / \tau)` `(batch, num_classes)` and Pearson's distance
    :math:`d(u, v) = 1 - \rho(u, v)`:
    :math:`\beta / B \sum_i d(Y^s_{i,:}, Y^t_{i,:}) + \gamma / C \sum_j d(Y^s_{:,j}, Y^t_{:,j})`,
    the relation between the classes of an example, and between the examples of a class.

    Deviations: no factor :math:`\tau^2`; what has no spread (all entries equal) is correlated with
    nothing, so that d = 1 without a gradient; in a batch of one the second part is 0.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        teacher_logits: Teacher's logits `(batch, num_classes)`.
        temperature: Tau of both, above 0.
        beta: Weight of the relation between classes.
        gamma: Weight of the relation between examples.
    """
    own = softmax(logits / temperature, dim=-1)
    teacher = softmax(teacher_logits / temperature, dim=-1)
    loss = beta * _distance(own, teacher)
    if len(own) == 1:
        return loss
    return loss + gamma * _distance(own.transpose(-2, -1), teacher.transpose(-2, -1))


def _distance(rows: Tensor, others: Tensor) -> Tensor:
    """Return the mean of Pearson's distance over the rows."""
    first, second = (direction(each - each.mean(dim=-1, keepdim=True)) for each in (rows, others))
    return 1 - (first * second).sum(dim=-1).mean()
