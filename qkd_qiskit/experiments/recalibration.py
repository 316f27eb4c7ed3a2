"""Maps from measured to exact outputs, kept beside the students that they were fitted for.

RUN/ARM/seed_N/recalibrations.json holds one for each target; see `targets.recalibration` for what a
map is. A head's outputs are its logits. A student with class bins has the bins' probabilities, of
which its logits are the logarithms.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from statistics import fmean

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.experiments.evaluation import (
    exact_logits,
)
from qkd_qiskit.experiments.json_codec import OMITTED, decode, encode
from qkd_qiskit.experiments.run_folder import RunFolder, read_json, write_json
from qkd_qiskit.experiments.target_summary import RecalibrationSummary
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.quantum import SMALLEST_PROBABILITY, QuantumStudent
from qkd_qiskit.targets.names import without_day
from qkd_qiskit.targets.recalibration import AffineMap, Kind, fit_map

USUAL_IMAGES = 50
KINDS: tuple[Kind, ...] = ("affine", "diagonal", "head")
SUFFIX = ", recalibrated"
"""What a key of figures ends with that a map has corrected."""
FILE = "recalibrations.json"


@dataclass(frozen=True, kw_only=True)
class Recalibration:
    """A map of one student on one target.

    Attributes:
        target: Name of the target.
        fitted: ISO time (UTC) of the fit.
        calibration_date: ISO date of the calibration that the target's noise was of.
        images: Unlabelled images of the training pool that were measured.
        shots: Shots per image; None where probabilities were exact.
        qpu_seconds: What measuring them takes of a device, by IBM's formula, its job included where
            it was one of its own; None where nothing was sampled.
        kind: Kind of the map.
        scale: See `AffineMap`, and so are the others.
        matrix: `(inputs, outputs)`.
        offset: `(outputs,)`.
        strength: Strength of the ridge.
        correction: Root mean square of what the map changes on these images, as a share of the
            standard deviation of the exact outputs.
        agreement_before: Share of the images whose measured choice is the exact one.
        agreement: The same of each image by a map that was fitted without it.
    """

    target: str
    fitted: str
    calibration_date: str | None = field(default=None, metadata=OMITTED)
    images: int
    shots: int | None
    qpu_seconds: float | None
    kind: Kind
    scale: float
    matrix: tuple[tuple[float, ...], ...]
    offset: tuple[float, ...]
    strength: float
    correction: float
    agreement_before: float
    agreement: float

    @property
    def map(self) -> AffineMap:
        """The map."""
        return AffineMap(
            kind=self.kind,
            scale=self.scale,
            matrix=np.array(self.matrix, dtype=float).reshape(-1, len(self.offset)),
            offset=np.array(self.offset, dtype=float),
            strength=self.strength,
        )

    def corrected(
        self, student: Student, logits: Tensor, *, outcomes: Tensor | None = None
    ) -> Tensor:
        """Return corrected logits `(images, num_classes)` of measured ones.

        Args:
            student: Whose they are.
            logits: As measured.
            outcomes: Measured probabilities of all outcomes, for the kind `head`.
        """
        measured = outputs_of(student, logits)
        inputs = None if outcomes is None else outcomes.double().numpy()
        return logits_of(student, self.map(measured, outcomes=inputs)).to(logits.dtype)


def outputs_of(student: Student, logits: Tensor) -> NDArray[np.float64]:
    """Return what a map is fitted to `(images, outputs)`: logits, or the class bins' probabilities.

    Args:
        student: A student.
        logits: Its logits `(images, num_classes)`.
    """
    given = logits.detach().double()
    if isinstance(student, QuantumStudent) and student.head is None:
        given = (given / student.sharpness).exp()
    outputs: NDArray[np.float64] = given.numpy()
    return outputs


def logits_of(student: Student, outputs: NDArray[np.float64]) -> Tensor:
    """Return logits `(images, num_classes)` of what `outputs_of` gives, in float64."""
    given = torch.from_numpy(outputs)
    if isinstance(student, QuantumStudent) and student.head is None:
        return student.sharpness * given.clamp_min(SMALLEST_PROBABILITY).log()
    return given


def reference_student(folder: RunFolder, arm: str, seed: int) -> Student:
    """Return the student to whose exact outputs one is corrected: that which it started from.

    What is taught through noise gives its best there; its outputs without noise are worse than
    those of the clean student that it started from.
    """
    return load_student(folder.member(folder.recipe.arm_table[arm].start or arm, seed))


def fit_recalibration(
    student: Student,
    images: Tensor,
    *,
    logits: Tensor,
    reference: Student | None = None,
    outcomes: Tensor | None = None,
    target: str,
    kind: Kind = "affine",
    shots: int | None = None,
    calibration_date: str | None = None,
    qpu_seconds: float | None = None,
) -> Recalibration:
    """Return the map of a student whose outputs for unlabelled images were measured.

    Args:
        student: The student.
        images: The images.
        logits: Measured logits `(images, num_classes)`.
        reference: Whose exact outputs, which are calculated here, the map leads to; default: the
            student's own.
        outcomes: Measured probabilities of all outcomes, for the kind `head`.
        target: Name of the target.
        kind: Kind of the map.
        shots: Shots per image.
        calibration_date: Of the target.
        qpu_seconds: What the measurement takes.

    Raises:
        InputError: Too few images, or outputs that are not finite.
    """
    measured, exact = (
        outputs_of(student, given) for given in (logits, exact_logits(reference or student, images))
    )
    inputs = None if outcomes is None else outcomes.double().numpy()
    fit = fit_map(measured, exact, kind=kind, outcomes=inputs)
    change = fit.map(measured, outcomes=inputs) - measured
    spread = float(exact.std())
    return Recalibration(
        target=without_day(target),
        fitted=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        calibration_date=calibration_date,
        images=len(images),
        shots=shots,
        qpu_seconds=qpu_seconds,
        kind=kind,
        scale=fit.map.scale,
        matrix=tuple(tuple(row) for row in fit.map.matrix.tolist()),
        offset=tuple(fit.map.offset.tolist()),
        strength=fit.map.strength,
        correction=float(np.sqrt((change**2).mean())) / spread if spread > 0 else 0.0,
        agreement_before=float((measured.argmax(axis=1) == exact.argmax(axis=1)).mean()),
        agreement=float((fit.held_out.argmax(axis=1) == exact.argmax(axis=1)).mean()),
    )


def map_of(folder: RunFolder, member: tuple[str, int], target: str) -> Recalibration | None:
    """Return the map of a student for a target, or None: on later days of it the same one."""
    return recalibrations(folder, *member).get(without_day(target))


def recalibrations(folder: RunFolder, arm: str, seed: int) -> dict[str, Recalibration]:
    """Return the maps of one student by the name of their target."""
    path = folder.member(arm, seed) / FILE
    content = read_json(path) if path.exists() else {}
    return {name: decode(Recalibration, item, where=path) for name, item in content.items()}


def keep_recalibration(
    folder: RunFolder, member: tuple[str, int], recalibration: Recalibration
) -> None:
    """Keep a map beside its student, and drop the figures that an earlier one has corrected."""
    known = recalibrations(folder, *member) | {recalibration.target: recalibration}
    write_json(folder.member(*member) / FILE, encode(known))
    figures = folder.evaluations(*member)
    for key in [key for key in figures if is_recalibrated(key)]:
        if without_day(figures[key].target) == recalibration.target:
            folder.drop_evaluation(*member, key=key)


def is_recalibrated(key: str) -> bool:
    """Return whether the figures under a key are of corrected outputs."""
    return key.endswith(SUFFIX)


def recalibrated_seeds(folder: RunFolder, target: str) -> tuple[int, ...]:
    """Return the seeds whose students have a map for a target: each that has a circuit.

    Arms that are recalibrated anyway do not count: their figures are never the measured ones.
    """
    return tuple(
        seed
        for seed in folder.recipe.member_seeds
        if any(map_of(folder, (arm, seed), target) is not None for arm in _as_measured(folder))
    )


def _as_measured(folder: RunFolder) -> list[str]:
    table = folder.recipe.arm_table
    return [arm for arm in folder.recipe.arms if not table[arm].recalibrated]


def summarize_recalibrations(
    folder: RunFolder, target: str, *, seeds: Sequence[int]
) -> RecalibrationSummary:
    """Return what the maps of a run for a target are, at the present time."""
    known = [
        known
        for seed in seeds
        for arm in _as_measured(folder)
        if (known := map_of(folder, (arm, seed), target)) is not None
    ]
    costs = [it.qpu_seconds for it in known if it.qpu_seconds is not None]
    first = min(known, key=lambda it: it.fitted)
    return RecalibrationSummary(
        kind=first.kind,
        fitted=first.fitted,
        used=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        calibration_date=first.calibration_date,
        images=first.images,
        shots=first.shots,
        qpu_seconds=fmean(costs) if costs else None,
        correction=fmean(it.correction for it in known),
        agreement_before=fmean(it.agreement_before for it in known),
        agreement=fmean(it.agreement for it in known),
    )
