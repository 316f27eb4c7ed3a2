"""CompiledConnector against the stock connector: values, gradients, face, populations."""

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch.func import functional_call, vmap

from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.simulator import CompiledConnector


def student_circuit(num_qubits: int = 2, layers: int = 1):
    """RY(x) per qubit, then layers of RY, RZ and a CX ring."""
    circuit = QuantumCircuit(num_qubits)
    inputs = [Parameter(f"x_{i:03d}") for i in range(num_qubits)]
    weights = [Parameter(f"w_{i:03d}") for i in range(2 * num_qubits * layers)]
    for qubit, parameter in enumerate(inputs):
        circuit.ry(parameter, qubit)
    remaining = iter(weights)
    for _ in range(layers):
        for qubit in range(num_qubits):
            circuit.ry(next(remaining), qubit)
            circuit.rz(next(remaining), qubit)
        for qubit in range(num_qubits):
            circuit.cx(qubit, (qubit + 1) % num_qubits)
    return circuit, inputs, weights


def sampler_network(**options):
    circuit, inputs, weights = student_circuit(**options)
    return SamplerQNN(
        circuit=circuit, input_params=inputs, weight_params=weights, input_gradients=True
    )


def parity(outcome: int) -> int:
    return outcome.bit_count() % 2


def library_networks():
    features, ansatz = zz_feature_map(2), real_amplitudes(2, reps=1)
    circuit = features.compose(ansatz)
    common = {
        "circuit": circuit,
        "input_params": list(features.parameters),
        "weight_params": list(ansatz.parameters),
        "input_gradients": True,
    }
    z_sums = [SparsePauliOp.from_list([("ZI", 0.5), ("IZ", 0.25)]), SparsePauliOp("ZZ")]
    general = [SparsePauliOp.from_list([("XY", 0.3), ("YY", 1.0)]), SparsePauliOp("ZX")]
    return {
        "sampler": SamplerQNN(**common),
        "parity": SamplerQNN(**common, interpret=parity, output_shape=2),
        "pairs": SamplerQNN(**common, interpret=lambda o: (o & 1, o >> 1), output_shape=(2, 3)),
        "estimator": EstimatorQNN(**common),
        "z_sums": EstimatorQNN(**common, observables=z_sums),
        "general": EstimatorQNN(**common, observables=general),
    }


@pytest.mark.parametrize("name", list(library_networks()))
def test_values_and_gradients_are_the_stock_connectors(name):
    network = library_networks()[name]
    stock = TorchConnector(network)
    ours = CompiledConnector(network)
    ours.load_state_dict(stock.state_dict())
    assert ours.compiled
    inputs = torch.rand(3, network.num_inputs, generator=torch.Generator().manual_seed(1))
    gradients = []
    for connector in (stock, ours):
        given = inputs.clone().requires_grad_()
        values = connector(given)
        weighting = torch.linspace(0.5, 1.5, values.numel()).reshape(values.shape)
        (values * weighting).sum().backward()
        gradients.append((values.detach(), given.grad, connector.weight.grad))
    if name == "pairs":  # the stock input gradient is wrong for outputs of several dimensions
        gradients = [(values, weights) for values, _, weights in gradients]
    for theirs, mine in zip(*gradients, strict=True):
        assert theirs.shape == mine.shape
        assert theirs.dtype == mine.dtype
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)


def test_weights_load_into_the_stock_connector_and_back():
    network = sampler_network()
    stock, ours = TorchConnector(network), CompiledConnector(network)
    assert list(ours.state_dict()) == list(stock.state_dict()) == ["weight", "_weights"]
    stock.load_state_dict(ours.state_dict())
    inputs = torch.tensor([[0.3, -0.2]])
    torch.testing.assert_close(stock(inputs), ours(inputs), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 2), (2, 3, 2)])
def test_output_shapes_are_the_stock_connectors(shape):
    network = sampler_network()
    inputs = torch.rand(shape)
    assert CompiledConnector(network)(inputs).shape == TorchConnector(network)(inputs).shape


def test_empty_batch():
    assert CompiledConnector(sampler_network())(torch.zeros(0, 2)).shape == (0, 4)


