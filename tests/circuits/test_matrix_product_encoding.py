"""Approximate loading against exact states, Qiskit's own simulation and its count of gates."""

import numpy as np
import pytest
import torch
from qiskit.quantum_info import Statevector
from sklearn.datasets import load_digits
from torch.func import vmap

from qkd_qiskit import StudentSpec, make_student
from qkd_qiskit.circuits import build_circuit, make_encoding
from qkd_qiskit.errors import CircuitError, RecipeError
from qkd_qiskit.students.surrogate import make_surrogate
from qkd_qiskit.targets import Target


def loader(qubits, layers):
    return make_encoding("matrix_product", qubits=qubits, loader_layers=layers)


def features(count, qubits, seed=0):
    stream = torch.Generator().manual_seed(seed)
    return torch.randn(count, 2**qubits, generator=stream, dtype=torch.float64)


def digits(count):
    return torch.from_numpy(load_digits().data[:count] / 16)


@pytest.mark.parametrize(("qubits", "layers"), [(1, 1), (2, 1), (3, 2), (5, 2)])
def test_the_gates_prepare_what_is_said_to_be_prepared(qubits, layers):
    parts = build_circuit(
        qubits=qubits,
        encoding="matrix_product",
        ansatz="real_amplitudes",
        layers=1,
        loader_layers=layers,
    )
    given = features(3, qubits)
    preparation = parts.circuit.copy_empty_like()
    for instruction in parts.circuit.data[: parts.preparation]:
        preparation.append(instruction)
    assert preparation.count_ops().get("cz", 0) == layers * (qubits - 1)
    angles, states = parts.encoding.parameters(given), parts.encoding.amplitudes(given)
    for row, state in zip(angles.tolist(), states.numpy(), strict=True):
        values = dict(zip(parts.input_params, row, strict=True))
        found = Statevector(preparation.assign_parameters(values)).data
        np.testing.assert_allclose(found, state, rtol=0, atol=1e-12)
        assert np.linalg.norm(state) == pytest.approx(1)


@pytest.mark.parametrize("qubits", [1, 2])
def test_one_layer_is_exact_for_two_qubits(qubits):
    assert loader(qubits, 1).fidelities(features(20, qubits)).min() > 1 - 1e-3


def test_a_product_state_is_exact():
    stream = np.random.default_rng(0)
    state = np.ones(1)
    for pair in stream.normal(size=(4, 2)):
        state = np.kron(pair, state)
    assert loader(4, 1).fidelities(torch.from_numpy(state)[None]).item() > 1 - 1e-3


def test_more_layers_come_nearer_and_the_scale_does_not_matter():
    images = digits(60)
    means = [float(loader(6, layers).fidelities(images).mean()) for layers in (1, 2, 3, 4)]
    assert means == sorted(means)
    np.testing.assert_allclose(means, [0.807, 0.889, 0.958, 0.984], atol=0.02)
    one = loader(6, 2)
    torch.testing.assert_close(
        one.parameters(1e-6 * images), one.parameters(images), atol=1e-4, rtol=0
    )


def test_an_image_is_fitted_alike_alone_in_a_batch_and_under_vmap():
    encoding, given = loader(3, 2), features(6, 3)
    together = encoding.parameters(given)
    torch.testing.assert_close(together[4:5], encoding.parameters(given[4:5]), rtol=0, atol=0)
    mapped = vmap(encoding.amplitudes, in_dims=1)(given.reshape(3, 2, 8))
    expected = encoding.amplitudes(given).reshape(3, 2, 8).movedim(1, 0)
    torch.testing.assert_close(mapped, expected)


def test_many_images_are_kept_on_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("QKD_CACHE", str(tmp_path))
    given = features(65, 2, seed=8)
    first = loader(2, 1).parameters(given)
    (kept,) = tmp_path.glob("loaded_angles/*.safetensors")
    monkeypatch.setattr("qkd_qiskit.circuits.matrix_product_encoding._batches", {})
    monkeypatch.setattr("qkd_qiskit.circuits.matrix_product_encoding.fit_angles", None)
    assert torch.equal(loader(2, 1).parameters(given), first)
    assert kept.is_file()


def test_a_student_loads_images_on_a_device_with_a_line_of_gates():
    spec = StudentSpec(
        kind="quantum",
        qubits=4,
        encoding="matrix_product",
        loader_layers=2,
        ansatz="ry_cz_line",
        layers=2,
        reduction="avg_pool",
        readout="bins",
        head="none",
    )
    student = make_student(spec, image_shape=(1, 8, 8), num_classes=3)
    target = Target.parse("fake_torino:exact")
    compiled = target.compile(student.circuit)
    assert compiled.two_qubit_gates == 4 * 3
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    exact = Target.parse("exact")
    columns = {name: i for i, name in enumerate(exact.compile(student.circuit).parameters)}
    values = np.zeros((5, len(columns)))
    with torch.no_grad():
        for names, part in (
            (student.input_names, student.encode(images)),
            (student.weight_names, student.weights.expand(5, -1)),
        ):
            values[:, [columns[name] for name in names]] = part.double().numpy()
        probabilities = exact.probabilities(exact.compile(student.circuit), values)
        found = student.decode(torch.from_numpy(probabilities))
        torch.testing.assert_close(student(images), found.float(), rtol=0, atol=1e-3)
    with pytest.raises(CircuitError, match="fits angles to each image; no closed form"):
        make_surrogate(student)


def test_what_cannot_be_loaded_is_refused_in_one_line():
    with pytest.raises(CircuitError, match="11 qubits in 2 layers was asked for; at most 10"):
        loader(11, 2)
    with pytest.raises(CircuitError, match="its angles are fitted, not differentiated"):
        loader(2, 1).parameters(features(1, 2).requires_grad_())
    with pytest.raises(CircuitError, match="all features of an image are 0"):
        loader(2, 1).parameters(torch.zeros(1, 4))
    with pytest.raises(
        RecipeError, match=r"student\.reduction: 'linear' is not accepted; give a fi"
    ):
        StudentSpec(encoding="matrix_product")
