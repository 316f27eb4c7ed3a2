"""The run folder: what is written, what is found again, and what is refused."""

import json
import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
from result_builder import make_result

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import CheckpointError, RecipeError, StorageError
from qkd_qiskit.experiments.evaluation import Evaluation
from qkd_qiskit.experiments.run_folder import (
    RunFolder,
    append_line,
    new_folder,
    read_json,
    write_json,
)
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe


def epoch(number, loss=0.5):
    return EpochMetrics(number, loss=loss, ce=0.4, kd=0.6, validation_accuracy=0.75, lr=0.01)


@pytest.fixture
def folder(tmp_path):
    return RunFolder.create(tmp_path / "run", Recipe())


def metrics_file(folder):
    return folder.member("distilled", 0) / "metrics.jsonl"


def test_a_folder_opens_with_its_recipe(tiny, tmp_path):
    recipe = load_recipe(tiny)
    RunFolder.create(tmp_path / "deep" / "run", recipe)
    assert RunFolder.open(tmp_path / "deep" / "run").recipe == recipe


def test_a_folder_that_holds_something_is_left_alone(folder, tmp_path):
    with pytest.raises(CheckpointError, match=r"holds another run.*--resume"):
        RunFolder.create(folder.path, Recipe())
    (tmp_path / "file").write_text("precious")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("precious")
    with pytest.raises(CheckpointError, match="is a file"):
        RunFolder.create(tmp_path / "file", Recipe())
    with pytest.raises(CheckpointError, match=r"holds other files \(notes\.txt\)"):
        RunFolder.create(tmp_path / "other", Recipe())
    assert (tmp_path / "file").read_text() == "precious"
    (tmp_path / "empty").mkdir()
    assert RunFolder.create(tmp_path / "empty", Recipe())
    with pytest.raises(StorageError):
        RunFolder.create(tmp_path / "file" / "run", Recipe())
    with pytest.raises(StorageError, match="too long"):
        RunFolder.create(tmp_path / ("a" * 300), Recipe())


def test_only_a_run_is_opened(tmp_path):
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(CheckpointError, match="holds no run"):
            RunFolder.open(path)
    (tmp_path / "recipe.yaml").write_text("student: {qubits: 0}")
    with pytest.raises(RecipeError, match=r"student\.qubits"):
        RunFolder.open(tmp_path)


def test_a_run_that_never_began_is_discarded_and_no_other(folder):
    folder.append_metrics("distilled", 0, epoch(1))
    folder.discard()
    assert folder.path.exists()
    for path in (metrics_file(folder), *metrics_file(folder).parents[:2]):
        path.unlink() if path.is_file() else path.rmdir()
    folder.discard()
    assert not folder.path.exists()
    folder.discard()


def test_metrics_come_back_and_an_interrupted_end_is_written_over(folder):
    for number in (1, 2, 3):
        folder.append_metrics("distilled", 0, epoch(number))
    assert folder.metrics("distilled", 0) == [epoch(1), epoch(2), epoch(3)]
    folder.append_metrics("distilled", 0, epoch(2, loss=0.1))
    assert folder.metrics("distilled", 0) == [epoch(1), epoch(2, loss=0.1)]
    folder.write_metrics("distilled", 0, [epoch(1)])
    assert folder.metrics("distilled", 0) == [epoch(1)]
    assert folder.metrics("label_only", 0) == []


@pytest.mark.parametrize("kept", [1, 40, -2, -1])
def test_a_line_that_was_cut_short_is_dropped(kept, folder):
    for number in (1, 2):
        folder.append_metrics("distilled", 0, epoch(number))
    lines = metrics_file(folder).read_text().splitlines(keepends=True)
    metrics_file(folder).write_text(lines[0] + lines[1][:kept])
    whole = 2 if kept == -1 else 1  # only the end of the line is missing
    assert len(folder.metrics("distilled", 0)) == whole
    for number in range(whole + 1, 4):
        folder.append_metrics("distilled", 0, epoch(number))
    assert folder.metrics("distilled", 0) == [epoch(1), epoch(2), epoch(3)]
    assert metrics_file(folder).read_text().count("\n") == 3


