"""result.json: what a run found, and whether distillation helped."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any

import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.evaluation import confusion_counts
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import paired_gain
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.recipe import GENERATED, Recipe
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import CompiledCircuit, Target

BASELINE, TREATMENT = "label_only", "distilled"
TWIN, FULL_TWIN, NOISE_AWARE = "classical_twin", "classical_full", "distilled_noisy"
COMPARISONS = {
    "gain": (TREATMENT, BASELINE),
    "gain_over_twin": (TREATMENT, TWIN),
    "gain_over_full": (TREATMENT, FULL_TWIN),
    "gain_of_noise": (NOISE_AWARE, TREATMENT),
}
# A student that on validation comes no further than this from chance (0) to perfect (1) has not
# been trained: for ten classes an accuracy of 0.15, for two of 0.53.
FAILED_SHARE = 1 / 18
FIGURES = (
    "accuracy",
    "exact_accuracy",
    "agreement",
    "divergence",
    "calibration_error",
    "images",
    "shots",
    "confusion",
)
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
) -> dict[str, Any]:
    """The content of result.json, from what the run folder holds.

    Accuracies are fractions, gains points; lists have one entry for each seed, in the order of
    `seeds`. A pair of which one student failed to train is left out of the gain and counted.
    """
    recipe = folder.recipe
    generated = recipe.data.name in GENERATED
    result: dict[str, Any] = {
        "classes": list(data.class_names),
        "sample": "point" if generated or data.image_shape[:2] == (1, 1) else "image",
        "teacher": describe_teachers(teachers_by_seed, data),
        "student": describe_student(student),
        "seeds": list(recipe.member_seeds),
        "arms": {arm: {} for arm in recipe.arms},
        "failed": {arm: failures(folder, arm, num_classes=data.num_classes) for arm in recipe.arms},
        **{name: {} for name in COMPARISONS},
        "targets": {},
    }
    for target in targets:
        add_target(result, folder, target=target, student=student)
    result["timing"] = dict(timing)
    result["versions"] = {package: version(package) for package in PACKAGES}
    result["command"] = command
    return result


def add_target(
    result: dict[str, Any], folder: RunFolder, *, target: Target, student: Student
) -> None:
    """Put the figures of one target into a result: arms, gains and what the target is."""
    described = _describe_target(target, student)
    add_figures(result, folder, key=evaluation_key(folder.recipe, target), described=described)


def add_figures(
    result: dict[str, Any], folder: RunFolder, *, key: str, described: Mapping[str, Any]
) -> None:
    """Put the figures that the folder has under a key into a result, and what the target is.

    Where the target's description lists `seeds`, only those were evaluated; the others are None.
    """
    result["targets"][key] = dict(described)
    seeds = described.get("seeds", result["seeds"])
    for arm, figures in result["arms"].items():
        members = [
            folder.evaluations(arm, seed)[key] if seed in seeds else dict.fromkeys(FIGURES)
            for seed in result["seeds"]
        ]
        figures[key] = {name: [member[name] for member in members] for name in FIGURES}
    for name, (treatment, baseline) in COMPARISONS.items():
        if {treatment, baseline} <= set(result["arms"]):
            result[name][key] = _gain(result, key, treatment=treatment, baseline=baseline)


def keep_other_targets(result: dict[str, Any], earlier: Mapping[str, Any]) -> None:
    """Put the figures of targets that were added later, by an evaluation, into a new result."""
    if "trained_on" in earlier:
        result["trained_on"] = earlier["trained_on"]
    for key in [key for key in earlier["targets"] if key not in result["targets"]]:
        for name in ("targets", *COMPARISONS):
            if key in earlier.get(name, {}):
                result[name][key] = earlier[name][key]
        for arm, figures in earlier["arms"].items():
            result["arms"][arm][key] = figures[key]


def evaluation_key(recipe: Recipe, target: Target) -> str:
    """What a target's figures are filed under: its name, and its shots where not the recipe's."""
    own = not target.sampled or target.shots == recipe.shots
    return target.name if own else f"{target.name}@{target.shots}"


def describe_teachers(teachers_by_seed: TeachersBySeed, data: Data) -> dict[str, Any]:
    """What the teacher is, and its accuracy and confusion (row = label) on all test images.

    Where each seed has its own: the mean accuracy, the accuracies, and all confusions summed.
    """
    teachers = teachers_by_seed.teachers
    choices = torch.cat([one.logits(data.test.images).argmax(dim=1) for one in teachers])
    labels = data.test.labels.repeat(len(teachers))
    accuracies = [one.accuracy for one in teachers]
    each = {"accuracies": accuracies} if len(teachers) > 1 else {}
    return {
        "kind": teachers[0].kind,
        "accuracy": math.fsum(accuracies) / len(accuracies),
        **each,
        "parameters": teachers[0].parameters,
        "confusion": confusion_counts(choices, labels, num_classes=data.num_classes),
    }


def describe_student(student: Student) -> dict[str, Any]:
    """Size of a student: parameters, and for a circuit qubits, weights, gates and depth."""
    if isinstance(student, QuanvolutionalStudent):
        of_filters = sum(parameter.numel() for parameter in student.filters.parameters())
        return {"parameters": student.num_parameters, "filter_parameters": of_filters}
    if not isinstance(student, QuantumStudent):
        return {"parameters": student.num_parameters}
    circuit = student.circuit
    return {
        "qubits": student.qubits,
        "weights": len(student.weights),
        "parameters": student.num_parameters,
        "two_qubit_gates": circuit.num_nonlocal_gates(),
        "depth": circuit.depth(),
    }


def failures(folder: RunFolder, arm: str, *, num_classes: int) -> dict[str, str]:
    """Seeds of an arm whose students were not trained, each with the reason.

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
        accuracies = [epoch.validation_accuracy for epoch in history]
        last = folder.recipe.distill.selection == "last"
        chosen = accuracies[-1] if last else max(accuracies)
        if not math.isfinite(history[-1].loss):
            reasons[str(seed)] = "the loss is not finite"
        elif chosen <= threshold:
            reasons[str(seed)] = (
                f"validation accuracy {chosen:.3f} is not above {threshold:.3f} "
                f"(chance is {chance:.3f})"
            )
    return reasons


