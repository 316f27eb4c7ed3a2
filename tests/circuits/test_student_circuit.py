import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, qasm3, transpile
from qiskit.circuit import ClassicalRegister, Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import Operator, Statevector
from sympy import sympify

from qkd_qiskit.circuits import (
    ANSATZE,
    ENCODINGS,
    adopt_circuit,
    build_circuit,
    make_ansatz,
    make_encoding,
)
from qkd_qiskit.circuits.openqasm import dump_circuit, parse_circuit
from qkd_qiskit.circuits.student_circuit import circuit_of_spec, parameter_names
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.simulator import Program, probabilities


@pytest.mark.parametrize("ansatz", ANSATZE)
@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize(("qubits", "layers"), [(1, 1), (2, 2), (3, 3)])
def test_every_parameter_is_used_named_and_ordered(encoding, ansatz, qubits, layers):
    student = build_circuit(qubits=qubits, encoding=encoding, ansatz=ansatz, layers=layers)
    entry = make_encoding(encoding, qubits=qubits, layers=layers)
    weights = make_ansatz(ansatz, qubits=qubits, layers=layers).num_weights
    weights += layers * entry.weights_per_layer
    assert student.encoding == entry
    assert [p.name for p in student.input_params] == parameter_names("x", entry.num_parameters)
    assert [p.name for p in student.weight_params] == parameter_names("w", weights)
    assert set(student.circuit.parameters) == {*student.input_params, *student.weight_params}
    assert student.circuit.num_qubits == qubits
    assert student.circuit.num_clbits == 0


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_only_encodings_of_amplitudes_have_a_preparation_and_it_depends_on_inputs_alone(encoding):
    student = build_circuit(qubits=3, encoding=encoding, ansatz="ry_rz_ring", layers=2)
    inputs = set(student.input_params)

    def parameters_of(instructions):
        return {p for item in instructions for a in item.operation.params for p in a.parameters}

    assert (student.preparation > 0) == (encoding in ("amplitude", "matrix_product"))
    if student.preparation:
        assert parameters_of(student.circuit.data[: student.preparation]) == inputs
        assert not parameters_of(student.circuit.data[student.preparation :]) & inputs


@pytest.mark.parametrize(("qubits", "layers"), [(1, 1), (2, 1), (3, 2), (4, 3)])
def test_real_amplitudes_is_qiskits(qubits, layers):
    student = build_circuit(
        qubits=qubits, encoding="angle", ansatz="real_amplitudes", layers=layers
    )
    values = np.random.default_rng(0).uniform(-math.pi, math.pi, len(student.weight_params))
    inputs = dict.fromkeys(student.input_params, 0.0)
    ours = student.circuit.assign_parameters(
        inputs | dict(zip(student.weight_params, values, strict=True))
    )
    theirs = real_amplitudes(qubits, entanglement="linear", reps=layers).assign_parameters(values)
    assert Operator(ours) == Operator(theirs)


@pytest.mark.parametrize(
    ("qubits", "gates"), [(1, []), (2, [(0, 1)]), (3, [(0, 1), (1, 2), (2, 0)])]
)
def test_the_ring_closes_from_three_qubits_on(qubits, gates):
    circuit = build_circuit(qubits=qubits, encoding="angle", ansatz="ry_rz_ring", layers=1).circuit
    pairs = [
        tuple(circuit.find_bit(qubit).index for qubit in item.qubits)
        for item in circuit.data
        if item.operation.name == "cx"
    ]
    assert pairs == gates


def test_reuploading_enters_the_same_features_before_every_layer():
    circuit = build_circuit(
        qubits=2, encoding="reuploading", ansatz="real_amplitudes", layers=3
    ).circuit
    first = [str(i.operation.params[0]) for i in circuit.data if i.operation.params]
    layer = ["x_000", "x_001"]
    assert first == [
        *layer, "w_000", "w_001", *layer, "w_002", "w_003", *layer, "w_004", "w_005",
        "w_006", "w_007",
    ]  # fmt: skip


