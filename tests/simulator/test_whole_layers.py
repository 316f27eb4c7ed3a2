"""The torch form by whole layers, as it runs on a GPU: the same numbers, and nothing waited for."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.circuit.random import random_circuit
from torch.func import vmap

from qkd_qiskit.simulator.angles import extend
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.readout import Readout, outcome_sums
from qkd_qiskit.simulator.statevector import angle_values, evolve, measure
from qkd_qiskit.simulator.whole_layers import evolve_layers, sum_outcomes


def layered(qubits, *, layers=2, reupload=False):
    """RY by inputs, then RY, RZ and a ring of CX by weights, with S and a partly turned layer."""
    x, w = ParameterVector("x", qubits), ParameterVector("w", 2 * qubits * layers + 1)
    circuit, place = QuantumCircuit(qubits), iter(w)
    for layer in range(layers):
        if layer == 0 or reupload:
            for qubit in range(qubits):
                circuit.ry(x[qubit], qubit)
        for qubit in range(qubits):
            circuit.ry(next(place), qubit)
            circuit.rz(next(place) + (x[0] if reupload else 0), qubit)
        if qubits > 1:
            for qubit in range(qubits):
                circuit.cx(qubit, (qubit + 1) % qubits)
        circuit.s(0)
    circuit.h(0)
    circuit.ry(next(place), qubits - 1)
    return Program.from_circuit(circuit, input_params=list(x), weight_params=list(w))


def by_layers(program, inputs, weights, initial=None):
    features = extend(program.features, inputs, weights)
    shared, per_sample = angle_values(program, *features)
    state = initial
    if state is None:
        state = weights.new_zeros(len(inputs), 2**program.num_qubits)
        state[:, 0] = 1
    return evolve_layers(program, state, shared, per_sample).expand(len(inputs), -1)


@pytest.mark.parametrize("reupload", [False, True])
@pytest.mark.parametrize("qubits", [1, 2, 3, 4, 5, 6, 9])
def test_whole_layers_give_the_states_of_single_gates(qubits, reupload):
    program = layered(qubits, reupload=reupload)
    inputs = torch.rand(3, program.num_inputs, dtype=torch.float64)
    weights = torch.rand(program.num_weights, dtype=torch.float64, requires_grad=True)
    expected, found = (
        run(program, *extend(program.features, inputs, weights)) for run in (evolve, by_layers)
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13)
    incoming = torch.rand_like(expected)
    slopes = [
        torch.autograd.grad((state * incoming).abs().square().sum(), weights)[0]
        for state in (expected, found)
    ]
    torch.testing.assert_close(slopes[1], slopes[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("seed", range(6))
def test_random_circuits_and_given_states_agree(seed):
    circuit = random_circuit(5, 6, max_operands=3, seed=seed)
    program = Program.from_circuit(circuit)
    none = torch.zeros(2, 0, dtype=torch.float64)
    start = torch.randn(2, 32, dtype=torch.complex128)
    expected = evolve(program, none, none[0], initial=start)
    found = by_layers(program, none, none[0], initial=start)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_members_of_a_population_agree():
    program = layered(5, reupload=True)
    inputs, weights = torch.rand(4, 3, 5), torch.rand(4, program.num_weights)
    expected = torch.stack([evolve(program, *pair) for pair in zip(inputs, weights, strict=True)])
    found = vmap(lambda one, other: by_layers(program, one, other))(inputs, weights)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("index", "size"),
    [
        ([3, 1, 0, 2, 7, 6, 5, 4], 8),
        ([0, 1, 2, 0, 1, 2, 0, 1], 3),
        ([2, 2, 2, 2, 2, 2, 2, 2], 5),
        ([0, 0, 0, 0, 0, 0, 1, 900], 901),
    ],
)
def test_outcomes_are_summed_as_one_by_one(index, size):
    readout = Readout(size, np.array(index))
    squares = torch.rand(3, 8, dtype=torch.float64, requires_grad=True)
    expected = torch.zeros(3, size, dtype=torch.float64)
    for state, output in enumerate(index):
        expected[:, output] += squares[:, state].detach()
    found = sum_outcomes(readout, squares)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-15)
    weight = torch.rand(size, dtype=torch.float64)
    (slopes,) = torch.autograd.grad((found * weight).sum(), squares)
    torch.testing.assert_close(slopes, weight[index].expand(3, 8), rtol=0, atol=0)


def test_a_layer_is_a_few_launches(on_device):
    """Ten qubits, four layers of RY, RZ and a ring: qubit by qubit it is eight for each RY."""
    program, kernels = layered(10, layers=4), {}
    readout = outcome_sums(program)
    for device in ("cpu", "meta"):
        inputs = torch.zeros(8, 10, device=device)
        weights = torch.zeros(program.num_weights, device=device, requires_grad=True)
        measure(evolve(program, inputs, weights), readout)  # makes the constants
        with on_device(device) as counted:
            measure(evolve(program, inputs, weights), readout)
        kernels[device] = counted.kernels
    assert kernels["meta"] < 120
    assert kernels["cpu"] > 3 * kernels["meta"]
