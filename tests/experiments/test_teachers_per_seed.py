"""Runs with a teacher for each seed: whose images it saw, whom it teaches, what is written."""

from dataclasses import replace

import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.errors import CheckpointError, RecipeError
from qkd_qiskit.experiments import arms, tasks
from qkd_qiskit.experiments import teachers as teachers_by_seed
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.results import StudentSummary
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.task_examples import task_examples
from qkd_qiskit.experiments.teachers import load_teachers, teacher_files
from qkd_qiskit.recipe.parsing import load_recipe, parse_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.teachers.teacher import make_teacher

PAIR = {
    "data": {"classes": [3, 5], "train_points": 24, "test_per_class": 20},
    "teacher": {"kind": "quanvolution", "same_draw": True, "epochs": 3, "lr": 0.05},
    "student": {"kind": "convolution"},
    "distill": {
        "epochs": 3,
        "batch_size": 8,
        "lr": 0.05,
        "temperature": 1.0,
        "feature_weight": 1.0,
        "teacher_layer": "filters",
        "student_layer": "filters",
    },
    "arms": ["label_only", "distilled", "logits_only", "features_only"],
    "targets": ["exact"],
    "seeds": 2,
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A finished run of the pair of networks on two digits."""
    folder = RunFolder.create(tmp_path_factory.mktemp("pair") / "run", parse_recipe(PAIR))
    run(folder)
    return folder


def test_each_teacher_has_seen_the_images_of_its_students_and_no_others(pair):
    data = load_data(pair.recipe.data, seed=0)
    spec = replace(pair.recipe.teacher, same_draw=False)
    teachers = load_teachers(pair, data)
    for seed in (0, 1):
        own = replace(data, pool=data.pool[data.draw_for(pair.recipe.data, seed=seed)])
        assert len(own.pool) == 24
        expected = make_teacher(spec, own, seed=seed, cache=False)
        assert teachers.by_seed[seed].digest == expected.digest
        assert teachers.index_of(seed) == seed
    assert not (pair.path / "teacher.safetensors").exists()


def test_students_learn_from_the_teacher_of_their_seed(pair):
    data = load_data(pair.recipe.data, seed=0)
    teachers = load_teachers(pair, data).teachers
    (task,) = tasks.training_tasks(pair.recipe)
    examples = task_examples(
        pair,
        data,
        load_teachers(pair, data),
        shape=tasks.new_student(pair.recipe, data, arm="distilled"),
        members=task.members,
    )
    for place, (_, seed) in enumerate(task.members):
        rows = examples.draws[place : place + 1]
        images = data.pool.images[rows[0]]
        *_, logits, maps = loop.DistillationData.batch(
            replace(examples, teachers=examples.teachers[place : place + 1]), rows
        )
        torch.testing.assert_close(logits[0], teachers[seed].logits(images), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            maps[0], teachers[seed].features(images, layer="filters"), atol=1e-5, rtol=0
        )


def test_a_finished_run_trains_no_teacher_again(pair, monkeypatch):
    before = [path.read_bytes() for path in sorted((pair.path / "teachers").iterdir())]
    monkeypatch.setattr(
        teachers_by_seed, "save_teacher", lambda *_: pytest.fail("a teacher was trained")
    )
    run(pair)
    assert [path.read_bytes() for path in sorted((pair.path / "teachers").iterdir())] == before


def test_result_and_report_tell_of_the_teachers_the_sizes_and_the_term(pair):
    result = pair.result
    first, second = result.teacher.accuracies
    assert result.teacher.accuracy == pytest.approx((first + second) / 2)
    assert result.teacher.parameters == 33 + 3 * 4 * 4 * 2 + 2
    assert result.student == StudentSummary(parameters=15 + 98, filter_parameters=15)
    assert set(result.arms) == set(PAIR["arms"])
    page = write_report(pair).read_text(encoding="utf-8")
    for text in (
        "A quanvolutional network distilled into a convolutional network",
        "131 trained parameters",
        "113 trained parameters, 15 of them in its filters",
        "Each seed has a teacher of its own",
        "1 × mean squared difference of the feature maps (layer filters of the teacher",
        "Difference of feature maps",
    ):
        assert text in page


def test_metrics_keep_the_difference_of_feature_maps(pair):
    for seed in (0, 1):
        history = pair.metrics("features_only", seed)
        assert history[-1].loss == pytest.approx(
            0.5 * history[-1].ce + history[-1].feature, rel=1e-4
        )
        assert 0 < history[-1].feature < history[0].feature


def test_a_teacher_that_is_not_there_is_trained_only_when_asked_to(tmp_path):
    folder = RunFolder.create(tmp_path / "run", parse_recipe(PAIR))
    data = load_data(folder.recipe.data, seed=0)
    with pytest.raises(CheckpointError, match=r"seed_0\.safetensors"):
        load_teachers(folder, data)
    assert not (tmp_path / "run" / "teachers").exists()


def test_one_teacher_for_all_has_one_file(tiny):
    assert set(teacher_files(load_recipe(tiny)).values()) == {("teacher.safetensors",)}
    assert len(set(teacher_files(parse_recipe(PAIR)).values())) == 2


def test_features_alone_need_a_weight():
    folder_recipe = parse_recipe(PAIR, overrides={"distill.feature_weight": 0.0})
    with pytest.raises(RecipeError, match=r"distill\.feature_weight is 0"):
        arms.check_arms(folder_recipe)


def test_the_recipe_of_the_slides_is_their_loss_on_their_networks():
    recipe = load_recipe("slides_q2c")
    spec = recipe.distill
    weights = spec.ce_weight, spec.kd_weight, spec.feature_weight, spec.temperature
    assert weights == (1, 1, 1, 1)
    assert (recipe.teacher.kind, recipe.student.kind) == ("quanvolution", "convolution")
    assert recipe.teacher.same_draw
    assert recipe.data.train_points == 200


def test_a_quanvolutional_student_is_run_on_a_noisy_target(tmp_path):
    changes = {
        "teacher.kind": "convolution",
        "student.kind": "quanvolution",
        "arms": ["label_only", "distilled"],
        "targets": ["exact", "fake_manila:exact"],
        "data.test_per_class": 4,
        "seeds": 1,
    }
    folder = RunFolder.create(tmp_path / "run", parse_recipe(PAIR, overrides=changes))
    result = run(folder)
    assert result.targets["fake_manila:exact"].circuit.two_qubit_gates >= 7
    assert (folder.path / "circuit.qasm").read_text().count("ry(w_") == 11
    assert result.student == StudentSummary(parameters=33 + 98, filter_parameters=33)
    page = write_report(folder).read_text(encoding="utf-8")
    assert "distilled into a quanvolutional network" in page
