"""Parameter-shift rules: exact derivatives from the probabilities of shifted circuits.

As a function of one parameter a probability is a finite Fourier series. A parameter that enters
one rotation has one frequency, and the derivative is half the difference of two circuits; one that
enters R times (re-uploaded data, a controlled rotation that was decomposed) has frequencies
Omega, 2 Omega, ..., R Omega, and the derivative takes 2 R circuits (arXiv 2107.12390, eq. 12). This
holds under a device's noise too, as long as the noise does not depend on the angle.

A weight that multiplies an input, w x + b, is differentiated by the product rule: by w it is x
times the derivative by the angle, which is that by b, and takes no circuit of its own beside it.
"""

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
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
    multiplied: str | None = None
    """The parameter that x is multiplied by in every angle: shifts are divided by its value, and
    coefficients multiplied by it."""
    same_as: str | None = None
    """A parameter with the same angles: df/dx is `ratio` times the value of `multiplied` times the
    derivative by that one, and no circuit is run for x."""
    ratio: float = 1.0

    @classmethod
    def of(cls, count: int, *, spacing: float = 1.0) -> "ShiftRule":
        """Return the rule for frequencies `spacing`, 2 `spacing`, ..., `count` times `spacing`."""
        numbers = np.arange(1, 2 * count + 1)
        angles = (2 * numbers - 1) * np.pi / (2 * count)
        weights = (-1.0) ** (numbers - 1) / (4 * count * np.sin(angles / 2) ** 2)
        wrapped = np.where(angles > np.pi, angles - 2 * np.pi, angles)
        return cls(shifts=wrapped / spacing, coefficients=weights * spacing)


@dataclass(frozen=True)
class _Entry:
    """How a parameter enters one angle.

    Attributes:
        place: Instruction and number of the angle.
        slope: Derivative of the angle, by which `multiplied` is multiplied.
        multiplied: Another parameter, or None.
        highest: Highest frequency that the gate gives to its angle.
        spacing: Spacing of the gate's frequencies.
    """

    place: tuple[int, int]
    slope: float
    multiplied: str | None
    highest: float
    spacing: float


def shift_rules(circuit: QuantumCircuit, *, skipped: Collection[str] = ()) -> dict[str, ShiftRule]:
    """Return the rule of each parameter of a circuit, by name.

    Args:
        circuit: Whose parameters.
        skipped: Parameters that are left out if they have no rule.

    Raises:
        TargetError: A parameter enters a gate other than a rotation, enters an angle nonlinearly,
            or has frequencies without a common measure.
    """
    entries: dict[str, list[_Entry]] = {}
    rules: dict[str, ShiftRule] = {}
    refused = set[str]()
    for number, instruction in enumerate(circuit.data):
        for position, value in enumerate(instruction.operation.params):
            for parameter in getattr(value, "parameters", ()):
                name = str(parameter.name)
                try:
                    place = (number, position)
                    entry = _entry(instruction.operation.name, value, parameter, place=place)
                except TargetError:
                    if name not in skipped:
                        raise
                    refused.add(name)
                    continue
                if entry.slope:
                    entries.setdefault(name, []).append(entry)
    by_angles = {
        tuple(entry.place for entry in of_name): name
        for name, of_name in sorted(entries.items())
        if name not in refused and all(entry.multiplied is None for entry in of_name)
    }
    for name in sorted(entries.keys() - refused):
        try:
            rule = _rule(name, entries[name])
        except TargetError:
            if name not in skipped:
                raise
            continue
        partner = by_angles.get(tuple(entry.place for entry in entries[name]))
        if rule.multiplied is not None and partner is not None:
            pairs = zip(entries[name], entries[partner], strict=True)
            ratios = [mine.slope / other.slope for mine, other in pairs]
            if all(math.isclose(ratio, ratios[0], rel_tol=1e-9) for ratio in ratios):
                rule = replace(rule, same_as=partner, ratio=ratios[0])
        rules[name] = rule
    return rules


def _entry(
    gate: str, value: ParameterExpression, parameter: Any, *, place: tuple[int, int]
) -> _Entry:
    """Return how a parameter enters an angle of a gate."""
    if gate not in _FREQUENCIES:
        raise TargetError(
            f"parameter {parameter.name!r} enters gate {gate!r}, which has no shift rule; accepted "
            f"are {', '.join(_FREQUENCIES)}: decompose the gate"
        )
    found = _slope(value.gradient(parameter), by=str(parameter.name))
    if found is None:
        raise TargetError(
            f"parameter {parameter.name!r} enters the angle {value} nonlinearly, which has no "
            "shift rule; use angles such as 2*x + w or w*x + w, or a gradient of kind spsa"
        )
    return _Entry(place, *found, *_FREQUENCIES[gate])


