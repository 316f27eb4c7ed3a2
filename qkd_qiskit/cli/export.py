"""`qkd export`: a finished run as a folder to publish."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Sequence

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.output import load


def export_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd export`."""
    parser = CommandParser(
        name,
        description="Write a finished run as a folder to publish: recipe, result, report, weights, "
        "the students' circuits as OpenQASM 3 and QPY, and a model card. Nothing of this computer "
        "is in it: no paths, no jobs.",
    )
    parser.add_argument("run", type=str, help="run folder")
    parser.add_argument("--out", type=str, required=True, help="a new or empty folder")
    return parser


def run_export(options: Namespace, words: Sequence[str]) -> int:
    """Write the folder; return the exit status."""
    load(options)
    from qkd_qiskit.run import Run

    print(f"to publish: {Run.open(options.run).export(options.out)}")
    return 0
