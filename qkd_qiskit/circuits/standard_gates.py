"""A circuit in Qiskit's standard gates only, and whether two circuits are the same.

Transpilers, simulators and OpenQASM tell gates by their names. Here an operation is what its class
or its matrix says: a block that is called rzz and does something else becomes the gates it is made
of. What comes out is held to what went in by numbers.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit import QuantumCircuit
from qiskit.circuit import (
    Barrier,
    CircuitInstruction,
    ControlFlowOp,
    Delay,
    Measure,
    Operation,
    Parameter,
    ParameterExpression,
    Reset,
)
from qiskit.circuit.library import IGate, Initialize
from qiskit.quantum_info import Statevector, random_statevector

from qkd_qiskit.errors import CircuitError, UnsupportedInstructionError, first_line
from qkd_qiskit.simulator.gates import (
    STANDARD_GATES,
    copied_gate,
    definition_of,
    standard_name,
)

_COMPARED_QUBITS = 10  # wider gates are compared part by part
_TOLERANCE = 1e-7  # of a state's distance, and of an angle in radians
_RANGE = (0.2, 0.9)  # of random parameters: where log, asin and powers are defined

Part = tuple[Operation, tuple[int, ...]]


def to_standard_gates(
    circuit: QuantumCircuit, *, source: str = "circuit", gates_only: bool = True
) -> QuantumCircuit:
    """Return the circuit in standard gates, delays, barriers and measurements.

    The state is the same up to a global phase, and so are the parameters. A circuit that consists
    of these already is returned as it is.

    Args:
        circuit: Any circuit of gates.
        source: What error messages call the circuit.
        gates_only: Whether what is no gate is refused, or else left as it is.

    Raises:
        CircuitError: An operation is not unitary, has no definition while its parameters are open,
            or its definition and its matrix are not the same.
    """
    values = random_values(circuit)
    for item in circuit.data:
        _refuse_timing(item.operation, source=source)
        if gates_only and isinstance(item.operation, Reset):
            refuse_classical(item.operation, clbits=(), source=source)
    if all(_is_plain(item.operation) for item in circuit.data):
        _check_angles(circuit, values, source=source)
        return circuit
    lowered = circuit.copy_empty_like()
    for item in circuit.data:
        if _is_plain(item.operation) or (not gates_only and _is_classical(item)):
            lowered.append(item)
            continue
        refuse_classical(item.operation, clbits=item.clbits, source=source)
        qubits = tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        try:
            for operation, places in _lowered(item.operation, qubits, values, phase_of=lowered):
                refuse_classical(operation, clbits=(), source=source)
                lowered.append(operation, places)
        except (UnsupportedInstructionError, RecursionError) as error:
            raise CircuitError(f"{source}: {first_line(error)}") from error
    _check_angles(lowered, values, source=source)
    return lowered


def without_layout(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the instructions on one register of qubits and no bits, without a device's layout.

    A layout, which a file does not keep, would make outcomes of logical qubits of it.
    """
    bare = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase, name=circuit.name)
    for item in circuit.data:
        bare.append(item.operation, [circuit.find_bit(qubit).index for qubit in item.qubits])
    return bare


