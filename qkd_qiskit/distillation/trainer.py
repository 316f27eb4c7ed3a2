"""The training loop: a population of students of one shape, each member with its own examples.

Members share every step: their parameters are stacked along a leading dimension S and mapped with
`torch.func.vmap`. A member's initialisation, data order, targets and loss weights are its own, and
its figures do not depend on its companions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.feature_maps import adapt, make_adapter, of_student
from qkd_qiskit.distillation.fused import fused_steps
from qkd_qiskit.distillation.fused_hybrid import hybrid_steps
from qkd_qiskit.distillation.losses import feature_loss
from qkd_qiskit.distillation.population import (
    DistillationData,
    EpochMetrics,
    Member,
    Population,
    TrainingResult,
)
from qkd_qiskit.distillation.schedule import learning_rate, step_sizes
from qkd_qiskit.distillation.student_modes import (
    in_training,
    one_by_one,
    training_device,
    without_shots,
)
from qkd_qiskit.distillation.terms import (
    Loss,
    check_states,
    check_term,
    logit_terms,
    other_losses,
    other_values,
    own_loss,
    population_terms,
    reads_states,
)
from qkd_qiskit.errors import InputError, TeacherError, TrainingError
from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.recipe.seeds import derive_seed, generator
from qkd_qiskit.simulator.threads import torch_threads_for
from qkd_qiskit.students.base import Student
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.layer_outputs import captured, only

TERMS = ("ce", "kd", "feature")
WATCHED = 500  # validation images that follow a training in which they choose nothing
CHECKPOINT_SECONDS = 2.0  # what a stop costs at most, beside the epoch that it comes in


def train_population(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    examples: DistillationData,
    spec: DistillSpec,
    loss: Loss | None = None,
    checkpoint: Path | None = None,
    on_epoch: Callable[[list[EpochMetrics]], None] | None = None,
    on_step: Callable[[int, float], None] | None = None,
) -> list[TrainingResult]:
    """Return the members after `spec.epochs` epochs, trained together in every step.

    Where the last weights are kept, validation images choose nothing: the first `WATCHED` of them
    follow the training, all of them are used after its last epoch.

    A member whose parameters stop being finite keeps the weights chosen before; from then on its
    losses are NaN in its history, and the other members go on.

    Args:
        student: The shape that the members share; its own parameters are left alone.
        members: Who is trained.
        starts: Each member's first parameters by name.
        examples: What they learn from.
        spec: Optimizer, temperatures and how the weights are chosen.
        loss: A function of the user's own, in place of the specification's other terms.
        checkpoint: File that is written after an epoch, the last one or where `CHECKPOINT_SECONDS`
            have passed (after every epoch where a circuit runs on a target), and continued from
            where it exists; a continued training ends with the same bits as one that was never
            stopped.
        on_epoch: Called after every epoch with one `EpochMetrics` for each member.
        on_step: Called after every step with its number, counted from 1, and the members' mean
            loss; not where a circuit's weights are all that is trained, exactly.

    Raises:
        TrainingError: A loss term with a weight above 0 gives the student no gradient.
        InputError: The student has no layer of the name given, or its features do not fit.
        CheckpointError: The checkpoint belongs to another population.
        StorageError: The checkpoint could not be written; the one before it is still there.
    """
    with training_device(student, spec) as device:
        return _train(
            student,
            members,
            starts=starts,
            examples=examples.to(device),
            spec=spec,
            loss=loss,
            checkpoint=checkpoint,
            on_epoch=on_epoch,
            on_step=on_step,
        )


def _train(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    examples: DistillationData,
    spec: DistillSpec,
    loss: Loss | None,
    checkpoint: Path | None,
    on_epoch: Callable[[list[EpochMetrics]], None] | None,
    on_step: Callable[[int, float], None] | None,
) -> list[TrainingResult]:
    """Train on the device that the student and the examples lie on."""
    starts = _with_adapters(student, members, starts=starts, examples=examples, spec=spec)
    others = other_losses(spec) if loss is None else own_loss(loss)
    if any(len(member.weights) != len(TERMS) + len(others) for member in members):
        raise TrainingError(
            f"the loss has the other terms {list(others)}; give every member as many other_weights"
        )
    population = Population(student, members, starts=starts, spec=spec, other_terms=list(others))
    with torch_threads_for(parameters=population.size, images=spec.batch_size):
        if checkpoint is not None and checkpoint.exists():
            population.load(checkpoint)
        else:
            check_terms(
                student, members, starts=starts, examples=examples, spec=spec, others=others
            )
        in_torch: dict[str, Any] = {"others": others, "mapped": loss is None and student.batched}
        compiled, hybrid, of_circuit = student.device.type == "cpu", None, None
        if compiled:
            of_circuit = fused_steps(population, examples)
        if compiled and of_circuit is None and not reads_states(others):
            terms_of = partial(population_terms, spec=spec, **in_torch)
            hybrid = hybrid_steps(population, examples, terms=terms_of, on_step=on_step)
        plain = partial(_steps, population, examples, on_step=on_step, **in_torch)
        take_steps: Callable[..., Tensor] = of_circuit or hybrid or plain
        draws = examples.draws.cpu()  # orders are drawn on the CPU, the same for every device
        plan, saved = step_sizes(spec, draws.shape[1]), time.monotonic()
        for epoch in range(population.epochs_done, len(plan)):
            order = torch.stack(
                [
                    draw[torch.randperm(len(draw), generator=stream)]
                    for member, draw in zip(members, draws, strict=True)
                    for stream in [generator(member.seed, member.order, epoch)]
                ]
            )
            lr = learning_rate(spec, epoch)
            order = order[:, : sum(plan[epoch])].to(student.device)
            terms = take_steps(order, lr=lr)
            last = epoch == len(plan) - 1
            chooses = spec.selection == "validation" or last
            seen = slice(None if chooses else WATCHED)
            population.end_epoch(
                terms,
                validation_inputs=examples.validation_inputs[seen],
                validation_labels=examples.validation_labels[seen],
                lr=lr,
                accuracy=None if hybrid is None else hybrid.accuracy,
            )
            late = time.monotonic() - saved >= CHECKPOINT_SECONDS
            if checkpoint is not None and (last or late or student.executor is not None):
                population.save(checkpoint)
                saved = time.monotonic()
            if on_epoch is not None:
                on_epoch(population.figures(epoch))
    return population.trained()


def layer_of(spec: DistillSpec) -> str | None:
    """Return the teacher's layer whose feature maps are compared; None where none are."""
    return spec.teacher_layer if spec.feature_weight > 0 else None


