"""What a submission would cost, beside what else could be done with the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.executors import sampled_executor
from qkd_qiskit.distillation.schedule import step_sizes
from qkd_qiskit.errors import NoAccountError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import (
    MemberKey,
    evaluation_calls,
    group_students,
    images_per_job,
)
from qkd_qiskit.experiments.submission.device import (
    allowance_of,
    has_sessions,
    open_device,
    service_limits,
)
from qkd_qiskit.experiments.submission.request import Request, Training, trained_arms, training_spec
from qkd_qiskit.experiments.submission.students import check_seeds, load_submitted
from qkd_qiskit.recipe import DistillSpec, Recipe, RuntimeSpec
from qkd_qiskit.recipe.arms import BASELINE, TREATMENT
from qkd_qiskit.recipe.training import FROM_DIRECTIONS
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets import list_targets
from qkd_qiskit.targets.ibm.allowance import Allowance
from qkd_qiskit.targets.ibm.connection import RuntimeConnection, connect
from qkd_qiskit.targets.ibm.cost_estimate import Call, Estimate, Load, estimate
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.service_limits import ServiceLimits
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.targets.ibm.usage_model import device_timing

USUAL_STEPS = 50
"""Steps of the trainings that are shown beside an evaluation."""
SUBSET = 10
"""One in so many weights is shifted in the alternative that shifts a random part of them."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What is planned, and the alternatives.

    Attributes:
        device: The device that the circuit was compiled for.
        note: What has to be known of that device; empty for the real one.
        calibration_date: ISO date of its calibration.
        qubits: Width of the circuit.
        two_qubit_gates: Gates on two or more qubits in one circuit.
        depth: Its depth as it runs.
        duration_s: Seconds from its first gate to the end of the measurement.
        members: Students.
        images: Test images of the evaluation.
        unlabelled: Training images that are measured beside them for the maps of a recalibration.
        chosen: What is planned.
        others: What could be done instead.
        limits: How many jobs may be created, and be on their way.
        allowance: What the instance has left of its QPU seconds.
        options: How circuits are run, in words, where that is not plain.
    """

    device: str
    note: str
    calibration_date: str | None
    qubits: int
    two_qubit_gates: int
    depth: int
    duration_s: float
    members: int
    images: int
    unlabelled: int
    chosen: Estimate
    others: tuple[Estimate, ...]
    limits: ServiceLimits
    allowance: Allowance
    options: str

    def as_dict(self, *, rate: float | None) -> dict[str, object]:
        """Return everything, with money at a rate per QPU second."""

        def priced(work: Estimate) -> dict[str, object]:
            return asdict(work) | {"money": work.money(rate)}

        return asdict(self) | {
            "chosen": priced(self.chosen),
            "others": [priced(other) for other in self.others],
            "rate": rate,
        }


def plan_dry_run(
    folder: RunFolder,
    request: Request,
    *,
    training: Training | None = None,
    callback: Callback | None = None,
) -> DryRun:
    """Return what a request would cost; nothing is sent and nothing is written.

    Args:
        folder: The run.
        request: What is wanted.
        training: How students would be trained there; None = they are evaluated only.
        callback: Receives the progress.

    Raises:
        InputError: As `submit_run`.
    """
    callback = callback or Callback()
    recipe = folder.recipe
    folder.ended()
    seeds = check_seeds(folder, request.seeds)
    usual = recipe.runtime.mode if training is None else "session"
    options = request.runtime(recipe.runtime, mode=usual)
    shots = request.shots or recipe.shots
    callback.stage("data")
    evaluation_set = load_submitted(folder, seeds=seeds, limit=request.limit or recipe.test_limit)
    student, images = evaluation_set.quantum[0][1], _images(recipe)
    can_be_trained = training is not None or {BASELINE, TREATMENT} & set(recipe.arms)
    arms = trained_arms(recipe) if can_be_trained else ()
    callback.stage(f"connecting to {request.backend}")
    connection, note = find_device(request.backend, options)
    if options.mode == "session" and not has_sessions(connection):
        options, note = replace(options, mode="batch"), "its plan has no sessions: one batch"
    with dry_target(connection, shots=shots, seed=recipe.seed) as target:
        callback.stage(f"compiling for {connection.name}")
        compiled, calibration_date = target.compile(student.circuits[0]), target.calibration_date
        counter = _Counter(target=target, shots=shots, options=options)
        unlabelled = len(evaluation_set.unlabelled(request.recalibrate))
        measured = len(evaluation_set.split) + unlabelled
        whole = counter.evaluation(evaluation_set.quantum, images=measured)
        trained = []
        for way in _ways(training, weights=len(student.weights)) if arms else ():
            spec = training_spec(recipe, way, backend=request.backend, images=images)
            own = replace(recipe, distill=spec)
            members = len(arms) * len(seeds)
            trained.append((way, counter.training(student, own, members=members, images=images)))
        chosen, others = whole, [work for way, work in trained if way != training]
        if training is not None:
            chosen = next(work for way, work in trained if way == training)
            others = [whole, *others]
            if training.evaluate:
                ends = [pair for pair in evaluation_set.quantum if pair[0][0] in arms]
                begun = [] if training.fresh else ends  # what they began from
                chosen += counter.evaluation([*ends, *begun], images=len(evaluation_set.split))
    return DryRun(
        device=connection.name,
        note=note,
        calibration_date=calibration_date,
        qubits=student.qubits,
        two_qubit_gates=compiled.two_qubit_gates,
        depth=compiled.depth,
        duration_s=compiled.duration_s or 0.0,
        members=len(evaluation_set.quantum),
        images=len(evaluation_set.split),
        unlabelled=unlabelled,
        chosen=chosen,
        others=tuple(others),
        limits=service_limits(connection),
        allowance=allowance_of(connection),
        options=options.describe(),
    )


@dataclass(frozen=True, kw_only=True)
class _Counter:
    """What everything is counted for.

    Attributes:
        target: The device; nothing is sent to it.
        shots: Shots per circuit.
        options: How jobs are submitted.
    """

    target: RuntimeTarget
    shots: int
    options: RuntimeSpec

    def evaluation(
        self, students: Sequence[tuple[MemberKey, CircuitStudent]], *, images: int
    ) -> Estimate:
        """Estimate the evaluation of students on so many test images."""
        groups = group_students(students, self.target)
        per_job = images_per_job(
            groups,
            shots=self.shots,
            limits=self.target.runner.limits,
            twirled=self.options.twirled,
            timing=device_timing(self.target.backend),
        )
        calls = evaluation_calls(groups, images=images, per_job=per_job)
        return self._estimate(f"evaluate {len(students)} students", calls)

    def training(
        self, student: CircuitStudent, recipe: Recipe, *, members: int, images: int
    ) -> Estimate:
        """Estimate the training of so many students of one shape, on so many images each."""
        executor = sampled_executor(student, recipe.distill, self.target, seed=recipe.seed)
        # Behind a trained reduction the inputs' angles are shifted too, sample by sample.
        inputs = student.trains_inputs
        compiled = self.target.compile(student.circuits[0])
        load = Load(
            rows=0,
            duration_s=compiled.duration_s or 0.0,
            two_qubit_gates=compiled.two_qubit_gates,
        )
        sizes = [size for epoch in step_sizes(recipe.distill, images) for size in epoch]
        calls = [
            (replace(load, rows=rows),)
            for step, size in enumerate(sizes)
            for rows in executor.rows(
                members * size * student.runs_per_image, step=step, inputs=inputs
            )
        ]
        words = _words(recipe.distill, weights=len(student.weights), inputs=inputs)
        return self._estimate(words, calls)

    def _estimate(self, what: str, calls: Sequence[Call]) -> Estimate:
        return estimate(
            what,
            calls,
            shots=self.shots,
            limits=self.target.runner.limits,
            twirled=self.options.twirled,
            timing=device_timing(self.target.backend),
            session=self.options.mode == "session",
        )


def _ways(training: Training | None, *, weights: int) -> list[Training]:
    """Return the training that is requested, and the usual ones."""
    usual = training or Training(gradient="spsa", steps=USUAL_STEPS)
    part = max(1, weights // SUBSET)
    usual = replace(usual, shifted_weights=None, gradient="spsa", adaptive_shots=False)
    ways = [usual]
    if weights:
        ways.append(replace(usual, gradient="parameter_shift", shifted_weights=part))
        ways.append(replace(usual, gradient="parameter_shift"))
    return ways if training is None or training in ways else [training, *ways]


def _words(spec: DistillSpec, *, weights: int, inputs: bool) -> str:
    steps = f"train {spec.steps} steps"
    if spec.gradient in FROM_DIRECTIONS:
        several = f" {spec.directions}" if spec.gradient == "forward" else ""
        way = f"forward gradients in{several} directions" if several else "SPSA"
        return f"{steps}, {way}{', at most' if spec.adaptive_shots else ''}"
    if spec.gradient == "guided_spsa":
        return f"{steps}, guided SPSA"
    shifted = spec.shifted_weights
    some = "all weights" if shifted is None else f"{shifted} of {weights} weights"
    return f"{steps}, parameter shift on {some}{' and the inputs' if inputs else ''}"


def _images(recipe: Recipe) -> int:
    data = load_data(recipe.data, seed=recipe.seed)
    return len(data.draw_for(recipe.data, seed=recipe.member_seeds[0]))


def find_device(name: str, options: RuntimeSpec) -> tuple[RuntimeConnection, str]:
    """Return the device, or without an account its snapshot and a note that says so."""
    try:
        return open_device(name, options=options), ""
    except NoAccountError:
        snapshot = f"fake_{name.removeprefix('ibm_')}"
        if snapshot not in {known.name for known in list_targets()}:
            raise
        connection = connect(snapshot, options=options)
    return connection, f"no account is saved: compiled for the snapshot {snapshot}"


@contextmanager
def dry_target(connection: RuntimeConnection, *, shots: int, seed: int) -> Iterator[RuntimeTarget]:
    """Yield a target that compiles; its journal is thrown away."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qkd-"))
        journal = stack.enter_context(Journal(Path(folder)))
        runner = Runner(connection, journal=journal, options=connection.options)
        yield RuntimeTarget(
            connection.backend, runner=runner, prefix="dry/", shots=shots, seed=seed
        )
