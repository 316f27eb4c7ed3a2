"""Unlabelled images on a target: measured, and maps fitted to what came of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import logits_on, target_logits, target_outcomes
from qkd_qiskit.experiments.recalibration import (
    KINDS,
    USUAL_IMAGES,
    Recalibration,
    fit_recalibration,
    keep_recalibration,
    reference_student,
)
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe.seeds import derive_seed, generator
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.usage_model import JOB_OVERHEAD_S, quantum_seconds
from qkd_qiskit.targets.recalibration import FEWEST, Kind


def unlabelled_images(data: Data, *, count: int, seed: int) -> Tensor:
    """Return images of the training pool that students are recalibrated with, without labels.

    Arguments and errors are those of `unlabelled_rows`.
    """
    return data.pool.images[unlabelled_rows(data, count=count, seed=seed)]


def unlabelled_rows(data: Data, *, count: int, seed: int) -> Tensor:
    """Return where in the training pool these images are `(count,)`.

    The same seed gives the same images, and of a smaller number the first of them.

    Raises:
        InputError: There are not so many.
    """
    if not FEWEST <= count <= len(data.pool):
        raise InputError(
            f"{count} unlabelled images are not accepted; give {FEWEST} to {len(data.pool):,}, "
            f"which the training pool has: {USUAL_IMAGES} are usual"
        )
    order = torch.randperm(len(data.pool), generator=generator(seed, "recalibration images"))
    return order[:count]


def recalibrate_members(
    folder: RunFolder,
    target: Target,
    members: Sequence[tuple[str, int]],
    *,
    data: Data,
    images: int = USUAL_IMAGES,
    kind: Kind = "affine",
    shots: int | None = None,
    on_batch: Callable[[int], None] | None = None,
) -> None:
    """Measure unlabelled images with each student that has a circuit, and keep the maps.

    Args:
        folder: The run.
        target: Where the images are measured.
        members: Arm and seed of each student.
        data: Its pool has the images.
        images: How many.
        kind: Kind of the map.
        shots: Shots per image; default: the target's.
        on_batch: Called with the number of images just measured.

    Raises:
        InputError: The target has nothing to correct, no student has a circuit, or the number of
            images or the kind is not accepted.
        TargetError: The target cannot run the circuit.
    """
    chosen = unlabelled_images(data, count=images, seed=folder.recipe.seed)
    if target.ideal:
        raise InputError(
            f"--target: {target.name} has neither noise nor shots, so there is nothing to correct; "
            "give aer, a device such as fake_torino, or a snapshot's file"
        )
    if kind not in KINDS:
        raise InputError(f"--kind: {kind!r} is not accepted; give {', '.join(KINDS)}")
    measured = 0
    for arm, seed in members:
        student = load_student(folder.member(arm, seed))
        if student.circuit is None:
            continue
        logits, outcomes = measured_outputs(
            student,
            chosen,
            target=target,
            shots=shots,
            seed=derive_seed(folder.recipe.seed, "recalibrate", seed),
            stream=arm,
            outcomes=kind == "head",
            on_batch=on_batch,
        )
        taken = shots_taken(target, shots)
        recalibration = fit_recalibration(
            student,
            chosen,
            reference=reference_student(folder, arm, seed),
            logits=logits,
            outcomes=outcomes,
            target=target.name,
            kind=kind,
            shots=taken,
            calibration_date=target.calibration_date,
            qpu_seconds=_seconds(student, target, executions=images * (taken or 0)),
        )
        keep_recalibration(folder, (arm, seed), recalibration)
        measured += 1
    if not measured:
        raise InputError(f"{folder.path}: no student has a circuit, so none can be recalibrated")


def measured_and_corrected(
    student: Student,
    images: Tensor,
    *,
    target: Target,
    shots: int | None,
    seed: int,
    stream: str,
    recalibration: Recalibration | None,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Tensor | None, Tensor | None, int | None]:
    """Return logits as measured and as corrected `(images, num_classes)`, and the shots per image.

    Arguments and what None means are those of `evaluation.logits_on`; without a map both are alike.
    """
    if recalibration is None or recalibration.kind != "head":
        logits, taken = logits_on(
            student,
            images,
            target=target,
            shots=shots,
            seed=seed,
            stream=stream,
            on_batch=on_batch,
        )
        if recalibration is None or logits is None:
            return logits, logits, taken
        return logits, recalibration.corrected(student, logits), taken
    logits, outcomes = measured_outputs(
        student,
        images,
        target=target,
        shots=shots,
        seed=seed,
        stream=stream,
        outcomes=True,
        on_batch=on_batch,
    )
    taken = shots_taken(target, shots)
    return logits, recalibration.corrected(student, logits, outcomes=outcomes), taken


def shots_taken(target: Target, shots: int | None) -> int | None:
    """Return the shots per image: those asked for or the target's; None where none are taken."""
    return (target.shots if shots is None else shots) if target.sampled else None


def measured_outputs(
    student: Student,
    images: Tensor,
    *,
    target: Target,
    shots: int | None,
    seed: int,
    stream: str,
    outcomes: bool,
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Return measured logits `(images, num_classes)`, and outcome probabilities where asked for.

    Raises:
        InputError: Outcomes are asked for of a student that has many circuits.
    """
    if not outcomes:
        return target_logits(
            student,
            images,
            target=target,
            shots=shots,
            seed=seed,
            stream=stream,
            on_batch=on_batch,
        ), None
    if not isinstance(student, CircuitStudent):
        name = "quanvolutional" if isinstance(student, QuanvolutionalStudent) else "classical"
        raise InputError(
            f"a {name} student has no outcomes of one circuit to fit a head to; give --kind affine"
        )
    found = target_outcomes(
        student,
        images,
        target=target,
        shots=shots,
        seed=seed,
        stream=stream,
        on_batch=on_batch,
    )
    with torch.no_grad():
        return student.decode(found, student.features(images)), found.reshape(len(images), -1)


def _seconds(student: Student, target: Target, *, executions: int) -> float | None:
    """Return the QPU seconds of one job with so many executions of each of its circuits."""
    if not executions or not isinstance(student, CircuitStudent):
        return None
    durations = [target.compile(circuit).duration_s for circuit in student.circuits]
    known = [duration for duration in durations if duration is not None]
    if len(known) < len(durations):
        return None
    runs = executions * student.runs_per_image
    each = [
        quantum_seconds(executions=runs, circuit_duration_s=duration, jobs=0) for duration in known
    ]
    return JOB_OVERHEAD_S + sum(each)
