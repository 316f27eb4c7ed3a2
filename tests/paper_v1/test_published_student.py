"""The published student: closed form against Qiskit, machine code against torch, sizes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from paper_v1 import (
    PublishedStudent,
    kernel,
    published_circuit,
    published_loss,
    teacher_only_term,
    zero_weight_term,
)
from paper_v1.student import (
    SHIFTS,
    flat_weights,
    initial_weights,
    outcome_probabilities,
)
from qiskit.quantum_info import Statevector
from qiskit_machine_learning.neural_networks import SamplerQNN

from qkd_qiskit.distillation.terms import check_term
from qkd_qiskit.errors import TrainingError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.teachers.architectures import build_teacher

CLASSES = 6


@pytest.mark.parametrize(("qubits", "parameters"), [(3, 21_483), (4, 21_534)])
def test_student_has_the_published_number_of_parameters(qubits, parameters):
    student = PublishedStudent(qubits=qubits)
    assert sum(p.numel() for p in student.parameters()) == parameters
    assert len(initial_weights(qubits, seed=0)) == parameters
    assert PublishedStudent(qubits=qubits, head="sigmoid").eval()(
        torch.zeros(2, 1, 28, 28)
    ).shape == (2, 2 ** (qubits + 1))


@pytest.mark.parametrize("classes", [6, 8])
def test_teachers_have_the_published_number_of_parameters(classes):
    published = {
        "lenet5": {6: 44_086, 8: 44_256},
        "alexnet": {6: 94_655_686, 8: 94_663_880},
    }
    for kind, sizes in published.items():
        with torch.device("meta"):
            module = build_teacher(
                TeacherSpec(kind=kind), image_shape=(1, 28, 28), num_classes=classes
            )
        assert sum(p.numel() for p in module.parameters()) == sizes[classes]


@pytest.mark.parametrize("qubits", [3, 4])
def test_closed_form_is_the_circuit(qubits):
    generator = torch.Generator().manual_seed(1)
    angles = math.pi * (2 * torch.rand(5, qubits, generator=generator, dtype=torch.float64) - 1)
    expected = outcome_probabilities(angles)
    circuit = published_circuit(qubits)
    for row, probabilities in zip(angles, expected, strict=True):
        state = Statevector(circuit.assign_parameters(row.tolist()))
        assert np.allclose(state.probabilities(), probabilities, atol=1e-12)
    qnn = SamplerQNN(circuit=circuit, input_params=circuit.parameters, input_gradients=True)
    assert np.allclose(qnn.forward(angles.numpy(), []), expected, atol=1e-6)


@pytest.mark.parametrize("rule", ["published", "true"])
def test_differences_are_the_stated_multiple_of_the_derivative(rule):
    angles = torch.tensor([[0.3, -1.1, 2.0]], dtype=torch.float64)
    shift, factor = SHIFTS[rule]
    jacobian = torch.autograd.functional.jacobian(outcome_probabilities, angles)[0, :, 0]
    for k in range(3):
        step = torch.zeros_like(angles)
        step[0, k] = shift
        difference = outcome_probabilities(angles + step) - outcome_probabilities(angles - step)
        expected = jacobian[:, k] * (math.sqrt(2) if rule == "published" else 1)
        assert torch.allclose(factor * difference[0], expected, atol=1e-12)


@pytest.mark.parametrize("head", ["sigmoid", "softmax"])
@pytest.mark.parametrize("gradient", ["published", "true"])
@pytest.mark.parametrize("qubits", [3, 4])
def test_steps_are_those_of_torch(head, gradient, qubits):
    """Five steps of Adam with dropout, cross-entropy and divergence, against autograd."""
    images, labels, logits, masks = _published_data(steps=5)
    alpha, temperature, rate = 0.9, 3.0, 1e-3
    torch.manual_seed(0)
    student = PublishedStudent(qubits=qubits, head=head, gradient=gradient)
    weights = flat_weights(student)
    optimizer = torch.optim.Adam(student.parameters(), lr=rate)
    terms = []
    for step in range(5):
        student.dropout2d = _Mask(masks[0][step].reshape(1, 20, 1, 1))
        student.dropout = _Mask(masks[1][step])
        rows = slice(step, step + 1)
        outputs = student(images[rows].unsqueeze(1))
        loss = published_loss(outputs, labels[rows], logits[rows], temperature=temperature)
        optimizer.zero_grad()
        (loss["ce"] + alpha * loss["kd"]).backward()
        optimizer.step()
        terms.append((loss["ce"].item(), loss["kd"].item() / temperature**2))
    shift, factor = SHIFTS[gradient]
    rule = (qubits, 0, shift, factor, head == "sigmoid", temperature, temperature**2 * alpha, rate)
    memory = kernel.make_memory(qubits, head_outputs=2 ** (qubits + (head == "sigmoid")))
    targets = torch.softmax(logits.double() / temperature, dim=1).numpy()
    state = (weights, np.zeros_like(weights), np.zeros_like(weights), np.zeros(1, np.int64))
    ce, kd, finite = kernel.train_epoch(
        state, images.numpy(), labels.numpy(), targets, np.arange(5),
        (masks[0].numpy(), masks[1].numpy()), rule, np.random.default_rng(0), memory,
    )  # fmt: skip
    assert finite
    assert state[3][0] == 5
    assert (ce, kd) == pytest.approx(tuple(np.mean(terms, axis=0)), rel=1e-4)
    # Adam divides by the gradient's size: where that is rounding alone, its sign is.
    apart = np.abs(weights - flat_weights(student))
    assert apart.max() < 2.1 * 5 * rate
    assert np.quantile(apart, 0.995) < 2e-5


def test_prediction_is_that_of_torch_without_dropout():
    images, *_ = _published_data(steps=40)
    torch.manual_seed(3)
    student = PublishedStudent(qubits=3).eval()
    with torch.no_grad():
        student.fc2.weight.mul_(20)
        expected = student(images.unsqueeze(1)).argmax(dim=1).numpy()
    rule = (3, 0, 0.0, 0.0, True, 3.0, 0.0, 0.0)
    choices = np.zeros(40, np.int64)
    memory = kernel.make_memory(3, head_outputs=16)
    kernel.predict(
        flat_weights(student), images.numpy(), rule, np.random.default_rng(0), memory, choices
    )
    assert len(set(choices)) > 1
    assert (choices == expected).mean() >= 0.95  # two outcomes may be equally likely to rounding


@pytest.mark.parametrize("term", [teacher_only_term, zero_weight_term])
def test_published_dead_terms_are_refused(term):
    images, _, logits, _ = _published_data(steps=4)
    student = PublishedStudent(qubits=3)
    outputs = student(images.unsqueeze(1))
    with pytest.raises(TrainingError, match="gives the student no gradient"):
        check_term(term(outputs, logits), list(student.parameters()), name="'kd'")


def test_published_terms_that_live_are_accepted_and_can_still_be_trained():
    images, labels, logits, _ = _published_data(steps=4)
    student = PublishedStudent(qubits=3)
    terms = published_loss(student(images.unsqueeze(1)), labels, logits)
    for name, term in terms.items():
        check_term(term, list(student.parameters()), name=name)
    (terms["ce"] + terms["kd"]).backward()
    assert student.conv1.weight.grad.any()


class _Mask(torch.nn.Module):
    """Dropout of a given mask."""

    def __init__(self, mask):
        super().__init__()
        self.mask = mask

    def forward(self, values):
        return values * self.mask * 2


def _published_data(steps):
    generator = torch.Generator().manual_seed(7)
    images = torch.rand(steps, 28, 28, generator=generator)
    labels = torch.randint(CLASSES, (steps,), generator=generator)
    logits = 3 * torch.randn(steps, CLASSES, generator=generator)
    masks = [(torch.rand(steps, size, generator=generator) < 0.5).float() for size in (20, 50)]
    return images, labels, logits, masks