def test_trained_reuploading_has_the_features_in_turn_each_with_its_weight_and_bias():
    student = build_circuit(
        qubits=2, encoding="trained_reuploading", ansatz="ry_cz_line", layers=2, features=3
    )
    gates = [
        (
            item.operation.name,
            *(student.circuit.find_bit(qubit).index for qubit in item.qubits),
            *(str(sympify(str(value))) for value in item.operation.params),
        )
        for item in student.circuit.data
    ]
    assert gates == [
        ("ry", 0, "w_000*x_000 + w_001"), ("rz", 0, "w_002*x_001 + w_003"),
        ("ry", 1, "w_004*x_002 + w_005"), ("rz", 1, "w_006*x_000 + w_007"),
        ("ry", 0, "w_008"), ("ry", 1, "w_009"), ("cz", 0, 1),
        ("ry", 0, "w_010*x_001 + w_011"), ("rz", 0, "w_012*x_002 + w_013"),
        ("ry", 1, "w_014*x_000 + w_015"), ("rz", 1, "w_016*x_001 + w_017"),
        ("ry", 0, "w_018"), ("ry", 1, "w_019"), ("cz", 0, 1),
        ("ry", 0, "w_020"), ("ry", 1, "w_021"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("qubits", "layers", "pairs"),
    [
        (1, 2, []),
        (2, 3, [(0, 1), (0, 1)]),
        (5, 3, [(0, 1), (2, 3), (1, 2), (3, 4), (0, 1), (2, 3)]),
    ],
)
def test_bricks_are_even_and_odd_pairs_layer_by_layer(qubits, layers, pairs):
    student = build_circuit(qubits=qubits, encoding="angle", ansatz="ry_cz_brick", layers=layers)
    gates = [
        tuple(student.circuit.find_bit(qubit).index for qubit in item.qubits)
        for item in student.circuit.data
        if item.operation.name == "cz"
    ]
    assert gates == pairs


def test_fewer_layers_of_a_specification_are_its_first():
    spec = StudentSpec(
        qubits=2, encoding="trained_reuploading", features=9, layers=3, ansatz="ry_cz_line"
    )
    whole, first = circuit_of_spec(spec), circuit_of_spec(spec, layers=1)
    assert len(whole.input_params) == 9
    assert len(first.input_params) == 4
    assert [item.name for item in first.circuit.data[:7]] == [
        item.name for item in whole.circuit.data[:7]
    ]


def test_qubit_encoding_turns_qubit_q_by_row_q():
    circuit = build_circuit(qubits=2, encoding="qubit", ansatz="ry_rz_ring", layers=1).circuit
    gates = [
        (i.operation.name, circuit.find_bit(i.qubits[0]).index, str(i.operation.params[0]))
        for i in circuit.data[:8]
    ]
    assert gates == [
        ("rx", 0, "x_000"), ("ry", 0, "x_001"), ("rz", 0, "x_002"), ("rx", 0, "x_003"),
        ("rx", 1, "x_004"), ("ry", 1, "x_005"), ("rz", 1, "x_006"), ("rx", 1, "x_007"),
    ]  # fmt: skip


def test_entangled_qubit_encoding_has_cz_where_they_do_not_commute_away():
    entry = build_circuit(qubits=2, encoding="entangled_qubit", ansatz="cz_line", layers=1).circuit
    names = [
        str(i.operation.params[0]) if i.operation.params else i.operation.name
        for i in entry.data[:10]
    ]
    assert names == [
        "x_000", "x_004", "cz", "x_001", "x_005", "x_002", "x_006", "cz", "x_003", "x_007",
    ]  # fmt: skip


def test_names_stay_in_order_past_a_thousand():
    names = parameter_names("x", 1023)
    assert names == sorted(names)
    assert names[-1] == "x_1022"
    assert names[0] == "x_0000"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"ansatz": "brickwork"}, "'brickwork' is unknown"),
        ({"encoding": "basis"}, "'basis' is unknown"),
        ({"layers": 0}, "0 layers"),
        (
            {"encoding": "trained_reuploading", "features": 5},
            "5 features were given; 2 qubits and 1 layers have 4 rotations",
        ),
    ],
)
def test_impossible_circuits_are_refused(setting, message):
    arguments = {"qubits": 2, "encoding": "angle", "ansatz": "ry_rz_ring", "layers": 1} | setting
    with pytest.raises(CircuitError, match=message):
        build_circuit(**arguments)