def test_a_loss_that_is_not_finite_is_valid_json(folder):
    folder.append_metrics("distilled", 0, epoch(1, loss=math.nan))
    (line,) = metrics_file(folder).read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["loss"] is None
    assert math.isnan(folder.metrics("distilled", 0)[0].loss)


def test_a_result_that_is_not_finite_is_valid_json(folder):
    folder.end(make_result({"distilled": {"exact": [0.5]}}, timing={"a_s": math.inf, "b_s": 1.0}))
    text = (folder.path / "result.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail)["timing"] == {"a_s": None, "b_s": 1.0}


def test_a_run_that_ends_leaves_nothing_of_killed_processes(folder):
    left = folder.member("distilled", 0) / ".student.json.4711.0a1b2c3d.tmp"
    left.parent.mkdir(parents=True)
    left.write_text("{")
    result = make_result({"distilled": {"exact": [0.5]}})
    folder.end(result)
    assert folder.result == result
    assert {path.name for path in folder.path.rglob("*") if path.is_file()} == {
        "recipe.yaml",
        "result.json",
    }


def evaluation(target):
    return Evaluation(
        target=target,
        images=2,
        shots=None,
        accuracy=0.5,
        exact_accuracy=0.5,
        agreement=None,
        divergence=None,
        calibration_error=0.1,
        confusion=[[1, 0], [1, 0]],
    )


def test_evaluations_are_kept_side_by_side(folder):
    exact, aer, again = (evaluation(target) for target in ("exact", "aer", "aer"))
    again = replace(again, accuracy=0.3, exact_agreement=0.9)
    folder.add_evaluation("distilled", 0, key="exact", evaluation=exact)
    folder.add_evaluation("distilled", 0, key="aer", evaluation=aer)
    folder.add_evaluation("distilled", 0, key="aer", evaluation=again)
    assert folder.evaluations("distilled", 0) == {"exact": exact, "aer": again}
    kept = json.loads((folder.member("distilled", 0) / "evaluations.json").read_text())
    assert list(kept["exact"])[:4] == ["target", "images", "shots", "accuracy"]
    assert "exact_agreement" not in kept["exact"]
    assert folder.evaluations("distilled", 1) == {}


@pytest.mark.parametrize("content", ["", "{", "[1]", "\x00"])
def test_damaged_json_says_how_to_mend_it(content, tmp_path):
    path = tmp_path / "result.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match="--resume") as caught:
        read_json(path)
    assert "\n" not in str(caught.value)
    write_json(path, {"a": 1})
    assert read_json(path) == {"a": 1}


def test_new_folders_do_not_meet_old_ones(tmp_path):
    names = []
    for _ in range(3):
        path = new_folder("recipes/my digits.yaml", parent=tmp_path)
        path.mkdir()
        names.append(path.name)
    assert names == ["my_digits", "my_digits-2", "my_digits-3"]
    assert new_folder("digits", parent=tmp_path).name == "digits"


def test_a_line_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        append_line(tmp_path / "file" / "metrics.jsonl", "x\n")


def test_of_two_runs_that_start_at_once_one_begins(tmp_path):
    ways = Barrier(2)

    def start(_):
        ways.wait()
        try:
            return RunFolder.create(tmp_path / "run", Recipe())
        except CheckpointError as error:
            return str(error)

    for number in range(5):
        with ThreadPoolExecutor(2) as pool:
            begun = list(pool.map(start, range(2)))
        (refused,) = [item for item in begun if isinstance(item, str)]
        assert "holds another run; give another --out" in refused, number
        shutil.rmtree(tmp_path / "run")


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert RunFolder.create("~/run", Recipe()).path == tmp_path / "run"
    assert RunFolder.open("~/run").path == tmp_path / "run"
    assert not (tmp_path / "~").exists()
