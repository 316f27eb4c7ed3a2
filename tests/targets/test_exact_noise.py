"""Exact noisy probabilities against Aer's density matrix, and against shots."""

from functools import cache

import numpy as np
import pytest
import torch
from aer_reference import aer_probabilities, without_negligible_terms
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit_aer.noise.device import basic_device_readout_errors

from qkd_qiskit.circuits import build_circuit
from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.exact_noise import exact_rows, split_parameters
from qkd_qiskit.targets.gradients import NoisyExecutor
from qkd_qiskit.targets.snapshots import fake_backend

DEVICES = {  # name: native two-qubit gate
    "fake_manila": "cx",
    "fake_lagos": "cx",
    "fake_sherbrooke": "ecr",
    "fake_cusco": "ecr",
    "fake_torino": "cz",
    "fake_fez": "cz",
    "fake_miami": "cz",
    "fake_fractional": "rzz",
}


@cache
def target(name):
    if name in ("exact", "aer"):
        return Target.parse(name, shots=20_000)
    return DeviceTarget(fake_backend(name), shots=20_000, num_transpilations=1)


def angles(compiled, batch, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))


def layered(qubits, *, entangler):
    """Encoding, rotations and a chain that reaches every qubit; routed on most devices."""
    circuit = QuantumCircuit(qubits)
    weights = iter(Parameter(f"w_{index:03d}") for index in range(100))
    for qubit in range(qubits):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    for qubit in range(qubits):
        circuit.rx(next(weights), qubit)
        other = (qubit + 1) % qubits
        if entangler == "rzz":
            circuit.rzz(next(weights), qubit, other)
        else:
            circuit.cx(qubit, other)
    for qubit in range(qubits):
        circuit.ry(next(weights), qubit)
    return circuit


def reuploaded(qubits, layers):
    """Trained re-uploading on a line: angles w x + b."""
    parts = build_circuit(
        qubits=qubits,
        encoding="trained_reuploading",
        ansatz="ry_cz_line",
        layers=layers,
        features=5,
    )
    return parts.circuit


@pytest.mark.parametrize("name", ["fake_manila", "fake_torino"])
def test_trained_reuploading_is_exact_and_takes_only_its_own_two_qubit_gates(name):
    compiled = target(name).compile(reuploaded(3, 2))
    assert compiled.two_qubit_gates == 2 * 2
    values = angles(compiled, 4)
    weights = [column for column, p in enumerate(compiled.parameters) if p.startswith("w_")]
    values[:, weights] = values[0, weights]
    noisy = without_negligible_terms(compiled.program.noisy)
    expected = aer_probabilities(compiled, values, noisy=noisy)
    np.testing.assert_allclose(exact_rows(compiled, noisy, values), expected, rtol=0, atol=1e-10)
    executor = NoisyExecutor(compiled)
    inputs = torch.from_numpy(np.delete(values, weights, axis=1))
    found = executor(inputs, torch.from_numpy(values[0, weights]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name in ("fake_cusco", "fake_miami")))
        for name in DEVICES
    ],
)
def test_exact_is_aers_density_matrix(name):
    device = target(name)
    compiled = device.compile(layered(3, entangler=DEVICES[name]))
    assert compiled.circuit.count_ops()[DEVICES[name]] >= 2
    values = angles(compiled, 2)
    whole = {
        qubits[0]: error.probabilities
        for qubits, error in basic_device_readout_errors(target=fake_backend(name).target)
    }
    readout = [whole[qubit] for qubit in compiled.measured]
    found = device.exact_probabilities(compiled, values)
    np.testing.assert_allclose(found.sum(axis=1), 1, rtol=0, atol=1e-12)
    expected = aer_probabilities(compiled, values, readout=readout)
    lost = 1 - expected.sum(axis=1, keepdims=True)
    assert (np.abs(found - expected) <= 1e-9 + lost).all()
    noisy = without_negligible_terms(compiled.program.noisy)
    np.testing.assert_allclose(
        exact_rows(compiled, noisy, values),
        aer_probabilities(compiled, values, readout=readout, noisy=noisy),
        rtol=0,
        atol=1e-10,
    )
    exact = Target.parse("exact")
    circuit = layered(3, entangler=DEVICES[name])
    ideal = exact.probabilities(exact.compile(circuit), values)
    assert np.abs(found - ideal).sum(axis=1).max() > 0.005


@pytest.mark.parametrize("name", ["aer", "fake_manila", "fake_sherbrooke", "fake_torino"])
def test_shots_scatter_about_the_exact_probabilities(name):
    device, shots = target(name), 20_000
    compiled = device.compile(layered(3, entangler="cx"))
    values = angles(compiled, 6)
    expected = device.exact_probabilities(compiled, values)
    measured = device.probabilities(compiled, values)
    chi_square = (shots * (measured - expected) ** 2 / np.maximum(expected, 1e-12)).sum()
    freedom = len(values) * 7
    assert abs(chi_square - freedom) < 5 * np.sqrt(2 * freedom)


