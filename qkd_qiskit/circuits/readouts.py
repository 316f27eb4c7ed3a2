"""What is made of the 2^n outcome probabilities: class bins, all of them, or <Z> per qubit.

Bit order is little-endian throughout: qubit q is bit q of outcome k, as in Qiskit's counts.

=============  =====================================  ===============================
readout        outputs                                Qiskit Machine Learning
=============  =====================================  ===============================
bins           C classes: class (k C) // 2^n          SamplerQNN, `interpret`
modulo         C classes: class k % C                 SamplerQNN, `interpret`
learned        C classes: by students/class_bins      SamplerQNN, `interpret`; summed after it
probabilities  2^n: outcome k itself                  SamplerQNN, `interpret`
expectation    n: <Z> of qubit 0, 1, ..., or the      EstimatorQNN, `observables`
               observables that are given
=============  =====================================  ===============================
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from qiskit.quantum_info import SparsePauliOp

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe.observables import read_pauli_sum, write_pauli_sum
from qkd_qiskit.simulator.networks import pauli_sums

READOUTS = ("bins", "modulo", "learned", "probabilities", "expectation")


@dataclass(frozen=True, kw_only=True)
class OutcomeSums:
    """Which output each outcome is summed into, where a network of your own says so.

    Attributes:
        places: Output of each outcome `(2^n,)`, little-endian over all qubits.
        size: Number of outputs.
    """

    places: tuple[int, ...]
    size: int

    def matrix(self) -> torch.Tensor:
        """Return the matrix (2^n, outputs), float64, of 0 and 1, as `readout_matrix` does."""
        indices = torch.tensor(self.places)
        return torch.nn.functional.one_hot(indices, self.size).to(torch.float64)


def read_sums(saved: Mapping[str, Any]) -> OutcomeSums:
    """Return the sums that `dataclasses.asdict` made of some.

    Raises:
        ValueError: They are none, and so is KeyError or TypeError.
    """
    places, size = tuple(int(place) for place in saved["places"]), int(saved["size"])
    if not places or len(places) & (len(places) - 1) or min(places) < 0 or max(places) >= size:
        raise ValueError(f"{len(places)} outcomes are summed into {size} outputs")
    return OutcomeSums(places=places, size=size)


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


def parse_observables(texts: Sequence[str], *, qubits: int) -> list[SparsePauliOp]:
    """Return observables in text, as `StudentSpec.observables` has them.

    Raises:
        CircuitError: One is on another number of qubits, or no sum of Pauli strings.
    """
    parsed = []
    for text in texts:
        terms = read_pauli_sum(text)
        width = None if terms is None else len(terms[0][0])
        if width != qubits:
            what = "is no sum of Pauli strings" if width is None else f"is on {width} qubits"
            raise CircuitError(
                f"observable {text!r} {what}; give one letter, I, X, Y or Z, for each of the "
                f"{qubits} qubits of the circuit, qubit 0 the last"
            )
        parsed.append(SparsePauliOp.from_list(terms))
    return parsed


def observable_texts(observables: Sequence[object]) -> tuple[str, ...]:
    """Return observables as text that `parse_observables` reads back to equal ones.

    Args:
        observables: Sums of Pauli strings (`SparsePauliOp`, `SparseObservable`, ...), or text.

    Raises:
        CircuitError: One is no sum of Pauli strings with real, finite coefficients, or none at all.
    """
    if isinstance(observables, str | SparsePauliOp) or not len(observables):
        raise CircuitError(
            f"observables are {'empty' if not len(observables) else type(observables).__name__}; "
            "give a list of them, one for each output"
        )
    return tuple(
        each
        if isinstance(each, str)
        else write_pauli_sum(
            [(label, float(number.real)) for label, number in pauli_sums([each])[0].to_list()]
        )
        for each in observables
    )


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
