"""Knowledge distillation: soft targets of Hinton, Vinyals and Dean (arXiv 1503.02531)."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import log_softmax


def distillation_loss(
    logits: Tensor,
    teacher_logits: Tensor,
    *,
    temperature: float,
    student_temperature: float | None = None,
) -> Tensor:
    r"""Return the divergence of the student from the softened teacher, in nats.

    Hinton, Vinyals, Dean (arXiv 1503.02531, section 2):
    :math:`T_s^2 \, KL(softmax(t / T) \,\|\, softmax(s / T_s))`. With `student_temperature` None,
    :math:`T_s = T` (symmetric, theirs); with 1 only the teacher is softened. The factor is the
    student's temperature squared, since it is the student's 1/T_s that shrinks the gradient: in the
    symmetric case that is their T^2. The quantum students of arXiv 2311.13810 use T = 3 and the
    mean over batch *and* classes; here the classes are summed, as the divergence is defined.

    Args:
        logits: Student's logits `(batch, num_classes)`.
        teacher_logits: Teacher's logits `(batch, num_classes)`.
        temperature: T, above 0.
        student_temperature: T_s, above 0, or None for T.
    """
    student_temperature = temperature if student_temperature is None else student_temperature
    target = log_softmax(teacher_logits / temperature, dim=-1)
    student = log_softmax(logits / student_temperature, dim=-1)
    # Written out: torch's kl_div has no batching rule for vmap.
    divergence = (target.exp() * (target - student)).sum(dim=-1).mean()
    return student_temperature**2 * divergence
