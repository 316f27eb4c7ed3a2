"""`qkd sweep`: what noise and shots cost the students of a finished run."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.error_messages import fail
from qkd_qiskit.cli.output import add_output_options, load, say, show_table, terminal
from qkd_qiskit.errors import InputError

if TYPE_CHECKING:
    from rich.table import Table

    from qkd_qiskit.experiments.callbacks import Callback
    from qkd_qiskit.run import Run

"""The actions of `qkd bench`."""
_DESCRIPTIONS = {
    "noise": "Under devices' noise, scaled, without shots. Writes RUN/bench/noise.csv, noise.png "
    "and, for several devices, devices.png; goes on where it was stopped.",
    "drift": "On later days of a device whose calibration drifts synthetically: what a map that "
    "was fitted on day 0 still brings, and when to fit another. Each seed has a walk of its own. "
    "Writes RUN/bench/drift.csv; goes on where it was stopped.",
    "shots": "From ever more shots on one target. Writes RUN/bench/shots.csv and shots.png; goes "
    "on where it was stopped.",
}
_OPTIONS: dict[str, dict[str, tuple[type, str]]] = {
    "noise": {
        "devices": (str, "fake_torino,fake_lima,...; default: the devices of the run"),
        "scales": (str, "what their noise is multiplied by; default: 0,0.25,0.5,1,2,4"),
        "limit": (int, "test images; default: all"),
    },
    "drift": {
        "target": (str, "a device; default: the first device of the run"),
        "days": (str, "days after its calibration; default: 0,1,3,7,14,30"),
        "images": (int, "unlabelled images of each map; default: 50"),
        "limit": (int, "test images; default: all"),
    },
    "shots": {
        "target": (str, "aer or a device; default: the first device of the run"),
        "shots": (str, "shots per image; default: 64,256,1024,4096,exact"),
        "limit": (int, "test images; default: the recipe's test_limit"),
    },
}


@dataclass(frozen=True)
class Outcome:
    """What a sweep gives: a table, files, and means for scripts."""

    table: Table
    files: list[Path]
    summary: list[dict[str, object]]


def sweep_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `sweep noise`, `sweep shots` or `sweep drift`."""
    action = name.rpartition(" ")[2]
    parser = CommandParser(name, description=_DESCRIPTIONS.get(action, ""))
    if action not in _OPTIONS:
        return parser
    parser.add_argument("run", type=str, help="run folder")
    for option, (kind, text) in _OPTIONS[action].items():
        values = [TARGETS] if option in ("devices", "target") else None
        parser.add_argument(f"--{option}", type=kind, values=values, help=text)
    add_output_options(parser)
    return parser


def run_sweep(options: Namespace, words: Sequence[str]) -> int:
    """Run the sweep and show its figures; returns the exit status."""
    if not options.action:
        raise InputError(
            f"what to sweep is missing; give noise, shots or drift, as in qkd {words[0]} noise RUN"
        )
    load(options)
    try:
        with terminal(options) as callback:
            outcome = _measure(options.action, options, callback=callback)
    except KeyboardInterrupt:
        return fail("interrupted; the same command goes on from here", status=130)
    if options.json:
        print(json.dumps(outcome.summary, indent=2))
    elif not options.quiet:
        show_table(outcome.table)
        for path in outcome.files:
            say(str(path))
    return 0


def _measure(action: str, given: Namespace, *, callback: Callback) -> Outcome:
    """Run a sweep with the options given.

    Raises:
        InputError: An option, the run or a target is not accepted.
    """
    from qkd_qiskit.experiments import sweeps
    from qkd_qiskit.report import sweep_figures as figures
    from qkd_qiskit.run import Run

    run = Run.open(given.run)
    setting: Callable[[sweeps.SweepRow], Any]
    if action == "noise":
        rows = sweeps.sweep_noise(
            run,
            devices=_items(given, "devices", str),
            scales=_items(given, "scales", float, accepted="numbers from 0") or sweeps.SCALES,
            limit=given.limit,
            callback=callback,
        )
        setting, write = figures.scale_of, figures.write_noise_figures
    elif action == "drift":
        return _measure_drift(run, given, callback=callback)
    else:
        accepted = "whole numbers from 1, or exact"
        rows = sweeps.sweep_shots(
            run,
            target=given.target,
            shots=_items(given, "shots", _count, accepted=accepted) or sweeps.SHOTS,
            limit=given.limit,
            callback=callback,
        )
        setting, write = figures.shots_of, figures.write_shots_figure
    return Outcome(
        table=figures.sweep_table(run, rows, setting=setting),
        files=[run.path / sweeps.FOLDER / f"{action}.csv", *write(run, rows)],
        summary=figures.summary(run, rows, setting=setting),
    )


def _measure_drift(run: Run, given: Namespace, *, callback: Callback) -> Outcome:
    from qkd_qiskit.experiments import drift_sweep
    from qkd_qiskit.experiments.recalibration import USUAL_IMAGES
    from qkd_qiskit.experiments.sweeps import FOLDER
    from qkd_qiskit.report.drift_table import drift_summary, drift_table

    days = _items(given, "days", _day, accepted="whole numbers from 0")
    rows = drift_sweep.sweep_drift(
        run,
        target=given.target,
        days=days or drift_sweep.DAYS,
        images=USUAL_IMAGES if given.images is None else given.images,
        limit=given.limit,
        callback=callback,
    )
    return Outcome(
        table=drift_table(rows),
        files=[run.path / FOLDER / drift_sweep.FILE],
        summary=drift_summary(rows),
    )


def _day(text: str) -> int:
    if int(text) < 0:
        raise ValueError
    return int(text)


def _items(
    given: Namespace, key: str, read: Callable[[str], Any], *, accepted: str = "names"
) -> list[Any]:
    """Return the items of `a,b` or `[a,b]`; none where it is not given."""
    text = getattr(given, key)
    try:
        return [] if text is None else [read(item.strip()) for item in text.strip("[]").split(",")]
    except ValueError:
        raise InputError(
            f"--{key}: {text!r} is not accepted; give {accepted}, separated by commas"
        ) from None


def _count(text: str) -> int | None:
    if text == "exact":
        return None
    if int(text) < 1:
        raise ValueError
    return int(text)
