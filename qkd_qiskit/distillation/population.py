"""A population: students of one shape that share every step, each with a life of its own.

Their parameters are stacked along a leading dimension, so that one optimizer and one call of the
engine serve them all; a member's figures do not depend on its companions.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from qkd_qiskit.distillation.feature_maps import of_student
from qkd_qiskit.distillation.student_modes import without_shots
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.simulator.torch_device import on_host
from qkd_qiskit.storage import load_tensors, save_tensors
from qkd_qiskit.students.base import Student
from qkd_qiskit.teachers.adamw import AdamW

_EVALUATION_BATCH = 4096  # images x members at a time


@dataclass(frozen=True, kw_only=True)
class Member:
    """One student of a population.

    Attributes:
        arm: Name of what distinguishes it, for example `distilled`.
        seed: Seed of its initialisation, data draw and data order.
        ce_weight: Weight of the cross-entropy with the labels.
        kd_weight: Weight of the divergence from the teacher.
        feature_weight: Weight of the difference of feature maps.
        order: Name of the random stream of its seed that orders its images.
        other_weights: Weights of the other terms of the loss, in their order.
    """

    arm: str
    seed: int
    ce_weight: float
    kd_weight: float
    feature_weight: float = 0.0
    order: str = "order"
    other_weights: tuple[float, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """The weights in the order of the loss terms."""
        return self.ce_weight, self.kd_weight, self.feature_weight, *self.other_weights


@dataclass(frozen=True, kw_only=True)
class DistillationData:
    """What a population learns from.

    Attributes:
        inputs: What `student.features` gives for the training pool, `(pool, ...)`.
        labels: Labels of the pool, `(pool,)`.
        teacher_logits: Logits of each teacher for the pool, `(teachers, pool, num_classes)`.
        teachers: Which of them teaches each member, `(members,)`.
        draws: Rows of the pool that each member trains on, `(members, images)`.
        validation_inputs: What `student.features` gives for the validation split.
        validation_labels: Its labels.
        featured: Rows of the pool that have feature maps, sorted; None without feature maps.
        teacher_features: Each teacher's feature maps of these `(teachers, featured, ...)`.
    """

    inputs: Tensor
    labels: Tensor
    teacher_logits: Tensor
    teachers: Tensor
    draws: Tensor
    validation_inputs: Tensor
    validation_labels: Tensor
    featured: Tensor | None = None
    teacher_features: Tensor | None = None
    __repr__ = short_repr

    def to(self, device: torch.device) -> DistillationData:
        """Return the examples on a device."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: part.to(device) for name, part in given.items() if part is not None}
        return DistillationData(**moved)

    def batch(self, rows: Tensor) -> tuple[Tensor, ...]:
        """Return inputs, labels, teacher logits and any features (members, images, ...) of rows."""
        teachers = self.teachers[:, None]
        parts = self.inputs[rows], self.labels[rows], self.teacher_logits[teachers, rows]
        if self.featured is None or self.teacher_features is None:
            return parts
        places = torch.searchsorted(self.featured, rows.contiguous())
        return *parts, self.teacher_features[teachers, places]


@dataclass(frozen=True)
class EpochMetrics:
    """One member's figures after one epoch.

    Losses are means over the epoch's steps, in nats; `feature` is a mean square, and `terms` are
    the other terms of the loss by name.
    """

    epoch: int
    loss: float
    ce: float
    kd: float
    validation_accuracy: float
    lr: float
    feature: float = 0.0
    terms: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, float]:
        """Return all figures by name, those of other terms behind the rest."""
        own = {name: getattr(self, name) for name in ("epoch", *_FIGURES)}
        return own | dict(self.terms)

    @classmethod
    def from_json(cls, figures: Mapping[str, float]) -> EpochMetrics:
        """Return the figures that `to_json` wrote."""
        own = {name: figures[name] for name in _FIGURES if name in figures}
        terms = {name: figures[name] for name in figures if name not in ("epoch", *_FIGURES)}
        return cls(int(figures["epoch"]), **own, terms=terms)


