"""From Qiskit's gates to three kinds of operation: Y rotations, phases and permutations.

Every unitary is a product of these up to a global phase, which no outcome probability and no
expectation value sees: RX is a Y rotation between two phases, H is a Y rotation after Z, CX is a
permutation of basis states. Real rotations and permutations are cheap; phases commute.
Qubit 0 is the least significant bit of a basis state's index, as in Qiskit.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import (
    Barrier,
    ControlledGate,
    Delay,
    Gate,
    Operation,
    ParameterExpression,
    QuantumCircuit,
)
from qiskit.circuit.library import (
    PauliEvolutionGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
)
from qiskit.quantum_info import Operator as QiskitOperator
from qiskit.quantum_info import SparsePauliOp
from qiskit.transpiler.passes import HighLevelSynthesis

from qkd_qiskit.errors import UnsupportedInstructionError, first_line
from qkd_qiskit.simulator.angles import Angle, AngleReader

Complex = NDArray[np.complex128]
Index = NDArray[np.int64]

STANDARD_GATES: dict[str, Gate] = {
    name: gate for name, gate in get_standard_gate_name_mapping().items() if isinstance(gate, Gate)
}
"""An example of each of Qiskit's standard gates by its name."""

_NAMES: dict[type, str] = {gate.base_class: name for name, gate in STANDARD_GATES.items()}
_NOTHING = ("id", "global_phase")
_MATRIX_QUBITS = 4  # above this a gate's definition is shorter than its matrix
_UNITARY_QUBITS = 7  # a matrix of so many becomes 20000 gates in 5 s, and four times that per qubit
_TINY = 1e-13


@dataclass(frozen=True)
class YRotation:
    """``exp(-i angle Y / 2)`` on one qubit."""

    qubit: int
    angle: Angle


@dataclass(frozen=True)
class ParityRotation:
    """``exp(-i angle Z...Z / 2)`` on some qubits."""

    qubits: tuple[int, ...]
    angle: Angle


@dataclass(frozen=True)
class FixedPhase:
    """A diagonal unitary: one phase factor per state of some qubits, first qubit lowest."""

    qubits: tuple[int, ...]
    factors: Complex


@dataclass(frozen=True)
class Shuffle:
    """A permutation: state ``j`` of some qubits takes the amplitude of state ``source[j]``."""

    qubits: tuple[int, ...]
    source: Index


Elementary = YRotation | ParityRotation | FixedPhase | Shuffle


def standard_name(operation: Operation) -> str | None:
    """Return which of Qiskit's standard gates an operation is by its class, or None.

    Its own name says nothing: a block or a gate of a file may be called rzz and do something else.
    A control that is open makes another gate of it, too.
    """
    if isinstance(operation, ControlledGate) and ~operation.ctrl_state & (
        (1 << operation.num_ctrl_qubits) - 1
    ):
        return None
    return _NAMES.get(getattr(operation, "base_class", type(operation)))


def definition_of(operation: Operation) -> QuantumCircuit:
    """Return the circuit that an operation stands for.

    Raises:
        UnsupportedInstructionError: It has none, or none before its parameters are bound, or only
            an approximate one, or one of millions of gates.
    """
    name = operation.name
    if isinstance(operation, UnitaryGate) and operation.num_qubits > _UNITARY_QUBITS:
        raise UnsupportedInstructionError(
            f"gate {name!r} is a matrix on {operation.num_qubits} qubits; at most "
            f"{_UNITARY_QUBITS} are taken apart, so give it as gates"
        )
    if isinstance(operation, PauliEvolutionGate) and not _commutes(operation.operator):
        raise UnsupportedInstructionError(
            f"gate {name!r} evolves under terms that do not commute, and its circuit is an "
            "approximation; decompose() it first if the approximation is meant"
        )
    try:
        if hasattr(operation, "definition"):
            definition = operation.definition
        else:  # a Clifford, or a gate with modifiers
            definition = QuantumCircuit(operation.num_qubits)
            definition.append(operation, definition.qubits)
            definition = HighLevelSynthesis()(definition)
        if definition is None:
            definition = UnitaryGate(operation.to_matrix()).definition
    except Exception as error:  # Qiskit raises several kinds where a gate cannot be defined
        raise UnsupportedInstructionError(
            f"instruction {name!r} has no unitary that is known before it runs "
            f"({first_line(error)}); use gates only, and measure at the end"
        ) from error
    return definition


