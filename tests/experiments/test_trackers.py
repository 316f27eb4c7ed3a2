"""Runs in trackers: what they are told, once, whoever trained; refusals; libraries that fail."""

import json
import os
from types import ModuleType, SimpleNamespace

import pytest

from qkd_qiskit import load_recipe, run_experiment
from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments import trackers
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.run import resume_experiment

THEIR_WARNINGS = pytest.mark.filterwarnings("ignore")
FIGURES = {"loss", "ce", "kd", "feature", "validation_accuracy", "lr"}


class Wandb(ModuleType):
    """The calls of Weights & Biases that are used, and what they were given."""

    def __init__(self):
        super().__init__("wandb")
        self.runs, self.fails = [], False

    def Settings(self, **given):
        return given

    def init(self, **given):
        run = SimpleNamespace(given=given, logged=[], metrics=[], summary={}, ended=[])
        run.id = given["id"] or f"run{len(self.runs)}"
        run.define_metric = lambda name, step_metric: run.metrics.append((name, step_metric))
        run.log = lambda item: self._log(run, item)
        run.finish = lambda exit_code=0: run.ended.append(exit_code)
        self.runs.append(run)
        return run

    def _log(self, run, item):
        if self.fails:
            raise ConnectionError("no route\nto the server")
        run.logged.append(item)


@pytest.fixture
def wandb(monkeypatch):
    module, known = Wandb(), trackers.import_module
    monkeypatch.setattr(trackers, "import_module", lambda n: module if n == "wandb" else known(n))
    return module


class StopAt(Callback):
    """Interrupts at a stage."""

    def __init__(self, name):
        self.name = name

    def stage(self, text):
        if text == self.name:
            raise KeyboardInterrupt


def told(*runs):
    """What was logged: a dict for each member and epoch."""
    points = {}
    for item in (item for run in runs for item in run.logged):
        (member,) = {key.rpartition("/")[0] for key in item if key != "epoch"}
        key = member, item["epoch"]
        assert key not in points, "told twice"
        points[key] = {name.rpartition("/")[2]: item[name] for name in item if name != "epoch"}
    return points


def written(folder):
    """The same from the run folder."""
    return {
        (f"{arm}/seed_{seed}", figures["epoch"]): {
            name: value for name, value in figures.items() if name != "epoch"
        }
        for arm, seed in folder.members
        for figures in map(
            json.loads, (folder.member(arm, seed) / "metrics.jsonl").read_text().splitlines()
        )
    }


def test_every_epoch_is_told_once_with_the_recipe_and_the_result(wandb, tiny, tmp_path):
    words = ["--track", "wandb", "--targets", "exact", "--out", str(tmp_path / "run"), "--quiet"]
    assert main(["distill", str(tiny), *words]) == 0
    (run,), folder = wandb.runs, RunFolder.open(tmp_path / "run")
    assert told(run) == written(folder)
    assert all(set(point) == FIGURES for point in told(run).values())
    assert len(run.logged) == 3 * 3 * 2
    config = run.given["config"]
    assert config["distill.epochs"] == 3
    assert config["arms"] == "('label_only', 'distilled', 'classical_twin')"
    assert run.given["project"] == "qkd_qiskit"
    accuracy = folder.result.arms["distilled"]["exact"].accuracy
    assert run.summary["test_accuracy/distilled/exact"] == pytest.approx(sum(accuracy) / 2)
    assert run.summary["gain/exact"] == folder.result.gain["exact"].mean
    assert ("distilled/seed_1/*", "epoch") in run.metrics
    assert run.ended == [0]


def test_a_run_that_goes_on_says_nothing_twice(wandb, tiny, tmp_path):
    out, recipe = tmp_path / "run", load_recipe(tiny, {"targets": ["exact"]})
    with pytest.raises(KeyboardInterrupt):
        run_experiment(recipe, out=out, callback=StopAt("classical_twin"), track="wandb")
    assert wandb.runs[0].ended == [1]
    assert not wandb.runs[0].summary
    resume_experiment(out, track="wandb")
    first, second = wandb.runs
    assert second.given["id"] == first.id
    assert first.logged
    assert told(first, second) == written(RunFolder.open(out))
    assert second.ended == [0]


