"""The table of arms, and arms of one's own in a recipe: names, changes, what is refused."""

import pytest
import yaml

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import ARMS, Recipe
from qkd_qiskit.recipe.arms import COUNTING_BASELINE, FIRST_NOISY
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe

MINE = {
    "base": "distilled",
    "distill.temperature": 2.0,
    "distill.train_target": "fake_lima",
    "distill.gradient": "noisy",
}


def test_arms_of_the_table_name_only_arms_of_the_table():
    for name, arm in ARMS.items():
        assert set(arm.compared_with) <= {*ARMS, COUNTING_BASELINE}, name
        assert arm.before is None or ARMS[arm.before].began
        assert arm.label
        assert arm.description
    assert ARMS["distilled_noisy"].train_target == FIRST_NOISY


def test_an_own_arm_changes_student_and_distillation_of_its_base():
    recipe = Recipe(
        arms=("label_only", "mine", "wide"),
        own_arms={"mine": MINE, "wide": {"base": "label_only", "student.qubits": 5}},
    )
    spec = recipe.distill_of("mine")
    assert (spec.temperature, spec.train_target, spec.gradient) == (2.0, "fake_lima", "noisy")
    assert recipe.student_of("mine") == recipe.student
    assert recipe.student_of("wide").qubits == 5
    assert recipe.distill_of("wide") == recipe.distill
    mine, wide = recipe.arm_table["mine"], recipe.arm_table["wide"]
    assert (mine.loss, wide.loss) == ("distilled", "labels")
    assert mine.compared_with == (COUNTING_BASELINE, "distilled")
    assert len({mine.population, wide.population, "students"}) == 3


def test_own_arms_go_through_yaml_and_back(tmp_path):
    path = tmp_path / "recipe.yaml"
    tree = {"mine": {"distill": {"temperature": 2.0}}, "other": MINE}
    recipe = load_recipe("digits", {"own_arms": tree, "arms": ["label_only", "mine", "other"]})
    path.write_text(dump_recipe(recipe))
    assert load_recipe(path) == recipe
    assert yaml.safe_load(path.read_text())["own_arms"] == tree
    assert recipe.distill_of("mine").temperature == 2.0
    assert "own_arms" not in dump_recipe(load_recipe("digits"))
    flag = load_recipe("digits", {"own_arms": "{mine: {distill.temperature: 2.0}}"})
    assert flag.distill_of("mine").temperature == 2.0


def test_a_device_of_an_own_arm_takes_the_place_of_its_bases():
    own = {"base": "distilled_noisy", "distill.gradient": "noisy"}
    own |= {"distill.train_target": "fake_lima"}
    recipe = Recipe(arms=("mine",), targets=("exact",), own_arms={"mine": own})
    assert recipe.arm_table["mine"].train_target is None
    with pytest.raises(RecipeError, match="a device such as fake_torino for the arm mine"):
        Recipe(
            arms=("mine",),
            targets=("exact",),
            own_arms={"mine": {"base": "distilled_noisy", "distill.lr": 0.1}},
        )


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ({"mine": {"distill.temprature": 2}}, "did you mean distill.temperature?"),
        ({"mine": {"distill.temperature": -1}}, "own_arms.mine: distill.temperature: -1"),
        ({"mine": {"student.kind": "hybird"}}, "did you mean hybrid?"),
        ({"mine": {"student.kind": "quantum"}}, "own_arms.mine: student.head: 'linear'"),
        ({"mine": {"data.name": "mnist"}}, "own_arms.mine.data.name: 'mnist' is not accepted"),
        ({"mine": {"teacher.epochs": 2}}, "the arms of a run share everything else"),
        ({"mine": {"seeds": 2}}, "own_arms.mine.seeds: 2 is not accepted"),
        ({"mine": {"base": "recalibrated", "distill.lr": 1}}, "own_arms.mine.base"),
        ({"mine": {"base": "distilled_tuned", "taught_by": "label_only"}}, "mine.taught_by"),
        ({"mine": {"base": "distilled"}}, "at least one key that the arm changes"),
        ({"distilled": {"distill.lr": 1}}, "that no built-in arm or folder of a run has"),
        ({"../mine": {"distill.lr": 1}}, "a name of small letters"),
        ({"checkpoints": {"distill.lr": 1}}, "that no built-in arm or folder of a run has"),
        ({"mine": 3}, "give a tree of keys"),
        (
            {"mine": {"base": "distilled_noisy", "student.kind": "convolution"}},
            "filters are trained exactly",
        ),
        ({"mine": {"distill.train_target": "fake_lima"}}, "own_arms.mine: distill.gradient"),
    ],
)
def test_what_an_own_arm_cannot_be(own, expected):
    for build in (lambda: Recipe(own_arms=own), lambda: load_recipe("digits", {"own_arms": own})):
        with pytest.raises(RecipeError) as raised:
            build()
        assert expected in str(raised.value)
        assert "\n" not in str(raised.value)


def test_an_unknown_arm_is_refused_with_the_names_of_ones_own():
    with pytest.raises(RecipeError, match=r"\['min'\].*did you mean mine\?.*one of label_only"):
        Recipe(arms=("min",), own_arms={"mine": MINE})
