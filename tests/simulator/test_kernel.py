"""The compiled kernel against the torch path, and what only the kernel has to get right."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import real_amplitudes, zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from torch.func import grad, jacrev, vmap

from qkd_qiskit.simulator import Program
from qkd_qiskit.simulator.kernel.angles import KernelAngles
from qkd_qiskit.simulator.kernel.call import Call
from qkd_qiskit.simulator.readout import expectations, outcome_sums
from qkd_qiskit.simulator.run import evaluate


def random_program(seed: int, *, num_qubits: int, gates: int) -> Program:
    """Rotations by inputs, weights and sums of them, phases, permutations, in any order."""
    random = np.random.default_rng(seed)
    circuit = QuantumCircuit(num_qubits)
    inputs = [Parameter(f"x_{i:03d}") for i in range(3)]
    weights = [Parameter(f"w_{i:03d}") for i in range(4)]
    for parameter in (*inputs, *weights):
        circuit.ry(parameter, int(random.integers(num_qubits)))
    for _ in range(gates):
        first, second = random.permutation(max(num_qubits, 2))[:2]
        x, w = inputs[random.integers(3)], weights[random.integers(4)]
        angle = [x, w, x + 2 * w, x * w, 0.3][random.integers(5)]
        kind = random.integers(8 if num_qubits > 1 else 4)
        qubit = int(random.integers(num_qubits))
        if kind < 3:
            getattr(circuit, ["ry", "rz", "rx"][kind])(angle, qubit)
        elif kind == 3:
            getattr(circuit, ["h", "sx", "t", "y"][random.integers(4)])(qubit)
        elif kind == 4:
            circuit.rzz(angle, int(first), int(second))
        elif kind == 5:
            circuit.cx(int(first), int(second))
        elif kind == 6:
            circuit.cz(int(first), int(second))
        else:
            circuit.swap(int(first), int(second))
    return Program.from_circuit(circuit)


def both_ways(program, readout, *, batch, seed=0, dtype=torch.float64, states=None, spread=1.0):
    """Values and gradients by the kernel and by the torch path."""
    found = []
    for kernel in (True, False):
        generator = torch.Generator().manual_seed(seed)
        inputs = torch.randn(batch, program.num_inputs, generator=generator, dtype=dtype)
        weights = spread * torch.randn(program.num_weights, generator=generator, dtype=dtype)
        leaves = [inputs.requires_grad_(), weights.requires_grad_()]
        initial = None
        if states is not None:
            initial = states.clone().requires_grad_()
            leaves.append(initial)
        values = evaluate(program, readout, inputs, weights, initial=initial, kernel=kernel)
        mix = torch.randn(values.shape, generator=generator, dtype=dtype)
        gradients = torch.autograd.grad((values * mix).sum(), leaves, allow_unused=True)
        found.append((values, *gradients))
    return found


def assert_same(found, **tolerance):
    for mine, theirs in zip(*found, strict=True):
        if mine is None or theirs is None:  # an unused tensor has no gradient, or a zero one
            rest = theirs if mine is None else mine
            assert rest is None or not rest.any()
        else:
            torch.testing.assert_close(mine, theirs, **tolerance)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_qubits=st.integers(1, 7),
    gates=st.integers(0, 25),
    batch=st.sampled_from([1, 3, 8, 16, 19, 33]),
)
def test_random_circuits(seed, num_qubits, gates, batch):
    program = random_program(seed, num_qubits=num_qubits, gates=gates)
    found = both_ways(program, outcome_sums(program), batch=batch, seed=seed)
    assert_same(found, atol=1e-11, rtol=1e-9)
    observables = [SparsePauliOp("Z" * num_qubits), SparsePauliOp("I" * num_qubits)]
    readout = expectations(program, observables)
    assert_same(both_ways(program, readout, batch=batch, seed=seed), atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4, 5, 8, 10])
def test_single_precision(num_qubits):
    program = random_program(num_qubits, num_qubits=num_qubits, gates=30)
    found = both_ways(program, outcome_sums(program), batch=37, dtype=torch.float32)
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype == torch.float32
        torch.testing.assert_close(mine, theirs, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("kind", [torch.float64, torch.complex128])
@pytest.mark.parametrize("batch", [5, 16])
def test_given_states(kind, batch):
    circuit = QuantumCircuit(4)
    weights = [Parameter(f"w_{i:03d}") for i in range(8)]
    for number, weight in enumerate(weights):
        circuit.ry(weight, number % 4)
        circuit.rz(weight, number % 4)
        circuit.cx(number % 4, (number + 1) % 4)
    program = Program.from_circuit(circuit)
    generator = torch.Generator().manual_seed(3)
    states = torch.randn(batch, 16, dtype=kind, generator=generator)
    readout = outcome_sums(program, interpret=lambda o: o % 3, output_shape=(3,))
    found = both_ways(program, readout, batch=batch, states=states)
    assert_same(found, atol=1e-11, rtol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("angle", [0.0, np.pi, -np.pi, 3.0, np.pi - 1e-4, 2 * np.pi, 25.0])
def test_angles_whose_tangent_is_large(angle, dtype):
    # a deep circuit without phases, so that the carried scale has nowhere to go
    circuit = real_amplitudes(5, reps=12)
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    program = Program.from_circuit(circuit, input_params=[], weight_params=names)
    readout = outcome_sums(program)
    gradients = []
    for kernel in (True, False):
        weights = torch.full((len(names),), angle, dtype=dtype)
        weights[::7] += 0.3
        weights.requires_grad_()
        values = evaluate(program, readout, torch.zeros(2, 0, dtype=dtype), weights, kernel=kernel)
        (gradient,) = torch.autograd.grad(values[:, :7].square().sum(), weights)
        gradients.append((values, gradient))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    assert_same(gradients, atol=tolerance, rtol=tolerance)


def test_deep_circuits_keep_their_precision():
    circuit = QuantumCircuit(3)
    weights = [Parameter(f"w_{i:04d}") for i in range(1500)]
    for number, weight in enumerate(weights):
        circuit.ry(weight, number % 3)
        if number % 3 == 2:
            circuit.cx(number % 2, number % 2 + 1)
    program = Program.from_circuit(circuit)
    found = both_ways(program, outcome_sums(program), batch=2, dtype=torch.float32, spread=2.0)
    assert_same(found, atol=1e-4, rtol=1e-3)


def small():
    circuit = zz_feature_map(2, reps=1, parameter_prefix="x_").compose(real_amplitudes(2, reps=1))
    names = sorted(circuit.parameters, key=lambda parameter: parameter.name)
    inputs = [name for name in names if name.name.startswith("x_")]
    program = Program.from_circuit(circuit, input_params=inputs)
    return program, outcome_sums(program)


def test_transforms_of_torch_func():
    program, readout = small()
    inputs = torch.randn(6, 3, 2, dtype=torch.float64)
    weights = torch.randn(6, 4, dtype=torch.float64)

    def value(kernel):
        def run(weight, features):
            return evaluate(program, readout, features, weight, kernel=kernel)

        return run

    def loss(kernel):
        return lambda weight, features: value(kernel)(weight, features)[:, 1].square().sum()

    for transform in (
        lambda kernel: vmap(grad(loss(kernel)))(weights, inputs),
        lambda kernel: vmap(grad(loss(kernel), argnums=1), in_dims=(0, None))(weights, inputs[0]),
        lambda kernel: jacrev(value(kernel))(weights[0], inputs[0]),
        lambda kernel: vmap(jacrev(value(kernel)), in_dims=(None, 0))(weights[0], inputs),
        lambda kernel: vmap(vmap(value(kernel), (None, 0)), (0, None))(weights, inputs),
        lambda kernel: vmap(value(kernel), in_dims=(1, 2))(weights.T, inputs.movedim(0, 2)),
        lambda kernel: grad(lambda w: grad(loss(kernel))(w, inputs[0]).sum())(weights[0]),
    ):
        torch.testing.assert_close(transform(True), transform(False))


def test_checked_against_finite_differences():
    program, readout = small()
    inputs = torch.randn(2, 2, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(4, dtype=torch.float64, requires_grad=True)

    def run(features, weight):
        return evaluate(program, readout, features, weight)

    assert torch.autograd.gradcheck(run, (inputs, weights))
    assert torch.autograd.gradgradcheck(run, (inputs, weights))


def test_gradients_stay_right_when_weights_change_before_backward():
    program, readout = small()
    inputs, weights = torch.randn(3, 2), torch.randn(4, requires_grad=True)
    loss = evaluate(program, readout, inputs, weights)[:, 0].sum()
    loss.backward(retain_graph=True)
    first = weights.grad.clone()
    evaluate(program, readout, torch.randn(40, 2), weights.detach() + 1)  # reuses the scratch
    weights.grad = None
    loss.backward()
    torch.testing.assert_close(weights.grad, first)


def test_threads_change_nothing(monkeypatch):
    monkeypatch.setattr("qkd_qiskit.simulator.threads._LEAST_WORK", 0)
    program = random_program(5, num_qubits=5, gates=20)
    readout = outcome_sums(program)
    prepared = KernelAngles(program, readout)
    generator = torch.Generator().manual_seed(0)
    extra = len(program.features)  # all of them products with an input
    threads = torch.get_num_threads()
    for members, batch in ((1, 70), (5, 20)):
        shapes = ((1, batch, program.num_inputs + extra), (members, program.num_weights))
        tensors = [torch.randn(shape, generator=generator) for shape in shapes]
        incoming = np.random.default_rng(0).normal(size=(members, batch, 32)).astype(np.float32)
        results = []
        for count in (1, 3):
            torch.set_num_threads(count)
            try:
                one = Call.of(prepared, *tensors, None)
                results.append((one.values(keep=True), *one.gradients(incoming, of_states=False)))
            finally:
                torch.set_num_threads(threads)
        for alone, together in zip(*results, strict=True):
            np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_process_does_not_wait_for_its_parents_threads():
    code = """
import os, torch
from qiskit.circuit.library import real_amplitudes
from qkd_qiskit.simulator import Program, probabilities
from qkd_qiskit.simulator import threads
threads._LEAST_WORK = 0
torch.set_num_threads(2)
program = Program.from_circuit(real_amplitudes(3))
inputs, weights = torch.zeros(64, 0), torch.zeros(12)
probabilities(program, inputs, weights)
child = os.fork()
if child == 0:
    probabilities(program, inputs, weights)
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=100).returncode == 0


def test_importing_the_package_does_not_load_numba():
    code = "import sys, qkd_qiskit.simulator; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_numba_torch_serves(monkeypatch):
    from qkd_qiskit.simulator import run

    program, readout = small()
    inputs, weights = torch.randn(3, 2), torch.randn(4)
    expected = evaluate(program, readout, inputs, weights)
    monkeypatch.setattr(run, "kernel_works", lambda: False)
    torch.testing.assert_close(evaluate(program, readout, inputs, weights), expected)
