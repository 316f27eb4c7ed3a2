"""Twins: at most as many trained numbers as the student, and what each computes."""

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.errors import CircuitError, RecipeError
from qkd_qiskit.recipe import TWINS, WITHOUT_CIRCUIT, StudentSpec
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.twin_layers import Butterfly, Components
from qkd_qiskit.students.twins import MAKERS

SHAPE = {"image_shape": (1, 8, 8), "num_classes": 10}


def images(count=70, *, shape=(1, 8, 8)):
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(0))


def twin_of(recipe, kind, **options):
    spec = StudentSpec(**{**vars(load_recipe(recipe).student), "kind": kind})
    student = make_student(spec, **(SHAPE | options))
    student.fit(images(shape=student.image_shape))
    return student


@pytest.mark.parametrize(
    ("kind", "quantum", "hybrid"),
    [
        ("pca_linear", 240, 650),
        ("pooled_linear", 210, 650),
        ("bilinear", 234, 778),
        ("random_features", 240, 1220),
        ("butterfly", 224, 1216),
        ("small_convolution", 210, 1200),
        ("no_circuit", 650, 1210),
        ("linear_probe", 650, 170),
        ("no_entanglers", 240, 1222),
    ],
)
def test_trained_numbers(kind, quantum, hybrid):
    """The students have 240 and 1,222."""
    assert twin_of("digits_quantum", kind).num_parameters == quantum
    assert twin_of("digits", kind).num_parameters == hybrid


@pytest.mark.parametrize("kind", [*TWINS, *WITHOUT_CIRCUIT, "no_entanglers", "frozen_circuit"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 6, 5), (1, 1, 20)])
def test_saved_twins_give_the_same(kind, shape, tmp_path):
    spec = StudentSpec(kind=kind, qubits=4, layers=4)
    twin = make_student(spec, image_shape=shape, num_classes=3, seed=5)
    twin.fit(images(shape=shape))
    given = images(6, shape=shape)
    logits = twin(given)
    assert logits.shape == (6, 3)
    assert torch.equal(twin(twin.features(given)), logits)
    twin.save(tmp_path)
    assert torch.equal(load_student(tmp_path)(given), logits)


@pytest.mark.parametrize("kind", TWINS)
@pytest.mark.parametrize("most", [3, 8, 20, 57, 300, 2000])
def test_never_more_numbers_than_the_student(kind, most):
    made = MAKERS[kind]((1, 6, 9), 3, most)
    if isinstance(made, int):
        assert made > most
    else:
        trained = [each.numel() for each in made[1].parameters() if each.requires_grad]
        assert sum(trained) <= most
        assert not list(made[0].parameters())


def test_components_are_those_of_scikit_learn():
    from sklearn.decomposition import PCA

    values = images(50).flatten(1) * torch.linspace(0.1, 1, 64)
    own = Components(64, components=5)
    own.fit(values)
    scores = torch.as_tensor(PCA(5).fit_transform(values.double().numpy()))
    found = own(values).double()
    torch.testing.assert_close((found * own.scale).abs(), scores.abs(), atol=1e-4, rtol=1e-4)
    assert float(found.square().mean()) == pytest.approx(1, abs=1e-5)


def test_more_components_than_images_are_zero_on_them():
    twin = make_student(StudentSpec(kind="pca_linear"), **SHAPE)
    twin.fit(images(9))
    features = twin.features(images(9))
    assert float(features[:, 8:].abs().max()) < 1e-4 < float(features[:, 7].abs().max())


def test_too_few_numbers_are_one_line():
    spec = StudentSpec(kind="pca_linear", qubits=4, layers=1, head="none", readout="bins",
                       reduction="avg_pool")  # fmt: skip
    with pytest.raises(CircuitError, match="the smallest for 10 classes has 20 trained numbers"):
        make_student(spec, **SHAPE)
    twin = make_student(StudentSpec(kind="pca_linear"), **SHAPE)
    with pytest.raises(CircuitError, match="this twin has not seen any images"):
        twin(images(9))


def test_a_butterfly_keeps_norms_and_turns_pairs():
    butterfly = Butterfly(3, layers=7, num_classes=3)
    unit = torch.nn.functional.normalize(torch.randn(5, 8), dim=1)
    torch.testing.assert_close(butterfly.amplitudes(unit).norm(dim=1), torch.ones(5))
    with torch.no_grad():
        butterfly.angles.zero_()
        butterfly.angles[1, 2] = torch.pi / 2  # of the pairs at distance 2: (0,2) (1,3) (4,6) ...
    turned = butterfly.amplitudes(torch.eye(8))
    expected = torch.eye(8)
    expected[[4, 6]] = torch.stack([torch.eye(8)[6], -torch.eye(8)[4]])
    torch.testing.assert_close(turned, expected, atol=1e-6, rtol=0)


def test_random_features_differ_from_seed_to_seed_and_are_not_trained():
    first, second = (
        make_student(StudentSpec(kind="random_features"), **SHAPE, seed=seed) for seed in (0, 1)
    )
    kept = {name: value.requires_grad for name, value in first.named_parameters()}
    assert not kept["network.projection"]
    assert not torch.equal(first.network.projection, second.network.projection)


def test_no_entanglers_keeps_the_preparation_and_the_rotations():
    spec = StudentSpec(qubits=3, layers=2)
    whole, without = (
        make_student(StudentSpec(**{**vars(spec), "kind": kind}), **SHAPE)
        for kind in ("hybrid", "no_entanglers")
    )
    counts = whole.circuit.count_ops(), without.circuit.count_ops()
    assert counts[0]["cx"] - counts[1]["cx"] == 4
    assert counts[0]["ry"] == counts[1]["ry"]
    assert torch.equal(whole.weights, without.weights)


def test_what_cannot_be_left_out_is_refused():
    with pytest.raises(CircuitError, match="has no gates on two qubits"):
        make_student(StudentSpec(kind="no_entanglers", ansatz="local_rotations"), **SHAPE)
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.rzz(Parameter("w_000"), 0, 1)
    with pytest.raises(CircuitError, match="the gate rzz on two qubits has a parameter"):
        make_student(StudentSpec(kind="no_entanglers"), **SHAPE, circuit=circuit)
    with pytest.raises(RecipeError, match="where nothing but the circuit is trained"):
        StudentSpec(kind="frozen_circuit", head="none", readout="bins", reduction="crop")


def test_an_own_circuit_without_entanglers_is_saved(tmp_path):
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.cx(0, 1)
    circuit.ry(Parameter("w_000"), 1)
    student = make_student(StudentSpec(kind="no_entanglers"), **SHAPE, circuit=circuit)
    assert "cx" not in student.circuit.count_ops()
    student.save(tmp_path)
    given = images(3)
    assert torch.equal(load_student(tmp_path)(given), student(given))
