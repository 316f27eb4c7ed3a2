"""What a trained run is measured with: its students and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation_set import EvaluationSet, make_evaluation_set
from qkd_qiskit.experiments.recalibration import (
    SUFFIX,
    fit_recalibration,
    keep_recalibration,
    recalibrated_seeds,
    recalibrations,
    reference_student,
)
from qkd_qiskit.experiments.recalibration_fit import unlabelled_images
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import MemberKey
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.factory import load_student


@dataclass(frozen=True, eq=False)
class SubmittedStudents(EvaluationSet):
    """Students and the test images that they are measured on.

    Attributes:
        students: Every student by arm and seed, those of a seed side by side.
        pool: The data whose training pool has the unlabelled images.
    """

    students: Mapping[MemberKey, Student]
    pool: Data

    def unlabelled(self, count: int) -> Tensor:
        """Return so many unlabelled images of the training pool; none for 0."""
        if not count:
            return self.split.images[:0]
        return unlabelled_images(self.pool, count=count, seed=self.folder.recipe.seed)

    def recalibrate(
        self,
        logits: Mapping[MemberKey, Tensor],
        *,
        target: str,
        shots: int,
        calibration_date: str | None,
        qpu_seconds: float,
    ) -> None:
        """Fit and keep the map of each student.

        Args:
            logits: What was measured of the unlabelled images.
            target: What the maps are kept under.
            shots: Shots per image.
            calibration_date: Of the device.
            qpu_seconds: What the images of one student took.
        """
        for member, measured in logits.items():
            recalibration = fit_recalibration(
                self.students[member],
                self.unlabelled(len(measured)),
                reference=reference_student(self.folder, *member),
                logits=measured,
                target=target,
                shots=shots,
                calibration_date=calibration_date,
                qpu_seconds=qpu_seconds,
            )
            keep_recalibration(self.folder, member, recalibration)

    @property
    def quantum(self) -> list[tuple[MemberKey, CircuitStudent]]:
        """The students with a circuit."""
        return [
            (member, student)
            for member, student in self.students.items()
            if isinstance(student, CircuitStudent)
        ]

    def keep_all(
        self, logits: Mapping[MemberKey, Tensor], *, key: str, shots: int, maps: str
    ) -> None:
        """Write each student's figures into the run, as measured and as its map corrects them.

        Args:
            logits: What was measured; a student without a circuit has its exact figures.
            key: What the figures are filed under.
            shots: Shots per image.
            maps: What maps of the device are kept under.
        """
        seeds = recalibrated_seeds(self.folder, maps)
        for member, student in self.students.items():
            measured = logits.get(member)
            keep = partial(
                self.keep, member, student, target=key, shots=None if measured is None else shots
            )
            known, corrected = recalibrations(self.folder, *member).get(maps), measured
            if measured is not None and known is not None:
                corrected = known.corrected(student, measured)
            always = self.folder.recipe.arm_table[member[0]].recalibrated
            keep(logits=corrected if always else measured, key=key)
            if member[1] in seeds:
                keep(logits=corrected, key=key + SUFFIX)


def load_submitted(folder: RunFolder, *, seeds: Sequence[int], limit: int) -> SubmittedStudents:
    """Return the students of a finished run, and its test images.

    Raises:
        CheckpointError: A student or the teacher cannot be read.
        InputError: No student has a circuit.
    """
    recipe = folder.recipe
    students: dict[MemberKey, Student] = {
        (arm, seed): load_student(folder.member(arm, seed)) for seed in seeds for arm in recipe.arms
    }
    if not any(isinstance(student, CircuitStudent) for student in students.values()):
        raise InputError(
            f"{folder.path} has only classical students ({', '.join(recipe.arms)}); there is no "
            "circuit to run on a device"
        )
    data = load_data(recipe.data, seed=recipe.seed)
    examples = make_evaluation_set(folder, data, load_teachers(folder, data), limit=limit)
    return SubmittedStudents(
        folder=folder,
        split=examples.split,
        teacher_logits=examples.teacher_logits,
        students=students,
        pool=data,
    )


def check_seeds(folder: RunFolder, seeds: Sequence[int] | None) -> tuple[int, ...]:
    """Return the seeds that are requested; default: all of the run.

    Raises:
        InputError: One is not in the run.
    """
    known = folder.recipe.member_seeds
    unknown = [seed for seed in seeds or () if seed not in known]
    if unknown or (seeds is not None and not seeds):
        raise InputError(
            f"--seeds: {', '.join(map(str, seeds or ()))} is not accepted; {folder.path} has the "
            f"seeds {', '.join(map(str, known))}"
        )
    return known if seeds is None else tuple(seed for seed in known if seed in seeds)
