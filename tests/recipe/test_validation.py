"""Recipes made in Python, YAML or flags are refused alike, by the type hints of their fields."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pytest

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import (
    DataSpec,
    DistillSpec,
    Recipe,
    RuntimeSpec,
    StudentSpec,
    TeacherSpec,
)
from qkd_qiskit.recipe.parsing import parse_recipe, parse_spec
from qkd_qiskit.recipe.validation import Range, check_fields, checked, shown

SPECS = {
    "data": DataSpec,
    "teacher": TeacherSpec,
    "student": StudentSpec,
    "distill": DistillSpec,
    "runtime": RuntimeSpec,
}


def in_python(key, value):
    section, _, field = key.rpartition(".")
    return SPECS.get(section, Recipe)(**{field: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("student.kind", "hybird", "'hybird' is not accepted; did you mean hybrid? give one of qu"),
        ("student.head", "lineer", "'lineer' is not accepted; did you mean linear? give one of no"),
        ("student.qubits", 4.0, "4.0 is not accepted; give a whole number, 1 to 20"),
        ("student.qubits", True, "True is not accepted; give a whole number, 1 to 20"),
        ("student.layers", 10**8, "100000000 is not accepted; give a whole number of at least 1,"),
        ("student.circuit", 3, "3 is not accepted; give text or null"),
        (
            "student.sharpness",
            "learnt",
            "'learnt' is not accepted; did you mean learned? give a number above 0",
        ),
        ("distill.epochs", None, "None is not accepted; give a whole number of at least 1"),
        ("distill.lr", True, "True is not accepted; give a number above 0"),
        ("distill.lr", float("inf"), "inf is not accepted; give a number above 0"),
        ("distill.temperature", [4], "[4] is not accepted; give a number above 0, at most 1000"),
        ("distill.ce_weight", float("nan"), "nan is not accepted; give a finite number, 0 or more"),
        ("distill.student_temperature", 0, "0.0 is not accepted; give a number above 0, at most"),
        ("teacher.weight_decay", float("inf"), "inf is not accepted; give a finite number"),
        ("teacher.same_draw", 1, "1 is not accepted; give true or false"),
        ("data.classes", [0, 1.5], "[0, 1.5] is not accepted; give a list [a, b, ...], each a wh"),
        ("data.root", "a\0b", r"'a\x00b' is not accepted; give text without null bytes"),
        ("data.difficulty", 2.0, "2.0 is not accepted; give a number from 0 to 1"),
        ("runtime.twirl_gates", "maybe", "'maybe' is not accepted; give true or false"),
        ("arms", ["distiled"], "['distiled'] is not accepted; did you mean distilled? give a list"),
        ("targets", [["exact"]], "[['exact']] is not accepted; give a list [a, b, ...], each text"),
        ("seeds", 10**12, "1000000000000 is not accepted; give a whole number of at least 1, at"),
        ("seeds", [0, -1], "[0, -1] is not accepted; give a whole number of at least 1, at most"),
        ("seed", 2**32, "4294967296 is not accepted; give a whole number from 0 to 2**32 - 1"),
    ],
)
def test_python_and_yaml_say_the_same(key, value, message):
    with pytest.raises(RecipeError) as parsed:
        parse_recipe({}, overrides={key: value})
    with pytest.raises(RecipeError) as made:
        in_python(key, value)
    assert str(made.value).startswith(f"{key}: {message}")
    assert str(parsed.value) == str(made.value)


def test_values_are_kept_in_the_type_that_is_hinted_at():
    spec = DistillSpec(temperature=4, epochs=np.int64(3), lr=np.float32(0.5))
    assert type(spec.temperature) is float
    assert type(spec.epochs) is int
    assert (spec.epochs, spec.lr) == (3, 0.5)
    assert DataSpec(classes=[1, 2], root=Path("a/b")).root == "a/b"
    recipe = Recipe(seeds=range(2), arms=["distilled"])
    assert (recipe.seeds, recipe.arms) == ((0, 1), ("distilled",))
    assert StudentSpec(sharpness=8).sharpness == 8.0


def test_text_in_python_is_no_number():
    with pytest.raises(RecipeError, match=r"distill\.epochs: '4' is not accepted; give a whole"):
        DistillSpec(epochs="4")
    assert parse_recipe({"distill": {"epochs": "4", "lr": "1e-3"}}).distill == DistillSpec(
        epochs=4, lr=0.001
    )


@pytest.mark.parametrize("given", [{}, 3, None, StudentSpec(), [1]])
def test_a_part_of_a_recipe_is_of_its_own_kind(given):
    with pytest.raises(RecipeError, match=r"^distill: .* is not accepted; give a DistillSpec$"):
        Recipe(distill=given)


def test_one_part_of_a_recipe_is_read_without_the_others():
    spec = parse_spec(StudentSpec, {"qubits": "6", "sharpness": 2}, section="student")
    assert spec == StudentSpec(qubits=6, sharpness=2.0)
    with pytest.raises(RecipeError, match=r"qbits: no such key .* did you mean student\.q"):
        parse_spec(StudentSpec, {"qbits": 6}, section="student")
    with pytest.raises(RecipeError, match="student: 3 is not accepted; give a tree of keys"):
        parse_spec(StudentSpec, 3, section="student")


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (int | None, "7", 7),
        (bool, "Yes", True),
        (tuple[int, ...], "1,2", (1, 2)),
        (tuple[int, ...], "[1, 2]", (1, 2)),
        (int | tuple[int, ...], "3", 3),
        (int | tuple[int, ...], "3,", (3,)),
        (tuple[str, ...], "['a', \"b\"]", ("a", "b")),
        (float | Literal["learned"], "learned", "learned"),
        (float | Literal["learned"], "1e-3", 0.001),
        (str | None, "7", "7"),
    ],
)
def test_text_is_read_by_the_type_that_is_hinted_at(kind, text, value):
    assert checked("key", kind, text, text=True) == value


def test_any_dataclass_can_be_checked():
    @dataclass(frozen=True)
    class Own:
        share: Annotated[float, Range(accepted="a share", least=0, most=1)] = 0.5

        def __post_init__(self):
            check_fields(self, "own")

    Own.__annotations__["share"] = Annotated[float, Range(accepted="a share", least=0, most=1)]
    assert Own(share=1).share == 1.0
    with pytest.raises(RecipeError, match=r"own\.share: 1\.5 is not accepted; give a share"):
        Own(share=1.5)


def test_what_was_given_is_shown_in_one_short_line():
    bomb = ["x"]
    for _ in range(40):
        bomb = [bomb] * 9
    assert len(shown(bomb)) < 20_000
    assert shown(10**5000) == "int of too many digits"
    assert "\n" not in shown("a\nb")
    assert len(shown("x" * 10**6)) < 200
