"""Every field of every specification changes what a path does, or is refused there."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import qkd_qiskit
from qkd_qiskit.errors import QKDError, RecipeError, TargetError, TeacherError
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, plan_dry_run
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe import (
    DataSpec,
    DistillSpec,
    Recipe,
    RuntimeSpec,
    StudentSpec,
    TeacherSpec,
)
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.targets.ibm.connection import RuntimeConnection
from qkd_qiskit.targets.snapshots import fake_backend

IMAGE_SHAPE, CLASSES = (1, 4, 4), 3


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % 3
    images = 0.2 * torch.rand(90, 1, 4, 4, generator=generator)
    images[torch.arange(90), 0, labels, labels] += 0.5
    return qkd_qiskit.Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory, data):
    """Files that fields name."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    for name in ("one.npz", "other.npz"):
        images, labels = rng.random((60, 4, 4), dtype=np.float32), np.arange(60) % 3
        np.savez(folder / name, images=images, labels=labels)
    own = 'OPENQASM 3.0;\ninclude "stdgates.inc";\ninput float[64] x_000;\ninput float[64] w_000;\n'
    (folder / "own.qasm").write_text(own + "qubit[2] q;\nry(x_000) q[0];\nry(w_000) q[1];\n")
    (folder / "own_teacher.py").write_text(
        "from torch import nn\n\n\n"
        "def make(image_shape, num_classes):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(16, num_classes), nn.Sigmoid())\n"
    )
    (folder / "own_student.py").write_text(OWN_STUDENT)
    (folder / "own_backbone.py").write_text(OWN_BACKBONE)
    save_file({"0.weight": torch.ones(2, 1, 3, 3)}, folder / "own.safetensors")
    return folder


OWN_BACKBONE = """
from torch import nn


def make():
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.Flatten())
"""
OWN_STUDENT = """
from qiskit.circuit.library import n_local, z_feature_map
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import SamplerQNN
from torch import nn


def make(image_shape, num_classes, reps=1):
    features, ansatz = z_feature_map(2, reps=1), n_local(2, "ry", "cz", reps=reps)
    network = SamplerQNN(
        circuit=features.compose(ansatz),
        input_params=list(features.parameters),
        weight_params=list(ansatz.parameters),
    )
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 2), TorchConnector(network), nn.Linear(4, num_classes)
    )


def deeper(image_shape, num_classes):
    return make(image_shape, num_classes, reps=2)
"""


def placed(values, folder):
    """The values, with the path of a file in the place of its name."""
    known = {path.name for path in folder.iterdir()}
    return {
        key: str(folder / value) if isinstance(value, str) and value in known else value
        for key, value in values.items()
    }


def outcome(make, *arguments):
    """What a path does, or the line in which it refuses."""
    try:
        return make(*arguments)
    except QKDError as error:
        return str(error)


GENERATED = {"name": "generated", "points": 60, "features": 8}
DATA = {
    "name": ({}, {"name": "generated"}),
    "root": ({"name": "cifar10", "root": "a"}, {"root": "b"}),
    "file": ({"name": "arrays", "file": "one.npz"}, {"file": "other.npz"}),
    "digest": ({"name": "arrays", "file": "one.npz"}, {"digest": "0" * 64}),
    "size": ({}, {"size": 4}),
    "channels": ({}, {"channels": "rgb"}),
    "backbone": ({}, {"backbone": "module:own_backbone:make"}),
    "backbone_layer": ({"backbone": "module:own_backbone:make"}, {"backbone_layer": "0"}),
    "backbone_weights": ({"backbone": "module:own_backbone:make"}, {"backbone_weights": "random"}),
    "backbone_digest": (
        {"backbone": "module:own_backbone:make", "backbone_weights": "own.safetensors"},
        {"backbone_digest": "0" * 64},
    ),
    "classes": ({}, {"classes": (1, 2)}),
    "train_per_class": ({}, {"train_per_class": 5}),
    "train_points": ({}, {"train_points": 20}),
    "scale": (GENERATED, {"scale": "standard"}),
    "draw": ({"train_per_class": 5}, {"draw": "first"}),
    "validation_fraction": ({}, {"validation_fraction": 0.5}),
    "test_per_class": ({}, {"test_per_class": 3}),
    "points": (GENERATED, {"points": 90}),
    "features": (GENERATED, {"features": 9}),
    "informative": (GENERATED, {"informative": 5}),
    "noise_features": (GENERATED, {"noise_features": 2}),
    "difficulty": (GENERATED, {"difficulty": 0.75}),
}


def loaded(values):
    spec = DataSpec(**values)
    data = qkd_qiskit.load_data(spec)
    return data.fingerprint, data.draw_for(spec, seed=0).tolist()


