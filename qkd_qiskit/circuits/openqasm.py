"""Student circuits as OpenQASM 3 text: written, read back, and refused where they are no student.

Inputs x_000, x_001, ... and weights w_000, w_001, ... are `input float[64]` declarations; names,
order and state survive the round trip. The text holds no measurement. Functions of parameters,
which Qiskit writes and does not read, are read by `angle_expressions`.
"""

from __future__ import annotations

import contextlib
import functools
import io
import re
from collections.abc import Iterable
from pathlib import Path

import openqasm3
import qiskit_qasm3_import
from openqasm3 import ast
from openqasm3.visitor import QASMVisitor
from qiskit import QuantumCircuit, qasm3

from qkd_qiskit.circuits.angle_expressions import extract_angles, put_back_angles
from qkd_qiskit.circuits.standard_gates import first_difference
from qkd_qiskit.circuits.student_circuit import StudentCircuit, adopt_circuit
from qkd_qiskit.errors import CircuitError

LARGEST_REGISTER = 1000  # qubits or bits; before a register of a billion is allocated
_INPUTS = ":inputs="
_QISKIT_FUNCTIONS = {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "conj": ""}


def dump_circuit(circuit: QuantumCircuit, *, checked: bool = True) -> str:
    """Return a student's circuit as OpenQASM 3, without its final measurements.

    Args:
        circuit: A circuit that `adopt_circuit` takes.
        checked: Read the text back and compare; not needed for circuits of `build_circuit`.

    Raises:
        CircuitError: A parameter is not named x_000, ... or w_000, ..., the circuit measures before
            its end, or it holds something that OpenQASM 3 cannot say.
    """
    student = adopt_circuit(circuit).circuit
    plain = QuantumCircuit(student.num_qubits, global_phase=student.global_phase)
    for item in student.data:  # registers may have names that OpenQASM 3 keeps for itself
        plain.append(item.operation, [student.find_bit(qubit).index for qubit in item.qubits])
    text = _written(plain)
    if not checked:
        return text
    try:
        difference = first_difference(plain, parse_circuit(text, source="what was written").circuit)
    except CircuitError as error:
        difference = str(error)
    if difference:
        raise CircuitError(
            f"the circuit cannot be kept as OpenQASM 3 ({difference}); use standard gates whose "
            "angles are numbers or sums, products, powers, sin, cos, tan, exp, log of parameters"
        )
    return text


def load_circuit(
    path: str | Path,
    *,
    input_params: Iterable[str] | None = None,
    weight_params: Iterable[str] | None = None,
) -> StudentCircuit:
    """Return the student circuit in an OpenQASM 3 file, without its final measurements.

    Args:
        path: The file.
        input_params: As in `adopt_circuit`.
        weight_params: As in `adopt_circuit`.

    Raises:
        CircuitError: The file cannot be read, is not OpenQASM 3, or its circuit is no student
            (see `adopt_circuit`).
    """
    return adopt_circuit(
        _read_file(path),
        source=str(path),
        input_params=input_params,
        weight_params=weight_params,
    )


def load_named_circuit(name: str) -> StudentCircuit:
    """Return the student circuit of a recipe's `student.circuit`: `FILE` or `FILE:inputs=PREFIX`.

    With a prefix, parameters whose names begin with it are the inputs and all others the weights,
    both in the order of their names, numbers in a name by value.

    Raises:
        CircuitError: As `load_circuit`, or no parameter begins with the prefix.
    """
    path, mark, prefix = name.rpartition(_INPUTS)
    if not mark:
        return load_circuit(name)
    circuit = _read_file(path)
    names = sorted((parameter.name for parameter in circuit.parameters), key=_by_number)
    inputs = [each for each in names if each.startswith(prefix)]
    if not inputs or not prefix:
        raise CircuitError(
            f"{path}: no parameter begins with {prefix!r}; it has {', '.join(names) or 'none'}; "
            f"give FILE{_INPUTS}PREFIX with the prefix of the inputs"
        )
    weights = [each for each in names if each not in inputs]
    return adopt_circuit(circuit, source=path, input_params=inputs, weight_params=weights)


