"""`qkd plan`: the evaluation on a device that tells the gain best for some QPU seconds."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.device_options import add_device_options, device_options, device_words
from qkd_qiskit.cli.output import add_output_options, load, say, show_table, terminal
from qkd_qiskit.errors import InputError

if TYPE_CHECKING:
    from qkd_qiskit.experiments.submission.plan import Plan, PlannedEvaluation

_SHOWN = 5


def plan_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd plan`."""
    parser = CommandParser(
        name,
        description="Find the seeds, test images, shots and share of unlabelled images whose "
        "evaluation on a device has the narrowest 95 % interval of the gain for so many QPU "
        "seconds, from exact noisy probabilities of the device's snapshot. Nothing is sent.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--qpu-seconds", type=float, required=True, help="what all jobs together may use, as 600"
    )
    parser.add_argument(
        "--backend",
        type=str,
        values=[TARGETS],
        help="device; default: that of the target, as ibm_torino",
    )
    parser.add_argument(
        "--target",
        type=str,
        values=[TARGETS],
        help="whose noise is calculated with, as fake_torino; default: the backend's snapshot, or "
        "the recipe's device",
    )
    parser.add_argument("--mode", type=str, help="session, batch or job; default: the recipe's")
    parser.add_argument("--seeds", type=str, help="seeds of the run, as 0,2; default: all")
    parser.add_argument(
        "--most-seeds", type=int, help="seeds that the run could be extended to; default: 10"
    )
    add_device_options(parser)
    add_output_options(parser)
    return parser


def run_plan(options: Namespace, words: Sequence[str]) -> int:
    """Show the best plans and the command of the best; return the exit status."""
    load(options)
    from qkd_qiskit.cli.submit import mode_of, positive, seeds_of
    from qkd_qiskit.experiments.run_folder import RunFolder
    from qkd_qiskit.experiments.submission import Request
    from qkd_qiskit.experiments.submission.plan import plan_evaluation

    most = options.most_seeds
    if most is not None and most < 2:
        raise InputError(f"--most-seeds: {most} is not accepted; give a whole number of at least 2")
    seconds = positive(options.qpu_seconds, "qpu-seconds")
    assert seconds is not None  # it is required
    folder = RunFolder.open(options.run)
    request = Request(
        backend=options.backend or _device_of(options.target or folder.recipe.noise_target),
        mode=mode_of(options.mode),
        seeds=seeds_of(options.seeds),
        options=device_options(options),
    )
    with terminal(options) as callback:
        plan = plan_evaluation(
            folder,
            request,
            qpu_seconds=seconds,
            target=options.target,
            most_seeds=most,
            callback=callback,
        )
    if options.json:
        print(json.dumps(asdict(plan), indent=2))
    elif not options.quiet:
        _show(plan, options)
    return 0


def _device_of(target: str | None) -> str:
    """Return the name of the device that a snapshot is of."""
    if target is None or not target.startswith("fake_"):
        raise InputError("backend missing: give --backend ibm_torino, or --target fake_torino")
    return f"ibm_{target.removeprefix('fake_').partition(':')[0]}"


def _show(plan: Plan, options: Namespace) -> None:
    from rich.table import Table

    title = f"{plan.qpu_seconds:,.0f} QPU seconds on {plan.backend}: nothing is sent"
    table = Table(title=title)
    for head in ("seeds", "images", "unlabelled", "shots", "jobs", "QPU s"):
        table.add_column(head, justify="right")
    table.add_column("gain expected", justify="right")
    table.add_column("moved by shots", justify="right")
    shown = list(plan.best[:_SHOWN])
    trained = plan.trained
    if trained is not None and trained not in shown:
        shown.append(trained)
    for index, chosen in enumerate(shown):
        table.add_row(*_cells(chosen), style="" if index else "bold")
    table.add_section()
    table.add_row(*_cells(plan.usual), style="dim")
    show_table(table)
    for line in _lines(plan, options):
        say(line)


def _cells(plan: PlannedEvaluation) -> list[str]:
    numbers = (plan.seeds, plan.images, plan.recalibrate, plan.shots, plan.jobs)
    return [
        *(f"{number:,}" for number in numbers),
        f"{plan.qpu_seconds:,.1f}",
        f"{plan.gain:+.1f} ± {plan.half_width:.1f}",
        f"{plan.bias:+.1f}",
    ]


def _lines(plan: Plan, options: Namespace) -> list[str]:
    variance = plan.variance
    seeds, image, shots = (100 * it**0.5 for it in (variance.seeds, variance.both, variance.shots))
    noise = f"last row: a submission without options; noise of {plan.target}, points with 95 % "
    low, high = (100 * it for it in variance.seeds_spread(len(plan.seeds)))
    scatter = f"scatter of the gain: {seeds:.1f} points between {len(plan.seeds)} seeds (as many "
    scatter += f"as these leave {low:.1f} to {high:.1f} open), of a seed "
    lines = [
        f"{noise}intervals over seeds and images",
        f"{scatter}on one image {image:.0f}, of its shots {shots:.0f} (as many as in the recipe)",
        *(part for part in [plan.note] if part),
    ]
    left = plan.allowance.describe(plan.qpu_seconds)
    lines += [left] if left else []
    extra, best, trained = device_words(options), plan.best[0], plan.trained
    if options.mode:
        extra += ["--mode", options.mode]
    if best.seeds > len(plan.seeds):
        lines += ["", f"the best needs {best.seeds} seeds, which cost no QPU seconds to train:"]
        lines.append(
            f"  {shlex.join(['qkd', 'runs', 'extend', plan.run, '--seeds', str(best.seeds)])}"
        )
        lines.append(f"  {_command(plan, best, extra)}")
    if trained is not None:
        lines += ["", f"with the {trained.seeds} seeds that there are:"]
        lines.append(f"  {_command(plan, trained, extra)}")
    return lines


def _command(plan: Plan, chosen: PlannedEvaluation, extra: Sequence[str]) -> str:
    from qkd_qiskit.experiments.submission.plan import submit_words

    return shlex.join(submit_words(plan, chosen, extra=extra))