def own_circuit(*names, qubits=1):
    circuit = QuantumCircuit(qubits)
    for name in names:
        circuit.ry(Parameter(name), 0)
    return circuit


def test_an_own_circuit_is_adopted_with_sorted_parameters_and_without_its_measurements():
    circuit = own_circuit("w_001", "x_001", "w_000", "x_000", qubits=2)
    circuit.measure_all()
    student = adopt_circuit(circuit)
    assert [p.name for p in student.input_params] == ["x_000", "x_001"]
    assert [p.name for p in student.weight_params] == ["w_000", "w_001"]
    assert student.circuit.num_clbits == 0
    assert student.preparation == 0
    assert student.encoding is None
    values = dict.fromkeys(student.circuit.parameters, 0.25)
    assert Statevector(student.circuit.assign_parameters(values)).num_qubits == 2


@pytest.mark.parametrize("weights", ["w", "θ"])
def test_the_vectors_of_qiskits_own_circuits_are_inputs_and_weights_in_their_order(weights):
    given = zz_feature_map(2).compose(real_amplitudes(2, reps=5, parameter_prefix=weights))
    student = adopt_circuit(given)
    assert [p.name for p in student.input_params] == parameter_names("x", 2)
    assert [p.name for p in student.weight_params] == parameter_names("w", 12)
    values = np.random.default_rng(0).uniform(-3, 3, 14)
    inputs = {f"x[{index}]": value for index, value in enumerate(values[:2])}
    trained = {f"{weights}[{index}]": value for index, value in enumerate(values[2:])}
    expected = Statevector(given.assign_parameters(inputs | trained))
    ordered = [*student.input_params, *student.weight_params]
    found = Statevector(student.circuit.assign_parameters(dict(zip(ordered, values, strict=True))))
    np.testing.assert_allclose(found.data, expected.data, atol=1e-12)
    # The names that OpenQASM 3 gives the same vectors.
    if weights == "w":
        read = parse_circuit(qasm3.dumps(given))
        assert [p.name for p in read.weight_params] == parameter_names("w", 12)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x[0]", "x[2]"], r"'x_002'"),
        (["x[0]", "x_000"], r"'x\[0\]'"),
        (["x[0]", "w[0]", "θ[0]"], r"'θ\[0\]'"),
        (["y[0]", "w[0]"], r"'y\[0\]'"),
        (["x_000", "theta"], "'theta'"),
        (["x_000", "x_002"], "'x_002'"),
        (["x_001"], "'x_001'"),
        (["x_000", "w_1"], "'w_1'"),
        (["x_000", "x_0001"], "'x_0001'"),
        (["w_000"], "no input parameter"),
        ([], "no input parameter"),
    ],
)
def test_misnamed_parameters_are_refused_in_one_line(names, message):
    with pytest.raises(CircuitError, match=message) as caught:
        adopt_circuit(own_circuit(*names), source="mine.qasm")
    assert str(caught.value).startswith("mine.qasm: ")
    assert "\n" not in str(caught.value)


def test_what_leaves_no_state_at_the_end_is_refused():
    measured = own_circuit("x_000")
    measured.add_register(*QuantumCircuit(0, 1).cregs)
    measured.measure(0, 0)
    measured.x(0)
    reset = own_circuit("x_000")
    reset.reset(0)
    reset.x(0)
    branching = own_circuit("x_000")
    with branching.for_loop(range(2)):
        branching.x(0)
    for circuit, message in [
        (measured, "measure in the middle"), (reset, "reset in the middle"),
        (branching, "control flow"), (QuantumCircuit(0), "no qubits"),
    ]:  # fmt: skip
        with pytest.raises(CircuitError, match=message):
            adopt_circuit(circuit)


