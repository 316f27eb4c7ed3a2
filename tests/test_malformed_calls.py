"""Whatever the Python API is given: an error of its own tree, in one line, soon."""

import json
import time
from pathlib import Path

import pytest
import torch

import qkd_qiskit
from qkd_qiskit import (
    DataSpec,
    DistillSpec,
    Recipe,
    StudentSpec,
    Target,
    TeacherSpec,
    distill,
    evaluate,
    load_data,
    load_recipe,
    load_student,
    make_student,
    make_teacher,
)
from qkd_qiskit.errors import QKDError

SHAPE = {"image_shape": (1, 4, 4), "num_classes": 3}


@pytest.fixture(scope="module")
def made():
    """What calls are given in the place of something else."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = torch.rand(90, 1, 4, 4, generator=generator)
    data = qkd_qiskit.Data.from_arrays(images.numpy(), labels.numpy(), seed=1)
    student = make_student(StudentSpec(qubits=2), **SHAPE)
    return data, student, make_teacher(TeacherSpec(epochs=1), data)


@pytest.fixture
def folder(tmp_path, made):
    """Saved students, each with something wrong."""
    _, student, _ = made
    for name in ("weights", "card", "deep", "spec", "shape", "empty"):
        student.save(tmp_path / name)
    (tmp_path / "weights/weights.safetensors").write_bytes(b"x" * 100)
    (tmp_path / "card/student.json").write_text("[1")
    (tmp_path / "deep/student.json").write_text("[" * 100_000)
    card = json.loads((tmp_path / "spec/student.json").read_text())
    for name, change in {
        "spec": {"student": {**card["student"], "kind": "hybird"}},
        "shape": {"image_shape": [1, 4]},
    }.items():
        (tmp_path / name / "student.json").write_text(json.dumps({**card, **change}))
    (tmp_path / "empty/weights.safetensors").write_bytes(b"")
    (tmp_path / "list.yaml").write_text("[1]")
    return tmp_path


SPECS = [
    *[(StudentSpec, {"qubits": value}) for value in (0, 21, -1, 2.0, "4", None, True, [4], 1j)],
    *[(StudentSpec, {"kind": value}) for value in ("", "hybird", None, 3, ["hybrid"], object())],
    *[(StudentSpec, {"sharpness": value}) for value in (0, -1, float("nan"), "sharp", None)],
    *[(StudentSpec, {"layers": value}) for value in (0, 10**8, 10**30, "2", {})],
    *[(DistillSpec, {"epochs": value}) for value in (0, 10**12, 1.5, "x", None, torch.ones(2))],
    *[(DistillSpec, {"lr": value}) for value in (0, -1, float("inf"), "x", 10**400, [])],
    *[(DistillSpec, {"batch_size": value}) for value in (0, 10**30, 2.5)],
    *[(TeacherSpec, {"kind": value}) for value in ("resnet", None, 1)],
    *[(TeacherSpec, {"module": value}) for value in ("a:b", 3)],
    *[(DataSpec, {"classes": value}) for value in ((), (1,), (1, 1), "all", 3, [0.5, 1], {0: 1})],
    *[(DataSpec, {"root": value}) for value in (3, "a\0b", "\ud800", b"bytes")],
    *[(DataSpec, {"validation_fraction": value}) for value in (0, 1, -1, float("nan"), "half")],
    *[(Recipe, {"seeds": value}) for value in (0, -1, 10**12, [], [0, 0], [-1], "3", 1.5, None)],
    *[(Recipe, {"arms": value}) for value in ((), "distilled", ["x"], [1], None, {"distilled": 1})],
    *[(Recipe, {"student": value}) for value in ({}, None, "hybrid", TeacherSpec())],
    *[(Recipe, {"shots": value}) for value in (0, 10**12, "4096")],
]


def refused(call):
    """The line that a call is refused with."""
    start = time.monotonic()
    with pytest.raises(QKDError) as caught:
        call()
    assert time.monotonic() - start < 10
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(("kind", "values"), SPECS, ids=range(len(SPECS)))
def test_a_specification(kind, values):
    assert next(iter(values)) in refused(lambda: kind(**values))


CALLS = {
    "no such recipe": lambda *_: load_recipe("nonsense"),
    "recipe of null bytes": lambda *_: load_recipe("a\0b"),
    "recipe file of null bytes": lambda *_: load_recipe("a\0b.yaml"),
    "folder as recipe": lambda *_: load_recipe(Path("/")),
    "list as recipe": lambda made, folder: load_recipe(folder / "list.yaml"),
    "unknown override": lambda *_: load_recipe("digits", {"student.qbits": 4}),
    "section as override": lambda *_: load_recipe("digits", {"student": 4}),
    "number as override key": lambda *_: load_recipe("digits", {"": 4}),
    "no student there": lambda made, folder: load_student(folder / "nowhere"),
    "damaged weights": lambda made, folder: load_student(folder / "weights"),
    "empty weights": lambda made, folder: load_student(folder / "empty"),
    "damaged card": lambda made, folder: load_student(folder / "card"),
    "deep card": lambda made, folder: load_student(folder / "deep"),
    "card of another kind": lambda made, folder: load_student(folder / "spec"),
    "card of another shape": lambda made, folder: load_student(folder / "shape"),
    "student of null bytes": lambda *_: load_student("a\0b"),
    "one class": lambda *_: make_student(StudentSpec(), image_shape=(1, 4, 4), num_classes=1),
    "no pixels": lambda *_: make_student(StudentSpec(), image_shape=(1, 0, 4), num_classes=3),
    "too many amplitudes": lambda *_: make_student(StudentSpec(qubits=20), **SHAPE),
    "too few qubits": lambda *_: make_student(
        StudentSpec(qubits=1, head="none", readout="bins"), **SHAPE
    ),
    "no circuit file": lambda *_: make_student(StudentSpec(circuit="nowhere.qasm"), **SHAPE),
    "folder as circuit file": lambda *_: make_student(StudentSpec(circuit="/"), **SHAPE),
    "no such class": lambda *_: load_data(DataSpec(classes=(0, 9), name="generated")),
    "no file": lambda *_: load_data(DataSpec(name="arrays", file="nowhere.npz")),
    "folder as file": lambda *_: load_data(DataSpec(name="arrays", file="/")),
    "too few images": lambda *_: load_data(DataSpec(test_per_class=10**9)),
    "no folder": lambda *_: load_data(DataSpec(name="cifar10", root="nowhere")),
    "too many per class": lambda made, _: distill(
        made[1], made[2], made[0], train_per_class=10**9, spec=DistillSpec(epochs=1)
    ),
    "module as teacher": lambda made, _: distill(made[1], torch.nn.Linear(2, 3), made[0]),
    "other classes": lambda made, _: distill(
        make_student(StudentSpec(), image_shape=(1, 4, 4), num_classes=2), made[2], made[0]
    ),
    "no layer": lambda made, _: distill(
        made[1],
        made[2],
        made[0],
        spec=DistillSpec(feature_weight=1.0, teacher_layer="x", student_layer="x"),
    ),
    "too many shifted weights": lambda made, _: distill(
        made[1],
        made[2],
        made[0],
        spec=DistillSpec(
            gradient="parameter_shift", train_target="aer", shifted_weights=10**6, epochs=1
        ),
    ),
    "no such target": lambda *_: Target.parse("nowhere"),
    "empty target": lambda *_: Target.parse(""),
    "target with options": lambda *_: Target.parse("exact:scale=2"),
    "no scale": lambda *_: Target.parse("fake_manila:scale=nan"),
    "no shots": lambda *_: Target.parse("aer", shots=0),
    "no data": lambda made, _: distill(made[1], made[2], None),
    "arrays as data": lambda made, _: distill(made[1], made[2], (made[0].pool.images, None)),
    "no student": lambda made, _: distill(None, made[2], made[0]),
    "teacher as student": lambda made, _: distill(made[2], made[1], made[0]),
    "another specification": lambda made, _: distill(made[1], made[2], made[0], spec=StudentSpec()),
    "empty dictionary as specification": lambda made, _: distill(*made[1:], made[0], spec={}),
    "number as loss": lambda made, _: distill(*made[1:], made[0], loss=3),
    "number as callback": lambda made, _: distill(*made[1:], made[0], on_epoch=3),
    "no shots to train with": lambda made, _: distill(*made[1:], made[0], shots=0),
    "no images per class": lambda made, _: distill(*made[1:], made[0], train_per_class=0),
    "half an image per class": lambda made, _: distill(*made[1:], made[0], train_per_class=1.5),
    "data as split": lambda made, _: evaluate(made[1], made[0]),
    "teacher evaluated": lambda made, _: evaluate(made[2], made[0].test),
    "empty split": lambda made, _: evaluate(made[1], made[0].test[torch.arange(0)]),
    "more images than labels": lambda made, _: evaluate(
        made[1], qkd_qiskit.Split(made[0].test.images, made[0].test.labels[1:])
    ),
    "negative labels": lambda made, _: evaluate(
        made[1], qkd_qiskit.Split(made[0].test.images, made[0].test.labels - 1)
    ),
    "subset of nothing": lambda made, _: qkd_qiskit.subset(made[0].test, limit=0),
    "subset by text": lambda made, _: qkd_qiskit.subset(made[0].test, limit="5"),
    "logits of an array": lambda made, _: made[2].logits(made[0].test.images.numpy()),
    "number as cache": lambda made, _: make_teacher(TeacherSpec(epochs=1), made[0], cache=3),
    "cache of nobody": lambda made, _: made[2].logits(
        made[0].test.images, cache="~nobody-of-that-name/x"
    ),
    "dictionary as student": lambda *_: make_student({}, **SHAPE),
    "dictionary as data": lambda *_: load_data({"name": "digits"}),
    "dictionary as teacher": lambda made, _: make_teacher({}, made[0]),
    "images of another shape": lambda made, _: evaluate(
        make_student(StudentSpec(), image_shape=(1, 5, 5), num_classes=3), made[0].test
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call(name, made, folder):
    refused(lambda: CALLS[name](made, folder))


def test_images_of_double_precision_are_evaluated_alike(made):
    data, student, _ = made
    double = qkd_qiskit.Split(data.test.images.double(), data.test.labels)
    assert evaluate(student, double) == evaluate(student, data.test)
