"""`qkd submit` and `qkd collect`: a trained run on a device of IBM Quantum."""

from __future__ import annotations

import shlex
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.device_options import add_device_options, device_options
from qkd_qiskit.cli.error_messages import fail
from qkd_qiskit.cli.output import add_output_options, load, say, show_result, terminal
from qkd_qiskit.cli.recalibrate import show_maps
from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe import Mode

if TYPE_CHECKING:
    from qkd_qiskit.experiments.run_folder import RunFolder
    from qkd_qiskit.experiments.submission import SubmittedRun, Training

STEPS = 50
GRADIENTS = ("spsa", "forward", "guided_spsa", "parameter_shift")
_OF_GRADIENTS = {
    "shifted_weights": ("parameter_shift",),
    "directions": ("forward",),
    "adaptive_shots": ("spsa", "forward"),
}


def submit_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd submit`."""
    parser = CommandParser(
        name,
        description="Evaluate the students of a finished run on a device of IBM Quantum, and add "
        "the figures to its result.json and report. What was begun goes on; what is finished is "
        "not paid twice. With --dry-run nothing is sent: it says what would be.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--backend",
        type=str,
        required=True,
        values=[TARGETS],
        help="device of your account, or fake_<device>",
    )
    parser.add_argument(
        "--mode",
        type=str,
        values=("session", "batch", "job"),
        help="session, batch or job; default: the recipe's",
    )
    parser.add_argument("--shots", type=int, help="shots per circuit; default: the recipe's")
    parser.add_argument("--limit", type=int, help="test images; default: the recipe's test_limit")
    parser.add_argument("--seeds", type=str, help="seeds of the run, as 0,2; default: all")
    parser.add_argument(
        "--max-qpu-seconds", type=float, help="stop before jobs use more; the run can go on later"
    )
    parser.add_argument(
        "--recalibrate",
        type=int,
        help="unlabelled training images to measure in the same jobs, as 50, to correct the "
        "figures with; see qkd recalibrate",
    )
    add_device_options(parser)
    parser.add_argument("--again", action="store_true", help="measure again what is finished")
    parser.add_argument(
        "--dry-run", action="store_true", help="say what it would cost, beside alternatives"
    )
    parser.add_argument(
        "--rate", type=str, help="price of a QPU second, as 1.6, or of a minute, as 96/min"
    )
    parser.add_argument(
        "--train",
        type=str,
        values=GRADIENTS,
        help="train there too, by spsa, forward, guided_spsa or parameter_shift, into the new run "
        "RUN-on-<backend>",
    )
    parser.add_argument("--steps", type=int, help=f"steps of the training; default: {STEPS}")
    parser.add_argument("--batch-size", type=int, help="images per step; default: the recipe's")
    parser.add_argument("--lr", type=float, help="learning rate; default: a fifth of the recipe's")
    parser.add_argument(
        "--shifted-weights", type=int, help="weights that a step shifts, at random; default: all"
    )
    parser.add_argument(
        "--directions", type=int, help="random directions of an image, of --train forward"
    )
    parser.add_argument(
        "--adaptive-shots",
        action="store_true",
        help="take no more shots in a step than are worth it, of --train spsa and forward; --shots "
        "is the most",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="train untrained students, not the run's"
    )
    parser.add_argument(
        "--from-recalibrated",
        action="store_true",
        help="train students on that have the device's recalibration in their last layers",
    )
    parser.add_argument(
        "--evaluate", action="store_true", help="evaluate there what was trained, with its start"
    )
    parser.add_argument("--out", type=str, help="run folder of the training")
    add_output_options(parser)
    return parser


def collect_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd collect`."""
    parser = CommandParser(
        name,
        description="Finish what `qkd submit` began and did not end: read the jobs that were sent, "
        "send those that were not, write result.json and the report.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--max-qpu-seconds", type=float, help="allow jobs to use so many; default: as submitted"
    )
    parser.add_argument(
        "--adopt",
        action="store_true",
        help="take jobs of the run that the service has and the journal lost from there",
    )
    add_output_options(parser)
    return parser


def run_submit(options: Namespace, words: Sequence[str]) -> int:
    """Run `qkd submit`: begin or continue; return the exit status."""
    load(options)
    from qkd_qiskit.cli.dry_run import show_dry_run
    from qkd_qiskit.experiments.run_folder import RunFolder
    from qkd_qiskit.experiments.submission import Request, begin_training, plan_dry_run, submit_run
    from qkd_qiskit.report.report import write_report
    from qkd_qiskit.targets.ibm.cost_estimate import parse_rate

    request = Request(
        backend=options.backend,
        mode=mode_of(options.mode),
        shots=_at_least_one(options.shots, "shots"),
        limit=_at_least_one(options.limit, "limit"),
        seeds=seeds_of(options.seeds),
        max_qpu_seconds=positive(options.max_qpu_seconds, "max-qpu-seconds"),
        again=options.again,
        recalibrate=_recalibrate(options),
        options=device_options(options),
    )
    training = _training(options)
    folder = RunFolder.open(options.run)
    if options.dry_run:
        rate = None if options.rate is None else parse_rate(options.rate)
        with terminal(options) as callback:
            plan = plan_dry_run(folder, request, training=training, callback=callback)
        return show_dry_run(plan, options, rate=rate)
    if training is not None:
        with terminal(options) as callback:
            folder = begin_training(
                folder,
                request,
                training,
                out=options.out,
                callback=callback,
                command=shlex.join(["qkd", *words]),
            )
        return _collect(folder, options)
    try:
        with terminal(options) as callback:
            submitted = submit_run(folder, request, callback=callback)
            callback.stage("report")
            write_report(folder)
    except KeyboardInterrupt:
        return _interrupted(folder.path)
    return _show([submitted], options)


def run_collect(options: Namespace, words: Sequence[str]) -> int:
    """Finish what was begun; return the exit status."""
    load(options)
    from qkd_qiskit.experiments.run_folder import RunFolder

    limit = positive(options.max_qpu_seconds, "max-qpu-seconds")
    folder = RunFolder.open(options.run)
    return _collect(folder, options, max_qpu_seconds=limit, adopt=options.adopt)


def _collect(
    folder: RunFolder,
    options: Namespace,
    *,
    max_qpu_seconds: float | None = None,
    adopt: bool = False,
) -> int:
    from qkd_qiskit.experiments.submission import collect_run
    from qkd_qiskit.report.report import write_report

    try:
        with terminal(options) as callback:
            submitted = collect_run(
                folder, max_qpu_seconds=max_qpu_seconds, adopt=adopt, callback=callback
            )
            callback.stage("report")
            # Always: a process may have died between the result and the report.
            write_report(folder)
    except KeyboardInterrupt:
        return _interrupted(folder.path)
    return _show(submitted, options)


def _show(submitted: Sequence[SubmittedRun], options: Namespace) -> int:
    if not options.json and not options.quiet:
        for run in submitted:
            if run.already:
                name = run.submission.name
                text = f"{name} is finished: nothing was sent (to measure it again: --again)"
                say(text)
            show_maps(run.result, target=run.submission.maps)
    return show_result(submitted[-1].folder, submitted[-1].result, options)


def _interrupted(path: Path) -> int:
    """Print what is still running and how to continue; return the exit status."""
    from qkd_qiskit.experiments.submission.device import running_jobs

    jobs = running_jobs(path)
    running = f"jobs {', '.join(jobs)} go on running and are paid" if jobs else "no job is running"
    command = f"qkd collect {shlex.quote(str(path))}"
    return fail(f"interrupted; {running}; to go on: {command}", status=130)


def _training(options: Namespace) -> Training | None:
    """Return how to train, or None without --train."""
    from qkd_qiskit.experiments.submission import Training

    words = (
        *("steps", "batch_size", "lr", "shifted_weights", "directions", "adaptive_shots"),
        *("from_scratch", "from_recalibrated", "evaluate", "out"),
    )
    if options.train is None:
        given = [word for word in words if getattr(options, word)]
        if given:
            flag = given[0].replace("_", "-")
            raise InputError(
                f"--{flag} is for training; give --train spsa with it, or leave it out"
            )
        return None
    if options.train not in GRADIENTS:
        raise InputError(f"--train: {options.train!r} is not accepted; give {', '.join(GRADIENTS)}")
    for name, ways in _OF_GRADIENTS.items():
        if getattr(options, name) and options.train not in ways:
            flag, accepted = name.replace("_", "-"), " or ".join(ways)
            raise InputError(f"--{flag} is for --train {accepted}; leave it or {options.train} out")
    return Training(
        gradient=options.train,
        steps=_at_least_one(options.steps, "steps") or STEPS,
        batch_size=_at_least_one(options.batch_size, "batch-size"),
        lr=positive(options.lr, "lr"),
        shifted_weights=_at_least_one(options.shifted_weights, "shifted-weights"),
        directions=_at_least_one(options.directions, "directions"),
        adaptive_shots=options.adaptive_shots,
        fresh=options.from_scratch,
        recalibrated=options.from_recalibrated,
        evaluate=options.evaluate,
    )


def mode_of(text: str | None) -> Mode | None:
    """Return how jobs are submitted, or None where it was not given."""
    modes: tuple[Mode, ...] = get_args(Mode)
    if text is None:
        return None
    for mode in modes:
        if mode == text:
            return mode
    raise InputError(f"--mode: {text!r} is not accepted; give {', '.join(modes)}")


def _recalibrate(options: Namespace) -> int:
    if options.recalibrate is not None and options.train is not None:
        raise InputError(
            "--recalibrate is for an evaluation; leave --train out, or recalibrate the new run"
        )
    return _at_least_one(options.recalibrate, "recalibrate") or 0


def _at_least_one(number: int | None, name: str) -> int | None:
    if number is not None and number < 1:
        raise InputError(f"--{name}: {number} is not accepted; give a whole number of at least 1")
    return number


def positive(number: float | None, name: str) -> float | None:
    """Return a number above 0, or None where it was not given."""
    if number is not None and not 0 < number < float("inf"):
        raise InputError(f"--{name}: {number:g} is not accepted; give a number above 0")
    return number


def seeds_of(text: str | None) -> tuple[int, ...] | None:
    """Return seeds from a text such as 0,2, or None where it was not given."""
    try:
        return None if text is None else tuple(int(part) for part in text.strip("[]").split(","))
    except ValueError:
        raise InputError(
            f"--seeds: {text!r} is not accepted; give seeds of the run, as in --seeds 0,2"
        ) from None
