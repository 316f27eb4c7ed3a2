"""The noisy kernel against the torch path, and its identities."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit_aer.noise import amplitude_damping_error, depolarizing_error, thermal_relaxation_error
from torch.func import grad, vmap

from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.simulator import Channels, DensityProgram, memory, noisy_probabilities
from qkd_qiskit.simulator.density.run import noisy_values

DAMPED = amplitude_damping_error(0.1).tensor(thermal_relaxation_error(50, 70, 10))
ONE = depolarizing_error(0.02, 1).compose(amplitude_damping_error(0.03))


def parameters(name, count):
    return [Parameter(f"{name}_{number:03d}") for number in range(count)]


def compiled(circuit):
    """The circuit's program with noise after every gate of a few names."""
    gates = {}
    for instruction in circuit.data:
        qubits = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if instruction.operation.name in ("cx", "cz", "rzz"):
            gates[instruction.operation.name, qubits] = DAMPED.to_quantumchannel().data
        elif instruction.operation.name in ("ry", "sx"):
            gates[instruction.operation.name, qubits] = ONE.to_quantumchannel().data
    readout = {
        qubit: np.array([[0.97, 0.03], [0.05 + 0.01 * qubit, 0.95 - 0.01 * qubit]])
        for qubit in range(circuit.num_qubits)
    }
    return DensityProgram.from_circuit(circuit, Channels(gates=gates, readout=readout))


def layered(num_qubits, *, uploads=1, layers=2):
    """A ring; inputs enter before the first `uploads` layers."""
    circuit = QuantumCircuit(num_qubits)
    inputs, weights = parameters("x", num_qubits), iter(parameters("w", 2 * num_qubits * layers))
    for layer in range(layers):
        for qubit in range(num_qubits):
            if layer < uploads:
                circuit.ry(inputs[qubit], qubit)
            circuit.ry(next(weights), qubit)
            circuit.rz(next(weights), qubit)
        for qubit in range(num_qubits if num_qubits > 1 else 0):
            circuit.cx(qubit, (qubit + 1) % num_qubits)
    return compiled(circuit)


def device_like():
    """Constants between all rotations, one-qubit gates without parameters, swapped pairs."""
    circuit = QuantumCircuit(3, 2)
    inputs, weights = parameters("x", 2), parameters("w", 5)
    for qubit in range(2):
        circuit.sx(qubit)
        circuit.rz(inputs[qubit] * 0.5 + 0.3, qubit)
        circuit.sx(qubit)
    circuit.cz(1, 0)
    circuit.sx(2)
    circuit.rz(weights[0] + 2 * weights[1], 2)
    circuit.sx(2)
    circuit.cz(2, 1)
    circuit.t(1)
    circuit.sx(2)
    circuit.cz(1, 2)
    for qubit, weight in zip((0, 2, 2), weights[2:], strict=True):
        circuit.rz(weight, qubit)
        circuit.sx(qubit)
    circuit.cz(0, 1)
    circuit.sx(1)
    circuit.measure([2, 0], [0, 1])
    return compiled(circuit)


def with_features():
    """Products of inputs, and of weights, as angles; inputs to the end."""
    circuit = QuantumCircuit(2)
    inputs, weights = parameters("x", 2), parameters("w", 2)
    circuit.h([0, 1])
    circuit.rzz(inputs[0] * inputs[1], 0, 1)
    circuit.ry(weights[0] * weights[1], 0)
    circuit.ry(weights[1], 1)
    circuit.rzz(inputs[1], 1, 0)
    circuit.ry(inputs[0] * weights[0], 1)
    return compiled(circuit)


def without_inputs():
    circuit = QuantumCircuit(2)
    weights = parameters("w", 3)
    circuit.ry(weights[0], 0)
    circuit.cx(0, 1)
    circuit.ry(weights[1], 1)
    circuit.ry(weights[2], 1)
    return compiled(circuit)


def without_weights():
    circuit = QuantumCircuit(2)
    circuit.ry(Parameter("x_000"), 0)
    circuit.cx(0, 1)
    return compiled(circuit)


PROGRAMS = {
    "inputs first": lambda: layered(3),
    "inputs first, four qubits": lambda: layered(4),
    "inputs twice": lambda: layered(3, uploads=2, layers=3),
    "inputs to the end": lambda: layered(3, uploads=2),
    "one qubit": lambda: layered(1, layers=3),
    "device": device_like,
    "features": with_features,
    "no inputs": without_inputs,
    "no weights": without_weights,
}


def given(program, batch, dtype=torch.float64):
    torch.manual_seed(batch)
    inputs = torch.randn(batch, program.num_inputs, dtype=dtype, requires_grad=True)
    weights = torch.randn(program.num_weights, dtype=dtype, requires_grad=True)
    return inputs, weights


def derived(program, inputs, weights, **options):
    values = noisy_values(program, inputs, weights, **options)
    torch.manual_seed(0)
    mix = torch.randn(values.shape, dtype=values.dtype)
    found = torch.autograd.grad((values * mix).sum(), (inputs, weights), allow_unused=True)
    parts = zip(found, (inputs, weights), strict=True)
    return values, *(torch.zeros_like(of) if part is None else part for part, of in parts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("batch", [1, 5, 33])  # 33: outputs move back, in more than two tiles
@pytest.mark.parametrize("name", PROGRAMS)
def test_values_and_gradients_are_those_of_torch(name, batch, dtype):
    program = PROGRAMS[name]()
    tensors = given(program, batch, dtype)
    mixed = torch.randn(program.num_outcomes, 3, dtype=torch.float64)
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    for outputs in (None, mixed):
        mine = derived(program, *tensors, outputs=outputs)
        theirs = derived(program, *tensors, outputs=outputs, kernel=False)
        for one, other in zip(mine, theirs, strict=True):
            scale = max(1.0, float(other.detach().abs().max())) if other.numel() else 1.0
            torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=tolerance)


