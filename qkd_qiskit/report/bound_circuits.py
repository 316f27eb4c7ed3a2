"""A trained student's circuits with their weights bound, as OpenQASM 3 and QPY.

The inputs x_000, x_001, ... stay parameters: `student.encode(images)` has their values in radians.
Nothing is measured. Qubit 0 is the lowest bit of an outcome, as everywhere in Qiskit.
"""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

import numpy as np
from qiskit import QuantumCircuit, qasm3, qpy
from qiskit.quantum_info import Statevector

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.circuits.standard_gates import without_layout
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.storage import write_atomic, write_text
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent

TOLERANCE = 1e-9  # of a probability
_MOST_CHECKED = 12  # qubits

logger = logging.getLogger(__name__)


def bound_circuits(student: Student) -> dict[str, QuantumCircuit]:
    """Return a student's circuits with its weights, by the stem of their files.

    A quanvolutional student has one for each filter; one without a circuit has none.
    """
    if isinstance(student, QuantumStudent):
        names, values = student.weight_names, student.weights
        return {"bound": _bound(student.circuit, dict(zip(names, values.tolist(), strict=True)))}
    if isinstance(student, QuanvolutionalStudent) and isinstance(student.filters, Quanvolution):
        filters = student.filters
        names = [
            parameter.name
            for parameter in filters.circuit.parameters
            if parameter.name.startswith("w")
        ]
        return {
            f"bound_filter_{number}": _bound(filters.circuit, dict(zip(names, row, strict=True)))
            for number, row in enumerate(filters.weight.tolist())
        }
    return {}


def write_bound_circuits(student: Student, folder: Path) -> list[Path]:
    """Write a student's bound circuits into a folder, and return the paths.

    What is written is read back by Qiskit and has to give the same probabilities. What Qiskit
    writes as OpenQASM 3 and cannot read, functions of inputs, is written as QPY alone.

    Raises:
        CircuitError: What was written is another circuit.
        StorageError: A file could not be written.
    """
    paths = []
    for stem, circuit in bound_circuits(student).items():
        path = folder / f"{stem}.qpy"
        write_atomic(path, partial(_dump_qpy, circuit))
        paths.append(path)
        text = qasm3.dumps(circuit)
        try:
            read = qasm3.loads(text)
        except Exception as error:  # whatever Qiskit's importer raises
            logger.warning(
                f"{folder}: Qiskit cannot read its own OpenQASM 3 of this circuit "
                f"({type(error).__name__}); it is there as QPY alone"
            )
            continue
        _check_same(circuit, read, where=folder / f"{stem}.qasm")
        write_text(folder / f"{stem}.qasm", text)
        paths.append(folder / f"{stem}.qasm")
    return paths


def probabilities_at(
    circuit: QuantumCircuit, values: dict[str, float]
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return outcome probabilities `(2^n,)`, little-endian, at values of the inputs in radians."""
    given = {parameter: values[parameter.name] for parameter in circuit.parameters}
    found = Statevector(circuit.assign_parameters(given)).probabilities()
    return np.asarray(found, dtype=np.float64)


def _bound(circuit: QuantumCircuit, values: dict[str, float]) -> QuantumCircuit:
    plain = without_layout(circuit)
    own = {
        parameter: values[parameter.name]
        for parameter in plain.parameters
        if parameter.name in values
    }
    return plain.assign_parameters(own)


def _dump_qpy(circuit: QuantumCircuit, path: Path) -> None:
    with path.open("wb") as file:
        qpy.dump(circuit, file)


def _check_same(circuit: QuantumCircuit, read: QuantumCircuit, *, where: Path) -> None:
    if circuit.num_qubits > _MOST_CHECKED:
        return
    names = sorted(parameter.name for parameter in circuit.parameters)
    values = {name: 0.1 + 0.37 * number for number, name in enumerate(names)}
    difference = np.abs(probabilities_at(circuit, values) - probabilities_at(read, values)).max()
    if difference > TOLERANCE:
        raise CircuitError(
            f"{where}: what Qiskit reads back differs by {difference:.1e} in a probability; "
            "take the QPY file beside it"
        )
