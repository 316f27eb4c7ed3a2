"""What Qiskit Machine Learning's networks say about their circuit, read with care.

Which observables belong to which qubits, whether the network's own primitive is exact, and inputs
that enter as the amplitudes of a state (RawFeatureVector).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Barrier, Parameter
from qiskit.primitives import StatevectorEstimator
from qiskit.quantum_info import Operator, PauliList, SparseObservable, SparsePauliOp
from qiskit_machine_learning.circuit.library.raw_feature_vector import ParameterizedInitialize
from qiskit_machine_learning.neural_networks import EstimatorQNN, NeuralNetwork, SamplerQNN
from qiskit_machine_learning.primitives import QMLEstimator, QMLSampler
from torch import Tensor

from qkd_qiskit.errors import CircuitError, InputError, UnsupportedInstructionError
from qkd_qiskit.simulator.gates import definition_of, standard_name
from qkd_qiskit.simulator.tables import Tables
from qkd_qiskit.simulator.torch_device import on_host

_IMAGINARY = 1e-10
_NAMED = 4  # observables in a description
_NORM_TOLERANCE = 1e-3  # of a squared norm; what float32 rounds is far below
_orders = Tables()


def exact_primitive(network: SamplerQNN | EstimatorQNN) -> bool:
    """Return whether the network's own primitive gives exact values, without shots or noise."""
    if isinstance(network, SamplerQNN):
        sampler = network.sampler
        return isinstance(sampler, QMLSampler) and sampler.options.default_shots is None
    estimator = network.estimator
    if isinstance(estimator, QMLEstimator):
        return bool(estimator.options.default_precision == 0)
    return isinstance(estimator, StatevectorEstimator) and network.default_precision == 0


def primitive_name(network: SamplerQNN | EstimatorQNN) -> str:
    """Return the class of the network's own primitive."""
    primitive = network.sampler if isinstance(network, SamplerQNN) else network.estimator
    return type(primitive).__name__


def describe_network(network: NeuralNetwork, circuit: QuantumCircuit) -> str:
    """Return a network's qubits, weights, two-qubit gates and read-out, in words.

    Args:
        network: A SamplerQNN, an EstimatorQNN or another.
        circuit: What runs in the place of its circuit, or that itself.
    """
    parts = [f"{circuit.num_qubits} qubits", f"{network.num_weights} weights"]
    gates = _two_qubit_gates(circuit)
    parts += [] if gates is None else [f"{gates} two-qubit gates"]
    size = math.prod(network.output_shape)
    if isinstance(network, EstimatorQNN):
        named = [_observable_text(each) for each in network.observables[:_NAMED]]
        rest = ", ..." if size > _NAMED else ""
        parts.append(f"read-out: {size} observables ({', '.join(named)}{rest})")
    else:
        parts.append(f"read-out: outcomes summed into {size}")
    return ", ".join(parts)


def _observable_text(observable: Any) -> str:
    try:
        terms = _pauli_sum(observable).to_list()
    except Exception:  # it is described, not used
        return type(observable).__name__
    label, coefficient = terms[0]
    number = "" if coefficient == 1 else f"{coefficient.real:g}*"
    return f"{number}{label}" + (" + ..." if len(terms) > 1 else "")


def _two_qubit_gates(circuit: QuantumCircuit) -> int | None:
    """Return how many gates on two or more qubits blocks come to; None where that is open."""
    total = 0
    for item in circuit.data:
        operation = item.operation
        if len(item.qubits) < 2 or isinstance(operation, Barrier):
            continue
        if standard_name(operation) is not None:
            total += 1
            continue
        try:
            inner = _two_qubit_gates(definition_of(operation))
        except (UnsupportedInstructionError, RecursionError):
            return None
        if inner is None:
            return None
        total += inner
    return total