def test_the_kernel_is_what_runs(monkeypatch):
    program = layered(2)
    monkeypatch.setattr(
        "qkd_qiskit.simulator.density.run.torch_values",
        lambda *_, **__: pytest.fail("ran in torch"),
    )
    derived(program, *given(program, 20))


def test_torch_runs_where_the_kernel_cannot(monkeypatch):
    program = layered(2)
    tensors = given(program, 20)
    expected = derived(program, *tensors)
    monkeypatch.setattr("qkd_qiskit.simulator.density.run.kernel_works", lambda: False)
    monkeypatch.setattr(
        "qkd_qiskit.simulator.kernel.autograd.run", lambda *_: pytest.fail("ran in the kernel")
    )
    for mine, theirs in zip(derived(program, *tensors), expected, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", ["inputs first", "inputs twice", "device", "features"])
def test_finite_differences(name):
    program = PROGRAMS[name]()
    outputs = torch.randn(program.num_outcomes, 2, dtype=torch.float64)

    def values(inputs, weights):
        return noisy_values(program, inputs, weights, outputs=outputs)

    assert torch.autograd.gradcheck(values, given(program, 9))
    assert torch.autograd.gradgradcheck(values, given(program, 2))


@pytest.mark.parametrize("name", ["inputs first", "inputs twice", "features", "no inputs"])
def test_a_population_is_its_members(name):
    program = PROGRAMS[name]()
    inputs = torch.randn(3, 17, program.num_inputs, dtype=torch.float64)
    weights = torch.randn(3, program.num_weights, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(3, 17, program.num_outcomes, dtype=torch.float64)

    def values(features, weight):
        return noisy_values(program, features, weight)

    def loss(weight, features, part):
        return (values(features, weight) * part).sum()

    for shared in (False, True):
        features = inputs[:1].expand(3, -1, -1) if shared else inputs
        dims = (None if shared else 0, 0)
        whole = vmap(values, dims)(inputs[0] if shared else inputs, weights)
        (gradient,) = torch.autograd.grad((whole * mix).sum(), weights)
        inside = vmap(grad(loss))(weights.detach(), features, mix)
        for member in range(3):
            alone = values(features[member], weights[member])
            torch.testing.assert_close(whole[member], alone, atol=1e-13, rtol=0)
            (one,) = torch.autograd.grad((alone * mix[member]).sum(), weights)
            torch.testing.assert_close(gradient[member], one[member], atol=1e-12, rtol=0)
            torch.testing.assert_close(inside[member], one[member], atol=1e-12, rtol=0)


def test_calls_may_be_taken_back_in_any_order():
    program = layered(3)
    first, second = given(program, 20), given(program, 21)
    expected = [
        torch.autograd.grad(noisy_values(program, *g)[:, 1].sum(), g) for g in (first, second)
    ]
    losses = [noisy_values(program, *tensors)[:, 1].sum() for tensors in (first, second)]
    for number in (0, 1, 1, 0):
        tensors = (first, second)[number]
        found = torch.autograd.grad(losses[number], tensors, retain_graph=True)
        for one, other in zip(found, expected[number], strict=True):
            torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_numbers_that_are_not_finite():
    program = layered(2)
    inputs, weights = (tensor.detach() for tensor in given(program, 18))
    inputs[3, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 36 circuit inputs are NaN or infinite"):
        noisy_values(program, inputs, weights)
    inputs[3, 1] = 0
    weights[0] = torch.nan
    assert noisy_values(program, inputs, weights).isnan().any()


def test_an_empty_batch():
    for name in ("inputs first", "no inputs"):
        program = PROGRAMS[name]()
        values, of_inputs, of_weights = derived(program, *given(program, 0))
        assert values.shape == (0, program.num_outcomes)
        assert of_inputs.shape == (0, program.num_inputs)
        assert not of_weights.any()
    assert noisy_probabilities(without_inputs(), None, torch.zeros(3)).shape == (1, 4)


def test_outputs_may_change_and_be_trained():
    program = layered(2)
    inputs, weights = given(program, 20)
    exact = noisy_probabilities(program, inputs, weights)
    outputs = torch.randn(4, 2, dtype=torch.float64)
    for _ in range(10):  # more than are kept
        outputs += 1
        values = noisy_values(program, inputs, weights, outputs=outputs)
        torch.testing.assert_close(values, exact @ outputs)
    trained = outputs.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(
        noisy_values(program, inputs, weights, outputs=trained).sum(), trained
    )
    torch.testing.assert_close(gradient, exact.sum(0)[:, None].expand(-1, 2))


def test_too_little_memory_is_refused(monkeypatch):
    program = layered(9, layers=3)
    outputs = torch.ones(512, 1)
    monkeypatch.setattr(memory, "available_bytes", lambda device=None: 2**28)
    with pytest.raises(CircuitError, match="a noisy circuit on 9 qubits needs about"):
        derived(program, *given(program, 64), outputs=outputs)
