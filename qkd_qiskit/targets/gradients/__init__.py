"""Outcome probabilities that torch can differentiate: through the noise, or from shots alone.

Three ways to train a circuit on a target, with one face: a callable from inputs (batch, num_inputs)
and weights (num_weights,) to probabilities (batch, 2**num_qubits), little-endian. All run under
`torch.func.vmap`, over stacked weights and inputs; with shots, all members go into one PUB.

- `noisy_executor`: exact, by automatic differentiation of the device's density matrix.
- `parameter_shift`: an unbiased gradient from shots, at two circuits per angle and sample.
- `spsa`: a noisy gradient from shots, at two circuits per sample.
"""

from collections.abc import Sequence

from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.gradients.base import Cost, NoisyExecutor
from qkd_qiskit.targets.gradients.parameter_shift import ParameterShiftExecutor
from qkd_qiskit.targets.gradients.spsa import (
    PERTURBATION,
    PERTURBATION_DECAY,
    SPSAExecutor,
    spsa_gradient,
)

__all__ = ["Cost", "noisy_executor", "parameter_shift", "spsa", "spsa_gradient"]


def noisy_executor(
    compiled: CompiledCircuit, *, inputs: Sequence[str] | None = None
) -> NoisyExecutor:
    """Return a circuit's exact probabilities under its device's noise, as a torch function.

    Any float dtype and torch device, twice differentiable. Readout errors are part of the noise;
    mitigation is not applied.

    Args:
        compiled: what a device target's `compile` returned; at most 8 used qubits.
        inputs: names of the parameters that a sample binds, in the order of the columns; default:
            those that begin with ``x_``, sorted. All others are weights, sorted.

    Raises:
        TargetError: the circuit was compiled for a target without noise, or uses more qubits.
    """
    return NoisyExecutor(compiled, inputs)


def parameter_shift(
    target: Target,
    compiled: CompiledCircuit,
    *,
    inputs: Sequence[str] | None = None,
    shots: int | None = None,
    cost: Cost | None = None,
    shifted: int | None = None,
    seed: int = 0,
) -> ParameterShiftExecutor:
    """Return a circuit's probabilities on a target, differentiable by parameter shifts.

    Forward is one call of the target, and backward another one with all shifted circuits of the
    whole batch: samples times two per angle (arXiv 1811.11184; see shifts.py for parameters that
    enter several gates). Only inputs and weights that need a gradient are shifted.

    Args:
        target: where the circuit runs.
        compiled: what its `compile` returned.
        inputs: as in `noisy_executor`.
        shots: shots per circuit; default: the target's.
        cost: counter to add to; default: a new one.
        shifted: weights that a step shifts, drawn at random for each step; their derivatives are
            scaled so that the gradient stays unbiased, the others are 0. Default: all.
        seed: seed of that draw.

    Raises:
        TargetError: a parameter has no shift rule.
        InputError: `shifted` is out of range.
    """
    return ParameterShiftExecutor(
        target, compiled, inputs=inputs, shots=shots, cost=cost, shifted=shifted, seed=seed
    )


def spsa(
    target: Target,
    compiled: CompiledCircuit,
    *,
    inputs: Sequence[str] | None = None,
    shots: int | None = None,
    cost: Cost | None = None,
    perturbation: float = PERTURBATION,
    decay: float = PERTURBATION_DECAY,
    seed: int = 0,
) -> SPSAExecutor:
    """Return a circuit's probabilities on a target, differentiable by simultaneous perturbation.

    Forward evaluates each sample at two points, +c and -c along a random direction, in one call of
    the target, and returns their mean (off by a term in c**2); backward costs nothing. Where no
    gradient is recorded, forward is one evaluation at the point itself.

    Two deviations from Spall: the direction is drawn for each sample, at the same cost and with
    less scatter; and the loss's derivatives by the probabilities are exact, so that what follows
    the circuit is trained as usual.

    Args:
        target: where the circuit runs.
        compiled: what its `compile` returned.
        inputs: as in `noisy_executor`.
        shots: shots per circuit; default: the target's.
        cost: counter to add to; default: a new one.
        perturbation: c in radians at the first step.
        decay: gamma in c_k = c / (k + 1)**gamma.
        seed: seed of the directions.

    Raises:
        InputError: perturbation or decay is out of range.
    """
    return SPSAExecutor(
        target,
        compiled,
        inputs=inputs,
        shots=shots,
        cost=cost,
        perturbation=perturbation,
        decay=decay,
        seed=seed,
    )
