"""The terms of a loss by name: those that a recipe lists, or a function of the user's own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from qkd_qiskit.distillation import losses
from qkd_qiskit.errors import TrainingError
from qkd_qiskit.recipe import LABEL_LOSSES, DistillSpec, LossName, LossTerm
from qkd_qiskit.recipe.training import LOSS_OPTIONS, STATE_LOSSES
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent

_DEAD = 1e-9  # a gradient that is nowhere larger than this comes from rounding

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of student's logits, teacher's logits `(batch, num_classes)` and labels `(batch,)`, a scalar."""

FUNCTIONS: dict[LossName, Callable[..., Tensor]] = {
    "label_smoothing": losses.label_smoothing_loss,
    "standardized_kd": losses.standardized_distillation_loss,
    "dkd": losses.decoupled_loss,
    "dist": losses.dist_loss,
    "jensen_shannon": losses.jensen_shannon_loss,
    "rkd_distance": losses.rkd_distance_loss,
    "rkd_angle": losses.rkd_angle_loss,
    "similarity": losses.similarity_loss,
    "pkt": losses.pkt_loss,
    "fidelity": losses.fidelity_loss,
}
"""The losses that a list of terms can have beside ce, kd and feature."""


@dataclass(frozen=True)
class StateLoss:
    """A loss that takes the states of the student's circuit in the place of its logits.

    Attributes:
        function: The loss, of states `(batch, 2^n)`, teacher's logits and labels.
    """

    function: Loss

    def __call__(self, states: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        return self.function(states, teacher_logits, labels)


def other_values(
    others: Mapping[str, Loss],
    student: Student,
    parameters: Mapping[str, Tensor],
    *,
    batch: tuple[Tensor, ...],
    logits: Tensor,
) -> list[Tensor]:
    """Return the values of other losses on a batch; 0 for states of a student that has none.

    Args:
        others: The losses by name.
        student: Whose logits they are.
        parameters: Its parameters, in place of its own.
        batch: Inputs, labels and the teacher's logits, as `DistillationData.batch` gives them.
        logits: The student's logits for the inputs `(batch, num_classes)`.
    """
    inputs, labels, teacher_logits = batch[:3]
    states = None
    if isinstance(student, QuantumStudent) and reads_states(others):
        named = {f"student.{name}": value for name, value in parameters.items()}
        states = functional_call(_States(student), named, (inputs,))
    return [
        loss(logits, teacher_logits, labels)
        if not isinstance(loss, StateLoss)
        else logits.new_zeros(())
        if states is None
        else loss(states, teacher_logits, labels)
        for loss in others.values()
    ]


def reads_states(others: Mapping[str, Loss]) -> bool:
    """Return whether one of the losses is of states, which logits alone do not give."""
    return any(isinstance(loss, StateLoss) for loss in others.values())


class _States(nn.Module):
    """A student as a module that gives its states, for `functional_call`."""

    def __init__(self, student: QuantumStudent) -> None:
        super().__init__()
        self.student = student

    def forward(self, inputs: Tensor) -> Tensor:
        return self.student.states(inputs)


def why_no_states(student: Student, *, exact: bool) -> str | None:
    """Return why a loss of states would train nothing, for a message; None where it trains.

    Args:
        student: Who is to be trained.
        exact: Whether its circuit runs exactly while it trains.
    """
    if not isinstance(student, QuantumStudent):
        return (
            f"a student of kind {student.spec.kind} has no circuit with states; leave out the term "
            "or the arm"
        )
    if not exact:
        return (
            "it compares exact states, and the circuit runs on a target while it trains; give "
            "distill.gradient exact, or leave out the term or the arm"
        )
    if not student.trains_states:
        return (
            f"nothing that encodes an image is trained (reduction {student.spec.reduction}, "
            f"encoding {student.spec.encoding}), and what follows is one unitary U for all images, "
            "which leaves |<psi_i|U^dagger U|psi_j>|^2 as it is; give student.encoding reuploading "
            "with 2 or more layers, or a trained student.reduction (linear, with kind hybrid)"
        )
    return None


def check_states(loss: Loss | None, student: Student, *, name: str) -> None:
    """Check that a loss, if it is one of states, has a student whose states it can train.

    Raises:
        TrainingError: It has none.
    """
    if not isinstance(loss, StateLoss):
        return
    reason = why_no_states(student, exact=student.executor is None)
    if reason is not None:
        raise TrainingError(f"loss term {name} gives the student no gradient: {reason}")


def check_term(loss: Tensor, parameters: Sequence[Tensor], *, name: str) -> None:
    """Check that a loss term has a gradient to a student's parameters; its graph is kept.

    Raises:
        TrainingError: It has none, or one that is not finite.
    """
    gradients = (
        torch.autograd.grad(loss, parameters, allow_unused=True, retain_graph=True)
        if loss.requires_grad
        else ()
    )
    given = [gradient.flatten().cpu() for gradient in gradients if gradient is not None]
    flat = torch.cat([torch.zeros(1), *given])
    if not bool(flat.isfinite().all()):
        raise TrainingError(
            f"loss term {name} gives the student a gradient that is not finite: check the "
            f"temperatures and the teacher's logits"
        )
    if not bool(flat.abs().max() > _DEAD):
        raise TrainingError(
            f"loss term {name} gives the student no gradient; it would train nothing: mend the "
            f"term or set its weight to 0"
        )


def other_losses(spec: DistillSpec) -> dict[str, Loss]:
    """Return the losses of `spec.other_terms` by name, with their options."""
    found: dict[str, Loss] = {}
    for term in spec.other_terms:
        loss = partial(_apply, term.loss, _options(term, temperature=spec.temperature))
        found[term.loss] = StateLoss(loss) if term.loss in STATE_LOSSES else loss
    return found


LOSS_ARGUMENTS = ("logits", "teacher_logits", "labels")


def own_loss(function: Loss) -> dict[str, Loss]:
    """Return a function of the user's own by its name; it refuses what is no scalar.

    Raises:
        TrainingError: It does not take three arguments; later, where it is called: what it returns
            is no tensor of one number.
    """
    name = getattr(function, "__name__", type(function).__name__)
    try:
        inspect.signature(function).bind(*LOSS_ARGUMENTS)
    except TypeError as error:
        raise TrainingError(
            f"loss {name!r}: {error}; give a function of {', '.join(LOSS_ARGUMENTS)}, in this order"
        ) from error
    except ValueError:
        pass  # of compiled code, which does not tell

    def scalar(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        value: object = function(logits, teacher_logits, labels)
        if isinstance(value, Tensor) and value.shape == ():
            return value
        kind = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
        raise TrainingError(
            f"loss {name!r} returns {kind} for logits {tuple(logits.shape)}; return a tensor of "
            "shape (), the mean over the batch"
        )

    return {name: scalar}


def logit_terms(
    logits: Tensor,
    *,
    teacher_logits: Tensor,
    labels: Tensor,
    spec: DistillSpec,
    others: Mapping[str, Loss],
) -> list[Tensor]:
    """Return cross-entropy, divergence and the other terms of one member on one batch."""
    kd = losses.distillation_loss(
        logits,
        teacher_logits,
        temperature=spec.temperature,
        student_temperature=spec.student_temperature,
    )
    rest = [loss(logits, teacher_logits, labels) for loss in others.values()]
    return [losses.label_loss(logits, labels), kd, *rest]


def population_terms(
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    spec: DistillSpec,
    others: Mapping[str, Loss],
    mapped: bool,
) -> Tensor:
    """Return all terms of all members `(members, terms)`; 0 for that of feature maps.

    Args:
        logits: Students' logits `(members, batch, num_classes)`.
        teacher_logits: Teachers' logits of the same shape.
        labels: Labels `(members, batch)`.
        spec: Temperatures.
        others: The terms beside cross-entropy, divergence and feature maps.
        mapped: Whether they run under vmap; otherwise member by member.
    """

    def member_terms(logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        ce, kd, *rest = logit_terms(
            logits, teacher_logits=teacher_logits, labels=labels, spec=spec, others=others
        )
        return torch.stack([ce, kd, torch.zeros_like(ce), *rest])

    if mapped:
        found: Tensor = vmap(member_terms)(logits, teacher_logits, labels)
        return found
    batches = zip(logits, teacher_logits, labels, strict=True)
    return torch.stack([member_terms(*batch) for batch in batches])


def _options(term: LossTerm, *, temperature: float) -> dict[str, float]:
    given = {name: getattr(term, name) for name in LOSS_OPTIONS.get(term.loss, ())}
    if "temperature" in given and term.temperature is None:
        given["temperature"] = temperature
    return {name: value for name, value in given.items() if value is not None}


def _apply(
    name: LossName,
    options: dict[str, float],
    logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
) -> Tensor:
    function = FUNCTIONS[name]
    if name == "label_smoothing":
        return function(logits, labels, **options)
    if name in LABEL_LOSSES:
        return function(logits, teacher_logits, labels, **options)
    return function(logits, teacher_logits, **options)
