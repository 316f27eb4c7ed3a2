"""Observables as a read-out: exact, under noise and from shots, in Qiskit's bit order."""

import math

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparseObservable, SparsePauliOp, Statevector

from qkd_qiskit import DistillSpec, StudentSpec, Target, distill, load_student, make_student
from qkd_qiskit.distillation.executors import training_executor
from qkd_qiskit.errors import CircuitError, RecipeError
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.students.measurement import measure_observables
from qkd_qiskit.targets.gradients import BasesExecutor

OWN = ("ZZI", "0.5*XIY-2*IZZ", "IYX", "0.25*III+ZII", "XXX")
SHAPE = {"image_shape": (1, 4, 4), "num_classes": 3}


def build(observables=OWN, **options):
    spec = {"qubits": 3, "encoding": "angle", "layers": 2, "readout": "expectation"}
    return make_student(StudentSpec(**spec, observables=observables, **options), **SHAPE, seed=3)


@pytest.fixture
def images():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def expected(student, images):
    """Expectation values that Qiskit computes (images, observables)."""
    values = student.encode(images).double().tolist()
    rows = []
    for row in values:
        names = [*student.input_names, *student.weight_names]
        bound = student.circuit.assign_parameters(
            dict(zip(names, [*row, *student.weights.tolist()], strict=True))
        )
        state = Statevector(bound)
        rows.append(
            [
                state.expectation_value(
                    SparsePauliOp.from_list(
                        {
                            "ZZI": [("ZZI", 1)],
                            "0.5*XIY-2*IZZ": [("XIY", 0.5), ("IZZ", -2)],
                            "IYX": [("IYX", 1)],
                            "0.25*III+ZII": [("III", 0.25), ("ZII", 1)],
                            "XXX": [("XXX", 1)],
                        }[text]
                    )
                ).real
                for text in student.spec.observables
            ]
        )
    return torch.tensor(rows)


def test_values_are_those_of_qiskit(images):
    student = build()
    got = student.connector(student.encode(images)).double()
    torch.testing.assert_close(got, expected(student, images), rtol=0, atol=2e-6)


def test_outcomes_of_all_bases_give_the_same_values(images):
    """ZZI, IZZ and ZII share a basis, and four others are measured."""
    student = build()
    assert len(student.circuits) == 4
    assert student.circuits[0] is student.circuit
    exact = Target.parse("exact")
    logits = target_logits(student, images, target=exact)
    torch.testing.assert_close(logits, exact_logits(student, images), rtol=0, atol=1e-5)


def test_the_last_letter_is_qubit_0():
    circuit = QuantumCircuit(3)
    circuit.x(0)
    circuit.h(2)
    measurement = measure_observables(
        circuit, [SparsePauliOp("IIZ"), SparsePauliOp("ZII"), SparsePauliOp("XII")]
    )
    outcomes = [Statevector(each).probabilities() for each in measurement.circuits]
    values = np.concatenate(outcomes) @ measurement.matrix.numpy()
    np.testing.assert_allclose(values, [-1, 0, 1], atol=1e-12)


def test_an_observable_that_is_a_number_needs_no_basis():
    circuit = QuantumCircuit(2)
    measurement = measure_observables(circuit, [SparsePauliOp.from_list([("II", 0.5)])])
    assert measurement.circuits == (circuit,)
    assert measurement.matrix.flatten().tolist() == [0.5] * 4


def test_readout_errors_shrink_a_string_by_its_letters(images):
    """A flip with probability r makes (1 - 2r)^k of a string of k letters, whatever its basis."""
    flip = 0.04
    target = Target.parse(f"synthetic:qubits=3:p1=0:p2=0:readout={flip}:exact")
    observables = ("ZIZ", "IYX", "XXX", "IIY")
    student = build(observables)
    logits = target_logits(student, images[:2], target=target)
    exact = student.connector(student.encode(images[:2]))
    shrunk = exact * torch.tensor([(1 - 2 * flip) ** k for k in (2, 2, 3, 1)])
    torch.testing.assert_close(logits, student.head(shrunk), rtol=0, atol=1e-5)


def test_shots_scatter_around_the_exact_values(images):
    student, shots = build(), 20_000
    with torch.no_grad():
        student.head.weight.copy_(torch.eye(3, 5))
        student.head.bias.zero_()
    sampled = target_logits(student, images, target=Target.parse("aer", shots=shots), seed=5)
    difference = (sampled - exact_logits(student, images)).abs().max()
    assert 0 < difference < 5 * 2.5 / math.sqrt(shots)  # 0.5 + 2 is the widest observable


@pytest.mark.parametrize(
    ("gradient", "target"), [("noisy", "fake_manila"), ("parameter_shift", "aer"), ("spsa", "aer")]
)
def test_every_gradient_runs_every_basis(gradient, target, images):
    student = build(("ZII", "XII"))
    spec = DistillSpec(gradient=gradient, train_target=target)
    student.executor = training_executor(student, spec, shots=50_000, seed=0)
    assert isinstance(student.executor, BasesExecutor)
    assert student.executor.sampled == (gradient != "noisy")
    student(images).square().sum().backward()
    got = student.weights.grad.clone()
    assert (got.abs() > 1e-3).any()
    if gradient == "parameter_shift":
        assert student.executor.cost.calls == 4
        student.executor, student.connector.weight.grad = None, None
        student(images).square().sum().backward()
        torch.testing.assert_close(got, student.weights.grad, rtol=0.05, atol=0.05)


def test_a_student_is_saved_with_its_observables(images, tmp_path):
    observables = [
        SparsePauliOp.from_list([("ZII", 0.1), ("IZI", -1e-3)]),
        SparseObservable.from_list([("+II", 1.0)]),
        "XXI",
    ]
    student = make_student(
        StudentSpec(qubits=3, encoding="angle"), observables=observables, **SHAPE
    )
    assert student.spec.observables == ("0.1*ZII-0.001*IZI", "0.5*III+0.5*XII", "XXI")
    student.save(tmp_path)
    again = load_student(tmp_path)
    assert again.spec == student.spec
    assert torch.equal(again(images), student(images))


def test_a_student_of_observables_is_distilled(data):
    student = build(("ZII", "XII", "IIY"))
    start = student.weights.detach().clone()
    teacher_logits = torch.nn.functional.one_hot(data.pool.labels, 3).float() * 4
    trained = distill(student, teacher_logits, data, spec=DistillSpec(epochs=3, lr=0.05))
    assert trained.history[-1].loss < trained.history[0].loss
    assert not torch.equal(student.weights, start)


@pytest.mark.parametrize(
    ("observables", "message"),
    [
        (["ZZ"], "is on 2 qubits; give one letter"),
        ([SparsePauliOp("ZZZ", 1j)], "imaginary part"),
        ([], "observables are empty"),
        (SparsePauliOp("ZZZ"), "observables are SparsePauliOp; give a list"),
        ([SparsePauliOp("ZZZ", Parameter("a"))], "no sum of Pauli strings"),
        (["ZQZ"], "sums of Pauli strings"),
    ],
)
def test_what_cannot_be_measured_is_refused(observables, message):
    with pytest.raises((CircuitError, RecipeError), match=message) as caught:
        make_student(StudentSpec(qubits=3, encoding="angle"), observables=observables, **SHAPE)
    assert "\n" not in str(caught.value)
