"""Which twin of a run is the strongest, by accuracy on validation images."""

from __future__ import annotations

import math
from statistics import fmean

from qkd_qiskit.experiments.results import TwinChoice
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, TWINS
from qkd_qiskit.students.factory import load_student


def validation_accuracy(folder: RunFolder, arm: str, seed: int) -> float:
    """Return the validation accuracy of a student's chosen weights; NaN where it has none."""
    accuracies = [epoch.validation_accuracy for epoch in folder.metrics(arm, seed)]
    last = folder.recipe.distill_of(arm).selection == "last"
    return accuracies[-1] if last else max(accuracies)


def mean_validation_accuracy(folder: RunFolder, arm: str) -> float | None:
    """Return the mean over the seeds; None where a training failed."""
    seeds = folder.recipe.member_seeds
    mean = fmean(validation_accuracy(folder, arm, seed) for seed in seeds)
    return mean if math.isfinite(mean) else None


def choose_twin(folder: RunFolder) -> TwinChoice | None:
    """Return which twin is best on validation images, where a run has more than the classical."""
    recipe, seeds = folder.recipe, folder.recipe.member_seeds
    kinds = {
        arm: recipe.student_of(arm).kind
        for arm in recipe.arms
        if recipe.arm_table[arm].loss == "distilled" and recipe.arm_table[arm].targets == "teacher"
    }
    if recipe.student.kind in CLASSICAL_STUDENTS or not set(kinds.values()) & set(TWINS):
        return None
    twins = [arm for arm, kind in kinds.items() if kind in (*TWINS, "classical")]
    accuracy = {arm: mean_validation_accuracy(folder, arm) for arm in twins}
    return TwinChoice(
        best=max(twins, key=lambda arm: accuracy[arm] or 0.0),
        validation_accuracy=accuracy,
        parameters={
            arm: load_student(folder.member(arm, seeds[0])).num_parameters for arm in twins
        },
    )
