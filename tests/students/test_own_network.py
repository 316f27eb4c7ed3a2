"""Students of a network of the user's own: its circuit, its parameters and its read-out."""

import json
import logging

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter, ParameterVector
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.primitives import StatevectorSampler
from qiskit.quantum_info import Operator, SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qkd_qiskit import StudentSpec, Target, load_student, make_student
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.students.base import CARD_FILE
from qkd_qiskit.students.own_network import adopt_network

SHAPE = {"image_shape": (1, 4, 4), "num_classes": 3}


def parts(qubits=3):
    features, ansatz = z_feature_map(qubits, reps=1), real_amplitudes(qubits, reps=1)
    return {
        "circuit": features.compose(ansatz),
        "input_params": list(features.parameters),
        "weight_params": list(ansatz.parameters),
    }


def modulo(outcome):
    return outcome % 3


def two_places(outcome):
    return outcome & 1, outcome.bit_count() % 3


def networks():
    measured = parts()
    measured["circuit"] = QuantumCircuit(3, 2).compose(measured["circuit"], [0, 1, 2])
    measured["circuit"].measure([2, 0], [0, 1])
    return {
        "probabilities": SamplerQNN(**parts()),
        "interpret": SamplerQNN(**parts(), interpret=modulo, output_shape=3),
        "two axes": SamplerQNN(**parts(), interpret=two_places, output_shape=(2, 3)),
        "measured": SamplerQNN(**measured),
        "observables": EstimatorQNN(
            **parts(), observables=[SparsePauliOp("ZIZ"), SparsePauliOp("XYI", 0.5)]
        ),
        "one observable": EstimatorQNN(**parts(), observables=SparsePauliOp("IIZ")),
    }


