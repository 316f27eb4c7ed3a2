"""Losses: identities, torch's own divergence, gradients and their limit at high temperature."""

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from qkd_qiskit.distillation.losses import distillation_loss, label_loss

GENERATOR = torch.Generator().manual_seed(0)
STUDENT = 3 * torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
TEACHER = 3 * torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
TEMPERATURES = [0.5, 1.0, 4.0, 20.0]


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_that_is_the_teacher_has_no_loss(temperature):
    shifted = TEACHER + torch.randn(6, 1, dtype=torch.float64)  # softmax does not see a shift
    loss = distillation_loss(shifted, TEACHER, temperature=temperature)
    assert abs(loss) < 1e-12
    assert distillation_loss(STUDENT, TEACHER, temperature=temperature) > 0


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("student_temperature", [None, 1.0, 2.0])
def test_the_loss_is_torchs_divergence(temperature, student_temperature):
    loss = distillation_loss(
        STUDENT, TEACHER, temperature=temperature, student_temperature=student_temperature
    )
    own = temperature if student_temperature is None else student_temperature
    expected = own**2 * kl_div(
        (STUDENT / own).log_softmax(dim=1),
        (TEACHER / temperature).softmax(dim=1),
        reduction="batchmean",
    )
    torch.testing.assert_close(loss, expected, atol=1e-12, rtol=1e-12)


def test_softening_the_teacher_only_has_its_minimum_at_the_softened_teacher():
    softened = (TEACHER / 4).requires_grad_()
    loss = distillation_loss(softened, TEACHER, temperature=4.0, student_temperature=1.0)
    assert abs(loss) < 1e-12
    (gradient,) = torch.autograd.grad(loss, softened)
    assert gradient.abs().max() < 1e-12


def test_the_gradient_tends_to_that_of_matched_logits():
    """Section 2.1 of arXiv 1503.02531: with T^2, (s - t) / N for centred logits as T grows."""
    centred = [logits - logits.mean(dim=1, keepdim=True) for logits in (STUDENT, TEACHER)]
    student, teacher = centred[0].clone().requires_grad_(), centred[1]
    limit = (centred[0] - teacher) / 4 / 6
    errors = []
    for temperature in (1e2, 1e3, 1e4):
        loss = distillation_loss(student, teacher, temperature=temperature)
        (gradient,) = torch.autograd.grad(loss, student)
        errors.append((gradient - limit).abs().max().item())
    assert errors[-1] < 1e-3
    assert errors[1] < errors[0] / 5
    assert errors[2] < errors[1] / 5


@pytest.mark.parametrize("student_temperature", [None, 1.0])
def test_gradients_are_those_of_finite_differences(student_temperature):
    student = STUDENT.clone().requires_grad_()

    def loss(logits):
        return distillation_loss(
            logits, TEACHER, temperature=3.0, student_temperature=student_temperature
        )

    assert torch.autograd.gradcheck(loss, (student,))
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    assert torch.autograd.gradcheck(lambda logits: label_loss(logits, labels), (student,))


def test_the_label_loss_is_the_limit_of_a_certain_teacher():
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    certain = 1e3 * torch.nn.functional.one_hot(labels, 4).double()
    loss = distillation_loss(STUDENT, certain, temperature=1.0)
    torch.testing.assert_close(loss, label_loss(STUDENT, labels))
    torch.testing.assert_close(label_loss(STUDENT, labels), cross_entropy(STUDENT, labels))


def test_confident_logits_stay_finite():
    far = torch.tensor([[-1e4, 1e4]]), torch.tensor([[1e4, -1e4]])
    loss = distillation_loss(far[0].requires_grad_(), far[1], temperature=1.0)
    assert torch.isfinite(loss)
    loss.backward()
    assert torch.isfinite(far[0].grad).all()
