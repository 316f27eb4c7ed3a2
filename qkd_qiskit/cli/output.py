"""Tables, JSON and progress on standard output."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.line_breaks import broken
from qkd_qiskit.recipe.arms import TUNED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from qkd_qiskit.cli.terminal import Terminal
    from qkd_qiskit.experiments.results import Result
    from qkd_qiskit.experiments.run_folder import RunFolder


def add_output_options(parser: CommandParser) -> None:
    """Add `--quiet` and `--json`."""
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--json", action="store_true", help="print the result as JSON only")


def show_result(folder: RunFolder, result: Result, options: Namespace) -> int:
    """Show the figures of a run as a table or as JSON; returns the exit status."""
    from qkd_qiskit.cli.terminal import answers, comparison_table, summary_table
    from qkd_qiskit.experiments.run_folder import REPORT

    if options.json:
        print(json.dumps(result.to_json(), indent=2))
    elif not options.quiet:
        show_table(summary_table(result))
        if len(result.comparisons) > 3 * len(result.targets) or TUNED in result.arms:
            console().print(comparison_table(result))
        for text, decided in answers(result):
            say(text, style="bold" if decided else None)
        for arm, failed in result.failed.items():
            for seed, reason in failed.items():
                say(f"failed, left out: {arm}, seed {seed}: {reason}")
        for population, cost in result.training_cost.items():
            say(
                f"training the {population}: {cost.circuits:,} circuits, "
                f"{cost.executions:,} executions"
            )
        say(f"report: {folder.path / REPORT}")
    return 0


def load(options: Namespace) -> None:
    """Import what a run needs, torch and Qiskit, and say so on a terminal: it takes seconds."""
    silent = getattr(options, "quiet", False) or getattr(options, "json", False)
    live = sys.stdout.isatty() and not silent
    if live:
        print("loading torch and Qiskit ...", end="", flush=True)
    try:
        import_module("qkd_qiskit.run")
    finally:
        if live:
            print("\r\x1b[2K", end="", flush=True)


def terminal(options: Namespace) -> Terminal:
    """Return the callback that shows progress, silent for `--quiet` and `--json`."""
    from rich.console import Console

    from qkd_qiskit.cli.terminal import Terminal

    return Terminal(Console(quiet=True) if options.quiet or options.json else console())


def console() -> Console:
    """Return where tables are printed."""
    from rich.console import Console

    # A pipe has no width: 80 columns would cut the table.
    screen = Console(width=None if sys.stdout.isatty() else 120)
    if screen.is_jupyter:
        screen.width = 80
    return screen


def show_table(table: Table) -> None:
    """Print a table; on a narrow terminal in parts."""
    from qkd_qiskit.cli.narrow_tables import fitted

    screen = console()
    for part in fitted(table, width=screen.width):
        screen.print(part)


def say(text: str, *, style: str | None = None) -> None:
    """Print a sentence: whole lines in a pipe, on a terminal broken between words.

    A command, which is indented, is whole everywhere, so that it can be copied.
    """
    screen = console()
    whole = not (screen.is_terminal or screen.is_jupyter) or text.startswith("  qkd ")
    screen.print(text, markup=False, highlight=False, soft_wrap=whole, style=style)


def print_columns(rows: Mapping[str, str]) -> None:
    """Print names and texts in two columns; see `broken`."""
    width = max(len(name) for name in rows)
    for name, text in rows.items():
        print(broken(f"{name:<{width}}  {text}", indent=width + 2))
