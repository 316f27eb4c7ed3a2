"""The JSON Schema of recipes: every built-in recipe fits it, and what is wrong does not."""

import json
from dataclasses import MISSING, fields
from typing import Any

import pytest
import yaml

from qkd_qiskit.cli import main
from qkd_qiskit.recipe import DataSpec, Recipe, StudentSpec
from qkd_qiskit.recipe.parsing import dump_recipe, list_recipes, load_recipe, recipe_keys, sections
from qkd_qiskit.recipe.schema import field_descriptions, recipe_schema

TYPES: dict[str, Any] = {
    "object": dict,
    "array": list,
    "string": str,
    "null": type(None),
    "boolean": bool,
    "integer": int,
    "number": int | float,
}


def fits(schema, value):
    """Whether a value fits a schema made of the few words that ours uses."""
    for word, given in schema.items():
        if word == "anyOf":
            right = any(fits(each, value) for each in given)
        elif word == "enum":
            right = value in given
        elif word == "type":
            right = isinstance(value, TYPES[given]) and (
                given == "boolean" or not isinstance(value, bool)
            )
        elif word in ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"):
            right = (
                not isinstance(value, int | float)
                or {
                    "minimum": value >= given,
                    "maximum": value <= given,
                    "exclusiveMinimum": value > given,
                    "exclusiveMaximum": value < given,
                }[word]
            )
        elif word == "items":
            right = not isinstance(value, list) or all(fits(given, item) for item in value)
        elif word == "properties":
            right = all(fits(given[key], item) for key, item in value.items() if key in given)
        elif word == "additionalProperties":
            others = [
                item for key, item in value.items() if key not in schema.get("properties", {})
            ]
            right = not others if given is False else all(fits(given, item) for item in others)
        elif word == "if":
            right = not fits(given, value) or fits(schema["then"], value)
        elif word == "not":
            right = not fits(given, value)
        elif word == "required":
            right = not isinstance(value, dict) or set(given) <= set(value)
        else:
            assert word in ("$schema", "title", "description", "default", "then")
            right = True
        if not right:
            return False
    return True


@pytest.mark.parametrize("name", list_recipes())
def test_every_built_in_recipe_fits(name):
    assert fits(recipe_schema(), yaml.safe_load(dump_recipe(load_recipe(name))))


@pytest.mark.parametrize(
    "text",
    [
        "student: {kind: hybird}",
        "student: {qubits: 21}",
        "student: {qubits: four}",
        "student: {qbits: 4}",
        "student: 4",
        "distill: {temperature: 0}",
        "distill: {lr: null}",
        "data: {validation_fraction: 1.0}",
        "data: {classes: [a]}",
        "arms: distilled",
        "arms: [distiled]",
        "teacher: {same_draw: 1}",
        "seeds: 0",
        "seeds: [-1]",
        "unheard_of: 1",
    ],
)
def test_what_is_wrong_does_not_fit(text):
    assert not fits(recipe_schema(), yaml.safe_load(text))


def test_it_has_every_key_with_default_and_meaning():
    properties = recipe_schema()["properties"]
    for key in recipe_keys():
        section, _, field = key.rpartition(".")
        entry = (properties[section]["properties"] if section else properties)[field]
        assert len(entry["description"]) > 10
        (default,) = (
            own.default if own.default_factory is MISSING else own.default_factory()
            for own in fields(sections()[section] if section else Recipe)
            if own.name == field
        )
        assert entry["default"] == (list(default) if isinstance(default, tuple) else default)
    layers = properties["student"]["properties"]["layers"]
    assert (layers["type"], layers["minimum"], layers["default"]) == ("integer", 1, 2)


def test_descriptions_are_those_of_the_docstrings():
    assert field_descriptions(StudentSpec)["qubits"] == "Width of the circuit."
    assert field_descriptions(DataSpec)["root"].endswith("else the user's cache folder.")
    assert "\n" not in "".join(field_descriptions(StudentSpec).values())
    assert not any(">>>" in text for text in field_descriptions(Recipe).values())


def test_the_command_prints_it(capsys):
    assert main(["recipes", "schema"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_schema()
    assert recipe_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