@pytest.fixture
def images():
    return torch.rand(5, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", networks())
def test_a_student_computes_what_the_network_does(name, images, tmp_path):
    network = networks()[name]
    student = make_student(StudentSpec(), qnn=network, **SHAPE, seed=2)
    angles = student.encode(images).detach().numpy()
    weights = student.weights.detach().numpy()
    # Row by row: of a circuit with registers of its own the stock network mixes the rows.
    expected = np.concatenate([network.forward(row[None], weights) for row in angles])
    outputs = student.connector(torch.from_numpy(angles)).detach().numpy()
    np.testing.assert_allclose(outputs, expected.reshape(5, -1), atol=1e-5)
    logits = exact_logits(student, images)
    measured = target_logits(student, images, target=Target.parse("exact"))
    torch.testing.assert_close(measured, logits, rtol=0, atol=1e-4)
    student.save(tmp_path)
    assert torch.equal(exact_logits(load_student(tmp_path), images), logits)


def test_without_a_head_the_network_gives_class_probabilities(images):
    spec = StudentSpec(kind="quantum", head="none", readout="bins", reduction="max_pool")
    network = SamplerQNN(**parts(), interpret=modulo, output_shape=3)
    student = make_student(spec, qnn=network, **SHAPE)
    probabilities = network.forward(
        student.encode(images).numpy(), student.weights.detach().numpy()
    )
    expected = 8 * torch.from_numpy(probabilities).log().float()
    torch.testing.assert_close(student(images), expected, rtol=0, atol=1e-3)


def test_inputs_keep_their_order_whatever_their_names():
    circuit, names = QuantumCircuit(2), [Parameter("b"), Parameter("a")]
    circuit.ry(names[0], 0)
    circuit.rx(names[1], 1)
    weights = ParameterVector("t", 12)
    for number in (10, 2):
        circuit.rz(weights[number], number % 2)
        circuit.ry(weights[number], number % 2)
    chosen = [weights[10], weights[2]]
    network = SamplerQNN(circuit=circuit, input_params=names, weight_params=chosen)
    adopted = adopt_network(network).parts
    values = {"x_000": 0.1, "x_001": 0.2, "w_000": 0.3, "w_001": 0.4}
    bound = circuit.assign_parameters(dict(zip([*names, *chosen], values.values(), strict=True)))
    ours = adopted.circuit.assign_parameters(values)
    assert Operator(ours).equiv(Operator(bound))
    assert list(adopted.circuit.parameters) != list(circuit.parameters)


def test_the_classical_twin_of_a_network_has_as_many_parameters():
    network = networks()["probabilities"]
    student = make_student(StudentSpec(), qnn=network, **SHAPE)
    twin = make_student(StudentSpec(kind="classical"), qnn=network, **SHAPE)
    assert abs(twin.num_parameters - student.num_parameters) <= 10


def measured_in_the_middle():
    given = parts()
    circuit = QuantumCircuit(3, 1).compose(given["circuit"])
    circuit.measure(0, 0)
    circuit.h(0)
    return given | {"circuit": circuit}


WRONG = {
    "nothing": (lambda: object(), "qnn is a object; give a SamplerQNN"),
    "class": (lambda: SamplerQNN, "qnn is a class SamplerQNN"),
    "sparse": (lambda: SamplerQNN(**parts(), sparse=True), "sparse output"),
    "no inputs": (lambda: SamplerQNN(**without_inputs()), "has no inputs"),
    "middle": (lambda: SamplerQNN(**measured_in_the_middle()), "qnn: .* measure"),
    "wide": (
        lambda: EstimatorQNN(**wide()),
        "circuit of 21 qubits; give at most 20",
    ),
    "complex": (
        lambda: EstimatorQNN(**parts(), observables=[SparsePauliOp("ZZZ", 1j)]),
        "imaginary",
    ),
    "interpret": (
        lambda: SamplerQNN(**parts(), interpret=lambda outcome: outcome, output_shape=3),
        "interpret gives positions that do not fit",
    ),
}


def wide():
    circuit = QuantumCircuit(21)
    circuit.rx(Parameter("x"), 0)
    return {"circuit": circuit, "input_params": list(circuit.parameters)}


def without_inputs():
    circuit = parts()["circuit"]
    return {"circuit": circuit, "weight_params": list(circuit.parameters)}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_network_of_a_student_is_refused(name):
    make, message = WRONG[name]
    if name == "sparse":
        pytest.importorskip("sparse")
    with pytest.raises(CircuitError, match=message) as caught:
        make_student(StudentSpec(), qnn=make(), **SHAPE)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spec", "arguments", "message"),
    [
        ({"kind": "convolution"}, {}, "a qnn was given for a student of kind convolution"),
        ({}, {"circuit": parts()["circuit"]}, "qnn and circuit were given; give one of them"),
        ({}, {"observables": ["ZZZ"]}, "qnn and observables were given"),
        ({}, {"input_params": ["a"]}, "without a circuit"),
        ({"head": "none", "readout": "bins"}, {}, "8 probabilities for 3 classes"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(spec, arguments, message):
    with pytest.raises(CircuitError, match=message) as caught:
        make_student(StudentSpec(**spec), qnn=networks()["probabilities"], **arguments, **SHAPE)
    assert "\n" not in str(caught.value)


def test_settings_that_a_network_replaces_are_named(caplog):
    spec = StudentSpec(qubits=5, ansatz="cz_line", layers=3, readout="bins")
    with caplog.at_level(logging.WARNING):
        make_student(spec, qnn=networks()["observables"], **SHAPE)
    (record,) = caplog.records
    assert record.getMessage() == (
        "student.qubits and student.ansatz and student.layers and student.readout do nothing where "
        "a qnn is given: its circuit and read-out are used"
    )
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        make_student(StudentSpec(), qnn=networks()["interpret"], **SHAPE)
    assert not caplog.records


def test_a_primitive_that_is_not_used_is_named(caplog):
    network = SamplerQNN(**parts(), sampler=StatevectorSampler(default_shots=100))
    with caplog.at_level(logging.WARNING):
        make_student(StudentSpec(), qnn=network, **SHAPE)
    assert "the network's own StatevectorSampler, which samples" in caplog.text


def test_sums_that_do_not_belong_to_the_circuit_are_refused(tmp_path):
    student = make_student(StudentSpec(), qnn=networks()["interpret"], **SHAPE)
    student.save(tmp_path)
    card = json.loads((tmp_path / CARD_FILE).read_text())
    for places in ([0, 1, 2, 0] * 4, [0, 1, 7, 0, 1, 2, 0, 1], [], "all", None):
        card["outcome_sums"]["places"] = places
        (tmp_path / CARD_FILE).write_text(json.dumps(card))
        with pytest.raises(CheckpointError) as caught:
            load_student(tmp_path)
        assert "\n" not in str(caught.value)
