"""Which evaluation on a device gives the narrowest interval of the gain for its QPU seconds.

The device's snapshot gives exact noisy probabilities of every test image, and with them how often
each student is right with so many shots. From these come the variance of the gain
(`gain_variance`), and how far few shots move the gain itself; the cost is that of the dry run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import subset
from qkd_qiskit.experiments.gain_variance import GainVariance, gain_variance
from qkd_qiskit.experiments.recalibration import USUAL_IMAGES
from qkd_qiskit.experiments.recalibration_fit import unlabelled_images
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.shot_accuracy import accuracies, noisy_student
from qkd_qiskit.experiments.submission.batching import (
    CircuitGroup,
    evaluation_calls,
    group_students,
    images_per_job,
)
from qkd_qiskit.experiments.submission.device import allowance_of
from qkd_qiskit.experiments.submission.dry_run import dry_target, find_device
from qkd_qiskit.experiments.submission.request import Request
from qkd_qiskit.experiments.submission.students import check_seeds, load_submitted
from qkd_qiskit.recipe.arms import BASELINE, TREATMENT
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.allowance import Allowance
from qkd_qiskit.targets.ibm.cost_estimate import Estimate, estimate
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.targets.ibm.usage_model import device_timing

SHOTS = (32, 64, 128, 256, 512, 1024, 2048, 4096)
FEWEST_IMAGES = 20
MOST_SEEDS = 10


@dataclass(frozen=True, kw_only=True)
class PlannedEvaluation:
    """One way to spend QPU seconds.

    Attributes:
        seeds: Seeds that are measured, the first of the run's.
        images: Test images.
        shots: Shots per circuit.
        recalibrate: Unlabelled images measured beside them.
        gain: What is expected of the gain, in points.
        half_width: Half of its expected 95 % interval, in points.
        bias: How far the shots move the gain from that with the recipe's shots, in points.
        jobs: Jobs that are sent.
        qpu_seconds: By the dry run's estimate.
    """

    seeds: int
    images: int
    shots: int
    recalibrate: int
    gain: float
    half_width: float
    bias: float
    jobs: int
    qpu_seconds: float

    @property
    def error(self) -> float:
        """Half of the interval, and how far it is moved: what plans are compared by, in points."""
        return self.half_width + abs(self.bias)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What fits into QPU seconds.

    Attributes:
        run: Folder of the run.
        backend: The device that it is for.
        target: The noise that it was calculated with.
        note: What has to be known of the device; "" for the real one.
        qpu_seconds: What may be used.
        seeds: Seeds that the run has.
        pool: Test images that there are.
        usual: What a submission without options measures.
        best: The best plan of each number of seeds, the best first.
        variance: Where the scatter of the gain comes from, with the recipe's shots.
        allowance: What the instance has left.
    """

    run: str
    backend: str
    target: str
    note: str
    qpu_seconds: float
    seeds: tuple[int, ...]
    pool: int
    usual: PlannedEvaluation
    best: tuple[PlannedEvaluation, ...]
    variance: GainVariance
    allowance: Allowance

    @property
    def trained(self) -> PlannedEvaluation | None:
        """The best plan with the seeds that the run has; None where none fits."""
        return next((plan for plan in self.best if plan.seeds <= len(self.seeds)), None)


def plan_evaluation(
    folder: RunFolder,
    request: Request,
    *,
    qpu_seconds: float,
    target: str | None = None,
    most_seeds: int | None = None,
    callback: Callback | None = None,
) -> Plan:
    """Return the evaluations on a device that tell the gain best for so many QPU seconds.

    Args:
        folder: A finished run with the arms label_only and distilled, two seeds or more.
        request: The device; options and seeds count, shots, images and limits are what is planned.
        qpu_seconds: What all jobs together may use.
        target: Whose noise is calculated with; default: the recipe's device, or the snapshot.
        most_seeds: Seeds that the run could be extended to; default: `MOST_SEEDS` or its own.
        callback: Receives the progress.

    Raises:
        InputError: The run has no such pairs, or nothing fits.
        TargetError: The target is not known, or cannot give exact probabilities.
    """
    callback = callback or Callback()
    folder.ended()
    recipe, seeds = folder.recipe, check_seeds(folder, request.seeds)
    missing = [arm for arm in (BASELINE, TREATMENT) if arm not in recipe.arms]
    if missing or len(seeds) < 2:
        why = f"no arm {missing[0]}" if missing else "one seed alone"
        raise InputError(
            f"{folder.path} has {why}: an interval of the gain needs label_only and distilled of "
            "two seeds or more (qkd runs extend)"
        )
    options = request.runtime(recipe.runtime, mode=recipe.runtime.mode)
    callback.stage(f"connecting to {request.backend}")
    connection, note = find_device(request.backend, options)
    allowance = allowance_of(connection)
    callback.stage("exact noisy probabilities")
    chances = _Chances(folder, seeds, target=target or _noise_of(folder, connection.name))
    with dry_target(connection, shots=recipe.shots, seed=recipe.seed) as device:
        callback.stage(f"compiling for {connection.name}")
        costs = _Costs(device, load_submitted(folder, seeds=seeds, limit=1).quantum, len(seeds))
        callback.stage("plans")
        reference = {share: chances.variance(recipe.shots, share) for share in chances.shares}

        def planned(number: int, images: int, shots: int, share: int) -> PlannedEvaluation:
            variance = chances.variance(shots, share)
            cost = costs.of(number, images + share, shots)
            return PlannedEvaluation(
                seeds=number,
                images=images,
                shots=shots,
                recalibrate=share,
                gain=100 * variance.mean,
                half_width=100 * variance.half_width(seeds=number, images=images),
                bias=100 * (variance.mean - reference[share].mean),
                jobs=cost.jobs,
                qpu_seconds=cost.seconds,
            )

        best = []
        for number in range(2, max(most_seeds or MOST_SEEDS, len(seeds)) + 1):
            fitting = []
            for shots in sorted({*SHOTS, recipe.shots}):
                for share in chances.shares:
                    images = costs.most_images(
                        number, shots, share, pool=chances.pool, qpu_seconds=qpu_seconds
                    )
                    if images:
                        fitting.append(planned(number, images, shots, share))
            if fitting:
                best.append(min(fitting, key=lambda plan: (plan.error, plan.qpu_seconds)))
        usual = planned(len(seeds), min(recipe.test_limit, chances.pool), recipe.shots, 0)
    if not best:
        raise InputError(
            f"--qpu-seconds: {qpu_seconds:g} are too few for two seeds on {FEWEST_IMAGES} images; "
            f"an evaluation without options takes {usual.qpu_seconds:,.0f}"
        )
    return Plan(
        run=str(folder.path),
        backend=request.backend,
        target=chances.target,
        note=note,
        qpu_seconds=qpu_seconds,
        seeds=seeds,
        pool=chances.pool,
        usual=usual,
        best=tuple(sorted(best, key=lambda plan: (plan.error, plan.qpu_seconds))),
        variance=reference[0],
        allowance=allowance,
    )


