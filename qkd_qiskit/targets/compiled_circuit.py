"""What a target makes of a circuit, and the steps to it that all targets share."""

import hashlib
from dataclasses import dataclass, field
from typing import Any

from qiskit import qasm3
from qiskit.circuit import ClassicalRegister, Parameter, QuantumCircuit

from qkd_qiskit.errors import TargetError


@dataclass(frozen=True, eq=False)
class CompiledCircuit:
    """A circuit as a target runs it, and what it costs there."""

    target: str
    """Name of the target that compiled it, the only one that runs it."""
    circuit: QuantumCircuit
    """ISA circuit, unscheduled, classical bit i of register `meas` = logical qubit i."""
    parameters: tuple[str, ...]
    """Names of the circuit's parameters, sorted: the columns of `values`."""
    num_qubits: int
    """Logical qubits n; outcomes are 0 to 2**n - 1."""
    layout: tuple[int, ...]
    """Physical qubit that each logical qubit starts on."""
    measured: tuple[int, ...]
    """Physical qubit that each logical qubit is measured on."""
    two_qubit_gates: int
    """Gates on two or more qubits."""
    depth: int
    """Depth in gates, measurement included."""
    duration_s: float | None
    """Seconds from the first gate to the end of the measurement; None on a simulator."""
    fidelity: float
    """Product of 1 - error over gates and measurements; 1 without noise."""
    program: Any = field(repr=False)
    """What the target runs; its own affair."""


def measure_all_qubits(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with qubit i measured into bit i of a register `meas`."""
    measured = circuit.copy_empty_like()
    measured.compose(circuit, inplace=True)
    register = ClassicalRegister(circuit.num_qubits, "meas")
    measured.add_register(register)
    # No barrier: the transpiler may then drop what a measurement does not see.
    measured.measure(range(circuit.num_qubits), register)
    return measured


def sorted_parameters(circuit: QuantumCircuit) -> tuple[Parameter, ...]:
    """Return the circuit's parameters, sorted by name as text."""
    return tuple(sorted(circuit.parameters, key=lambda parameter: str(parameter.name)))


def content_digest(circuit: QuantumCircuit) -> str:
    """Return a digest that equal circuits (same gates, same parameter names) share.

    Raises:
        TargetError: The circuit has an instruction that OpenQASM 3 has no unitary gate for.
    """
    # OpenQASM rather than QPY: QPY carries each parameter's identity, so that a circuit that is
    # built a second time would look like another one.
    try:
        text = qasm3.dumps(circuit, allow_aliasing=True)  # registers that share qubits
    except qasm3.QASM3ExporterError as error:
        raise TargetError(
            f"circuit {circuit.name!r} is not made of unitary gates alone: "
            f"{' '.join(str(error.message).split())}"
        ) from error
    return hashlib.sha256(text.encode()).hexdigest()