def without_final_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit without its final measurements and the bits that only they wrote."""
    with warnings.catch_warnings():  # of Qiskit 2.3, where the circuit has a device's layout
        warnings.filterwarnings("ignore", message="Trying to add QuantumRegister")
        return circuit.remove_final_measurements(inplace=False)


def random_values(circuit: QuantumCircuit, *, seed: int = 0) -> dict[str, float]:
    """Return a random number per parameter name."""
    names = sorted(parameter.name for parameter in circuit.parameters)
    drawn = np.random.default_rng(seed).uniform(*_RANGE, len(names))
    return dict(zip(names, drawn.tolist(), strict=True))


def first_difference(left: QuantumCircuit, right: QuantumCircuit) -> str | None:
    """Return in words where two circuits of standard gates differ, or None.

    They are the same where the same gates act on the same qubits, with the same angles at random
    values of the same parameters.
    """
    names = [sorted(parameter.name for parameter in each.parameters) for each in (left, right)]
    if names[0] != names[1]:
        lost = sorted(set(names[0]) ^ set(names[1]))
        return f"parameter {lost[0]!r} is in one of them only"
    if left.num_qubits != right.num_qubits or len(left.data) != len(right.data):
        return f"{len(left.data)} instructions became {len(right.data)}"
    values = random_values(left)
    left, right = (each.assign_parameters(values, strict=False) for each in (left, right))
    for number, (ours, theirs) in enumerate(zip(left.data, right.data, strict=True)):
        places = [
            [each.find_bit(qubit).index for qubit in item.qubits]
            for each, item in ((left, ours), (right, theirs))
        ]
        if _label(ours.operation) != _label(theirs.operation) or places[0] != places[1]:
            return f"gate {number} is {ours.operation.name} in one, {theirs.operation.name} in one"
        pairs = zip(ours.operation.params, theirs.operation.params, strict=True)
        if any(not abs(complex(a) - complex(b)) < _TOLERANCE for a, b in pairs):
            return f"gate {number}, {ours.operation.name}, has other angles"
    return None


def refuse_classical(operation: Operation, *, clbits: Any, source: str) -> None:
    """Raise a CircuitError where an operation is not a gate."""
    if isinstance(operation, ControlFlowOp):
        raise CircuitError(
            f"{source}: control flow ({operation.name}) is not accepted; use gates only"
        )
    if isinstance(operation, Measure | Reset | Initialize) or clbits:
        raise CircuitError(
            f"{source}: {operation.name} in the middle of the circuit is not accepted; use gates, "
            "and measure at the end only or leave the measurements out"
        )


def _refuse_timing(operation: Operation, *, source: str) -> None:
    if isinstance(operation, Delay) and not isinstance(operation.duration, int | float):
        raise CircuitError(
            f"{source}: a delay of {operation.duration} is not accepted; give its duration as a "
            "number"
        )


def _check_angles(circuit: QuantumCircuit, values: Mapping[str, float], *, source: str) -> None:
    """Raise a CircuitError where an angle is not a finite real number at random values."""
    for item in circuit.data:
        if standard_name(item.operation) is None:
            continue
        for angle in item.operation.params:
            if isinstance(angle, Parameter) or _is_real(angle, values):
                continue
            raise CircuitError(
                f"{source}: gate {item.operation.name} has the angle {angle}, which is not a "
                f"finite real number (parameters between {_RANGE[0]} and {_RANGE[1]} were tried); "
                "give angles in radians"
            )


def _is_real(angle: Any, values: Mapping[str, float]) -> bool:
    try:
        if isinstance(angle, ParameterExpression):
            angle = angle.bind({p: values[p.name] for p in angle.parameters}).numeric()
        number = complex(angle)
    except (ArithmeticError, TypeError, ValueError):
        return False
    return math.isfinite(number.real) and abs(number.imag) < _TOLERANCE


def _is_classical(item: CircuitInstruction) -> bool:
    return isinstance(item.operation, ControlFlowOp | Initialize) or bool(item.clbits)


def _label(operation: Operation) -> Any:
    unit = operation.unit if isinstance(operation, Delay) else None
    return standard_name(operation) or type(operation), unit


def _is_plain(operation: Operation) -> bool:
    if isinstance(operation, Barrier | Delay | Measure | Reset):
        return True
    name = standard_name(operation)
    return name is not None and name != "global_phase" and not _is_identity(operation, name)


def _is_identity(operation: Operation, name: str) -> bool:
    """Return whether it is U(0, 0, 0), which is what becomes of id in a file."""
    return name == "u" and all(
        not isinstance(angle, ParameterExpression) and angle == 0 for angle in operation.params
    )


def _lowered(
    operation: Operation,
    qubits: tuple[int, ...],
    values: Mapping[str, float],
    *,
    phase_of: QuantumCircuit,
    compared: bool = False,
) -> Iterator[Part]:
    """Yield the standard gates of an operation; its global phase is added to a circuit."""
    name = standard_name(operation)
    if name == "global_phase":
        phase_of.global_phase += operation.params[0]
        return
    if name is not None and _is_identity(operation, name):
        yield IGate(), qubits
        return
    if _is_plain(operation) or isinstance(operation, ControlFlowOp | Initialize):
        yield operation, qubits
        return
    if (copied := copied_gate(operation)) is not None:
        yield from _lowered(copied, qubits, values, phase_of=phase_of)
        return
    known = STANDARD_GATES.get(operation.name)
    if known is not None and _fits(known, operation):
        candidate = known.base_class(*operation.params)
        if _distance(operation, [(candidate, tuple(range(len(qubits))))], values) < _TOLERANCE:
            yield candidate, qubits
            return
    definition = definition_of(operation)
    check = not compared and len(qubits) <= _COMPARED_QUBITS
    if check:
        inner = [
            (part.operation, tuple(definition.find_bit(qubit).index for qubit in part.qubits))
            for part in definition.data
        ]
        distance = _distance(operation, inner, values)
        if distance > _TOLERANCE:
            raise UnsupportedInstructionError(
                f"the definition of gate {operation.name!r} and its matrix are {distance:.1e} "
                "apart; decompose() it, or make them the same"
            )
    phase_of.global_phase += definition.global_phase
    for part in definition.data:
        places = tuple(qubits[definition.find_bit(qubit).index] for qubit in part.qubits)
        yield from _lowered(
            part.operation, places, values, phase_of=phase_of, compared=compared or check
        )


def _fits(known: Operation, operation: Operation) -> bool:
    return (
        known.num_qubits == operation.num_qubits
        and len(known.params) == len(operation.params)
        and not any(isinstance(value, np.ndarray) for value in operation.params)
        and hasattr(operation, "definition")
    )


def _distance(operation: Operation, parts: list[Part], values: Mapping[str, float]) -> float:
    """Return how far an operation and its parts take a random state apart, up to a phase.

    A random state stands for all of them. It is 0 where the parts are not unitary gates, which
    are refused elsewhere.
    """
    start = random_statevector(2**operation.num_qubits, seed=1)
    whole = [(operation, tuple(range(operation.num_qubits)))]
    try:
        ours, theirs = (_state(start, each, values) for each in (whole, parts))
    except UnsupportedInstructionError:
        raise
    except Exception as error:  # Qiskit raises several kinds where a gate has no matrix
        raise UnsupportedInstructionError(
            f"gate {operation.name!r} cannot be simulated ({first_line(error)}); use unitary gates"
        ) from error
    overlap = np.vdot(ours, theirs)
    turned = theirs * np.exp(-1j * np.angle(overlap))
    return float(np.linalg.norm(ours - turned))


def _state(
    start: Statevector, parts: list[Part], values: Mapping[str, float]
) -> NDArray[np.complex128]:
    circuit = QuantumCircuit(start.num_qubits)
    for operation, places in parts:
        if not isinstance(operation, Barrier | Delay):
            circuit.append(operation, places)
    bound = circuit.assign_parameters(dict(values), strict=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # SciPy speaks of the format of an evolution's matrix
        return np.asarray(start.evolve(bound).data)
