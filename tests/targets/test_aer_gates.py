"""Every target runs the circuit that was given, whatever its gates are made of or called."""

import numpy as np
import pytest
from qiskit.circuit import ControlledGate, Gate, Parameter, QuantumCircuit
from qiskit.circuit.library import (
    CRYGate,
    DiagonalGate,
    MCPhaseGate,
    PauliEvolutionGate,
    QFTGate,
    RXGate,
    UnitaryGate,
    get_standard_gate_name_mapping,
)
from qiskit.providers.fake_provider import GenericBackendV2
from qiskit.quantum_info import SparsePauliOp, Statevector, random_unitary

from qkd_qiskit.circuits.standard_gates import to_standard_gates
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.aer_gates import binds_wrongly, gates_for_aer

SHOTS = 10_000
TOLERANCE = 0.025  # five standard deviations of a frequency at these shots
A, B = Parameter("a"), Parameter("b")


def block(name):
    """A gate of one's own, called as it pleases."""
    circuit = QuantumCircuit(2, name=name)
    circuit.ry(A, 0)
    circuit.cx(0, 1)
    circuit.rx(2 * A + 0.3, 1)
    return circuit.to_gate()


class Turn(Gate):
    """A subclass with a definition of its own and the name of Qiskit's gate."""

    def __init__(self, angle, name="rz"):
        super().__init__(name, 1, [angle])

    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.ry(self.params[0] / 2, 0)


class Matrix(Gate):
    """A subclass that has a matrix and no definition."""

    def __init__(self):
        super().__init__("x", 1, [])

    def __array__(self, dtype=None, copy=None):
        return np.asarray(random_unitary(2, seed=3).data, dtype=dtype)


class OtherRX(RXGate):
    """A subclass of Qiskit's own: Qiskit keeps the gate and forgets the definition."""

    def _define(self):
        self.definition = QuantumCircuit(1)
        self.definition.rx(2 * self.params[0], 0)


def standard():
    """Every standard gate of Qiskit, with free parameters, open controls included."""
    gates = {}
    for name, gate in get_standard_gate_name_mapping().items():
        if not isinstance(gate, Gate) or gate.num_qubits == 0:
            continue
        free = [A, B, A + B, A - B][: len(gate.params)]
        gates[name] = gate.base_class(*free)
        if isinstance(gate, ControlledGate):
            gates[f"{name}, open"] = gate.base_class(*free, ctrl_state=0)
    return gates


OWN = {
    **{f"block called {name}": block(name) for name in ("rzz", "cx", "swap", "cry", "unitary")},
    "controlled block": block("own").control(1),
    "block with an open control": block("own").control(1, ctrl_state=0),
    "inverse block": block("rxx").inverse(),
    "block in a block": None,
    "turn called rz": Turn(A),
    "turn called delay": Turn(A, name="delay"),
    "turn called id": Turn(A, name="id"),
    "controlled turn": Turn(A, name="turn").control(1),
    "matrix called x": Matrix(),
    "subclass of rx": OtherRX(A),
    "mcp": MCPhaseGate(A, 2),
    "mcp, open": MCPhaseGate(A, 2, ctrl_state=1),
    "ry with two controls": CRYGate(A, ctrl_state=0).control(1),
    "evolution": PauliEvolutionGate(SparsePauliOp(["XZ", "ZY"], [0.4, 0.7]), time=2 * A),
    "unitary": UnitaryGate(random_unitary(8, seed=1)),
    "diagonal": DiagonalGate(np.exp(1j * np.arange(4))),
    "fourier": QFTGate(3),
}
OUTER = QuantumCircuit(2, name="h")
OUTER.append(block("cz"), [1, 0])
OUTER.append(CRYGate(B), [0, 1])
OWN["block in a block"] = OUTER.to_gate()
ZOO = {**standard(), **OWN}
ON_A_DEVICE = [name for name in OWN if "called" in name or "controlled" in name]
ON_A_DEVICE += ["block in a block", "mcp, open", "diagonal", "cry", "cu3, open"]


def circuit_of(gate):
    """The gate between rotations that make all its angles visible."""
    circuit = QuantumCircuit(max(3, gate.num_qubits))
    for qubit in range(circuit.num_qubits):
        circuit.ry(0.9 + 0.4 * qubit, qubit)
        circuit.rz(0.3 * qubit + 0.2, qubit)
    circuit.append(gate, range(gate.num_qubits))
    for qubit in range(circuit.num_qubits):
        circuit.rx(1.2 + 0.3 * qubit, qubit)
        circuit.ry(B, qubit)
    return circuit


def values_of(circuit, rows=2):
    rng = np.random.default_rng(0)
    return rng.uniform(0.6, 2.5, (rows, circuit.num_parameters))


def by_statevector(circuit, values):
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    bound = [circuit.assign_parameters(dict(zip(names, row, strict=True))) for row in values]
    return np.stack([Statevector(row).probabilities() for row in bound])


