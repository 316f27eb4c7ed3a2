import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator import CompiledConnector, memory


def one_angle(qubits):
    x, w = Parameter("x"), Parameter("w")
    circuit = QuantumCircuit(qubits)
    circuit.ry(x, 0)
    circuit.rx(w, 0)
    for qubit in range(1, qubits):
        circuit.cx(qubit - 1, qubit)
    return EstimatorQNN(circuit=circuit, input_params=[x], weight_params=[w])


@pytest.fixture
def free(monkeypatch):
    def set_free(gibibytes):
        monkeypatch.setattr(memory, "available_bytes", lambda device=None: int(gibibytes * 2**30))

    return set_free


def test_a_circuit_that_does_not_fit_is_refused_before_it_is_compiled(free):
    free(15)
    with pytest.raises(CircuitError, match=r"26 qubits needs about 16.0 GiB and 15.0 GiB are free"):
        CompiledConnector(one_angle(26))


def test_a_call_counts_its_tiles_not_only_its_samples(free, monkeypatch):
    connector = CompiledConnector(one_angle(18))
    monkeypatch.setattr(memory, "_SMALL", 0)
    free(0.1)
    with torch.no_grad(), pytest.raises(CircuitError, match="a batch of 8 states on 18 qubits"):
        connector(torch.zeros(8, 1))
    with torch.no_grad():  # few samples need no tile
        assert float(connector(torch.zeros(1, 1))) == pytest.approx(1, abs=2)
    free(4)
    with torch.no_grad():
        assert float(connector(torch.zeros(8, 1))[0]) == pytest.approx(1, abs=2)
    free(0.01)
    with torch.no_grad(), pytest.raises(CircuitError, match="a batch of 1 states on 18 qubits"):
        connector(torch.zeros(1, 1))


def test_a_read_out_of_many_observables_is_counted(free, monkeypatch):
    monkeypatch.setattr(memory, "_SMALL", 0)
    free(0.1)
    observables = [SparsePauliOp("I" * (15 - q) + "Z" + "I" * q) for q in range(16)] * 5
    network = one_angle(16)
    with pytest.raises(CircuitError, match="the read-out of 80 observables on 16 qubits needs"):
        CompiledConnector(
            EstimatorQNN(
                circuit=network.circuit,
                input_params=network.input_params,
                weight_params=network.weight_params,
                observables=observables,
            )
        )
