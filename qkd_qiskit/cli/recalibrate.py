"""`qkd recalibrate`: maps that take what a target measures back to the exact outputs."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.output import add_output_options, load, say, show_result, terminal
from qkd_qiskit.errors import InputError

if TYPE_CHECKING:
    from qkd_qiskit.experiments.results import Result


def recalibrate_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd recalibrate`."""
    parser = CommandParser(
        name,
        description="Measure unlabelled training images on a target, and fit a map from the "
        "measured outputs of each student to its own exact ones: no labels, no teacher, no "
        "training. The map is kept in the run and corrects every later evaluation there; the "
        "figures with and without it go into result.json and the report.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument(
        "--target",
        type=str,
        required=True,
        values=[TARGETS],
        help="aer, fake_<device> or a snapshot's file; with options, fake_torino:scale=2",
    )
    parser.add_argument("--images", type=int, help="unlabelled images to measure; default: 50")
    parser.add_argument(
        "--kind",
        type=str,
        default="affine",
        values=("affine", "diagonal", "head"),
        help="affine (default); diagonal, a scale and a shift for each output; head, from all "
        "outcomes",
    )
    parser.add_argument("--shots", type=int, help="shots per image; default: the recipe's")
    add_output_options(parser)
    return parser


def run_recalibrate(options: Namespace, words: Sequence[str]) -> int:
    """Fit the maps, evaluate with them, and show both; returns the exit status."""
    load(options)
    from qkd_qiskit.experiments.recalibration import KINDS, USUAL_IMAGES
    from qkd_qiskit.run import Run

    kinds = {kind: kind for kind in KINDS}
    if options.kind not in kinds:
        raise InputError(f"--kind: {options.kind!r} is not accepted; give {', '.join(KINDS)}")
    run = Run.open(options.run)
    with terminal(options) as callback:
        result = run.recalibrate(
            options.target,
            images=USUAL_IMAGES if options.images is None else options.images,
            kind=kinds[options.kind],
            shots=options.shots,
            callback=callback,
        )
        callback.stage("report")
        run.report()
    if not options.json and not options.quiet:
        show_maps(result)
    return show_result(run.folder, result, options)


def show_maps(result: Result, *, target: str | None = None) -> None:
    """Print what is known of the maps that have corrected figures: of a target, or of all.

    Args:
        result: The figures.
        target: Only the maps of this one.
    """
    from qkd_qiskit.report.recalibration_section import map_sentence

    for name, summary in result.targets.items():
        own = target is None or name.partition("@")[0].partition(", ")[0] == target
        if summary.recalibration is not None and own:
            what = map_sentence(summary.recalibration, calibrated=summary.calibration_date)
            text = f"{name}: {what}".replace("\u202f", " ")
            say(text)
