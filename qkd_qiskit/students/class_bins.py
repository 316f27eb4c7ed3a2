"""Which outcomes stand for which class: learned bins, and how a circuit's outcomes fill them.

A class-bin student sums the probabilities of 2^n outcomes into C bins, each outcome in one bin
(Piperno, "Quantum knowledge distillation"). All bins here have the sizes of the contiguous ones,
which differ by at most one: 64 outcomes make bins of 22, 21 and 21. Bit order is little-endian:
qubit q is bit q of outcome k. It is all classical and follows the measurement, so that bins that
were learned on one target serve on any other.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qkd_qiskit.circuits.qnn import make_qnn
from qkd_qiskit.data.splits import Split
from qkd_qiskit.recipe import CLASS_BINS
from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import SMALLEST_PROBABILITY, QuantumStudent

MOST_QUBITS_SHOWN = 8
_MOST_ROUNDS = 50


def learn_bins(student: Student, split: Split) -> None:
    """Give a student with the read-out `learned` its bins, from its circuit as it is now.

    Other students are left as they are.

    Args:
        student: Its initial weights give the outcome probabilities.
        split: The labelled images that it will be trained on.
    """
    if not isinstance(student, QuantumStudent) or student.spec.readout != "learned":
        return
    probabilities = outcome_probabilities(student, split.images).double().numpy()
    bins = assign_outcomes(probabilities, split.labels.numpy(), num_classes=student.num_classes)
    with torch.no_grad():
        student.readout_matrix.copy_(torch.eye(student.num_classes)[torch.from_numpy(bins)])


def assign_outcomes(
    probabilities: npt.NDArray[np.float64],
    labels: npt.NDArray[np.int64],
    *,
    num_classes: int,
) -> npt.NDArray[np.int64]:
    """Return the class of each outcome `(outcomes,)` that makes the labels likely, bins balanced.

    The mean log-likelihood of the labels, mean_i log sum_k [k in bin y_i] p_k(x_i), is concave in
    the assignment. Each round takes its gradient at the present bins as the worth of every
    outcome for every class, solves that linear assignment exactly over balanced bins (the
    Hungarian method, as scipy has it) and stops where the likelihood no longer rises: the steps of
    Frank and Wolfe between whole assignments, from the one that the classes' mean probabilities
    give. It ends in a local optimum.

    Args:
        probabilities: Outcome probabilities `(images, outcomes)`.
        labels: Their classes `(images,)`; a class without images is worth nothing anywhere.
        num_classes: Number of bins, at most the number of outcomes.
    """
    from scipy.optimize import linear_sum_assignment

    outcomes = probabilities.shape[1]
    slots = np.arange(outcomes) * num_classes // outcomes
    truth = np.eye(num_classes)[labels]
    rows = np.arange(len(labels))

    def assigned(worth: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        """Return the best bins where `worth` is (classes, outcomes)."""
        slot, outcome = linear_sum_assignment(worth[slots], maximize=True)
        bins = np.empty(outcomes, dtype=np.int64)
        bins[outcome] = slots[slot]
        return bins

    def label_probabilities(bins: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        sums = probabilities @ np.eye(num_classes)[bins]
        return np.maximum(sums[rows, labels], SMALLEST_PROBABILITY)

    counts = np.maximum(truth.sum(axis=0), 1)
    bins = assigned((truth / counts).T @ probabilities)
    likely = label_probabilities(bins)
    for _ in range(_MOST_ROUNDS):
        candidate = assigned(truth.T @ (probabilities / likely[:, None]))
        candidate_likely = label_probabilities(candidate)
        if np.log(candidate_likely).mean() <= np.log(likely).mean():
            break
        bins, likely = candidate, candidate_likely
    return bins


def bins_of(student: QuantumStudent) -> list[int]:
    """Return the class of each outcome of a student with a class-bin read-out."""
    classes: list[int] = student.readout_matrix.argmax(dim=1).tolist()
    return classes


@torch.no_grad()
def outcome_probabilities(student: QuantumStudent, images: Tensor) -> Tensor:
    """Return exact outcome probabilities `(images, 2^n)` of a student's circuit, little-endian.

    They are computed on the CPU, wherever the student lies.
    """
    network = make_qnn(student.parts, readout="probabilities", num_classes=student.num_classes)
    connector = CompiledConnector(
        network,
        initial_weights=student.weights,
        preparation=student.parts.preparation,
    )
    own = images.to(student.weights.device)
    inputs = student.circuit_inputs(student.reduce(student.features(own)))
    states = inputs.get("states")
    return connector(inputs["inputs"]) if states is None else connector.from_states(states)


def class_distributions(student: QuantumStudent, split: Split) -> Tensor:
    """Return mean outcome probabilities `(classes, 2^n)` of the images of each class."""
    probabilities = outcome_probabilities(student, split.images).double()
    members = torch.eye(student.num_classes, dtype=torch.float64)[split.labels]
    return (members / members.sum(dim=0).clamp_min(1)).T @ probabilities


def has_class_bins(student: Student) -> bool:
    """Return whether a student sums its outcomes into bins, few enough to be shown singly."""
    if not isinstance(student, QuantumStudent) or student.spec.readout not in CLASS_BINS:
        return False
    return student.head is None and student.qubits <= MOST_QUBITS_SHOWN


def summarize_class_bins(
    before: Student, trained: Mapping[str, Student], split: Split
) -> tuple[tuple[int, ...], dict[str, tuple[tuple[float, ...], ...]]]:
    """Return what outcomes stand for, and how probable they are before and after training.

    Args:
        before: The student before it was trained.
        trained: The student after it was trained, by arm.
        split: Images and labels.

    Returns:
        The class of each outcome, and for `start` and every arm the mean probability of each
        outcome, class by class.
    """
    bins: tuple[int, ...] = ()
    distributions = {}
    for name, student in {"start": before, **trained}.items():
        assert isinstance(student, QuantumStudent)
        bins = tuple(bins_of(student))
        means = class_distributions(student, split)
        distributions[name] = tuple(tuple(round(p, 5) for p in row) for row in means.tolist())
    return bins, distributions
