"""The circuit of a quanvolutional filter: a qubit per pixel of a patch, a tree down to qubit 0."""

from __future__ import annotations

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.circuits.encodings import make_encoding
from qkd_qiskit.circuits.student_circuit import StudentCircuit, parameter_names
from qkd_qiskit.errors import CircuitError

MAX_PIXELS = 12  # of a patch; 3x3 with one channel are 9


def filter_circuit(pixels: int) -> StudentCircuit:
    """Return a filter's circuit with 3 n - 1 weights for patches of n pixels: 11 for 2x2.

    Henderson et al. (arXiv 1904.04767) use random circuits, and the slides that give 11 parameters
    per filter do not show theirs; this choice is ours. RY(pi x_q) enters pixel q on qubit q. Then
    RY on every qubit and a ring of CX (n weights), RY on every qubit (n), and a binary tree: pairs
    of the qubits that are left are joined by a CX onto the lower one, which is turned by an RY, and
    the higher one is left behind (n - 1). All pixels thus reach qubit 0, whose <Z> is the filter's
    value; the state stays real.

    Args:
        pixels: Pixels of a patch, and qubits.

    Raises:
        CircuitError: There are fewer than 2 pixels, or more than 12.
    """
    if not 2 <= pixels <= MAX_PIXELS:
        raise CircuitError(
            f"a filter over {pixels} pixels was asked for; a patch has 2 to {MAX_PIXELS}: choose "
            "another kernel"
        )
    encoding = make_encoding("angle", qubits=pixels)
    inputs = tuple(Parameter(name) for name in parameter_names("x", pixels))
    weights = tuple(Parameter(name) for name in parameter_names("w", 3 * pixels - 1))
    circuit = QuantumCircuit(pixels, name="quanvolution")
    encoding.append(circuit, inputs, layer=0)
    remaining = iter(weights)
    for qubit in range(pixels):
        circuit.ry(next(remaining), qubit)
    for qubit in range(pixels if pixels > 2 else 1):
        circuit.cx(qubit, (qubit + 1) % pixels)
    for qubit in range(pixels):
        circuit.ry(next(remaining), qubit)
    left = list(range(pixels))
    while len(left) > 1:
        pairs = list(zip(left[::2], left[1::2], strict=False))
        for lower, higher in pairs:
            circuit.cx(higher, lower)
            circuit.ry(next(remaining), lower)
        left = left[::2]
    return StudentCircuit(
        circuit=circuit, input_params=inputs, weight_params=weights, encoding=encoding
    )
