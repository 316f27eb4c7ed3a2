"""CompiledConnector reads a network's observables, primitive and bits as the stock one does."""

import warnings

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import HamiltonianGate, real_amplitudes
from qiskit.primitives import StatevectorEstimator, StatevectorSampler
from qiskit.quantum_info import Operator, PauliList, SparseObservable, SparsePauliOp
from qiskit.transpiler import CouplingMap, generate_preset_pass_manager
from qiskit_machine_learning import QiskitMachineLearningError
from qiskit_machine_learning.circuit.library import raw_feature_vector
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler

from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.simulator import CompiledConnector

X, W = Parameter("x"), Parameter("w")


def network(circuit=None, **options):
    if circuit is None:
        circuit = QuantumCircuit(2)
        circuit.ry(X, 0)
        circuit.rx(W, 0)
        circuit.cx(0, 1)
    kind = EstimatorQNN if options.keys() & {"observables", "estimator"} else SamplerQNN
    return kind(
        circuit=circuit, input_params=[X], weight_params=[W], input_gradients=True, **options
    )


@pytest.mark.parametrize("label", ["Z", "ZZZ"])
def test_observables_of_another_width_are_refused(label):
    with pytest.raises(CircuitError, match=f"on {len(label)} qubits does not fit the 2 qubits"):
        CompiledConnector(network(observables=[SparsePauliOp(label)]))


def test_observables_of_a_device_follow_its_layout_where_they_say_so():
    logical = QuantumCircuit(2)
    logical.ry(X, 0)
    logical.rx(W, 1)
    passes = generate_preset_pass_manager(
        0, coupling_map=CouplingMap.from_line(3), initial_layout=[2, 1], basis_gates=["ry", "rx"]
    )
    isa, z_first = passes.run(logical), SparsePauliOp("IZ")
    with pytest.raises(CircuitError, match="apply_layout"):
        CompiledConnector(network(isa, observables=[z_first]))
    placed = network(isa, observables=[z_first.apply_layout(isa.layout)])
    given = CompiledConnector(network(logical, observables=[z_first]), [0.4], circuit=isa)
    for connector in (CompiledConnector(placed, [0.4]), given):
        assert float(connector(torch.tensor([0.7])).detach()) == pytest.approx(np.cos(0.7))


def test_the_last_measurement_into_a_bit_counts():
    circuit = QuantumCircuit(2, 1)
    circuit.ry(X, 0)
    circuit.ry(W, 1)
    circuit.measure(0, 0)
    circuit.measure(1, 0)
    connector = CompiledConnector(
        network(circuit, interpret=lambda outcome: outcome, output_shape=2), [0.4]
    )
    values = connector(torch.tensor([0.7])).detach().numpy()
    np.testing.assert_allclose(values, [np.cos(0.2) ** 2, np.sin(0.2) ** 2], atol=1e-6)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"sampler": StatevectorSampler()}, "StatevectorSampler"),
        ({"sampler": QMLSampler(shots=100)}, "QMLSampler"),
        ({"estimator": StatevectorEstimator()}, "StatevectorEstimator"),
        ({"estimator": QMLEstimator(default_precision=0.1)}, "QMLEstimator"),
    ],
)
def test_a_primitive_that_samples_is_named_once(options, name):
    with pytest.warns(UserWarning, match=f"exactly; {name}.*TorchConnector") as caught:
        CompiledConnector(network(**options))
    assert len(caught) == 1


def test_an_exact_primitive_is_worth_no_word():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CompiledConnector(network())
        CompiledConnector(network(sampler=QMLSampler()))
        CompiledConnector(network(estimator=StatevectorEstimator(), default_precision=0.0))


def test_inputs_of_another_length_are_the_stock_connectors_error_and_ours():
    for error in (QiskitMachineLearningError, InputError):
        with pytest.raises(error, match=r"^inputs have shape \(3, 5\); give \(batch, 1\)$"):
            CompiledConnector(network())(torch.zeros(3, 5))


def test_a_sparse_connector_of_a_dense_network_is_refused_as_in_the_stock_one():
    with pytest.raises(QiskitMachineLearningError, match="must be sparse"):
        CompiledConnector(network(), None, True)
    assert not CompiledConnector(network(), None, False).sparse