def kept_rows(result: Mapping[str, Any], *arms: str, target: str | None = None) -> list[int]:
    """Positions in the result's lists of the seeds at which none of the arms failed.

    Args:
        result: What result.json holds.
        arms: Which arms.
        target: Only seeds that were evaluated there; default: all.
    """
    failed = {seed for arm in arms for seed in result["failed"].get(arm, {})}
    described = {} if target is None else result["targets"][target]
    evaluated = described.get("seeds", result["seeds"])
    return [
        row
        for row, seed in enumerate(result["seeds"])
        if str(seed) not in failed and seed in evaluated
    ]


def num_images(result: Mapping[str, Any], target: str) -> int:
    """Test images of a target."""
    figures = next(iter(result["arms"].values()))[target]
    return next(int(images) for images in figures["images"] if images is not None)


def _gain(
    result: Mapping[str, Any], target: str, *, treatment: str, baseline: str
) -> dict[str, Any]:
    kept = kept_rows(result, treatment, baseline, target=target)
    treated, compared = (
        [result["arms"][arm][target]["accuracy"][index] for index in kept]
        for arm in (treatment, baseline)
    )
    left_out = [
        str(result["seeds"][row]) for row in kept_rows(result, target=target) if row not in kept
    ]
    return paired_gain(treated, compared) | {"left_out": left_out}


def _describe_target(target: Target, student: Student) -> dict[str, Any]:
    described: dict[str, Any] = {"shots": target.shots if target.sampled else None}
    if target.calibration_date is not None:
        described["calibration_date"] = target.calibration_date
    if target.options:
        described["options"] = target.options
    if not target.ideal and student.circuit is not None:
        described["circuit"] = describe_circuit(target.compile(student.circuit))
    return described


def describe_circuit(compiled: CompiledCircuit) -> dict[str, Any]:
    """What a circuit costs where it was compiled for."""
    return {
        "two_qubit_gates": compiled.two_qubit_gates,
        "depth": compiled.depth,
        "duration_s": compiled.duration_s,
        "fidelity": compiled.fidelity,
        "layout": list(compiled.layout),
    }
