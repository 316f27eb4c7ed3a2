"""What a trained run is measured with: its students and test images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor

from qkd_qiskit.data.splits import Split, load_data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import judge, subset
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import MemberKey
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.quantum import QuantumStudent


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Students and test images.

    Attributes:
        split: The images, and their labels.
        teacher_logits: Logits of the teacher of each seed for them `(images, num_classes)`.
        students: Every student by arm and seed, those of a seed side by side.
    """

    split: Split
    teacher_logits: dict[int, Tensor]
    students: Mapping[MemberKey, Student]

    @property
    def quantum(self) -> list[tuple[MemberKey, QuantumStudent]]:
        """The students with a circuit."""
        return [
            (member, student)
            for member, student in self.students.items()
            if isinstance(student, QuantumStudent)
        ]

    def write_evaluations(
        self,
        folder: RunFolder,
        logits: Mapping[MemberKey, Tensor],
        *,
        key: str,
        shots: int,
    ) -> None:
        """Write each student's figures into the run.

        Args:
            folder: The run.
            logits: What was measured; a student without a circuit has its exact figures.
            key: What the figures are filed under.
            shots: Shots per image.
        """
        for member, student in self.students.items():
            measured = logits.get(member)
            figures = judge(
                student,
                self.split,
                logits=measured,
                target=key,
                teacher_logits=self.teacher_logits[member[1]],
                shots=None if measured is None else shots,
            )
            folder.add_evaluation(*member, key=key, figures=asdict(figures))


def make_evaluation_set(folder: RunFolder, *, seeds: Sequence[int], limit: int) -> EvaluationSet:
    """Return the students of a finished run and its test images.

    Raises:
        CheckpointError: A student or the teacher cannot be read.
        InputError: No student has a circuit.
    """
    recipe = folder.recipe
    students: dict[MemberKey, Student] = {
        (arm, seed): load_student(folder.member(arm, seed)) for seed in seeds for arm in recipe.arms
    }
    if not any(isinstance(student, QuantumStudent) for student in students.values()):
        raise InputError(
            f"{folder.path} has only classical students ({', '.join(recipe.arms)}); there is no "
            "circuit to run on a device"
        )
    data = load_data(recipe.data, seed=recipe.seed)
    teachers_by_seed = load_teachers(folder, data)
    split, rows = subset(data.test, limit=limit, seed=recipe.seed)
    return EvaluationSet(
        split=split,
        teacher_logits={
            seed: teachers_by_seed.by_seed[seed].logits(data.test.images)[rows] for seed in seeds
        },
        students=students,
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
