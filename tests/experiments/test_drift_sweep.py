"""Students on later days: rows, the rule that asks for another map, maps on other days."""

import json
import shutil

import pytest

from qkd_qiskit import Run
from qkd_qiskit.cli import main
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.drift_sweep import measure_again, read_drift, sweep_drift
from qkd_qiskit.experiments.recalibration import SUFFIX


@pytest.fixture
def run(finished, tmp_path):
    return Run.open(shutil.copytree(finished.path, tmp_path / "run"))


def test_rows_of_days_and_seeds(run):
    rows = sweep_drift(run, target="fake_lima", days=(0, 20), images=12)
    assert [(row.arm, row.seed, row.day) for row in rows] == [
        (arm, seed, day)
        for seed in (0, 1)
        for arm in ("label_only", "distilled")
        for day in (0, 20)
    ]
    for row in rows:
        assert (row.fit_images, row.images) == (12, 40)
        if row.day == 0:
            assert row.stale == row.fresh
            assert not row.moved
    exact = run.result.arms["distilled"]["exact"].accuracy
    assert [row.exact for row in rows if row.arm == "distilled" and not row.day] == list(exact)
    later = {row.seed: row.measured for row in rows if row.day and row.arm == "distilled"}
    target = "fake_lima:day=20:walk=1:exact"
    there = run.evaluate(target).arms["distilled"][target]
    assert there.accuracy[run.result.seeds.index(1)] == pytest.approx(later[1])
    path = run.path / "bench" / "drift.csv"
    before = path.read_bytes()
    assert sweep_drift(run, target="fake_lima", days=(0, 20), images=12) == rows
    assert path.read_bytes() == before
    path.write_text("day\n1\n")
    with pytest.raises(CheckpointError, match="cannot be read"):
        read_drift(path)


def test_a_map_is_used_on_later_days_and_says_so(run, capsys):
    run.recalibrate("fake_lima:exact", images=10)
    name = "fake_lima:day=30:exact"
    assert main(["evaluate", str(run.path), "--target", name]) == 0
    out = capsys.readouterr().out
    assert "calibration of 2021-03-15, used on that of 2021-04-14" in out
    assert name + SUFFIX in run.result.targets
    result = run.recalibrate("fake_lima:exact", images=12)
    assert name + SUFFIX not in result.targets
    assert name in result.targets


@pytest.mark.parametrize(
    ("held_out", "agreement", "expected"),
    [(0.98, 0.98, False), (0.98, 0.90, False), (0.98, 0.60, True), (1.0, 0.95, False)],
)
def test_another_map_is_asked_for_where_agreement_falls(held_out, agreement, expected):
    found = measure_again(held_out=held_out, fitted=50, agreement=agreement, checked=20)
    assert found is expected


def test_the_command_shows_days(run, capsys):
    words = ["sweep", "drift", str(run.path), "--target", "fake_lima", "--days", "0,3"]
    assert main([*words, "--images", "8", "--limit", "10", "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert [(row["arm"], row["day"], row["seeds"]) for row in summary] == [
        ("label_only", 0, 2),
        ("label_only", 3, 2),
        ("distilled", 0, 2),
        ("distilled", 3, 2),
    ]
    assert main([*words[:-1], "x"]) == 2
    assert "--days: 'x' is not accepted; give whole numbers from 0" in capsys.readouterr().err
