"""Runs from Python: the same as by the command, and everything that a run is asked for."""

import shutil

import pytest
import torch

from qkd_qiskit import Run, load_recipe, run_experiment
from qkd_qiskit.errors import CheckpointError, InputError, TargetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.run import resume_experiment


class Stages(Callback):
    """Keeps the stages."""

    def __init__(self, stop=None):
        self.stages, self.stop = [], stop

    def stage(self, text):
        self.stages.append(text)
        if text == self.stop:
            raise KeyboardInterrupt


@pytest.fixture
def run(finished, tmp_path):
    return Run.open(shutil.copytree(finished.path, tmp_path / "run"))


def without_times(run):
    content = run.result.to_json()
    return {key: content[key] for key in content if key not in ("timing", "command")}


def test_a_run_from_python_is_that_of_the_command(finished, tiny, tmp_path):
    callback = Stages()
    run = run_experiment(load_recipe(tiny), out=tmp_path / "out", callback=callback)
    assert without_times(run) == without_times(Run(finished))
    assert callback.stages[:2] == ["data", "teacher"]
    assert repr(run).endswith("2 seeds of label_only, distilled, classical_twin; ended)")
    html = run._repr_html_()
    assert "6 of 6 students trained<" in html
    assert run.result._repr_html_() in html
    assert "2 pairs are fewer than the 5 that a conclusion takes" in html


def test_a_stopped_run_goes_on(finished, tiny, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run_experiment(str(tiny), out=tmp_path / "out", callback=Stages("exact"))
    stopped = Run.open(tmp_path / "out")
    assert "not ended" in repr(stopped)
    assert "6 of 6 students trained, not ended" in stopped._repr_html_()
    assert stopped.recipe._repr_html_() in stopped._repr_html_()
    with pytest.raises(CheckpointError, match="holds another run"):
        run_experiment(str(tiny), out=tmp_path / "out")
    assert without_times(resume_experiment(tmp_path / "out")) == without_times(Run(finished))


def test_a_refused_recipe_leaves_no_folder(tiny, tmp_path):
    recipe = load_recipe(tiny, {"targets": ["fake_nowhere"]})
    with pytest.raises(TargetError):
        run_experiment(recipe, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_a_folder_a_new_one_is_made(tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    few = {"arms": ["label_only"], "targets": ["exact"], "seeds": 1, "distill.epochs": 1}
    assert str(run_experiment(load_recipe(tiny, few)).path) == "runs/digits"


def test_students_and_teacher_give_the_accuracies_of_the_result(run):
    images, labels = run.data.test.images, run.data.test.labels
    for row, seed in enumerate(run.result.seeds):
        with torch.no_grad():
            hits = run.student("distilled", seed=seed)(images).argmax(1) == labels
        expected = run.result.arms["distilled"]["exact"].accuracy[row]
        assert hits.double().mean().item() == pytest.approx(expected)
    hits = run.teacher_logits().argmax(1) == labels
    assert hits.double().mean().item() == pytest.approx(run.result.teacher.accuracy)
    first = run.student("label_only").state_dict()
    for name, value in run.student("label_only", seed=0).state_dict().items():
        assert torch.equal(first[name], value)


def test_arms_and_seeds_that_are_not_there_are_named(run):
    with pytest.raises(InputError, match="no arm 'transfer'; give one of label_only, distilled"):
        run.student("transfer")
    for ask in (lambda: run.student("distilled", seed=7), lambda: run.teacher_logits(seed=7)):
        with pytest.raises(InputError, match="no seed 7; give one of 0, 1"):
            ask()
    with pytest.raises(CheckpointError, match="holds no run"):
        Run.open(run.path / "nowhere")


def test_an_evaluation_is_in_the_result_and_the_report(run):
    result = run.evaluate("fake_lima:scale=2:exact")
    assert run.result == result
    assert set(result.gain) == {"exact", "fake_manila", "fake_lima:scale=2:exact"}
    assert {entry.target for entry in result.comparisons} == set(result.targets)
    assert "fake_lima:scale=2:exact" in run.report().read_text(encoding="utf-8")
