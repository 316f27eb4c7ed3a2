import math

import numpy as np
import pytest
import torch
from qiskit.circuit.library import StatePreparation
from qiskit.quantum_info import Statevector

from qkd_qiskit.circuits import ENCODINGS, build_circuit, make_encoding
from qkd_qiskit.errors import CircuitError

DIFFERENTIABLE = [name for name in ENCODINGS if name != "matrix_product"]


def prepared(qubits, features):
    """State made by the gates of the amplitude encoding alone, from Qiskit."""
    student = build_circuit(qubits=qubits, encoding="amplitude", ansatz="real_amplitudes", layers=1)
    preparation = student.circuit.copy_empty_like()
    for instruction in student.circuit.data[: student.preparation]:
        preparation.append(instruction)
    angles = student.encoding.parameters(features).tolist()
    return Statevector(
        preparation.assign_parameters(dict(zip(student.input_params, angles, strict=True)))
    ).data


@pytest.mark.parametrize("qubits", [1, 2, 3, 4, 6])
def test_amplitude_gates_prepare_the_normalised_features(qubits):
    generator = torch.Generator().manual_seed(qubits)
    for features in torch.randn(5, 2**qubits, generator=generator, dtype=torch.float64):
        state = prepared(qubits, features)
        expected = (features / features.norm()).numpy()
        # Qiskit's own arithmetic over 2^n gates leaves a few units in the last place.
        assert np.abs(state - expected).max() <= 4e-16 * max(1, qubits / 2)
        amplitudes = make_encoding("amplitude", qubits=qubits).amplitudes(features)
        assert np.abs(amplitudes.numpy() - expected).max() <= 2.3e-16


