"""Student circuits as OpenQASM 3 text: written, read back, and refused where they are no student.

Inputs x_000, x_001, ... and weights w_000, w_001, ... are `input float[64]` declarations; names,
order and state survive the round trip. The text holds no measurement. Functions of parameters,
which Qiskit writes and does not read, are read by `angle_expressions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from qiskit import QuantumCircuit, qasm3

from qkd_qiskit.circuits.standard_gates import first_difference, without_layout
from qkd_qiskit.circuits.student_circuit import StudentCircuit, adopt_circuit
from qkd_qiskit.errors import CircuitError, one_line

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
    # Registers may have names that OpenQASM 3 keeps for itself.
    plain = without_layout(adopt_circuit(circuit).circuit)
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
    from qkd_qiskit.circuits.openqasm_reader import read_program  # loads the parser

    try:
        return read_program(text)
    except CircuitError as error:
        raise CircuitError(f"{source}: {error}") from error
    # Text from outside makes the parser fail in many ways: also with AttributeError (no content),
    # IndexError (a qubit that is not there) or RecursionError (deep nesting).
    except Exception as error:
        raise CircuitError(
            f"{source} is not an OpenQASM 3 circuit that can be read: {one_line(error)}; write it "
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
            f"the circuit cannot be written as OpenQASM 3 ({one_line(error)}); "
            "decompose() it into standard gates first"
        ) from error
    return re.sub(
        r"\b(asin|acos|atan|conj)\(", lambda match: f"{_QISKIT_FUNCTIONS[match[1]]}(", text
    )