def test_what_other_processes_train_is_told_too(wandb, tiny, tmp_path):
    recipe = load_recipe(tiny, {"targets": ["exact"], "distill.epochs": 1})
    run = run_experiment(recipe, out=tmp_path / "run", workers=Workers(jobs=2), track="wandb")
    assert told(*wandb.runs) == written(run.folder)


def test_a_library_that_fails_is_left_alone_after_one_line(wandb, tiny, tmp_path, caplog):
    wandb.fails = True
    recipe = load_recipe(tiny, {"targets": ["exact"]})
    run = run_experiment(recipe, out=tmp_path / "run", track="wandb")
    assert run.result.gain
    warnings = [record.message for record in caplog.records if "track" in record.message]
    assert warnings == ["track wandb: no route; the run goes on without it"]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("comet", "track: 'comet' is not accepted; give one of tensorboard, mlflow, wandb"),
        ("mlflow", "track mlflow: its library is not installed .* pip install 'qkd-qiskit.mlflow"),
    ],
)
def test_what_cannot_be_told_is_refused_before_anything_is_done(
    name, message, tiny, tmp_path, monkeypatch
):
    def missing(library):
        raise ModuleNotFoundError(f"No module named {library!r}")

    monkeypatch.setattr(trackers, "import_module", missing)
    with pytest.raises(InputError, match=message) as caught:
        run_experiment(str(tiny), out=tmp_path / "run", track=name)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_refused_is_not_told(wandb, tiny, tmp_path):
    recipe = load_recipe(tiny, {"targets": ["fake_nowhere"]})
    with pytest.raises(InputError):
        run_experiment(recipe, out=tmp_path / "run", track="wandb")
    assert not wandb.runs
    assert not (tmp_path / "run").exists()


@THEIR_WARNINGS
def test_tensorboard_has_every_figure(tiny, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    recipe = load_recipe(tiny, {"targets": ["exact"]})
    run = run_experiment(recipe, out=tmp_path / "run", track="tensorboard")
    events = EventAccumulator(str(run.path / "tracking" / "tensorboard"))
    events.Reload()
    for (member, epoch), figures in written(run.folder).items():
        for name, value in figures.items():
            values = {item.step: item.value for item in events.Scalars(f"{member}/{name}")}
            assert values[epoch] == pytest.approx(value, rel=1e-6)
    (gain,) = events.Scalars("gain/exact")
    assert gain.value == pytest.approx(run.result.gain["exact"].mean, rel=1e-6)


@THEIR_WARNINGS
def test_mlflow_has_every_figure(tiny, tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "tests")
    monkeypatch.chdir(tmp_path)
    import mlflow

    mlflow.set_tracking_uri(os.environ["MLFLOW_TRACKING_URI"])
    recipe = load_recipe(tiny, {"targets": ["exact", "fake_lima:scale=2:exact"]})
    run = run_experiment(recipe, out=tmp_path / "run", track="mlflow")
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("tests").experiment_id])
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "run"
    assert found.data.params["distill.epochs"] == "3"
    for (member, epoch), figures in written(run.folder).items():
        for name, value in figures.items():
            history = client.get_metric_history(found.info.run_id, f"{member}/{name}")
            assert {item.step: item.value for item in history}[epoch] == value
    gains = {key: value for key, value in found.data.metrics.items() if key.startswith("gain/")}
    assert gains["gain/fake_lima:scale_2:exact"] == pytest.approx(
        run.result.gain["fake_lima:scale=2:exact"].mean
    )
    files = {item.path for item in client.list_artifacts(found.info.run_id)}
    assert files == {"recipe.yaml", "result.json"}


@THEIR_WARNINGS
def test_wandb_itself_takes_the_calls(tiny, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    recipe = load_recipe(tiny, {"targets": ["exact"], "distill.epochs": 1})
    run = run_experiment(recipe, out=tmp_path / "run", track="wandb")
    (kept,) = (run.path / "tracking" / "wandb").glob("offline-run-*/*.wandb")
    assert kept.stat().st_size > 1000
    state = json.loads((run.path / "tracking" / "wandb.json").read_text())
    assert state["run"] in kept.name
    assert set(state["epochs"].values()) == {1}
