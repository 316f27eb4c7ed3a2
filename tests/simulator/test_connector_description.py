"""What a connector says of itself: qubits, weights, gates, read-out, and how it runs."""

import pytest
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qkd_qiskit import CompiledConnector, Target


def circuit():
    block = QuantumCircuit(3, name="block")
    block.cx(0, 1)
    block.swap(1, 2)
    whole = QuantumCircuit(3)
    whole.rx(Parameter("x"), 0)
    whole.append(block.to_gate(), [0, 1, 2])
    whole.barrier()
    whole.rzz(Parameter("w"), 0, 2)
    return whole


def given(own=None):
    own = circuit() if own is None else own
    names = {parameter.name: parameter for parameter in own.parameters}
    return {"circuit": own, "input_params": [names["x"]], "weight_params": [names["w"]]}


def test_gates_are_counted_inside_of_blocks():
    text = CompiledConnector(SamplerQNN(**given())).extra_repr()
    assert text == (
        "3 qubits, 1 weights, 3 two-qubit gates, read-out: outcomes summed into 8, compiled"
    )


def test_observables_are_named():
    observables = [SparsePauliOp("ZII"), SparsePauliOp(["IXI", "IIY"], [0.5, 2])]
    network = EstimatorQNN(**given(), observables=observables)
    text = repr(CompiledConnector(network))
    assert "read-out: 2 observables (ZII, 0.5*IXI + ...), compiled" in text
    many = EstimatorQNN(**given(), observables=[SparsePauliOp("ZII")] * 6)
    assert "6 observables (ZII, ZII, ZII, ZII, ...)" in CompiledConnector(many).extra_repr()


def test_why_a_circuit_is_not_compiled_is_given():
    own = QuantumCircuit(3, 1).compose(circuit())
    own.measure(0, 0)
    own.h(0)
    with pytest.warns(UserWarning, match="falls back"):
        connector = CompiledConnector(SamplerQNN(**given(own)))
    assert "not compiled: instruction 'h' comes after the measurement" in connector.extra_repr()


def test_noise_is_said():
    compiled = Target.parse("fake_manila").compile(circuit())
    noisy = compiled.program.noisy
    connector = CompiledConnector(
        SamplerQNN(**given()), channels=noisy.channels, circuit=noisy.circuit
    )
    assert connector.extra_repr().startswith("3 qubits, 1 weights, 1 two-qubit gates")
    assert connector.extra_repr().endswith("compiled with a device's noise")
