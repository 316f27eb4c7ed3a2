"""Lists of loss terms in recipes: read, written, refused."""

import pytest
import yaml

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import DistillSpec, LossTerm
from qkd_qiskit.recipe.parsing import dump_recipe, list_recipes, load_recipe, parse_recipe
from qkd_qiskit.recipe.schema import recipe_schema

LISTED = [{"loss": "ce", "weight": 0.3}, {"loss": "dkd", "alpha": 1, "beta": 2.5}]
TERMS = (LossTerm(loss="ce", weight=0.3), LossTerm(loss="dkd", weight=1.0, alpha=1.0, beta=2.5))


@pytest.mark.parametrize(
    "given",
    [LISTED, tuple(LISTED), TERMS, "[{loss: ce, weight: 0.3}, {loss: dkd, alpha: 1, beta: 25e-1}]"],
)
def test_terms_are_read_from_yaml_python_and_flags(given):
    spec = load_recipe("digits", {"distill.terms": given}).distill
    assert spec.terms == TERMS
    assert (spec.ce_weight, spec.kd_weight, spec.feature_weight) == (0.3, 0.0, 0.0)
    assert spec.other_terms == TERMS[1:]
    assert DistillSpec(terms=LISTED).terms == TERMS


def test_terms_come_back_from_yaml():
    recipe = load_recipe("digits", {"distill.terms": LISTED})
    written = yaml.safe_load(dump_recipe(recipe))["distill"]["terms"]
    assert written == [LISTED[0], {"loss": "dkd", "weight": 1.0, "alpha": 1.0, "beta": 2.5}]
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


@pytest.mark.parametrize("name", list_recipes())
def test_recipes_without_terms_are_written_as_ever(name):
    assert "terms" not in dump_recipe(load_recipe(name))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "terms: .* one or more losses"),
        ([{"loss": "kd"}, {"loss": "kd"}], "each once"),
        ([{"loss": "kd", "weight": 0}], "above 0 for at least one"),
        ([{"loss": "dkdd"}], "terms.loss: 'dkdd' is not accepted; did you mean dkd?"),
        ([{"loss": "dkd", "weight": -1}], "terms.weight: -1.0 .* 0 or more"),
        ([{"loss": "dkd", "smoothing": 0.1}], "terms.smoothing: 0.1 .* temperature, alpha, beta"),
        ([{"loss": "kd", "temperature": 2}], "loss and weight alone with the loss kd"),
        ([{"loss": "label_smoothing", "smoothing": 1.5}], "terms.smoothing: 1.5 .* share"),
        ([{"loss": "dist", "temperature": 0}], "terms.temperature: 0.0 .* above 0"),
        ([{"weight": 1}], "each {loss, weight, "),
        ([{"loss": "kd", "wait": 1}], "each {loss, weight, "),
        ([7], "each {loss, weight, "),
        ("dkd", "each {loss, weight, "),
        ("[{", "each {loss, weight, "),
        ([{"loss": "feature"}], "teacher_layer"),
    ],
)
def test_what_is_no_list_of_terms_is_refused_in_one_line(given, message):
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe("digits", {"distill.terms": given})
    assert "\n" not in str(caught.value)


def test_a_students_temperature_without_its_loss_is_refused():
    change = {"distill.terms": LISTED, "distill.student_temperature": 1.0}
    with pytest.raises(RecipeError, match=r"student_temperature: 1\.0 .* no kd"):
        load_recipe("digits", change)
    change["distill.terms"] = [*LISTED, {"loss": "kd"}]
    assert load_recipe("digits", change).distill.student_temperature == 1.0


def test_the_schema_knows_terms():
    listed = recipe_schema()["properties"]["distill"]["properties"]["terms"]["anyOf"][0]
    assert listed["type"] == "array"
    assert "dkd" in listed["items"]["properties"]["loss"]["enum"]
    assert "default" not in listed["items"]["properties"]["loss"]
