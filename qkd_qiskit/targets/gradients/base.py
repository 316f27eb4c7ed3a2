"""What executors of circuits have in common, and the exact one."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.simulator import DensityProgram, noisy_probabilities
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.exact_noise import density_program, split_parameters
from qkd_qiskit.targets.gradients.adaptive_shots import FIRST, next_shots, noise_shots
from qkd_qiskit.targets.noisy import DeviceProgram


@dataclass
class Cost:
    """What training from shots has cost so far.

    The number of a call is the seed of its shots, and the number of a step that of its directions:
    set them to go on as an interrupted training would have.
    """

    calls: int = 0
    """Calls of the target: one PUB each."""
    steps: int = 0
    """Gradients taken."""
    circuits: int = 0
    """Circuits with their values bound: samples times shifts."""
    executions: int = 0
    """Circuits times shots; 0 on a target without shots."""
    shots: int = 0
    """Shots of the next step, where they adapt to what was measured; 0 = as many as were given."""

    @property
    def counts(self) -> dict[str, int]:
        """What a training goes on with, by name: without `shots` where they do not adapt."""
        return {name: count for name, count in asdict(self).items() if name != "shots" or count}


class CircuitExecutor(Protocol):
    """A student's circuit somewhere else than in its own layer, as a torch function."""

    @property
    def sampled(self) -> bool:
        """Whether probabilities are measured frequencies."""

    @property
    def cost(self) -> Cost | None:
        """What was run so far; None where nothing is sampled."""

    def __call__(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """Return probabilities ``(batch, 2**num_qubits)`` of inputs and weights in radians."""


class TargetExecutor(ABC):
    """A circuit that was compiled for a target, as a `CircuitExecutor`."""

    def __init__(self, compiled: CompiledCircuit, inputs: Sequence[str] | None):
        self.compiled = compiled
        self.inputs, self.weights = split_parameters(compiled, inputs)
        """Names of the parameters behind the columns of inputs and behind the weights."""

    def __call__(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """Return probabilities (batch, 2**num_qubits) in the weights' dtype, little-endian.

        Args:
            inputs: (batch, num_inputs) in radians; None where there are none (the batch is 1).
            weights: (num_weights,) in radians.

        Raises:
            InputError: Inputs or weights have another shape.
        """
        if inputs is None:
            inputs = weights.new_zeros(1, 0)
        if inputs.dim() != 2 or inputs.shape[1] != len(self.inputs):
            raise InputError(
                f"inputs have shape {tuple(inputs.shape)}; give (batch, {len(self.inputs)})"
            )
        if weights.shape != (len(self.weights),):
            raise InputError(
                f"weights have shape {tuple(weights.shape)}; give ({len(self.weights)},)"
            )
        return self._evaluate(inputs, weights)

    @property
    @abstractmethod
    def sampled(self) -> bool:
        """Whether probabilities are measured frequencies."""

    @abstractmethod
    def _evaluate(self, inputs: Tensor, weights: Tensor) -> Tensor: ...


class NoisyExecutor(TargetExecutor):
    """A circuit's exact probabilities under its device's noise.

    Any float dtype and torch device, twice differentiable. Readout errors are part of the noise;
    mitigation is not applied.
    """

    sampled = False
    cost = None

    def __init__(self, compiled: CompiledCircuit, *, inputs: Sequence[str] | None = None):
        """Take a compiled circuit.

        Args:
            compiled: What a device target's `compile` returned; at most 8 used qubits.
            inputs: Names of the parameters that a sample binds, in the order of the columns;
                default: those that begin with ``x_``, sorted. All others are weights, sorted.

        Raises:
            TargetError: The circuit was compiled for a target without noise, or uses more qubits.
        """
        super().__init__(compiled, inputs)
        if not isinstance(compiled.program, DeviceProgram):
            raise TargetError(
                f"{compiled.target} has no noise to differentiate through; compile the circuit "
                "with a device, or train with exact gradients"
            )
        self.program: DensityProgram = density_program(
            compiled, compiled.program.noisy, inputs=self.inputs, weights=self.weights
        )

    def _evaluate(self, inputs: Tensor, weights: Tensor) -> Tensor:
        return noisy_probabilities(self.program, inputs, weights)


class SeveralExecutor:
    """A circuit's exact probabilities under several noises at once, for students robust to all.

    Sample i of a batch runs under noise i modulo their number. Over shuffled batches the gradient
    is that of the mean loss under all of them, at the cost of one.
    """

    sampled = False
    cost = None

    def __init__(self, executors: Sequence[CircuitExecutor]):
        """Take the same circuit on each device.

        Args:
            executors: One for each.
        """
        self.executors = tuple(executors)

    def __call__(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """Return probabilities (batch, 2**num_qubits), as `TargetExecutor` does."""
        if inputs is None:
            inputs = weights.new_zeros(1, 0)
        count, number = len(inputs), len(self.executors)
        shares = [torch.arange(first, count, number) for first in range(min(number, count))]
        rows = [
            executor(inputs[share], weights)
            for executor, share in zip(self.executors, shares, strict=False)
        ]
        return torch.cat(rows)[torch.cat(shares).argsort()]


class SampledExecutor(TargetExecutor):
    """What the gradients from shots share: a target that is called with rows of values."""

    sampled = True

    def __init__(
        self,
        target: Target,
        compiled: CompiledCircuit,
        *,
        inputs: Sequence[str] | None = None,
        shots: int | None = None,
        cost: Cost | None = None,
        adaptive: bool = False,
    ):
        """Take a target and a circuit that it compiled.

        Args:
            target: Where the circuit runs.
            compiled: What its `compile` returned.
            inputs: As for `NoisyExecutor`.
            shots: Shots per circuit; default: the target's.
            cost: Counter to add to; default: a new one.
            adaptive: Whether `shots` is the most, and steps take as many as are worth their time.
        """
        super().__init__(compiled, inputs)
        self.target = target
        self.shots = (shots or target.shots) if target.sampled else None
        self.cost = Cost() if cost is None else cost
        self.adaptive = adaptive and self.shots is not None
        if self.adaptive and not self.cost.shots:
            self.cost.shots = min(FIRST, self.shots or FIRST)
        column = {name: number for number, name in enumerate(compiled.parameters)}
        self.columns = tuple(
            [column[name] for name in part] for part in (self.inputs, self.weights)
        )

    @abstractmethod
    def rows(self, samples: int, *, step: int, inputs: bool) -> tuple[int, ...]:
        """Return how many rows each call of the target has in a gradient step.

        Args:
            samples: Samples of the step, those of all members together.
            step: Number of the step, counted from 0.
            inputs: Whether the inputs need a gradient too, as behind a trained reduction.
        """

    @property
    def step_shots(self) -> int | None:
        """Shots of the next call; None on a target without shots."""
        return self.cost.shots if self.adaptive else self.shots

    def adapt(self, *, moment: float, one_shot: float, rows: int) -> None:
        """Choose the shots of the next step, after a gradient.

        Args:
            moment: Mean squared length of the measured slopes of a sample.
            one_shot: What one shot alone would add to it.
            rows: Circuits of the step.
        """
        if not self.adaptive or not (math.isfinite(moment) and math.isfinite(one_shot)):
            return
        now = self.cost.shots
        kappa = noise_shots(moment=moment, one_shot=one_shot, shots=now)
        self.cost.shots = next_shots(
            now,
            kappa,
            rows=rows,
            duration_s=self.compiled.duration_s or 0.0,
            most=self.shots or now,
        )

    def values(self, inputs: Tensor, weights: Tensor) -> NDArray[np.float64]:
        """Return the circuit's values (batch, parameters) of inputs and weights per sample."""
        rows = np.empty((len(inputs), len(self.compiled.parameters)))
        for columns, part in zip(self.columns, (inputs, weights), strict=True):
            rows[:, columns] = part.detach().cpu().to(torch.float64).numpy()
        return rows

    def run(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return probabilities of all rows from one call; NaN where values are not finite."""
        finite = np.isfinite(values).all(axis=1)
        probabilities = np.full((len(values), 2**self.compiled.num_qubits), np.nan)
        if finite.any():
            probabilities[finite] = self.target.probabilities(
                self.compiled, values[finite], shots=self.step_shots, seed=self.cost.calls
            )
        self.cost.calls += 1
        self.cost.circuits += int(finite.sum())
        self.cost.executions += int(finite.sum()) * (self.step_shots or 0)
        return probabilities

    def split(self, slopes: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """Return what belongs to inputs and to weights of (batch, parameters)."""
        return tuple(slopes[:, columns] for columns in self.columns)


def members_as_rows(
    function: Any, info: Any, in_dims: tuple[int | None, ...], *given: Any
) -> tuple[Any, Any]:
    """Run a function of (inputs, weights, executor) for all members of a vmap in one call."""
    inputs, weights = (
        tensor.expand(info.batch_size, *tensor.shape) if dim is None else tensor.movedim(dim, 0)
        for tensor, dim in zip(given[:2], in_dims[:2], strict=True)
    )
    weights = weights.expand(-1, inputs.shape[1], -1)
    rows = function.apply(inputs.flatten(0, 1), weights.flatten(0, 1), given[2])
    shape = inputs.shape[:2]
    if isinstance(rows, Tensor):
        return rows.reshape(*shape, -1), 0
    return tuple(part.reshape(*shape, -1) for part in rows), (0,) * len(rows)


class SampledFunction(torch.autograd.Function):
    """Probabilities without a gradient; inputs (batch, ...), weights (1 or batch, ...)."""

    @staticmethod
    def forward(inputs: Tensor, weights: Tensor, executor: SampledExecutor) -> Tensor:
        """Return probabilities (batch, 2**num_qubits) from one call of the target."""
        rows = executor.values(inputs, weights.expand(len(inputs), -1))
        return torch.from_numpy(executor.run(rows)).to(weights)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        """Return the members' probabilities from one call, and where their dimension is."""
        return members_as_rows(SampledFunction, info, in_dims, *given)


def gradients(
    executor: SampledExecutor, slopes: NDArray[np.float64], inputs: Tensor, weights: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the gradients by inputs and by weights, summed over a batch that shares them."""
    of_inputs, of_weights = executor.split(slopes)
    if len(weights) == 1:
        of_weights = of_weights.sum(axis=0, keepdims=True)
    return torch.from_numpy(of_inputs).to(inputs), torch.from_numpy(of_weights).to(weights)
