"""What an operation does decides what it becomes, not what it is called."""

import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import ClassicalRegister, Gate, Parameter
from qiskit.circuit.library import (
    CRXGate,
    HamiltonianGate,
    PauliEvolutionGate,
    RVGate,
    RYGate,
    RZZGate,
    StatePreparation,
    UnitaryGate,
    XGate,
)
from qiskit.quantum_info import Clifford, SparsePauliOp, Statevector

from qkd_qiskit.circuits.standard_gates import first_difference, to_standard_gates
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.gates import STANDARD_GATES, standard_name

X, W, V = Parameter("x_000"), Parameter("w_000"), Parameter("w_001")
VALUES = {X: 0.4, W: 0.9, V: -0.6}


def circuit_with(operation, *, qubits=4):
    """An entangled start, the operation on the first qubits, and a change of basis after it."""
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(0.3 + qubit, qubit)
    circuit.cx(0, qubits - 1)
    circuit.rx(X, 0)
    circuit.append(operation, range(operation.num_qubits))
    for qubit in range(qubits):
        circuit.rx(0.4 + qubit, qubit)
    return circuit


def states(*circuits):
    return [
        Statevector(c.assign_parameters({p: VALUES[p] for p in c.parameters})) for c in circuits
    ]


def block(name, *angles):
    inner = QuantumCircuit(1, name=name)
    inner.h(0)
    for angle in angles:
        inner.ry(angle, 0)
        inner.rx(angle, 0)
    return inner.to_gate()


class Doubled(Gate):
    """A gate of two qubits whose definition uses its angle twice."""

    def __init__(self, angle, name="doubled"):
        super().__init__(name, 2, [angle])

    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.ry(self.params[0], 0)
        self.definition.cx(0, 1)
        self.definition.rx(self.params[0], 1)


class Mirrored(Gate):
    """A gate that is known by its matrix only."""

    def __init__(self):
        super().__init__("rx", 1, [])

    def __array__(self, dtype=None, copy=None):
        return np.array([[0.6, 0.8], [0.8, -0.6]], dtype=complex)


class Turned(RYGate):
    """A subclass of a gate under another gate's name."""

    def __init__(self, angle):
        super().__init__(angle)
        self.name = "rz"


OPERATIONS = {
    "block named p": block("p", 2 * W),
    "block named u": block("u", W, V, W * V),
    "block named rx": block("rx", W),
    "block named id": block("id"),
    "block named delay": block("delay", W),
    "block named barrier": block("barrier"),
    "block named measure": block("measure"),
    "own gate of an expression": Doubled(2 * W),
    "own gate named rzz": Doubled(W + V, name="rzz"),
    "controlled own gate": Doubled(2 * W).control(2),
    "open control": RYGate(2 * W).control(1, ctrl_state=0),
    "open controls of x": XGate().control(2, ctrl_state=1),
    "annotated control": RYGate(2 * W).control(1, annotated=True),
    "evolution": PauliEvolutionGate(SparsePauliOp(["XX", "ZZ"]), time=2 * W),
    "controlled unitary": UnitaryGate([[0.6, 0.8], [0.8, -0.6]]).control(1),
    "subclass": Turned(2 * W),
    "matrix only": Mirrored(),
    "clifford": Clifford(block("h").definition),
    "preparation": StatePreparation([0.6, 0.8]),
}


@pytest.mark.filterwarnings(
    "ignore::scipy.sparse.SparseEfficiencyWarning"
)  # what Qiskit says of an evolution
@pytest.mark.parametrize("name", OPERATIONS)
def test_the_state_stays_and_only_standard_gates_are_left(name):
    circuit = circuit_with(OPERATIONS[name])
    lowered = to_standard_gates(circuit)
    before, after = states(circuit, lowered)
    assert abs(before.inner(after)) == pytest.approx(1, abs=1e-12)
    assert set(lowered.parameters) == set(circuit.parameters)
    assert all(standard_name(item.operation) == item.operation.name for item in lowered.data)


@pytest.mark.parametrize("name", STANDARD_GATES)
def test_standard_gates_are_kept_as_they_are(name):
    gate = STANDARD_GATES[name]
    angles = [2 * W + V, V / 3, W - V, V][: len(gate.params)]
    circuit = circuit_with(gate.base_class(*angles) if angles else gate)
    lowered = to_standard_gates(circuit)
    if name == "global_phase":
        assert "global_phase" not in lowered.count_ops()
        assert lowered.global_phase == angles[0]
    else:
        assert lowered is circuit


