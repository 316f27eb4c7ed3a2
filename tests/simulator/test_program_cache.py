"""Which circuits share a program."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import UnitaryGate
from qiskit_machine_learning.neural_networks import SamplerQNN

from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.program_cache import program_of


def circuit_of(*, fixed=0.25, name="w_0", expression=False):
    circuit = QuantumCircuit(2)
    angle, weight = Parameter("x_0"), Parameter(name)
    circuit.ry(2 * angle if expression else angle, 0)
    circuit.rx(weight, 1)
    circuit.rz(fixed, 0)
    circuit.cx(0, 1)
    return circuit, [angle], [weight]


def program(circuit, inputs, weights, *, start=0):
    return program_of(circuit, input_params=inputs, weight_params=weights, start=start)


def test_equal_circuits_share_a_program():
    assert program(*circuit_of()) is program(*circuit_of())


def test_what_differs_does_not():
    first = program(*circuit_of())
    assert program(*circuit_of(), start=1) is not first
    assert program(*circuit_of(fixed=0.26)) is not first
    assert program(*circuit_of(name="w_1")) is not first
    measured, inputs, weights = circuit_of()
    measured.measure_all()
    assert program(measured, inputs, weights) is not first


def test_what_a_name_does_not_say_is_compiled_each_time():
    assert program(*circuit_of(expression=True)) is not program(*circuit_of(expression=True))
    for angle in (0.1, 0.2):
        circuit, inputs, weights = circuit_of()
        turn = np.diag([np.exp(-1j * angle), np.exp(1j * angle)])
        circuit.append(UnitaryGate(turn), [1])
        circuit.h(1)
        found = program(circuit, inputs, weights)
        assert found is not program(circuit, inputs, weights)


def test_a_circuit_that_is_changed_later_leaves_the_kept_program_alone():
    circuit, inputs, weights = circuit_of()
    first = program(circuit, inputs, weights)
    circuit.h(0)
    assert program(circuit, inputs, weights) is not first
    assert program(*circuit_of()) is first


@pytest.mark.parametrize("interprets", [(lambda k: k % 2, lambda k: k // 2)])
def test_connectors_that_share_a_program_keep_their_own_read_out(interprets):
    values = []
    for interpret in interprets:
        circuit, inputs, weights = circuit_of()
        circuit.h(1)
        network = SamplerQNN(
            circuit=circuit, input_params=inputs, weight_params=weights,
            interpret=interpret, output_shape=2,
        )  # fmt: skip
        connector = CompiledConnector(network, [0.3])
        values.append(connector(torch.tensor([[0.4]] * 20))[0].tolist())
    p = np.cos(0.2) ** 2
    assert values[0] == pytest.approx([p, 1 - p], abs=1e-6)
    assert values[1] != pytest.approx(values[0], abs=1e-3)