@pytest.mark.parametrize("field", [field.name for field in fields(DataSpec)])
def test_data(field, files, monkeypatch):
    monkeypatch.syspath_prepend(str(files))
    base, change = (placed(values, files) for values in DATA[field])
    assert outcome(loaded, base) != outcome(loaded, base | change)


TEACHER = {
    "kind": ({}, {"kind": "mlp"}),
    "module": ({"kind": "module", "module": "a:b"}, {"module": "c:d"}),
    "outputs": (
        {"kind": "module", "module": "own_teacher:make", "outputs": "logits"},
        {"outputs": "sigmoid"},
    ),
    "checkpoint": ({}, {"checkpoint": "nowhere.safetensors"}),
    "epochs": ({}, {"epochs": 3}),
    "batch_size": ({}, {"batch_size": 7}),
    "lr": ({}, {"lr": 0.3}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "train_per_class": ({}, {"train_per_class": 3}),
    "same_draw": ({}, {"same_draw": True}),
    "ensemble": ({}, {"ensemble": 2}),
    "average": ({"ensemble": 2}, {"average": "logits"}),
}


OF_STUDENTS = {
    "run": {"run": "nowhere"},
    "arm": {"arm": "label_only"},
    "seed": {"seed": 0},
    "target": {"target": "fake_manila:exact"},
    "digest": {"digest": "0" * 64},
}


@pytest.mark.parametrize("field", list(OF_STUDENTS))
def test_teaching_students(field, finished, tiny, tmp_path):
    def taught(values):
        given = {"kind": "run", "run": str(finished.path)} | values
        keys = {f"teacher.{key}": value for key, value in given.items()}
        path = tmp_path / ("changed" if values else "run")
        folder = RunFolder.create(path, load_recipe(tiny, keys))
        own = qkd_qiskit.load_data(folder.recipe.data, seed=0)
        teacher = load_teachers(folder, own, train=True).by_seed[0]
        return teacher.logits(own.test.images).tolist()

    first = outcome(taught, {})
    assert not isinstance(first, str), first
    assert first != outcome(taught, OF_STUDENTS[field])


@pytest.mark.parametrize(
    "field", [f.name for f in fields(TeacherSpec) if f.name not in OF_STUDENTS]
)
def test_teacher(field, data, files, monkeypatch):
    monkeypatch.syspath_prepend(str(files))

    def made(values):
        teacher = qkd_qiskit.make_teacher(TeacherSpec(**values), data, cache=False)
        return teacher.logits(data.test.images, cache=False).tolist()

    base, change = TEACHER[field]
    base = {"epochs": 2} | base
    assert outcome(made, base) != outcome(made, base | change)


def test_a_teacher_of_the_students_draw_is_for_runs(data):
    with pytest.raises(TeacherError, match=r"teacher\.same_draw: True is not accepted outside"):
        qkd_qiskit.make_teacher(TeacherSpec(same_draw=True), data)


BINS = {"head": "none", "readout": "bins"}
STUDENT = {
    "kind": ({}, {"kind": "classical"}),
    "qubits": ({}, {"qubits": 3}),
    "encoding": ({"layers": 2}, {"encoding": "reuploading"}),
    "features": ({"encoding": "trained_reuploading", "qubits": 3}, {"features": 5}),
    "loader_layers": (
        {"encoding": "matrix_product", "qubits": 3, "reduction": "avg_pool"},
        {"loader_layers": 1},
    ),
    "ansatz": ({}, {"ansatz": "ry_rz_ring"}),
    "layers": ({}, {"layers": 2}),
    "reduction": ({}, {"reduction": "avg_pool"}),
    "readout": ({}, {"readout": "expectation"}),
    "head": ({}, {"head": "mlp"}),
    "head_width": ({"head": "mlp"}, {"head_width": 5}),
    "full_width": ({"kind": "classical_full"}, {"full_width": 5}),
    "sharpness": (BINS, {"sharpness": 3.0}),
    "circuit": ({}, {"circuit": "own.qasm"}),
    "observables": ({"readout": "expectation"}, {"observables": ("XX", "0.5*ZZ-YI")}),
    "module": (
        {"kind": "module", "module": "own_student:make"},
        {"module": "own_student:deeper"},
    ),
}


@pytest.mark.parametrize("field", [field.name for field in fields(StudentSpec)])
def test_student(field, data, files, monkeypatch):
    monkeypatch.chdir(files)

    def made(values):
        spec = StudentSpec(**values)
        student = qkd_qiskit.make_student(spec, image_shape=IMAGE_SHAPE, num_classes=CLASSES)
        return student(data.pool.images[:5]).tolist(), student.num_parameters

    base, change = (placed(values, files) for values in STUDENT[field])
    base = {"qubits": 2, "encoding": "angle", "layers": 1} | base
    assert outcome(made, base) != outcome(made, base | change)


FEATURES = {"feature_weight": 1.0, "teacher_layer": "filters", "student_layer": "filters"}
SHIFTED = {"gradient": "parameter_shift", "train_target": "aer", "steps": 1}
FORWARD = {"gradient": "forward", "train_target": "aer", "steps": 3}
DISTILL = {
    "epochs": ({}, {"epochs": 3}),
    "batch_size": ({}, {"batch_size": 5}),
    "lr": ({}, {"lr": 0.3}),
    "schedule": ({}, {"schedule": "constant"}),
    "weight_decay": ({}, {"weight_decay": 0.5}),
    "temperature": ({}, {"temperature": 2.0}),
    "student_temperature": ({}, {"student_temperature": 1.0}),
    "ce_weight": ({}, {"ce_weight": 0.1}),
    "kd_weight": ({}, {"kd_weight": 0.1}),
    "feature_weight": (FEATURES, {"feature_weight": 0.1}),
    "teacher_layer": (FEATURES, {"teacher_layer": "nowhere"}),
    "student_layer": (FEATURES, {"student_layer": "nowhere"}),
    "gradient": (SHIFTED, {"gradient": "spsa"}),
    "train_target": (SHIFTED, {"train_target": "fake_manila"}),
    "shifted_weights": (SHIFTED, {"shifted_weights": 1}),
    "directions": (FORWARD, {"directions": 2}),
    "adaptive_shots": (FORWARD, {"adaptive_shots": True}),
    "steps": ({}, {"steps": 1}),
    # The weights are those of the last epoch where that is the best one: the choice shows.
    "selection": ({"lr": 3.0, "epochs": 4}, {"selection": "validation"}),
    "terms": ({}, {"terms": [{"loss": "ce"}, {"loss": "dkd"}]}),
    "unlabelled": ({"ce_weight": 0.0}, {"unlabelled": 2}),
    "augment": ({}, {"augment": "shift"}),
    "copies": ({"augment": "jitter"}, {"copies": 3}),
    "device": ({}, {"device": "cuda:99"}),
}


def distilled(values, data, **options):
    featured = "feature_weight" in values
    student = qkd_qiskit.make_student(
        StudentSpec(kind="convolution")
        if featured
        else StudentSpec(qubits=2, encoding="angle", layers=1),
        image_shape=IMAGE_SHAPE,
        num_classes=CLASSES,
    )
    teacher = qkd_qiskit.make_teacher(
        TeacherSpec(kind="convolution" if featured else "softmax", epochs=2), data
    )
    options = {"train_per_class": 4, "shots": 64} | options
    spec = DistillSpec(**values)
    trained = qkd_qiskit.distill(student, teacher, data, spec=spec, **options)
    weights = {name: value.tolist() for name, value in trained.state.items()}
    return weights, trained.chosen_epoch


@pytest.mark.parametrize("field", [field.name for field in fields(DistillSpec)])
def test_distill(field, data):
    base, change = DISTILL[field]
    base = {"epochs": 2, "batch_size": 6} | base
    first = outcome(distilled, base, data)
    assert not isinstance(first, str), first
    assert first != outcome(distilled, base | change, data)


@pytest.mark.parametrize(
    ("kind", "gradient"), [("classical", "spsa"), ("convolution", "parameter_shift")]
)
def test_a_student_without_a_circuit_is_not_trained_on_a_target(kind, gradient, data):
    spec = DistillSpec(gradient=gradient, train_target="aer")
    student = qkd_qiskit.make_student(
        StudentSpec(kind=kind, qubits=2), image_shape=IMAGE_SHAPE, num_classes=CLASSES
    )
    teacher = qkd_qiskit.make_teacher(TeacherSpec(epochs=1), data)
    with pytest.raises(QKDError, match=f"distill.gradient: '{gradient}' is not accepted for a st"):
        qkd_qiskit.distill(student, teacher, data, spec=spec)
    with pytest.raises(RecipeError, match=r"student\.kind: .* another kind where distill\.grad"):
        Recipe(student=StudentSpec(kind=kind), distill=spec, arms=("distilled",))


def test_distill_through_noise_is_what_a_run_trains(data, tmp_path, tiny):
    """One seed of the run's arm and distill() end with the same weights."""
    changes = {
        "arms": ["distilled"],
        "seeds": 1,
        "distill.gradient": "noisy",
        "distill.train_target": "fake_manila",
    }
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, changes))
    run(folder, command="")
    recipe = folder.recipe
    own = qkd_qiskit.load_data(recipe.data, seed=recipe.seed)
    teacher = qkd_qiskit.make_teacher(recipe.teacher, own, seed=recipe.seed)
    student = qkd_qiskit.make_student(
        recipe.student, image_shape=own.image_shape, num_classes=own.num_classes
    )
    qkd_qiskit.distill(student, teacher, own, spec=recipe.distill)
    assert student.executor is None
    kept = qkd_qiskit.load_student(folder.member("distilled", 0))
    for name, value in kept.named_parameters():
        torch.testing.assert_close(dict(student.named_parameters())[name], value)


