"""`qkd evaluate`: a finished run on another target."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.output import add_output_options, load, show_result, terminal
from qkd_qiskit.cli.recalibrate import show_maps


def evaluate_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd evaluate`."""
    parser = CommandParser(
        name,
        description="Evaluate the students of a finished run on another target, and add the "
        "figures to its result.json and report.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--target",
        type=str,
        required=True,
        values=[TARGETS],
        help="exact, aer, fake_<device> or a snapshot's file; with options, fake_torino:scale=2; "
        "fake_torino:aer has Aer draw the shots",
    )
    parser.add_argument("--shots", type=int, help="shots per image; default: the recipe's")
    parser.add_argument(
        "--no-recalibration",
        action="store_true",
        help="leave out the map that qkd recalibrate has fitted there",
    )
    add_output_options(parser)
    return parser


def run_evaluate(options: Namespace, words: Sequence[str]) -> int:
    """Add the figures on the target to the run; returns the exit status."""
    load(options)
    from qkd_qiskit.run import Run

    run = Run.open(options.run)
    with terminal(options) as callback:
        result = run.evaluate(
            options.target,
            shots=options.shots,
            recalibrated=not options.no_recalibration,
            callback=callback,
        )
        callback.stage("report")
        run.report()
    if not (options.json or options.quiet or options.no_recalibration):
        show_maps(result, target=options.target)
    return show_result(run.folder, result, options)
