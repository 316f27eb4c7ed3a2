"""Trained students on targets: the one way from a run's students to evaluations.json.

Simulated targets, sweeps and jobs on devices differ in where the logits come from and in the test
images; what follows from them, and under which key it is kept, is decided here.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import EXACT_BATCH, evaluate_logits, subset
from qkd_qiskit.experiments.recalibration import (
    SUFFIX,
    map_of,
    recalibrated_seeds,
)
from qkd_qiskit.experiments.recalibration_fit import measured_and_corrected, recalibrate_members
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.simulator_check import check_students, simulator_of
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.simulator.threads import torch_threads_for
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import AerCheck, DeviceTarget, Simulator, Target

logger = logging.getLogger(__name__)
_warn_once = functools.cache(logger.warning)


@dataclass(frozen=True, eq=False)
class EvaluationSet:
    """Test images, and where the figures on them are kept.

    Attributes:
        folder: The run.
        split: The images, and their labels.
        teacher_logits: Of the teacher of each seed `(images, num_classes)`; None where they are not
            known, of soft labels of other images.
    """

    folder: RunFolder
    split: Split
    teacher_logits: Mapping[int, Tensor | None]

    def keep(
        self,
        member: tuple[str, int],
        student: Student,
        *,
        logits: Tensor | None,
        key: str,
        target: str,
        shots: int | None,
        compare_exact: bool = False,
        simulator: Simulator | None = None,
        check: AerCheck | None = None,
    ) -> None:
        """Write the figures of one student into the run.

        Args:
            member: Its arm and seed.
            student: The student.
            logits: What was measured `(images, num_classes)`; None = its exact ones.
            key: What the figures are filed under.
            target: Name of the target.
            shots: Shots per image; None where nothing was sampled.
            compare_exact: As for `evaluate_logits`.
            simulator: As in `Evaluation`.
            check: As in `Evaluation`.
        """
        evaluation = evaluate_logits(
            student,
            self.split,
            logits=logits,
            target=target,
            teacher_logits=self.teacher_logits[member[1]],
            shots=shots,
            compare_exact=compare_exact,
            simulator=simulator,
            check=check,
        )
        self.folder.add_evaluation(*member, key=key, evaluation=evaluation)


def make_evaluation_set(
    folder: RunFolder, data: Data, teachers_by_seed: TeachersBySeed, *, limit: int | None
) -> EvaluationSet:
    """Return the test images of a run, or a random part of at most `limit` of them."""
    split, rows = data.test, torch.arange(len(data.test))
    if limit is not None:
        split, rows = subset(data.test, limit=limit, seed=folder.recipe.seed)
    logits = [
        teacher.logits(data.test.images)[rows] if teacher.tested else None
        for teacher in teachers_by_seed.teachers
    ]
    return EvaluationSet(
        folder=folder,
        split=split,
        teacher_logits={
            seed: logits[teachers_by_seed.index_of(seed)] for seed in teachers_by_seed.by_seed
        },
    )


def evaluate_members(
    folder: RunFolder,
    target: Target,
    members: Sequence[tuple[str, int]],
    *,
    data: Data,
    teachers_by_seed: TeachersBySeed,
    shots: int | None = None,
    limit: int | None = None,
    compare_exact: bool = False,
    recalibrated: bool = False,
    callback: Callback,
) -> str:
    """Evaluate trained students on one target, and return the key of their figures.

    What is there already is kept. Of each student whose shots are drawn from known probabilities a
    few circuits are run by Aer too; figures on one target have shots of one origin. Corrected
    figures are kept beside the measured ones, under the key with `recalibration.SUFFIX`.

    Args:
        folder: The run.
        target: Where circuits run.
        members: Arm and seed of each student.
        data: Its test images.
        teachers_by_seed: Whose logits students are compared with.
        shots: Shots per image; default: the target's.
        limit: Test images; default: the recipe's `test_limit` from shots, else all.
        compare_exact: As for `evaluate_logits`.
        recalibrated: Whether those that have a map for the target are evaluated with it, too.
        callback: Hears of the images that are evaluated.

    Raises:
        InputError: `limit` is below 1.
        TargetError: The target cannot run the circuit, or Aer has other probabilities.
    """
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a number of test images of at least 1")
    recipe, total = folder.recipe, len(data.test)
    usual = min(recipe.test_limit, total) if target.sampled else total
    wanted = usual if limit is None else min(limit, total)
    key = evaluation_key(recipe, target, shots=shots)
    key += "" if wanted == usual else f", {wanted} images"
    by = _as_before(folder, key, target)
    with_map = recalibrated_seeds(folder, target.name) if recalibrated else ()
    missing = [
        (arm, seed)
        for arm, seed in members
        if not _is_kept(folder, (arm, seed), key, compare_exact)
        or (seed in with_map and not _is_kept(folder, (arm, seed), key + SUFFIX, compare_exact))
    ]
    if not missing:
        return key
    # All images keep their order: the run's own figures come out the same to the last digit.
    most = wanted if target.sampled or wanted < total else None
    examples = make_evaluation_set(folder, data, teachers_by_seed, limit=most)

    def on_batch(images: int) -> None:
        callback.evaluated(images, total=len(missing) * len(examples.split))

    students = [load_student(folder.member(*member)) for member in missing]
    largest = max(student.num_parameters for student in students)
    with torch_threads_for(parameters=largest, images=EXACT_BATCH):
        checks = check_students(students, examples.split.images, target=by)
        for (arm, seed), student, check in zip(missing, students, checks, strict=True):
            always = recipe.arm_table[arm].recalibrated and not target.ideal
            if always and map_of(folder, (arm, seed), target.name) is None:
                recalibrate_members(folder, target, [(arm, seed)], data=data, shots=shots)
            applied = always or seed in with_map
            known = map_of(folder, (arm, seed), target.name) if applied else None
            logits, corrected, taken = measured_and_corrected(
                student,
                examples.split.images,
                target=by,
                shots=shots,
                seed=derive_seed(recipe.seed, "evaluate", seed),
                stream=arm,
                recalibration=known,
                on_batch=on_batch,
            )
            keep = functools.partial(
                examples.keep,
                (arm, seed),
                student,
                target=target.name,
                shots=taken,
                compare_exact=compare_exact,
                simulator=simulator_of(student, by),
                check=check,
            )
            keep(logits=corrected if always else logits, key=key)
            if seed in with_map:
                keep(logits=corrected, key=key + SUFFIX)
    return key


def evaluation_key(recipe: Recipe, target: Target, *, shots: int | None = None) -> str:
    """Return what figures are filed under: the target's name, and shots that are not usual."""
    shots = target.shots if shots is None else shots
    own = not target.sampled or shots == recipe.shots
    return target.name if own else f"{target.name}@{shots}"


def _as_before(folder: RunFolder, key: str, target: Target) -> Target:
    """Return the target with the simulator that drew the figures it is to stand beside."""
    if not isinstance(target, DeviceTarget) or not target.sampled or target.simulator == "aer":
        return target
    kept = (folder.evaluations(*member).get(key) for member in folder.members)
    if not any(it is not None and it.shots is not None and it.simulator is None for it in kept):
        return target
    _warn_once(
        "%s: this run has figures of an earlier version there, whose shots Aer drew; they stay, "
        "and what is missing beside them is drawn by Aer too",
        key,
    )
    return target.by_aer()


def _is_kept(folder: RunFolder, member: tuple[str, int], key: str, compare_exact: bool) -> bool:
    evaluation = folder.evaluations(*member).get(key)
    return evaluation is not None and not (compare_exact and evaluation.exact_agreement is None)