def _slope(slope: Any, *, by: str) -> tuple[float, str | None] | None:
    """Return a derivative as a number times another parameter, or times nothing; None if neither.

    A derivative still lists the parameters that dropped out of it.
    """
    if not isinstance(slope, ParameterExpression):
        return float(np.real(complex(slope))), None
    factors: dict[str, float] = {}
    for other in slope.parameters:
        second = slope.gradient(other)
        if isinstance(second, ParameterExpression):
            if second.parameters:
                return None
            second = second.numeric()
        if complex(second) != 0:
            factors[str(other.name)] = float(np.real(complex(second)))
    rest = slope.bind(dict.fromkeys(slope.parameters, 0.0)).numeric()
    constant = float(np.real(complex(rest)))
    if not factors:
        return constant, None
    if len(factors) > 1 or constant != 0 or by in factors:
        return None
    ((name, factor),) = factors.items()
    return factor, name


def _rule(name: str, entries: list[_Entry]) -> ShiftRule:
    sizes = [
        (entry.highest * abs(entry.slope), entry.spacing * abs(entry.slope)) for entry in entries
    ]
    unit = min(spacing for _, spacing in sizes)
    ratios = [Fraction(spacing / unit).limit_denominator(MAX_FREQUENCIES) for _, spacing in sizes]
    measured = len({entry.multiplied for entry in entries}) == 1 and all(
        math.isclose(ratio, spacing / unit, rel_tol=1e-9)
        for ratio, (_, spacing) in zip(ratios, sizes, strict=True)
    )
    spacing = unit / math.lcm(*(ratio.denominator for ratio in ratios))
    count = round(sum(highest for highest, _ in sizes) / spacing)
    if not measured or count > MAX_FREQUENCIES:
        raise TargetError(
            f"parameter {name!r} enters {len(entries)} angles whose coefficients have no common "
            f"measure that gives at most {MAX_FREQUENCIES} frequencies; use coefficients such as "
            "1, 2 and 1/2, or a gradient of kind spsa"
        )
    return replace(ShiftRule.of(count, spacing=spacing), multiplied=entries[0].multiplied)


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
        rules = shift_rules(self.compiled.circuit, skipped=self.inputs)
        self.rules: dict[str, ShiftRule] = rules
        """Rule of each parameter, by name; none for those that the transpiler dropped."""
        live = {str(parameter.name) for parameter in self.compiled.circuit.parameters}
        self._without_rule = sorted(live & set(self.inputs) - set(rules))
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
        if inputs:
            self._check_inputs()
        wanted = (*self.drawn(step), *(self.inputs if inputs else ()))
        shifts = sum(len(self.rules[name].shifts) for name in self._run_for(wanted))
        return (samples, samples * shifts) if shifts else (samples,)

    def _run_for(self, wanted: Iterable[str]) -> list[str]:
        """Return the parameters that are shifted for the derivatives by some, in order."""
        known = {self.rules[name].same_as or name for name in wanted if name in self.rules}
        return [name for name in self.compiled.parameters if name in known]

    def _check_inputs(self) -> None:
        if self._without_rule:
            raise TargetError(
                f"input {self._without_rule[0]!r} is multiplied by a weight in more than one "
                "angle, so that derivatives by it have no shift rule; use a reduction that is not "
                "trained, or a gradient of kind spsa"
            )

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
        if not wanted.isdisjoint(self.inputs):
            self._check_inputs()
        place = {name: column for column, name in enumerate(self.compiled.parameters)}
        columns: list[int] = []
        offsets = [np.zeros((0, *values.shape))]
        coefficients = [np.zeros((0, len(values)))]
        for name in self._run_for(wanted):
            rule, column = self.rules[name], place[name]
            scale = np.ones(len(values))
            if rule.multiplied is not None:
                scale = values[:, place[rule.multiplied]]
            columns += [column] * len(rule.shifts)
            offset = np.zeros((len(rule.shifts), *values.shape))
            offset[:, :, column] = rule.shifts[:, None] / np.where(scale == 0, 1.0, scale)
            offsets.append(offset)
            coefficients.append(rule.coefficients[:, None] * scale)
        slopes = np.zeros_like(values)
        if not columns:
            return slopes
        rows = (values + np.concatenate(offsets)).swapaxes(0, 1).reshape(-1, values.shape[1])
        shifted = self.run(rows).reshape(len(values), len(columns), -1)
        parts = np.einsum("btk,bk->bt", shifted, gradient).T * np.concatenate(coefficients)
        found = np.zeros_like(values)
        for column, part in zip(columns, parts, strict=True):
            found[:, column] += part
        for name in wanted & self.rules.keys():
            rule, column = self.rules[name], place[name]
            if rule.same_as is None:
                slopes[:, column] = found[:, column]
            else:
                assert rule.multiplied is not None
                factor = rule.ratio * values[:, place[rule.multiplied]]
                slopes[:, column] = factor * found[:, place[rule.same_as]]
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