def test_a_routed_circuit_is_read_in_logical_order():
    circuit = QuantumCircuit(4)
    for first in range(4):
        for second in range(first):
            circuit.cx(first, second)
    circuit.x(3)
    circuit.ry(Parameter("x_000"), 0)
    device = target("fake_torino")
    compiled = device.compile(circuit)
    assert compiled.layout != compiled.measured
    found = device.exact_probabilities(compiled, [[0.0], [np.pi]])
    assert found.argmax(axis=1).tolist() == [0b1000, 0b1001]


@pytest.mark.parametrize("name", ["exact", "aer"])
def test_without_noise_it_is_the_ideal_circuit(ring, name):
    simulator, exact = Target.parse(name), Target.parse("exact")
    compiled = simulator.compile(ring(3, 2))
    values = angles(compiled, 4)
    np.testing.assert_allclose(
        simulator.exact_probabilities(compiled, values),
        exact.probabilities(exact.compile(ring(3, 2)), values),
        rtol=0,
        atol=1e-12,
    )


def test_weights_that_differ_between_rows_and_weights_that_do_not_agree(ring):
    device = target("fake_manila")
    compiled = device.compile(ring(3, 1))
    values = angles(compiled, 4)
    values[:2, :6] = values[0, :6]  # the columns w_000 to w_005
    mixed = device.exact_probabilities(compiled, values)
    np.testing.assert_allclose(mixed[:2], device.exact_probabilities(compiled, values[:2]), 1e-12)
    np.testing.assert_allclose(mixed[3:], device.exact_probabilities(compiled, values[3:]), 1e-12)


def test_a_parameter_that_the_transpiler_drops_keeps_its_column():
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("x_000"), 0)
    circuit.rz(Parameter("w_000"), 0)
    circuit.ry(Parameter("w_001"), 0)
    circuit.rz(Parameter("w_002"), 0)
    device = target("fake_manila")
    compiled = device.compile(circuit)
    assert "w_002" not in {parameter.name for parameter in compiled.circuit.parameters}
    values = angles(compiled, 2)
    np.testing.assert_allclose(
        device.exact_probabilities(compiled, values),
        aer_probabilities(compiled, values),
        rtol=0,
        atol=1e-9,
    )


def test_a_circuit_without_parameters_and_an_empty_batch(ring):
    device = target("fake_manila")
    bound = ring(2)
    compiled = device.compile(bound.assign_parameters(dict.fromkeys(bound.parameters, 0.4)))
    rows = device.exact_probabilities(compiled, np.empty((2, 0)))
    expected = aer_probabilities(compiled, np.empty((1, 0)))
    np.testing.assert_allclose(rows, np.repeat(expected, 2, axis=0), rtol=0, atol=1e-9)
    assert device.exact_probabilities(compiled, np.empty((0, 0))).shape == (0, 4)


def test_more_than_eight_qubits_are_refused():
    circuit = QuantumCircuit(9)
    circuit.h(range(9))
    device = target("fake_torino")
    compiled = device.compile(circuit)
    told = r"uses 9 qubits of fake_torino: .* up to 8; use shots"
    with pytest.raises(TargetError, match=told):
        device.exact_probabilities(compiled, np.empty((1, 0)))
    with pytest.raises(TargetError, match=told):
        NoisyExecutor(compiled)
    assert device.probabilities(compiled, np.empty((1, 0)), shots=100).shape == (1, 512)


def test_eight_qubits_are_exact():
    circuit = QuantumCircuit(8)
    circuit.ry(Parameter("x_000"), 0)
    for qubit in range(7):
        circuit.cx(qubit, qubit + 1)
    device = target("fake_torino")
    compiled = device.compile(circuit)
    rows = device.exact_probabilities(compiled, [[0.0], [np.pi]])
    assert rows.argmax(axis=1).tolist() == [0, 255]
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-12)


def test_values_are_checked(ring):
    device = target("fake_manila")
    compiled = device.compile(ring(2))
    with pytest.raises(TargetError, match=r"accepted is \(batch, 6\)"):
        device.exact_probabilities(compiled, np.zeros((2, 3)))
    with pytest.raises(TargetError, match="compiled for fake_manila, not for exact"):
        Target.parse("exact").exact_probabilities(compiled, np.zeros((2, 6)))


def test_inputs_are_told_from_weights_by_name_or_by_list(ring):
    compiled = target("fake_manila").compile(ring(2))
    assert split_parameters(compiled) == (
        ("x_000", "x_001"),
        ("w_000", "w_001", "w_002", "w_003"),
    )
    assert split_parameters(compiled, ["w_001"])[1][:2] == ("w_000", "w_002")
    with pytest.raises(TargetError, match=r"'w_9' is no parameter; the circuit has w_000, "):
        split_parameters(compiled, ["w_9"])
    with pytest.raises(TargetError, match="named twice"):
        split_parameters(compiled, ["w_000", "w_000"])


def test_a_device_without_shots_is_exact(ring):
    device = DeviceTarget(fake_backend("fake_manila"), shots=None)
    compiled = device.compile(ring(2))
    values = angles(compiled, 3)
    assert not device.sampled
    assert not device.ideal
    assert Target.parse("exact").ideal
    np.testing.assert_array_equal(
        device.probabilities(compiled, values), device.exact_probabilities(compiled, values)
    )
