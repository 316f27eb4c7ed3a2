"""A neural network of Qiskit Machine Learning's, of the user's own, as the circuit of a student."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, fields, replace

import numpy as np
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN

from qkd_qiskit.circuits import StudentCircuit, adopt_circuit, dump_circuit
from qkd_qiskit.circuits.readouts import OutcomeSums, observable_texts
from qkd_qiskit.circuits.standard_gates import without_final_measurements
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import Readout, StudentSpec
from qkd_qiskit.simulator import Program
from qkd_qiskit.simulator.networks import exact_primitive, primitive_name
from qkd_qiskit.simulator.readout import outcome_sums

logger = logging.getLogger(__name__)

MOST_QUBITS = 20
_REPLACED = ("qubits", "encoding", "ansatz", "layers", "readout")


@dataclass(frozen=True, kw_only=True)
class OwnNetwork:
    """A network's circuit in standard gates, and what it makes of the outcomes.

    Attributes:
        parts: The circuit without its measurements, parameters x_000, ... and w_000, ...
        observables: What an EstimatorQNN measures, as text; None for a SamplerQNN.
        sums: What a SamplerQNN sums outcomes into, by its interpret function and its measurements;
            None for an EstimatorQNN.
        output_shape: Shape of the output for one sample.
    """

    parts: StudentCircuit
    observables: tuple[str, ...] | None
    sums: OutcomeSums | None
    output_shape: tuple[int, ...]


def adopt_network(network: object, *, source: str = "qnn") -> OwnNetwork:
    """Return a SamplerQNN or EstimatorQNN as a student's circuit and read-out.

    Args:
        network: The network; it is only read.
        source: What error messages call it.

    Raises:
        CircuitError: It is no such network, gives sparse output, has no inputs, or its circuit is
            none that a student can have.
    """
    if not isinstance(network, SamplerQNN | EstimatorQNN):
        what = f"class {network.__name__}" if isinstance(network, type) else type(network).__name__
        raise CircuitError(f"{source} is a {what}; give a SamplerQNN or an EstimatorQNN")
    if network.sparse:
        raise CircuitError(f"{source} gives sparse output; make it with sparse=False")
    circuit = network.circuit
    if not network.input_params:
        raise CircuitError(f"{source} has no inputs; give the circuit's input_params")
    if circuit.num_qubits > MOST_QUBITS:
        raise CircuitError(
            f"{source} has a circuit of {circuit.num_qubits} qubits; give at most {MOST_QUBITS}, "
            "as it has 2**qubits outcomes, and the circuit as it was before it was transpiled"
        )
    parts = adopt_circuit(
        without_final_measurements(circuit),
        source=source,
        input_params=network.input_params,
        weight_params=network.weight_params,
    )
    dump_circuit(parts.circuit)  # what could not be saved is refused before it is trained
    sampler = isinstance(network, SamplerQNN)
    return OwnNetwork(
        parts=parts,
        observables=None if sampler else observable_texts(network.observables),
        sums=_sums_of(network) if sampler else None,
        output_shape=tuple(network.output_shape),
    )


def _sums_of(network: SamplerQNN) -> OutcomeSums:
    """Return the output of each outcome of all qubits; those that are not measured do not count."""
    circuit = network.circuit
    program = Program.from_circuit(
        circuit,
        input_params=list(network.input_params),
        weight_params=list(network.weight_params),
    )
    readout = outcome_sums(program, interpret=network.interpret, output_shape=network.output_shape)
    assert readout.index is not None
    outcomes = np.arange(2**circuit.num_qubits)
    states = np.zeros_like(outcomes)  # of the qubits that the program has
    for place, qubit in enumerate(program.qubits):
        states |= (outcomes >> qubit & 1) << place
    places = readout.index[states].tolist()
    return OutcomeSums(places=tuple(places), size=math.prod(network.output_shape))


def spec_of_network(spec: StudentSpec, network: OwnNetwork, *, num_classes: int) -> StudentSpec:
    """Return the specification with the network's qubits and read-out; say what is passed over.

    Raises:
        CircuitError: Without a head, the network's outputs are no class probabilities.
    """
    sums, size = network.sums, math.prod(network.output_shape)
    if spec.head == "none" and (sums is None or size != num_classes):
        what = "expectation values" if sums is None else f"{size} probabilities"
        raise CircuitError(
            f"qnn gives {what} for {num_classes} classes, and student.head is none; give a "
            f"SamplerQNN with output_shape={num_classes}, or student.head: linear"
        )
    readout: Readout = "expectation"
    if sums is not None:
        whole = sums.places == tuple(range(sums.size)) and spec.head != "none"
        readout = "probabilities" if whole else "bins"
    own = replace(
        spec,
        qubits=network.parts.circuit.num_qubits,
        readout=readout,
        observables=network.observables,
        circuit=None,
    )
    kept = {"qubits": own.qubits, "readout": own.readout}
    passed = [
        f"student.{field.name}"
        for field in fields(StudentSpec)
        if field.name in _REPLACED
        and getattr(spec, field.name) not in (field.default, kept.get(field.name, field.default))
    ]
    if passed:
        does = "do" if len(passed) > 1 else "does"
        logger.warning(
            "%s %s nothing where a qnn is given: its circuit and read-out are used",
            " and ".join(passed),
            does,
        )
    return own


def say_primitive(network: NeuralNetwork) -> None:
    """Warn where a network's own primitive samples or is noisy, as a student does not use it."""
    if not exact_primitive(network):
        logger.warning(
            "the network's own %s, which samples or is noisy, is not used: a student trains "
            "exactly, or where distill.gradient and distill.train_target say",
            primitive_name(network),
        )
