"""Whole runs: arms in pairs, resumption, the test set, and what is checked before training."""

import shutil
from dataclasses import asdict, replace

import pytest
import torch

from qkd_qiskit.errors import CheckpointError, CircuitError, DataError, TargetError, TeacherError
from qkd_qiskit.experiments import evaluation_set
from qkd_qiskit.experiments import experiment as study
from qkd_qiskit.experiments import tasks as tasks
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.recipe import ARMS
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.teachers import training
from qkd_qiskit.teachers.teacher import make_teacher, save_teacher


def create(tmp_path, tiny, **overrides):
    return RunFolder.create(tmp_path / "run", load_recipe(tiny, overrides))


def copied(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "copy")
    return RunFolder.open(tmp_path / "copy")


def members(folder):
    return [(arm, seed) for arm in folder.recipe.arms for seed in folder.recipe.member_seeds]


def weights(folder):
    files = [folder.member(*member) / "weights.safetensors" for member in members(folder)]
    return [path.read_bytes() for path in files]


def figures(result):
    return asdict(replace(result, timing={}, command=""))


def no_training(*_, **__):
    pytest.fail("something was trained")


@pytest.fixture
def untrained(monkeypatch):
    """Fails the test where a teacher or a student is trained."""
    monkeypatch.setattr(training, "train_teacher", no_training)
    monkeypatch.setattr(tasks, "train_population", no_training)


def test_the_folder_holds_what_the_design_says(finished):
    for name in ("recipe.yaml", "teacher.safetensors", "circuit.qasm", "result.json"):
        assert (finished.path / name).is_file()
    for arm, seed in members(finished):
        folder = finished.member(arm, seed)
        student = load_student(folder)
        assert student.spec.kind == (ARMS[arm].kind or finished.recipe.student.kind)
        assert len(finished.metrics(arm, seed)) == finished.recipe.distill.epochs
        assert set(finished.evaluations(arm, seed)) == {"exact", "fake_manila"}


def test_kept_weights_have_the_figures_of_the_chosen_epoch(finished):
    data = study.load_data(finished.recipe.data, seed=0)
    for arm, seed in members(finished):
        student = load_student(finished.member(arm, seed))
        with torch.no_grad():
            hits = student(data.validation.images).argmax(1) == data.validation.labels
        best = max(epoch.validation_accuracy for epoch in finished.metrics(arm, seed))
        assert hits.float().mean().item() == pytest.approx(best)


def test_arms_of_a_pair_begin_alike(finished):
    """Both students of a seed have the same start, and seeds have different ones."""
    starts = {}
    for seed in finished.recipe.member_seeds:
        student = tasks.new_student(
            finished.recipe, study.load_data(finished.recipe.data), arm="label_only", seed=seed
        )
        starts[seed] = student.weights.detach().clone()
        other = tasks.new_student(
            finished.recipe, study.load_data(finished.recipe.data), arm="distilled", seed=seed
        )
        assert torch.equal(starts[seed], other.weights)
    assert not torch.equal(starts[0], starts[1])


@pytest.mark.parametrize("stop", ["teacher", "label_only and distilled", "exact", "fake_manila"])
def test_a_run_stopped_at_any_stage_ends_alike(stop, finished, tmp_path):
    class Stopping(Callback):
        def stage(self, text):
            if text == stop:
                raise KeyboardInterrupt

    folder = RunFolder.create(tmp_path / "run", finished.recipe)
    with pytest.raises(KeyboardInterrupt):
        run(folder, callback=Stopping())
    result = run(RunFolder.open(folder.path))
    assert figures(result) == figures(finished.result)
    assert weights(folder) == weights(finished)


def test_a_run_stopped_between_epochs_and_students_ends_alike(finished, tmp_path, monkeypatch):
    class Stopping(Callback):
        def epoch(self, figures, *, epochs):
            if figures[0].epoch == 2:
                raise KeyboardInterrupt

    folder = RunFolder.create(tmp_path / "run", finished.recipe)
    with pytest.raises(KeyboardInterrupt):
        run(folder, callback=Stopping())
    # A line of one member's metrics is torn, another's is missing, as after a power cut.
    path = folder.member("label_only", 0) / "metrics.jsonl"
    path.write_text(path.read_text()[:-20])
    (folder.member("distilled", 1) / "metrics.jsonl").unlink()
    saved = []

    def stop_at_third(student, path):
        saved.append(path)
        if len(saved) == 3:
            raise KeyboardInterrupt
        return original(student, path)

    original = tasks.Student.save
    with monkeypatch.context() as patch:
        patch.setattr(tasks.Student, "save", stop_at_third)
        with pytest.raises(KeyboardInterrupt):
            run(folder)
    result = run(RunFolder.open(folder.path))
    assert figures(result) == figures(finished.result)
    assert weights(folder) == weights(finished)
    for member in members(folder):
        name = "metrics.jsonl"
        assert (folder.member(*member) / name).read_text() == (
            finished.member(*member) / name
        ).read_text()