def make_distillation_data(
    student: Student,
    teachers: Teacher | Sequence[Teacher],
    data: Data,
    *,
    draws: Tensor,
    taught_by: Tensor | None = None,
    layer: str | None = None,
    temperature: float = 1.0,
) -> DistillationData:
    """Return the examples of a population: inputs and what the teachers say, each computed once.

    A reduction that depends on data (pca) and was not fitted yet is fitted to the pool.

    Args:
        student: Whose fixed preprocessing is applied.
        teachers: Who gives the logits for the pool.
        data: Images with a training pool and a validation split.
        draws: Rows of the pool for each member, `(members, images)`.
        taught_by: Which of the teachers teaches each member, `(members,)`; default: the first.
        layer: Layer of the teachers whose feature maps are taken, for the rows that are drawn.
        temperature: That the teachers are softened by, which matters to ensembles.

    Raises:
        InputError: The student takes other images or has another number of classes.
        TeacherError: A teacher has another number of outputs, or no such layer.
    """
    teachers = [teachers] if isinstance(teachers, Teacher) else list(teachers)
    if (data.image_shape, data.num_classes) != (student.image_shape, student.num_classes):
        raise InputError(
            f"the data has images of shape {data.image_shape} in {data.num_classes} classes, the "
            f"student takes {student.image_shape} and {student.num_classes}; build it with "
            f"make_student(..., image_shape=data.image_shape, num_classes=data.num_classes)"
        )
    for teacher in teachers:
        if teacher.num_classes != student.num_classes:
            raise TeacherError(
                f"the teacher has {teacher.num_classes} outputs, the student "
                f"{student.num_classes}; give a teacher of the same classes"
            )
    first = torch.zeros(len(draws), dtype=torch.int64)
    featured = None if layer is None else torch.unique(draws)
    student.fit(data.pool.images)
    return DistillationData(
        inputs=student.features(data.pool.images.to(student.device)),
        labels=data.pool.labels,
        teacher_logits=torch.stack(
            [teacher.logits(data.pool.images, temperature=temperature) for teacher in teachers]
        ),
        teachers=first if taught_by is None else taught_by,
        draws=draws,
        validation_inputs=student.features(data.validation.images.to(student.device)),
        validation_labels=data.validation.labels,
        featured=featured,
        teacher_features=None
        if featured is None or layer is None
        else torch.stack(
            [teacher.features(data.pool.images[featured], layer=layer) for teacher in teachers]
        ),
    )


