"""The benchmark of gains: its page follows from its rows, and a study takes more seeds later."""

import helps
import helps_tables as tables
import pytest
from helps import open_study

from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import run_experiment

PAGE = (helps.RESULTS.parent / "HELPS.md").read_text()


@pytest.fixture(scope="module")
def rows():
    return helps.read(helps.RESULTS / "helps_accuracy.csv")


def test_the_published_comparisons_and_tables_follow_from_the_published_rows(rows, tmp_path):
    comparisons = tables.compare(rows)
    helps.write_csv(tmp_path / "helps.csv", tables.COLUMNS, comparisons)
    assert (tmp_path / "helps.csv").read_text() == (helps.RESULTS / "helps.csv").read_text()
    shown = [tables.accuracy_table(rows), *tables.gain_tables(comparisons), tables.twin_table(rows)]
    for table in shown:
        assert table in PAGE
    assert tables.split_table(helps.read(helps.RESULTS / "helps_splits.csv")) in PAGE
    assert f"the {len(comparisons)} comparisons of this page" in PAGE


def test_a_study_takes_more_seeds_and_arms_later(tiny, tmp_path):
    whole = {"arms": ["label_only", "distilled", "transfer"], "targets": ["exact"], "seeds": [4, 5]}
    less = whole | {"arms": ["label_only", "distilled"], "seeds": [4]}
    open_study(load_recipe(tiny, less), tmp_path / "grown")
    grown = open_study(load_recipe(tiny, whole), tmp_path / "grown")
    at_once = run_experiment(load_recipe(tiny, whole), out=tmp_path / "whole")
    assert grown.recipe == at_once.recipe
    assert grown.result.arms == at_once.result.arms
    assert open_study(load_recipe(tiny, whole), tmp_path / "grown").result == grown.result
    with pytest.raises(SystemExit, match="another recipe"):
        open_study(load_recipe(tiny, whole | {"distill.lr": 0.01}), tmp_path / "grown")
    with pytest.raises(SystemExit, match="another recipe"):
        open_study(load_recipe(tiny, less), tmp_path / "grown")


def test_the_best_twin_is_that_of_the_best_validation(monkeypatch):
    rows = [
        {"cell": "a", "arm": f"twin_more_{kind}", "kind": "", "accuracy": kind}
        for kind in helps.TWINS.values()
    ]
    validation = dict(zip(helps.TWINS.values(), (0.5, None, 0.9, 0.7, 0.6, 0.8), strict=True))
    monkeypatch.setattr(
        helps,
        "mean_validation_accuracy",
        lambda folder, arm: validation[arm.removeprefix("twin_more_")],
    )

    class Study:
        folder = None

    (best,) = helps._best_of(rows, "twin_more", Study, kinds=helps.TWINS.values())
    assert best == {"cell": "a", "arm": "twin_more", "kind": "bilinear", "accuracy": "bilinear"}
