"""Learned bins: balanced, likely, kept with the student; and what outcomes say of classes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.recipe import DataSpec, DistillSpec, StudentSpec, TeacherSpec
from qkd_qiskit.students.class_bins import (
    assign_outcomes,
    bins_of,
    class_distributions,
    has_class_bins,
    learn_bins,
    outcome_probabilities,
    summarize_class_bins,
)
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.teachers.teacher import make_teacher

SPEC = StudentSpec(
    kind="quantum",
    qubits=4,
    reduction="none",
    encoding="amplitude",
    ansatz="ry_rz_ring",
    layers=2,
    readout="learned",
    head="none",
    sharpness=4.0,
)


@pytest.fixture(scope="module")
def data():
    return load_data(DataSpec(name="generated", points=300, features=16))


def student_of(data, spec=SPEC, seed=0):
    return make_student(spec, image_shape=data.image_shape, num_classes=data.num_classes, seed=seed)


def likelihood(probabilities, labels, bins):
    sums = probabilities @ np.eye(3)[bins]
    return np.log(np.maximum(sums[np.arange(len(labels)), labels], 1e-6)).mean()


class TestAssignment:
    def test_outcomes_that_know_their_class_are_found(self):
        random = np.random.default_rng(0)
        truth = random.permutation(np.arange(64) * 3 // 64)
        labels = random.integers(0, 3, 200)
        probabilities = random.random((200, 64)) * np.where(truth == labels[:, None], 1.0, 0.2)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        found = assign_outcomes(probabilities, labels, num_classes=3)
        assert (found == truth).all()

    @pytest.mark.parametrize(("outcomes", "classes"), [(64, 3), (16, 10), (8, 8)])
    def test_bins_have_the_sizes_of_contiguous_ones(self, outcomes, classes):
        random = np.random.default_rng(1)
        probabilities = random.dirichlet(np.ones(outcomes), 50)
        found = assign_outcomes(probabilities, random.integers(0, classes, 50), num_classes=classes)
        contiguous = np.arange(outcomes) * classes // outcomes
        assert np.bincount(found).tolist() == np.bincount(contiguous).tolist()

    def test_it_beats_every_one_of_many_balanced_guesses(self):
        random = np.random.default_rng(2)
        labels = random.integers(0, 3, 60)
        probabilities = random.dirichlet(np.full(16, 0.7), 60)
        found = assign_outcomes(probabilities, labels, num_classes=3)
        best = likelihood(probabilities, labels, found)
        for _ in range(300):
            assert likelihood(probabilities, labels, random.permutation(found)) < best

    def test_a_class_without_points_still_has_its_bin(self):
        probabilities = np.random.default_rng(3).dirichlet(np.ones(9), 20)
        found = assign_outcomes(probabilities, np.array([0, 2] * 10), num_classes=3)
        assert np.bincount(found).tolist() == [3, 3, 3]


def test_learning_makes_the_labels_likelier_than_contiguous_bins(data):
    student = student_of(data)
    contiguous = np.array(bins_of(student))
    assert contiguous.tolist() == [0] * 6 + [1] * 5 + [2] * 5
    probabilities = outcome_probabilities(student, data.pool.images).numpy()
    labels = data.pool.labels.numpy()
    learn_bins(student, data.pool)
    learned = likelihood(probabilities, labels, np.array(bins_of(student)))
    assert learned > likelihood(probabilities, labels, contiguous) + 0.01


def test_logits_are_the_log_of_the_binned_probabilities(data):
    student = student_of(data)
    learn_bins(student, data.pool)
    images = data.test.images[:7]
    probabilities = outcome_probabilities(student, images)
    sums = torch.stack(
        [
            probabilities[:, torch.tensor(bins_of(student)) == label].sum(dim=1)
            for label in (0, 1, 2)
        ]
    ).T
    assert torch.allclose(student(images), 4 * sums.log(), atol=1e-4)
    assert torch.allclose(student.decode(probabilities), 4 * sums.log(), atol=1e-4)


def test_contiguous_bins_and_learned_ones_of_the_same_assignment_agree(data):
    learned, bins = student_of(data), student_of(data, replace(SPEC, readout="bins"))
    assert torch.allclose(learned(data.test.images), bins(data.test.images), atol=1e-5)
    assert learned.num_parameters == bins.num_parameters == 16


def test_bins_stay_as_they_are_in_training_and_each_member_keeps_its_own(data, tmp_path):
    students = [student_of(data, seed=seed) for seed in (0, 1)]
    draws = torch.stack([data.draw_points(60, seed=seed) for seed in (0, 1)])
    for student, draw in zip(students, draws, strict=True):
        learn_bins(student, data.pool[draw])
    assert bins_of(students[0]) != bins_of(students[1])
    teacher = make_teacher(TeacherSpec(kind="softmax", epochs=3), data, cache=False)
    members = [Member(arm="distilled", seed=seed, ce_weight=1.0, kd_weight=1.0) for seed in (0, 1)]
    trained = train_population(
        student_of(data),
        members,
        starts=[dict(student.named_parameters()) for student in students],
        examples=make_distillation_data(students[0], teacher, data, draws=draws),
        spec=DistillSpec(epochs=2, temperature=1.0, weight_decay=0.1),
    )
    for one, start in zip(trained, students, strict=True):
        student = student_of(data)
        student.load_parameters(one.state)
        assert bins_of(student) == bins_of(start)
        assert torch.equal(student.readout_matrix, start.readout_matrix)
        assert not torch.equal(student.weights, start.weights)
        student.save(tmp_path / str(one.member.seed))
        again = load_student(tmp_path / str(one.member.seed))
        assert bins_of(again) == bins_of(start)
        assert torch.allclose(again(data.test.images), student(data.test.images))


def test_other_read_outs_are_left_alone(data):
    student = student_of(data, replace(SPEC, readout="modulo"))
    learn_bins(student, data.pool)
    assert bins_of(student) == [outcome % 3 for outcome in range(16)]
    twin = student_of(data, replace(SPEC, kind="classical"))
    learn_bins(twin, data.pool)


def test_class_distributions_are_means_of_the_classes(data):
    student = student_of(data)
    means = class_distributions(student, data.test)
    assert means.shape == (3, 16)
    assert torch.allclose(means.sum(dim=1), torch.ones(3, dtype=torch.float64), atol=1e-5)
    own = outcome_probabilities(student, data.test.images[data.test.labels == 1])
    assert torch.allclose(means[1], own.double().mean(dim=0), atol=1e-6)


def test_what_is_told_of_a_run(data):
    student = student_of(data)
    learn_bins(student, data.pool)
    bins, distributions = summarize_class_bins(student, {"distilled": student}, data.test)
    assert list(bins) == bins_of(student)
    assert set(distributions) == {"start", "distilled"}
    assert distributions["start"] == distributions["distilled"]
    assert has_class_bins(student)
    hybrid = replace(SPEC, kind="hybrid", readout="probabilities", head="linear")
    assert not has_class_bins(student_of(data, hybrid))
