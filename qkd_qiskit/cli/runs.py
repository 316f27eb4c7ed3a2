"""`qkd runs`: list runs, show one, compare several, extend one, export their figures."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import CommandParser
from qkd_qiskit.cli.commands import RUNS
from qkd_qiskit.cli.error_messages import fail
from qkd_qiskit.cli.output import (
    add_output_options,
    load,
    print_columns,
    say,
    show_result,
    show_table,
    terminal,
)
from qkd_qiskit.cli.study import add_worker_options, given_workers
from qkd_qiskit.errors import InputError, StorageError, WorkerError
from qkd_qiskit.recipe.arms import ARMS

if TYPE_CHECKING:
    from qkd_qiskit.experiments.run_folder import RunFolder

ROOT = "runs"
FORMATS = ("table", "csv", "latex", "json")
_DESCRIPTIONS = {
    "": "List the runs in a folder and below it; an action does something with them.",
    "list": "List the runs in a folder and below it, the newest first. The gain is that of the arm "
    "distilled over label_only_tuned, or without it label_only, on the first target of the run.",
    "show": "Show what a run is, how it was made and what it found.",
    "compare": "Show what differs in the recipes of finished runs and how their students differ, "
    "all against the first run. Students of one seed are pairs where the test images are the same; "
    "else Welch's t test compares the runs. p is corrected for all comparisons shown.",
    "extend": "Add seeds and arms to a finished run. What it has is kept and not trained again; it "
    "ends as a run that began with all of them. Stopped at any moment, the same command goes on.",
    "export": "Print the figures of finished runs: a table of means, or of every student (csv), or "
    "all there is (json).",
}


def runs_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of an action of `qkd runs`."""
    action = name.partition(" ")[2]
    parser = CommandParser(name, description=_DESCRIPTIONS[action])
    if action in ("", "list"):
        parser.add_argument("root", nargs="?", default=ROOT, help=f"folder; default: {ROOT}")
        parser.add_argument("--json", action="store_true", help="print the list as JSON")
    elif action == "show":
        parser.add_argument("run", type=str, help="run folder")
        parser.add_argument("--json", action="store_true", help="print it as JSON")
    elif action == "compare":
        parser.add_argument("runs", nargs="+", help="run folders; the first is compared with")
        parser.add_argument("--target", type=str, help="default: the first that all runs have")
        parser.add_argument("--json", action="store_true", help="print it as JSON")
    elif action == "extend":
        parser.add_argument("run", type=str, help="run folder")
        parser.add_argument(
            "--seeds", type=str, help="all seeds it is to have: 10, or a list such as 0,1,2,7"
        )
        parser.add_argument(
            "--arms", type=str, values=list(ARMS), help="arms to add: a,b,...; see qkd study --help"
        )
        parser.add_argument("--own_arms", type=str, help="arms of your own, as in a recipe")
        add_worker_options(parser)
        add_output_options(parser)
    else:
        parser.add_argument("runs", nargs="+", help="run folders")
        parser.add_argument(
            "--format", choices=FORMATS, default="table", values=FORMATS, help="default: table"
        )
        parser.add_argument("--out", type=str, help="file; default: standard output")
    return parser


def run_runs(options: Namespace, words: Sequence[str]) -> int:
    """Do what the action says; return the exit status."""
    load(options)
    actions: dict[str, Callable[[Namespace, Sequence[str]], int]] = {
        "list": _list,
        "show": _show,
        "compare": _compare,
        "extend": _extend,
        "export": _export,
    }
    assert list(actions) == list(RUNS)
    return actions[options.action or "list"](options, words)


