"""Settings that do nothing are said, and those of the built-in recipes all do something."""

import pytest

from qkd_qiskit.recipe import DataSpec, StudentSpec, TeacherSpec
from qkd_qiskit.recipe import unused as unused_module
from qkd_qiskit.recipe.parsing import list_recipes, load_recipe
from qkd_qiskit.recipe.unused import say_unused


@pytest.fixture
def log(caplog):
    unused_module._warn_once.cache_clear()
    return caplog


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (DataSpec(root="x"), "data.root does nothing where data.name is digits"),
        (
            DataSpec(points=60, features=8),
            "data.points and data.features do nothing where data.name is digits",
        ),
        (DataSpec(digest="0" * 64), "data.digest does nothing where data.file is null"),
        (
            DataSpec(draw="first"),
            "data.draw does nothing where data.train_per_class and data.train_points are null",
        ),
        (
            TeacherSpec(checkpoint="x", epochs=5),
            "teacher.epochs does nothing where teacher.checkpoint is given",
        ),
        (TeacherSpec(average="logits"), "teacher.average does nothing where teacher.ensemble is 1"),
        (
            TeacherSpec(kind="run", run="x", epochs=5, train_per_class=9),
            "teacher.epochs and teacher.train_per_class do nothing where teacher.kind is run",
        ),
        (
            TeacherSpec(kind="logits", lr=5, arm="transfer"),
            "teacher.arm and teacher.lr do nothing where teacher.kind is logits",
        ),
        (
            TeacherSpec(kind="run", run="x", seed=3, average="logits"),
            "teacher.average does nothing where teacher.seed is not all",
        ),
        (TeacherSpec(target="aer"), "teacher.target does nothing where teacher.kind is softmax"),
        (
            StudentSpec(circuit="x.qasm", layers=7),
            "student.layers does nothing where student.circuit is given",
        ),
        (
            StudentSpec(features=5),
            "student.features does nothing where student.encoding is amplitude",
        ),
        (StudentSpec(head_width=5), "student.head_width does nothing where student.head is linear"),
        (
            StudentSpec(sharpness=3),
            "student.sharpness does nothing where student.readout is probabilities",
        ),
        (
            StudentSpec(kind="quanvolution", qubits=7),
            "student.qubits does nothing where student.kind is quanvolution",
        ),
    ],
)
def test_what_does_nothing_is_said_once(spec, expected, log):
    for _ in range(2):
        say_unused(spec)
    assert log.messages == [expected]


@pytest.mark.parametrize(
    "spec",
    [
        DataSpec(name="mnist", root="x", train_per_class=5, draw="first"),
        DataSpec(name="generated", points=60, features=8),
        TeacherSpec(epochs=5),
        TeacherSpec(ensemble=2, average="logits"),
        TeacherSpec(kind="run", run="x", arm="transfer", target="aer", average="logits"),
        StudentSpec(head="mlp", head_width=5),
        StudentSpec(head="none", readout="bins", sharpness=3),
        StudentSpec(full_width=5),  # of the arm distilled_full
    ],
)
def test_what_does_something_is_not(spec, log):
    say_unused(spec)
    assert log.messages == []


def test_built_in_recipes_have_nothing_unused(log):
    for name in list_recipes():
        recipe = load_recipe(name)
        for spec in (recipe.data, recipe.teacher, recipe.student):
            say_unused(spec)
    assert log.messages == []
