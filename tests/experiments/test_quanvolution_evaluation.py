"""A quanvolution on targets: the exact maps without noise, the device's with it, cost and seeds."""

import pytest
import torch

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import evaluate, exact_logits
from qkd_qiskit.experiments.quanvolution_evaluation import (
    logits_on_target,
    maps_on_target,
    patch_cost,
)
from qkd_qiskit.recipe import StudentSpec, TeacherSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets import Target
from qkd_qiskit.teachers.teacher import make_teacher

IMAGES = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(60) % 3
    images = 0.2 * torch.rand(60, 1, 4, 4, generator=generator)
    images[torch.arange(60), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.mark.parametrize("outputs", ["one", "each"])
def test_without_noise_the_maps_are_the_layers_own(outputs):
    layer = Quanvolution(2, seed=1, outputs=outputs)
    target = Target.parse("exact")
    torch.testing.assert_close(
        maps_on_target(layer, IMAGES, target=target), layer(IMAGES).detach(), atol=1e-6, rtol=0
    )


def test_shots_scatter_about_the_exact_maps_and_follow_their_seed():
    layer, target = Quanvolution(2, seed=1), Target.parse("aer", shots=400)
    maps = maps_on_target(layer, IMAGES, target=target, seed=1)
    error = maps - layer(IMAGES).detach()
    assert 0 < error.abs().max() < 5 / 400**0.5
    assert torch.equal(maps_on_target(layer, IMAGES, target=target, seed=1), maps)
    assert not torch.equal(maps_on_target(layer, IMAGES, target=target, seed=2), maps)


def test_noise_takes_contrast_from_the_maps():
    layer, target = Quanvolution(2, seed=1), Target.parse("fake_manila:exact")
    noisy, exact = maps_on_target(layer, IMAGES, target=target), layer(IMAGES).detach()
    slope = (noisy * exact).sum() / exact.square().sum()
    assert 0.5 < slope < 0.97


def test_the_cost_is_stated_before_anything_runs(monkeypatch):
    layer, target = Quanvolution(2, seed=1), Target.parse("fake_manila", shots=100)
    monkeypatch.setattr(target, "probabilities", lambda *_, **__: pytest.fail("it ran"))
    cost = patch_cost(layer, IMAGES, target=target)
    assert (cost.circuits, cost.shots, cost.executions) == (3 * 4 * 2, 100, 2400)
    assert cost.two_qubit_gates >= 7
    assert cost.duration_s > 0
    exact = patch_cost(layer, IMAGES, target=Target.parse("exact"))
    assert (exact.shots, exact.executions) == (None, None)


@pytest.mark.parametrize("kind", ["quanvolution", "random_quanvolution"])
def test_a_teacher_is_evaluated_on_a_noisy_target(data, kind):
    teacher = make_teacher(TeacherSpec(kind=kind, epochs=5, lr=0.05), data, cache=False)
    student = make_student(
        StudentSpec(kind="quanvolution"), image_shape=data.image_shape, num_classes=3
    )
    student.load_parameters(teacher.module.state_dict())
    torch.testing.assert_close(
        exact_logits(student, data.test.images),
        teacher.logits(data.test.images, cache=False),
        atol=1e-5,
        rtol=0,
    )
    done = []
    figures = evaluate(
        student, data.test, target=Target.parse("fake_manila", shots=200), on_batch=done.append
    )
    assert (figures.target, figures.shots, figures.images) == ("fake_manila", 200, len(data.test))
    assert figures.exact_accuracy == pytest.approx(teacher.accuracy)
    assert sum(done) == len(data.test)


def test_a_convolution_is_exact_everywhere(data):
    student = make_student(StudentSpec(kind="convolution"), image_shape=(1, 4, 4), num_classes=3)
    figures = evaluate(student, data.test, target="fake_manila")
    assert (figures.shots, figures.accuracy) == (None, figures.exact_accuracy)
    with pytest.raises(InputError, match="a convolution has no circuit"):
        logits_on_target(student, IMAGES, target=Target.parse("fake_manila"))
