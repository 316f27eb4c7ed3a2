"""Recipes: the same tree as YAML, dataclasses and overrides, and what is refused by key."""

from dataclasses import fields, replace

import pytest
import yaml
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import (
    DataSpec,
    DistillSpec,
    Recipe,
    RuntimeSpec,
    StudentSpec,
    TeacherSpec,
)
from qkd_qiskit.recipe.parsing import (
    dump_recipe,
    flat_recipe,
    list_recipes,
    load_recipe,
    parse_recipe,
    recipe_keys,
)


@pytest.mark.parametrize("name", list_recipes())
def test_built_in_recipes_load_and_survive_yaml(name):
    recipe = load_recipe(name)
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe
    assert list_recipes()[name]


def test_the_recipes_that_are_promised_are_there():
    assert {"digits", "digits_quantum", "mnist", "fashion_mnist", "paper_v2"} <= set(list_recipes())
    assert {"slides_c2q_hybrid", "slides_c2q_quantum"} <= set(list_recipes())


# A word that YAML reads as nothing is read as nothing here too.
PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).filter(
    lambda text: text.lower() not in ("null", "~")
)


# To explain a failure, Hypothesis traces every line of the parser: minutes, without a failure too.
@settings(max_examples=12, deadline=None, phases=set(Phase) - {Phase.explain})
@given(
    seeds=st.one_of(st.integers(1, 50), st.lists(st.integers(0, 99), min_size=1, unique=True)),
    classes=st.one_of(st.none(), st.lists(st.integers(0, 9), min_size=2, unique=True)),
    temperature=st.floats(1e-3, 1e3),
    sharpness=st.one_of(st.floats(1e-3, 1e3), st.just("learned")),
    root=st.one_of(st.none(), PATHS),
)
def test_yaml_keeps_every_value(seeds, classes, temperature, sharpness, root):
    recipe = Recipe(
        data=DataSpec(classes=None if classes is None else tuple(classes), root=root),
        distill=DistillSpec(temperature=temperature),
        student=StudentSpec(sharpness=sharpness),
        seeds=seeds if isinstance(seeds, int) else tuple(seeds),
    )
    assert parse_recipe(yaml.safe_load(dump_recipe(recipe))) == recipe


def test_every_field_is_a_key_that_can_be_overridden():
    recipe = load_recipe("digits")
    assert set(flat_recipe(recipe)) == set(recipe_keys())
    own = {f"student.{field.name}" for field in fields(StudentSpec)}
    assert own <= set(recipe_keys())
    assert load_recipe("digits", flat_recipe(recipe)) == recipe


