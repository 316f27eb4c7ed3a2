"""From a run folder to its result: what was trained, its figures on each target, comparisons."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from importlib.metadata import version
from statistics import fmean
from typing import Any, TypeVar

import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.comparisons import compare_arms
from qkd_qiskit.experiments.device_results import device_results
from qkd_qiskit.experiments.evaluation_set import evaluation_key
from qkd_qiskit.experiments.recalibration import (
    SUFFIX,
    recalibrated_seeds,
    summarize_recalibrations,
)
from qkd_qiskit.experiments.results import (
    COMPARISONS,
    ClassBins,
    Metrics,
    Result,
    StudentSummary,
    TeacherSummary,
)
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.scores import confusion_counts
from qkd_qiskit.experiments.statistics import Gain, paired_gain
from qkd_qiskit.experiments.target_summary import (
    TargetSummary,
    TrainingCost,
    describe_target,
    with_simulators,
)
from qkd_qiskit.experiments.tasks import new_student, training_tasks
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.experiments.tuning import tuned, tuned_arms
from qkd_qiskit.experiments.twin_choice import choose_twin, validation_accuracy
from qkd_qiskit.recipe import GENERATED, Recipe
from qkd_qiskit.recipe.arms import TUNED
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.class_bins import has_class_bins, summarize_class_bins
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.teachers.base import Teacher

V = TypeVar("V")
# A student that on validation comes no further than this from chance (0) to perfect (1) has not
# been trained: for ten classes an accuracy of 0.15, for two of 0.53.
FAILED_SHARE = 1 / 18
PACKAGES = (
    "qkd-qiskit",
    "qiskit",
    "qiskit-machine-learning",
    "qiskit-aer",
    "qiskit-ibm-runtime",
    "torch",
    "numpy",
)


def collect_result(
    folder: RunFolder,
    *,
    student: Student,
    teachers_by_seed: TeachersBySeed,
    data: Data,
    targets: Sequence[Target],
    timing: Mapping[str, float],
    command: str,
) -> Result:
    """Return the result of a run from what its folder holds.

    Targets that were added by an evaluation stay. A pair of which one student failed to train is
    left out of the gain and counted.
    """
    recipe = folder.recipe
    generated = recipe.data.name in GENERATED
    tunings = {arm: tuned(folder, arm) for arm in tuned_arms(recipe)}
    result = Result(
        classes=tuple(data.class_names),
        sample="point" if generated or data.image_shape[:2] == (1, 1) else "image",
        teacher=describe_teachers(teachers_by_seed, data),
        student=describe_student(student),
        seeds=tuple(recipe.member_seeds),
        arms={arm: {} for arm in recipe.arms},
        failed={arm: failures(folder, arm, num_classes=data.num_classes) for arm in recipe.arms},
        targets={},
        timing=dict(timing),
        versions={package: version(package) for package in PACKAGES},
        command=command,
        training_cost=_training_cost(folder),
        tuning=tunings.pop(TUNED, None),
        tunings=tunings or None,
        twins=choose_twin(folder),
        outcomes=_class_bins(folder, data) if has_class_bins(student) else None,
    )
    for target in targets:
        key, summary = evaluation_key(recipe, target), describe_target(target, student)
        result = _with_metrics(result, folder, key=key, target=summary)
    if folder.last_result is not None:
        result = _with_targets_of(result, folder.last_result)
    for device in device_results(folder):
        if device.target is not None and device.key not in result.targets:
            known = [key for member in folder.members for key in folder.evaluations(*member)]
            maps = device.key.partition("@")[0].partition("#")[0]
            result = with_measured(
                result,
                folder,
                key=device.key,
                target=device.target,
                maps=maps if device.key + SUFFIX in known else None,
            )
        result = replace(result, trained_on=device.trained_on or result.trained_on)
    return replace(result, comparisons=compare_arms(result, recipe.arm_table))


def with_target(result: Result, folder: RunFolder, *, key: str, target: TargetSummary) -> Result:
    """Return a result with the figures that the folder has under a key.

    Args:
        result: Of the same run.
        folder: The run.
        key: Of the figures in evaluations.json.
        target: What the target is; where it lists seeds, only those were evaluated.
    """
    result = _with_metrics(result, folder, key=key, target=target)
    return replace(result, comparisons=compare_arms(result, folder.recipe.arm_table))


def with_measured(
    result: Result, folder: RunFolder, *, key: str, target: TargetSummary, maps: str | None
) -> Result:
    """Return a result with the figures under a key, and with those that maps have corrected.

    Args:
        result: Of the same run.
        folder: The run.
        key: Of the figures as they were measured.
        target: What the target is.
        maps: Name of the target whose maps were applied; None = none were.
    """
    result = with_target(result, folder, key=key, target=target)
    seeds = () if maps is None else recalibrated_seeds(folder, maps)
    if target.seeds is not None:
        seeds = tuple(seed for seed in seeds if seed in target.seeds)
    if maps is None or not seeds:
        return result
    corrected = replace(
        target,
        seeds=target.seeds if set(seeds) == set(result.seeds) else seeds,
        recalibration=summarize_recalibrations(folder, maps, seeds=seeds),
    )
    return with_target(result, folder, key=key + SUFFIX, target=corrected)


def without_targets(result: Result, keys: Collection[str]) -> Result:
    """Return a result without the figures under some keys; its comparisons are left as they are."""

    def kept(by_target: Mapping[str, V]) -> dict[str, V]:
        return {key: value for key, value in by_target.items() if key not in keys}

    return replace(
        _with_gains(result, {name: kept(result.gains(name)) for name in COMPARISONS}),
        targets=kept(result.targets),
        arms={arm: kept(metrics) for arm, metrics in result.arms.items()},
    )


def student_arm(recipe: Recipe) -> str:
    """Return the first arm with the recipe's own student, which stands for the run's circuit."""
    return next(iter(_with_own_student(recipe)), recipe.arms[0])


def _with_own_student(recipe: Recipe) -> list[str]:
    return [arm for arm in recipe.arms if recipe.student_of(arm) == recipe.student]


def describe_teachers(teachers_by_seed: TeachersBySeed, data: Data) -> TeacherSummary:
    """Return what the teacher is, with its accuracy and confusion on all test images.

    Where each seed has its own: the mean accuracy, the accuracies, and all confusions summed.
    """
    teachers = teachers_by_seed.teachers
    if teachers[0].kind == "logits":
        return _describe_soft_labels(teachers[0], data)
    choices = torch.cat([teacher.logits(data.test.images).argmax(dim=1) for teacher in teachers])
    labels = data.test.labels.repeat(len(teachers))
    accuracies = tuple(teacher.accuracy for teacher in teachers)
    members = [[member.accuracy for member in teacher.members] for teacher in teachers]
    return TeacherSummary(
        kind=teachers[0].kind,
        accuracy=math.fsum(accuracies) / len(accuracies),
        accuracies=accuracies if len(teachers) > 1 else None,
        parameters=teachers[0].parameters,
        members=tuple(map(fmean, zip(*members, strict=True))) or None,
        confusion=confusion_counts(choices, labels, num_classes=data.num_classes),
    )


def _describe_soft_labels(teacher: Teacher, data: Data) -> TeacherSummary:
    """Return what is known of soft labels: of the test images only where they came with them."""
    right = teacher.logits(data.pool.images).argmax(dim=1) == data.pool.labels
    summary = TeacherSummary(
        kind=teacher.kind, accuracy=None, train_accuracy=float(right.double().mean())
    )
    if not teacher.tested:
        return summary
    choices = teacher.logits(data.test.images).argmax(dim=1)
    confusion = confusion_counts(choices, data.test.labels, num_classes=data.num_classes)
    return replace(summary, accuracy=teacher.accuracy, confusion=confusion)


def describe_student(student: Student) -> StudentSummary:
    """Return the size of a student: parameters, and of a circuit qubits, weights, gates, depth."""
    parameters = student.num_parameters
    if isinstance(student, QuanvolutionalStudent):
        of_filters = sum(parameter.numel() for parameter in student.filters.parameters())
        return StudentSummary(parameters=parameters, filter_parameters=of_filters)
    if not isinstance(student, CircuitStudent):
        return StudentSummary(parameters=parameters)
    return StudentSummary(
        qubits=student.qubits,
        weights=len(student.weights),
        parameters=parameters,
        two_qubit_gates=student.circuit.num_nonlocal_gates(),
        depth=student.circuit.depth(),
    )


def failures(folder: RunFolder, arm: str, *, num_classes: int) -> dict[str, str]:
    """Return the seeds of an arm whose students were not trained, each with the reason.

    Raises:
        CheckpointError: A student's metrics are not there.
    """
    reasons: dict[str, str] = {}
    chance = 1 / num_classes
    threshold = chance + FAILED_SHARE * (1 - chance)
    for seed in folder.recipe.member_seeds:
        history = folder.metrics(arm, seed)
        if not history:
            member = folder.member(arm, seed)
            raise CheckpointError(
                f"{member} has lost its metrics.jsonl; delete this folder and continue the run "
                f"with --resume to write it again"
            )
        chosen = validation_accuracy(folder, arm, seed)
        if not math.isfinite(history[-1].loss):
            reasons[str(seed)] = "the loss is not finite"
        elif chosen <= threshold:
            reasons[str(seed)] = (
                f"validation accuracy {chosen:.3f} is not above {threshold:.3f} "
                f"(chance is {chance:.3f})"
            )
    return reasons


def _with_metrics(result: Result, folder: RunFolder, *, key: str, target: TargetSummary) -> Result:
    """Return a result with a target's metrics and gains, its comparisons as they were."""
    seeds = result.seeds if target.seeds is None else target.seeds
    evaluations = (folder.evaluations(arm, seed)[key] for arm in result.arms for seed in seeds)
    result = replace(
        result,
        targets={**result.targets, key: with_simulators(target, evaluations)},
        arms={
            arm: {**metrics, key: _read_metrics(folder, arm, key, all_seeds=result.seeds, of=seeds)}
            for arm, metrics in result.arms.items()
        },
    )
    gains = {name: dict(result.gains(name)) for name in COMPARISONS}
    for name, (treatment, baseline) in COMPARISONS.items():
        if {treatment, baseline} <= set(result.arms):
            gains[name][key] = _gain(result, key, treatment=treatment, baseline=baseline)
    return _with_gains(result, gains)


