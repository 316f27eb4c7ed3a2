"""Student circuits as OpenQASM 3 text: written, read back, and refused where they are no student.

Inputs x_000, x_001, ... and weights w_000, w_001, ... are `input float[64]` declarations; names,
order and state survive the round trip. The text holds no measurement.
"""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

from qiskit import QuantumCircuit, qasm3

from qkd_qiskit.circuits.student_circuit import StudentCircuit, adopt_circuit
from qkd_qiskit.errors import CircuitError


def dump_circuit(circuit: QuantumCircuit) -> str:
    """Return a student's circuit as OpenQASM 3, without its final measurements.

    Raises:
        CircuitError: A parameter is not named x_000, ... or w_000, ..., the circuit measures before
            its end, or it holds a gate that OpenQASM 3 cannot say.
    """
    student = adopt_circuit(circuit)
    try:
        return str(qasm3.dumps(student.circuit))
    except qasm3.QASM3ExporterError as error:
        raise CircuitError(
            f"the circuit cannot be written as OpenQASM 3 ({_one_line(error)}); "
            "decompose() it into standard gates first"
        ) from error


def load_circuit(path: str | Path) -> StudentCircuit:
    """Return the student circuit in an OpenQASM 3 file, without its final measurements.

    Raises:
        CircuitError: The file cannot be read, is not OpenQASM 3, or its circuit is no student
            (see `adopt_circuit`).
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise CircuitError(
            f"circuit {path} cannot be read: {reason}; give an OpenQASM 3 file"
        ) from error
    return parse_circuit(text, source=str(path))


def parse_circuit(text: str, *, source: str = "circuit") -> StudentCircuit:
    """Return the student circuit in OpenQASM 3 text.

    Args:
        text: The program.
        source: What error messages call it, for example its file name.

    Raises:
        CircuitError: As `load_circuit`.
    """
    try:
        # The parser prints what it cannot tokenise; the reason is in the exception as well.
        with contextlib.redirect_stderr(io.StringIO()):
            circuit = qasm3.loads(text)
    # Text from outside makes the parser fail in many ways: also with AttributeError (no content),
    # IndexError (a qubit that is not there) or RecursionError (deep nesting).
    except Exception as error:
        raise CircuitError(
            f"{source} is not an OpenQASM 3 circuit that can be read: {_one_line(error)}; write it "
            "with qiskit.qasm3.dump"
        ) from error
    return adopt_circuit(circuit, source=source)


def _one_line(error: Exception) -> str:
    reason = " ".join(str(error).split()).strip("'\"")[:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