def copied_gate(operation: Operation) -> Gate | None:
    """Return the standard gate that Qiskit makes of an operation wherever it copies a circuit.

    That is what simulators and transpilers see of a subclass of a standard gate. There is a warning
    where the subclass has another definition, which they do not see. It is None for what is no
    subclass of a standard gate.
    """
    own = getattr(operation, "base_class", type(operation))
    kind = next((each for each in own.__mro__ if each in _NAMES), None)
    if kind is None or kind is own:
        return None
    controls = {"ctrl_state": operation.ctrl_state} if isinstance(operation, ControlledGate) else {}
    copied: Gate = kind(*operation.params, **controls)
    whole = QuantumCircuit(operation.num_qubits)
    whole.append(copied, whole.qubits)
    values = {name.name: 0.3 + 0.1 * number for number, name in enumerate(whole.parameters)}
    run, own_run = (
        QiskitOperator(each.assign_parameters(values, strict=False))
        for each in (whole, operation.definition or whole)
    )
    if not run.equiv(own_run):
        warnings.warn(
            f"gate {operation.name!r} of class {own.__name__} is run as {kind.__name__}, which it "
            "is derived from, as Qiskit does wherever it copies a circuit; derive it from Gate to "
            "have its own definition run",
            UserWarning,
            stacklevel=2,
        )
    return copied


def _commutes(operator: Any) -> bool:
    """Return whether all terms of an evolution commute, so that its product formula is exact."""
    parts = operator if isinstance(operator, list) else [operator]
    if not all(isinstance(part, SparsePauliOp) for part in parts):
        parts = [SparsePauliOp.from_sparse_observable(part) for part in parts]
    return len(SparsePauliOp.sum(parts).paulis.group_commuting()) <= 1


def has_free_parameters(operation: Operation) -> bool:
    """Return whether a parameter of an operation has no value yet."""
    return any(
        isinstance(value, ParameterExpression) and value.parameters
        for value in getattr(operation, "params", ())
    )


def lower(
    operation: Operation, qubits: tuple[int, ...], *, reader: AngleReader
) -> Iterator[Elementary]:
    """Yield the elementary operations of one instruction, first applied first.

    Raises:
        UnsupportedInstructionError: If the instruction has no unitary that is known beforehand.
    """
    name = standard_name(operation)
    if name in _NOTHING or isinstance(operation, Barrier | Delay):
        return
    if name in _PARAMETRISED:
        angles = [reader.read(value) for value in operation.params]
        yield from _rotation(name, angles, qubits)
        return
    if (copied := copied_gate(operation)) is not None:
        yield from lower(copied, qubits, reader=reader)
        return
    free = has_free_parameters(operation)
    matrix = None if free or len(qubits) > _MATRIX_QUBITS else _matrix(operation)
    if matrix is not None:
        elementary = _from_matrix(matrix, qubits)
        if elementary is not None:
            yield from elementary
            return
    if isinstance(operation, PauliEvolutionGate) and matrix is not None:
        definition = UnitaryGate(matrix).definition
    else:
        definition = definition_of(operation)
    for part in definition.data:
        inner = tuple(qubits[definition.find_bit(qubit).index] for qubit in part.qubits)
        yield from lower(part.operation, inner, reader=reader)


def embed(local: NDArray[Any], qubits: tuple[int, ...], *, num_qubits: int) -> NDArray[Any]:
    """Return a table over some qubits' states as one over all ``2**num_qubits`` states."""
    return np.asarray(local[local_index(qubits, num_qubits=num_qubits)])


def local_index(qubits: tuple[int, ...], *, num_qubits: int) -> Index:
    """Return, per basis state, the state of some of its qubits, the first of them lowest."""
    states = np.arange(2**num_qubits, dtype=np.int64)
    local: Index = np.zeros_like(states)
    for position, qubit in enumerate(qubits):
        local |= ((states >> qubit) & 1) << position
    return local


def full_source(shuffle: Shuffle, *, num_qubits: int) -> Index:
    """Return a shuffle as ``source`` over all ``2**num_qubits`` basis states."""
    states = np.arange(2**num_qubits, dtype=np.int64)
    taken = embed(shuffle.source, shuffle.qubits, num_qubits=num_qubits)
    source = states.copy()
    for position, qubit in enumerate(shuffle.qubits):
        source &= ~np.int64(1 << qubit)
        source |= ((taken >> position) & 1) << qubit
    return np.asarray(source)


