"""`qkd compress`: a trained circuit distilled into one that fits a device."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from qkd_qiskit.cli.command_parser import TARGETS, CommandParser
from qkd_qiskit.cli.error_messages import fail
from qkd_qiskit.cli.output import add_output_options, load, say, show_table, terminal
from qkd_qiskit.cli.recipe_options import add_key_options, given_keys
from qkd_qiskit.errors import InputError, StorageError

if TYPE_CHECKING:
    from rich.table import Table

    from qkd_qiskit.experiments.compression import Search
    from qkd_qiskit.run import Run

_KEYS = ("student.", "distill.", "seeds", "shots", "test_limit")


def compress_parser(words: Sequence[str], name: str) -> CommandParser:
    """Return the parser of `qkd compress`."""
    parser = CommandParser(
        name,
        usage="qkd compress RUN --target DEVICE --max-two-qubit-gates N [--KEY VALUE ...]\n"
        "       qkd compress --resume DIR [--quiet | --json]",
        description="Distil the circuit of a finished run into smaller ones that fit a device: CZ "
        "along its couplers, one layer after the other, each circuit grown from the one before "
        "and taught on unlabelled inputs, until the next would have too many two-qubit gates "
        "after transpiling. They are evaluated exactly and on the device, there as measured and "
        "recalibrated, in a run folder of their own that every other command takes.",
    )
    parser.add_argument("run", nargs="?", type=str, help="folder of a finished run")
    parser.add_argument(
        "--target",
        type=str,
        values=[TARGETS],
        help="device that the circuits are to fit, such as fake_torino",
    )
    parser.add_argument(
        "--max-two-qubit-gates", type=int, help="two-qubit gates that they may have on it"
    )
    parser.add_argument(
        "--teacher",
        type=str,
        default="student",
        help="who teaches: student (of each seed that of the same seed; default), ensemble (the "
        "students of all seeds together) or classical (the teacher of the run)",
    )
    parser.add_argument(
        "--arm", type=str, help="arm of the students that teach; default: distilled"
    )
    parser.add_argument(
        "--grow-by",
        type=int,
        help="layers that one circuit has more than the one before; default: 1, of ry_cz_brick 2",
    )
    parser.add_argument(
        "--search",
        action="store_true",
        help="try other entanglers, widths, features and sharpnesses first, under exact noise",
    )
    parser.add_argument(
        "--budget",
        type=str,
        help="with --search: how long, half of it at random; default: 60s",
    )
    parser.add_argument("--out", type=str, help="new run folder; default: RUN-compress")
    parser.add_argument("--resume", type=str, help="compressed run to go on with")
    add_output_options(parser)
    add_key_options(parser, {}, only=_KEYS)
    return parser


def run_compress(options: Namespace, words: Sequence[str]) -> int:
    """Compress a run, or go on with it; returns the exit status."""
    load(options)
    start, path = _begin(options, words)
    resume = f"to continue: qkd compress --resume {shlex.quote(str(path))}"
    try:
        with terminal(options) as callback:
            run = start(callback=callback)
            callback.stage("report")
            run.report()
    except KeyboardInterrupt:
        return fail(f"interrupted; {resume}", status=130)
    except StorageError as error:
        begun = Path(path).exists()
        return fail(f"{error}; {resume}" if begun else str(error), status=1)
    _show(run, options)
    return 0


def _begin(options: Namespace, words: Sequence[str]) -> tuple[partial[Run], str | Path]:
    """Return what is to be done, and the folder where."""
    from qkd_qiskit.experiments.compression_search import parse_budget
    from qkd_qiskit.experiments.run_folder import RunFolder, new_folder
    from qkd_qiskit.run import compress, resume_compression

    if options.resume is not None:
        if options.run is not None:
            raise InputError(
                f"{options.run} was given with --resume, which goes on with what is in "
                f"{options.resume}; leave one of them out"
            )
        return partial(resume_compression, options.resume), options.resume
    if options.budget is not None and not options.search:
        raise InputError("--budget is for --search; give both, or neither")
    missing = [
        name
        for name, value in (
            ("RUN", options.run),
            ("--target", options.target),
            ("--max-two-qubit-gates", options.max_two_qubit_gates),
        )
        if value is None
    ]
    if missing:
        raise InputError(f"{' and '.join(missing)} missing; see `qkd compress --help`")
    if options.out == "":
        raise InputError("--out: '' is not accepted; give the path of a new or empty folder")
    source = RunFolder.open(options.run).path
    path = options.out or new_folder(source.name, suffix="-compress", parent=source.parent)
    start = partial(
        compress,
        options.run,
        target=options.target,
        max_two_qubit_gates=options.max_two_qubit_gates,
        teacher=options.teacher,
        arm=options.arm,
        grow_by=options.grow_by,
        changes=given_keys(options),
        search_seconds=parse_budget(options.budget or "60s") if options.search else None,
        out=path,
        command=shlex.join(["qkd", *words]),
    )
    return start, path


def _show(run: Run, options: Namespace) -> None:
    """Print gates and accuracies, as a table or as JSON."""
    from rich.table import Table

    from qkd_qiskit.experiments.compression import compression_rows, read_compression
    from qkd_qiskit.experiments.json_codec import encode
    from qkd_qiskit.experiments.run_folder import REPORT
    from qkd_qiskit.report.compression_section import (
        HEADER,
        compression_answer,
        compression_cells,
        compression_notes,
    )

    compression = read_compression(run.folder)
    assert compression is not None  # as it has just been made
    rows = compression_rows(run.result, compression)
    answer = _plain(compression_answer(rows, compression, run.result))
    if options.json:
        content = {"compression": encode(compression), "rows": encode(rows), "answer": answer}
        print(json.dumps(content, indent=2))
    elif not options.quiet:
        table = Table(title=f"compressed for {compression.target}")
        for number, heading in enumerate(HEADER):
            table.add_column(heading, no_wrap=number == 0, justify="right" if number else "left")
        for row in rows:
            table.add_row(*map(_plain, compression_cells(row)))
        show_table(table)
        if compression.search is not None:
            show_table(_search_table(compression.search))
        notes = _plain(compression_notes(compression))
        for text in (notes, answer, f"report: {run.path / REPORT}"):
            say(text, style="bold" if text == answer else None)


def _search_table(search: Search) -> Table:
    from rich.table import Table

    from qkd_qiskit.report.compression_section import SEARCH_HEADER, search_caption, search_cells

    table = Table(title=search_caption(search))
    for number, heading in enumerate(SEARCH_HEADER):
        table.add_column(heading, justify="right" if number > 1 else "left")
    for entry in search.best:
        table.add_row(*map(_plain, search_cells(search, entry)))
    return table


def _plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("−", "-")