def test_the_same_recipe_gives_the_same_run_and_another_seed_another(finished, tmp_path):
    first = RunFolder.create(tmp_path / "first", finished.recipe)
    assert figures(run(first)) == figures(finished.result)
    assert weights(first) == weights(finished)
    # A member depends on its own seed only, not on which others there are.
    alone = RunFolder.create(tmp_path / "alone", replace(finished.recipe, seeds=(1,)))
    result = run(alone)
    for arm in alone.recipe.arms:
        mine, _ = load_tensors(alone.member(arm, 1) / "weights.safetensors")
        theirs, _ = load_tensors(finished.member(arm, 1) / "weights.safetensors")
        for name, value in mine.items():
            torch.testing.assert_close(value, theirs[name], atol=1e-4, rtol=1e-3)
        accuracy = finished.result.arms[arm]["exact"].accuracy[1]
        assert result.arms[arm]["exact"].accuracy == (pytest.approx(accuracy, abs=0.03),)
    assert result.gain["exact"].ci95 is None


def test_the_test_images_do_not_reach_training(finished, tmp_path, monkeypatch):
    """Other test images, other figures, but the same students, bit for bit."""
    original = study.load_data

    def other_test(spec, *, seed):
        data = original(spec, seed=seed)
        return replace(data, test=replace(data.test, images=data.test.images.flip(-1)))

    monkeypatch.setattr(study, "load_data", other_test)
    folder = RunFolder.create(tmp_path / "run", finished.recipe)
    result = run(folder)
    assert weights(folder) == weights(finished)
    assert result.arms != finished.result.arms


@pytest.mark.parametrize("arms", [["label_only"], ["distilled", "classical_twin"]])
def test_any_choice_of_arms(arms, tiny, tmp_path):
    result = run(create(tmp_path, tiny, arms=arms, targets=["exact"], seeds=1))
    assert list(result.arms) == arms
    assert result.gain == {}
    assert set(result.gain_over_twin) == ({"exact"} if len(arms) == 2 else set())


@pytest.mark.parametrize(
    "changes",
    [
        {"student.kind": "classical"},
        {"student.reduction": "pca", "student.readout": "expectation"},
        {
            "student.kind": "quantum",
            "student.reduction": "none",
            "student.encoding": "amplitude",
            "student.qubits": 6,
            "student.readout": "modulo",
            "student.head": "none",
            "student.sharpness": "learned",
        },
        {"data.draw": "first", "data.classes": [9, 0, 4], "distill.student_temperature": 1.0},
    ],
)
def test_any_kind_of_student(changes, tiny, tmp_path):
    small = {"targets": ["exact", "aer"], "seeds": [5, 7], "distill.epochs": 2, "shots": 20}
    result = run(create(tmp_path, tiny, **small, **changes))
    assert result.seeds == (5, 7)
    for by_target in result.arms.values():
        assert len(by_target["aer"].accuracy) == 2


def test_your_own_circuit(tiny, tmp_path):
    path = tmp_path / "own.qasm"
    path.write_text(
        'OPENQASM 3.0;\ninclude "stdgates.inc";\ninput float[64] x_000;\n'
        "input float[64] w_000;\nqubit[2] q;\nry(x_000) q[0];\ncx q[0], q[1];\nrx(w_000) q[1];\n"
    )
    changes = {"student.circuit": str(path), "targets": ["exact", "fake_manila"], "seeds": 1}
    folder = create(tmp_path, tiny, **changes)
    result = run(folder)
    assert result.student.weights == 1
    path.unlink()  # the run has its own copy
    assert TrainedRun(folder).evaluate("aer", shots=10).arms["distilled"]["aer@10"]


def test_an_evaluation_is_added_once_and_kept_on_resume(finished, tmp_path, monkeypatch):
    folder = copied(finished, tmp_path)
    first = TrainedRun(folder).evaluate("fake_manila", shots=64)
    assert list(first.targets) == ["exact", "fake_manila", "fake_manila@64"]
    assert first.targets["fake_manila@64"].shots == 64
    assert first.arms["distilled"]["fake_manila@64"].shots == (64, 64)
    assert set(first.gain) == {"exact", "fake_manila", "fake_manila@64"}

    monkeypatch.setattr(tasks, "train_population", no_training)
    monkeypatch.setattr(evaluation_set, "measured_and_corrected", no_training)
    assert TrainedRun(folder).evaluate("fake_manila", shots=64) == first
    resumed = run(RunFolder.open(folder.path))
    assert figures(resumed) == figures(first)
    assert figures(TrainedRun(folder).evaluate("exact")) == figures(first)


