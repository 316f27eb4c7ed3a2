import numpy as np
import pytest
from qiskit import QuantumCircuit, QuantumRegister
from qiskit.circuit import Parameter
from qiskit.quantum_info import Statevector

from qkd_qiskit.circuits import build_circuit, dump_circuit, load_circuit, parse_circuit
from qkd_qiskit.circuits.openqasm import load_named_circuit
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.report.reference_circuits import list_reference_circuits, reference_circuit

HEADER = 'OPENQASM 3.0;\ninclude "stdgates.inc";\n'


def names(parameters):
    return [parameter.name for parameter in parameters]


def state(student, inputs, weights):
    """State with values bound by position in input_params and weight_params."""
    values = dict(zip(student.input_params, inputs, strict=True))
    values |= dict(zip(student.weight_params, weights, strict=True))
    return Statevector(student.circuit.assign_parameters(values)).data


def assert_same_student(ours, theirs):
    assert names(theirs.input_params) == names(ours.input_params)
    assert names(theirs.weight_params) == names(ours.weight_params)
    generator = np.random.default_rng(7)
    inputs = generator.uniform(-3, 3, len(ours.input_params))
    weights = generator.uniform(-3, 3, len(ours.weight_params))
    np.testing.assert_allclose(
        state(theirs, inputs, weights), state(ours, inputs, weights), atol=1e-14
    )


@pytest.mark.parametrize("name", list_reference_circuits())
def test_every_zoo_entry_survives_the_round_trip(name, tmp_path):
    ours = reference_circuit(name)
    path = tmp_path / "circuit.qasm"
    path.write_text(dump_circuit(ours.circuit))
    theirs = load_circuit(path)
    assert_same_student(ours, theirs)
    assert dump_circuit(theirs.circuit) == path.read_text()


def test_order_survives_past_eleven_and_past_a_hundred_parameters():
    ours = build_circuit(qubits=5, encoding="amplitude", ansatz="ry_rz_ring", layers=12)
    assert len(ours.weight_params) == 120
    assert_same_student(ours, parse_circuit(dump_circuit(ours.circuit)))


def test_expressions_and_own_gates_survive_the_round_trip():
    block = QuantumCircuit(2, name="block")
    block.h(0)
    block.cx(0, 1)
    circuit = QuantumCircuit(2)
    circuit.append(block.to_gate(), [0, 1])
    circuit.rx(2 * Parameter("x_000") + 0.1, 0)
    circuit.rzz(Parameter("w_000") / 3, 0, 1)
    circuit.measure_all()
    theirs = parse_circuit(dump_circuit(circuit))
    expected = circuit.remove_final_measurements(inplace=False)
    expected = expected.assign_parameters({"x_000": 0.3, "w_000": -0.7})
    np.testing.assert_allclose(state(theirs, [0.3], [-0.7]), Statevector(expected).data, atol=1e-14)


def test_measurements_at_the_end_of_a_file_are_left_out():
    text = HEADER + (
        "input float[64] x_000;\nbit[1] c;\nqubit[1] q;\nrx(x_000) q[0];\nc[0] = measure q[0];\n"
    )
    student = parse_circuit(text)
    assert student.circuit.num_clbits == 0
    assert student.circuit.count_ops() == {"rx": 1}