@pytest.mark.parametrize(
    "options",
    [
        {"observables": [SparsePauliOp(["ZZ"], [Parameter("c")])]},
        {"circuit": QuantumCircuit(1).compose(HamiltonianGate(np.diag([1, -1]), W), [0])},
    ],
)
def test_what_cannot_be_compiled_is_the_stock_connector_after_one_warning(options):
    if "circuit" in options:
        options["circuit"].ry(X, 0)
    with pytest.warns(UserWarning, match="falls back to the stock TorchConnector") as caught:
        connector = CompiledConnector(network(**options))
    assert len(caught) == 1
    assert not connector.compiled


def test_an_observable_that_is_not_hermitian_is_refused():
    with pytest.raises(CircuitError, match="imaginary part 1"):
        CompiledConnector(network(observables=[SparsePauliOp(["ZZ"], [1j])]))


def test_a_raw_feature_vector_is_the_state_that_the_circuit_starts_from():
    features, ansatz = raw_feature_vector(4), real_amplitudes(2, reps=1)
    circuit = features.compose(ansatz)
    weights = np.full(4, 0.3)
    connector = CompiledConnector(
        SamplerQNN(
            circuit=circuit,
            input_params=list(features.parameters),
            weight_params=list(ansatz.parameters),
        ),
        weights,
    )
    rest = SamplerQNN(circuit=ansatz, weight_params=list(ansatz.parameters))
    states = torch.tensor([[0.6, 0.0, 0.0, 0.8], [0.5, -0.5, 0.5, 0.5]])
    expected = CompiledConnector(rest, weights).from_states(states)
    torch.testing.assert_close(connector(states), expected)
    with pytest.raises(InputError, match="sample 1 sum to 4"):
        connector(torch.tensor([[0.6, 0.0, 0.0, 0.8], [1.0, 1.0, 1.0, 1.0]]))


@pytest.mark.parametrize("kind", ["sampler", "estimator"])
def test_small_batches_are_as_exact_as_the_stock_connectors(kind):
    options = {"observables": [SparsePauliOp("ZZ")]} if kind == "estimator" else {}
    qnn = network(**options)
    ours, stock = CompiledConnector(qnn, [0.4]), TorchConnector(qnn, [0.4])
    inputs = torch.linspace(-2, 2, 8)[:, None]
    assert float((ours(inputs) - stock(inputs)).detach().abs().max()) < 7e-8


@pytest.mark.parametrize(
    ("observable", "pauli"),
    [
        (SparseObservable.from_list([("0Z", 1.0)]), SparsePauliOp(["IZ", "ZZ"], [0.5, 0.5])),
        (Operator(np.diag([1.0, 2, 3, 4])), SparsePauliOp(["II", "IZ", "ZI"], [2.5, -0.5, -1])),
    ],
)
def test_projectors_and_matrices_are_sums_of_pauli_strings(observable, pauli):
    inputs = torch.tensor([[0.4], [1.3]])
    found, expected = (
        CompiledConnector(network(observables=[each]), [0.7])(inputs)
        for each in (observable, pauli)
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("observable", "reason"),
    [
        (PauliList(["ZZ", "XX"]), "a list of 2 Pauli strings"),
        (SparsePauliOp(["ZZ"], [np.nan]), "not finite"),
    ],
)
def test_observables_that_are_no_sums_of_numbers_are_refused(observable, reason):
    with pytest.raises(CircuitError, match=reason):
        CompiledConnector(network(observables=[observable]))


def test_positions_that_are_no_whole_numbers_are_refused():
    with pytest.raises(CircuitError, match="not whole numbers"):
        CompiledConnector(network(interpret=lambda k: k / 2, output_shape=2))


@pytest.mark.parametrize("weights", [[0.1, 0.2], [[0.1]], [np.nan]])
def test_initial_weights_that_do_not_fit_are_refused(weights):
    with pytest.raises(InputError, match="give 1 numbers"):
        CompiledConnector(network(), weights)


@pytest.mark.parametrize("inputs", [np.ones((1, 1)), [[0.1]], torch.eye(1).to_sparse()])
def test_inputs_that_are_no_dense_tensors_are_refused(inputs):
    with pytest.raises(InputError, match=r"give a dense tensor \(batch, 1\)"):
        CompiledConnector(network(), [0.1])(inputs)


def test_what_is_no_network_is_refused():
    with pytest.raises(InputError, match="of type str; give a SamplerQNN"):
        CompiledConnector("network")
