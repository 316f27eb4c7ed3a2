"""The benchmark of noise: its published figures follow from its rows, its rows from a run."""

from dataclasses import replace

import noise
import pytest
from helps import open_study, write_csv

from qkd_qiskit.experiments.callbacks import Callback

GRID = {"losses": ["distilled", "label_only"], "devices": ["fake_manila"], "root": None}


class Images(Callback):
    """Counts the images that are evaluated."""

    count = 0

    def evaluated(self, images, *, total):
        self.count += images


@pytest.fixture(scope="module")
def study(tiny, tmp_path_factory):
    recipe = noise.recipe_for(str(tiny), **GRID, seeds=2)
    return open_study(recipe, tmp_path_factory.mktemp("noise") / "run")


def test_the_published_summary_and_tables_follow_from_the_published_rows(tmp_path):
    rows = noise.read_rows(noise.RESULTS / "noise.csv")
    lines = noise.summarise(rows)
    write_csv(tmp_path / "summary.csv", noise.SUMMARY, lines)
    published = (noise.RESULTS / "noise_summary.csv").read_text()
    assert (tmp_path / "summary.csv").read_text() == published
    text = (noise.RESULTS.parent / "NOISE.md").read_text()
    assert noise.markdown(lines, loss="distilled") in text
    assert noise.teaching(rows, noise.DEVICES) in text


def test_a_run_gives_the_four_corners_of_each_loss(study):
    images = Images()
    rows = noise.evaluated_rows(study, limit=30, callback=images)
    assert [(row.loss, row.trained, row.tested, row.seed) for row in rows] == [
        (loss, trained, tested, seed)
        for loss in GRID["losses"]
        for trained in ("exact", "fake_manila")
        for seed in (0, 1)
        for tested in ("exact", "fake_manila")
    ]
    assert images.count == 30 * len(rows)
    for row in rows:
        assert (row.data, row.images) == ("digits", 30)
        assert (row.agreement == row.fidelity == 1) == (row.tested == "exact")
    assert noise.evaluated_rows(study, limit=30, callback=images) == rows
    assert images.count == 30 * len(rows), "evaluated again"
    assert len(noise.summarise(rows)) == 2


def test_without_a_limit_the_figures_are_those_of_all_test_images(study):
    rows = noise.evaluated_rows(study, limit=None, callback=Callback())
    accuracies = [row.accuracy for row in rows if (row.loss, row.tested) == ("distilled", "exact")]
    arms = study.result.arms
    clean, through = arms["distilled"]["exact"], arms["distilled_manila"]["exact"]
    assert accuracies == [*clean.accuracy, *through.accuracy]


def test_a_study_goes_on_in_its_folder_and_no_other_does(study, tiny):
    recipe = noise.recipe_for(str(tiny), **GRID, seeds=2)
    (study.path / "result.json").unlink()
    weights = study.path / "distilled_manila" / "seed_0" / "weights.safetensors"
    written = weights.stat().st_mtime_ns
    again = open_study(recipe, study.path)
    assert again.result.seeds == (0, 1)
    assert weights.stat().st_mtime_ns == written
    with pytest.raises(SystemExit, match="holds a study of another recipe"):
        open_study(noise.recipe_for(str(tiny), **GRID, seeds=1), study.path)
    with pytest.raises(SystemExit, match="holds a study of another recipe"):
        open_study(replace(recipe, data=replace(recipe.data, train_per_class=5)), study.path)
    moved = replace(recipe, data=replace(recipe.data, root="elsewhere"))
    assert open_study(moved, study.path).result.seeds == (0, 1)
