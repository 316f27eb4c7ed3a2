"""What a submission would cost, beside what else could be done with the same run."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from qkd_qiskit.data import load_data
from qkd_qiskit.distill import step_sizes
from qkd_qiskit.errors import NoAccountError
from qkd_qiskit.hardware.accounting import device_timing
from qkd_qiskit.hardware.budget import Call, Estimate, Load, estimate
from qkd_qiskit.hardware.gradients import parameter_shift, spsa
from qkd_qiskit.hardware.gradients.outcomes import SampledOutcomes
from qkd_qiskit.hardware.jobs.submission import Runner
from qkd_qiskit.hardware.journal import Journal
from qkd_qiskit.hardware.remote import RuntimeTarget
from qkd_qiskit.hardware.runtime import RuntimeConnection, connect
from qkd_qiskit.observer import Observer
from qkd_qiskit.recipe import DistillSpec, Recipe, RuntimeSpec
from qkd_qiskit.reductions import TRAINED
from qkd_qiskit.runs import RunFolder
from qkd_qiskit.students import QuantumStudent
from qkd_qiskit.submit.desk import open_device
from qkd_qiskit.submit.evaluation import Member, evaluation_calls, group_students, images_per_job
from qkd_qiskit.submit.exam import check_seeds, prepare_exam
from qkd_qiskit.submit.request import Request, Training, trained_arms, training_spec

USUAL_STEPS = 50
"""Steps of the trainings that are shown beside an evaluation."""
SUBSET = 10
"""One in so many weights is shifted in the alternative that shifts a random part of them."""


@dataclass(frozen=True, kw_only=True)
class Budget:
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
        chosen: What is planned.
        others: What could be done instead.
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
    chosen: Estimate
    others: tuple[Estimate, ...]

    def as_dict(self, *, rate: float | None) -> dict[str, Any]:
        """Everything, with money at a rate per QPU second."""

        def priced(one: Estimate) -> dict[str, Any]:
            return asdict(one) | {"money": one.money(rate)}

        return asdict(self) | {
            "chosen": priced(self.chosen),
            "others": [priced(other) for other in self.others],
            "rate": rate,
        }


def plan_budget(
    folder: RunFolder,
    request: Request,
    *,
    training: Training | None = None,
    observer: Observer | None = None,
) -> Budget:
    """What a request would cost; nothing is sent and nothing is written.

    Args:
        folder: The run.
        request: What is asked.
        training: How students would be trained there; None = they are evaluated only.
        observer: Hears of the progress.

    Raises:
        InputError: As `submit_run`.
    """
    observer = observer or Observer()
    recipe = folder.recipe
    folder.ended()
    seeds = check_seeds(folder, request.seeds)
    usual = recipe.runtime.mode if training is None else "session"
    mode = request.mode or usual
    options = replace(recipe.runtime, mode=mode)
    shots = request.shots or recipe.shots
    observer.stage("data")
    exam = prepare_exam(folder, seeds=seeds, limit=request.limit or recipe.test_limit)
    observer.stage(f"connecting to {request.backend}")
    connection, note = _device(request.backend, options)
    timing = device_timing(connection.backend)
    with _dry_target(connection, shots=shots, seed=recipe.seed) as target:
        observer.stage(f"compiling for {connection.name}")
        groups = group_students(exam.quantum, target)
        student, compiled = exam.quantum[0][1], groups[0].compiled
        calibration_date = target.calibration_date

        def cost(what: str, calls: Sequence[Call]) -> Estimate:
            return estimate(
                what,
                calls,
                shots=shots,
                limits=target.runner.limits,
                twirled=options.twirled,
                timing=timing,
                session=mode == "session",
            )

        def evaluation(students: Sequence[tuple[Member, QuantumStudent]]) -> Estimate:
            groups = group_students(students, target)
            per_job = images_per_job(
                groups,
                shots=shots,
                limits=target.runner.limits,
                twirled=options.twirled,
                timing=timing,
            )
            calls = evaluation_calls(groups, images=len(exam.split), per_job=per_job)
            return cost(f"evaluate {len(students)} students", calls)

        whole = evaluation(exam.quantum)
        arms = trained_arms(recipe)
        ends = [one for one in exam.quantum if one[0][0] in arms]
        fresh = training is not None and training.fresh
        after = evaluation(ends if fresh else [*ends, *ends])  # with what they began from
        weights = len(student.weights)
        inputs = student.spec.reduction in TRAINED  # their angles are shifted, sample by sample
        ways, images = _ways(training, weights=weights), _images(recipe)
        trained = []
        for wanted in ways:
            spec = training_spec(recipe, wanted, backend=request.backend, images=images)
            outcomes: SampledOutcomes = (
                spsa(target, compiled)
                if wanted.gradient == "spsa"
                else parameter_shift(target, compiled, shifted=wanted.shifted_weights)
            )
            calls = training_calls(
                outcomes,
                spec,
                members=len(arms) * len(seeds),
                images=images,
                inputs=inputs,
                load=lambda rows: replace(groups[0].load(0), rows=rows),
            )
            trained.append((wanted, cost(_words(wanted, weights=weights, inputs=inputs), calls)))
    chosen = whole
    others = [one for wanted, one in trained if wanted != training]
    if training is not None:
        chosen = next(one for wanted, one in trained if wanted == training)
        if training.evaluate:
            chosen = chosen + after
        others = [whole, *others]
    return Budget(
        device=connection.name,
        note=note,
        calibration_date=calibration_date,
        qubits=student.qubits,
        two_qubit_gates=compiled.two_qubit_gates,
        depth=compiled.depth,
        duration_s=compiled.duration_s or 0.0,
        members=len(exam.quantum),
        images=len(exam.split),
        chosen=chosen,
        others=tuple(others),
    )


def training_calls(
    outcomes: SampledOutcomes,
    spec: DistillSpec,
    *,
    members: int,
    images: int,
    inputs: bool,
    load: Callable[[int], Load],
) -> list[Call]:
    """What a training asks of the device, call by call.

    Args:
        outcomes: How gradients are taken.
        spec: Steps and batches.
        members: Students that train together.
        images: Images that each trains on.
        inputs: Whether the circuits' inputs need a gradient too, as behind a trained reduction.
        load: What so many rows of the circuit ask.
    """
    sizes = [size for epoch in step_sizes(spec, images) for size in epoch]
    return [
        (load(rows),)
        for step, size in enumerate(sizes)
        for rows in outcomes.rows(members * size, step=step, inputs=inputs)
    ]


def _ways(training: Training | None, *, weights: int) -> list[Training]:
    """The training that is asked for, and the usual ones."""
    usual = training or Training(gradient="spsa", steps=USUAL_STEPS)
    part = max(1, weights // SUBSET)
    usual = replace(usual, shifted_weights=None, gradient="spsa")
    ways = [usual]
    if weights:
        ways.append(replace(usual, gradient="parameter_shift", shifted_weights=part))
        ways.append(replace(usual, gradient="parameter_shift"))
    return ways if training is None or training in ways else [training, *ways]


def _words(training: Training, *, weights: int, inputs: bool) -> str:
    steps = f"train {training.steps} steps"
    if training.gradient == "spsa":
        return f"{steps}, SPSA"
    shifted = training.shifted_weights
    some = "all weights" if shifted is None else f"{shifted} of {weights} weights"
    return f"{steps}, parameter shift on {some}{' and the inputs' if inputs else ''}"


def _images(recipe: Recipe) -> int:
    data = load_data(recipe.data, seed=recipe.seed)
    return len(data.draw_for(recipe.data, seed=recipe.member_seeds[0]))


def _device(name: str, options: RuntimeSpec) -> tuple[RuntimeConnection, str]:
    """The device, or without an account the snapshot of it, with a note that says so."""
    try:
        return open_device(name, options=options), ""
    except NoAccountError:
        snapshot = f"fake_{name.removeprefix('ibm_')}"
        connection = connect(snapshot, options=options)
    return connection, f"no account is saved: compiled for the snapshot {snapshot}"


@contextmanager
def _dry_target(connection: RuntimeConnection, *, shots: int, seed: int) -> Iterator[RuntimeTarget]:
    """A target that compiles; its journal is thrown away."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="qkd-"))
        journal = stack.enter_context(Journal(Path(folder)))
        runner = Runner(connection, journal=journal, options=connection.options)
        yield RuntimeTarget(
            connection.backend, runner=runner, prefix="dry/", shots=shots, seed=seed
        )
