"""Arms of one's own in a run: trained, evaluated, compared, shown, with workers and resumed."""

import json
from argparse import Namespace

import pytest

from qkd_qiskit.cli import main
from qkd_qiskit.cli.recipe_options import given_recipe
from qkd_qiskit.cli.study import DEFAULTS
from qkd_qiskit.experiments.comparisons import compared_pairs
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import training_executor, training_tasks
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.factory import load_student

OWN = {
    "same": {"base": "distilled", "distill.lr": 0.05},
    "warm": {"distill.temperature": 9.0},
    "wide": {"base": "label_only", "student.layers": 3},
    "through": {"distill.gradient": "noisy", "distill.train_target": "fake_manila"},
}
ARMS = ["label_only", "distilled", *OWN]


def make_recipe(tiny, **changes):
    return load_recipe(tiny, {"arms": ARMS, "own_arms": OWN, "targets": ["exact"], **changes})


def weights(folder, arm):
    return load_tensors(folder.member(arm, 0) / "weights.safetensors")[0]


@pytest.fixture(scope="module")
def own_run(tiny, tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("own") / "run", make_recipe(tiny))
    run(folder)
    return folder


def test_an_own_arm_that_changes_nothing_is_its_base(own_run):
    for name, value in weights(own_run, "distilled").items():
        assert value.allclose(weights(own_run, "same")[name], atol=1e-5)
    for arm in ("warm", "through"):
        names = weights(own_run, "distilled").items()
        assert any(not value.allclose(weights(own_run, arm)[name]) for name, value in names)


def test_an_own_student_has_its_own_shape(own_run):
    specs = {arm: load_student(own_run.member(arm, 0)).spec for arm in ("label_only", "wide")}
    assert (specs["wide"].layers, specs["label_only"].layers) == (3, own_run.recipe.student.layers)


def test_own_arms_are_compared_with_their_base_and_the_baseline(own_run):
    pairs = {(entry.arm, entry.baseline) for entry in own_run.ended().comparisons}
    assert pairs >= {("warm", "label_only"), ("warm", "distilled"), ("wide", "label_only")}
    assert ("wide", "distilled") not in pairs
    table = own_run.recipe.arm_table
    assert compared_pairs(["warm", "label_only_tuned", "label_only"], table) == [
        ("warm", "label_only_tuned"),
        ("label_only", "label_only_tuned"),
    ]


def test_a_report_says_what_an_own_arm_is(own_run):
    text = write_report(own_run).read_text()
    assert "The arm `warm` is distilled with distill.temperature 9.0." in text
    assert "warm − distilled" in text


def test_workers_train_the_same_own_arms(own_run, tiny, tmp_path):
    folder = RunFolder.create(tmp_path / "run", make_recipe(tiny))
    run(folder, workers=Workers(jobs=2))
    for arm in OWN:
        for name, value in weights(folder, arm).items():
            assert value.allclose(weights(own_run, arm)[name], atol=1e-5), arm


def test_an_arm_names_its_device(tiny):
    recipe = make_recipe(tiny)
    folders = {task.population for task in training_tasks(recipe)}
    assert folders == {"students", *(f"students of {name}" for name in OWN)}
    assert recipe.distill_of("through").train_target == "fake_manila"
    assert recipe.distill_of("warm").train_target == "exact"


def test_a_device_of_an_own_arm_runs_its_circuit(own_run):
    student = load_student(own_run.member("through", 0))
    assert training_executor(own_run.recipe, student, arm="through") is not None
    assert training_executor(own_run.recipe, student, arm="warm") is None


def test_a_study_trains_own_arms_and_resumes(tiny, tmp_path, capsys):
    own = "{warm: {distill.temperature: 9.0}}"
    out = tmp_path / "run"
    words = ["--own_arms", own, "--arms", "label_only,distilled,warm", "--targets", "exact"]
    words += ["--jobs", "1", "--out", str(out), "--json"]
    assert main(["study", str(tiny), *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert "warm" in result["arms"]
    (out / "result.json").unlink()
    (out / "warm" / "seed_0" / "weights.safetensors").unlink()
    assert main(["study", "--resume", str(out), "--jobs", "1", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["arms"] == result["arms"]


def test_a_study_of_a_file_without_arms_trains_its_own_too(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("own_arms: {warm: {distill.temperature: 9.0}}\n")
    recipe = given_recipe(Namespace(recipe=str(path)), defaults=DEFAULTS)
    assert recipe.arms == (*DEFAULTS["arms"], "warm")


def test_an_own_arm_keeps_what_its_base_changes(tiny):
    own = {
        "more": {"base": "transfer_augmented", "distill.unlabelled": 2},
        "plain": {"base": "augmented", "distill.augment": "none"},
    }
    recipe = load_recipe(tiny, {"arms": ["distilled", *own], "own_arms": own})
    assert recipe.distill_of("more").augment == "jitter"
    assert recipe.distill_of("more").unlabelled == 2
    assert recipe.distill_of("plain").augment == "none"
