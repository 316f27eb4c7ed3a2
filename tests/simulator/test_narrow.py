"""Few samples of many qubits, run alone: the same values and gradients as the torch path."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.kernel import plan
from qkd_qiskit.simulator.kernel.narrow_call import NarrowCall

QUBITS = 8  # two times the qubits of a row in float32
TOLERANCE = {torch.float32: 2e-5, torch.float64: 1e-10}


@pytest.fixture(autouse=True)
def narrow_calls(monkeypatch):
    """Runs of a few samples that go alone, whatever their width."""
    monkeypatch.setattr(plan, "LEAST_NARROW", QUBITS)
    counted, make = [], NarrowCall.of

    def of(*arguments):
        counted.append(arguments)
        return make(*arguments)

    monkeypatch.setattr(NarrowCall, "of", of)
    return counted


def circuit(*, angles=True):
    inputs, weights = ParameterVector("x", 4), ParameterVector("w", 2 * QUBITS + 3)
    made = QuantumCircuit(QUBITS)
    if angles:
        for qubit in range(QUBITS - 1):
            made.ry(inputs[qubit % 4] * (qubit + 1), qubit)
    for qubit in range(QUBITS):
        made.ry(weights[qubit], qubit)
        made.rz(weights[QUBITS + qubit], qubit)
    for qubit in range(QUBITS):
        made.cx(qubit, (qubit + 1) % QUBITS)
    made.ry(3.14159, 2)
    made.ry(weights[3], 6)
    made.rzz(weights[-1], 0, 5)
    if angles:
        made.rz(inputs[1], 3)
    made.rx(weights[-2], 1)
    made.t(4)
    made.rx(weights[-3], 7)
    return made, list(inputs) if angles else [], list(weights)


def network(kind, **options):
    made, inputs, weights = circuit(**options)
    common = {"circuit": made, "input_params": inputs, "weight_params": weights}
    if kind == "probabilities":
        return SamplerQNN(**common, interpret=lambda outcome: outcome % 5, output_shape=5)
    observables = [
        SparsePauliOp.from_sparse_list(
            [("ZZ", [q, q + 1], 1.0), ("Z", [q], 0.5)], num_qubits=QUBITS
        )
        for q in range(3)
    ]
    return EstimatorQNN(**common, observables=observables)


def compare(kind, run, given, dtype, narrow_calls, **options):
    found = []
    for kernel in (True, False):
        torch.manual_seed(3)
        connector = CompiledConnector(
            network(kind, **options),
            np.random.default_rng(5).uniform(-2, 2, 2 * QUBITS + 3),
            kernel=kernel,
            small_in_double=False,
        ).to(dtype)
        start = given.clone().requires_grad_()
        values = run(connector, start)
        (values * torch.arange(1, values.numel() + 1).reshape(values.shape)).sum().backward()
        found.append((values.detach(), connector.weight.grad, start.grad))
        assert len(narrow_calls) == 1
    for ours, reference in zip(*found, strict=True):
        torch.testing.assert_close(ours, reference, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["probabilities", "expectations"])
def test_values_and_gradients_are_those_of_torch(kind, dtype, narrow_calls):
    given = torch.linspace(-1, 1.5, 8, dtype=dtype).reshape(2, 4)
    compare(kind, lambda connector, inputs: connector(inputs), given, dtype, narrow_calls)


@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64])
def test_gradients_of_given_states_are_those_of_torch(dtype, narrow_calls):
    torch.manual_seed(1)
    given = torch.randn(2, 2**QUBITS, dtype=dtype)
    given = given / given.norm(dim=1, keepdim=True)
    compare(
        "probabilities",
        lambda connector, states: connector.from_states(states),
        given,
        torch.float32,
        narrow_calls,
        angles=False,
    )


def test_members_of_a_population_run_alone_too(narrow_calls):
    connector = CompiledConnector(network("probabilities"), small_in_double=False)
    weights = torch.randn(3, 2 * QUBITS + 3)
    inputs = torch.randn(1, 4)

    def run(weight):
        return torch.func.functional_call(connector, {"_weights": weight}, (inputs,))

    together = torch.func.vmap(run)(weights)
    assert len(narrow_calls) == 1
    for member in range(3):
        torch.testing.assert_close(together[member], run(weights[member]), rtol=1e-5, atol=1e-6)


def test_a_number_that_is_not_finite_is_refused():
    connector = CompiledConnector(network("probabilities"), small_in_double=False)
    with pytest.raises(ValueError, match="1 of 4 circuit inputs are NaN or infinite"):
        connector(torch.tensor([[0.0, float("nan"), 0.0, 0.0]]))


@pytest.mark.parametrize(
    ("batch", "itemsize", "narrow"), [(4, 4, True), (5, 4, False), (2, 8, True), (3, 8, False)]
)
def test_a_tile_that_is_half_full_is_quicker_as_a_tile(batch, itemsize, narrow):
    assert plan.is_narrow(12, batch=batch, itemsize=itemsize) == narrow
    assert not plan.is_narrow(QUBITS - 1, batch=1, itemsize=itemsize)
