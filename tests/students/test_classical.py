"""The sizes of the students of the slides: a circuit with a small head, and its classical twins."""

import pytest
import torch

from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.factory import load_student, make_student

SHAPE = {"image_shape": (1, 8, 8), "num_classes": 3}


def spec_of(recipe, **changes):
    values = {**vars(load_recipe(recipe).student), **changes}
    return StudentSpec(**values)


@pytest.mark.parametrize(
    ("recipe", "kind", "parameters"),
    [
        ("slides_c2q_hybrid", None, 96 + 6 * 4 + 4 + 4 * 3 + 3),
        ("slides_c2q_hybrid", "classical", 64 * 2 + 2 + 2 * 3 + 3),
        ("slides_c2q_hybrid", "classical_full", 64 * 8 + 8 + 8 * 3 + 3),
        ("slides_c2q_quantum", None, 72),
        ("slides_c2q_quantum", "classical", 64 + 1 + 3 + 3),
        ("slides_c2q_quantum", "classical_full", 64 * 8 + 8 + 8 * 3 + 3),
    ],
)
def test_parameters(recipe, kind, parameters):
    changes = {} if kind is None else {"kind": kind}
    student = make_student(spec_of(recipe, **changes), **SHAPE)
    assert student.num_parameters == parameters
    assert student(torch.rand(5, 1, 8, 8)).shape == (5, 3)


def test_the_full_size_twin_has_the_units_it_is_given(tmp_path):
    student = make_student(
        spec_of("slides_c2q_hybrid", kind="classical_full", full_width=20), **SHAPE
    )
    assert student.num_parameters == 64 * 20 + 20 + 20 * 3 + 3
    student.save(tmp_path)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(load_student(tmp_path)(images), student(images))


def test_a_twin_of_padded_amplitudes_takes_the_features_alone(tmp_path):
    changes = {"encoding": "amplitude", "qubits": 7, "reduction": "none", "full_width": 5}
    twin = make_student(spec_of("slides_c2q_quantum", kind="classical_full", **changes), **SHAPE)
    assert twin.num_parameters == 64 * 5 + 5 + 5 * 3 + 3
    twin.save(tmp_path)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(load_student(tmp_path)(images), twin(images))


def test_a_hidden_layer_in_the_head_takes_gradients_and_survives_saving(tmp_path):
    student = make_student(spec_of("slides_c2q_hybrid"), **SHAPE)
    images = torch.rand(5, 1, 8, 8)
    torch.autograd.backward(student(images).square().sum())
    assert all(bool(parameter.grad.abs().max() > 0) for parameter in student.parameters())
    student.save(tmp_path)
    assert torch.equal(load_student(tmp_path)(images), student(images))
