"""The training loop: a population of students of one shape, each member with its own lessons.

Members share every step: their parameters are stacked along a leading dimension S and mapped with
`torch.func.vmap`. A member's initialisation, data order, targets and loss weights are its own, and
its figures do not depend on its companions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from qkd_qiskit.data import Data
from qkd_qiskit.errors import CheckpointError, InputError, TeacherError, TrainingError
from qkd_qiskit.losses import distillation_loss, label_loss
from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.seeds import generator
from qkd_qiskit.storage import load_tensors, save_tensors
from qkd_qiskit.students import Student
from qkd_qiskit.teachers import Teacher

TERMS = ("ce", "kd")
_EVALUATION_BATCH = 4096  # images x members at a time
_DEAD = 1e-9  # a gradient that is nowhere larger than this comes from rounding


@dataclass(frozen=True, kw_only=True)
class Member:
    """One student of a population.

    Attributes:
        arm: Name of what distinguishes it, for example `distilled`.
        seed: Seed of its initialisation, data draw and data order.
        ce_weight: Weight of the cross-entropy with the labels.
        kd_weight: Weight of the divergence from the teacher.
    """

    arm: str
    seed: int
    ce_weight: float
    kd_weight: float


@dataclass(frozen=True, kw_only=True)
class Lessons:
    """What a population learns from.

    Attributes:
        inputs: What `student.features` gives for the training pool, `(pool, ...)`.
        labels: Labels of the pool, `(pool,)`.
        teacher_logits: Teacher's logits for the pool, `(pool, num_classes)`.
        draws: Rows of the pool that each member trains on, `(members, images)`.
        validation_inputs: What `student.features` gives for the validation split.
        validation_labels: Its labels.
    """

    inputs: Tensor
    labels: Tensor
    teacher_logits: Tensor
    draws: Tensor
    validation_inputs: Tensor
    validation_labels: Tensor


@dataclass(frozen=True)
class Epoch:
    """One member's figures after one epoch (losses are means over the epoch's steps, in nats)."""

    epoch: int
    loss: float
    ce: float
    kd: float
    validation_accuracy: float
    lr: float


_FIGURES = [field.name for field in fields(Epoch)][1:]
_ACCURACY = _FIGURES.index("validation_accuracy")


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One member after training.

    Attributes:
        member: Which one.
        state: Its chosen parameters by name.
        chosen_epoch: The epoch they come from, counted from 1; 0 = the start, where the first
            epoch failed.
        history: Its figures, one entry for each epoch.
    """

    member: Member
    state: dict[str, Tensor]
    chosen_epoch: int
    history: list[Epoch]

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the chosen parameters; NaN where no epoch was chosen."""
        if self.chosen_epoch == 0:
            return math.nan
        return self.history[self.chosen_epoch - 1].validation_accuracy


def train_population(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    lessons: Lessons,
    spec: DistillSpec,
    checkpoint: Path | None = None,
    on_epoch: Callable[[list[Epoch]], None] | None = None,
) -> list[Trained]:
    """The members after `spec.epochs` epochs, trained together in every step.

    A member whose parameters stop being finite keeps the weights chosen before; from then on its
    losses are NaN in its history, and the other members go on.

    Args:
        student: The shape that the members share; its own parameters are left alone.
        members: Who is trained.
        starts: Each member's first parameters by name.
        lessons: What they learn from.
        spec: Optimizer, temperatures and how the weights are chosen.
        checkpoint: File that is written after every epoch and continued from where it exists; a
            continued training ends with the same bits as one that was never stopped.
        on_epoch: Called after every epoch with one `Epoch` for each member.

    Raises:
        TrainingError: A loss term with a weight above 0 gives the student no gradient.
        CheckpointError: The checkpoint belongs to another population.
        StorageError: The checkpoint could not be written; the one before it is still there.
    """
    population = _Population(student, members, starts=starts, spec=spec)
    if checkpoint is not None and checkpoint.exists():
        population.load(checkpoint)
    else:
        check_terms(student, members, starts=starts, lessons=lessons, spec=spec)

    def member_terms(parameters: dict[str, Tensor], *batch: Tensor) -> Tensor:
        return _terms(student, parameters, batch, spec)

    for epoch in range(population.epochs_done, spec.epochs):
        order = torch.stack(
            [
                draw[torch.randperm(len(draw), generator=generator(member.seed, "order", epoch))]
                for member, draw in zip(members, lessons.draws, strict=True)
            ]
        )
        lr = _learning_rate(spec, epoch)
        sums = torch.zeros(len(members), len(TERMS))
        for rows in torch.split(order, spec.batch_size, dim=1):
            batch = lessons.inputs[rows], lessons.labels[rows], lessons.teacher_logits[rows]
            terms = vmap(member_terms)(population.parameters, *batch)
            population.step((population.weights * terms).sum(), lr=lr)
            sums += terms.detach() * rows.shape[1]
        population.end_epoch(sums / order.shape[1], lessons=lessons, lr=lr)
        if checkpoint is not None:
            population.save(checkpoint)
        if on_epoch is not None:
            on_epoch(population.figures(epoch))
    return population.trained()


def distill(
    student: Student,
    teacher: Teacher,
    data: Data,
    *,
    spec: DistillSpec | None = None,
    train_per_class: int | None = None,
    seed: int = 0,
    on_epoch: Callable[[list[Epoch]], None] | None = None,
) -> Trained:
    """Trains the student in place from the labels and the teacher; returns what happened.

    Args:
        student: What learns; it starts from its present parameters.
        teacher: What teaches.
        data: Images with a training pool and a validation split.
        spec: Loss weights, optimizer and schedule; default: `DistillSpec()`.
        train_per_class: Labelled images per class that are drawn from the pool; None = all.
        seed: Seed of the draw and of the data order.
        on_epoch: Called after every epoch with a list of one `Epoch`.

    Raises:
        TrainingError: As `train_population`.
        DataError: A class has fewer images than asked for.
    """
    spec = spec or DistillSpec()
    member = Member(arm="distilled", seed=seed, ce_weight=spec.ce_weight, kd_weight=spec.kd_weight)
    draws = data.draw(train_per_class, draw="random", seed=seed)[None]
    (trained,) = train_population(
        student,
        [member],
        starts=[dict(student.named_parameters())],
        lessons=make_lessons(student, teacher, data, draws=draws),
        spec=spec,
        on_epoch=on_epoch,
    )
    student.load_parameters(trained.state)
    return trained


def make_lessons(student: Student, teacher: Teacher, data: Data, *, draws: Tensor) -> Lessons:
    """The lessons of a population: inputs and teacher outputs, each computed once.

    A reduction that depends on data (pca) and was not fitted yet is fitted to the pool.

    Args:
        student: Whose fixed preprocessing is applied.
        teacher: Who gives the logits for the pool.
        data: Images with a training pool and a validation split.
        draws: Rows of the pool for each member, `(members, images)`.

    Raises:
        InputError: The student takes other images or has another number of classes.
        TeacherError: The teacher has another number of outputs.
    """
    if (data.image_shape, data.num_classes) != (student.image_shape, student.num_classes):
        raise InputError(
            f"the data has images of shape {data.image_shape} in {data.num_classes} classes, the "
            f"student takes {student.image_shape} and {student.num_classes}; build it with "
            f"make_student(..., image_shape=data.image_shape, num_classes=data.num_classes)"
        )
    if teacher.num_classes != student.num_classes:
        raise TeacherError(
            f"the teacher has {teacher.num_classes} outputs, the student {student.num_classes}; "
            f"give a teacher of the same classes"
        )
    student.fit(data.pool.images)
    return Lessons(
        inputs=student.features(data.pool.images),
        labels=data.pool.labels,
        teacher_logits=teacher.logits(data.pool.images),
        draws=draws,
        validation_inputs=student.features(data.validation.images),
        validation_labels=data.validation.labels,
    )


def check_terms(
    student: Student,
    members: Sequence[Member],
    *,
    starts: Sequence[Mapping[str, Tensor]],
    lessons: Lessons,
    spec: DistillSpec,
) -> None:
    """Checks that every loss term in use has a gradient to every student that it trains.

    Two published codes train with a term that never reaches the student; here that is an error.

    Raises:
        TrainingError: The term has no gradient to the student.
    """
    for number, term in enumerate(TERMS):
        for member, start, draw in zip(members, starts, lessons.draws, strict=True):
            if not (member.ce_weight, member.kd_weight)[number]:
                continue
            rows = draw[: spec.batch_size]
            batch = lessons.inputs[rows], lessons.labels[rows], lessons.teacher_logits[rows]
            leaves = {name: value.detach().requires_grad_() for name, value in start.items()}
            loss = _terms(student, leaves, batch, spec)[number]
            gradients = (
                torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                if loss.requires_grad
                else ()
            )
            if not any(g is not None and bool(g.abs().max() > _DEAD) for g in gradients):
                raise TrainingError(
                    f"loss term {term!r} of arm {member.arm!r} gives the student no gradient; "
                    f"it would train nothing: mend the term or set its weight to 0"
                )


def _terms(
    student: Student,
    parameters: Mapping[str, Tensor],
    batch: tuple[Tensor, ...],
    spec: DistillSpec,
) -> Tensor:
    """The loss terms `(len(TERMS),)` of one member on one batch."""
    inputs, labels, teacher_logits = batch
    logits = functional_call(student, dict(parameters), (inputs,))
    kd = distillation_loss(
        logits,
        teacher_logits,
        temperature=spec.temperature,
        student_temperature=spec.student_temperature,
    )
    return torch.stack([label_loss(logits, labels), kd])


def _learning_rate(spec: DistillSpec, epoch: int) -> float:
    if spec.schedule == "constant":
        return spec.lr
    return spec.lr * 0.5 * (1 + math.cos(math.pi * epoch / spec.epochs))


class _Population:
    """Stacked parameters `(members, ...)`, their optimizer, the best weights and the history."""

    def __init__(
        self,
        student: Student,
        members: Sequence[Member],
        *,
        starts: Sequence[Mapping[str, Tensor]],
        spec: DistillSpec,
    ) -> None:
        self.student, self.members, self.spec = student, members, spec
        self.weights = torch.tensor([[member.ce_weight, member.kd_weight] for member in members])
        self.parameters = {
            name: torch.stack([start[name].detach() for start in starts]).requires_grad_()
            for name in starts[0]
        }
        self.optimizer = torch.optim.AdamW(
            list(self.parameters.values()), lr=spec.lr, weight_decay=spec.weight_decay
        )
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.best_epoch = torch.zeros(len(members), dtype=torch.int64)
        self.failed = torch.zeros(len(members), dtype=torch.bool)
        self.history = torch.zeros(0, len(members), len(_FIGURES), dtype=torch.float64)

    @property
    def epochs_done(self) -> int:
        return len(self.history)

    def step(self, loss: Tensor, *, lr: float) -> None:
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.param_groups[0]["lr"] = lr
        self.optimizer.step()
        values = [value.detach() for value in self.parameters.values()]
        finite = [value.isfinite().reshape(len(value), -1).all(dim=1) for value in values]
        self.failed |= ~torch.stack(finite).all(dim=0)
        if self.failed.any():
            # Numbers that are not finite would stop the circuits of the whole population.
            for name, value in self.parameters.items():
                value.data[self.failed] = self.best[name][self.failed]

    def end_epoch(self, terms: Tensor, *, lessons: Lessons, lr: float) -> None:
        accuracy = self._accuracy(lessons.validation_inputs, lessons.validation_labels)
        terms[self.failed] = math.nan
        loss = (self.weights * terms).sum(dim=1)
        rates = torch.full_like(loss, lr)
        row = torch.stack([loss, terms[:, 0], terms[:, 1], accuracy, rates], dim=1)
        self.history = torch.cat([self.history, row[None].double()])
        accuracies = self.history[:, :, _ACCURACY]
        # Of equally good epochs the later one: the learning rate has fallen further.
        chosen = accuracies[-1] >= accuracies.max(dim=0).values
        if self.spec.selection == "last":
            chosen = torch.ones_like(chosen)
        chosen &= ~self.failed
        for name, value in self.parameters.items():
            self.best[name][chosen] = value.detach()[chosen]
        self.best_epoch[chosen] = self.epochs_done

    @torch.no_grad()
    def _accuracy(self, inputs: Tensor, labels: Tensor) -> Tensor:
        def logits(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self.student, parameters, (batch,))
            return outputs

        hits = torch.zeros(len(self.members))
        size = max(1, _EVALUATION_BATCH // len(self.members))
        batches = zip(torch.split(inputs, size), torch.split(labels, size), strict=True)
        for batch, expected in batches:
            outputs = vmap(logits, in_dims=(0, None))(self.parameters, batch)
            hits += (outputs.argmax(dim=-1) == expected).sum(dim=1)
        return hits / len(labels)

    def figures(self, epoch: int) -> list[Epoch]:
        return [Epoch(epoch + 1, *row.tolist()) for row in self.history[epoch]]

    def trained(self) -> list[Trained]:
        return [
            Trained(
                member=member,
                state={name: value[index].clone() for name, value in self.best.items()},
                chosen_epoch=int(self.best_epoch[index]),
                history=[self.figures(epoch)[index] for epoch in range(self.epochs_done)],
            )
            for index, member in enumerate(self.members)
        ]

    def save(self, path: Path) -> None:
        tensors = {"history": self.history, "best_epoch": self.best_epoch}
        for name, value in self.parameters.items():
            tensors |= {f"now/{name}": value.detach(), f"best/{name}": self.best[name]}
            state = self.optimizer.state[value]
            tensors |= {f"adam/{name}/{key}": item for key, item in state.items()}
        save_tensors(path, tensors, metadata={"members": self._identity()})

    def load(self, path: Path) -> None:
        tensors, metadata = load_tensors(path)
        if metadata.get("members") != self._identity():
            raise CheckpointError(
                f"{path} belongs to another recipe or population; resume with the recipe that "
                f"wrote it, or delete it to start again"
            )
        self.history, self.best_epoch = tensors["history"], tensors["best_epoch"]
        self.failed = self.history[-1, :, _FIGURES.index("loss")].isnan()
        for name, value in self.parameters.items():
            value.data.copy_(tensors[f"now/{name}"])
            self.best[name] = tensors[f"best/{name}"]
            prefix = f"adam/{name}/"
            self.optimizer.state[value] = {
                key.removeprefix(prefix): item
                for key, item in tensors.items()
                if key.startswith(prefix)
            }

    def _identity(self) -> str:
        content = {
            "members": [asdict(member) for member in self.members],
            "spec": asdict(self.spec),
            "shapes": {name: list(value.shape) for name, value in self.parameters.items()},
        }
        return json.dumps(content, sort_keys=True)
