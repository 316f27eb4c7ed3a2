"""Fused steps of a population with trained layers around a circuit, or in place of one.

The same optimizer steps as the training loop's own under torch's autograd, to rounding. Whole
epochs run in one call of the engine where the loss is of cross-entropy and divergence; with other
terms, torch differentiates these for the logits alone, `(members, batch, classes)`, between the two
halves of a step.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from qkd_qiskit.distillation.population import DistillationData, Population
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.fused.hybrid import PARTS, HybridSamples, HybridStep
from qkd_qiskit.simulator.fused.hybrid_buffers import HybridDesign
from qkd_qiskit.students.classical import ClassicalStudent
from qkd_qiskit.students.quantum import SMALLEST_PROBABILITY, QuantumStudent

logger = logging.getLogger(__name__)

LogitTerms = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From logits, teachers' logits `(members, batch, classes)` and labels `(members, batch)` to all
loss terms `(members, terms)`."""

OnStep = Callable[[int, float], None]


@dataclass(frozen=True, kw_only=True)
class Layout:
    """A student as the fused steps see it.

    Attributes:
        layers: Name of each linear layer in the student, in their order, and the layer.
        start: What the circuit starts from, as `HybridDesign` has it.
        others: Names of the other parameters, by what the steps call them.
        scale: What the circuit's outputs are multiplied by.
    """

    layers: Mapping[str, nn.Linear]
    start: str
    others: Mapping[str, str]
    scale: float = 1.0

    def names(self) -> dict[str, str]:
        """Return the parameters' names in the student by what the steps call them."""
        skipped = int(self.first is None)
        return dict(self.others) | {
            f"{kind}{number + skipped}": f"{name}.{kind}"
            for number, name in enumerate(self.layers)
            for kind in ("weight", "bias")
        }

    @property
    def first(self) -> tuple[int, int] | None:
        """Inputs and outputs of the layer in front of the circuit."""
        if self.start in ("states", "inputs"):
            return None
        return self._shapes()[0]

    @property
    def behind(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the layers behind it."""
        return self._shapes()[0 if self.start in ("states", "inputs") else 1 :]

    def _shapes(self) -> tuple[tuple[int, int], ...]:
        return tuple((each.in_features, each.out_features) for each in self.layers.values())


def hybrid_steps(
    population: Population,
    examples: DistillationData,
    *,
    terms: LogitTerms,
    on_step: OnStep | None = None,
) -> HybridSteps | None:
    """Return the population's fused steps, or None where they do not know what is trained.

    They know linear layers with bias in front of and behind a circuit that is run exactly in the
    compiled kernel (amplitudes, or angles that are affine in the features), or a tanh in its place,
    and every loss of the logits; neither feature maps, convolutions and bins that are learned, nor
    a circuit that runs elsewhere.

    Args:
        population: Whose steps.
        examples: What it learns from.
        terms: The loss terms as a function of the logits.
        on_step: Called after every step with its number, counted from 1, and the mean loss.
    """
    layout = _layout(population)
    reason = layout if isinstance(layout, str) else None
    if examples.teacher_features is not None:
        reason = "feature maps are compared"
    if reason is None and not isinstance(layout, str):
        try:
            return HybridSteps(population, examples, layout=layout, terms=terms, on_step=on_step)
        except CircuitError as error:
            reason = str(error)
    logger.debug(
        "%d members are trained step by step in torch: %s", len(population.members), reason
    )
    return None


def _layout(population: Population) -> Layout | str:
    """Return how a student is built, or why its steps cannot be fused."""
    student = population.student
    if type(student) is ClassicalStudent:
        modules = {"reduction": student.reduction, "network": student.network}
        layout = Layout(layers=_linear_layers(modules), start="none", others={})
    elif type(student) is QuantumStudent:
        if student.executor is not None:
            return "the circuit does not run in the connector"
        if not student.weights.requires_grad:
            return "the circuit is not trained"
        if student.spec.readout == "learned":
            return "each member has bins of its own"
        encoding = student.parts.encoding
        states = encoding is not None and encoding.prepares_state
        layers = _linear_layers({"reduction": student.reduction, "head": student.head})
        trained = student.spec.reduction == "linear"
        if trained and encoding is None:
            return "a layer gives the inputs of a circuit without an encoding"
        names = {id(value): name for name, value in student.named_parameters()}
        others = {"circuit": names[id(student.weights)]}
        if student.head is None and student.spec.sharpness == "learned":
            others["log_gamma"] = "log_sharpness"
        starts = ("amplitudes", "angles") if trained else ("states", "inputs")
        values = student.readout_matrix.shape[1]
        expectation = student.spec.readout == "expectation"
        layout = Layout(
            layers=layers,
            start=starts[0] if states else starts[1],
            others=others,
            scale=1.0 if student.head is None or expectation else float(values),
        )
    else:
        return f"{type(student).__name__} is not known"
    if set(layout.names().values()) != set(population.parameters):
        return "it has parameters other than linear layers and circuit weights"
    if {value.dtype for value in population.parameters.values()} - {torch.float32}:
        return "its parameters are not float32"
    return layout


def _linear_layers(modules: Mapping[str, nn.Module | None]) -> dict[str, nn.Linear]:
    return {
        f"{prefix}.{name}" if name else prefix: layer
        for prefix, module in modules.items()
        if module is not None
        for name, layer in module.named_modules()
        if isinstance(layer, nn.Linear) and layer.bias is not None
    }


class HybridSteps:
    """Takes the steps of a population, whose parameters and optimizer state it keeps up to date."""

    def __init__(
        self,
        population: Population,
        examples: DistillationData,
        *,
        layout: Layout,
        terms: LogitTerms,
        on_step: OnStep | None = None,
    ) -> None:
        student, spec = population.student, population.spec
        self.population, self.examples = population, examples
        self.terms, self.on_step = terms, on_step
        self.layout, self.names = layout, layout.names()
        connector, gamma = None, 1.0
        if isinstance(student, QuantumStudent):
            connector = student.connector
            gamma = 1.0 if student.head is not None else student.sharpness
        self.steps = HybridStep(
            HybridDesign(
                start=layout.start,
                first=layout.first,
                behind=layout.behind,
                classes=student.num_classes,
                temperature=spec.temperature,
                student_temperature=spec.student_temperature,
                scale=layout.scale,
                gamma=None if "log_gamma" in self.names else gamma,
                smallest=SMALLEST_PROBABILITY,
            ),
            connector,
            members=len(population.members),
            batch_size=min(spec.batch_size, examples.draws.shape[1]),
            factors=population.weights[:, :2].numpy(),
            weight_decay=spec.weight_decay,
        )
        # A sample is an image with a teacher's logits: numbered teacher by teacher.
        self.offsets = examples.teachers[:, None] * len(examples.inputs)
        self.used = torch.unique(examples.draws + self.offsets)
        self.samples = self._samples(
            examples.inputs,
            self.used % len(examples.inputs),
            labels=examples.labels,
            teacher_logits=examples.teacher_logits.flatten(0, 1)[self.used],
        )
        self._validation: dict[int, HybridSamples] = {}
        self._load(slice(None))

    def __call__(self, order: Tensor, *, lr: float) -> Tensor:
        """Return mean loss terms `(members, terms)` of an epoch's steps, in the rows' order."""
        population = self.population
        rows = torch.searchsorted(self.used, order + self.offsets)
        if population.other_terms or self.on_step is not None:
            terms = self._by_steps(order, rows, lr=lr)
        else:
            terms = self._fused(rows, lr=lr).float()
        self._store()
        return terms

    def accuracy(self, inputs: Tensor, labels: Tensor) -> Tensor:
        """Return the members' share of right answers `(members,)` on validation images."""
        if len(labels) not in self._validation:
            self._validation[len(labels)] = self._samples(
                inputs,
                torch.arange(len(labels)),
                labels=labels,
                teacher_logits=torch.zeros(len(labels), self.population.student.num_classes),
            )
        hits = self.steps.hits(self._validation[len(labels)])
        return torch.from_numpy(hits).float() / len(labels)

    def _samples(
        self, inputs: Tensor, rows: Tensor, *, labels: Tensor, teacher_logits: Tensor
    ) -> HybridSamples:
        student = self.population.student
        given: dict[str, Tensor] = {}
        if self.layout.first is not None:
            given = {"images": inputs, "places": rows}
        elif isinstance(student, QuantumStudent):
            given = student.circuit_inputs(inputs[rows])
        return self.steps.samples(labels[rows], teacher_logits, **given)

    def _by_steps(self, order: Tensor, rows: Tensor, *, lr: float) -> Tensor:
        """Take an epoch's steps one by one."""
        population, size = self.population, self.population.spec.batch_size
        step = self._in_halves if population.other_terms else self._fused
        sums = torch.zeros(len(order), population.weights.shape[1], dtype=torch.float64)
        for images, samples in zip(
            torch.split(order, size, dim=1), torch.split(rows, size, dim=1), strict=True
        ):
            terms = step(samples, images=images, lr=lr)
            sums += terms * images.shape[1]
            if self.on_step is not None:
                losses = (population.weights * terms).sum(dim=1)
                self.on_step(self.steps.steps, float(losses.nanmean()))
        return (sums / order.shape[1]).float()

    def _fused(self, rows: Tensor, *, lr: float, **_: Tensor) -> Tensor:
        """Take the steps of some samples whose loss the engine knows; return mean terms."""
        found = torch.from_numpy(self.steps.epoch(self.samples, rows.numpy(), lr=lr))
        return pad(found, (0, self.population.weights.shape[1] - found.shape[1]))

    def _in_halves(self, rows: Tensor, *, images: Tensor, lr: float) -> Tensor:
        """Take one step, torch giving the gradients of the logits; return the terms."""
        steps, examples, batch = self.steps, self.examples, rows.numpy()
        logits = torch.from_numpy(steps.forward(self.samples, batch)).clone().requires_grad_()
        teacher_logits = examples.teacher_logits[examples.teachers[:, None], images]
        terms = self.terms(logits, teacher_logits, examples.labels[images])
        (slopes,) = torch.autograd.grad((self.population.weights * terms).sum(), logits)
        finite = slopes.isfinite().flatten(1).all(dim=1)
        steps.failed |= ~finite.numpy()
        steps.backward(self.samples, batch, slopes.numpy(), lr=lr)
        return terms.detach()

    def _store(self) -> None:
        """Bring parameters, averages and who has failed up to date."""
        population = self.population
        numbers = self.steps.numbers()
        finite = np.stack(
            [
                np.isfinite(array.reshape(len(array), -1)).all(axis=1)
                for array in numbers[PARTS[0]].values()
            ]
        ).all(axis=0)
        self.steps.failed |= ~finite
        population.failed |= torch.from_numpy(self.steps.failed)
        for own, name in self.names.items():
            parameter = population.parameters[name]
            values, first, second = (torch.from_numpy(numbers[part][own]) for part in PARTS)
            shape = parameter.shape
            parameter.data.copy_(values.reshape(shape))
            parameter.data[population.failed] = population.best[name][population.failed]
            population.averages[parameter] = {
                "step": torch.tensor(float(self.steps.steps)),
                "exp_avg": first.reshape(shape),
                "exp_avg_sq": second.reshape(shape),
            }
        if population.failed.any():
            self._load(population.failed.numpy())

    def _load(self, rows: np.ndarray | slice) -> None:
        """Take parameters and averages of the population."""
        population = self.population
        numbers: dict[str, dict[str, np.ndarray]] = {part: {} for part in PARTS}
        for own, name in self.names.items():
            parameter = population.parameters[name]
            state = population.averages.get(parameter, {})
            zeros = torch.zeros_like(parameter)
            values = (parameter.detach(), *(state.get(part, zeros) for part in PARTS[1:]))
            for part, value in zip(PARTS, values, strict=True):
                numbers[part][own] = value.numpy()[rows]
            self.steps.steps = int(state["step"]) if state else 0
        self.steps.load(numbers, rows=rows)
        self.steps.failed |= population.failed.numpy()
