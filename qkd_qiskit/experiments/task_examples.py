"""What the members of a task learn from: images, their copies, and who teaches them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.inputs import with_copies
from qkd_qiskit.distillation.population import DistillationData
from qkd_qiskit.distillation.trainer import layer_of, make_distillation_data
from qkd_qiskit.experiments.arms import arm_data, draw_images, loss_weights, soft_targets
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.student_teachers import teacher_of_students
from qkd_qiskit.experiments.teachers import TeachersBySeed, load_same_draw_teachers
from qkd_qiskit.students.base import Student
from qkd_qiskit.targets import Target


def task_examples(
    folder: RunFolder,
    data: Data,
    teachers_by_seed: TeachersBySeed,
    *,
    shape: Student,
    members: Sequence[tuple[str, int]],
) -> DistillationData:
    """Return what the members of a task learn from.

    Among the examples' teachers are the run's, or the students of the arm that teaches the task's,
    once for each kind of soft targets that an arm has.

    Args:
        folder: The run, with the students and teachers that are trained before the task.
        data: Its images.
        teachers_by_seed: Its teachers.
        shape: The student that the members share the shape of.
        members: Arm and seed of each member, of one population.
    """
    recipe, (arms, seeds) = (
        folder.recipe,
        (list(dict.fromkeys(its)) for its in zip(*members, strict=True)),
    )
    spec, table = recipe.distill_of(arms[0]), recipe.arm_table[arms[0]]
    if table.taught_by is not None:
        teachers_by_seed = _students_as_teachers(folder, data, table.taught_by, seeds=seeds)
    elif table.targets == "same_draw":
        teachers_by_seed = load_same_draw_teachers(folder, data)
    drawn = [draw_images(arm, recipe, data, seed=seed) for arm, seed in members]
    data, draws = with_copies(
        arm_data(arms[0], recipe, data),
        torch.stack(drawn),
        spec=spec,
        seeds=[seed for _, seed in members],
    )
    # Of all arms of the population, whichever of them an extension adds: they share their figures.
    population = [
        arm for arm in recipe.arms if recipe.arm_table[arm].population == table.population
    ]
    featured = any(loss_weights(arm, recipe)[2] > 0 for arm in population)
    places = [teachers_by_seed.index_of(seed) for seed in seeds]
    teachers = teachers_by_seed.teachers[min(places) : max(places) + 1]
    examples = make_distillation_data(
        shape,
        teachers,
        data,
        draws=draws,
        layer=layer_of(spec) if featured else None,
        temperature=spec.temperature,
    )
    kind_of = {arm: recipe.arm_table[arm].targets for arm in arms}
    kinds = list(dict.fromkeys(kind_of.values()))
    logits = {
        kind_of[arm]: [
            soft_targets(arm, recipe, data, teacher_logits=teacher_logits)
            for teacher_logits in examples.teacher_logits
        ]
        for arm in arms
    }
    taught_by = [
        kinds.index(kind_of[arm]) * len(teachers) + teachers_by_seed.index_of(seed) - min(places)
        for arm, seed in members
    ]
    features = examples.teacher_features
    return replace(
        examples,
        teacher_logits=torch.stack([targets for kind in kinds for targets in logits[kind]]),
        teachers=torch.tensor(taught_by),
        # Feature maps are the teacher's for all kinds; controls give them no weight.
        teacher_features=None
        if features is None
        else features.repeat(len(kinds), *[1] * (features.ndim - 1)),
    )


def _students_as_teachers(
    folder: RunFolder, data: Data, arm: str, *, seeds: Sequence[int]
) -> TeachersBySeed:
    """Return the trained students of an arm as the teachers of their seeds."""
    exact = Target.parse("exact")
    return TeachersBySeed(
        {
            seed: teacher_of_students([folder.member(arm, seed)], data, target=exact)
            for seed in seeds
        }
    )
