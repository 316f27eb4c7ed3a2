"""What the tests of gradients share: circuits, numbers, and gradients of a random mixture."""

from functools import cache

import torch
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.simulator import Program, probabilities
from qkd_qiskit.targets import DeviceTarget
from qkd_qiskit.targets.snapshots import fake_backend

DOUBLE = torch.float64


@cache
def device(name, shots=4096):
    return DeviceTarget(fake_backend(name), shots=shots, num_transpilations=1)


def reuploading():
    """Inputs that enter twice, weights with coefficients, and a merged angle."""
    circuit = QuantumCircuit(2)
    x = [Parameter(f"x_{i:03d}") for i in range(2)]
    w = [Parameter(f"w_{i:03d}") for i in range(5)]
    for layer in range(2):
        for qubit in range(2):
            circuit.ry(x[qubit], qubit)
            circuit.rz(2 * w[layer] + x[qubit], qubit)
        circuit.crx(w[2 + layer], 0, 1)
    circuit.rx(-0.5 * w[4], 0)
    return circuit


def trained_reuploading():
    """Angles w x + b in two layers, one of them without b and one whose x is in two angles."""
    circuit = QuantumCircuit(2)
    x = [Parameter(f"x_{i:03d}") for i in range(3)]
    w = [Parameter(f"w_{i:03d}") for i in range(9)]
    circuit.ry(w[0] * x[0] + w[1], 0)
    circuit.rz(-2 * w[2] * x[1] + 2 * w[3] + 0.3, 0)
    circuit.ry(w[4] * x[2], 1)
    circuit.cz(0, 1)
    circuit.ry(w[5] * x[0] + w[6], 0)
    circuit.rx(w[7] * x[0], 1)
    circuit.ry(w[7] * x[0] + w[8], 1)
    return circuit


def numbers(*shape, seed=0, grad=True):
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)
    return made.requires_grad_(grad)


def ideal(circuit, inputs, weights):
    return probabilities(Program.from_circuit(circuit), inputs, weights)


def gradients(run, inputs, weights, *, seed=9):
    found = run(inputs, weights)
    mix = numbers(*found.shape, seed=seed, grad=False)
    return torch.autograd.grad((found * mix).sum(), (inputs, weights))