_FIGURES = [field.name for field in fields(EpochMetrics)][1:-1]
_ACCURACY = _FIGURES.index("validation_accuracy")


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """One member after training.

    Attributes:
        member: Which one.
        state: Its chosen parameters by name, an adapter's (see `features`) included.
        chosen_epoch: The epoch they come from, counted from 1; 0 = the start, where the first
            epoch failed.
        history: Its figures, one entry for each epoch.
    """

    member: Member
    state: dict[str, Tensor]
    chosen_epoch: int
    history: list[EpochMetrics]

    def __repr__(self) -> str:
        last = self.history[-1]
        return (
            f"TrainingResult({self.member.arm}, seed {self.member.seed}: {last.epoch} epochs, loss "
            f"{last.loss:.3f}, validation accuracy {last.validation_accuracy:.1%}; weights of "
            f"epoch {self.chosen_epoch})"
        )

    @property
    def validation_accuracy(self) -> float:
        """Validation accuracy of the chosen parameters; NaN where the training failed."""
        if not math.isfinite(self.history[-1].loss):
            return math.nan
        return self.history[self.chosen_epoch - 1].validation_accuracy


class Population:
    """Stacked parameters `(members, ...)`, their optimizer, the best weights and the history.

    `averages` is AdamW's state of each parameter, by torch's names.
    """

    def __init__(
        self,
        student: Student,
        members: Sequence[Member],
        *,
        starts: Sequence[Mapping[str, Tensor]],
        spec: DistillSpec,
        other_terms: Sequence[str] = (),
    ) -> None:
        self.student, self.members, self.spec = student, members, spec
        self.other_terms = list(other_terms)
        self.device = student.device
        self.weights = torch.tensor([member.weights for member in members], device=self.device)
        # Random features and frozen circuits are kept for each member, and not trained.
        frozen = {name for name, it in student.named_parameters() if not it.requires_grad}
        stacks = {
            name: torch.stack([start[name].detach().to(self.device) for start in starts])
            for name in starts[0]
        }
        self.parameters = {key: it.requires_grad_(key not in frozen) for key, it in stacks.items()}
        self.averages: dict[Tensor, dict[str, Tensor]] = {}
        self.optimizer = AdamW(
            self.parameters.values(),
            weight_decay=spec.weight_decay,
            fused=self.device.type == "cuda",  # one launch for all parameters
            state=self.averages,
        )
        self.best = {name: value.detach().clone() for name, value in self.parameters.items()}
        self.best_epoch = torch.zeros(len(members), dtype=torch.int64)
        self.failed = torch.zeros(len(members), dtype=torch.bool, device=self.device)
        figures = len(_FIGURES) + len(self.other_terms)
        self.history = torch.zeros(0, len(members), figures, dtype=torch.float64)
        self.cost = None if student.executor is None else student.executor.cost

    @property
    def epochs_done(self) -> int:
        """Epochs in the history."""
        return len(self.history)

    @property
    def size(self) -> int:
        """Parameters of all members."""
        return sum(value.numel() for value in self.parameters.values())

    def step(self, loss: Tensor, *, lr: float) -> None:
        """Take one step of the optimizer on the sum of the members' losses."""
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step(lr=lr)
        values = [value.detach() for value in self.parameters.values()]
        finite = [value.isfinite().reshape(len(value), -1).all(dim=1) for value in values]
        self.failed |= ~torch.stack(finite).all(dim=0)
        # Numbers that are not finite would stop the circuits of the whole population. On a GPU the
        # question whether there are any would wait for the step.
        if not on_host(self.failed) or self.failed.any():
            for name, value in self.parameters.items():
                failed = self.failed.reshape(-1, *[1] * (value.ndim - 1))
                value.data.copy_(torch.where(failed, self.best[name], value.detach()))

    def end_epoch(
        self,
        terms: Tensor,
        *,
        validation_inputs: Tensor,
        validation_labels: Tensor,
        lr: float,
        accuracy: Callable[[Tensor, Tensor], Tensor] | None = None,
    ) -> None:
        """Keep the epoch's mean loss terms `(members, terms)` and choose weights on validation.

        `accuracy` gives the members' accuracies on the latter; default: the student in torch.
        """
        accuracies = (accuracy or self._accuracy)(validation_inputs, validation_labels).cpu()
        terms, failed = terms.cpu(), self.failed.cpu()
        terms[failed] = math.nan
        loss = (self.weights.cpu() * terms).sum(dim=1)
        rates = torch.full_like(loss, lr)
        ce, kd, feature, *others = terms.T
        row = torch.stack([loss, ce, kd, accuracies, rates, feature, *others], dim=1)
        self.history = torch.cat([self.history, row[None].double()])
        so_far = self.history[:, :, _ACCURACY]
        # Of equally good epochs the later one: the learning rate has fallen further.
        chosen = so_far[-1] >= so_far.max(dim=0).values
        if self.spec.selection == "last":
            chosen = torch.ones_like(chosen)
        chosen &= ~failed
        for name, value in self.parameters.items():
            self.best[name][chosen] = value.detach()[chosen]
        self.best_epoch[chosen] = self.epochs_done

    @torch.no_grad()
    def _accuracy(self, inputs: Tensor, labels: Tensor) -> Tensor:
        def logits(parameters: dict[str, Tensor], batch: Tensor) -> Tensor:
            outputs: Tensor = functional_call(self.student, parameters, (batch,))
            return outputs

        hits = torch.zeros(len(self.members), device=self.device)
        size = max(1, _EVALUATION_BATCH // len(self.members))
        batches = zip(torch.split(inputs, size), torch.split(labels, size), strict=True)
        with without_shots(self.student):
            for batch, expected in batches:
                own = of_student(self.parameters)
                outputs = (
                    vmap(logits, in_dims=(0, None))(own, batch)
                    if self.student.batched
                    else (
                        torch.stack(
                            [
                                logits({name: value[index] for name, value in own.items()}, batch)
                                for index in range(len(self.members))
                            ]
                        )
                    )
                )
                hits += (outputs.argmax(dim=-1) == expected).sum(dim=1)
        return hits / len(labels)

    def figures(self, epoch: int) -> list[EpochMetrics]:
        """Return the members' figures after an epoch, counted from 0."""
        return [
            EpochMetrics.from_json(
                dict(zip(("epoch", *_FIGURES, *self.other_terms), (epoch + 1, *row), strict=True))
            )
            for row in self.history[epoch].tolist()
        ]

    def trained(self) -> list[TrainingResult]:
        """Return the members with their chosen weights and their history."""
        histories = zip(*(self.figures(epoch) for epoch in range(self.epochs_done)), strict=True)
        return [
            TrainingResult(
                member=member,
                state={name: value[index].cpu().clone() for name, value in self.best.items()},
                chosen_epoch=int(self.best_epoch[index]),
                history=list(history),
            )
            for index, (member, history) in enumerate(zip(self.members, histories, strict=True))
        ]

    def save(self, path: Path) -> None:
        """Write everything that `load` needs to go on to the same bits."""
        tensors = {"history": self.history, "best_epoch": self.best_epoch}
        for name, value in self.parameters.items():
            tensors |= {f"now/{name}": value.detach(), f"best/{name}": self.best[name]}
            state = self.averages.get(value, {})
            tensors |= {f"adam/{name}/{key}": item for key, item in state.items()}
        metadata = {"members": self._identity()}
        if self.cost is not None:
            metadata["cost"] = json.dumps(self.cost.counts)
        save_tensors(path, tensors, metadata=metadata)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            CheckpointError: It belongs to another population.
        """
        tensors, metadata = load_tensors(path)
        if metadata.get("members") != self._identity():
            raise CheckpointError(
                f"{path} belongs to another recipe or population; resume with the recipe that "
                f"wrote it, or delete it to start again"
            )
        for name, count in json.loads(metadata.get("cost", "{}")).items():
            setattr(self.cost, name, count)
        self.history, self.best_epoch = tensors["history"], tensors["best_epoch"]
        self.failed = self.history[-1, :, _FIGURES.index("loss")].isnan().to(self.device)
        for name, value in self.parameters.items():
            value.data.copy_(tensors[f"now/{name}"])
            self.best[name] = tensors[f"best/{name}"].to(self.device)
            prefix, fused = f"adam/{name}/", self.device.type == "cuda"
            self.averages[value] = {
                # The steps are counted on the CPU, but for the fused optimizer.
                key.removeprefix(prefix): item.to(self.device if item.ndim or fused else "cpu")
                for key, item in tensors.items()
                if key.startswith(prefix)
            }

    def _identity(self) -> str:
        members, spec = [asdict(member) for member in self.members], asdict(self.spec)
        for name in ("terms", "device"):
            if spec[name] is None:  # as checkpoints were written before there was another
                del spec[name]
        for name in ("directions", "adaptive_shots"):
            if spec[name] == getattr(DistillSpec, name):
                del spec[name]
        for member in members:
            if not member["other_weights"]:
                del member["other_weights"]
        content = {
            "members": members,
            "spec": spec,
            "shapes": {name: list(value.shape) for name, value in self.parameters.items()},
        }
        return json.dumps(content, sort_keys=True)
