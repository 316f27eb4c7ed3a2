import numpy as np
import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import Statevector

from qkd_qiskit.circuits import build_circuit, dump_circuit, load_circuit, parse_circuit
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
