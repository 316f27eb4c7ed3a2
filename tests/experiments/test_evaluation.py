"""Figures of a student on a target, against their definitions."""

import numpy as np
import pytest
import torch

from qkd_qiskit import evaluate, make_student
from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.experiments import evaluation as module
from qkd_qiskit.experiments.simulator_check import parameter_values
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.targets import Target


@pytest.fixture(scope="module")
def student():
    return make_student(StudentSpec(qubits=2, layers=1), image_shape=(1, 4, 4), num_classes=3)


@pytest.fixture(scope="module")
def split():
    generator = torch.Generator().manual_seed(0)
    return Split(torch.rand(60, 1, 4, 4, generator=generator), torch.arange(60) % 3)


def test_exact_figures_are_what_they_say(student, split):
    found = evaluate(student, split)
    with torch.no_grad():
        logits = student(split.images)
    choices = logits.argmax(dim=1)
    assert found.accuracy == pytest.approx((choices == split.labels).double().mean().item())
    assert found.exact_accuracy == found.accuracy
    assert (found.images, found.shots, found.target) == (60, None, "exact")
    assert found.agreement is None
    assert found.divergence is None
    for label in range(3):
        for choice in range(3):
            count = ((split.labels == label) & (choices == choice)).sum()
            assert found.confusion[label][choice] == count


def test_a_student_agrees_with_itself(student, split):
    found = evaluate(student, split, teacher_logits=module.exact_logits(student, split.images))
    assert found.agreement == 1
    assert found.divergence == pytest.approx(0, abs=1e-9)
    other = evaluate(student, split, teacher_logits=torch.eye(3)[split.labels] * 5)
    assert other.agreement == found.accuracy
    assert other.divergence > 0


def test_shots_tend_to_the_exact_logits(student, split):
    exact = module.exact_logits(student, split.images)
    errors = []
    for shots in (100, 10_000):
        logits = module.target_logits(
            student, split.images, target=Target.parse("aer"), shots=shots, seed=1
        )
        errors.append((logits - exact).abs().mean().item())
    assert errors[1] < errors[0] / 4
    assert errors[1] < 0.05


def test_exact_probabilities_of_a_target_give_the_students_logits(student, split):
    """`ExactTarget` is Aer's way, `exact_logits` the engine's: two ways to one circuit."""
    logits = module.target_logits(student, split.images, target=Target.parse("exact"))
    torch.testing.assert_close(
        logits, module.exact_logits(student, split.images), atol=2e-6, rtol=1e-5
    )


def test_columns_of_parameter_values_follow_the_names(student, split):
    names = (*reversed(student.weight_names), *student.input_names)
    values = parameter_values(student, split.images[:4], names=names)
    count = len(student.weight_names)
    weights = student.weights.detach().double().numpy()
    assert np.array_equal(values[:, :count], np.tile(weights[::-1], (4, 1)))
    encoded = student.encode(split.images[:4]).detach().double().numpy()
    assert np.array_equal(values[:, count:], encoded)


def test_equal_seeds_give_equal_figures_and_progress_counts_every_image(student, split):
    counted = []
    target = Target.parse("aer", shots=20)
    first, second, other = (
        evaluate(student, split, target=target, seed=seed, on_batch=counted.append)
        for seed in (5, 5, 6)
    )
    assert first == second
    assert first != other
    assert sum(counted) == 3 * len(split)


def test_a_classical_student_has_exact_figures_on_every_target(split):
    spec = StudentSpec(kind="classical", qubits=2)
    twin = make_student(spec, image_shape=(1, 4, 4), num_classes=3)
    found = evaluate(twin, split, target="aer")
    assert found.shots is None
    assert found.accuracy == found.exact_accuracy == evaluate(twin, split).accuracy


def test_calibration_error_by_hand():
    # Five choices at confidence 0.9, of which three are right, and five at 0.6, all right.
    probabilities = torch.tensor([[0.9, 0.1]] * 5 + [[0.6, 0.4]] * 5)
    labels = torch.tensor([0, 0, 0, 1, 1] + [0] * 5)
    assert module.calibration_error(probabilities, labels) == pytest.approx(
        (5 * 0.3 + 5 * 0.4) / 10, abs=1e-6
    )
    assert module.calibration_error(torch.eye(2), torch.arange(2)) == pytest.approx(0)


def test_a_subset_is_the_same_for_the_same_seed(split):
    first, rows = module.subset(split, limit=20, seed=1)
    again, _ = module.subset(split, limit=20, seed=1)
    assert torch.equal(first.images, again.images)
    assert torch.equal(first.labels, split.labels[rows])
    assert len(set(rows.tolist())) == 20
    assert len(module.subset(split, limit=500)[0]) == 60


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"target": "fake_nowhere"}, TargetError, "unknown target"),
        ({"target": "aer", "shots": 0}, TargetError, "shots is 0"),
        ({"teacher_logits": torch.zeros(60, 4)}, InputError, r"shape \(60, 4\); give \(60, 3\)"),
        ({"split": Split(torch.rand(2, 1, 5, 5), torch.arange(2))}, InputError, r"\(1, 5, 5\)"),
        ({"split": Split(torch.rand(2, 1, 4, 4), torch.tensor([0, 3]))}, InputError, "3 classes"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, message, student, split):
    given = {"split": split} | change
    with pytest.raises(error, match=message) as caught:
        evaluate(student, given.pop("split"), **given)
    assert "\n" not in str(caught.value)
