"""Observables as text: what is read, what is written back, what is refused."""

import pytest

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import Recipe, StudentSpec
from qkd_qiskit.recipe.observables import read_pauli_sum, write_pauli_sum
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("ZZII", [("ZZII", 1.0)]),
        ("-XY", [("XY", -1.0)]),
        ("0.5*ZIII+0.5*IZII", [("ZIII", 0.5), ("IZII", 0.5)]),
        (" 1e-3*ZZ - .25*XX ", [("ZZ", 1e-3), ("XX", -0.25)]),
        ("2.*Z-Z", [("Z", 2.0), ("Z", -1.0)]),
    ],
)
def test_a_sum_is_read_and_written_back(text, terms):
    assert read_pauli_sum(text) == terms
    assert read_pauli_sum(write_pauli_sum(terms)) == terms


@pytest.mark.parametrize(
    "text",
    ["", "ZA", "zz", "0.5ZZ", "ZZ XX*2", "ZZ+", "ZZ+X", "ZZ*0.5", "1e999*ZZ", "Z" * 10_001, "*ZZ"],
)
def test_what_is_no_sum_is_refused(text):
    assert read_pauli_sum(text) is None
    with pytest.raises(RecipeError, match=r"student\.observables") as caught:
        StudentSpec(readout="expectation", observables=[text])
    assert "\n" not in str(caught.value)


def test_observables_belong_to_the_readout_expectation():
    with pytest.raises(RecipeError, match=r"null, or student\.readout: expectation"):
        StudentSpec(observables=["ZZII"])
    with pytest.raises(RecipeError, match=r"student\.observables: \[\] is not accepted"):
        StudentSpec(readout="expectation", observables=[])


def test_a_recipe_with_observables_is_written_and_read(tmp_path):
    changes = {
        "student.readout": "expectation",
        "student.observables": "[ZZII, XIII, 0.5*ZIII+0.5*IZII]",
    }
    recipe = load_recipe("digits", changes)
    assert recipe.student.observables == ("ZZII", "XIII", "0.5*ZIII+0.5*IZII")
    (tmp_path / "own.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "own.yaml") == recipe
    assert "observables" not in dump_recipe(Recipe())
