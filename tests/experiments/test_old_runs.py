"""Run folders that version 0.1.0 wrote, one for each of its recipes, still do all that runs do."""

import json
import shutil
from pathlib import Path

import pytest
from small_mnist import write_small_mnist

from qkd_qiskit import evaluate, load_data, load_recipe, load_student
from qkd_qiskit.cli import main

OLD = Path(__file__).with_name("old_runs")
NAMES = sorted(path.name for path in OLD.iterdir())


@pytest.fixture(scope="module")
def data_root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    write_small_mnist(root)
    return root


@pytest.fixture
def old_run(data_root, tmp_path):
    def copy(name):
        path = tmp_path / name
        shutil.copytree(OLD / name, path)
        recipe = path / "recipe.yaml"
        recipe.write_text(recipe.read_text().replace("DATA_ROOT", str(data_root)))
        return path

    return copy


def test_every_recipe_of_that_version_has_a_run():
    assert len(NAMES) == 11


@pytest.mark.parametrize("name", NAMES)
def test_students_give_the_figures_that_were_kept(name, old_run):
    path = old_run(name)
    recipe = load_recipe(path / "recipe.yaml")
    data = load_data(recipe.data, seed=recipe.seed)
    for evaluations in sorted(path.glob("*/seed_*/evaluations.json")):
        kept = json.loads(evaluations.read_text())["exact"]
        again = evaluate(load_student(evaluations.parent), data.test)
        assert again.accuracy == kept["accuracy"]
        assert again.confusion == kept["confusion"]
        assert again.calibration_error == pytest.approx(kept["calibration_error"], abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_another_target_and_the_report_are_added(name, old_run):
    path = old_run(name)
    before = json.loads((path / "result.json").read_text())
    assert main(["evaluate", str(path), "--target", "aer", "--shots", "32", "--quiet"]) == 0
    after = json.loads((path / "result.json").read_text())
    assert list(after["targets"])[: len(before["targets"])] == list(before["targets"])
    assert len(after["targets"]) == len(before["targets"]) + 1
    for arm, targets in before["arms"].items():
        assert {target: after["arms"][arm][target] for target in targets} == targets
    assert "<svg" in (path / "report.html").read_text()
