"""The exact noisy probabilities that shots are drawn from, held against Aer's density matrix.

A few rows of each evaluation go through both. Aer gets the scheduled circuit and its own noise
model; readout errors, which Aer applies to shots alone, are taken from that model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.aer_gates import binds_wrongly
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.exact_noise import exact_rows
from qkd_qiskit.targets.noise import NoisyCircuit
from qkd_qiskit.targets.noisy import DeviceProgram

TOLERANCE = 1e-6
"""Largest difference of a probability; Aer drops error terms below 1e-10 of each gate."""
_ROUNDING = 1e-12


@dataclass(frozen=True, kw_only=True)
class AerCheck:
    """Circuits that Aer has run too.

    Attributes:
        circuits: Their number, with their values bound.
        within: Power of ten, 1e-12 or more, above every difference of an outcome's probability: the
            same in a rerun, which rounding errors below it are not.
    """

    circuits: int
    within: float

    @classmethod
    def of(cls, differences: NDArray[np.float64]) -> "AerCheck":
        """Return the check of circuits from the largest difference of each (circuits,)."""
        largest = max(float(differences.max()), _ROUNDING)
        return cls(circuits=len(differences), within=float(f"1e{math.ceil(math.log10(largest))}"))


def check_with_aer(compiled: CompiledCircuit, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return how far Aer's exact probabilities are from ours (batch,): the largest of each row.

    Args:
        compiled: What a `DeviceTarget` compiled, on few enough qubits for our density matrices.
        values: (batch, len(compiled.parameters)) in radians.

    Raises:
        TargetError: They differ by more than `TOLERANCE`.
    """
    program: DeviceProgram = compiled.program
    ours = exact_rows(compiled, program.noisy, values)
    differences: NDArray[np.float64] = np.abs(
        ours - _aer_rows(program.noisy, values, parameters=compiled.parameters)
    ).max(axis=1)
    if not (differences <= TOLERANCE).all():
        raise TargetError(
            f"our noisy simulation of {compiled.target} and Aer's differ by "
            f"{differences.max():.2g} in the probability of an outcome, accepted is "
            f"{TOLERANCE:.0e}: evaluate with {compiled.target}:aer, and please report it"
        )
    return differences


def _aer_rows(
    noisy: NoisyCircuit, values: NDArray[np.float64], *, parameters: Sequence[str]
) -> NDArray[np.float64]:
    """Return Aer's probabilities (batch, 2**bits), readout errors included."""
    from qiskit_aer import AerSimulator

    circuit, measured = _saving(noisy.circuit)
    column = {name: number for number, name in enumerate(parameters)}
    live = list(circuit.parameters)
    simulator = AerSimulator(
        method="density_matrix", noise_model=noisy.noise_model, max_parallel_threads=1
    )
    given = [{item: row[column[item.name]] for item in live} for row in values]
    if live and not binds_wrongly(circuit):
        # One circuit with all its values: Aer writes the noise of idle times once.
        binds = [{item: [row[item] for row in given] for item in live}]
        result = simulator.run(circuit, parameter_binds=binds).result()
    else:
        result = simulator.run([circuit.assign_parameters(row) for row in given]).result()
    if not result.success:
        raise TargetError(f"Aer could not check circuit {circuit.name!r}: {result.status}")
    rows = np.stack([result.data(row)["probabilities"] for row in range(len(values))])
    for bit, qubit in enumerate(measured):
        if qubit in noisy.readout:
            shaped = rows.reshape(len(rows), -1, 2, 2**bit)
            rows = np.einsum("bhil,ij->bhjl", shaped, noisy.readout[qubit])
    return np.asarray(rows, dtype=np.float64).reshape(len(values), -1)


def _saving(circuit: QuantumCircuit) -> tuple[QuantumCircuit, list[int]]:
    """Return the circuit with its probabilities saved in place of measured, and whose they are."""
    from qiskit_aer.library import SaveProbabilities

    bare = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase)
    sources: dict[int, int] = {}
    for instruction in circuit.data:
        qubits = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        if instruction.operation.name == "measure":
            sources[circuit.find_bit(instruction.clbits[0]).index] = qubits[0]
        elif instruction.operation.name != "barrier":
            bare.append(instruction.operation, qubits)
    measured = [sources[bit] for bit in range(len(sources))]
    bare.append(SaveProbabilities(len(measured)), measured)
    return bare, measured
