"""The benchmark of recalibration: its tables follow from its rows, its rows from measurements."""

from argparse import Namespace

import pytest
import recalibration
import recalibration_tables as tables
import torch
from helps import open_study

from qkd_qiskit.experiments.drift_sweep import read_drift
from qkd_qiskit.recipe.parsing import load_recipe


@pytest.fixture(scope="module")
def rows():
    return recalibration.read_rows(recalibration.RESULTS / recalibration.TABLE)


def test_the_published_tables_follow_from_the_published_rows(rows):
    text = (recalibration.RESULTS.parent / "NOISE.md").read_text()
    for shots in (0, 1024):
        for quantum in (False, True):
            assert tables.grid_table(rows, shots=shots, quantum=quantum) in text
        assert tables.trained_table(rows, shots=shots) in text
    assert tables.better_table(rows) in text
    budget = recalibration.read_rows(recalibration.RESULTS / recalibration.BUDGET)
    assert tables.budget_table(budget) in text
    assert tables.drift_text(read_drift(recalibration.RESULTS / tables.DRIFT)) in text
    page = (recalibration.RESULTS.parents[1] / "docs" / "noise.md").read_text()
    assert tables.short_table(rows) in page


def test_rows_of_a_small_run(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(recalibration, "IMAGES", (10, 20))
    monkeypatch.setattr(recalibration, "USUAL", 20)
    monkeypatch.setattr(recalibration, "SHOTS", (200, None))
    changes = {"arms": ["distilled"], "targets": ["exact"]}
    run = open_study(load_recipe(str(tiny), changes), tmp_path / "run")
    path = tmp_path / "outcomes.safetensors"
    measured = recalibration.measure(
        run, "distilled", "fake_melbourne", path=path, limit=None, first=None
    )
    assert measured.pool.shape == (2, 20, 4)
    assert measured.test.shape == (2, 40, 4)
    labels = {"recipe": "tiny", "trained": "clean", "device": "fake_melbourne"}
    found = {row.key[3:]: row for row in recalibration.grid_rows(measured, **labels)}
    assert measured.stale.shape == (2, 20, 4)
    assert len(found) == 2 * (3 + 2 * 3 + 3)
    target = "fake_melbourne:exact"
    accuracies = run.evaluate(target).arms["distilled"][target].accuracy
    assert found[0, "none", 0, 0].accuracies / 100 == pytest.approx(list(accuracies))
    exact = run.result.arms["distilled"]["exact"].accuracy
    assert found[0, "exact", 0, 0].accuracies / 100 == pytest.approx(list(exact))
    assert found[0, "affine", 20, 0].qpu_seconds == 0
    assert found[200, "affine", 20, 200].qpu_seconds == pytest.approx(
        2 + 4000 * measured.second, abs=0.01
    )
    # What is kept is not measured again, and a row is written and read as it is.
    again = recalibration.measure(
        run, "distilled", "fake_melbourne", path=path, limit=None, first=None
    )
    assert torch.equal(again.test, measured.test)
    budget = list(recalibration.budget_rows(measured, **labels, shots=100))
    for row in budget:
        assert row.qpu_seconds == pytest.approx(recalibration.BUDGET_S, abs=0.2)


def test_students_of_each_training_are_found(tiny, tmp_path):
    options = Namespace(seeds=1, data_root=None, jobs=1, runs=tmp_path)
    device = "fake_melbourne"
    for trained, arm in recalibration.ARMS.items():
        run, found = recalibration.trained_run(str(tiny), trained, device, options)
        assert found == arm
        assert arm in run.recipe.arms
