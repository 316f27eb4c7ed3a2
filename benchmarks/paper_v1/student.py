"""What the student of arXiv:2311.13810 (version 1) is: a small CNN, one rotation per qubit, a head.

    image -> two convolutions -> 50 units -> theta_k = pi tanh(.) -> H, RY(theta_k) on qubit k
          -> frequencies of the 2^n outcomes -> head -> outputs, which the losses take for logits

The circuit entangles nothing and has no weights, so that its outcomes have a closed form. Bit order
is little-endian: bit k of an outcome is qubit k. A trained student writes its classes as bits, each
theta_k near pi/2 or -pi/2. An angle that should be pi/2 and has passed -pi/2 is trapped: its
gradient leads to -pi, the end of tanh's range, where sin is only 0.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import ParameterVector
from torch import Tensor, nn
from torch.nn.functional import softmax

from qkd_qiskit.recipe.seeds import derive_seed, seeded

Head = Literal["sigmoid", "softmax"]
GradientRule = Literal["published", "true"]

# What is added up for d f / d theta: factor * (f(theta + shift) - f(theta - shift)).
SHIFTS: dict[GradientRule, tuple[float, float]] = {
    "published": (math.pi / 4, 1.0),
    "true": (math.pi / 2, 0.5),
}


class PublishedStudent(nn.Module):
    """The published student with exact outcome probabilities, as torch differentiates it.

    The published difference f(theta + pi/4) - f(theta - pi/4) is sqrt(2) times the derivative,
    whatever theta is, since every outcome probability is affine in sin(theta_k).

    Attributes:
        qubits: Width of the circuit.
        head: sigmoid: sigmoid(f) and 1 - sigmoid(f), 2^(n + 1) outputs; softmax: softmax(f), 2^n.
        gradient: published, or the true derivative.
    """

    def __init__(
        self, *, qubits: int, head: Head = "sigmoid", gradient: GradientRule = "published"
    ) -> None:
        super().__init__()
        self.qubits, self.head, self.gradient = qubits, head, gradient
        self.conv1 = nn.Conv2d(1, 10, 5)
        self.conv2 = nn.Conv2d(10, 20, 5)
        self.dropout2d = nn.Dropout2d()
        self.fc1 = nn.Linear(320, 50)
        self.dropout = nn.Dropout()
        self.fc2 = nn.Linear(50, qubits)

    def angles(self, images: Tensor) -> Tensor:
        """Angles `(batch, qubits)` in radians of images `(batch, 1, 28, 28)`."""
        pool = nn.functional.max_pool2d
        hidden = pool(self.conv1(images), 2).relu()
        hidden = pool(self.dropout2d(self.conv2(hidden)), 2).relu()
        hidden = self.dropout(self.fc1(hidden.flatten(1)).relu())
        angles: Tensor = math.pi * torch.tanh(self.fc2(hidden))
        return angles

    def forward(self, images: Tensor) -> Tensor:
        """Outputs `(batch, outputs)` of images `(batch, 1, 28, 28)`."""
        angles = self.angles(images)
        if self.gradient == "published":
            angles = math.sqrt(2) * angles - (math.sqrt(2) - 1) * angles.detach()
        frequencies = outcome_probabilities(angles)
        if self.head == "softmax":
            return softmax(frequencies, dim=1)
        outputs = torch.sigmoid(frequencies)
        return torch.cat([outputs, 1 - outputs], dim=1)


def outcome_probabilities(angles: Tensor) -> Tensor:
    """p_b = prod_k (1 +- sin theta_k) / 2, + where bit k of b is 1: `(batch, 2^n)`."""
    ones = (1 + torch.sin(angles)) / 2
    probabilities = torch.ones_like(angles[:, :1])
    for k in range(angles.shape[1]):
        one = ones[:, k : k + 1]
        probabilities = torch.cat([probabilities * (1 - one), probabilities * one], dim=1)
    return probabilities


def published_circuit(qubits: int) -> QuantumCircuit:
    """The circuit without measurements: H and RY(theta_k) on qubit k."""
    circuit = QuantumCircuit(qubits)
    angles = ParameterVector("x", qubits)
    for k in range(qubits):
        circuit.h(k)
        circuit.ry(angles[k], k)
    return circuit


def initial_weights(qubits: int, *, seed: int) -> npt.NDArray[np.float32]:
    """Torch's own initialisation, flat, as `kernel` takes it."""
    with seeded(derive_seed(seed, "published student", "weights")):
        return flat_weights(PublishedStudent(qubits=qubits))


def flat_weights(student: PublishedStudent) -> npt.NDArray[np.float32]:
    """All weights of a student, flat, in the order of its layers."""
    flat = [parameter.detach().flatten() for parameter in student.parameters()]
    weights: npt.NDArray[np.float32] = torch.cat(flat).numpy()
    return weights