def _by_number(name: str) -> list[tuple[str, int]]:
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def parse_circuit(
    text: str,
    *,
    source: str = "circuit",
    input_params: Iterable[str] | None = None,
    weight_params: Iterable[str] | None = None,
) -> StudentCircuit:
    """Return the student circuit in OpenQASM 3 text.

    Args:
        text: The program.
        source: What error messages call it, for example its file name.
        input_params: As in `adopt_circuit`.
        weight_params: As in `adopt_circuit`.

    Raises:
        CircuitError: As `load_circuit`.
    """
    return adopt_circuit(
        _read_text(text, source=source),
        source=source,
        input_params=input_params,
        weight_params=weight_params,
    )


def _read_file(path: str | Path) -> QuantumCircuit:
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a null byte in the path
        reason = getattr(error, "strerror", None) or "it is not text"
        raise CircuitError(
            f"circuit {path} cannot be read: {reason}; give an OpenQASM 3 file"
        ) from error
    return _read_text(text, source=str(path))


def _read_text(text: str, *, source: str) -> QuantumCircuit:
    try:
        return _read(text)
    except CircuitError as error:
        raise CircuitError(f"{source}: {error}") from error
    # Text from outside makes the parser fail in many ways: also with AttributeError (no content),
    # IndexError (a qubit that is not there) or RecursionError (deep nesting).
    except Exception as error:
        raise CircuitError(
            f"{source} is not an OpenQASM 3 circuit that can be read: {_one_line(error)}; write it "
            "with qiskit.qasm3.dump"
        ) from error


def _written(circuit: QuantumCircuit) -> str:
    """Return a circuit as OpenQASM 3, with the functions' names of the standard.

    Raises:
        CircuitError: The exporter cannot write it.
    """
    try:
        text = str(qasm3.dumps(circuit))
    except Exception as error:  # TypeError and others, besides its own
        raise CircuitError(
            f"the circuit cannot be written as OpenQASM 3 ({_one_line(error)}); "
            "decompose() it into standard gates first"
        ) from error
    return re.sub(
        r"\b(asin|acos|atan|conj)\(", lambda match: f"{_QISKIT_FUNCTIONS[match[1]]}(", text
    )


@functools.lru_cache(maxsize=16)
def _read(text: str) -> QuantumCircuit:
    """Return the circuit in OpenQASM 3 text; it is shared, so it must not be changed."""
    # The parser prints what it cannot tokenise; the reason is in the exception as well.
    with contextlib.redirect_stderr(io.StringIO()):
        program = openqasm3.parse(text.removeprefix("\ufeff"))
    _Limits().visit(program)
    angles = extract_angles(program)
    circuit = qiskit_qasm3_import.convert(program)
    return put_back_angles(circuit, angles)


class _Limits(QASMVisitor[None]):
    """Refuses what has no student, before it is built."""

    def visit_Identifier(self, node: ast.Identifier) -> None:
        """Refuse qubits of a device."""
        if node.name.startswith("$"):
            raise CircuitError(
                f"{node.name} is a physical qubit of a device; declare `qubit[n] q;` and use q[0], "
                "q[1], ...: the circuit is compiled for each device later"
            )

    def visit_QubitDeclaration(self, node: ast.QubitDeclaration) -> None:
        """Refuse registers that no simulator or device has."""
        _check_size(node.size, "qubits")

    def visit_BitType(self, node: ast.BitType) -> None:
        """Refuse registers that are only there to fill memory."""
        _check_size(node.size, "bits")


def _check_size(size: ast.Expression | None, what: str) -> None:
    if isinstance(size, ast.IntegerLiteral) and size.value > LARGEST_REGISTER:
        raise CircuitError(
            f"a register of {size.value} {what} was declared; at most {LARGEST_REGISTER} are "
            "accepted"
        )


def _one_line(error: Exception) -> str:
    reason = " ".join(str(error).split()).strip("'\"")[:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
