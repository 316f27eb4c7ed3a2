"""Circuits on a target as torch functions: differentiated through the noise, or from shots alone.

Each executor maps inputs (batch, num_inputs) and weights (num_weights,) to probabilities
(batch, 2**num_qubits), little-endian, and runs under `torch.func.vmap`, over stacked weights and
inputs; with shots, all members of a vmap go into one PUB.

- `NoisyExecutor`: exact, by automatic differentiation of the device's density matrix.
- `SeveralExecutor`: the same under several devices' noise, each for a share of the batch.
- `ParameterShiftExecutor`: an unbiased gradient from shots, at two circuits per angle and sample.
- `SPSAExecutor`: a noisy gradient from shots, at two circuits per sample and direction.
- `GuidedSPSAExecutor`: the same, guided by the parameter shifts of a few samples.
- `BasesExecutor`: several of them, for a circuit that is measured in several bases.
"""

from qkd_qiskit.targets.gradients.base import (
    CircuitExecutor,
    Cost,
    NoisyExecutor,
    SeveralExecutor,
)
from qkd_qiskit.targets.gradients.bases import BasesExecutor
from qkd_qiskit.targets.gradients.guided_spsa import GuidedSPSAExecutor
from qkd_qiskit.targets.gradients.parameter_shift import ParameterShiftExecutor
from qkd_qiskit.targets.gradients.spsa import SPSAExecutor, spsa_gradient

__all__ = [
    "BasesExecutor",
    "CircuitExecutor",
    "Cost",
    "GuidedSPSAExecutor",
    "NoisyExecutor",
    "ParameterShiftExecutor",
    "SPSAExecutor",
    "SeveralExecutor",
    "spsa_gradient",
]
