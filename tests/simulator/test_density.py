"""The noisy engine against Aer's density matrix, and its identities."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit, transpile
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp, SuperOp
from qiskit_aer import AerSimulator
from qiskit_aer.noise import (
    NoiseModel,
    amplitude_damping_error,
    depolarizing_error,
    thermal_relaxation_error,
)
from qiskit_ibm_runtime.fake_provider import FakeManilaV2
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch.func import functional_call, grad, vmap

from qkd_qiskit.circuits.standard_gates import without_final_measurements
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator import (
    Channels,
    CompiledConnector,
    DensityProgram,
    Program,
    UnsupportedInstructionError,
    noisy_probabilities,
    probabilities,
)
from qkd_qiskit.simulator.channels import of_superoperator, of_unitary
from qkd_qiskit.simulator.density.run import noisy_values


def student(num_qubits: int, *, measured: bool = True) -> QuantumCircuit:
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    for qubit in range(num_qubits):
        circuit.ry(Parameter(f"w_{2 * qubit:03d}"), qubit)
        circuit.rz(Parameter(f"w_{2 * qubit + 1:03d}"), qubit)
    for qubit in range(num_qubits):
        circuit.cx(qubit, (qubit + 1) % num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(Parameter(f"w_{2 * num_qubits + qubit:03d}"), qubit)
    if measured:
        circuit.measure_all()
    return circuit


@pytest.fixture(scope="module")
def device():
    backend = FakeManilaV2()
    model = NoiseModel.from_backend(backend)
    properties = backend.target.qubit_properties
    channels = Channels(
        gates={
            (name, qubits): error.to_quantumchannel().data
            for name, errors in model._local_quantum_errors.items()
            for qubits, error in errors.items()
        },
        readout={
            qubits[0]: np.array(error.probabilities)
            for qubits, error in model._local_readout_errors.items()
        },
        relaxation={qubit: (known.t1, known.t2) for qubit, known in enumerate(properties)},
        dt=backend.dt,
    )
    return backend, model, channels


def aer_probabilities(circuit, model, confusion, values):
    """Exact outcome probabilities of a measured circuit, readout errors included."""
    bound = circuit.assign_parameters({p: values[p.name] for p in circuit.parameters})
    measured = [
        bound.find_bit(instruction.qubits[0]).index
        for instruction in bound.data
        if instruction.operation.name == "measure"
    ]
    bound = without_final_measurements(bound)
    bound.save_probabilities(qubits=measured)
    simulator = AerSimulator(
        method="density_matrix", noise_model=model, max_parallel_threads=1, fusion_enable=False
    )
    found = simulator.run(bound).result().data()["probabilities"]
    mixing = np.ones((1, 1))
    for qubit in measured:
        mixing = np.kron(confusion[qubit], mixing)
    return found @ mixing


@pytest.mark.parametrize("scheduling", [None, "alap"])
@pytest.mark.parametrize("num_qubits", [2, 3, 4])
def test_a_devices_circuit_has_aers_probabilities(device, scheduling, num_qubits):
    backend, model, channels = device
    circuit = transpile(
        student(num_qubits),
        backend,
        optimization_level=1,
        seed_transpiler=3,
        scheduling_method=scheduling,
    )
    program = DensityProgram.from_circuit(circuit, channels)
    random = np.random.default_rng(0)
    inputs = random.normal(size=(2, num_qubits))
    weights = random.normal(size=3 * num_qubits)
    found = noisy_probabilities(program, torch.tensor(inputs), torch.tensor(weights))
    names = [f"w_{i:03d}" for i in range(3 * num_qubits)]
    for row, sample in zip(found.numpy(), inputs, strict=True):
        values = dict(zip(names, weights, strict=True))
        values |= {f"x_{i:03d}": value for i, value in enumerate(sample)}
        expected = aer_probabilities(circuit, model, channels.readout, values)
        np.testing.assert_allclose(row, expected, atol=1e-9)


def test_parametrised_two_qubit_gates_with_noise():
    circuit = QuantumCircuit(2)
    circuit.rx(Parameter("w_000"), 0)
    circuit.rzz(Parameter("w_001"), 0, 1)
    circuit.rx(Parameter("w_002"), 1)
    circuit.rxx(Parameter("w_003"), 1, 0)
    circuit.cp(Parameter("w_004"), 1, 0)
    circuit.id(0)
    circuit.measure_all()
    model = NoiseModel(basis_gates=["rx", "rzz", "rxx", "cp", "id"])
    channels = {}
    for name, qubits, error in (
        ("rx", (0,), amplitude_damping_error(0.1)),
        ("rx", (1,), depolarizing_error(0.05, 1)),
        ("rzz", (0, 1), depolarizing_error(0.1, 2)),
        ("rxx", (1, 0), amplitude_damping_error(0.2).expand(amplitude_damping_error(0.05))),
        ("cp", (1, 0), thermal_relaxation_error(50, 70, 10).tensor(depolarizing_error(0.1, 1))),
        ("id", (0,), amplitude_damping_error(0.3)),
    ):
        model.add_quantum_error(error, [name], list(qubits))
        channels[name, qubits] = error.to_quantumchannel().data
    program = DensityProgram.from_circuit(circuit, Channels(gates=channels))
    weights = np.array([0.3, -0.8, 1.2, 0.5, 2.0])
    found = noisy_probabilities(program, None, torch.tensor(weights))[0]
    names = dict(zip([f"w_{i:03d}" for i in range(5)], weights, strict=True))
    expected = aer_probabilities(circuit, model, [np.eye(2)] * 2, names)
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize("num_qubits", [1, 2, 5])
def test_without_channels_it_is_the_statevector(num_qubits):
    circuit = student(num_qubits) if num_qubits > 1 else QuantumCircuit(1)
    if num_qubits == 1:
        circuit.rx(Parameter("x_000"), 0)
        circuit.ry(Parameter("w_000"), 0)
    exact, noisy = Program.from_circuit(circuit), DensityProgram.from_circuit(circuit, Channels())
    inputs = torch.randn(3, exact.num_inputs, dtype=torch.float64)
    weights = torch.randn(exact.num_weights, dtype=torch.float64)
    torch.testing.assert_close(
        noisy_probabilities(noisy, inputs, weights), probabilities(exact, inputs, weights)
    )


def test_gradients_are_the_parameter_shifts(device):
    backend, _, channels = device
    circuit = transpile(student(3), backend, optimization_level=1, seed_transpiler=3)
    program = DensityProgram.from_circuit(circuit, channels)
    inputs = torch.randn(2, 3, dtype=torch.float64)
    weights = torch.randn(9, dtype=torch.float64, requires_grad=True)
    mix = torch.randn(2, 8, dtype=torch.float64)

    def value(weight):
        return (noisy_probabilities(program, inputs, weight) * mix).sum()

    (gradient,) = torch.autograd.grad(value(weights), weights)
    for number in range(9):
        shift = torch.zeros(9, dtype=torch.float64)
        shift[number] = np.pi / 2
        expected = (value(weights + shift) - value(weights - shift)) / 2
        assert abs(gradient[number] - expected) < 1e-8


def test_second_derivatives(device):
    backend, _, channels = device
    circuit = transpile(student(2), backend, optimization_level=1, seed_transpiler=3)
    program = DensityProgram.from_circuit(circuit, channels)
    inputs = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(6, dtype=torch.float64, requires_grad=True)

    def run(features, weight):
        return noisy_probabilities(program, features, weight)

    assert torch.autograd.gradcheck(run, (inputs, weights))
    assert torch.autograd.gradgradcheck(run, (inputs, weights))


def random_device(num_qubits, seed):
    """A circuit of many two-qubit gates whose first rotations alone use inputs, and noise."""
    random = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    gates = {}
    for number in range(8):
        low, high = (int(q) for q in random.permutation(num_qubits)[:2])
        circuit.rx(Parameter(f"w_{number:03d}"), low)
        circuit.cz(low, high)
        error = amplitude_damping_error(0.1).tensor(depolarizing_error(0.1, 1))
        gates["cz", (low, high)] = error.to_quantumchannel().data
    return DensityProgram.from_circuit(circuit, Channels(gates=gates))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("num_qubits", "batch"), [(2, 9), (3, 40), (4, 40), (5, 40)])
def test_the_kernel_is_the_torch_path(num_qubits, batch, dtype):
    program = random_device(num_qubits, seed=num_qubits)
    inputs = torch.randn(batch, num_qubits, dtype=dtype, requires_grad=True)
    weights = torch.randn(8, dtype=dtype, requires_grad=True)
    mix = torch.randn(batch, 2**num_qubits, dtype=dtype)
    found = []
    for kernel in (True, False):
        values = noisy_values(program, inputs, weights, kernel=kernel)
        found.append((values, *torch.autograd.grad((values * mix).sum(), (inputs, weights))))
    tolerance = 1e-4 if dtype == torch.float32 else 1e-11
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs, atol=tolerance, rtol=tolerance)


def test_the_kernel_under_transforms():
    program = random_device(2, seed=0)
    inputs = torch.randn(3, 9, 2, dtype=torch.float64)
    weights = torch.randn(3, 8, dtype=torch.float64)

    def value(kernel):
        return lambda weight, features: noisy_values(program, features, weight, kernel=kernel)

    def loss(kernel):
        return lambda weight, features: value(kernel)(weight, features)[:, 1].square().sum()

    for transform in (
        lambda kernel: vmap(value(kernel))(weights, inputs),
        lambda kernel: vmap(value(kernel), in_dims=(None, 0))(weights[0], inputs),
        lambda kernel: vmap(vmap(value(kernel), (None, 0)), (0, None))(weights, inputs),
        lambda kernel: vmap(grad(loss(kernel)))(weights, inputs),
        lambda kernel: grad(lambda w: grad(loss(kernel))(w, inputs[0]).sum())(weights[0]),
    ):
        torch.testing.assert_close(transform(True), transform(False))
    leaves = [inputs[0].requires_grad_(), weights[0].requires_grad_()]
    assert torch.autograd.gradgradcheck(lambda i, w: value(True)(w, i), leaves)
    population = weights.detach().requires_grad_()
    gradients = []
    for kernel in (True, False):
        values = vmap(value(kernel))(population, inputs.detach())
        gradients.append(torch.autograd.grad(values.square().sum(), population)[0])
    torch.testing.assert_close(*gradients)


def networks():
    circuit = student(2, measured=False)
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    options = {"circuit": circuit, "input_params": names[6:], "weight_params": names[:6]}
    return (
        SamplerQNN(**options, interpret=lambda o: o.bit_count() % 2, output_shape=2),
        EstimatorQNN(**options, observables=[SparsePauliOp("ZZ"), SparsePauliOp("IZ")]),
    )


def test_the_connector_runs_a_population_on_a_device(device):
    backend, _, channels = device
    isa = transpile(student(2), backend, optimization_level=1, seed_transpiler=3)
    program = DensityProgram.from_circuit(isa, channels)
    sampler, estimator = networks()
    connector = CompiledConnector(sampler, channels=channels, circuit=isa)
    weights, inputs = torch.randn(4, 6), torch.randn(4, 5, 2)

    def member(weight, features):
        return functional_call(connector, {"weight": weight, "_weights": weight}, (features,))

    values = vmap(member)(weights, inputs)
    assert values.shape == (4, 5, 2)
    exact = torch.stack(
        [noisy_probabilities(program, i, w) for i, w in zip(inputs, weights, strict=True)]
    )
    torch.testing.assert_close(values[..., 0], exact[..., 0] + exact[..., 3])
    z = CompiledConnector(estimator, weights[0].numpy(), channels=channels, circuit=isa)
    signs = torch.tensor([[1.0, -1.0, -1.0, 1.0], [1.0, -1.0, 1.0, -1.0]])
    torch.testing.assert_close(z(inputs[0]), exact[0] @ signs.T)
    with pytest.raises(CircuitError, match="run with noise"):
        connector.from_states(torch.ones(1, 4) / 2)


def test_transfer_matrices_compose_and_preserve_the_trace():
    unitary = SuperOp(QuantumCircuit(2)).data
    np.testing.assert_allclose(of_superoperator(unitary), np.eye(16), atol=1e-12)
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.cx(0, 1)
    circuit.t(1)
    from qiskit.quantum_info import Operator

    np.testing.assert_allclose(
        of_superoperator(SuperOp(circuit).data), of_unitary(Operator(circuit).data), atol=1e-12
    )
    noise = amplitude_damping_error(0.2).tensor(depolarizing_error(0.1, 1)).to_quantumchannel()
    np.testing.assert_allclose(of_superoperator(noise.data)[0], np.eye(16)[0], atol=1e-12)


def test_bad_channels_are_refused():
    with pytest.raises(
        CircuitError, match=r"channel of 'cx' on qubits \[0, 1\] has shape \(4, 4\)"
    ):
        Channels(gates={("cx", (0, 1)): np.eye(4)})
    with pytest.raises(CircuitError, match=r"rows sum to 1"):
        Channels(readout={0: [[0.9, 0.2], [0.1, 0.8]]})
    circuit = QuantumCircuit(1)
    circuit.h(0)
    circuit.delay(100, 0, unit="dt")
    with pytest.raises(CircuitError, match=r"set Channels\.dt"):
        DensityProgram.from_circuit(circuit, Channels(relaxation={0: (1e-4, 1e-4)}))


@pytest.mark.parametrize("kind", ["ccx", "reset"])
def test_what_cannot_run_on_a_device_is_refused(kind):
    circuit = QuantumCircuit(3)
    if kind == "ccx":
        circuit.ccx(0, 1, 2)
    else:
        circuit.reset(0)
    with pytest.raises(UnsupportedInstructionError, match=f"'{kind}'"):
        DensityProgram.from_circuit(circuit, Channels())
    with pytest.raises(UnsupportedInstructionError, match=f"'{kind}'"):
        CompiledConnector(SamplerQNN(circuit=circuit), channels=Channels())


def test_more_qubits_than_memory_is_refused_before_allocating():
    circuit = QuantumCircuit(25)
    circuit.h(range(25))
    with pytest.raises(CircuitError, match="a noisy state on 25 qubits"):
        DensityProgram.from_circuit(circuit, Channels())
