"""What is run: encodings, ansatze, readouts, and the circuits that they make."""

from qkd_qiskit.circuits.ansatze import ANSATZE, Ansatz, make_ansatz
from qkd_qiskit.circuits.encoding_base import Encoding
from qkd_qiskit.circuits.encodings import ENCODINGS, make_encoding
from qkd_qiskit.circuits.openqasm import dump_circuit, load_circuit, parse_circuit
from qkd_qiskit.circuits.readouts import (
    READOUTS,
    check_readout,
    interpret,
    observables,
    output_shape,
    readout_matrix,
)
from qkd_qiskit.circuits.student_circuit import StudentCircuit, adopt_circuit, build_circuit

__all__ = [
    "ANSATZE",
    "ENCODINGS",
    "READOUTS",
    "Ansatz",
    "Encoding",
    "StudentCircuit",
    "adopt_circuit",
    "build_circuit",
    "check_readout",
    "dump_circuit",
    "interpret",
    "load_circuit",
    "make_ansatz",
    "make_encoding",
    "observables",
    "output_shape",
    "parse_circuit",
    "readout_matrix",
]
