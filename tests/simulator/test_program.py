"""Programs against Qiskit's Statevector, over every supported gate and random circuits."""

import inspect

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import ClassicalRegister, Gate, Parameter
from qiskit.circuit import library as gates
from qiskit.circuit.library import efficient_su2, real_amplitudes, zz_feature_map
from qiskit.quantum_info import Statevector
from qiskit.transpiler import CouplingMap
from qiskit_aer import AerSimulator

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator import Program, UnsupportedInstructionError, probabilities
from qkd_qiskit.simulator.program import Permutation, Phases, Rotations


def standard_gates() -> list[type[Gate]]:
    """Every fixed-size gate class of Qiskit's library that real-valued angles define."""
    found = []
    for name, kind in sorted(vars(gates).items()):
        if not (inspect.isclass(kind) and issubclass(kind, Gate)):
            continue
        required = [
            parameter
            for parameter in list(inspect.signature(kind.__init__).parameters.values())[1:]
            if parameter.default is inspect.Parameter.empty
        ]
        angles = ("theta", "phi", "lam", "gamma", "beta")
        if name.endswith("Gate") and all(parameter.name in angles for parameter in required):
            try:
                kind(*[0.1] * len(required))
            except Exception:
                continue
            found.append((kind, len(required)))
    return found


GATES = standard_gates()


def test_the_library_is_covered():
    names = {kind.__name__ for kind, _ in GATES}
    assert {"RXGate", "CXGate", "UGate", "RZZGate", "CCXGate", "CUGate", "ECRGate"} <= names
    assert len(GATES) > 40


def exact(circuit: QuantumCircuit, values: dict) -> np.ndarray:
    return Statevector(circuit.assign_parameters(values)).probabilities()


def angle_of(form: str, number: float, first: Parameter, second: Parameter):
    if form == "product":
        return (np.pi - first) * (1 - second)
    if form == "sine":
        return first.sin() * number
    return {"number": number, "plain": first, "affine": number * first + second / 3}[form]


@st.composite
def circuits(draw):
    """A circuit of 1..8 qubits over all gates, with shared parameters and expressions."""
    num_qubits = draw(st.integers(1, 8))
    circuit = QuantumCircuit(num_qubits)
    inputs = [Parameter(f"x_{i:03d}") for i in range(2)]
    weights = [Parameter(f"w_{i:03d}") for i in range(3)]
    pool = [*inputs, *weights]
    fitting = [
        (kind, count) for kind, count in GATES if kind(*[0.1] * count).num_qubits <= num_qubits
    ]
    for _ in range(draw(st.integers(1, 14))):
        kind, count = draw(st.sampled_from(fitting))
        angles = []
        for _ in range(count):
            first, second = draw(st.sampled_from(pool)), draw(st.sampled_from(pool))
            number = draw(st.integers(-12, 12)) / 4
            form = draw(st.sampled_from(["number", "plain", "affine", "product", "sine"]))
            angles.append(angle_of(form, number, first, second))
        gate = kind(*angles)
        qubits = draw(st.permutations(range(num_qubits)))[: gate.num_qubits]
        circuit.append(gate, qubits)
    return circuit, inputs, weights


@settings(max_examples=60, deadline=None)
@given(circuits(), st.integers(0, 2**31))
def test_random_circuits_have_qiskits_probabilities(drawn, seed):
    circuit, inputs, weights = drawn
    program = Program.from_circuit(circuit, input_params=inputs, weight_params=weights)
    random = np.random.default_rng(seed)
    features, weight = random.normal(size=(2, 2)), random.normal(size=3)
    double = probabilities(program, torch.tensor(features), torch.tensor(weight))
    single = probabilities(program, torch.tensor(features).float(), torch.tensor(weight).float())
    used = set(circuit.parameters)
    for row, sample in enumerate(features):
        values = dict(zip([*inputs, *weights], [*sample, *weight], strict=True))
        expected = exact(circuit, {key: values[key] for key in used})
        np.testing.assert_allclose(double[row].numpy(), expected, atol=1e-10)
        np.testing.assert_allclose(single[row].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("circuit", [
    real_amplitudes(4), efficient_su2(3), zz_feature_map(3).compose(real_amplitudes(3)),
])  # fmt: skip
@pytest.mark.parametrize("level", [None, 1])
def test_library_circuits_and_their_transpiled_forms(circuit, level):
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    prepared = circuit
    if level is not None:
        prepared = transpile(
            circuit,
            basis_gates=["rz", "sx", "x", "cz"],
            coupling_map=CouplingMap.from_line(9),
            initial_layout=[6, 4, 5, 7][: circuit.num_qubits],
            optimization_level=level,
            seed_transpiler=1,
        )
    program = Program.from_circuit(prepared, input_params=[], weight_params=names)
    weights = np.random.default_rng(3).normal(size=len(names))
    found = probabilities(program, None, torch.tensor(weights))[0]
    expected = exact(circuit, dict(zip(names, weights, strict=True)))
    assert program.num_qubits <= circuit.num_qubits + 2
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_aer_agrees():
    circuit = efficient_su2(3).compose(real_amplitudes(3, parameter_prefix="a"))
    circuit.measure_all()
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    weights = np.random.default_rng(5).normal(size=len(names))
    program = Program.from_circuit(circuit, input_params=[], weight_params=names)
    bound = circuit.assign_parameters(dict(zip(names, weights, strict=True)))
    bound.remove_final_measurements()
    bound = transpile(bound, basis_gates=["ry", "rz", "cx"], optimization_level=0)
    bound.save_probabilities()
    simulator = AerSimulator(method="statevector", max_parallel_threads=1)
    expected = simulator.run(bound).result().data()["probabilities"]
    found = probabilities(program, None, torch.tensor(weights))[0]
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10)