# Of scipy, within the matrix exponential that Qiskit takes of an evolution.
@pytest.mark.filterwarnings("ignore:splu converted its input")
@pytest.mark.filterwarnings("ignore:spsolve")
@pytest.mark.filterwarnings("ignore:gate 'rx' of class OtherRX is run as RXGate")
@pytest.mark.parametrize("name", ZOO)
def test_exact_and_aer_run_every_gate_as_qiskit_does(name):
    circuit = circuit_of(ZOO[name])
    values = values_of(circuit)
    expected = by_statevector(circuit, values)
    exact, aer = Target.parse("exact"), Target.parse("aer", shots=SHOTS, seed=3)
    found = exact.probabilities(exact.compile(circuit), values)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    sampled = aer.probabilities(aer.compile(circuit), values)
    np.testing.assert_allclose(sampled, expected, rtol=0, atol=TOLERANCE)
    limit = aer.exact_probabilities(aer.compile(circuit), values)
    np.testing.assert_allclose(limit, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", ON_A_DEVICE)
def test_a_device_runs_every_gate_as_qiskit_does(name):
    """Without noise, so that the circuit alone is compared: what the transpiler made of it."""
    circuit = circuit_of(ZOO[name])
    values = values_of(circuit)
    device = Target.parse("synthetic:qubits=4:exact")
    device.num_transpilations = 1
    found = device.probabilities(device.compile(circuit), values)
    np.testing.assert_allclose(found, by_statevector(circuit, values), rtol=0, atol=1e-9)


@pytest.mark.parametrize("simulator", ["density", "aer"])
def test_a_device_with_controlled_rotations_of_its_own_is_sampled_rightly(simulator):
    backend = GenericBackendV2(
        3, basis_gates=["cp", "sx", "rz", "x"], seed=1, noise_info=True, control_flow=False
    )
    circuit = QuantumCircuit(2)
    circuit.h([0, 1])
    circuit.cp(A, 0, 1)
    circuit.h(1)
    target = DeviceTarget(backend, shots=SHOTS, num_transpilations=1, simulator=simulator)
    compiled = target.compile(circuit)
    assert "cp" in compiled.circuit.count_ops()
    values = np.array([[0.4], [2.6]])
    limit = target.exact_probabilities(compiled, values)
    np.testing.assert_allclose(limit, by_statevector(circuit, values), rtol=0, atol=0.05)
    np.testing.assert_allclose(
        target.probabilities(compiled, values), limit, rtol=0, atol=TOLERANCE
    )


def test_circuits_of_standard_gates_are_left_alone():
    circuit = circuit_of(CRYGate(A))
    assert to_standard_gates(circuit) is circuit


@pytest.mark.parametrize("gate", ["unitary", "diagonal"])
def test_what_aer_runs_rightly_is_left_alone(gate):
    circuit = QuantumCircuit(3)
    circuit.append(OWN[gate], range(OWN[gate].num_qubits))
    assert gates_for_aer(circuit).count_ops() == {gate: 1}


def test_two_blocks_of_one_name_are_two_circuits():
    first, second = QuantumCircuit(1, name="block"), QuantumCircuit(1, name="block")
    first.x(0)
    target, rows = Target.parse("exact"), []
    for inner in (first, second):
        circuit = QuantumCircuit(1)
        circuit.append(inner.to_gate(), [0])
        rows.append(target.probabilities(target.compile(circuit), np.empty((1, 0)))[0])
    np.testing.assert_allclose(rows, [[0, 1], [1, 0]], atol=1e-12)


@pytest.mark.parametrize("name", ["exact", "aer", "fake_manila"])
def test_a_parameter_that_a_definition_does_not_use_keeps_its_column(name):
    inner = QuantumCircuit(1, name="idle")
    inner.x(0)
    gate = Gate("idle", 1, [A])
    gate.definition = inner
    circuit = QuantumCircuit(1)
    circuit.append(gate, [0])
    circuit.ry(B, 0)
    target = Target.parse(name, shots=2000)
    compiled = target.compile(circuit)
    assert compiled.parameters == ("a", "b")
    rows = target.probabilities(compiled, [[0.3, 0.0], [0.3, np.pi]])
    assert rows[0, 1] > 0.9
    assert rows[1, 0] > 0.9


def test_what_aer_binds_wrongly_is_known():
    """Aer is asked itself, with each standard gate: where it is wrong, it is not trusted."""
    trusted_and_wrong = []
    for name, gate in standard().items():
        circuit = circuit_of(gate)
        if not gate.params or binds_wrongly(circuit):
            continue
        lowered = gates_for_aer(circuit)
        if binds_wrongly(lowered):
            trusted_and_wrong.append(name)
    assert not trusted_and_wrong
    assert binds_wrongly(circuit_of(CRYGate(A)))
    assert binds_wrongly(circuit_of(CRYGate(A, ctrl_state=0)))
    assert not binds_wrongly(circuit_of(CRYGate(0.3)))