def test_dump_refuses_what_load_would_refuse():
    circuit = QuantumCircuit(1)
    circuit.rx(Parameter("theta"), 0)
    with pytest.raises(CircuitError, match="'theta' is not accepted"):
        dump_circuit(circuit)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("hello world", "not an OpenQASM 3 circuit"),
        ("", "not an OpenQASM 3 circuit"),
        ("\x01\x02", "not an OpenQASM 3 circuit"),
        (HEADER + "qubit[1] q;\nrx(a) q[0];", "Undefined symbol 'a'"),
        (HEADER + "qubit[1] q;\nfoo q[0];", "'foo' is not defined"),
        (HEADER + "qubit[1] q;\nx q[3];", "out of range"),
        (HEADER + "qubit[1] q;\nrx(" + "(" * 3000 + "1" + ")" * 3000 + ") q[0];", "Recursion"),
        (HEADER + "input float[64] a;\nqubit[1] q;\nrx(a) q[0];", "parameter 'a' is not"),
        (HEADER + "input float[64] x_001;\nqubit[1] q;\nrx(x_001) q[0];", "'x_001' is not"),
        (HEADER + "qubit[1] q;\nx q[0];", "no input parameter"),
        (
            HEADER + "input float[64] x_000;\nqubit[1] q;\nbit[1] c;\nrx(x_000) q[0];\n"
            "c[0] = measure q[0];\nx q[0];",
            "measure in the middle",
        ),
        (HEADER + "input float[64] x_000;\nqubit[1] q;\nreset q[0];\nrx(x_000) q[0];", "reset"),
    ],
)
def test_a_file_that_is_no_student_is_refused_in_one_line(body, message, tmp_path, capsys):
    path = tmp_path / "bad.qasm"
    path.write_text(body)
    with pytest.raises(CircuitError, match=message) as caught:
        load_circuit(path)
    assert "bad.qasm" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "binary.qasm").write_bytes(b"\xff\xfe\x00")
    for path, reason in [
        (tmp_path / "missing.qasm", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "binary.qasm", "not text"),
    ]:
        with pytest.raises(CircuitError, match=reason):
            load_circuit(path)


X, W, V = Parameter("x_000"), Parameter("w_000"), Parameter("w_001")


def student_with(change):
    circuit = QuantumCircuit(3)
    circuit.ry(X, 0)
    for qubit in range(3):
        circuit.ry(0.3 + qubit, qubit)
    change(circuit)
    circuit.rx(V, 1)
    for qubit in range(3):
        circuit.rx(0.4 + qubit, qubit)
    return circuit


def own_gate(name, angle):
    inner = QuantumCircuit(2, name=name)
    inner.ry(angle, 0)
    inner.cx(0, 1)
    inner.rx(angle, 1)
    return inner.to_gate()