def test_no_inputs_and_no_weights():
    circuit = QuantumCircuit(2)
    circuit.h(0)
    network = SamplerQNN(circuit=circuit)
    values = CompiledConnector(network)()
    torch.testing.assert_close(values, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    assert values.shape == TorchConnector(network)().shape


def test_weights_only():
    circuit, _, weights = student_circuit()
    circuit = circuit.assign_parameters({"x_000": 0.1, "x_001": 0.2})
    network = SamplerQNN(circuit=circuit, weight_params=weights)
    ours = CompiledConnector(network)
    stock = TorchConnector(network)
    stock.load_state_dict(ours.state_dict())
    torch.testing.assert_close(ours(), stock(), atol=1e-6, rtol=1e-6)
    assert ours(torch.zeros(3, 0)).shape == (3, 4)
    ours().square().sum().backward()
    assert ours.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_inputs_that_are_not_finite_are_refused(bad):
    connector = CompiledConnector(sampler_network())
    inputs = torch.tensor([[0.1, bad], [0.0, 0.2]])
    with pytest.raises(InputError, match="1 of 4 circuit inputs are NaN or infinite"):
        connector(inputs)
    with pytest.raises(InputError, match="NaN or infinite"):
        vmap(connector)(inputs[None])


def test_inputs_of_another_length_are_refused():
    with pytest.raises(InputError, match=r"shape \(3, 5\); give \(batch, 2\)"):
        CompiledConnector(sampler_network())(torch.zeros(3, 5))


def test_dtype_follows_the_weights():
    connector = CompiledConnector(sampler_network()).double()
    assert connector(torch.rand(3, 2)).dtype == torch.float64


@pytest.mark.parametrize("in_dims", [(0, 0), (0, None), (None, 0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_population_is_its_members(in_dims, dtype):
    connector = CompiledConnector(sampler_network(layers=2)).to(dtype)
    members, samples = 5, 7
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(members, connector.weight.numel(), generator=generator, dtype=dtype)
    inputs = torch.randn(members, samples, 2, generator=generator, dtype=dtype)
    if in_dims[0] is None:
        weights = weights[0]
    if in_dims[1] is None:
        inputs = inputs[0]
    weights.requires_grad_()
    inputs.requires_grad_()

    def member(weight, features):
        return functional_call(connector, {"weight": weight, "_weights": weight}, (features,))

    values = vmap(member, in_dims=in_dims)(weights, inputs)
    assert values.shape == (members, samples, 4)
    mix = torch.randn(values.shape, generator=generator, dtype=dtype)
    gradients = torch.autograd.grad((values * mix).sum(), (weights, inputs))

    def pick(tensor, index, dim):
        return tensor if dim is None else tensor[index]

    singly = torch.stack(
        [member(pick(weights, i, in_dims[0]), pick(inputs, i, in_dims[1])) for i in range(members)]
    )
    expected = torch.autograd.grad((singly * mix).sum(), (weights, inputs))
    torch.testing.assert_close(values, singly)
    for got, want in zip(gradients, expected, strict=True):
        torch.testing.assert_close(got, want, atol=1e-5, rtol=1e-4)


def amplitude_network(num_qubits: int = 2):
    """A preparation by RY and CX from inputs, then one trainable layer."""
    inputs = [Parameter(f"x_{i:03d}") for i in range(3)]
    weights = [Parameter(f"w_{i:03d}") for i in range(2 * num_qubits)]
    circuit = QuantumCircuit(num_qubits)
    circuit.ry(inputs[0], 1)
    circuit.ry(inputs[1], 0)
    circuit.cx(1, 0)
    circuit.ry(inputs[2], 0)
    circuit.cx(1, 0)
    preparation = len(circuit.data)
    for qubit in range(num_qubits):
        circuit.ry(weights[2 * qubit], qubit)
        circuit.rz(weights[2 * qubit + 1], qubit)
        circuit.rx(weights[2 * qubit], qubit)
    circuit.cx(0, 1)
    network = SamplerQNN(circuit=circuit, input_params=inputs, weight_params=weights)
    return network, preparation


def test_from_states_is_forward_after_the_preparation():
    network, preparation = amplitude_network()
    connector = CompiledConnector(network, preparation=preparation).double()
    angles = torch.rand(4, 3, dtype=torch.float64)
    cosine, sine = torch.cos(angles[:, 0] / 2), torch.sin(angles[:, 0] / 2)
    low = (angles[:, 1] + angles[:, 2]) / 2
    high = (angles[:, 1] - angles[:, 2]) / 2
    states = torch.stack(
        (cosine * low.cos(), cosine * low.sin(), sine * high.cos(), sine * high.sin()), dim=1
    )
    torch.testing.assert_close(connector.from_states(states), connector(angles))
    complex_states = states.to(torch.complex128)
    torch.testing.assert_close(connector.from_states(complex_states), connector(angles))
    assert connector.from_states(states[0]).shape == (4,)


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_from_states_is_differentiable_in_amplitudes(dtype):
    network, preparation = amplitude_network()
    connector = CompiledConnector(network, preparation=preparation).double()
    states = torch.nn.functional.normalize(torch.randn(3, 4, dtype=dtype), dim=1)
    states.requires_grad_()
    assert torch.autograd.gradcheck(connector.from_states, (states,))


def test_from_states_under_vmap():
    network, preparation = amplitude_network()
    connector = CompiledConnector(network, preparation=preparation)
    states = torch.nn.functional.normalize(torch.randn(5, 3, 4), dim=-1)
    together = vmap(connector.from_states)(states)
    torch.testing.assert_close(together, torch.stack([connector.from_states(s) for s in states]))


def test_preparation_may_not_use_weights():
    with pytest.raises(CircuitError, match="preparation=3 includes gate 'ry', which uses a weight"):
        CompiledConnector(sampler_network(), preparation=3)


def test_from_states_needs_all_inputs_in_the_preparation():
    with pytest.raises(InputError, match="uses inputs after its preparation"):
        CompiledConnector(sampler_network(), preparation=1).from_states(torch.ones(1, 4) / 2)


def test_second_derivatives():
    connector = CompiledConnector(sampler_network()).double()
    inputs = torch.rand(2, 2, dtype=torch.float64, requires_grad=True)
    weights = connector.weight.detach().clone().requires_grad_()

    def run(weight, features):
        return functional_call(connector, {"weight": weight, "_weights": weight}, (features,))

    assert torch.autograd.gradcheck(run, (weights, inputs))
    assert torch.autograd.gradgradcheck(run, (weights, inputs))


def test_measured_in_order_is_compiled():
    circuit, inputs, weights = student_circuit()
    plain = CompiledConnector(
        SamplerQNN(circuit=circuit, input_params=inputs, weight_params=weights)
    )
    measured = circuit.copy()
    measured.measure_all()
    network = SamplerQNN(circuit=measured, input_params=inputs, weight_params=weights)
    with_measurement = CompiledConnector(network, plain.weight.detach())
    features = torch.rand(3, 2)
    assert with_measurement.compiled
    torch.testing.assert_close(with_measurement(features), plain(features))


@pytest.mark.parametrize("kind", ["reset", "measure", "if_else"])
def test_what_has_no_unitary_falls_back_with_one_warning(kind):
    parameter = Parameter("w_000")
    circuit = QuantumCircuit(1, 1)
    circuit.h(0)
    if kind == "reset":
        circuit.reset(0)
    elif kind == "measure":
        circuit.measure(0, 0)
    else:
        circuit.measure(0, 0)
        with circuit.if_test((circuit.clbits[0], 1)):
            circuit.x(0)
    circuit.ry(parameter, 0)
    if kind != "reset":
        circuit.measure(0, 0)
    network = SamplerQNN(circuit=circuit, weight_params=[parameter])
    name = {"reset": "reset", "measure": "ry", "if_else": "if_else"}[kind]
    with pytest.warns(UserWarning, match=f"instruction '{name}'") as caught:
        connector = CompiledConnector(network)
    assert len(caught) == 1
    assert not connector.compiled
    with pytest.raises(CircuitError, match="not compiled"):
        connector.from_states(torch.ones(1, 2))
