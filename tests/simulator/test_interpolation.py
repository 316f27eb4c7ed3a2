"""Interpolation from 3^n circuit values: exact where every input enters once."""

import math

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp, Statevector

from qkd_qiskit.simulator.interpolation import enters_once, grid, interpolate

X, Y, W = Parameter("x_000"), Parameter("x_001"), Parameter("w_000")


def entering(*steps):
    circuit = QuantumCircuit(2)
    for name, arguments in steps:
        getattr(circuit, name)(*arguments)
    return circuit


def test_the_grid_counts_with_the_first_input_fastest():
    third = 2 * math.pi / 3
    assert grid(2).shape == (9, 2)
    torch.testing.assert_close(
        grid(2)[:4],
        torch.tensor([[0, 0], [third, 0], [2 * third, 0], [0, third]], dtype=torch.float64),
    )


@pytest.mark.parametrize("inputs", [1, 2, 3, 4])
def test_products_of_first_harmonics_are_reproduced(inputs):
    order = torch.Generator().manual_seed(1)
    table = torch.randn(2, *([3] * inputs), generator=order, dtype=torch.float64)

    def values(points):
        found = table
        for column in range(inputs - 1, -1, -1):  # the last axis belongs to the first input
            x = points[:, column]
            factors = torch.stack([torch.ones_like(x), x.cos(), x.sin()], dim=-1)
            axis = inputs - 1 - column
            if axis == 0:
                found = torch.einsum("oa...,na->on...", found, factors)
            else:
                found = torch.einsum("ona...,na->on...", found, factors)
        return found

    points = torch.randn(50, inputs, generator=order, dtype=torch.float64) * 5
    torch.testing.assert_close(
        interpolate(values(grid(inputs)), points.T), values(points), rtol=0, atol=1e-12
    )


def test_a_circuit_of_many_kinds_of_rotations_is_reproduced():
    circuit = entering(
        ("h", (0,)), ("rx", (X, 0)), ("ry", (0.4, 1)), ("cx", (0, 1)), ("rzz", (Y, 0, 1)),
        ("ry", (0.7, 0)),
    )  # fmt: skip
    assert enters_once(circuit, [X, Y])
    observable = SparsePauliOp.from_list([("IZ", 1.0), ("XX", 0.5)])

    def value(point):
        bound = circuit.assign_parameters(dict(zip([X, Y], point.tolist(), strict=True)))
        return float(Statevector(bound).expectation_value(observable).real)

    values = torch.tensor([[value(point) for point in grid(2)]], dtype=torch.float64)
    points = torch.linspace(-4, 4, 14, dtype=torch.float64).reshape(7, 2)
    found = interpolate(values, points.T)[0]
    torch.testing.assert_close(
        found, torch.tensor([value(point) for point in points]).double(), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize(
    "steps",
    [
        [("ry", (X, 0)), ("ry", (X, 1)), ("ry", (Y, 0))],
        [("ry", (2 * X, 0)), ("ry", (Y, 1))],
        [("crx", (X, 0, 1)), ("ry", (Y, 1))],
        [("ry", (X + W, 0)), ("ry", (Y, 1))],
        [("ry", (X, 0))],
        [("u", (X, 0.1, 0.2, 0)), ("ry", (Y, 1))],
    ],
    ids=["twice", "doubled", "controlled", "sum", "absent", "general"],
)
def test_other_ways_to_enter_are_refused(steps):
    assert not enters_once(entering(*steps), [X, Y])
