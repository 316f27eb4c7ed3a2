"""What is measured of a student's circuit on a target, and what the outcomes are summed into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import SparsePauliOp
from torch import Tensor

from qkd_qiskit.simulator.memory import require_bytes
from qkd_qiskit.targets.observables import group_observables


@dataclass(frozen=True, eq=False)
class Measurement:
    """Circuits whose outcomes, taken together, give a read-out.

    Attributes:
        circuits: The circuit, once for each basis that its qubits are measured in, ending with the
            change of basis; without measurements.
        matrix: Outputs of outcome probabilities `(circuits * 2^n, outputs)`, float64: those of all
            circuits, one after the other, times this. Outcomes are little-endian.
    """

    circuits: tuple[QuantumCircuit, ...]
    matrix: Tensor


def measure_observables(
    circuit: QuantumCircuit, observables: Sequence[SparsePauliOp]
) -> Measurement:
    """Return the bases that expectation values need: strings that agree on every qubit share one.

    Args:
        circuit: The student's, without measurements.
        observables: On its qubits, one for each output; real coefficients.

    Raises:
        CircuitError: The matrix does not fit into memory.
    """
    qubits = circuit.num_qubits
    labelled = [dict(each.simplify().to_list()) for each in observables]
    constants, groups = group_observables(labelled, num_qubits=qubits)
    size = max(1, len(groups)) << qubits
    require_bytes(8 * size * len(labelled), what=f"{len(labelled)} observables on {qubits} qubits")
    outcomes = np.arange(2**qubits)
    parts = [np.zeros((2**qubits, len(labelled))) for _ in range(max(1, len(groups)))]
    for part, group in zip(parts, groups, strict=False):  # without groups one part of zeros
        for mask, coefficients in zip(group.masks, group.coefficients, strict=True):
            ones = (outcomes[:, None] >> np.flatnonzero(mask) & 1).sum(axis=1)
            part += (1 - 2 * (ones & 1))[:, None] * coefficients
    parts[0] += constants  # the probabilities of each basis sum to 1
    circuits = tuple(_changed_basis(circuit, group.basis) for group in groups)
    return Measurement(circuits or (circuit,), torch.from_numpy(np.concatenate(parts)))


def _changed_basis(circuit: QuantumCircuit, basis: Mapping[int, str]) -> QuantumCircuit:
    """Return the circuit with its qubits turned so that measuring Z measures the basis."""
    if set(basis.values()) <= {"Z"}:
        return circuit
    turned = circuit.copy(name=f"{circuit.name}_{''.join(basis[q] for q in sorted(basis))}")
    for qubit, letter in sorted(basis.items()):
        if letter == "Y":
            turned.sdg(qubit)
        if letter in "XY":
            turned.h(qubit)
    return turned
