"""Sweeps of a finished run: figures agree with the run's own, and nothing is done twice."""

import csv
import json
import math
import shutil
from dataclasses import replace

import pytest
from scipy import stats

from qkd_qiskit.cli import main
from qkd_qiskit.errors import CheckpointError, InputError, TargetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.run_folder import RESULT
from qkd_qiskit.experiments.statistics import mean_interval
from qkd_qiskit.experiments.sweeps import (
    COLUMNS,
    read_rows,
    sweep_noise,
    sweep_shots,
    trained_rows,
    write_rows,
)
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.report.sweep_figures import (
    arm_label,
    scale_of,
    shots_of,
    summary,
    write_noise_figures,
)


@pytest.fixture
def run(finished, tmp_path):
    """A finished run of its own."""
    return TrainedRun.open(shutil.copytree(finished.path, tmp_path / "run"))


class Counter(Callback):
    """Counts evaluated images."""

    def __init__(self):
        self.images, self.total, self.stages = 0, 0, []

    def stage(self, text):
        self.stages.append(text)

    def evaluated(self, images, *, total):
        self.images, self.total = self.images + images, total


def by_key(rows):
    return {row.key: row for row in rows}


def test_noise_of_scale_zero_changes_nothing(run):
    rows = sweep_noise(run, scales=[0])
    assert {(row.arm, row.seed) for row in rows} == {
        (arm, seed) for arm in run.recipe.arms for seed in (0, 1)
    }
    for row in rows:
        own = run.folder.evaluations(row.arm, row.seed)["exact"]
        assert row.agreement == 1
        assert row.fidelity == 1
        assert row.images == own.images == 40
        assert row.accuracy == own.accuracy
        assert row.divergence == pytest.approx(own.divergence, rel=1e-4)
        assert row.calibration_error == pytest.approx(own.calibration_error, rel=1e-3)


def test_without_names_the_devices_are_those_of_the_run(run):
    changed = "exact, 'fake_lima:scale=2', 'fake_manila:exact', 'fake_lima:mitigated'"
    path = run.path / "recipe.yaml"
    path.write_text(path.read_text().replace("exact, fake_manila", changed))
    run = TrainedRun.open(run.path)
    assert len(run.recipe.targets) == 4
    rows = sweep_noise(run, scales=[0], limit=2)
    assert list(dict.fromkeys(row.target for row in rows)) == ["fake_lima", "fake_manila"]
    rows = sweep_shots(run, shots=[5], limit=2)
    assert {(row.target, row.scale) for row in rows} == {("fake_lima:scale=2", 2.0)}


def test_the_twin_has_no_noise_and_strong_noise_tells_nothing(run):
    rows = sweep_noise(run, scales=[1, 1000], limit=15)
    assert all(row.images == 15 for row in rows)
    for row in rows:
        if row.arm == "classical_twin":
            assert (row.agreement, row.fidelity) == (1, 1)
        else:
            assert row.fidelity < 1
    strong = [row for row in rows if row.scale == 1000 and row.arm != "classical_twin"]
    weak = by_key(rows)
    for row in strong:
        same = weak[(row.target, 1.0, None, row.arm, row.seed, 15)]
        assert row.fidelity < same.fidelity


def test_exact_noisy_figures_are_those_of_the_target(run):
    from qkd_qiskit.data.splits import load_data
    from qkd_qiskit.experiments.evaluation import evaluate
    from qkd_qiskit.students.factory import load_student
    from qkd_qiskit.targets import Target

    (row,) = [
        row
        for row in sweep_noise(run, devices=["fake_lima"], scales=[2])
        if (row.arm, row.seed) == ("distilled", 1)
    ]
    data = load_data(run.recipe.data, seed=run.recipe.seed)
    figures = evaluate(
        load_student(run.folder.member("distilled", 1)),
        data.test,
        target=Target.parse("fake_lima", shots=None, scale=2.0, seed=run.recipe.seed),
    )
    assert row.accuracy == figures.accuracy
    assert row.calibration_error == pytest.approx(figures.calibration_error)


def test_shots_of_the_recipe_give_the_figures_of_the_run(run):
    rows = sweep_shots(run, shots=[50])
    for row in rows:
        own = run.folder.evaluations(row.arm, row.seed)["fake_manila"]
        assert (row.images, row.accuracy) == (own.images, own.accuracy)
        assert row.divergence == pytest.approx(own.divergence)
        assert row.scale == 1


