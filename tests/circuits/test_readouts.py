import itertools

import numpy as np
import pytest
import torch
from qiskit.quantum_info import random_statevector

from qkd_qiskit.circuits import (
    READOUTS,
    interpret,
    observables,
    output_shape,
    readout_matrix,
)
from qkd_qiskit.errors import CircuitError

SIZES = [(q, c) for q, c in itertools.product(range(1, 7), range(1, 11)) if c <= 2**q]


@pytest.mark.parametrize("readout", ["bins", "modulo"])
@pytest.mark.parametrize(("qubits", "num_classes"), SIZES)
def test_every_outcome_is_in_one_bin_and_bins_are_nearly_equal(readout, qubits, num_classes):
    matrix = readout_matrix(readout, qubits=qubits, num_classes=num_classes)
    assert matrix.shape == (2**qubits, num_classes)
    assert torch.equal(matrix.sum(1), torch.ones(2**qubits, dtype=torch.float64))
    assert matrix.sum(0).max() - matrix.sum(0).min() <= 1
    function = interpret(readout, qubits=qubits, num_classes=num_classes)
    assert [function(outcome) for outcome in range(2**qubits)] == matrix.argmax(1).tolist()


def test_bins_are_contiguous_and_modulo_deals_in_turn():
    bins = readout_matrix("bins", qubits=3, num_classes=3).argmax(1).tolist()
    modulo = readout_matrix("modulo", qubits=3, num_classes=3).argmax(1).tolist()
    assert bins == [0, 0, 0, 1, 1, 1, 2, 2]
    assert modulo == [0, 1, 2, 0, 1, 2, 0, 1]


def test_the_probability_readout_is_the_identity():
    matrix = readout_matrix("probabilities", qubits=3, num_classes=2)
    assert torch.equal(matrix, torch.eye(8, dtype=torch.float64))
    assert interpret("probabilities", qubits=3, num_classes=2)(np.int64(5)) == 5


def test_the_expectation_matrix_agrees_with_qiskits_observables():
    state = random_statevector(8, seed=1)
    ours = torch.tensor(state.probabilities()) @ readout_matrix(
        "expectation", qubits=3, num_classes=2
    )
    theirs = [state.expectation_value(z).real for z in observables(3)]
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-14)


def test_the_number_of_outputs_is_the_width_of_the_matrix():
    for readout in set(READOUTS) - {"learned"}:
        width = readout_matrix(readout, qubits=4, num_classes=10).shape[1]
        assert output_shape(readout, qubits=4, num_classes=10) == width


def test_learned_bins_are_summed_after_a_network_that_gives_every_outcome():
    assert output_shape("learned", qubits=4, num_classes=10) == 16
    start = readout_matrix("learned", qubits=4, num_classes=10)
    assert torch.equal(start, readout_matrix("bins", qubits=4, num_classes=10))


@pytest.mark.parametrize("readout", ["bins", "modulo"])
@pytest.mark.parametrize(("num_classes", "least"), [(10, 4), (9, 4), (16, 4), (17, 5)])
def test_too_many_classes_are_refused_with_the_least_number_of_qubits(readout, num_classes, least):
    with pytest.raises(
        CircuitError, match=rf"{num_classes} classes .* 8 outcomes .* use {least} or more qubits"
    ):
        readout_matrix(readout, qubits=3, num_classes=num_classes)
    assert output_shape(readout, qubits=least, num_classes=num_classes) == num_classes


def test_readouts_that_are_unknown_or_without_interpret_say_so():
    with pytest.raises(CircuitError, match="unknown"):
        output_shape("median", qubits=2, num_classes=2)
    with pytest.raises(CircuitError, match="EstimatorQNN"):
        interpret("expectation", qubits=2, num_classes=2)


def test_sampler_qnn_takes_the_interpret_functions():
    from qiskit.primitives import StatevectorSampler
    from qiskit_machine_learning.neural_networks import SamplerQNN

    from qkd_qiskit.circuits import build_circuit

    student = build_circuit(qubits=2, encoding="angle", ansatz="real_amplitudes", layers=1)
    for readout in ("bins", "modulo", "probabilities"):
        qnn = SamplerQNN(
            circuit=student.circuit,
            sampler=StatevectorSampler(seed=1, default_shots=200),
            input_params=student.input_params,
            weight_params=student.weight_params,
            interpret=interpret(readout, qubits=2, num_classes=3),
            output_shape=output_shape(readout, qubits=2, num_classes=3),
        )
        outputs = qnn.forward(np.zeros((1, 2)), np.zeros(qnn.num_weights))
        assert outputs.shape == (1, output_shape(readout, qubits=2, num_classes=3))
        assert outputs[0, 0] == 1.0
