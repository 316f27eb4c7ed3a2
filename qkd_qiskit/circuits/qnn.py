"""A student's circuit as a neural network of Qiskit Machine Learning, run exactly."""

from __future__ import annotations

from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN

from qkd_qiskit.circuits.readouts import interpret, observables, output_shape
from qkd_qiskit.circuits.student_circuit import StudentCircuit


def make_qnn(parts: StudentCircuit, *, readout: str, num_classes: int) -> NeuralNetwork:
    """Return an EstimatorQNN for the readout expectation, a SamplerQNN for the others.

    It has no primitive of its own: it is exact, and so is a stock connector around it.

    Raises:
        CircuitError: The readout is unknown or has fewer outcomes than classes.
    """
    qubits = parts.circuit.num_qubits
    common = {
        "circuit": parts.circuit,
        "input_params": list(parts.input_params),
        "weight_params": list(parts.weight_params),
        "input_gradients": True,
    }
    if readout == "expectation":
        return EstimatorQNN(**common, observables=observables(qubits))
    return SamplerQNN(
        **common,
        interpret=interpret(readout, qubits=qubits, num_classes=num_classes),
        output_shape=output_shape(readout, qubits=qubits, num_classes=num_classes),
    )
