"""How often students are right with so many shots."""

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.experiments.shot_accuracy import accuracies, noisy_student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target


@pytest.fixture(scope="module")
def students(finished):
    data = load_data(finished.recipe.data, seed=finished.recipe.seed)
    split = data.test[torch.arange(40)]
    loaded = [load_student(finished.member("distilled", seed)) for seed in (0, 1)]
    target = Target.parse("fake_manila:scale=3:exact")
    unlabelled = data.pool.images[:20]
    made = [noisy_student(it, split, target=target, unlabelled=unlabelled) for it in loaded]
    return loaded, split, made, target


def test_outcomes_are_exact_probabilities(students):
    loaded, split, made, target = students
    for student, noisy in zip(loaded, made, strict=True):
        assert noisy.outcomes.shape == (40, 1, 4)
        np.testing.assert_allclose(noisy.outcomes.sum(axis=2), 1.0)
        decoded = student.decode(torch.from_numpy(noisy.outcomes[:, 0]), noisy.features)
        expected = target_logits(student, split.images, target=target)
        torch.testing.assert_close(decoded, expected, atol=1e-5, rtol=1e-5)


def test_many_shots_give_the_exact_choice_and_few_do_not(students):
    _, split, made, _ = students
    many = accuracies(made, shots=1_000_000, recalibrated=False, seed=0, draws=2)
    few = accuracies(made, shots=8, recalibrated=False, seed=0, draws=16)
    for student, hits in zip(made, many, strict=True):
        outcomes = torch.from_numpy(student.outcomes[:, 0])
        logits = student.student.decode(outcomes, student.features).detach()
        clear = (logits.topk(2).values[:, 0] - logits.topk(2).values[:, 1]).numpy() > 0.05
        right = (logits.argmax(dim=1) == split.labels).numpy()
        np.testing.assert_array_equal(hits[clear], right[clear])
    assert ((few > 0) & (few < 1)).any()


def test_the_same_seed_gives_the_same(students):
    made = students[2]
    first, again, other = (
        accuracies(made, shots=64, recalibrated=False, seed=seed, draws=4) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_recalibration_brings_choices_nearer_to_the_exact_ones(students):
    loaded, split, made, _ = students
    exact = np.mean(
        [(exact_logits(it, split.images).argmax(dim=1) == split.labels).numpy() for it in loaded]
    )
    plain, corrected = (
        accuracies(made, shots=4096, recalibrated=flag, seed=0, draws=8).mean()
        for flag in (False, True)
    )
    assert abs(corrected - exact) <= abs(plain - exact) + 0.02
