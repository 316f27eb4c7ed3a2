"""What objects look like at a prompt and in a notebook: short, escaped, without tensors."""

import re
from dataclasses import replace

import pytest
import torch
from result_builder import make_result

import qkd_qiskit
from qkd_qiskit.recipe import (
    DataSpec,
    DistillSpec,
    LossTerm,
    Recipe,
    RuntimeSpec,
    StudentSpec,
    TeacherSpec,
)  # fmt: skip
from qkd_qiskit.recipe.display import html_table
from qkd_qiskit.recipe.parsing import list_recipes, load_recipe

SPECS = (DataSpec, DistillSpec, LossTerm, Recipe, RuntimeSpec, StudentSpec, TeacherSpec)


@pytest.fixture(scope="module")
def data():
    return qkd_qiskit.load_data(DataSpec())


@pytest.fixture(scope="module")
def student(data):
    spec = load_recipe("digits_quantum").student
    return qkd_qiskit.make_student(spec, image_shape=data.image_shape, num_classes=10)


@pytest.mark.parametrize("name", list_recipes())
def test_the_repr_of_a_recipe_gives_it_again(name):
    recipe = load_recipe(name)
    text = repr(recipe)
    assert eval(text, {spec.__name__: spec for spec in SPECS}) == recipe
    assert len(text) < 1200
    assert "weight_decay=0.0," not in text


def test_a_recipe_shows_what_is_not_as_by_default():
    html = load_recipe("digits_quantum", {"seeds": [3, 5]})._repr_html_()
    for text in ("digits, train_per_class 10", "temperature 2", "exact, aer", "3, 5", "layers 20"):
        assert text in html
    assert ">quantum, qubits 6, ansatz ry_rz_ring, layers 20, " in html
    assert ">5</td>" in load_recipe("digits")._repr_html_()
    assert "weight_decay" not in html
    assert "null" not in html
    assert "None" not in html


def test_tensors_are_shown_by_their_shape(data, student):
    assert repr(data.test) == "Split(images=Tensor(599, 1, 8, 8), labels=Tensor(599,))"
    assert len(repr(data)) < 500
    teacher = qkd_qiskit.make_teacher(TeacherSpec(epochs=1), data)
    assert re.fullmatch(r"Teacher\(kind='softmax', .*\)", repr(teacher))
    spec = DistillSpec(epochs=2)
    trained = qkd_qiskit.distill(student, teacher, data, spec=spec, train_per_class=2)
    last = trained.history[-1]
    assert repr(trained).startswith("TrainingResult(distilled, seed 0: 2 epochs, loss ")
    assert f"{last.validation_accuracy:.1%}" in repr(trained)
    assert "tensor" not in repr(trained)


def test_students_say_their_sizes(student):
    assert "240 trained numbers, 6 qubits, 240 weights" in repr(student)
    assert "CompiledConnector(6 qubits, 240 weights, 182 two-qubit gates" in repr(student)
    html = student._repr_html_()
    assert "Student of kind quantum" in html
    gates, depth = student.circuit.num_nonlocal_gates(), student.circuit.depth()
    assert f"6 qubits, depth {depth}, {gates} two-qubit gates" in html
    twin = replace(student.spec, kind="classical", head="linear", readout="probabilities")
    classical = qkd_qiskit.make_student(twin, image_shape=(1, 8, 8), num_classes=10)
    assert "circuit" not in classical._repr_html_()


def test_an_evaluation_shows_its_figures(data, student):
    evaluation = qkd_qiskit.evaluate(student, data.test)
    html = evaluation._repr_html_()
    assert f">{evaluation.accuracy:.1%}<" in html
    assert ">599<" in html
    assert "shots</td>" not in html.replace("noise and shots", "")
    counts = torch.tensor(evaluation.confusion).fill_diagonal_(0)
    assert f", {int(counts.max())} times" in html
    assert "confusion" not in repr(evaluation)
    perfect = replace(evaluation, confusion=[[3, 0], [0, 3]], shots=100, divergence=0.25)
    assert "mixed up" not in perfect._repr_html_()
    assert "100 for each image" in perfect._repr_html_()
    assert "0.250 nats" in perfect._repr_html_()


def test_a_result_shows_means_and_gains():
    result = make_result({"label_only": {"exact": [0.5, 0.6]}, "distilled": {"exact": [0.7, 0.8]}})
    # A gain of 20 points for both seeds: an interval of no width.
    assert repr(result) == (
        "Result(2 seeds of label_only, distilled on exact; gain on exact +20.0 [+20.0, +20.0])"
    )
    html = result._repr_html_()
    assert ">distilled - label only</td>" in html
    assert "+20.0 [+20.0, +20.0]" in html


def test_targets_say_what_they_are():
    assert repr(qkd_qiskit.Target.parse("aer", shots=10)).endswith("('aer', shots=10, seed=0)")


def test_html_is_escaped_and_needs_nothing_from_elsewhere(finished):
    html = html_table(["<a>"], [["&", "<b>"]], caption="<c>")
    assert not re.search("<[abc]>", html)
    assert "&amp;" in html
    run = qkd_qiskit.Run(finished)
    for page in (run, run.recipe, run.result, run.student()):
        text = page._repr_html_()
        assert len(text) < 6000
        assert not re.search(r"https?:|<script|<link|<style|src=|url\(|#[0-9a-f]{3}", text)
        assert "tensor(" not in text
