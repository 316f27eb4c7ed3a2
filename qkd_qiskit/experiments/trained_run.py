"""One run on disk with what it was made from: data, teachers, students, figures.

Evaluations and sweeps are written on it; `qkd_qiskit.run.Run` adds the report.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal, TypeVar

from torch import Tensor

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.collect import student_arm, with_measured, without_targets
from qkd_qiskit.experiments.evaluation_set import evaluate_members
from qkd_qiskit.experiments.progress import default_callback
from qkd_qiskit.experiments.provenance import Provenance, read_provenance
from qkd_qiskit.experiments.recalibration import (
    SUFFIX,
    USUAL_IMAGES,
    is_recalibrated,
)
from qkd_qiskit.experiments.recalibration_fit import recalibrate_members
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.student_teachers import teacher_of_students
from qkd_qiskit.experiments.target_summary import describe_target
from qkd_qiskit.experiments.teachers import TeachersBySeed, load_teachers
from qkd_qiskit.experiments.teaching_students import teaching_seeds
from qkd_qiskit.recipe import Recipe, TeacherAverage, TeacherSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.names import without_day
from qkd_qiskit.targets.recalibration import Kind
from qkd_qiskit.teachers.base import Teacher

R = TypeVar("R", bound="TrainedRun")


class TrainedRun:
    """A run, read when something of it is asked for.

    Attributes:
        folder: Its files.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    @classmethod
    def open(cls: type[R], path: str | Path) -> R:
        """Open the folder of a run.

        Raises:
            CheckpointError: There is no run in the folder.
            RecipeError: Its recipe cannot be read.
        """
        return cls(RunFolder.open(path))

    @property
    def path(self) -> Path:
        """The folder."""
        return self.folder.path

    @property
    def recipe(self) -> Recipe:
        """The recipe that it was started with."""
        return self.folder.recipe

    @property
    def result(self) -> Result:
        """What result.json holds.

        Raises:
            CheckpointError: The run has not ended.
        """
        return self.folder.ended()

    @property
    def provenance(self) -> Provenance:
        """When, where and with what it was made; empty for runs of an early version."""
        return read_provenance(self.folder)

    @cached_property
    def data(self) -> Data:
        """Its images: pool, validation and test split.

        Raises:
            DataError: The files are not where the recipe says.
        """
        return load_data(self.recipe.data, seed=self.recipe.seed)

    @cached_property
    def teachers(self) -> TeachersBySeed:
        """Its teachers.

        Raises:
            CheckpointError: A teacher is not there.
        """
        return load_teachers(self.folder, self.data)

    def student(self, arm: str = "distilled", *, seed: int | None = None) -> Student:
        """Return a trained student.

        Args:
            arm: An arm of the run.
            seed: A seed of the run; default: the first.

        Raises:
            InputError: The run has no such arm or seed.
            CheckpointError: The student is not there.
        """
        if arm not in self.recipe.arms:
            raise InputError(
                f"{self.path} has no arm {arm!r}; give one of {', '.join(self.recipe.arms)}"
            )
        return load_student(self.folder.member(arm, self._seed(seed)))

    def as_teacher(
        self,
        data: Data,
        *,
        arm: str = "distilled",
        seed: int | Literal["all"] = "all",
        target: str = "exact",
        average: TeacherAverage = "probabilities",
    ) -> Teacher:
        """Return trained students as a teacher of other students, also of other circuits.

        Args:
            data: What it teaches: images of the same shape and classes.
            arm: An arm of the run.
            seed: A seed of the run; all = an ensemble of its students.
            target: Where their circuits run, as `Target.parse` takes it.
            average: What is averaged over an ensemble.

        Raises:
            TeacherError: The run has no such arm or seed, or its students take other images.
            CheckpointError: A student is not there.
            TargetError: The target is unknown.
        """
        spec = TeacherSpec(kind="run", run=str(self.path), arm=arm, seed=seed, target=target)
        parsed = Target.parse(target, shots=self.recipe.shots, seed=self.recipe.seed)
        return teacher_of_students(
            [self.folder.member(arm, one) for one in teaching_seeds(spec, self.recipe, seeds=())],
            data,
            target=parsed,
            average=average,
        )

    def teacher_logits(self, *, seed: int | None = None) -> Tensor:
        """Return the teacher's logits of all test images `(images, num_classes)`.

        Args:
            seed: Whose teacher, where each seed has its own; default: the first.

        Raises:
            InputError: The run has no such seed.
        """
        return self.teachers.by_seed[self._seed(seed)].logits(self.data.test.images)

    def evaluate(
        self,
        target: str,
        *,
        shots: int | None = None,
        recalibrated: bool = True,
        callback: Callback | None = None,
    ) -> Result:
        """Evaluate all students on one more target, and return the result with it.

        The figures go into the run's result.json; those that are there already are kept. Where
        `recalibrate` has fitted maps for the target, the corrected figures are beside the measured.

        Args:
            target: Name of the target, as `Target.parse` takes it.
            shots: Shots per image; default: the recipe's.
            recalibrated: Whether maps that were fitted for the target are applied.
            callback: Hears of the progress; default: a bar in a notebook, elsewhere nothing.

        Raises:
            CheckpointError: The run has not ended.
            TargetError: The target is unknown or cannot run the circuit.

        Example:
            >>> from qkd_qiskit import Run
            >>> result = Run.open("runs/digits").evaluate("fake_lima", shots=256)
            >>> "fake_lima" in " ".join(result.targets)
            True
        """
        callback, recipe, result = callback or default_callback(), self.recipe, self.result
        shots = recipe.shots if shots is None else shots
        parsed = Target.parse(target, shots=shots, seed=recipe.seed)
        callback.stage("data")
        key = self.evaluate_members(
            parsed, self.folder.members, recalibrated=recalibrated, callback=callback
        )
        summary = describe_target(parsed, self.student(student_arm(recipe)))
        maps = parsed.name if recalibrated else None
        result = with_measured(result, self.folder, key=key, target=summary, maps=maps)
        self.folder.end(result)
        return result

    def recalibrate(
        self,
        target: str,
        *,
        images: int = USUAL_IMAGES,
        kind: Kind = "affine",
        shots: int | None = None,
        callback: Callback | None = None,
    ) -> Result:
        """Fit maps from measured to exact outputs on a target, and return the result with them.

        Each student with a circuit is measured on unlabelled images of the training pool; no label
        and no teacher enters. Its map is kept beside it, in place of an earlier one for the target,
        and corrects what is measured there from now on (see `targets.recalibration`).

        Args:
            target: Name of the target, as `Target.parse` takes it.
            images: How many images are measured.
            kind: affine, diagonal or head.
            shots: Shots per image; default: the recipe's.
            callback: Hears of the progress.

        Raises:
            CheckpointError: The run has not ended.
            InputError: The target has nothing to correct, no student has a circuit, or the number
                of images or the kind is not accepted.
            TargetError: The target is unknown or cannot run the circuit.

        Example:
            >>> from qkd_qiskit import Run
            >>> result = Run.open("runs/digits").recalibrate("fake_lima:exact", images=12)
            >>> [name for name in result.targets if "lima" in name]
            ['fake_lima:exact', 'fake_lima:exact, recalibrated']
        """
        callback, recipe, result = callback or Callback(), self.recipe, self.result
        taken = recipe.shots if shots is None else shots
        parsed = Target.parse(target, shots=taken, seed=recipe.seed)
        callback.stage("data")
        data, total = self.data, images * len(self.folder.members)
        table = recipe.arm_table
        callback.stage(f"recalibrating on {parsed.name}")
        recalibrate_members(
            self.folder,
            parsed,
            [(arm, seed) for arm, seed in self.folder.members if not table[arm].recalibrated],
            data=data,
            images=images,
            kind=kind,
            on_batch=lambda measured: callback.evaluated(measured, total=total),
        )
        own = without_day(parsed.name)
        stale = [  # of other numbers of shots and other days, too
            key
            for key in result.targets
            if is_recalibrated(key)
            and without_day(key.removesuffix(SUFFIX).partition("@")[0]) == own
        ]
        self.folder.end(without_targets(result, stale))
        return self.evaluate(target, shots=shots, callback=callback)

    def evaluate_members(
        self,
        target: Target,
        members: Sequence[tuple[str, int]],
        *,
        shots: int | None = None,
        limit: int | None = None,
        compare_exact: bool = False,
        recalibrated: bool = False,
        callback: Callback,
    ) -> str:
        """Evaluate students of the run, and return the key of their figures.

        Arguments and errors are those of `evaluation_set.evaluate_members`.
        """
        data, teachers = self.data, self.teachers
        callback.stage(target.name)
        return evaluate_members(
            self.folder,
            target,
            members,
            data=data,
            teachers_by_seed=teachers,
            shots=shots,
            limit=limit,
            compare_exact=compare_exact,
            recalibrated=recalibrated,
            callback=callback,
        )

    def _seed(self, seed: int | None) -> int:
        seeds = self.recipe.member_seeds
        if seed is not None and seed not in seeds:
            raise InputError(
                f"{self.path} has no seed {seed}; give one of {', '.join(map(str, seeds))}"
            )
        return seeds[0] if seed is None else seed
