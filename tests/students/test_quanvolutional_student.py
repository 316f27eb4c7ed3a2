"""The published pair of networks: sizes, values, export, saving."""

import pytest
import torch

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.errors import CircuitError, RecipeError, TeacherError
from qkd_qiskit.recipe import DistillSpec, Recipe, StudentSpec, TeacherSpec
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.teachers.architectures import build_teacher

PARAMETERS = {"quanvolution": (33, 5923), "convolution": (15, 5905)}


def student(kind, *, image_shape=(1, 28, 28), seed=0):
    return make_student(StudentSpec(kind=kind), image_shape=image_shape, num_classes=10, seed=seed)


@pytest.mark.parametrize("kind", PARAMETERS)
def test_the_sizes_are_the_published_ones(kind):
    of_filters, whole = PARAMETERS[kind]
    for network in (
        student(kind),
        build_teacher(TeacherSpec(kind=kind), image_shape=(1, 28, 28), num_classes=10),
    ):
        assert sum(p.numel() for p in network.get_submodule("filters").parameters()) == of_filters
        assert sum(p.numel() for p in network.parameters()) == whole
    assert student(kind).num_parameters == whole


def test_random_filters_are_not_counted():
    network = build_teacher(
        TeacherSpec(kind="random_quanvolution"), image_shape=(1, 28, 28), num_classes=10
    )
    assert sum(p.numel() for p in network.parameters()) == 5890


@pytest.mark.parametrize("kind", PARAMETERS)
def test_teacher_and_student_are_one_network(kind):
    model = student(kind)
    network = build_teacher(TeacherSpec(kind=kind), image_shape=(1, 28, 28), num_classes=10)
    network.load_state_dict(model.as_module().state_dict())
    images = torch.rand(4, 1, 28, 28)
    torch.testing.assert_close(model(images), network(images))
    torch.testing.assert_close(model.as_module()(images), model(images))


def test_the_convolutional_student_is_exported_without_this_package(tmp_path):
    model, images = student("convolution"), torch.rand(4, 1, 28, 28)
    exported = torch.export.export(model.as_module(), (images,))
    path = tmp_path / "student.pt2"
    torch.export.save(exported, path)
    torch.testing.assert_close(torch.export.load(path).module()(images), model(images))
    plain = torch.nn.Sequential()
    plain.add_module("filters", torch.nn.Conv2d(1, 3, 2, stride=2))
    plain.add_module("flatten", torch.nn.Flatten())
    plain.add_module("classifier", torch.nn.Linear(588, 10))
    plain.load_state_dict(model.as_module().state_dict())
    torch.testing.assert_close(plain(images), model(images))


@pytest.mark.parametrize("kind", PARAMETERS)
def test_a_saved_student_comes_back(kind, tmp_path):
    model, images = student(kind, seed=4), torch.rand(4, 1, 28, 28)
    model.save(tmp_path)
    loaded = load_student(tmp_path)
    assert isinstance(loaded, QuanvolutionalStudent)
    torch.testing.assert_close(loaded(images), model(images))


def test_seeds_decide():
    for kind in PARAMETERS:
        first, second, other = (student(kind, seed=seed) for seed in (1, 1, 2))
        for name, value in first.named_parameters():
            assert torch.equal(value, second.get_parameter(name))
            assert not torch.equal(value, other.get_parameter(name))


def test_only_the_quanvolution_has_a_circuit():
    assert isinstance(student("quanvolution").filters, Quanvolution)
    assert student("quanvolution").circuit.num_qubits == 4
    assert student("convolution").circuit is None


def test_what_does_not_fit_is_refused():
    with pytest.raises(CircuitError, match="filters of 2x2 pixels were asked for images of 1x64"):
        student("convolution", image_shape=(1, 1, 64))
    with pytest.raises(TeacherError, match="filters of 2x2 pixels"):
        build_teacher(TeacherSpec(kind="quanvolution"), image_shape=(1, 1, 64), num_classes=3)
    with pytest.raises(RecipeError, match="arms without classical twins"):
        Recipe(student=StudentSpec(kind="convolution"))
    with pytest.raises(RecipeError, match=r"student\.kind: .*filters are trained exactly"):
        Recipe(
            student=StudentSpec(kind="quanvolution"),
            distill=DistillSpec(gradient="spsa", train_target="fake_manila"),
        )
    with pytest.raises(RecipeError, match=r"distill\.student_layer: None"):
        DistillSpec(feature_weight=1.0, teacher_layer="filters")
    with pytest.raises(RecipeError, match=r"teacher\.same_draw: True"):
        TeacherSpec(same_draw=True, train_per_class=5)
