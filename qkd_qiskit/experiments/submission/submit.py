"""A run's students on a device: begun, gone on with, collected."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.collect import with_measured
from qkd_qiskit.experiments.device_results import DeviceResult
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.batching import (
    EVALUATE,
)
from qkd_qiskit.experiments.submission.device import (
    allowance_of,
    check_journal,
    check_takes_jobs,
    describe_jobs,
    open_device,
    open_runner,
    place_of,
)
from qkd_qiskit.experiments.submission.device_evaluation import evaluate_on_device
from qkd_qiskit.experiments.submission.late_usage import with_late_usage
from qkd_qiskit.experiments.submission.request import Request, Training
from qkd_qiskit.experiments.submission.students import check_seeds
from qkd_qiskit.experiments.submission.submission import (
    Submission,
    begin_or_go_on,
    find_submissions,
    first_name,
    leaving_nothing,
    maps_of,
    new_id,
)
from qkd_qiskit.experiments.submission.training import (
    TRAIN,
    derive_run,
    derived_recipe,
    train_members,
)
from qkd_qiskit.experiments.target_summary import TargetSummary, describe_circuit
from qkd_qiskit.targets.ibm.allowance import Allowance
from qkd_qiskit.targets.ibm.connection import RuntimeConnection
from qkd_qiskit.targets.ibm.job_plan import executed_shots
from qkd_qiskit.targets.ibm.retired_device import reconnect
from qkd_qiskit.targets.ibm.target import RuntimeTarget


@dataclass(frozen=True)
class SubmittedRun:
    """What came of a submission.

    Attributes:
        folder: The run with the figures.
        result: What its result.json holds.
        submission: What was requested.
        already: Whether it had been finished before.
    """

    folder: RunFolder
    result: Result
    submission: Submission
    already: bool = False


def submit_run(
    folder: RunFolder, request: Request, *, callback: Callback | None = None
) -> SubmittedRun:
    """Evaluate the trained students of a run on a device; write its result.json.

    What was begun goes on; what is finished is not done again.

    Raises:
        InputError: The run, the device or a number is not accepted.
        SubmissionError: The service failed; the run goes on where it was left.
        BudgetError: The next job would pass the QPU seconds that are allowed.
    """
    callback = callback or Callback()
    folder.ended()
    wanted, connection = _wanted(folder, request, callback=callback)
    begun = begin_or_go_on(folder, wanted, again=request.again)
    if begun.finished:
        return SubmittedRun(
            folder, with_late_usage(folder, begun, lambda: connection), begun, already=True
        )
    with leaving_nothing(begun.folder(folder)):
        return _finish(folder, _allowed(begun, request), connection, callback=callback)


def begin_training(
    start: RunFolder,
    request: Request,
    training: Training,
    *,
    out: str | None = None,
    callback: Callback | None = None,
    command: str = "",
) -> RunFolder:
    """Return the run in which a run's students are trained; `collect_run` trains them.

    One that was begun with the same request is given back.

    Args:
        start: A finished run.
        request: The device, and how it is used.
        training: How its students are trained there.
        out: Folder of the new run; default: beside the run, named after it and the device.
        callback: Receives the progress.
        command: What was typed, for the report.

    Raises:
        InputError: The run, the device or a number is not accepted.
        SubmissionError: The service does not answer.
    """
    callback = callback or Callback()
    start.ended()
    recipe = derived_recipe(start, request, training, seeds=check_seeds(start, request.seeds))
    callback.stage(f"connecting to {request.backend}")
    connection = open_device(request.backend, options=recipe.runtime)
    check_takes_jobs(connection)
    place = place_of(connection)
    name = first_name(request.backend, place, shots=recipe.shots, usual_shots=recipe.shots)
    begins = "-recalibrated" if training.recalibrated else ""
    maps = maps_of(request.backend, place) if training.recalibrated else None
    folder = derive_run(start, recipe, out=out, name=name.replace(":", "-") + begins, maps=maps)
    known = [begun for begun in find_submissions(folder) if begun.train]
    if known and known[0].recalibrated != training.recalibrated:
        raise CheckpointError(
            f"{folder.path} was begun {'with' if known[0].recalibrated else 'without'} "
            "--from-recalibrated; do so again, or give another --out"
        )
    if known:
        if not known[0].finished:
            _allowed(known[0], request).save(folder)
        return folder
    Submission(
        name=name,
        backend=request.backend,
        place=place,
        mode=recipe.runtime.mode,
        shots=recipe.shots,
        limit=recipe.test_limit,
        seeds=recipe.member_seeds,
        images_per_job=0,
        max_qpu_seconds=request.max_qpu_seconds,
        train=True,
        evaluate=training.evaluate,
        command=command,
        id=new_id(),
        recalibrated=training.recalibrated,
    ).save(folder)
    return folder


def collect_run(
    folder: RunFolder,
    *,
    max_qpu_seconds: float | None = None,
    adopt: bool = False,
    callback: Callback | None = None,
) -> list[SubmittedRun]:
    """Finish everything that was requested of devices for a run.

    Args:
        folder: The run.
        max_qpu_seconds: QPU seconds that the jobs of each submission together may use; default:
            what was given when it was begun.
        adopt: Take the jobs of the submissions that the service has and a journal does not know,
            because it was lost or damaged, into it.
        callback: Receives the progress.

    Raises:
        CheckpointError: Nothing was submitted.
        SubmissionError: As `submit_run`.
        BudgetError: As `submit_run`.
    """
    callback = callback or Callback()
    known = find_submissions(folder)
    if not known:
        raise CheckpointError(
            f"{folder.path} has no submission; begin with qkd submit {folder.path} --backend NAME"
        )
    submitted = []
    for submission in known:
        connect = partial(_reconnect, folder, submission, callback=callback)
        # Without its figures in the result: that was made again, and an older version wrote them.
        kept = submission.finished and (
            not submission.evaluate or submission.name in folder.ended().targets
        )
        if kept:
            result = with_late_usage(folder, submission, connect)
            submitted.append(SubmittedRun(folder, result, submission, already=True))
        else:
            limit = max_qpu_seconds or submission.max_qpu_seconds
            allowed = replace(submission, max_qpu_seconds=limit)
            submitted.append(_finish(folder, allowed, connect(), callback=callback, adopt=adopt))
    return submitted


def _reconnect(
    folder: RunFolder, submission: Submission, *, callback: Callback
) -> RuntimeConnection:
    """Return a connection to the device that something was submitted to."""
    options = submission.runtime(folder.recipe.runtime)
    callback.stage(f"connecting to {submission.backend}")
    connection = reconnect(submission.backend, options=options)
    _check_place(folder, submission, connection)
    return connection


def _wanted(
    folder: RunFolder, request: Request, *, callback: Callback
) -> tuple[Submission, RuntimeConnection]:
    """Return the request with the recipe's values, and its device."""
    recipe = folder.recipe
    options = request.runtime(recipe.runtime, mode=recipe.runtime.mode)
    seeds = check_seeds(folder, request.seeds)
    always = [arm for arm in recipe.arms if recipe.arm_table[arm].recalibrated]
    if always and not request.recalibrate:
        raise InputError(
            f"the arm {always[0]!r} needs unlabelled images of the device; give --recalibrate 50"
        )
    callback.stage(f"connecting to {request.backend}")
    begun = {known.backend for known in find_submissions(folder) if not known.finished}
    connect = reconnect if request.backend in begun else open_device
    connection = connect(request.backend, options=options)
    shots, place = request.shots or recipe.shots, place_of(connection)
    wanted = Submission(
        name=first_name(request.backend, place, shots=shots, usual_shots=recipe.shots),
        backend=request.backend,
        place=place,
        mode=options.mode,
        shots=shots,
        limit=request.limit or recipe.test_limit,
        seeds=seeds,
        images_per_job=0,
        max_qpu_seconds=request.max_qpu_seconds,
        recalibrate=request.recalibrate,
        options=request.changed(recipe.runtime),
    )
    return wanted, connection