def test_a_recipe_file_needs_only_what_differs(tmp_path):
    path = tmp_path / "own.yaml"
    path.write_text("student: {qubits: 6}\nseeds: [4, 2]\n")
    recipe = load_recipe(path, {"distill.epochs": 7})
    assert recipe == replace(
        Recipe(),
        student=replace(StudentSpec(), qubits=6),
        distill=replace(DistillSpec(), epochs=7),
        seeds=(4, 2),
    )
    assert recipe.member_seeds == (4, 2)


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("data.name", "cifar", "one of digits, mnist, fashion_mnist"),
        ("data.file", "own.npz", "exactly when data.name is `arrays`"),
        ("data.classes", [3], "two or more distinct labels"),
        ("data.classes", [3, 3], "two or more distinct labels"),
        ("data.classes", [0, 10], "from 0 to 9"),
        ("data.classes", "all", "a list"),
        ("data.train_per_class", 0, "at least 1"),
        ("data.train_points", 0, "at least 1"),
        ("data.test_per_class", -1, "at least 1"),
        ("data.validation_fraction", 1.0, "between 0 and 1"),
        ("data.validation_fraction", float("nan"), "between 0 and 1"),
        ("teacher.kind", "resnet", "one of softmax"),
        ("teacher.module", "a.b:c", "exactly when teacher.kind is `module`"),
        ("teacher.epochs", 0, "at least 1"),
        ("teacher.lr", 0.0, "above 0"),
        ("student.kind", "quantum", "kind hybrid"),
        ("student.qubits", 0, "1 to 20"),
        ("student.qubits", 21, "1 to 20"),
        ("student.qubits", 2.5, "a whole number"),
        ("student.qubits", None, "a whole number"),
        ("student.layers", 0, "at least 1"),
        ("student.sharpness", 0.0, "above 0"),
        ("student.sharpness", "sharp", "a number above 0 or learned"),
        ("distill.temperature", 0, "above 0"),
        ("distill.temperature", -4.0, "above 0"),
        ("distill.temperature", float("inf"), "above 0"),
        ("distill.student_temperature", 0.0, "above 0"),
        ("distill.kd_weight", -0.5, "0 or more"),
        ("distill.lr", float("nan"), "above 0"),
        ("distill.lr", 1e38, r"at most 1e\+30"),
        ("distill.batch_size", 0, "at least 1"),
        ("distill.gradient", "guess", "exact"),
        ("arms", [], "one or more distinct"),
        ("arms", ["distilled", "distilled"], "one or more distinct"),
        ("arms", ["teacher"], "one of label_only"),
        ("targets", ["exact", "exact"], "distinct"),
        ("shots", 0, "at least 1"),
        ("seeds", 0, "at least 1"),
        ("seeds", [], "distinct whole numbers"),
        ("seeds", [1, 1], "distinct whole numbers"),
        ("seeds", [-1], "at least 0"),
        ("seed", -1, "0 to 2"),
        ("student.qbits", 3, "did you mean student.qubits"),
        ("student.0123456789", 3, "the keys are student.kind"),
        ("unheard_of", 3, "no such key"),
    ],
)
def test_a_value_that_is_not_accepted_is_named_by_its_key(key, value, accepted):
    with pytest.raises(RecipeError, match=accepted) as caught:
        parse_recipe({}, overrides={key: value})
    message = str(caught.value)
    assert message.startswith(f"{key}: ") or key == "student.kind"
    assert "\n" not in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a tree of keys"),
        ("just words", "a tree of keys"),
        ("[1, 2]", "a tree of keys"),
        ("student: 4", "student: 4 is not accepted; give a tree of keys"),
        ("student: {qubits: [}", "is not YAML"),
        ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ("1: 2", "no such key"),
        ("student:\n  qubits: 4\n  3: 4", "no such key"),
    ],
)
def test_files_that_are_no_recipe(text, message, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(RecipeError, match=message) as caught:
        load_recipe(path)
    assert "\n" not in str(caught.value)


def test_files_that_cannot_be_read(tmp_path):
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path / "absent.yaml", tmp_path / "bytes.yaml", "unheard_of", "", "/tmp"):
        with pytest.raises(RecipeError):
            load_recipe(path)


def test_a_student_without_head_needs_class_bins():
    with pytest.raises(RecipeError, match=r"student\.readout: .* give bins, modulo or learned"):
        StudentSpec(head="none", readout="probabilities")


def test_training_points_are_counted_in_one_way():
    with pytest.raises(RecipeError, match=r"data\.train_points: 50 .* and null for the other"):
        DataSpec(train_per_class=5, train_points=50)


def test_both_weights_zero_train_nothing():
    with pytest.raises(RecipeError, match=r"distill\.ce_weight"):
        DistillSpec(ce_weight=0, kd_weight=0)


def test_a_module_teacher_needs_its_path():
    with pytest.raises(RecipeError, match=r"teacher\.module"):
        TeacherSpec(kind="module")
    assert TeacherSpec(kind="module", module="a:b").module == "a:b"


def test_how_jobs_are_submitted_is_a_part_of_the_recipe():
    recipe = parse_recipe(
        {"runtime": {"mode": "session", "twirl_gates": True, "dynamical_decoupling": "XY4"}},
        overrides={"runtime.max_execution_time": 300},
    )
    assert recipe.runtime == RuntimeSpec(
        mode="session", twirl_gates=True, dynamical_decoupling="XY4", max_execution_time=300
    )
    assert recipe.runtime.twirled
    assert not parse_recipe({}).runtime.twirled


@pytest.mark.parametrize(
    ("key", "value", "accepted"),
    [
        ("mode", "sessions", "one of session, batch, job"),
        ("twirl_gates", 2, "true or false"),
        ("dynamical_decoupling", "XYXY", "one of none, XX, XpXm, XY4"),
        ("max_executions", 0, "a whole number of at least 1"),
        ("max_execution_time", -1, "a whole number of at least 1"),
        ("session_max_time", 0, "a whole number of at least 1"),
    ],
)
def test_what_is_wrong_about_it_is_one_line(key, value, accepted):
    with pytest.raises(RecipeError, match=f"runtime.{key}: .* is not accepted; .*give {accepted}"):
        parse_recipe({"runtime": {key: value}})


def test_features_of_a_network_are_no_images_for_a_convolutional_teacher():
    backbone = {"data.backbone": "torchvision:resnet18"}
    assert load_recipe("cifar10", backbone | {"teacher.kind": "mlp"}).teacher.kind == "mlp"
    with pytest.raises(RecipeError, match="'small_cnn' is not accepted; give softmax or mlp where"):
        load_recipe("cifar10", backbone)
