"""Students of one's own circuit: named by arguments, saved, loaded, or refused before training."""

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit import StudentSpec, load_student, make_student
from qkd_qiskit.errors import CircuitError

SHAPE = {"image_shape": (1, 2, 2), "num_classes": 2}


def own_circuit(angle):
    circuit = QuantumCircuit(2)
    for qubit, name in enumerate(("a", "b")):
        circuit.ry(Parameter(name), qubit)
    block = QuantumCircuit(2, name="rzz")
    block.ry(angle, 0)
    block.cx(0, 1)
    block.rx(2 * angle, 1)
    circuit.append(block.to_gate(), [0, 1])
    circuit.ry(Parameter("turn"), 1)
    return circuit


def test_a_student_of_named_parameters_is_the_same_after_two_trips(tmp_path):
    circuit = own_circuit(Parameter("w").sin())
    spec = StudentSpec(kind="hybrid")
    student = make_student(spec, circuit=circuit, input_params=["b", "a"], **SHAPE)
    assert student.weight_names == ["w_000", "w_001"]
    images = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    expected = student(images)
    for trip in ("first", "second"):
        student.save(tmp_path / trip)
        student = load_student(tmp_path / trip)
        torch.testing.assert_close(student(images), expected)


def test_what_could_not_be_saved_is_refused_before_training():
    with pytest.raises(CircuitError, match="cannot be simulated") as caught:
        make_student(
            StudentSpec(kind="hybrid"),
            circuit=own_circuit((Parameter("w") - 5).log()),
            input_params=["a", "b"],
            **SHAPE,
        )
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"input_params": ["a"]}, "without a circuit"),
        ({"circuit": own_circuit(Parameter("w")), "spec": "quanvolution"}, "kind quanvolution"),
    ],
)
def test_arguments_that_nothing_would_use_are_refused(arguments, message):
    spec = StudentSpec(kind=arguments.pop("spec", "hybrid"))
    with pytest.raises(CircuitError, match=message):
        make_student(spec, **arguments, **SHAPE)
