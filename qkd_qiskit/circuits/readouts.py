"""What is made of the 2^n outcome probabilities: class bins, all of them, or <Z> per qubit.

Bit order is little-endian throughout: qubit q is bit q of outcome k, as in Qiskit's counts.

=============  =====================================  ===============================
readout        outputs                                Qiskit Machine Learning
=============  =====================================  ===============================
bins           C classes: class (k C) // 2^n          SamplerQNN, `interpret`
modulo         C classes: class k % C                 SamplerQNN, `interpret`
learned        C classes: by students/class_bins      SamplerQNN, `interpret`; summed after it
probabilities  2^n: outcome k itself                  SamplerQNN, `interpret`
expectation    n: <Z> of qubit 0, 1, ...              EstimatorQNN, `observables`
=============  =====================================  ===============================
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from qiskit.quantum_info import SparsePauliOp

from qkd_qiskit.errors import CircuitError

READOUTS = ("bins", "modulo", "learned", "probabilities", "expectation")


def bin_of(outcome: int, *, qubits: int, num_classes: int) -> int:
    """Return the class of an outcome in contiguous bins, whose sizes differ by at most one."""
    return (int(outcome) * num_classes) >> qubits


def modulo_of(outcome: int, *, num_classes: int) -> int:
    """Return the class of an outcome dealt out in turn: outcome modulo classes."""
    return int(outcome) % num_classes


def outcome_of(outcome: int) -> int:
    """Return the outcome itself."""
    return int(outcome)


def check_readout(readout: str, *, qubits: int, num_classes: int) -> None:
    """Raise a CircuitError where the readout is unknown or has fewer outcomes than classes."""
    if readout not in READOUTS:
        raise CircuitError(f"readout {readout!r} is unknown; give one of {', '.join(READOUTS)}")
    if readout in ("bins", "modulo", "learned") and num_classes > 2**qubits:
        raise CircuitError(
            f"readout {readout}: {num_classes} classes do not fit into the {2**qubits} outcomes "
            f"of {qubits} qubits; use {(num_classes - 1).bit_length()} or more qubits, or fewer "
            "classes"
        )


def output_shape(readout: str, *, qubits: int, num_classes: int) -> int:
    """Return how many numbers the network gives per image; for learned bins all outcomes.

    Raises:
        CircuitError: The readout is unknown or has fewer outcomes than classes.
    """
    check_readout(readout, qubits=qubits, num_classes=num_classes)
    sizes: dict[str, int] = {
        "learned": 2**qubits,
        "probabilities": 2**qubits,
        "expectation": qubits,
    }
    return sizes.get(readout, num_classes)


def interpret(readout: str, *, qubits: int, num_classes: int) -> Callable[[int], int]:
    """Return the function from outcome to output index that SamplerQNN takes as `interpret`.

    Raises:
        CircuitError: The readout is unknown, has fewer outcomes than classes, or is expectation.
    """
    check_readout(readout, qubits=qubits, num_classes=num_classes)
    if readout == "expectation":
        raise CircuitError(
            "readout expectation has no interpret function; use observables(qubits) and "
            "EstimatorQNN, or the readout bins, modulo or probabilities"
        )
    if readout == "bins":
        return partial(bin_of, qubits=qubits, num_classes=num_classes)
    if readout == "modulo":
        return partial(modulo_of, num_classes=num_classes)
    return outcome_of


def observables(qubits: int) -> list[SparsePauliOp]:
    """Return Z on qubit 0, 1, ..., as EstimatorQNN takes them."""
    return [
        SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], num_qubits=qubits)
        for qubit in range(qubits)
    ]


def readout_matrix(readout: str, *, qubits: int, num_classes: int) -> torch.Tensor:
    """Return the matrix (2^n, outputs), float64, with outputs = probabilities @ matrix.

    Class bins and probabilities: 0 or 1, one 1 per row; bins that are learned start as contiguous
    ones. Expectation: +1 where bit q of outcome k is 0, else -1.

    Raises:
        CircuitError: The readout is unknown or has fewer outcomes than classes.
    """
    outcomes = torch.arange(2**qubits)
    if readout == "learned":
        readout = "bins"
    if readout == "expectation":
        bits = (outcomes[:, None] >> torch.arange(qubits)) & 1
        return (1 - 2 * bits).to(torch.float64)
    columns = output_shape(readout, qubits=qubits, num_classes=num_classes)
    index_of = interpret(readout, qubits=qubits, num_classes=num_classes)
    indices = torch.tensor([index_of(outcome) for outcome in range(2**qubits)])
    return torch.nn.functional.one_hot(indices, columns).to(torch.float64)