_PARAMETRISED = {
    "rx": 1, "ry": 1, "rz": 1, "p": 1, "u1": 1, "u2": 2, "u": 3, "u3": 3, "r": 2,
    "rzz": 1, "rxx": 1, "ryy": 1, "rzx": 1, "crz": 1, "cp": 1, "cu1": 1,
}  # fmt: skip
_HALF_PI = Angle(math.pi / 2)
_S = np.array([1, 1j], dtype=np.complex128)
_SDG = _S.conj()


def _scaled(angle: Angle, factor: float) -> Angle:
    terms = tuple((source, factor * coefficient) for source, coefficient in angle.terms)
    return Angle(factor * angle.constant, terms)


def _rotation(name: str, angles: list[Angle], qubits: tuple[int, ...]) -> Iterator[Elementary]:
    if name == "ry":
        yield YRotation(qubits[0], angles[0])
    elif name in ("rz", "p", "u1", "rzz"):
        yield ParityRotation(qubits, angles[0])
    elif name == "rx":
        yield FixedPhase(qubits, _S)
        yield YRotation(qubits[0], angles[0])
        yield FixedPhase(qubits, _SDG)
    elif name == "r":  # about cos(phi) X + sin(phi) Y: RZ(phi) RX(theta) RZ(-phi)
        theta, phi = angles
        yield ParityRotation(qubits, _scaled(phi, -1.0))
        yield from _rotation("rx", [theta], qubits)
        yield ParityRotation(qubits, phi)
    elif name in ("u", "u2", "u3"):
        theta, phi, lam = angles if len(angles) == 3 else [_HALF_PI, *angles]
        yield ParityRotation(qubits, lam)
        yield YRotation(qubits[0], theta)
        yield ParityRotation(qubits, phi)
    elif name in ("crz", "cp", "cu1"):
        control, target = qubits
        half = _scaled(angles[0], 0.5)
        if name != "crz":
            yield ParityRotation((control,), half)
        yield ParityRotation((target,), half)
        yield ParityRotation((control, target), _scaled(half, -1.0))
    else:
        bases = {"rxx": "xx", "ryy": "yy", "rzx": "zx"}[name]
        for qubit, basis in zip(qubits, bases, strict=True):
            yield from _into_basis(qubit, basis)
        yield ParityRotation(qubits, angles[0])
        for qubit, basis in zip(qubits, bases, strict=True):
            yield from _out_of_basis(qubit, basis)


def _into_basis(qubit: int, basis: str) -> Iterator[Elementary]:
    if basis == "y":
        yield FixedPhase((qubit,), _SDG)
    if basis in "xy":
        yield YRotation(qubit, Angle(-math.pi / 2))


def _out_of_basis(qubit: int, basis: str) -> Iterator[Elementary]:
    if basis in "xy":
        yield YRotation(qubit, _HALF_PI)
    if basis == "y":
        yield FixedPhase((qubit,), _S)


def _matrix(operation: Operation) -> Complex | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # SciPy speaks of the format of an evolution's matrix
            return np.asarray(operation.to_matrix(), dtype=np.complex128)
    except Exception:  # Qiskit raises several kinds where a gate has no matrix
        return None


def _from_matrix(matrix: Complex, qubits: tuple[int, ...]) -> list[Elementary] | None:
    """Return a phased permutation or a one-qubit unitary as elementary operations, else None."""
    magnitude = np.abs(matrix)
    if np.all((magnitude < _TINY) | (np.abs(magnitude - 1) < _TINY)):
        source = magnitude.argmax(axis=1).astype(np.int64)
        factors = matrix[np.arange(len(matrix)), source]
        found: list[Elementary] = []
        if not np.array_equal(source, np.arange(len(matrix))):
            found.append(Shuffle(qubits, source))
        if np.abs(factors - factors[0]).max() > _TINY:
            found.append(FixedPhase(qubits, factors / factors[0]))
        return found
    if len(qubits) == 1:
        # RZ(phi) RY(theta) RZ(lam); the matrix is neither diagonal nor antidiagonal here
        theta = 2 * math.atan2(magnitude[1, 0], magnitude[0, 0])
        first = np.angle(-matrix[0, 1] / matrix[0, 0])
        last = np.angle(matrix[1, 0] / matrix[0, 0])
        around = [
            [FixedPhase(qubits, np.array([1, np.exp(1j * phase)]))] if abs(phase) > _TINY else []
            for phase in (first, last)
        ]
        return [*around[0], YRotation(qubits[0], Angle(theta)), *around[1]]
    return None