def check_terms(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    examples: DistillationData,
    spec: DistillSpec,
    others: Mapping[str, Loss] | None = None,
) -> None:
    """Check that every loss term in use has a gradient to the students of every arm.

    Two published codes train with a term that never reaches the student; here that is an error. No
    shots are spent on it.

    Raises:
        TrainingError: The term has no gradient to the student, or one that is not finite.
    """
    arms: dict[str, int] = {}
    for place, member in enumerate(members):
        arms.setdefault(member.arm, place)
    first = examples.batch(examples.draws[:, : spec.batch_size])
    others = others or {}
    for number, term in enumerate((*TERMS, *others)):
        for place in arms.values():
            member, start = members[place], starts[place]
            if not member.weights[number]:
                continue
            if term == "feature" and examples.teacher_features is None:
                raise TrainingError(
                    f"loss term 'feature' of arm {member.arm!r} has no feature maps to compare "
                    f"with: make the examples with the teacher's layer"
                )
            check_states(others.get(term), student, name=f"{term!r} of arm {member.arm!r}")
            batch = tuple(part[place] for part in first)
            leaves = {
                name: value.detach().to(student.device).requires_grad_()
                for name, value in start.items()
            }
            with without_shots(student):
                loss = _terms(student, leaves, batch, spec, others)[number]
            parameters = list(of_student(leaves).values())
            check_term(loss, parameters, name=f"{term!r} of arm {member.arm!r}")


def _steps(
    population: Population,
    examples: DistillationData,
    order: Tensor,
    *,
    lr: float,
    others: Mapping[str, Loss],
    mapped: bool,
    on_step: Callable[[int, float], None] | None = None,
) -> Tensor:
    """Take an epoch's steps; return the members' mean loss terms `(members, terms)`.

    Args:
        population: Whose parameters are moved.
        examples: What it learns from.
        order: Each member's rows of the pool in the order of their use `(members, images)`.
        lr: Learning rate of all steps.
        others: The loss terms beside `TERMS`.
        mapped: Whether they are batched over the members; a function of the user's own need not
            run under vmap, so that its members are trained one after the other.
        on_step: As for `train_population`.
    """
    student, spec = population.student, population.spec
    first = population.epochs_done * math.ceil(examples.draws.shape[1] / spec.batch_size)

    def member_terms(parameters: dict[str, Tensor], *batch: Tensor) -> Tensor:
        return torch.stack(_terms(student, parameters, batch, spec, others))

    over_members = vmap(member_terms)
    sums = torch.zeros_like(population.weights)
    for number, rows in enumerate(torch.split(order, spec.batch_size, dim=1), start=first + 1):
        batch = examples.batch(rows)
        if mapped:
            terms = over_members(population.parameters, *batch)
        else:
            seeds = [derive_seed(member.seed, "layers", number) for member in population.members]
            with in_training(student):
                terms = one_by_one(member_terms, population.parameters, *batch, seeds=seeds)
        losses = (population.weights * terms).sum(dim=1)
        population.step(losses.sum(), lr=lr)
        sums += terms.detach() * rows.shape[1]
        if on_step is not None:
            on_step(number, float(losses.detach().nanmean()))
    return sums / order.shape[1]


def _terms(
    student: Student,
    parameters: Mapping[str, Tensor],
    batch: tuple[Tensor, ...],
    spec: DistillSpec,
    others: Mapping[str, Loss],
) -> list[Tensor]:
    """Return the loss terms of one member on one batch: `TERMS`, then the others."""
    inputs, labels, teacher_logits, *teacher_features = batch
    own, layer = of_student(parameters), spec.student_layer
    if not teacher_features or layer is None:
        logits = functional_call(student, own, (inputs,))
        feature = logits.new_zeros(())
    else:
        with captured(student, layer, owner="student") as found:
            logits = functional_call(student, own, (inputs,))
        features = adapt(parameters, only(found, layer, owner="student"))
        feature = feature_loss(features, teacher_features[0])
    ce, kd = logit_terms(logits, teacher_logits=teacher_logits, labels=labels, spec=spec, others={})
    rest = other_values(others, student, own, batch=batch, logits=logits)
    return [ce, kd, feature, *rest]


def _with_adapters(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    examples: DistillationData,
    spec: DistillSpec,
) -> Sequence[Mapping[str, Tensor]]:
    """Return the members' first parameters, with an adapter's where feature maps need one."""
    if examples.teacher_features is None or spec.student_layer is None:
        return starts
    one = examples.inputs[examples.draws[0, :1]]
    with torch.no_grad(), captured(student, spec.student_layer, owner="student") as found:
        student(one)
    shape = only(found, spec.student_layer, owner="student").shape[1:]
    return [
        {
            **start,
            **make_adapter(shape, examples.teacher_features.shape[2:], seed=member.seed),
        }
        for member, start in zip(members, starts, strict=True)
    ]