def submit_words(plan: Plan, chosen: PlannedEvaluation, *, extra: Sequence[str] = ()) -> list[str]:
    """Return the words of the command that does a plan with the seeds that the run has.

    Args:
        plan: All plans.
        chosen: One of them.
        extra: Words that follow, such as options of the device.
    """
    words = ["qkd", "submit", plan.run, "--backend", plan.backend]
    words += ["--limit", str(chosen.images), "--shots", str(chosen.shots)]
    if chosen.seeds < len(plan.seeds):
        words += ["--seeds", ",".join(map(str, plan.seeds[: chosen.seeds]))]
    if chosen.recalibrate:
        words += ["--recalibrate", str(chosen.recalibrate)]
    return [*words, *extra, "--max-qpu-seconds", str(math.ceil(plan.qpu_seconds))]


def _noise_of(folder: RunFolder, backend: str) -> str:
    """Return the target whose noise stands for a device."""
    return (
        folder.recipe.noise_target or f"fake_{backend.removeprefix('ibm_').removeprefix('fake_')}"
    )


class _Chances:
    """How often both arms are right, by shots and with or without recalibration."""

    def __init__(self, folder: RunFolder, seeds: Sequence[int], *, target: str) -> None:
        recipe = folder.recipe
        exact = target if ":exact" in target or target == "exact" else f"{target}:exact"
        noise, data = (
            Target.parse(exact, seed=recipe.seed),
            load_data(recipe.data, seed=recipe.seed),
        )
        self.target = target
        self.seed = recipe.seed
        students = dict(load_submitted(folder, seeds=seeds, limit=1).quantum)
        split, _ = subset(data.test, limit=len(data.test), seed=recipe.seed)
        share = USUAL_IMAGES if len(data.pool) >= USUAL_IMAGES and not noise.ideal else 0
        unlabelled = unlabelled_images(data, count=share, seed=recipe.seed) if share else None
        self.shares = (0, share) if share else (0,)
        self.pool = len(split)
        self._arms = [
            [
                noisy_student(students[arm, seed], split, target=noise, unlabelled=unlabelled)
                for seed in seeds
            ]
            for arm in (TREATMENT, BASELINE)
        ]
        self.variance = cache(self._variance)

    def _variance(self, shots: int, share: int) -> GainVariance:
        treated, baseline = (
            accuracies(arm, shots=shots, recalibrated=bool(share), seed=self.seed + number)
            for number, arm in enumerate(self._arms)
        )
        return gain_variance(treated, baseline)


class _Costs:
    """What evaluations cost, by the counts that are sent."""

    def __init__(
        self,
        device: RuntimeTarget,
        students: Sequence[tuple[tuple[str, int], CircuitStudent]],
        seeds: int,
    ) -> None:
        self.device, self.seeds = device, seeds
        self.groups = group_students(students, device)
        self._timing = device_timing(device.backend)

    def of(self, seeds: int, images: int, shots: int) -> Estimate:
        """Return what so many seeds on so many images take."""
        groups = [_resized(group, seeds, of=self.seeds) for group in self.groups]
        runner, twirled = self.device.runner, self.device.runner.options.twirled
        per_job = images_per_job(
            groups, shots=shots, limits=runner.limits, twirled=twirled, timing=self._timing
        )
        return estimate(
            "plan",
            evaluation_calls(groups, images=images, per_job=per_job),
            shots=shots,
            limits=runner.limits,
            twirled=twirled,
            timing=self._timing,
            session=runner.options.mode == "session",
        )

    def most_images(
        self, seeds: int, shots: int, share: int, *, pool: int, qpu_seconds: float
    ) -> int:
        """Return how many test images fit; 0 where they are too few."""
        fewest = min(FEWEST_IMAGES, pool)
        if self.of(seeds, fewest + share, shots).seconds > qpu_seconds:
            return 0
        low, high = fewest, pool
        while low < high:
            middle = (low + high + 1) // 2
            fits = self.of(seeds, middle + share, shots).seconds <= qpu_seconds
            low, high = (middle, high) if fits else (low, middle - 1)
        return low


def _resized(group: CircuitGroup, seeds: int, *, of: int) -> CircuitGroup:
    """Return a group as if the run had so many seeds, where it has `of`."""
    count = math.ceil(len(group.students) * seeds / of)
    chosen = [number % len(group.students) for number in range(count)]
    return replace(
        group,
        members=tuple(group.members[index] for index in chosen),
        students=tuple(group.students[index] for index in chosen),
    )