def test_a_students_layer_is_one_rotation_layer_one_diagonal_and_one_permutation():
    circuit = QuantumCircuit(3)
    x, w = Parameter("x_000"), Parameter("w_000")
    for qubit in range(3):
        circuit.ry(x, qubit)
    for qubit in range(3):
        circuit.ry(w, qubit)
        circuit.rz(w, qubit)
    for qubit in range(3):
        circuit.cx(qubit, (qubit + 1) % 3)
    program = Program.from_circuit(circuit)
    assert [type(operation) for operation in program.operations] == [
        Rotations,
        Phases,
        Permutation,
    ]
    assert len(program.operations[0].angles) == 3  # RY(x) RY(w) = RY(x + w)
    shorter, end = program.without_tail()
    assert [type(operation) for operation in shorter.operations] == [Rotations]
    assert sorted(end) == list(range(8))


def test_measured_bits_order_and_select_the_outcome():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.add_register(ClassicalRegister(2))
    circuit.measure([0, 2], [1, 0])
    found = probabilities(Program.from_circuit(circuit), None, None)
    torch.testing.assert_close(found, torch.tensor([[0.0, 0.0, 1.0, 0.0]]))


def test_parameters_must_be_named():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("a"), 0)
    with pytest.raises(CircuitError, match="'a' is neither an input nor a weight"):
        Program.from_circuit(circuit, input_params=[], weight_params=[])


def test_gates_after_a_measurement_are_refused():
    circuit = QuantumCircuit(1, 1)
    circuit.measure(0, 0)
    circuit.x(0)
    with pytest.raises(UnsupportedInstructionError, match="'x' comes after the measurement"):
        Program.from_circuit(circuit)


def test_more_qubits_than_memory_is_refused_before_allocating():
    circuit = QuantumCircuit(45)
    circuit.h(range(45))
    with pytest.raises(CircuitError, match="on 45 qubits needs about"):
        Program.from_circuit(circuit)
    program = Program.from_circuit(QuantumCircuit(12))
    with pytest.raises(CircuitError, match="a batch of 100000000 states"):
        probabilities(program, torch.zeros(1, 0).expand(100_000_000, 0), None)


def test_a_parameter_named_like_an_expression_is_another_value():
    first, second, named = Parameter("a"), Parameter("b"), Parameter("a*b")
    circuit = QuantumCircuit(2)
    circuit.ry((first * second).sin(), 0)
    circuit.ry(named.sin(), 1)
    program = Program.from_circuit(circuit, input_params=[], weight_params=[first, second, named])
    found = probabilities(program, None, torch.tensor([0.5, 0.8, 2.0], dtype=torch.float64))
    expected = exact(circuit, {first: 0.5, second: 0.8, named: 2.0})
    np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-12)


def test_angles_that_are_not_finite_are_refused():
    circuit = QuantumCircuit(1)
    circuit.ry(np.nan, 0)
    with pytest.raises(CircuitError, match="not finite"):
        Program.from_circuit(circuit)


def test_a_power_of_a_number_is_read_where_qiskit_says_it_and_else_refused():
    weight, circuit = Parameter("w"), QuantumCircuit(1)
    circuit.ry(2**weight, 0)
    if (2**weight).sympify() is NotImplemented:
        with pytest.raises(CircuitError, match=r"exp\(\)"):
            Program.from_circuit(circuit)
        return
    program = Program.from_circuit(circuit)  # Qiskit 2.3
    found = probabilities(program, None, torch.tensor([0.5], dtype=torch.float64))
    np.testing.assert_allclose(found[0].numpy(), exact(circuit, {weight: 0.5}), atol=1e-12)