def test_more_shots_come_nearer_to_exact_probabilities(run):
    rows = sweep_shots(run, shots=[4, 4000, None])
    few, many, exact = ([row for row in rows if row.shots == shots] for shots in (4, 4000, None))
    far, near = (
        sum(abs(a.divergence - b.divergence) for a, b in zip(part, exact, strict=True))
        for part in (few, many)
    )
    assert near < far / 5


def test_ideal_shots_tend_to_the_exact_student(run):
    rows = sweep_shots(run, target="aer", shots=[None])
    assert all(row.agreement == 1 and row.scale == 0 for row in rows)


def test_nothing_is_evaluated_twice(run):
    first = sweep_noise(run, scales=[0, 1], limit=10)
    before = (run.path / "bench" / "noise.csv").read_bytes()
    counter = Counter()
    assert sweep_noise(run, scales=[0, 1], limit=10, callback=counter) == first
    assert counter.images == 0
    assert (run.path / "bench" / "noise.csv").read_bytes() == before
    more = sweep_noise(run, scales=[1, 2], limit=10, callback=counter)
    assert counter.images == counter.total == 60
    assert len(more) == 12
    assert len(read_rows(run.path / "bench" / "noise.csv")) == 18


def test_a_stopped_sweep_goes_on(run):
    class Stopping(Counter):
        def evaluated(self, images, *, total):
            super().evaluated(images, total=total)
            if self.images > 30:  # the first three students are kept
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep_noise(run, scales=[1], limit=10, callback=Stopping())
    key = "fake_manila:exact, 10 images"
    kept = [member for member in run.folder.members if key in run.folder.evaluations(*member)]
    assert len(kept) == 3
    counter = Counter()
    rows = sweep_noise(run, scales=[1], limit=10, callback=counter)
    assert counter.images == 30
    assert len(rows) == 6


def test_a_sweep_and_an_evaluation_share_their_figures(run):
    """A sweep is a list of targets: what one has evaluated the other does not evaluate again."""
    (row,) = (c for c in sweep_noise(run, scales=[2]) if (c.arm, c.seed) == ("distilled", 0))
    counter = Counter()
    result = run.evaluate("fake_manila:scale=2:exact", callback=counter)
    assert counter.images == 0
    metrics = result.arms["distilled"]["fake_manila:scale=2:exact"]
    assert metrics.accuracy[0] == row.accuracy
    assert metrics.calibration_error[0] == row.calibration_error


def test_a_sweep_leaves_the_result_as_it_is(run):
    before = (run.path / RESULT).read_bytes()
    sweep_shots(run, shots=[8], limit=5)
    assert (run.path / RESULT).read_bytes() == before


def test_a_sweep_leaves_the_figures_of_the_run_as_they_are(run):
    def own():
        return {member: run.folder.evaluations(*member) for member in run.folder.members}

    before = own()
    sweep_shots(run, target="aer", shots=[None], limit=1000)
    sweep_shots(run, shots=[50, None])
    sweep_noise(run, scales=[1])
    for member, evaluations in own().items():
        for key, evaluation in before[member].items():
            assert replace(evaluations[key], exact_agreement=None) == evaluation


def test_cells_survive_the_file(run, tmp_path):
    rows = sweep_shots(run, shots=[8, None], limit=5)
    write_rows(tmp_path / "rows.csv", rows)
    assert read_rows(tmp_path / "rows.csv") == rows
    with (tmp_path / "rows.csv").open() as file:
        assert next(csv.reader(file)) == COLUMNS


def test_interval_is_that_of_t():
    values = [0.9, 0.92, 0.95, 0.91]
    mean, half = mean_interval(values)
    low, high = stats.t.interval(0.95, 3, loc=mean, scale=stats.sem(values))
    assert (mean - half, mean + half) == (pytest.approx(low), pytest.approx(high))
    assert mean_interval([0.5]) == (0.5, None)


def test_failed_students_are_left_out(run):
    failed = {**run.result.failed, "distilled": {"1": "not trained"}}
    run.folder.end(replace(run.result, failed=failed))
    rows = sweep_noise(run, scales=[0], limit=5)
    kept = {(row.arm, row.seed) for row in trained_rows(run, rows)}
    assert ("distilled", 0) in kept
    assert ("distilled", 1) not in kept
    lines = summary(run, rows, setting=scale_of)
    (line,) = [line for line in lines if line["arm"] == "distilled"]
    assert line["seeds"] == 1
    assert line["accuracy"]["half_ci95"] is None


