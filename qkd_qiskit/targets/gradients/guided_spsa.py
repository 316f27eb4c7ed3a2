"""Guided SPSA: a share of the samples by parameter shifts, the others by random directions.

Periyasamy et al., "Guided-SPSA: simultaneous perturbation stochastic approximation assisted by the
parameter shift rule" (arXiv 2404.15751): the exact derivatives of a few samples of a batch guide
the cheap, noisy ones of the rest, which are damped to their length.

Deviations: the length is that of the mean over all samples that run together, not of single
samples; the number of directions and the share do not change over the training; and shifts and
directions go into one call of the target, so that a step is one job.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.gradients.base import (
    SampledExecutor,
    SampledFunction,
    gradients,
    members_as_rows,
)
from qkd_qiskit.targets.gradients.parameter_shift import ShiftRule, shift_rules
from qkd_qiskit.targets.gradients.spsa import (
    PERTURBATION,
    PERTURBATION_DECAY,
    perturbation_size,
    rademacher,
)

SHARE = 0.125
"""Share of the samples that are shifted."""
Real = NDArray[np.float64]


class GuidedSPSAExecutor(SampledExecutor):
    """A circuit's probabilities on a target, differentiable by shifts and directions.

    Forward evaluates a share of the samples at the point itself and at all shifts, the others at
    two points along a random direction, in one call of the target; backward costs nothing.
    """

    def __init__(
        self,
        target: Target,
        compiled: CompiledCircuit,
        *,
        share: float = SHARE,
        perturbation: float = PERTURBATION,
        decay: float = PERTURBATION_DECAY,
        seed: int = 0,
        **options: Any,
    ):
        """Take a target and a circuit that it compiled.

        Args:
            target: Where the circuit runs.
            compiled: What its `compile` returned.
            share: Share of the samples that are shifted, above 0 and at most 1; at least one is.
            perturbation: c in radians at the first step.
            decay: gamma in c_k = c / (k + 1)**gamma.
            seed: Seed of the directions and of the choice of samples.
            options: Those of `SampledExecutor`: inputs, shots, cost.

        Raises:
            TargetError: A parameter has no shift rule.
            InputError: The share is out of range.
        """
        super().__init__(target, compiled, **options)
        if not 0 < share <= 1:
            raise InputError(f"share is {share}; give a number above 0, at most 1")
        self.rules: dict[str, ShiftRule] = shift_rules(self.compiled.circuit)
        self.share, self.perturbation, self.decay, self.seed = share, perturbation, decay, seed

    def shifted(self, samples: int) -> int:
        """Return how many samples of so many are shifted."""
        return min(samples, math.ceil(self.share * samples))

    def rows(self, samples: int, *, step: int, inputs: bool) -> tuple[int, ...]:
        """Return the rows of the one call of a step."""
        wanted = (*self.weights, *(self.inputs if inputs else ()))
        shifts = sum(len(self.rules[name].shifts) for name in wanted if name in self.rules)
        few = self.shifted(samples)
        return (few * (1 + shifts) + 2 * (samples - few),)

    def chosen(self, samples: int, *, step: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the samples that a step shifts, and the others."""
        order = torch.randperm(samples, generator=generator(self.seed, "guided", step)).numpy()
        few = self.shifted(samples)
        return np.sort(order[:few]), np.sort(order[few:])

    def shifts(self, wanted: set[str]) -> tuple[Real, Real, list[int]]:
        """Return offsets `(shifts, parameters)`, their coefficients, and whose they are."""
        columns: list[int] = []
        shifts: list[float] = []
        coefficients: list[float] = []
        for column, name in enumerate(self.compiled.parameters):
            if name in wanted and name in self.rules:
                rule = self.rules[name]
                columns += [column] * len(rule.shifts)
                shifts += rule.shifts.tolist()
                coefficients += rule.coefficients.tolist()
        offsets = np.zeros((len(columns), len(self.compiled.parameters)))
        offsets[np.arange(len(columns)), columns] = shifts
        return offsets, np.array(coefficients), columns

    def _evaluate(self, inputs: Tensor, weights: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            plain: Tensor = SampledFunction.apply(inputs, weights[None], self)
            return plain
        found: tuple[Tensor, ...] = _Guided.apply(inputs, weights[None], self)
        return found[0]


class _Guided(Function):
    """Probabilities, with the derivatives of each by every parameter, of shifts or of a direction.

    A sample's Jacobian `(parameters, outcomes)` is exact in expectation where it is shifted, and of
    rank one elsewhere: direction times difference quotient.
    """

    @staticmethod
    def forward(
        inputs: Tensor, weights: Tensor, executor: GuidedSPSAExecutor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = executor.values(inputs, weights.expand(len(inputs), -1))
        samples, parameters = rows.shape
        step = executor.cost.steps
        needed = (inputs.requires_grad, weights.requires_grad)
        named = zip(needed, (executor.inputs, executor.weights), strict=True)
        offsets, coefficients, columns = executor.shifts(
            {name for need, names in named if need for name in names}
        )
        few, others = executor.chosen(samples, step=step)
        size = perturbation_size(step, first=executor.perturbation, decay=executor.decay)
        signs = rademacher(samples, parameters, seed=executor.seed, step=step).numpy()[others]
        for need, part in zip(needed, executor.columns, strict=True):
            signs[:, part] *= need
        shifted = (rows[few][:, None] + offsets).reshape(-1, parameters)
        points = (rows[few], shifted, rows[others] + size * signs, rows[others] - size * signs)
        measured = executor.run(np.concatenate(points))
        executor.cost.steps += 1
        ends = np.cumsum([len(part) for part in points])[:-1]
        at_point, moved, plus, minus = np.split(measured, ends)
        outcomes = measured.shape[1]
        mean = np.empty((samples, outcomes))
        mean[few], mean[others] = at_point, (plus + minus) / 2
        jacobian = np.zeros((samples, parameters, outcomes))
        weighted = moved.reshape(len(few), len(columns), outcomes) * coefficients[:, None]
        for number, column in enumerate(columns):
            jacobian[few, column] += weighted[:, number]
        quotient = (plus - minus) / (2 * size)
        jacobian[others] = signs[:, :, None] * quotient[:, None, :]
        guides = np.zeros((samples, 1))
        guides[few] = 1.0
        return (
            torch.from_numpy(mean).to(weights),
            torch.from_numpy(jacobian.reshape(samples, -1)).to(weights),
            torch.from_numpy(guides).to(weights),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2], *output[1:])
        ctx.mark_non_differentiable(*output[1:])
        ctx.executor = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        inputs, weights, jacobian, guides = ctx.saved_tensors
        derivatives = jacobian.reshape(*gradient.shape[:1], -1, gradient.shape[1])
        slopes = torch.einsum("bpk,bk->bp", derivatives, gradient)
        array = slopes.cpu().to(torch.float64).numpy()
        array[:] = damped(array, guides.cpu().numpy()[:, 0] > 0)
        return *gradients(ctx.executor, array, inputs, weights), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return members_as_rows(_Guided, info, in_dims, *given)


def damped(slopes: Real, guides: NDArray[np.bool_]) -> Real:
    """Return slopes whose noisy rows are, in the mean, at most as long as those that guide them.

    Args:
        slopes: `(samples, parameters)`.
        guides: Which of them are of shifts.
    """
    lengths = np.sqrt((slopes**2).sum(axis=1))
    if guides.all() or not guides.any():
        return slopes
    exact, noisy = (math.sqrt(float((lengths[it] ** 2).mean())) for it in (guides, ~guides))
    if not noisy > exact:
        return slopes
    return np.where(guides[:, None], slopes, slopes * (exact / noisy))