def test_distill_draws_what_the_data_were_loaded_with():
    spec = DataSpec(classes=(0, 1, 2), train_per_class=4)
    data = qkd_qiskit.load_data(spec)
    teacher = qkd_qiskit.make_teacher(TeacherSpec(epochs=1), data)

    def weights(own, **options):
        student = qkd_qiskit.make_student(
            StudentSpec(qubits=2), image_shape=own.image_shape, num_classes=3
        )
        quick = DistillSpec(epochs=2)  # the first step of Adam sees no more than signs
        return qkd_qiskit.distill(student, teacher, own, spec=quick, **options).state["head.weight"]

    asked = weights(replace(data, spec=None), train_per_class=4)
    assert torch.equal(weights(data), asked)
    assert not torch.equal(weights(data, train_per_class=5), asked)
    points = replace(spec, train_per_class=None, train_points=9)
    assert not torch.equal(weights(qkd_qiskit.load_data(points)), asked)


def test_learned_bins_are_chosen_by_distill(data):
    spec = StudentSpec(qubits=3, encoding="angle", readout="learned", head="none")
    student = qkd_qiskit.make_student(spec, image_shape=IMAGE_SHAPE, num_classes=CLASSES)
    first = student.readout_matrix.clone()
    teacher = qkd_qiskit.make_teacher(TeacherSpec(epochs=1), data)
    qkd_qiskit.distill(student, teacher, data, spec=DistillSpec(epochs=1))
    assert not torch.equal(student.readout_matrix, first)