def _list(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.cli.run_tables import list_table
    from qkd_qiskit.experiments.json_codec import encode
    from qkd_qiskit.experiments.run_list import list_runs

    runs = list_runs(options.root)
    if options.json:
        print(json.dumps([encode(run) | {"path": str(run.path)} for run in runs], indent=2))
        return 0
    if not runs:
        print(f"no run is in {options.root} or below it; qkd distill starts one")
        return 0
    show_table(list_table(runs, root=options.root))
    for run in runs:
        if run.problem:
            say(f"damaged: {run.path}: {run.problem}")
    return 0


def _show(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.cli.run_tables import run_facts
    from qkd_qiskit.experiments.json_codec import encode
    from qkd_qiskit.recipe.parsing import flat_recipe
    from qkd_qiskit.run import Run

    run = Run.open(options.run)
    result = run.folder.result
    if options.json:
        content = {
            "path": str(run.path),
            "recipe": flat_recipe(run.recipe),
            "provenance": encode(run.provenance),
            "result": None if result is None else result.to_json(),
        }
        print(json.dumps(content, indent=2))
        return 0
    print_columns(run_facts(run))
    if result is not None:
        show_result(run.folder, result, Namespace(json=False, quiet=False))
    return 0


def _compare(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.cli.run_tables import comparison_tables, pairing_lines
    from qkd_qiskit.experiments.json_codec import encode
    from qkd_qiskit.experiments.side_by_side import compare_runs

    found = compare_runs(_opened(options.runs), target=options.target)
    if options.json:
        print(json.dumps(encode(found), indent=2))
        return 0
    for table in comparison_tables(found):
        show_table(table)
    for line in pairing_lines(found):
        say(line)
    return 0


def _extend(options: Namespace, words: Sequence[str]) -> int:
    from qkd_qiskit.run import Run

    workers = given_workers(options)
    run = Run.open(options.run)
    again = f"to continue: qkd {shlex.join(words)}"
    try:
        with terminal(options) as callback:
            result = run.extend(
                seeds=options.seeds,
                arms=options.arms,
                own_arms=options.own_arms,
                callback=callback,
                workers=workers,
                command=shlex.join(["qkd", *words]),
            )
            callback.stage("report")
            run.report()
    except KeyboardInterrupt:
        return fail(f"interrupted; {again}", status=130)
    except (StorageError, WorkerError) as error:
        return fail(f"{error}; {again}", status=1)
    return show_result(run.folder, result, options)


def _export(options: Namespace, words: Sequence[str]) -> int:
    from rich.console import Console

    from qkd_qiskit.cli.run_tables import accuracy_table
    from qkd_qiskit.experiments.result_tables import csv_text
    from qkd_qiskit.experiments.side_by_side import latex_of_runs, named_rows, run_names
    from qkd_qiskit.recipe.parsing import flat_recipe
    from qkd_qiskit.storage import user_path, write_text

    folders = _opened(options.runs)
    names = run_names([folder.path for folder in folders])
    if options.format == "csv":
        text = csv_text(named_rows(folders))
    elif options.format == "latex":
        text = latex_of_runs(folders)
    elif options.format == "json":
        content = {
            name: {"recipe": flat_recipe(folder.recipe), "result": folder.ended().to_json()}
            for name, folder in zip(names, folders, strict=True)
        }
        text = json.dumps(content, indent=2) + "\n"
    else:
        table = accuracy_table(dict(zip(names, (it.ended() for it in folders), strict=True)))
        if options.out is None:
            show_table(table)
            return 0
        screen = Console(width=200, no_color=True)
        with screen.capture() as written:
            screen.print(table)
        text = "".join(f"{line.rstrip()}\n" for line in written.get().splitlines())
    if options.out is None:
        print(text, end="")
    else:
        write_text(user_path(options.out), text)
        print(f"figures written to {options.out}")
    return 0


def _opened(paths: Sequence[str]) -> list[RunFolder]:
    from qkd_qiskit.experiments.run_folder import RunFolder

    if len(set(paths)) < len(paths):
        raise InputError(f"a run was given twice in {', '.join(paths)}; give each once")
    return [RunFolder.open(path) for path in paths]


def report_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd report`."""
    parser = CommandParser(name, description="Write report.html of a finished run again.")
    parser.add_argument("run", type=str, help="run folder")
    return parser


def run_report(options: Namespace, words: Sequence[str]) -> int:
    """Write the report of a run; return the exit status."""
    load(options)
    from qkd_qiskit.run import Run

    print(Run.open(options.run).report())
    return 0
