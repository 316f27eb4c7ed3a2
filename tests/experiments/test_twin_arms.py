"""The arms of twins in a run: trained alike, the best of them chosen on validation, and shown."""

import json
import shutil
from argparse import Namespace

import pytest
import torch

from qkd_qiskit.cli import main
from qkd_qiskit.cli.recipe_options import given_recipe
from qkd_qiskit.cli.study import DEFAULTS
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.experiments.collect import collect_result
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import new_student
from qkd_qiskit.recipe import Recipe, StudentSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.run import Run
from qkd_qiskit.students.factory import load_student

ARMS = [
    *("label_only", "distilled", "classical_twin", "twin_pca", "twin_random", "twin_conv"),
    *("no_circuit", "no_entanglers", "frozen_circuit"),
]


@pytest.fixture(scope="module")
def twins(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("twins") / "run"
    folder = RunFolder.create(path, load_recipe(tiny, {"arms": ARMS, "targets": ["exact"]}))
    run(folder, command="qkd distill tiny.yaml")
    return folder


def student(folder, arm, seed=0):
    return load_student(folder.member(arm, seed))


def test_the_best_twin_is_chosen_on_validation_images(twins):
    chosen = twins.ended().twins
    accuracy = {
        arm: sum(
            max(epoch.validation_accuracy for epoch in twins.metrics(arm, seed)) for seed in (0, 1)
        )
        / 2
        for arm in ("classical_twin", "twin_pca", "twin_random", "twin_conv")
    }
    assert dict(chosen.validation_accuracy) == pytest.approx(accuracy)
    assert accuracy[chosen.best] == max(accuracy.values())
    sizes = {arm: student(twins, arm).num_parameters for arm in accuracy}
    assert chosen.parameters == sizes
    most = twins.ended().student.parameters
    assert max(size for arm, size in sizes.items() if arm != "classical_twin") <= most


def test_only_the_best_twin_is_compared(twins):
    result = twins.ended()
    pairs = {(entry.arm, entry.baseline) for entry in result.comparisons}
    assert ("distilled", result.twins.best) in pairs
    others = {"twin_pca", "twin_random", "twin_conv"} - {result.twins.best}
    assert not others & {arm for pair in pairs for arm in pair}
    assert pairs >= {
        ("distilled", arm) for arm in ("no_circuit", "no_entanglers", "frozen_circuit")
    }


def test_report_and_terminal_name_the_best_twin(twins, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(twins.path, path)
    page = write_report(RunFolder.open(path)).read_text()
    best = twins.ended().twins.best.replace("_", " ")
    assert "The best twin is " in page
    assert "(best twin)" in page
    assert "Trained numbers: classical twin " in page
    assert main(["evaluate", str(path), "--target", "exact"]) == 0
    assert f"distilled - {best} (best twin)" in capsys.readouterr().out


def test_what_is_frozen_stays_and_the_rest_is_trained(twins):
    opened = Run(twins)
    for arm, kept in (
        ("frozen_circuit", "connector.weight"),
        ("twin_random", "network.projection"),
    ):
        before = dict(new_student(twins.recipe, opened.data, arm=arm, seed=1).named_parameters())
        after = dict(student(twins, arm, 1).named_parameters())
        assert torch.equal(before[kept], after[kept])
        assert any(not torch.equal(before[name], after[name]) for name in before)


def test_a_run_without_twins_has_no_choice(finished):
    assert finished.ended().twins is None
    assert "twins" not in json.loads((finished.path / "result.json").read_text())


def test_twins_are_of_circuits():
    with pytest.raises(RecipeError, match="arms without twin_pca for the student quanvolution"):
        Recipe(student=StudentSpec(kind="quanvolution"), arms=("distilled", "twin_pca"))
    quantum = load_recipe("digits_quantum").student
    with pytest.raises(RecipeError, match="where nothing but the circuit is trained"):
        Recipe(student=quantum, arms=("distilled", "frozen_circuit"))


def test_collected_again_it_is_the_same(twins):
    opened = Run(twins)
    again = collect_result(
        twins,
        student=student(twins, "distilled"),
        teachers_by_seed=opened.teachers,
        data=opened.data,
        targets=[],
        timing={},
        command="",
    )
    assert again.twins == twins.ended().twins
    assert again.comparisons == twins.ended().comparisons


def test_a_study_of_filters_has_no_twins_of_circuits():
    given = Namespace(recipe="digits", **{"student.kind": "quanvolution"})
    assert "twin_pca" not in given_recipe(given, defaults=DEFAULTS).arms
    assert {"twin_pca", "twin_pooled", "twin_bilinear"} <= set(
        given_recipe(Namespace(recipe="digits"), defaults=DEFAULTS).arms
    )


def test_a_student_with_too_few_numbers_is_refused_with_the_arm(capsys, tmp_path):
    words = ["--arms", "distilled,twin_pca", "--student.layers", "1", "--targets", "exact"]
    out = str(tmp_path / "run")
    assert main(["distill", "digits_quantum", *words, "--out", out, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert "arm twin_pca: kind pca_linear: the smallest for 10 classes has 20 trained" in error
    assert error.count("\n") == 1