CHANGES = {
    "rzz of a sum": lambda c: c.rzz(W + V, 0, 1),
    "sine": lambda c: c.ry(W.sin(), 0),
    "functions": lambda c: c.ry((W * V).cos() + (W + 3).log() - W.exp() / 7, 0),
    "inverse functions": lambda c: c.rx(W.arcsin() + W.arctan() - W.arccos(), 0),
    "powers": lambda c: c.rzz(W**2 - (-W) ** 3 + (W + 2) ** 0.5 + W**-1, 0, 1),
    "own gate named rzz": lambda c: c.append(own_gate("rzz", 2 * W), [0, 1]),
    "own gate named cx": lambda c: c.append(own_gate("cx", W), [2, 1]),
    "own gate with a name that is no name": lambda c: c.append(own_gate("a b", W), [0, 1]),
    "controlled own gate": lambda c: c.append(own_gate("mine", W).control(1), [0, 1, 2]),
    "open control": lambda c: c.append(own_gate("m", W).control(1, ctrl_state=0), [0, 1, 2]),
    "global phase": lambda c: (setattr(c, "global_phase", V), c.rz(W, 0)),
    "small numbers": lambda c: c.rx(0.12345678901234567 * W + 1e-7, 0),
    "abs and sign": lambda c: c.ry((W - 2).abs() + (W - 1).sign() * V, 0),
    "iswap": lambda c: (c.iswap(0, 1), c.rz(W, 1)),
    "idle": lambda c: (c.id(0), c.delay(100, 1, unit="ns"), c.barrier(), c.rz(W, 0)),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_is_written_is_read_as_the_same_circuit_twice(name):
    circuit = student_with(CHANGES[name])
    expected = Statevector(circuit.assign_parameters({X: 0.4, W: 0.7, V: 0.3}))
    first = parse_circuit(dump_circuit(circuit))
    second = parse_circuit(dump_circuit(first.circuit))
    for read in (first, second):
        values = dict(zip([*read.input_params, *read.weight_params], (0.4, 0.7, 0.3), strict=True))
        state = Statevector(read.circuit.assign_parameters(values))
        assert abs(state.inner(expected)) == pytest.approx(1, abs=1e-12)
    assert dump_circuit(second.circuit) == dump_circuit(first.circuit)


@pytest.mark.parametrize("angle", [1j * W, (W - 5).log(), float("nan")])
def test_angles_that_are_no_finite_numbers_are_refused_in_one_line(angle):
    with pytest.raises(CircuitError, match=r"not a finite real number") as caught:
        dump_circuit(student_with(lambda c: c.ry(angle, 0)))
    assert "\n" not in str(caught.value)


def test_registers_may_have_names_that_openqasm_keeps_for_itself():
    circuit = QuantumCircuit(QuantumRegister(1, "pi"), QuantumRegister(1, "x_000"))
    circuit.ry(X, 1)
    circuit.cx(1, 0)
    read = parse_circuit(dump_circuit(circuit)).circuit
    assert [item.operation.name for item in read.data] == ["ry", "cx"]


def test_a_gate_of_the_file_is_what_the_file_says():
    text = HEADER + (
        "input float[64] x_000;\ngate rzz(a) p, q { cx p, q; rz(2 * a) q; cx p, q; }\n"
        "qubit[2] q;\nh q;\nrzz(x_000) q[0], q[1];\nh q;\n"
    )
    bound = parse_circuit(text).circuit.assign_parameters([0.3])
    # RZZ(0.6) between |++> and the X basis: cos^2(0.3) for 00, sin^2(0.3) for 11
    np.testing.assert_allclose(
        Statevector(bound).probabilities(),
        [np.cos(0.3) ** 2, 0, 0, np.sin(0.3) ** 2],
        atol=1e-12,
    )


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path):
    text = HEADER + "input float[64] x_000;\nqubit[1] q;\nrx(x_000) q[0];"
    (tmp_path / "marked.qasm").write_text(text, encoding="utf-8-sig")
    assert load_circuit(tmp_path / "marked.qasm").circuit.count_ops() == {"rx": 1}
    assert parse_circuit("\ufeff" + text).circuit.count_ops() == {"rx": 1}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("input float[64] x_000; rx(x_000) $0;", r"\$0 is a physical qubit"),
        ("qubit[1000000000] q;", "1000000000 qubits"),
        ("bit[1000000000] c; qubit[1] q;", "1000000000 bits"),
        ("input float[64] x_000; qubit[1] q; rx(sinh(x_000)) q[0];", "function sinh"),
        ("input float[64] x_000; qubit[1] q; rx(1 / 2 * x_000) q[0];", r"write 1\.0/2"),
        ("input float[64] x_000; qubit[1] q; rx(x_000 q[0];", r"line 3:\d+ .*'rx\(x_000q'"),
        ("qubit[2] q; for int i in [0:1] { x q[i]; }", "a for loop is not accepted"),
        (
            "gate g0 p { x p; x p; }"
            + "".join(f"gate g{n} p {{ g{n - 1} p; g{n - 1} p; }}" for n in range(1, 40))
            + "qubit q; g39 q;",
            r"1\.1e\+12 gates; at most 20000",
        ),
    ],
)
def test_a_file_of_a_device_or_without_bounds_is_refused_in_one_line(body, message):
    with pytest.raises(CircuitError, match=message) as caught:
        parse_circuit(HEADER + body, source="mine.qasm")
    assert str(caught.value).startswith("mine.qasm: ")
    assert "\n" not in str(caught.value)


def test_a_prefix_names_the_inputs_of_a_file(tmp_path):
    path = tmp_path / "mine.qasm"
    declared = "".join(f"input float[64] {name};\n" for name in ("f9", "f10", "turn"))
    path.write_text(
        HEADER + declared + "qubit[1] q;\nry(turn) q[0];\nrx(f10) q[0];\nrz(f9) q[0];\n"
    )
    student = load_named_circuit(f"{path}:inputs=f")
    angles = [str(item.operation.params[0]) for item in student.circuit.data]
    assert angles == ["w_000", "x_001", "x_000"]  # 9 comes before 10
    with pytest.raises(CircuitError, match="no parameter begins with 'g'; it has f9, f10, turn"):
        load_named_circuit(f"{path}:inputs=g")
    with pytest.raises(CircuitError, match="'f10' is not accepted"):
        load_named_circuit(str(path))