def _read_metrics(
    folder: RunFolder, arm: str, key: str, *, all_seeds: Sequence[int], of: Sequence[int]
) -> Metrics:
    members = [folder.evaluations(arm, seed)[key] if seed in of else None for seed in all_seeds]
    columns = {
        item.name: tuple(
            None if member is None else _finite(getattr(member, item.name)) for member in members
        )
        for item in fields(Metrics)
    }
    return Metrics(**columns)


def _finite(value: Any) -> Any:
    """Return None for what JSON does not have, so that a result equals what is read back."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _gain(result: Result, target: str, *, treatment: str, baseline: str) -> Gain:
    kept = result.kept_rows(treatment, baseline, target=target)
    evaluated = result.kept_rows(target=target)
    return paired_gain(
        result.accuracies(treatment, target, kept),
        result.accuracies(baseline, target, kept),
        left_out=[str(result.seeds[row]) for row in evaluated if row not in kept],
    )


def _with_gains(result: Result, gains: Mapping[str, Mapping[str, Gain]]) -> Result:
    return replace(
        result,
        gain=gains["gain"],
        gain_over_twin=gains["gain_over_twin"],
        gain_over_full=gains["gain_over_full"],
        gain_of_noise=gains["gain_of_noise"],
    )


def _with_targets_of(result: Result, earlier: Result) -> Result:
    """Return a result with the figures on targets that an earlier one has beside.

    Seeds that the run has got since then were not evaluated there.
    """
    grown = earlier.seeds != result.seeds
    added = {
        key: replace(target, seeds=target.seeds or earlier.seeds) if grown else target
        for key, target in earlier.targets.items()
        if key not in result.targets
    }
    gains = {
        name: {
            **result.gains(name),
            **{key: gain for key, gain in earlier.gains(name).items() if key in added},
        }
        for name in COMPARISONS
    }
    return replace(
        _with_gains(result, gains),
        trained_on=earlier.trained_on,
        targets={**result.targets, **added},
        arms={
            arm: {
                **metrics,
                **{key: _at_seeds(result.seeds, earlier.arms[arm][key], earlier) for key in added},
            }
            for arm, metrics in result.arms.items()
        },
    )


def _at_seeds(seeds: Sequence[int], metrics: Metrics, earlier: Result) -> Metrics:
    """Return an earlier result's metrics with an entry for each of the seeds."""
    rows = [earlier.seeds.index(seed) if seed in earlier.seeds else None for seed in seeds]
    columns = {item.name: getattr(metrics, item.name) for item in fields(Metrics)}
    return Metrics(
        **{
            name: tuple(None if row is None else column[row] for row in rows)
            for name, column in columns.items()
        }
    )


def _class_bins(folder: RunFolder, data: Data) -> ClassBins:
    """Return what the outcomes of the first seed's circuits stand for, on the test points."""
    recipe, seed = folder.recipe, folder.recipe.member_seeds[0]
    arms = _with_own_student(recipe)
    before = new_student(recipe, data, arm=arms[0], seed=seed)
    trained: dict[str, Student] = {arm: load_student(folder.member(arm, seed)) for arm in arms}
    bins, distributions = summarize_class_bins(before, trained, data.test)
    return ClassBins(seed=seed, bins=bins, distributions=distributions)


def _training_cost(folder: RunFolder) -> dict[str, TrainingCost]:
    """Return what training from shots has cost each population."""
    totals: dict[str, TrainingCost] = {}
    for task in training_tasks(folder.recipe):
        checkpoint = folder.checkpoint(task.name)
        cost = load_tensors(checkpoint)[1].get("cost") if checkpoint.exists() else None
        if cost is not None:
            total = totals.get(task.population, TrainingCost())
            parts = json.loads(cost)
            totals[task.population] = TrainingCost(
                **{
                    item.name: getattr(total, item.name) + int(parts.get(item.name, 0))
                    for item in fields(TrainingCost)
                }
            )
    return totals
