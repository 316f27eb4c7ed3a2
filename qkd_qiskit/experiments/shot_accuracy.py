"""How often a student is right with so many shots: draws from exact noisy probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import exact_logits, target_outcomes
from qkd_qiskit.experiments.recalibration import logits_of, outputs_of
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.recalibration import AffineMap, fit_map

DRAWS = 64
"""Draws of each image's shots."""
MAPS = 8
"""Draws of the unlabelled images' shots, each of which gives a map."""
Real = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class NoisyStudent:
    """A student's exact probabilities on a noisy target.

    Attributes:
        student: The student.
        features: What its circuit and its decoder take of the test images.
        labels: Right classes `(images,)`.
        outcomes: Probabilities of the outcomes of each basis, basis after basis
            `(rows, bases, 2^n)`.
        unlabelled: The same of unlabelled images, and their features; None without.
        exact: Outputs without noise of the unlabelled images `(images, outputs)`.
    """

    student: CircuitStudent
    features: Tensor
    labels: NDArray[np.int64]
    outcomes: Real
    unlabelled: tuple[Tensor, Real] | None = None
    exact: Real | None = None

    def accuracy(
        self, *, shots: int, recalibrated: bool, rng: np.random.Generator, draws: int = DRAWS
    ) -> Real:
        """Return how often each image is classified rightly `(images,)`.

        Args:
            shots: Shots per circuit.
            recalibrated: Whether outputs are corrected by a map that the unlabelled images give,
                with as many shots.
            rng: Draws the shots.
            draws: Draws to average over.
        """
        hits = np.zeros(len(self.labels))
        maps = [self._map(shots, rng) for _ in range(MAPS)] if recalibrated else []
        for number in range(draws):
            logits = self.logits(self.features, self.outcomes, shots=shots, rng=rng)
            if maps:
                corrected = maps[number % MAPS](outputs_of(self.student, logits))
                logits = logits_of(self.student, corrected)
            hits += logits.argmax(dim=1).numpy() == self.labels
        return hits / draws

    @torch.no_grad()
    def logits(
        self, features: Tensor, outcomes: Real, *, shots: int, rng: np.random.Generator
    ) -> Tensor:
        """Return logits `(images, num_classes)` from one draw of the shots."""
        rows, bases, size = outcomes.shape
        counts = rng.multinomial(shots, outcomes.reshape(-1, size))
        frequencies = torch.from_numpy((counts / shots).reshape(rows, bases * size))
        return self.student.decode(frequencies, features)

    def _map(self, shots: int, rng: np.random.Generator) -> AffineMap:
        if self.unlabelled is None or self.exact is None:
            raise InputError("there are no unlabelled images to recalibrate with")
        measured = self.logits(*self.unlabelled, shots=shots, rng=rng)
        return fit_map(outputs_of(self.student, measured), self.exact).map


@torch.no_grad()
def noisy_student(
    student: CircuitStudent, split: Split, *, target: Target, unlabelled: Tensor | None = None
) -> NoisyStudent:
    """Return a student's exact probabilities of test images on a noisy target.

    Args:
        student: The student.
        split: Test images with their labels.
        target: A target whose probabilities are exact, such as ``fake_torino:exact``.
        unlabelled: Images to recalibrate with; None = none.
    """
    bases = len(student.circuits)

    def outcomes(images: Tensor) -> Real:
        found = target_outcomes(student, images, target=target).double().numpy()
        shaped = found.reshape(len(found), bases, -1).clip(0.0)
        normalised: Real = shaped / shaped.sum(axis=2, keepdims=True)
        return normalised

    more: tuple[Tensor, Real] | None = None
    exact: Real | None = None
    if unlabelled is not None and len(unlabelled):
        more = student.features(unlabelled), outcomes(unlabelled)
        exact = outputs_of(student, exact_logits(student, unlabelled))
    return NoisyStudent(
        student=student,
        features=student.features(split.images),
        labels=split.labels.numpy(),
        outcomes=outcomes(split.images),
        unlabelled=more,
        exact=exact,
    )


def accuracies(
    students: Sequence[NoisyStudent],
    *,
    shots: int,
    recalibrated: bool,
    seed: int,
    draws: int = DRAWS,
) -> Real:
    """Return `NoisyStudent.accuracy` of several `(students, images)`; a seed gives the same."""
    return np.stack(
        [
            student.accuracy(
                shots=shots,
                recalibrated=recalibrated,
                rng=np.random.default_rng([seed, number, shots, recalibrated]),
                draws=draws,
            )
            for number, student in enumerate(students)
        ]
    )
