"""Students that begin as trained ones with fewer layers.

What is added is the identity for the read-out: with an ansatz that can be grown (see
`Ansatz.grown_from`) the larger student gives the logits of the smaller one, until it is trained.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from qkd_qiskit.circuits.ansatze import make_ansatz
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent


def check_growth(smaller: StudentSpec, larger: StudentSpec) -> None:
    """Check that a student can begin as one with fewer layers.

    Raises:
        CircuitError: They differ in more than their layers, the layers are not more, or the ansatz
            cannot be grown.
    """
    fewer = f"{smaller.layers} and {larger.layers} layers"
    if replace(smaller, layers=larger.layers) != larger or smaller.layers >= larger.layers:
        raise CircuitError(
            f"a student of {larger.layers} layers cannot begin as one of {smaller.layers}: give it "
            "more layers, and let everything else of student be the same"
        )
    if larger.kind not in ("quantum", "hybrid") or larger.circuit is not None:
        raise CircuitError(
            f"a student of kind {larger.kind}{' with a circuit of its own' * bool(larger.circuit)} "
            f"cannot be grown ({fewer}); give kind quantum or hybrid, with an ansatz"
        )
    ansatz = make_ansatz(larger.ansatz, qubits=larger.qubits, layers=larger.layers)
    try:
        ansatz.grown_from(smaller.layers)
    except CircuitError as error:
        raise CircuitError(f"ansatz {larger.ansatz}: {error}") from None


def keeps_outcomes(spec: StudentSpec) -> bool:
    """Return whether a grown student begins exactly as the smaller one.

    Features that enter again in front of the added layer, with no weight that could turn them off,
    change it: the smaller student is then no more than a warm start.
    """
    return spec.encoding != "reuploading"


def grow(smaller: Student, larger: Student) -> Student:
    """Give a student the weights of one with fewer layers, and return it.

    Args:
        smaller: Trained.
        larger: The same with more layers; its weights are overwritten.

    Raises:
        CircuitError: As `check_growth`.
    """
    check_growth(smaller.spec, larger.spec)
    assert isinstance(smaller, QuantumStudent)
    assert isinstance(larger, QuantumStudent)
    spec = larger.spec
    ansatz = make_ansatz(spec.ansatz, qubits=spec.qubits, layers=spec.layers)
    tensors = smaller.saved_tensors()
    with torch.no_grad():
        for name, own in larger.saved_tensors().items():
            if own is larger.weights:
                for place, source in enumerate(ansatz.grown_from(smaller.spec.layers)):
                    own[place] = 0.0 if source is None else smaller.weights[source]
            else:
                own.copy_(tensors[name])
    return larger
