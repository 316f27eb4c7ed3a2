"""The trained students of the package are what their cards say."""

import hashlib
import os
from pathlib import Path

import pytest
import reference_students
import torch

from qkd_qiskit import StudentSpec, evaluate, load_data, load_recipe, load_student, make_student
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.evaluation import subset
from qkd_qiskit.recipe.parsing import dump_recipe
from qkd_qiskit.report.publication import portable
from qkd_qiskit.students import list_reference_students
from qkd_qiskit.students.reference import FOLDER

STUDENTS = list_reference_students()
ROOT = Path(os.environ.get("QKD_DATA", "data"))


def test_there_is_one_for_each_of_the_recipes():
    assert set(STUDENTS) == set(reference_students.NAMES)
    assert all(it.recipe == name and it.seed == 0 for name, it in STUDENTS.items())


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_is_that_of_its_card_and_small(name):
    weights = FOLDER / name / "weights.safetensors"
    student = load_student(name)
    assert weights.stat().st_size < 60_000
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == STUDENTS[name].weights
    assert student.num_parameters == STUDENTS[name].trained_numbers
    assert student.spec == load_recipe(name).student
    card = (FOLDER / name / "README.md").read_text()
    accuracy = STUDENTS[name].measured["exact"].accuracy
    assert f"| `exact` | {100 * accuracy:.1f} |" in card
    recipe = dump_recipe(portable(load_recipe(name))).strip()
    assert recipe in card, "the recipe has changed: python benchmarks/reference_students.py"


def assert_accuracy_is_that_of_the_card(name, data):
    student, measured = load_student(name), STUDENTS[name].measured
    entry = measured["exact"]
    assert len(data.test) == entry.images
    found = evaluate(student, data.test).accuracy
    assert found == pytest.approx(entry.accuracy, abs=1.5 / entry.images)


@pytest.mark.parametrize("name", ["digits", "digits_quantum"])
def test_its_accuracy_is_that_of_its_card(name):
    data = load_data(load_recipe(name).data)
    assert_accuracy_is_that_of_the_card(name, data)


def test_its_accuracy_under_noise_is_near_that_of_its_card():
    """Shots are drawn anew: three standard errors of 500 images are 3.2 points."""
    data, entry = load_data(load_recipe("digits").data), STUDENTS["digits"].measured["fake_torino"]
    images, _ = subset(data.test, limit=entry.images)
    found = evaluate(load_student("digits"), images, target="fake_torino:exact").accuracy
    assert found == pytest.approx(entry.accuracy, abs=0.032)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(STUDENTS) - {"digits", "digits_quantum"}))
def test_the_accuracy_on_images_of_a_data_root_is_that_of_the_card(name):
    recipe = load_recipe(name)
    folder = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST"}[recipe.data.name]
    if not (ROOT / folder / "raw").is_dir():
        pytest.skip(f"{folder} is not in QKD_DATA")
    assert_accuracy_is_that_of_the_card(name, load_data(recipe.data))


def test_an_unknown_name_is_answered_with_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        CheckpointError, match="is no folder here and no reference student"
    ) as caught:
        load_student("nmist")
    assert "\n" not in str(caught.value)
    assert all(name in str(caught.value) for name in STUDENTS)
    assert "did you mean mnist?" in str(caught.value)
    with pytest.raises(CheckpointError, match="holds no saved student"):
        load_student("elsewhere/digits")


def test_a_folder_comes_before_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    spec = StudentSpec(kind="hybrid", qubits=2, layers=1)
    own = make_student(spec, image_shape=(1, 4, 4), num_classes=3)
    own.save("digits")
    images = torch.rand(2, 1, 4, 4)
    torch.testing.assert_close(load_student("digits")(images), own(images))
    Path("mnist").mkdir()
    with pytest.raises(CheckpointError, match="mnist holds no saved student"):
        load_student("mnist")


def test_the_table_of_the_site_is_that_of_the_cards():
    text = reference_students.PAGE.read_text()
    assert reference_students.table(STUDENTS) in text
