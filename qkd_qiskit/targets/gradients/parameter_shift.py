"""Parameter-shift rules: exact derivatives from the probabilities of shifted circuits.

As a function of one parameter a probability is a finite Fourier series. A parameter that enters
one rotation has one frequency, and the derivative is half the difference of two circuits; one that
enters R times (re-uploaded data, a controlled rotation that was decomposed) has frequencies
Omega, 2 Omega, ..., R Omega, and the derivative takes 2 R circuits (arXiv 2107.12390, eq. 12). This
holds under a device's noise too, as long as the noise does not depend on the angle.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.circuit import ParameterExpression, QuantumCircuit
from torch import Tensor
from torch.autograd.function import Function, once_differentiable

from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.gradients.base import (
    SampledExecutor,
    SampledFunction,
    gradients,
    members_as_rows,
)

MAX_FREQUENCIES = 64
"""Frequencies of one parameter up to which derivatives are taken."""

# Highest frequency and spacing of the frequencies that an angle gives, by gate name: a generator
# with two eigenvalues at a distance of 1 gives one frequency, 1; a controlled rotation 1/2 and 1.
_ROTATIONS = ["rx", "ry", "rz", "p", "u1", "u2", "u3", "u"]
_ROTATIONS += ["rxx", "ryy", "rzz", "rzx", "cp", "cu1", "mcphase"]
_FREQUENCIES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(_ROTATIONS, (1.0, 1.0)),
    **dict.fromkeys(["crx", "cry", "crz"], (1.0, 0.5)),
}


@dataclass(frozen=True, eq=False)
class ShiftRule:
    """df/dx = sum of `coefficients` times f(x + `shifts`)."""

    shifts: NDArray[np.float64]
    """Radians ``(2 R,)``."""
    coefficients: NDArray[np.float64]
    """``(2 R,)``."""

    @classmethod
    def of(cls, count: int, *, spacing: float = 1.0) -> "ShiftRule":
        """Return the rule for frequencies `spacing`, 2 `spacing`, ..., `count` times `spacing`."""
        numbers = np.arange(1, 2 * count + 1)
        angles = (2 * numbers - 1) * np.pi / (2 * count)
        weights = (-1.0) ** (numbers - 1) / (4 * count * np.sin(angles / 2) ** 2)
        wrapped = np.where(angles > np.pi, angles - 2 * np.pi, angles)
        return cls(shifts=wrapped / spacing, coefficients=weights * spacing)


def shift_rules(circuit: QuantumCircuit) -> dict[str, ShiftRule]:
    """Return the rule of each parameter of a circuit, by name.

    Raises:
        TargetError: A parameter enters a gate other than a rotation, enters an angle nonlinearly,
            or has frequencies without a common measure.
    """
    entries: dict[str, list[tuple[float, float]]] = {}
    for instruction in circuit.data:
        for value in instruction.operation.params:
            for parameter in getattr(value, "parameters", ()):
                entry = _entry(instruction.operation.name, value, parameter)
                if entry[0]:
                    entries.setdefault(str(parameter.name), []).append(entry)
    return {name: _rule(name, of_name) for name, of_name in sorted(entries.items())}


def _entry(gate: str, value: ParameterExpression, parameter: Any) -> tuple[float, float]:
    """Return highest frequency and spacing that one angle gives to a parameter."""
    if gate not in _FREQUENCIES:
        raise TargetError(
            f"parameter {parameter.name!r} enters gate {gate!r}, which has no shift rule; accepted "
            f"are {', '.join(_FREQUENCIES)}: decompose the gate"
        )
    slope = value.gradient(parameter)
    if getattr(slope, "parameters", None):
        raise TargetError(
            f"parameter {parameter.name!r} enters the angle {value} nonlinearly, which has no "
            "shift rule; use angles such as 2*x + w, or a gradient of kind spsa"
        )
    number = slope.numeric() if isinstance(slope, ParameterExpression) else slope
    size = abs(complex(number))
    highest, spacing = _FREQUENCIES[gate]
    return highest * size, spacing * size


def _rule(name: str, entries: list[tuple[float, float]]) -> ShiftRule:
    unit = min(spacing for _, spacing in entries)
    ratios = [Fraction(spacing / unit).limit_denominator(MAX_FREQUENCIES) for _, spacing in entries]
    measured = all(
        math.isclose(ratio, spacing / unit, rel_tol=1e-9)
        for ratio, (_, spacing) in zip(ratios, entries, strict=True)
    )
    spacing = unit / math.lcm(*(ratio.denominator for ratio in ratios))
    count = round(sum(highest for highest, _ in entries) / spacing)
    if not measured or count > MAX_FREQUENCIES:
        raise TargetError(
            f"parameter {name!r} enters {len(entries)} angles whose coefficients have no common "
            f"measure that gives at most {MAX_FREQUENCIES} frequencies; use coefficients such as "
            "1, 2 and 1/2, or a gradient of kind spsa"
        )
    return ShiftRule.of(count, spacing=spacing)


class ParameterShiftExecutor(SampledExecutor):
    """A circuit's probabilities on a target, differentiable by parameter shifts.

    Forward is one call of the target, and backward another one with all shifted circuits of the
    whole batch: samples times two per angle (arXiv 1811.11184; above for parameters that enter
    several gates). Only inputs and weights that need a gradient are shifted.
    """

    def __init__(
        self,
        target: Target,
        compiled: CompiledCircuit,
        *,
        shifted: int | None = None,
        seed: int = 0,
        **options: Any,
    ):
        """Take a target and a circuit that it compiled.

        Args:
            target: Where the circuit runs.
            compiled: What its `compile` returned.
            shifted: Weights that a step shifts, drawn at random for each step; their derivatives
                are scaled so that the gradient stays unbiased, the others are 0. Default: all.
            seed: Seed of that draw.
            options: Those of `SampledExecutor`: inputs, shots, cost.

        Raises:
            TargetError: A parameter has no shift rule.
            InputError: `shifted` is out of range.
        """
        super().__init__(target, compiled, **options)
        rules = shift_rules(self.compiled.circuit)
        self.rules: dict[str, ShiftRule] = rules
        """Rule of each parameter, by name; none for those that the transpiler dropped."""
        if shifted is not None and not 1 <= shifted <= len(self.weights):
            raise InputError(
                f"shifted is {shifted}; the circuit has {len(self.weights)} weights, of which at "
                "least one is shifted in a step"
            )
        self.shifted = len(self.weights) if shifted is None else shifted
        """Weights that a step shifts, drawn anew for each."""
        self.seed = seed

    def drawn(self, step: int) -> tuple[str, ...]:
        """Return the names of the weights that a step shifts."""
        if self.shifted == len(self.weights):
            return self.weights
        order = torch.randperm(len(self.weights), generator=generator(self.seed, "shift", step))
        return tuple(self.weights[row] for row in sorted(order[: self.shifted].tolist()))

    def rows(self, samples: int, *, step: int, inputs: bool) -> tuple[int, ...]:
        """Return the rows of each call of a step: forward, then all shifts."""
        wanted = (*self.drawn(step), *(self.inputs if inputs else ()))
        shifts = sum(len(self.rules[name].shifts) for name in wanted if name in self.rules)
        return (samples, samples * shifts) if shifts else (samples,)

    def _evaluate(self, inputs: Tensor, weights: Tensor) -> Tensor:
        probabilities: Tensor = _ParameterShift.apply(inputs, weights[None], self)
        return probabilities

    def slopes(
        self, values: NDArray[np.float64], gradient: NDArray[np.float64], wanted: set[str]
    ) -> NDArray[np.float64]:
        """Return a loss's derivatives by the values of each row (batch, parameters).

        Args:
            values: (batch, parameters).
            gradient: The loss's derivatives by the probabilities (batch, 2**num_qubits).
            wanted: Names of the parameters whose derivatives are taken; 0 for the others.
        """
        names = self.compiled.parameters
        columns, shifts, coefficients = [], [], []
        for column, name in enumerate(names):
            if name in wanted and name in self.rules:
                rule = self.rules[name]
                columns += [column] * len(rule.shifts)
                shifts += rule.shifts.tolist()
                coefficients += rule.coefficients.tolist()
        slopes = np.zeros_like(values)
        if not columns:
            return slopes
        offsets = np.zeros((len(columns), len(names)))
        offsets[np.arange(len(columns)), columns] = shifts
        rows = (values[:, None] + offsets).reshape(-1, len(names))
        shifted = self.run(rows).reshape(len(values), len(columns), -1)
        parts = np.einsum("btk,bk->bt", shifted, gradient) * np.array(coefficients)
        for column, part in zip(columns, parts.T, strict=True):
            slopes[:, column] += part
        self.cost.steps += 1
        return slopes


class _ParameterShift(Function):
    """As `SampledFunction`, with a gradient."""

    @staticmethod
    def forward(inputs: Tensor, weights: Tensor, executor: ParameterShiftExecutor) -> Tensor:
        return SampledFunction.forward(inputs, weights, executor)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2])
        ctx.executor = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        inputs, weights = ctx.saved_tensors
        executor: ParameterShiftExecutor = ctx.executor
        wanted: set[str] = set()
        drawn = executor.drawn(executor.cost.steps)
        for needed, names in zip(ctx.needs_input_grad[:2], (executor.inputs, drawn), strict=True):
            wanted |= set(names) if needed else set()
        slopes = executor.slopes(
            executor.values(inputs, weights.expand(len(inputs), -1)),
            gradient.cpu().to(torch.float64).numpy(),
            wanted,
        )
        # So that the mean over the draws is the gradient (random coordinate descent).
        slopes[:, executor.columns[1]] *= len(executor.weights) / max(1, executor.shifted)
        return *gradients(executor, slopes, inputs, weights), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return members_as_rows(_ParameterShift, info, in_dims, *given)
