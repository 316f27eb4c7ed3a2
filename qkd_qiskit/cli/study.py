"""`qkd study`: many arms and seeds as one job, in parallel, with statistics."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.distill import add_track_option, run_folder
from qkd_qiskit.cli.output import add_output_options
from qkd_qiskit.cli.recipe_options import ARMS_HELP, add_keys
from qkd_qiskit.errors import InputError

if TYPE_CHECKING:
    from qkd_qiskit.experiments.workers import Workers

DEFAULTS = {
    "arms": [
        "label_only",
        "label_only_tuned",
        "distilled",
        "class_mean_labels",
        "shuffled_teacher",
        "classical_twin",
        "twin_pca",
        "twin_pooled",
        "twin_bilinear",
        "replicate",
    ],
    "seeds": 10,
    "targets": ["exact"],
}
"""What a study has in place of the recipe's own, where a file does not state it."""


def study_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd study`."""
    parser = CommandParser(
        name,
        usage="qkd study [RECIPE] [--seeds N] [--arms A,B,...] [--jobs N | --cluster ADDRESS]\n"
        "                 [--KEY VALUE ...] [--out DIR] [--quiet | --json]\n"
        "       qkd study --resume DIR [--jobs N | --cluster ADDRESS] [--quiet | --json]",
        description="Is the gain real? Paired seeds of many arms, among them the label-only "
        "student with settings of its own and controls that take away what the teacher knows, and "
        "the best of the classical twins, chosen on validation images; "
        "intervals, tests corrected for their number, effect sizes. Stopped at any moment, it goes "
        "on with --resume. Every KEY of the recipe can be given, as for qkd distill.",
    )
    add_worker_options(parser)
    parser.add_argument("--out", type=str, help="new run folder; default: runs/RECIPE-study")
    parser.add_argument("--resume", type=str, help="run folder to continue, with its own recipe")
    add_track_option(parser)
    add_output_options(parser)
    add_keys(parser, words, defaults=DEFAULTS)
    parser.epilog = ARMS_HELP
    return parser


def add_worker_options(parser: CommandParser) -> None:
    """Add `--jobs` and `--cluster`."""
    parser.add_argument("--jobs", type=int, help="processes; default: the cores of this machine")
    parser.add_argument(
        "--cluster",
        type=str,
        help="tcp://HOST:PORT of a Dask scheduler whose workers see the run folder",
    )


def run_study(options: Namespace, words: Sequence[str]) -> int:
    """Start a new study, or continue one; returns the exit status."""
    return run_folder(options, words, workers=given_workers(options), defaults=DEFAULTS)


def given_workers(options: Namespace) -> Workers:
    """Return where the options say that tasks run.

    Raises:
        InputError: Fewer than one process, or processes and a cluster.
    """
    from qkd_qiskit.experiments.workers import Workers

    if options.jobs is not None and options.jobs < 1:
        raise InputError(f"--jobs: {options.jobs} is not accepted; give a number of at least 1")
    if options.jobs is not None and options.cluster is not None:
        raise InputError("--jobs and --cluster were both given; the cluster has its own workers")
    return Workers(jobs=options.jobs or _cores(), cluster=options.cluster)


def _cores() -> int:
    """Return the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
