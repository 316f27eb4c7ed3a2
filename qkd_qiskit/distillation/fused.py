"""Fused steps of a population whose only trained numbers are circuit weights.

The same optimizer steps as the training loop's own under torch's autograd, to rounding, with the
whole epoch in one call of the engine.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from qkd_qiskit.distillation.population import DistillationData, Population
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.fused.step import FusedStep, Objective
from qkd_qiskit.students.quantum import SMALLEST_PROBABILITY, QuantumStudent


def fused_steps(population: Population, examples: DistillationData) -> FusedSteps | None:
    """Return the population's fused steps, or None where they do not know what is trained.

    They know the weights of a circuit alone, cross-entropy and divergence.
    """
    student, spec = population.student, population.spec
    if not isinstance(student, QuantumStudent) or not student.only_circuit_is_trained:
        return None
    if examples.teacher_features is not None or population.other_terms:
        return None
    objective = Objective(
        temperature=spec.temperature,
        student_temperature=spec.student_temperature,
        factor=student.sharpness,
        smallest=SMALLEST_PROBABILITY,
    )
    (weights,) = population.parameters.values()
    try:
        fused = FusedStep(
            student.connector,
            weights.detach(),
            objective=objective,
            ce_weight=population.weights[:, 0],
            kd_weight=population.weights[:, 1],
            weight_decay=spec.weight_decay,
        )
    except CircuitError:
        return None
    return FusedSteps(population, fused, examples=examples)


class FusedSteps:
    """Takes the steps of a population, whose parameters and optimizer state it keeps up to date."""

    def __init__(
        self, population: Population, fused: FusedStep, *, examples: DistillationData
    ) -> None:
        student = population.student
        assert isinstance(student, QuantumStudent)
        self.population, self.fused = population, fused
        (self.weights,) = population.parameters.values()
        # A sample is an image with a teacher's logits: numbered teacher by teacher.
        self.offsets = examples.teachers[:, None] * len(examples.inputs)
        self.used = torch.unique(examples.draws + self.offsets)
        rows = self.used % len(examples.inputs)
        self.samples = fused.samples(
            examples.labels[rows],
            examples.teacher_logits.flatten(0, 1)[self.used],
            **student.circuit_inputs(examples.inputs[rows]),
        )
        state = population.averages.get(self.weights)
        if state:  # of a checkpoint
            fused.load_state(
                fused.state()
                | {name: state[name] for name in ("exp_avg", "exp_avg_sq")}
                | {"steps": state["step"].to(torch.int64), "failed": population.failed}
            )

    def __call__(self, order: Tensor, *, lr: float) -> Tensor:
        """Return mean loss terms `(members, 3)` of an epoch's steps, in the order of the rows."""
        population, fused = self.population, self.fused
        terms = fused.epoch(
            self.samples,
            torch.searchsorted(self.used, order + self.offsets),
            batch_size=population.spec.batch_size,
            lr=lr,
        )
        state = fused.state()
        self.weights.data.copy_(torch.from_numpy(state["weights"]))
        population.averages[self.weights] = {
            "step": torch.tensor(float(fused.steps)),
            "exp_avg": torch.from_numpy(state["exp_avg"]),
            "exp_avg_sq": torch.from_numpy(state["exp_avg_sq"]),
        }
        population.failed |= torch.from_numpy(state["failed"])
        return pad(torch.from_numpy(terms).float(), (0, 1))  # there are no feature maps
