"""Random circuits: a file keeps their state, and the simulator agrees with Qiskit on it."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Gate, Parameter
from qiskit.quantum_info import Statevector

from qkd_qiskit.circuits import dump_circuit, parse_circuit
from qkd_qiskit.simulator.gates import STANDARD_GATES
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.run import probabilities

QUBITS = 4
NAMES = ["x_000", "w_000", "w_001"]
X, W, V = (Parameter(name) for name in NAMES)
ANGLES = st.sampled_from(
    [X, W, V, 2 * W, W + V, W * V, X - W / 3, W.sin(), 0.3, np.pi / 2, -1e-3 * V]
)
STANDARD = sorted(name for name, gate in STANDARD_GATES.items() if 0 < gate.num_qubits <= 3)


@st.composite
def gates(draw, depth=2):
    """A standard gate, a block under any name, or one of these controlled or inverted."""
    kind = draw(st.sampled_from(["standard", "standard", "block", "controlled", "inverse"]))
    if kind == "standard" or depth == 0:
        gate = STANDARD_GATES[draw(st.sampled_from(STANDARD))]
        return gate.base_class(*(draw(ANGLES) for _ in gate.params)) if gate.params else gate
    inner: Gate = draw(gates(depth=depth - 1))
    if kind == "inverse":
        return inner.inverse()
    if kind == "controlled" and inner.num_qubits < 3:
        return inner.control(1, ctrl_state=draw(st.integers(0, 1)), annotated=False)
    body = QuantumCircuit(inner.num_qubits, name=draw(st.sampled_from([*STANDARD, "block"])))
    body.append(inner, range(inner.num_qubits))
    body.ry(draw(ANGLES), 0)
    return body.to_gate()


@st.composite
def circuits(draw):
    """A circuit of three parameters in which every qubit is turned before and after the gates."""
    circuit = QuantumCircuit(QUBITS)
    for qubit in range(QUBITS):
        circuit.ry(0.4 + qubit, qubit)
    for gate in draw(st.lists(gates(), min_size=1, max_size=4)):
        circuit.append(gate, draw(st.permutations(range(QUBITS)))[: gate.num_qubits])
    for qubit, parameter in enumerate((X, W, V)):
        circuit.rx(parameter, qubit)
    return circuit


@settings(max_examples=15, deadline=None, derandomize=True)
@given(circuit=circuits(), values=st.lists(st.floats(-3, 3), min_size=3, max_size=3))
def test_a_circuit_survives_the_file_and_the_simulator_agrees_with_qiskit(circuit, values):
    by_name = dict(zip(NAMES, values, strict=True))
    expected = Statevector(circuit.assign_parameters(by_name))
    read = parse_circuit(dump_circuit(circuit)).circuit
    overlap = abs(Statevector(read.assign_parameters(by_name)).inner(expected))
    np.testing.assert_allclose(overlap, 1, atol=1e-9)
    program = Program.from_circuit(circuit, input_params=[X], weight_params=[W, V])
    inputs = torch.tensor([values[:1]], dtype=torch.float64)
    weights = torch.tensor(values[1:], dtype=torch.float64)
    found = probabilities(program, inputs, weights)[0]
    np.testing.assert_allclose(found.numpy(), expected.probabilities(), atol=1e-9)
