"""A student's circuit as a neural network of Qiskit Machine Learning, run exactly."""

from __future__ import annotations

from collections.abc import Sequence

from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN

from qkd_qiskit.circuits.readouts import OutcomeSums, interpret, observables, output_shape
from qkd_qiskit.circuits.student_circuit import StudentCircuit


def make_qnn(
    parts: StudentCircuit,
    *,
    readout: str,
    num_classes: int,
    measured: Sequence[SparsePauliOp] | None = None,
    sums: OutcomeSums | None = None,
) -> NeuralNetwork:
    """Return an EstimatorQNN for the readout expectation, a SamplerQNN for the others.

    It has no primitive of its own: it is exact, and so is a stock connector around it.

    Args:
        parts: The circuit.
        readout: What is made of its outcomes.
        num_classes: Number of class bins.
        measured: Observables of the readout expectation; default: <Z> of each qubit.
        sums: What outcomes are summed into in place of the bins of the readout.

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
        own = observables(qubits) if measured is None else list(measured)
        return EstimatorQNN(**common, observables=own)
    if sums is not None:
        return SamplerQNN(**common, interpret=sums.places.__getitem__, output_shape=sums.size)
    return SamplerQNN(
        **common,
        interpret=interpret(readout, qubits=qubits, num_classes=num_classes),
        output_shape=output_shape(readout, qubits=qubits, num_classes=num_classes),
    )
