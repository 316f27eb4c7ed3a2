"""CompiledConnector under torch's modes: inference, autocast, compile, forward derivatives."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch.func import functional_call, hessian, jacfwd, jacrev, jvp

from qkd_qiskit.simulator import CompiledConnector

WEIGHTS = [0.3, -0.7, 1.1, 0.5]
INPUTS = torch.linspace(-1, 1, 24, dtype=torch.float64).reshape(12, 2)


def connector(kind="sampler", **options):
    features, weights = ParameterVector("x", 2), ParameterVector("w", 4)
    circuit = QuantumCircuit(2)
    for qubit in range(2):
        circuit.ry(features[qubit], qubit)
        circuit.rx(weights[qubit], qubit)
    circuit.cx(0, 1)
    for qubit in range(2):
        circuit.ry(weights[2 + qubit], qubit)
    common = {"circuit": circuit, "input_params": features, "weight_params": weights}
    network = (
        SamplerQNN(**common)
        if kind == "sampler"
        else EstimatorQNN(**common, observables=[SparsePauliOp("XX")])
    )
    return CompiledConnector(network, WEIGHTS, **options).double()


def as_function(layer):
    def run(weights, inputs):
        return functional_call(layer, {"weight": weights, "_weights": weights}, (inputs,))

    return run


@pytest.mark.parametrize(("kind", "kernel"), [("sampler", True), ("sampler", False), ("xx", True)])
def test_trains_after_inference_mode(kind, kernel):
    layer, fresh = (connector(kind, kernel=kernel) for _ in range(2))
    with torch.inference_mode():
        layer(INPUTS)
    for each in (layer, fresh):
        each(INPUTS).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, fresh.weight.grad, rtol=0, atol=0)


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # what torch says itself
@pytest.mark.parametrize("kind", ["sampler", "xx"])
def test_forward_derivatives_are_the_reverse_ones(kind):
    layer = connector(kind)
    run, weights = as_function(layer), layer.weight.detach().clone()
    reverse = jacrev(run)(weights, INPUTS)
    torch.testing.assert_close(jacfwd(run)(weights, INPUTS), reverse)
    direction = torch.ones_like(weights)
    tangent = jvp(lambda w: run(w, INPUTS), (weights,), (direction,))[1]
    torch.testing.assert_close(tangent, reverse @ direction)

    def loss(values):
        return run(values, INPUTS).square().sum()

    torch.testing.assert_close(hessian(loss)(weights), jacrev(jacrev(loss))(weights))


def test_autocast_does_not_touch_the_angles():
    layer = connector().float()
    expected = layer(INPUTS.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(INPUTS.float())
        assert layer(INPUTS.bfloat16()).dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # dynamo looks at .grad of tensors that have none
def test_torch_compile_at_the_first_call():
    layer, plain = connector().float(), connector().float()
    compiled = torch.compile(layer, backend="eager")
    torch.testing.assert_close(compiled(INPUTS.float()), plain(INPUTS.float()))


@pytest.mark.slow
def test_without_numbas_compiler_the_torch_path_serves():
    program = (
        "import torch\nfrom test_connector_modes import INPUTS, connector\n"
        "print(float(connector()(INPUTS).square().sum()))"
    )
    environment = os.environ | {
        "NUMBA_DISABLE_JIT": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    }
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    expected = float(connector()(INPUTS).square().sum().detach())
    assert float(run.stdout) == pytest.approx(expected, abs=1e-12)
    assert run.stderr.strip().splitlines() == [
        "the compiled kernel is not available, torch is used: NUMBA_DISABLE_JIT is set"
    ]
