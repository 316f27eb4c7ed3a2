"""A submission's students on its device: unlabelled and test images in the same jobs."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qkd_qiskit.errors import BudgetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import (
    CircuitGroup,
    MemberKey,
    chunks,
    evaluation_calls,
    group_students,
    images_per_job,
)
from qkd_qiskit.experiments.submission.students import load_submitted
from qkd_qiskit.experiments.submission.submission import Submission
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.ibm.allowance import Allowance
from qkd_qiskit.targets.ibm.cost_estimate import estimate
from qkd_qiskit.targets.ibm.job_plan import executed_shots
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.targets.ibm.usage_model import device_timing, seconds_per_execution

logger = logging.getLogger(__name__)


def evaluate_on_device(
    folder: RunFolder,
    submission: Submission,
    runner: Runner,
    target: RuntimeTarget,
    *,
    left: Allowance | None = None,
    callback: Callback,
) -> CompiledCircuit:
    """Measure all students, write their figures into the run, and return the first circuit.

    Args:
        folder: The run.
        submission: What is requested.
        runner: Where jobs are sent.
        target: Where circuits are compiled.
        left: What the instance has left, to warn where it is too little; None = not known.
        callback: Receives the progress.
    """
    callback.stage("data")
    evaluation_set = load_submitted(folder, seeds=submission.seeds, limit=submission.limit)
    callback.stage(f"compiling for {submission.backend}")
    groups = group_students(evaluation_set.quantum, target)
    options = runner.options
    if not submission.images_per_job:
        submission = replace(
            submission,
            images_per_job=images_per_job(
                groups,
                shots=submission.shots,
                limits=runner.limits,
                twirled=options.twirled,
                timing=device_timing(target.backend),
            ),
        )
    submission.save(folder)
    callback.stage(submission.name)
    unlabelled = evaluation_set.unlabelled(submission.recalibrate)
    if left is not None:
        measured = len(unlabelled) + len(evaluation_set.split)
        _compare(left, groups, submission, target, images=measured)
    logits = measure(
        runner,
        groups,
        torch.cat([unlabelled, evaluation_set.split.images]),
        submission=submission,
        seed=folder.recipe.seed,
        callback=callback,
    )
    shots = executed_shots(submission.shots, twirled=options.twirled)
    if submission.recalibrate:
        timing = device_timing(target.backend)
        for group in groups:
            once = group.students[0].runs_per_image * sum(
                seconds_per_execution(it.duration_s or 0.0, timing) for it in group.compiled
            )
            evaluation_set.recalibrate(
                {member: logits[member][: len(unlabelled)] for member in group.members},
                target=submission.maps,
                shots=shots,
                calibration_date=target.calibration_date,
                qpu_seconds=len(unlabelled) * shots * once,
            )
    tested = {member: of_member[len(unlabelled) :] for member, of_member in logits.items()}
    evaluation_set.keep_all(tested, key=submission.name, shots=shots, maps=submission.maps)
    return groups[0].compiled[0]


def _compare(
    left: Allowance,
    groups: Sequence[CircuitGroup],
    submission: Submission,
    target: RuntimeTarget,
    *,
    images: int,
) -> None:
    """Warn where an evaluation needs more than the instance has left."""
    calls = evaluation_calls(groups, images=images, per_job=submission.images_per_job)
    needed = estimate(
        submission.name,
        calls,
        shots=submission.shots,
        limits=target.runner.limits,
        twirled=target.runner.options.twirled,
        timing=device_timing(target.backend),
    ).seconds
    if left.remaining_s is not None and needed > left.remaining_s:
        logger.warning("%s", left.describe(needed))


def measure(
    runner: Runner,
    groups: Sequence[CircuitGroup],
    images: Tensor,
    *,
    submission: Submission,
    seed: int,
    callback: Callback,
) -> dict[MemberKey, Tensor]:
    """Return logits `(images, num_classes)` of every student: all jobs are sent, then collected.

    Args:
        runner: Where jobs are sent.
        groups: The students.
        images: What is measured.
        submission: Shots, and images of a job.
        seed: Seed of the shots, where a simulator runs the jobs.
        callback: Receives the images that are measured.
    """
    cut = chunks(len(images), per_job=submission.images_per_job)
    parts = {key: images[rows] for key, rows in cut}
    logits: dict[str, dict[MemberKey, Tensor]] = {}

    def submit(key: str) -> None:
        pubs = [pub for group in groups for pub in group.pubs(parts[key], shots=submission.shots)]
        runner.submit(key, pubs, seed=derive_seed(seed, submission.name, key) >> 33)

    def collect(keys: Iterable[str]) -> None:
        for key in [key for key in keys if key not in logits]:
            logits[key] = {}
            counts = iter(runner.collect(key))
            for group in groups:
                own = [next(counts) for _ in range(group.num_pubs)]
                logits[key] |= group.logits(own, parts[key])
            callback.evaluated(len(parts[key]), total=len(images))

    sent: list[str] = []
    for key in parts:
        try:
            submit(key)
        except BudgetError:
            # What is on its way may turn out cheaper than expected, and is not lost either way.
            collect(sent)
            submit(key)
        sent.append(key)
    collect(sent)
    members = [member for group in groups for member in group.members]
    return {member: torch.cat([logits[key][member] for key in parts]) for member in members}