def _check_place(folder: RunFolder, submission: Submission, connection: RuntimeConnection) -> None:
    """Raise where a rehearsal would go on with a real device, or the other way round."""
    place = place_of(connection)
    if place != submission.place:
        raise CheckpointError(
            f"{submission.folder(folder)} was begun on a {submission.place} and this would be a "
            f"{place}; set or unset QKD_RUNTIME_URL as it was, or begin anew with qkd submit"
        )


def _finish(
    folder: RunFolder,
    submission: Submission,
    connection: RuntimeConnection,
    *,
    callback: Callback,
    adopt: bool = False,
) -> SubmittedRun:
    """Run what is not run yet, and write figures, result and record."""
    left: Allowance | None = None
    if not check_journal(folder, submission, adopt=adopt).records and not adopt:
        check_takes_jobs(connection)  # else there are jobs to read, whatever the device does now
        left = allowance_of(connection)
    described: TargetSummary | None = None
    opened = open_runner(folder, submission, connection, watch=callback.jobs, adopt=adopt)
    with opened as runner:
        target = RuntimeTarget(
            connection.backend,
            runner=runner,
            prefix=TRAIN,
            shots=submission.shots,
            seed=folder.recipe.seed,
        )
        if submission.train:
            train_members(folder, target, callback=callback)
        if submission.evaluate:
            compiled = evaluate_on_device(
                folder, submission, runner, target, left=left, callback=callback
            )
            described = TargetSummary(
                shots=executed_shots(submission.shots, twirled=runner.options.twirled),
                calibration_date=target.calibration_date,
                seeds=submission.seeds,
                circuit=describe_circuit(compiled),
            )
        runner.settle()
        mode, calibrated = runner.mode, target.calibration_date
    # After the session is closed: a device is not kept waiting for simulators.
    if submission.train and folder.result is None:
        run(folder, callback=callback, command=submission.command)
    result = folder.ended()
    if described is not None:
        jobs = describe_jobs(folder, submission, EVALUATE, mode=mode)
        described = replace(described, device=jobs)
        result = with_measured(
            result, folder, key=submission.name, target=described, maps=submission.maps
        )
    if submission.train:
        jobs = describe_jobs(folder, submission, TRAIN, mode=mode)
        result = replace(result, trained_on=replace(jobs, calibration_date=calibrated))
    DeviceResult(
        key=submission.name,
        target=described,
        trained_on=result.trained_on if submission.train else None,
    ).save(submission.folder(folder))
    folder.end(result)
    done = replace(submission, finished=True).save(folder)
    return SubmittedRun(folder, result, done)


def _allowed(submission: Submission, request: Request) -> Submission:
    """Return a submission that goes on, with the mode and limit that are now requested."""
    limit = request.max_qpu_seconds or submission.max_qpu_seconds
    return replace(submission, mode=request.mode or submission.mode, max_qpu_seconds=limit)
