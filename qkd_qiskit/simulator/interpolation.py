"""Circuits in which every input enters once, evaluated everywhere from 3^n of their values.

An input that enters through one rotation exp(-i x G / 2), where G has the eigenvalues +1 and -1
(RX, RY, RZ, P and their two-qubit kin), gives every expectation value in that input the form
a + b cos x + c sin x (Schuld, Sweke, Meyer, arXiv 2008.08605, section II). With n such inputs the
value at any point is thus the trigonometric Lagrange interpolation, exact, of the values at the 3^n
points whose coordinates are 0, 2 pi/3 and 4 pi/3. Where a batch has many more rows than 3^n - the
patches of a quanvolution - that many circuit runs do the work of all.

It holds under a device's noise as well, as channels are linear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qkd_qiskit.simulator.gates import standard_name

NODES = 3
_CHUNK = 2**14  # points whose polynomials stay in the cache
_ROTATIONS = frozenset({"rx", "ry", "rz", "p", "u1", "rxx", "ryy", "rzz", "rzx"})


def enters_once(circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> bool:
    """Return whether every input is, as it is, the angle of exactly one rotation."""
    counts = rotations_per_input(circuit, input_params)
    return counts is not None and all(count == 1 for count in counts)


def rotations_per_input(
    circuit: QuantumCircuit, input_params: Sequence[Parameter]
) -> tuple[int, ...] | None:
    """Return of how many rotations each input is the angle; None where one enters otherwise."""
    uses = dict.fromkeys(input_params, 0)
    for instruction in circuit.data:
        operation = instruction.operation
        for value in operation.params:
            for parameter in getattr(value, "parameters", ()):
                if parameter in uses:
                    if standard_name(operation) not in _ROTATIONS or value != parameter:
                        return None
                    uses[parameter] += 1
    return tuple(uses.values())


def grid(
    inputs: int, *, dtype: torch.dtype = torch.float64, device: torch.device | None = None
) -> Tensor:
    """Return the points ``(3**inputs, inputs)`` in radians; the first input varies fastest."""
    numbers = torch.arange(NODES**inputs, device=device)
    digits = (numbers[:, None] // NODES ** torch.arange(inputs, device=device)) % NODES
    return digits.to(dtype) * (2 * math.pi / NODES)


def interpolate(values: Tensor, angles: Tensor) -> Tensor:
    """Return the values ``(outputs, points)`` at other points.

    Args:
        values: At the points of `grid`: ``(outputs, 3**inputs)``.
        angles: In radians ``(inputs, points)``, the points last: the work is over long rows.
    """
    parts = torch.split(angles, _CHUNK, dim=1)
    return torch.cat([_interpolate(values, part) for part in parts], dim=1)


def _interpolate(values: Tensor, angles: Tensor) -> Tensor:
    inputs, points = angles.shape
    cosine, sine = angles.cos() * (2 / 3), angles.sin() / math.sqrt(3)
    # Lagrange's polynomials (1 + 2 cos(x - 2 pi k / 3)) / 3.
    first = cosine + 1 / 3
    middle = 1 / 3 - cosine / 2
    basis = torch.stack([first, middle + sine, middle - sine], dim=1)
    half = inputs // 2
    low, high = _products(basis[:half], points), _products(basis[half:], points)
    partial = (values.reshape(-1, len(low)) @ low).reshape(len(values), len(high), points)
    return (partial * high).sum(dim=1)


def _products(basis: Tensor, points: int) -> Tensor:
    """Return the products of polynomials, one per input ``(3**inputs, points)``."""
    found = basis.new_ones(1, points) if not len(basis) else basis[0]
    for polynomials in basis[1:]:
        found = (polynomials[:, None] * found).reshape(-1, points)
    return found