def test_figures_are_drawn_without_intervals_too(run):
    rows = sweep_noise(run, devices=["fake_manila", "fake_lima"], scales=[0, 1], limit=5)
    files = write_noise_figures(run, [row for row in rows if row.seed == 0])
    assert [path.name for path in files] == ["noise.png", "devices.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in files)


def test_the_noisy_arm_names_its_device(run):
    assert arm_label(run, "distilled_noisy") == "distilled through fake_manila"
    assert arm_label(run, "label_only") == "label only"


def test_summary_is_json(run):
    rows = sweep_shots(run, shots=[8, None], limit=5)
    lines = summary(run, rows, setting=shots_of)
    assert len(lines) == 6
    assert json.loads(json.dumps(lines)) == lines
    assert [line["shots"] for line in lines[:2]] == [8, None]
    assert all(math.isfinite(line["divergence"]["mean"]) for line in lines)


def test_a_run_that_has_not_ended_is_refused(run):
    (run.path / RESULT).unlink()
    with pytest.raises(CheckpointError, match="has not ended"):
        sweep_noise(run)
    with pytest.raises(CheckpointError, match="has not ended"):
        sweep_shots(run)


def test_nothing_is_loaded_for_a_device_that_is_unknown(run):
    with pytest.raises(TargetError, match="fake_torino"):
        sweep_noise(run, devices=["fake_torin"])
    assert not {"data", "teachers"} & set(vars(run))


@pytest.mark.parametrize("command", ["sweep", "bench"])
def test_commands(command, run, capsys):
    path = str(run.path)
    assert main([command, "noise", path, "--scales", "0,1", "--limit", "5"]) == 0
    output = capsys.readouterr().out
    assert "5 images" in output
    assert "noise.csv" in output
    assert (run.path / "bench" / "noise.png").exists()
    assert main([command, "shots", path, "--shots=8,exact", "--limit", "5", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 6
    assert (run.path / "bench" / "shots.png").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", "give noise, shots or drift, as in qkd sweep noise RUN"),
        ("noise", "run missing; see `qkd sweep noise --help`"),
        ("nonsense", "choose from"),
        ("noise nowhere", "nowhere holds no run"),
        ("noise RUN --devices fake_torin", "fake_torino"),
        ("noise RUN --devices exact", "exact has no noise to scale"),
        ("noise RUN --devices aer", "aer has no noise to scale"),
        ("noise RUN --devices fake_lima:scale=2", "given by scales"),
        ("noise RUN --scales a", "--scales: 'a' is not accepted; give numbers from 0"),
        ("noise RUN --scales -1", "scale is -1.0"),
        ("noise RUN --limit 0", "limit is 0"),
        ("noise RUN --devices fake_armonk", "has 2 qubits, fake_armonk"),
        ("noise RUN --shots 5", "--shots is not an option"),
        ("shots RUN --shots 0", "--shots: '0' is not accepted; give whole numbers from 1"),
        ("shots RUN --shots 8,many", "or exact, separated by commas"),
        ("shots RUN --target exact", "exact takes no shots"),
        ("shots RUN --target fake_lima:exact", "takes no shots"),
        ("shots RUN --limit many", "many"),
    ],
)
def test_bad_input_is_one_line(run, capsys, words, message):
    given = words.replace("RUN", str(run.path)).split()
    assert main(["sweep", *given]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_a_damaged_file_is_named(run, capsys):
    path = run.path / "bench" / "noise.csv"
    path.parent.mkdir()
    path.write_text("target,scale\nfake_lima,strong\n")
    with pytest.raises(InputError, match="delete it"):
        sweep_noise(run, scales=[0], limit=5)


def test_a_run_without_a_trained_student_is_refused(run):
    path = run.path / "result.json"
    result = json.loads(path.read_text())
    failed = {arm: {str(seed): "no better than chance"} for arm, seed in run.folder.members}
    for arm, seed in run.folder.members:
        failed[arm][str(seed)] = "no better than chance"
    path.write_text(json.dumps(result | {"failed": failed}))
    for sweep in (sweep_noise, sweep_shots):
        with pytest.raises(CheckpointError, match="failed while they trained"):
            sweep(run)