def pauli_sums(observables: Sequence[Any]) -> list[SparsePauliOp]:
    """Return observables as sums of Pauli strings with numbers as coefficients.

    Raises:
        UnsupportedInstructionError: One is no such sum, or has a parameter.
        CircuitError: One is not Hermitian, not finite, or a list of Pauli strings.
    """
    sums = []
    for given in observables:
        if isinstance(given, PauliList):
            raise CircuitError(
                f"an observable is a list of {len(given)} Pauli strings; give them as a list of "
                "observables, or their sum as a SparsePauliOp"
            )
        try:
            observable = _pauli_sum(given)
            finite = np.isfinite(observable.coeffs.astype(complex)).all()
            imaginary = np.abs(observable.simplify().coeffs.astype(complex).imag).max()
        except Exception as error:  # Qiskit and NumPy raise several kinds
            raise UnsupportedInstructionError(
                f"observable of type {type(given).__name__} is no sum of Pauli strings with "
                "numbers as coefficients"
            ) from error
        if not finite:
            raise CircuitError("an observable has a coefficient that is not finite; give numbers")
        if imaginary > _IMAGINARY:
            raise CircuitError(
                f"an observable has a coefficient with imaginary part {imaginary:.3g}; give real "
                "ones, as it is measured"
            )
        sums.append(observable)
    return sums


def _pauli_sum(given: Any) -> SparsePauliOp:
    if isinstance(given, SparseObservable):  # with projectors such as 0 and +
        return SparsePauliOp.from_sparse_observable(given)
    return (
        SparsePauliOp.from_operator(given) if isinstance(given, Operator) else SparsePauliOp(given)
    )


def placed_observables(
    observables: Sequence[Any], circuit: QuantumCircuit, *, own: bool
) -> list[SparsePauliOp]:
    """Return observables on the qubits of the circuit that runs.

    Args:
        observables: Of the network.
        circuit: What runs.
        own: It is the network's; otherwise it was transpiled from it, and the observables follow
            its layout.

    Raises:
        UnsupportedInstructionError: As `pauli_sums`.
        CircuitError: An observable is on another number of qubits than the circuit.
    """
    sums = pauli_sums(observables)
    if not own and circuit.layout is not None:
        sums = [
            each if each.num_qubits == circuit.num_qubits else each.apply_layout(circuit.layout)
            for each in sums
        ]
    check_width(sums, circuit.num_qubits, what="qubits of the circuit")
    return sums


def check_width(observables: Sequence[SparsePauliOp], width: int, *, what: str) -> None:
    """Check that observables are on so many qubits.

    Raises:
        CircuitError: One is on more or fewer.
    """
    for observable in observables:
        if observable.num_qubits != width:
            raise CircuitError(
                f"an observable on {observable.num_qubits} qubits does not fit the {width} {what}; "
                "give one Pauli per qubit, for a transpiled circuit with "
                "observable.apply_layout(circuit.layout)"
            )


def amplitude_inputs(
    circuit: QuantumCircuit, input_params: Sequence[Parameter]
) -> tuple[int, ...] | None:
    """Return which input is which amplitude of the first instruction, a RawFeatureVector, or None.

    It is one where it prepares all qubits, in their order, from inputs and nothing else needs them.
    """
    first = circuit.data[0] if circuit.data else None
    if first is None or not isinstance(first.operation, ParameterizedInitialize):
        return None
    number = {parameter: index for index, parameter in enumerate(input_params)}
    whole = list(first.qubits) == list(circuit.qubits)
    if not whole or not all(value in number for value in first.operation.params):
        return None
    return tuple(number[value] for value in first.operation.params)


def as_amplitudes(inputs: Tensor, order: tuple[int, ...]) -> Tensor:
    """Return normalised states ``(batch, 2**qubits)`` of inputs that are their amplitudes.

    Raises:
        InputError: The squares of a sample do not sum to 1. On another device than the CPU its
            state is NaN, since a look at it would wait for the device.
    """
    index = _orders.get((order, inputs.device), lambda: torch.tensor(order, device=inputs.device))
    states = inputs.index_select(1, index)
    norms = states.square().sum(dim=1, keepdim=True)
    if not on_host(norms):
        near = (norms - 1).abs() < _NORM_TOLERANCE
        return states / torch.where(near, norms.sqrt(), torch.nan)
    with torch.no_grad():
        wrong = ~((norms - 1).abs() < _NORM_TOLERANCE)
        if bool(wrong.any()):
            raise InputError(
                f"the squares of sample {int(wrong.flatten().nonzero()[0])} sum to "
                f"{float(norms[wrong][0]):.4g}; a raw feature vector is a state, so divide each "
                "sample by its norm"
            )
    return states / norms.sqrt()
