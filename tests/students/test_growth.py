"""A student with more layers begins as one with fewer: the same logits, and gradients to go on."""

import itertools
from dataclasses import replace

import pytest
import torch

from qkd_qiskit import StudentSpec, make_student
from qkd_qiskit.circuits.ansatze import make_ansatz
from qkd_qiskit.circuits.encodings import ENCODINGS
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.students.growth import check_growth, features_of_depth, grow, keeps_outcomes

SPEC = StudentSpec(
    kind="quantum",
    qubits=3,
    encoding="qubit",
    ansatz="cz_line",
    layers=2,
    reduction="crop",
    readout="bins",
    head="none",
)
GROWING = ["cz_line", "ry_cz_line", "ry_cz_brick", "ry_cz_ring", "ry_cz_patch", "ry_rzz_line"]
SHAPE = {"image_shape": (1, 4, 4), "num_classes": 3}


def make(spec, seed=0):
    return make_student(spec, **SHAPE, seed=seed)


def spec_of(encoding):
    return replace(SPEC, encoding=encoding)


IMAGES = torch.rand(7, 1, 4, 4, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("encoding", [it for it in ENCODINGS if it != "reuploading"])
@pytest.mark.parametrize("layers", [3, 5])
def test_a_grown_student_gives_the_logits_that_it_begins_as(encoding, layers):
    spec = spec_of(encoding)
    assert keeps_outcomes(spec)
    smaller, larger = make(spec, 1), make(replace(spec, layers=layers), 2)
    assert not torch.allclose(larger(IMAGES), smaller(IMAGES), atol=1e-2)
    grow(smaller, larger)
    torch.testing.assert_close(larger(IMAGES), smaller(IMAGES), atol=1e-4, rtol=1e-4)
    larger(IMAGES).square().sum().backward()
    added = larger.weights.grad[-3 * 2 - 3 :]  # of the last layer, and what follows it
    assert (added.abs() > 1e-4).sum() >= 6


@pytest.mark.parametrize("ansatz", GROWING)
def test_more_layers_take_more_features_and_begin_the_same(ansatz):
    largest = replace(
        SPEC, encoding="trained_reuploading", ansatz=ansatz, reduction="pca", layers=4, features=10
    )
    depths = [
        replace(largest, layers=layers, features=features_of_depth(largest, layers=layers))
        for layers in (1, 2, 4)
    ]
    assert [spec.features for spec in depths] == [6, 10, 10]
    students = [make(spec, number) for number, spec in enumerate(depths)]
    pool = torch.rand(30, 1, 4, 4, generator=torch.Generator().manual_seed(4))
    for student in students:
        student.fit(pool)
    for smaller, larger in itertools.pairwise(students):
        grow(smaller, larger)
        torch.testing.assert_close(larger(IMAGES), smaller(IMAGES), atol=1e-4, rtol=1e-4)
    students[2](IMAGES).square().sum().backward()
    assert (students[2].weights.grad.abs() > 1e-5).float().mean() > 0.7


def test_a_trained_reduction_gives_every_depth_the_same_features():
    spec = StudentSpec(
        kind="hybrid", qubits=3, encoding="trained_reuploading", ansatz="ry_cz_line", layers=4,
        features=8, reduction="linear",
    )  # fmt: skip
    assert features_of_depth(spec, layers=1) == features_of_depth(spec, layers=4) == 6


def test_features_that_enter_again_change_the_start():
    spec = spec_of("reuploading")
    assert not keeps_outcomes(spec)
    smaller, larger = make(spec), make(replace(spec, layers=3))
    grow(smaller, larger)
    assert not torch.allclose(larger(IMAGES), smaller(IMAGES), atol=1e-2)


def test_heads_and_reductions_are_taken_over():
    spec = StudentSpec(
        kind="hybrid", qubits=3, encoding="angle", ansatz="cz_line", layers=1, reduction="linear"
    )
    smaller, larger = make(spec, 1), make(replace(spec, layers=2), 2)
    grow(smaller, larger)
    torch.testing.assert_close(larger(IMAGES), smaller(IMAGES), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(larger.head.weight, smaller.head.weight)


def test_each_weight_of_a_grown_ansatz_has_its_origin():
    ansatz = make_ansatz("cz_line", qubits=2, layers=3)
    assert ansatz.grown_from(1) == [0, 1, 2, 3, None, None, 4, 5, *[None] * 6]
    assert make_ansatz("ry_cz_line", qubits=2, layers=2).grown_from(1) == [0, 1, 2, 3, None, None]
    assert len(ansatz.grown_from(2)) == ansatz.num_weights


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"layers": 2}, "give it more layers"),
        ({"layers": 3, "qubits": 4}, "be the same"),
        ({"layers": 3, "sharpness": 4.0}, "be the same"),
    ],
)
def test_what_differs_in_more_than_its_layers_is_no_growth(changes, part):
    with pytest.raises(CircuitError, match=part):
        check_growth(SPEC, replace(SPEC, **changes))


@pytest.mark.parametrize("ansatz", ["ry_rz_ring", "real_amplitudes", "local_rotations"])
def test_an_ansatz_whose_layer_is_no_identity_is_refused(ansatz):
    spec = replace(SPEC, ansatz=ansatz)
    with pytest.raises(CircuitError, match=f"ansatz {ansatz}: .* such as ry_cz_line"):
        check_growth(spec, replace(spec, layers=3))


def test_a_circuit_of_ones_own_is_refused(tmp_path):
    spec = replace(SPEC, circuit=str(tmp_path / "own.qasm"))
    with pytest.raises(CircuitError, match="a circuit of its own"):
        check_growth(spec, replace(spec, layers=3))