RUNTIME = {
    "mode": "session",
    "twirl_gates": True,
    "twirl_measure": True,
    "dynamical_decoupling": "XY4",
    "max_execution_time": 60,
    "session_max_time": 600,
    "max_executions": 1000,
    "layout": (4, 3),
    "optimization_level": 0,
    "fractional": True,
    "readout_mitigation": True,
}


@pytest.mark.parametrize("field", [field.name for field in fields(RuntimeSpec)])
def test_runtime(field, finished, monkeypatch):
    opened = []

    def batch(backend, max_time):
        opened.append(max_time)
        return SimpleNamespace(session_id=None)

    monkeypatch.setattr("qiskit_ibm_runtime.Batch", batch)

    def submitted(runtime):
        recipe = replace(finished.recipe, runtime=runtime)
        try:
            plan = plan_dry_run(RunFolder(finished.path, recipe), Request(backend="fake_manila"))
        except TargetError as error:
            return str(error)
        connection = RuntimeConnection(fake_backend("fake_manila"), options=runtime)
        connection.open_session("batch")
        sent = connection._sampler_options(tags=["t"], seed=None)
        return plan.as_dict(rate=None), sent, opened.pop()

    assert submitted(RuntimeSpec()) != submitted(RuntimeSpec(**{field: RUNTIME[field]}))


RECIPE = {
    "arms": ["label_only", "distilled"],
    "targets": ["exact"],
    "shots": 20,
    "test_limit": 5,
    "seeds": 2,
    "seed": 1,
}
PARTS = {"data", "teacher", "student", "distill", "runtime"}


@pytest.fixture(scope="module")
def figures(tiny, tmp_path_factory):
    """Runs the tiny recipe with changes and returns what its result says."""

    def measure(changes):
        base = {"arms": ["distilled"], "targets": ["exact", "fake_manila"], "seeds": 1}
        path = tmp_path_factory.mktemp("runs") / "run"
        folder = RunFolder.create(path, load_recipe(tiny, base | {"distill.epochs": 1} | changes))
        return str(run(folder, command="").arms)

    return measure


@pytest.mark.parametrize("field", [f.name for f in fields(Recipe) if f.name not in PARTS])
def test_run(field, figures):
    if field == "own_arms":
        first, second = ({"arms": ["own"], field: {"own": {"distill.lr": lr}}} for lr in (0.9, 0.1))
    else:
        first, second = {}, {field: RECIPE[field]}
    assert figures(first) != figures(second)