def test_an_unfinished_run_is_not_evaluated(tiny, tmp_path):
    with pytest.raises(CheckpointError, match="has not ended"):
        TrainedRun(create(tmp_path, tiny)).evaluate("aer")


@pytest.mark.usefixtures("untrained")
@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"targets": ["exact", "fake_nowhere"]}, TargetError, "fake_nowhere"),
        ({"targets": ["ibm_torino"]}, TargetError, "real device"),
        ({"targets": ["fake_manila"], "student.qubits": 6}, TargetError, "6 qubits"),
        ({"data.train_per_class": 1000}, DataError, "1000 per class"),
        ({"data.test_per_class": 1000}, DataError, "1000 per class"),
        ({"data.name": "mnist", "data.root": "/nowhere"}, DataError, "/nowhere"),
        ({"student.reduction": "none"}, CircuitError, "64 features"),
        ({"student.circuit": "/nowhere.qasm"}, CircuitError, "cannot be read"),
        (
            {"student.readout": "bins", "student.qubits": 1, "data.classes": [1, 2, 3]},
            CircuitError,
            "3 classes",
        ),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_trained(
    changes, error, message, tiny, tmp_path
):
    with pytest.raises(error, match=message) as caught:
        run(create(tmp_path, tiny, **changes))
    assert "\n" not in str(caught.value)


def test_a_teacher_of_other_classes_is_refused_before_training(tiny, tmp_path, monkeypatch):
    data = study.load_data(load_recipe(tiny, {"data.classes": [1, 2, 3]}).data)
    teacher = make_teacher(load_recipe(tiny).teacher, data)
    save_teacher(teacher, tmp_path / "teacher.safetensors")
    monkeypatch.setattr(tasks, "train_population", no_training)
    checkpoint = {"teacher.checkpoint": str(tmp_path / "teacher.safetensors")}
    with pytest.raises(TeacherError, match="3 outputs for 2 classes"):
        run(create(tmp_path, tiny, **checkpoint))


def test_a_student_whose_metrics_are_lost_is_named(finished, tmp_path):
    folder = copied(finished, tmp_path)
    (folder.member("distilled", 1) / "metrics.jsonl").unlink()
    with pytest.raises(CheckpointError, match=r"seed_1 has lost.*--resume"):
        run(folder)
    shutil.rmtree(folder.member("distilled", 1))
    assert figures(run(folder)) == figures(finished.result)


NOISY = {
    "arms": ["label_only", "distilled", "distilled_noisy"],
    "distill.epochs": 2,
    "seeds": 1,
}


def test_the_noisy_arm_trains_through_the_first_device(tiny, tmp_path):
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, NOISY))
    result = run(folder)
    blind, noisy = (
        load_tensors(folder.member(arm, 0) / "weights.safetensors")[0]
        for arm in ("distilled", "distilled_noisy")
    )
    assert any(not torch.equal(blind[name], noisy[name]) for name in blind)
    assert set(result.arms["distilled_noisy"]) == {"exact", "fake_manila"}
    accuracies = [
        result.arms[arm]["fake_manila"].accuracy[0] for arm in ("distilled_noisy", "distilled")
    ]
    gain = result.gain_of_noise["fake_manila"].mean
    assert gain == pytest.approx(100 * (accuracies[0] - accuracies[1]))


@pytest.mark.parametrize("gradient", ["parameter_shift", "spsa"])
def test_training_from_shots_goes_on_to_the_same_bits(gradient, tiny, tmp_path, monkeypatch):
    overrides = {
        "arms": ["distilled"],
        "targets": ["exact"],
        "distill.gradient": gradient,
        "distill.train_target": "aer",
        "distill.epochs": 2,
        "seeds": 1,
    }
    recipe = load_recipe(tiny, overrides)
    whole, stopped = (RunFolder.create(tmp_path / name, recipe) for name in ("whole", "stopped"))
    cost = run(whole).training_cost["students"]
    assert cost.executions == 50 * cost.circuits > 0
    assert cost.steps == 2 * 3  # of 24 images, 8 at a time; none to check the terms
    assert cost.calls == cost.steps * {"parameter_shift": 2, "spsa": 1}[gradient]

    def stop(figures, *, epochs):
        raise KeyboardInterrupt

    callback = Callback()
    monkeypatch.setattr(callback, "epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, callback=callback)
    assert run(stopped).training_cost["students"] == cost
    ends = [(folder.member("distilled", 0) / "weights.safetensors") for folder in (whole, stopped)]
    assert ends[0].read_bytes() == ends[1].read_bytes()
