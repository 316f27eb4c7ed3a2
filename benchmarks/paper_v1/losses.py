"""The published loss, and the two published forms of it whose distillation term trains nothing."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import cross_entropy, kl_div, log_softmax, softmax

TEMPERATURE = 3.0


def published_loss(
    outputs: Tensor,
    labels: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float = TEMPERATURE,
) -> dict[str, Tensor]:
    r"""The published terms, `ce` and `kd`, the second still to be weighted with alpha.

    .. math:: CE(y, label) + \alpha\, T^2 K \, KLDivLoss_{mean}(\log softmax(y_{<C} / T),
              softmax(t / T))

    The cross-entropy takes all outputs y for logits, the divergence those of the C classes. K is
    taken as C, which makes torch's mean over the classes the sum that defines the divergence.
    """
    classes = teacher_logits.shape[1]
    student = log_softmax(outputs[:, :classes] / temperature, dim=1)
    target = softmax(teacher_logits / temperature, dim=1)
    # Not reduction="mean", at which torch warns that it is not the divergence.
    mean = kl_div(student, target, reduction="none").mean()
    return {"ce": cross_entropy(outputs, labels), "kd": temperature**2 * classes * mean}


def teacher_only_term(
    outputs: Tensor, teacher_logits: Tensor, *, temperature: float = TEMPERATURE
) -> Tensor:
    """The divergence as some published runs have it: of the teacher from itself.

    The student's outputs are not in it, so it gives them no gradient.
    """
    return published_loss(
        teacher_logits, teacher_logits.argmax(dim=1), teacher_logits, temperature=temperature
    )["kd"]


def zero_weight_term(
    outputs: Tensor, teacher_logits: Tensor, *, temperature: float = TEMPERATURE
) -> Tensor:
    """The divergence as other published runs have it: multiplied by 0."""
    loss = published_loss(
        outputs, teacher_logits.argmax(dim=1), teacher_logits, temperature=temperature
    )
    return 0.0 * loss["kd"]