def test_a_gate_that_is_what_its_name_says_becomes_the_standard_one():
    same = RZZGate(W).definition.to_gate()
    same.name = "rzz"
    lowered = to_standard_gates(circuit_with(same))
    assert [type(item.operation) for item in lowered.get_instructions("rzz")] == [RZZGate]


@pytest.mark.parametrize(
    ("operation", "reason"),
    [
        (HamiltonianGate(np.diag([1, -1]), W), "hamiltonian.*unbound"),
        (RVGate(W, 0.1, 0.2), "rv.*unbound"),
        (Gate("rzz", 2, [W]), "rzz.*use unitary gates"),
        (PauliEvolutionGate(SparsePauliOp(["XX", "ZI"]), time=W), "do not commute"),
    ],
)
def test_what_has_no_exact_definition_is_refused_in_one_line(operation, reason):
    with pytest.raises(CircuitError, match=reason) as caught:
        to_standard_gates(circuit_with(operation), source="mine")
    assert str(caught.value).startswith("mine: ")
    assert "\n" not in str(caught.value)


def test_a_definition_that_is_another_than_the_matrix_is_refused():
    class Wrong(Gate):
        def __init__(self):
            super().__init__("wrong", 1, [])

        def _define(self):
            self.definition = QuantumCircuit(1)
            self.definition.x(0)

        def __array__(self, dtype=None, copy=None):
            return np.diag([1, 1j])

    with pytest.raises(CircuitError, match="'wrong' and its matrix are"):
        to_standard_gates(circuit_with(Wrong()))


def test_measurements_inside_of_a_block_are_refused():
    inner = QuantumCircuit(1, 1, name="block")
    inner.measure(0, 0)
    circuit = QuantumCircuit(1)
    circuit.rx(X, 0)
    circuit.add_register(ClassicalRegister(1, "c"))
    circuit.append(inner.to_instruction(), [0], [0])
    with pytest.raises(CircuitError, match="block in the middle of the circuit"):
        to_standard_gates(circuit)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.rx(W + 1e-3, 0), "angles"),
        (lambda c: c.ry(W, 0), "rx in one, ry in one"),
        (lambda c: c.rx(W, 1), "rx in one"),
        (lambda c: c.rx(V, 0), "parameter 'w_000'"),
        (lambda c: None, "parameter 'w_000'"),
    ],
)
def test_a_difference_is_put_into_words(change, words):
    left, right = QuantumCircuit(2), QuantumCircuit(2)
    left.rx(W, 0)
    change(right)
    assert words in first_difference(left, right)
    assert first_difference(left, left.copy()) is None


class Redefined(RYGate):
    """A subclass of a standard gate that does something else."""

    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.rz(self.params[0], 0)


class RedefinedControl(CRXGate):
    """The same with a control."""

    def _define(self):
        self.definition = QuantumCircuit(2)
        self.definition.cry(self.params[0], 0, 1)


@pytest.mark.parametrize("operation", [Redefined(2 * W), Redefined(0.3), RedefinedControl(W)])
def test_a_subclass_is_what_qiskit_takes_it_for_and_a_warning_says_so(operation):
    circuit = circuit_with(operation)
    with pytest.warns(UserWarning, match=r"is run as C?R[XY]Gate, which it is derived from"):
        lowered = to_standard_gates(circuit)
    before, after = states(circuit, lowered)
    assert abs(before.inner(after)) == pytest.approx(1, abs=1e-12)


def test_a_matrix_of_many_qubits_is_refused_at_once():
    with pytest.raises(CircuitError, match="a matrix on 8 qubits; at most 7"):
        to_standard_gates(circuit_with(UnitaryGate(np.diag(np.exp(1j * np.arange(256)))), qubits=8))


def test_a_delay_of_a_parameter_and_a_reset_are_refused():
    circuit = QuantumCircuit(1)
    circuit.delay(W, 0, "s")
    with pytest.raises(CircuitError, match="a delay of w_000 is not accepted"):
        to_standard_gates(circuit)
    circuit = QuantumCircuit(1)
    circuit.reset(0)
    with pytest.raises(CircuitError, match="reset"):
        to_standard_gates(circuit)
    assert to_standard_gates(circuit, gates_only=False) is circuit
