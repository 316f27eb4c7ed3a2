"""Students that begin as trained ones with fewer layers.

What is added is the identity for the read-out: with an ansatz that can be grown (see
`Ansatz.grown_from`) the larger student gives the logits of the smaller one, until it is trained.
Weights that inputs are multiplied by begin at 0 in a layer that is added.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from qkd_qiskit.circuits.ansatze import make_ansatz
from qkd_qiskit.circuits.encodings import ROTATIONS_PER_LAYER, make_encoding
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.students.reductions import TRAINED


def features_of_depth(spec: StudentSpec, *, layers: int) -> int | None:
    """Return `student.features` of a student with fewer layers that another can begin as.

    Few layers have rotations for the first features alone; of principal components these are the
    same however many there are. A trained reduction gives every depth the features of one layer.

    Args:
        spec: Of the largest student.
        layers: Of the smaller one.
    """
    if spec.features is None:
        return None
    rotations = ROTATIONS_PER_LAYER * spec.qubits
    return min(spec.features, rotations * (1 if spec.reduction in TRAINED else layers))


def spec_of_depth(spec: StudentSpec, layers: int) -> StudentSpec:
    """Return a student with another number of layers, and as many features as these take."""
    return replace(spec, layers=layers, features=features_of_depth(spec, layers=layers))


def check_growth(smaller: StudentSpec, larger: StudentSpec) -> None:
    """Check that a student can begin as one with fewer layers.

    Raises:
        CircuitError: They differ in more than their layers, the layers are not more, or the ansatz
            cannot be grown.
    """
    features = features_of_depth(larger, layers=smaller.layers)
    if (
        replace(smaller, layers=larger.layers, features=larger.features) != larger
        or smaller.layers >= larger.layers
        or smaller.features != features
    ):
        raise CircuitError(
            f"a student of {larger.layers} layers cannot begin as one of {smaller.layers}: give it "
            "more layers, and let everything else of student be the same"
            + (f", the smaller one with features {features}" if features is not None else "")
        )
    if larger.kind not in ("quantum", "hybrid") or larger.circuit is not None:
        raise CircuitError(
            f"a student of kind {larger.kind}{' with a circuit of its own' * bool(larger.circuit)} "
            "cannot be grown; give kind quantum or hybrid, with an ansatz"
        )
    try:
        _origins(smaller, larger)
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
        larger: The same with more layers; its weights are overwritten. A fixed reduction is its
            own, fitted to the same images.

    Raises:
        CircuitError: As `check_growth`.
    """
    check_growth(smaller.spec, larger.spec)
    assert isinstance(smaller, QuantumStudent)
    assert isinstance(larger, QuantumStudent)
    before = smaller.member_parameters()
    with torch.no_grad():
        for name, own in larger.member_parameters().items():
            if own is not larger.weights:
                own.copy_(before[name])
        for place, source in enumerate(_origins(smaller.spec, larger.spec)):
            larger.weights[place] = 0.0 if source is None else smaller.weights[source]
    return larger


def _origins(smaller: StudentSpec, larger: StudentSpec) -> list[int | None]:
    """Return for each circuit weight its number in the smaller circuit; None = starts at 0.

    The weights of a layer are those of its encoding, then those of its ansatz.
    """
    ansatze = [
        make_ansatz(spec.ansatz, qubits=spec.qubits, layers=spec.layers)
        for spec in (smaller, larger)
    ]
    entry = make_encoding(larger.encoding, qubits=larger.qubits)
    own = entry.weights_per_layer
    fewer, more = (ansatz.num_weights for ansatz in ansatze)
    layer = (more - fewer) // (larger.layers - smaller.layers)
    sources = ansatze[1].grown_from(smaller.layers)
    origins: list[int | None] = []
    for place, source in enumerate(sources):
        number, inside = divmod(place, layer)
        if inside == 0 and number < larger.layers:
            first = number * (own + layer)
            known = number < smaller.layers
            origins += range(first, first + own) if known else [None] * own
        if source is not None:
            source += own * min(source // layer + 1, smaller.layers)
        origins.append(source)
    return origins
