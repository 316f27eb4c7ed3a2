"""The terms of a loss by name: those that a recipe lists, or a function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import torch
from torch import Tensor
from torch.func import vmap

from qkd_qiskit.distillation import losses
from qkd_qiskit.errors import TrainingError
from qkd_qiskit.recipe import LABEL_LOSSES, DistillSpec, LossName, LossTerm
from qkd_qiskit.recipe.training import LOSS_OPTIONS

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
}
"""The losses that a list of terms can have beside ce, kd and feature."""


def other_losses(spec: DistillSpec) -> dict[str, Loss]:
    """Return the losses of `spec.other_terms` by name, with their options."""
    return {
        term.loss: partial(_apply, term.loss, _options(term, temperature=spec.temperature))
        for term in spec.other_terms
    }


def own_loss(function: Loss) -> dict[str, Loss]:
    """Return a function of the user's own by its name; it refuses what is no scalar.

    Raises:
        TrainingError: Later, where it is called: what it returns is no tensor of one number.
    """
    name = getattr(function, "__name__", type(function).__name__)

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