@pytest.mark.parametrize(
    ("qubits", "layers", "gates"), [(1, 2, 0), (2, 1, 1), (4, 3, 9), (5, 2, 8)]
)
def test_cz_line_couples_neighbours_and_every_weight_counts(qubits, layers, gates):
    student = build_circuit(qubits=qubits, encoding="angle", ansatz="cz_line", layers=layers)
    pairs = [
        {student.circuit.find_bit(qubit).index for qubit in instruction.qubits}
        for instruction in student.circuit.get_instructions("cz")
    ]
    assert len(pairs) == gates
    assert all(max(pair) - min(pair) == 1 for pair in pairs)
    assert len(student.weight_params) == qubits * (2 * layers + 1)
    values = {parameter: 0.3 + 0.1 * k for k, parameter in enumerate(student.circuit.parameters)}
    before = Statevector(student.circuit.assign_parameters(values)).probabilities()
    for weight in student.weight_params:
        moved = student.circuit.assign_parameters({**values, weight: values[weight] + 0.4})
        assert abs(Statevector(moved).probabilities() - before).max() > 1e-6


def test_local_rotations_turn_each_qubit_by_itself():
    student = build_circuit(qubits=3, encoding="angle", ansatz="local_rotations", layers=2)
    assert student.circuit.num_nonlocal_gates() == 0
    assert len(student.weight_params) == 7 * 3 * 2
    names = [i.operation.name for i in student.circuit if i.qubits == (student.circuit.qubits[1],)]
    assert names == ["ry", *2 * ["rx", "ry", "rz", "rx", "rx", "ry", "rz"]]


def test_arguments_name_inputs_and_weights_in_their_order():
    features, angles = ParameterVector("data", 11), ParameterVector("x", 2)
    circuit = QuantumCircuit(1)
    for parameter in [*features, *angles]:
        circuit.ry(parameter, 0)
    student = adopt_circuit(circuit, input_params=reversed(features), weight_params=angles)
    names = [str(item.operation.params[0]) for item in student.circuit.data]
    assert names == [f"x_{10 - k:03d}" for k in range(11)] + ["w_000", "w_001"]
    assert len(adopt_circuit(circuit, input_params=features).weight_params) == 2
    by_name = adopt_circuit(circuit, input_params=[p.name for p in features])
    assert len(by_name.input_params) == 11


def test_a_new_name_may_be_another_parameters_old_one():
    circuit = own_circuit("x_000", "w_000")
    student = adopt_circuit(circuit, input_params=["w_000"], weight_params=["x_000"])
    assert [str(i.operation.params[0]) for i in student.circuit.data] == ["w_000", "x_000"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_params": ["a"], "weight_params": ["c"]}, "'c' is not in the circuit"),
        ({"input_params": ["a"], "weight_params": ["a"]}, "'a' is given twice"),
        ({"input_params": ["a"], "weight_params": []}, "'b' is neither an input nor a weight"),
        ({"weight_params": ["a"]}, "weight_params without input_params"),
        ({"input_params": [], "weight_params": ["a", "b"]}, "no input parameter"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_in_one_line(arguments, message):
    with pytest.raises(CircuitError, match=message) as caught:
        adopt_circuit(own_circuit("a", "b"), **arguments)
    assert "\n" not in str(caught.value)


def test_a_transpiled_circuit_keeps_its_physical_qubits_in_memory_and_in_a_file():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.crx(Parameter("w_000"), 0, 1)
    coupling = [[0, 1], [1, 2]]
    placed = transpile(
        circuit, basis_gates=["u", "cx"], coupling_map=coupling, initial_layout=[2, 1]
    )
    student = adopt_circuit(placed)
    assert student.circuit.layout is None
    expected = Statevector(placed.assign_parameters([0.8, 0.5])).probabilities()
    for each in (student, parse_circuit(dump_circuit(student.circuit))):
        program = Program.from_circuit(each.circuit)
        found = probabilities(program, torch.tensor([[0.5]]), torch.tensor([0.8]))
        np.testing.assert_allclose(found[0].numpy(), expected, atol=1e-6)


def test_measurements_that_are_not_read_out_so_are_left_out_with_a_word(caplog):
    circuit = own_circuit("x_000")
    whole = circuit.copy()
    whole.measure_all()
    adopt_circuit(whole)
    assert not caplog.records
    crossed = circuit.copy()
    crossed.add_register(ClassicalRegister(circuit.num_qubits + 1))
    crossed.measure(0, circuit.num_qubits)
    assert not adopt_circuit(crossed, source="own.qasm").circuit.num_clbits
    (record,) = caplog.records
    assert "own.qasm: its own measurements are left out" in record.getMessage()
