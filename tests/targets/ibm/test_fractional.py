import math

import numpy as np
import pytest
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import Operator

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.fractional import fold_rzz, has_free_rzz

A, B, X = Parameter("w_000"), Parameter("w_001"), Parameter("x_000")


def layer(angle=2 * A + 0.3):
    circuit = QuantumCircuit(3)
    circuit.rx(X, 0)
    circuit.rzz(angle, 0, 2)
    circuit.ry(B, 1)
    circuit.rzz(B, 1, 2)
    circuit.rzz(0.4, 0, 1)
    return circuit


@pytest.mark.parametrize("a", [-7.0, -math.pi / 2, -0.2, 0.0, 0.6, 1.7, math.pi, 5.9, 41.0])
@pytest.mark.parametrize("b", [0.1, 1.6, 3.2, -1.6])
def test_a_folded_circuit_is_the_same_and_in_range(a, b):
    folded = fold_rzz(layer(), {"w_000": a, "w_001": b})
    values = {A: a, B: b, X: 0.77}
    bound = folded.assign_parameters(values)
    angles = [float(it.operation.params[0]) for it in bound.data if it.operation.name == "rzz"]
    assert len(angles) == 3
    assert all(-1e-12 <= angle <= math.pi / 2 + 1e-12 for angle in angles)
    assert Operator(bound).equiv(Operator(layer().assign_parameters(values)))


def test_an_angle_in_range_needs_no_gate():
    folded = fold_rzz(layer(A), {"w_000": 1.0, "w_001": 0.5})
    assert [it.operation.name for it in folded.data] == [it.operation.name for it in layer().data]
    assert np.isclose(float(folded.data[1].operation.params[0].bind({A: 1.0})), 1.0)


def test_an_angle_of_the_image_is_refused():
    with pytest.raises(TargetError, match="where x_000 changes with the image"):
        fold_rzz(layer(A + X), {"w_000": 1.0, "w_001": 0.5})


def test_which_circuits_are_folded():
    fixed = QuantumCircuit(2)
    fixed.rzz(0.3, 0, 1)
    assert has_free_rzz(layer())
    assert not has_free_rzz(fixed)