@pytest.mark.parametrize("index", range(8))
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_feature_k_is_outcome_k_little_endian_with_its_sign(index, sign):
    features = torch.zeros(8, dtype=torch.float64)
    features[index] = sign
    expected = np.zeros(8)
    expected[index] = sign
    assert np.abs(prepared(3, features) - expected).max() <= 4e-16


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1e200])
def test_the_scale_of_the_features_does_not_matter(scale):
    features = torch.randn(16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    encoding = make_encoding("amplitude", qubits=4)
    expected = encoding.parameters(features)
    torch.testing.assert_close(encoding.parameters(features * scale), expected)
    torch.testing.assert_close(encoding.amplitudes(features * scale), encoding.amplitudes(features))


def test_empty_blocks_are_prepared_exactly():
    features = torch.zeros(16, dtype=torch.float64)
    features[[3, 9, 10]] = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    expected = (features / features.norm()).numpy()
    assert np.abs(prepared(4, features) - expected).max() <= 4e-16


def test_the_state_agrees_with_qiskits_own_preparation():
    features = torch.randn(8, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    normalised = (features / features.norm()).tolist()
    theirs = Statevector(StatePreparation(normalised).definition)
    assert Statevector(prepared(3, features)).equiv(theirs, atol=1e-12)


@pytest.mark.parametrize("qubits", [1, 2, 3, 5])
def test_amplitude_has_the_promised_number_of_gates(qubits):
    student = build_circuit(qubits=qubits, encoding="amplitude", ansatz="ry_rz_ring", layers=1)
    names = [item.operation.name for item in student.circuit.data[: student.preparation]]
    assert names.count("ry") == len(student.input_params) == 2**qubits - 1
    assert names.count("cx") == 2**qubits - 2
    assert len(names) == 2 ** (qubits + 1) - 3


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_parameters_pass_gradcheck_and_gradgradcheck(name):
    encoding = make_encoding(name, qubits=3, layers=2)
    generator = torch.Generator().manual_seed(3)
    shape = (2, encoding.num_features)
    features = torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
    assert encoding.parameters(features).shape == (2, encoding.num_parameters)
    assert torch.autograd.gradcheck(encoding.parameters, (features,))
    assert torch.autograd.gradgradcheck(encoding.parameters, (features,))
    if encoding.prepares_state:
        assert torch.autograd.gradcheck(encoding.amplitudes, (features,))


@pytest.mark.parametrize("nonzero", [[0], [7], [0, 1], [2, 5], [4, 5, 6, 7]])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradients_are_finite_where_a_block_is_empty(nonzero, dtype):
    features = torch.zeros(8, dtype=dtype)
    features[nonzero] = 0.5
    features.requires_grad_()
    encoding = make_encoding("amplitude", qubits=3)
    for output in (encoding.parameters(features), encoding.amplitudes(features)):
        assert output.isfinite().all()
        (gradient,) = torch.autograd.grad(output.square().sum(), features)
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_members_can_be_stacked_and_differentiated_with_vmap(name):
    encoding = make_encoding(name, qubits=3, layers=2)
    generator = torch.Generator().manual_seed(4)
    features = torch.randn(4, 5, encoding.num_features, generator=generator, dtype=torch.float64)

    def loss(values):
        return encoding.parameters(values).sin().sum()

    stacked = torch.vmap(encoding.parameters)(features)
    torch.testing.assert_close(stacked, encoding.parameters(features))
    torch.testing.assert_close(stacked, torch.stack([encoding.parameters(f) for f in features]))
    gradients = torch.vmap(torch.func.grad(loss))(features)
    one_by_one = torch.stack([torch.func.grad(loss)(member) for member in features])
    torch.testing.assert_close(gradients, one_by_one)


@pytest.mark.parametrize("method", ["parameters", "amplitudes"])
def test_a_zero_image_is_refused_outside_vmap_and_finite_inside(method):
    encoding = make_encoding("amplitude", qubits=2)
    features = torch.ones(3, 4)
    features[1] = 0
    with pytest.raises(CircuitError, match="all features of an image are 0"):
        getattr(encoding, method)(features)
    assert torch.vmap(getattr(encoding, method))(features).isfinite().all()


def test_a_feature_that_is_not_finite_is_refused():
    encoding = make_encoding("amplitude", qubits=1)
    with pytest.raises(CircuitError, match="NaN or infinite"):
        encoding.parameters(torch.tensor([1.0, math.nan]))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_a_wrong_number_of_features_is_refused_with_both_numbers(name):
    encoding = make_encoding(name, qubits=3)
    with pytest.raises(CircuitError, match=rf"5 features.*takes {encoding.num_features}"):
        encoding.parameters(torch.ones(2, 5))


@pytest.mark.parametrize("name", ["angle", "reuploading", "qubit"])
def test_angles_are_pi_times_the_features(name):
    encoding = make_encoding(name, qubits=2)
    features = torch.linspace(0, 1, encoding.num_features, dtype=torch.float64)
    assert torch.equal(encoding.parameters(features), math.pi * features)
    with pytest.raises(CircuitError, match="no amplitudes"):
        encoding.amplitudes(features)


def test_trained_reuploading_gives_its_weights_numbers_around_zero():
    encoding = make_encoding("trained_reuploading", qubits=2, layers=3, features=5)
    features = torch.tensor([[0.0, 0.25, 0.5, 0.75, 1.0]])
    assert encoding.parameters(features).tolist() == [[-1.0, -0.5, 0.0, 0.5, 1.0]]
    assert encoding.weights_per_layer == 8


def test_the_number_of_features():
    sizes = {name: make_encoding(name, qubits=4, layers=3).num_features for name in ENCODINGS}
    assert sizes == {
        "amplitude": 16,
        "matrix_product": 16,
        "angle": 4,
        "reuploading": 4,
        "trained_reuploading": 8,
        "qubit": 16,
        "entangled_qubit": 16,
    }


@pytest.mark.parametrize(
    ("name", "qubits", "message"),
    [
        ("basis", 2, "'basis' is unknown"),
        ("angle", 0, "at least 1"),
        ("amplitude", 13, "at most 12"),
    ],
)
def test_impossible_encodings_are_refused_in_one_line(name, qubits, message):
    with pytest.raises(CircuitError, match=message) as caught:
        make_encoding(name, qubits=qubits)
    assert "\n" not in str(caught.value)
