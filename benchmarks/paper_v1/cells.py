"""What arXiv:2311.13810 (version 1) published: six students, three teachers, eighteen gains.

All are accuracies in percent of one run each, the best of ten epochs on the images that they are
counted on: the first 150 test images per class for students, all of these classes for teachers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from paper_v1.data import PER_CLASS
from paper_v1.student import Head

TEACHERS = ("lenet5", "alexnet", "ensemble")
TEACHER_ACCURACIES = {
    ("mnist", 6): {"lenet5": 99.50, "alexnet": 99.72, "ensemble": 99.73},
    ("mnist", 8): {"lenet5": 99.16, "alexnet": 99.51, "ensemble": 99.58},
    ("fashion_mnist", 6): {"lenet5": 91.57, "alexnet": 94.90, "ensemble": 95.67},
    ("fashion_mnist", 8): {"lenet5": 85.97, "alexnet": 91.64, "ensemble": 91.79},
}
Flaw = Literal["", "no-op", "head"]


@dataclass(frozen=True)
class PublishedGain:
    """One published run of a distilled student.

    Attributes:
        accuracy: In percent.
        flaw: no-op: its distillation term gives the student no gradient; head: it has another head
            than its baseline; empty: neither.
    """

    accuracy: float
    flaw: Flaw = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """A student of the paper and what was published of it.

    Attributes:
        dataset: mnist or fashion_mnist.
        num_classes: The classes are 0 to this minus 1.
        qubits: Width of its circuit.
        shots: Per image.
        baseline: Accuracy of its label-only run, in percent.
        baseline_head: Head of that run; distilled runs have the sigmoid head.
        gains: The distilled runs by teacher.
    """

    dataset: Literal["mnist", "fashion_mnist"]
    num_classes: int
    qubits: int
    shots: int
    baseline: float
    baseline_head: Head
    gains: dict[str, PublishedGain]

    @property
    def name(self) -> str:
        """For example mnist_6_3q."""
        return f"{self.dataset}_{self.num_classes}_{self.qubits}q"

    def gain(self, teacher: str) -> float:
        """The published gain, in points: of counts of images, from which accuracies are rounded."""
        images = PER_CLASS * self.num_classes
        distilled, baseline = (
            round(accuracy * images / 100)
            for accuracy in (self.gains[teacher].accuracy, self.baseline)
        )
        return 100 * (distilled - baseline) / images


def _gains(
    lenet5: PublishedGain, alexnet: PublishedGain, ensemble: PublishedGain
) -> dict[str, PublishedGain]:
    return dict(zip(TEACHERS, (lenet5, alexnet, ensemble), strict=True))


_P = PublishedGain
CELLS: tuple[Cell, ...] = (
    Cell(
        dataset="mnist", num_classes=6, qubits=3, shots=5000, baseline=96.56,
        baseline_head="sigmoid", gains=_gains(_P(97.89), _P(97.44), _P(97.33)),
    ),
    Cell(
        dataset="mnist", num_classes=8, qubits=3, shots=3000, baseline=93.75,
        baseline_head="sigmoid", gains=_gains(_P(93.75), _P(94.92), _P(95.42)),
    ),
    Cell(
        dataset="mnist", num_classes=8, qubits=4, shots=2000, baseline=93.83,
        baseline_head="sigmoid", gains=_gains(_P(94.33, "no-op"), _P(94.17), _P(94.00)),
    ),
    Cell(
        dataset="fashion_mnist", num_classes=6, qubits=3, shots=5000, baseline=65.00,
        baseline_head="softmax",
        gains=_gains(_P(77.00, "head"), _P(83.44, "head"), _P(67.89, "head")),
    ),
    Cell(
        dataset="fashion_mnist", num_classes=8, qubits=3, shots=3000, baseline=68.00,
        baseline_head="softmax",
        gains=_gains(_P(68.67, "no-op"), _P(73.42, "head"), _P(74.42, "head")),
    ),
    Cell(
        dataset="fashion_mnist", num_classes=8, qubits=4, shots=2000, baseline=74.25,
        baseline_head="sigmoid", gains=_gains(_P(75.83, "no-op"), _P(75.42), _P(72.50)),
    ),
)  # fmt: skip
