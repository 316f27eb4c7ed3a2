"""arXiv:2311.13810 re-run under control: does distillation make a quantum student better?

    python benchmarks/paper.py [all|v1|v2|tables] [--data-root ROOT] [--out runs/paper]

v1: the eighteen published gains of version 1, each with paired seeds, controls and a noise floor.
v2: the published bar chart of version 2, its students and ours, at equal qubits.
tables: only the tables and figures of the runs that are there.

One published cell, from the teacher to its verdict:

    python benchmarks/paper.py v1 --cells mnist_6_3q --teachers lenet5

It says how far it is; a stopped one goes on with the same command. Writes paper_v1.csv (a row per
run), paper_v1_cells.csv (a row per comparison), paper_v1_means.csv, paper_v1_teachers.csv,
paper_v2.csv and two figures under benchmarks/results/, and puts its tables into
benchmarks/PAPER.md; with --results, all of it goes there and the tables are printed. What the page
says of them is for a reader to check.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, get_type_hints

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import paper_tables
import paper_v2
import paper_verdicts
from paper_v1 import CELLS, study
from paper_v1.cells import TEACHERS

from qkd_qiskit.errors import InputError, QKDError
from qkd_qiskit.storage import write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "PAPER.md"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("what", nargs="?", default="all", choices=["all", "v1", "v2", "tables"])
    add("--data-root", help="folder of the torchvision data sets; default: $QKD_DATA")
    add("--out", type=Path, default=Path("runs/paper"), help="where runs are kept")
    add("--results", type=Path, default=RESULTS, help="where tables and figures go")
    add("--cells", help="v1: some of " + ",".join(cell.name for cell in CELLS))
    add("--teachers", help="v1: some of " + ",".join(TEACHERS))
    add("--seeds", type=int, default=20, help="v1: paired seeds")
    add("--no-controls", action="store_true", help="v1: without shots, gradient and rate controls")
    add("--data", help="v2: some of " + ",".join(paper_v2.DATA_SETS))
    add("--epochs", type=int, default=5, help="v2: epochs of the short runs")
    add("--short-seeds", type=int, default=3, help="v2: seeds of the short runs")
    given = parser.parse_args()
    started = time.monotonic()

    def tell(text: str) -> None:
        print(f"[{(time.monotonic() - started) / 60:6.1f} min] {text}", flush=True)

    try:
        if given.what in ("all", "v2", "tables"):
            _v2(given, tell)
        if given.what in ("all", "v1", "tables"):
            _v1(given, tell)
    except KeyboardInterrupt:
        tell("stopped; the same command goes on from here")
        return 130
    except QKDError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _v1(given: argparse.Namespace, tell: Any) -> None:
    names = _chosen("--cells", given.cells, [cell.name for cell in CELLS])
    kinds = _chosen("--teachers", given.teachers, TEACHERS)
    cells = [cell for cell in CELLS if cell.name in names]
    only_kept = given.what == "tables"
    rows = study.run(
        cells,
        folder=given.out,
        teachers=kinds,
        seeds=given.seeds,
        controls=not given.no_controls,
        root=given.data_root,
        tell=tell,
        only_kept=only_kept,
    )
    if not rows:
        return
    teachers = study.teachers(
        cells,
        folder=given.out,
        kinds=kinds,
        root=given.data_root,
        tell=tell,
        only_kept=only_kept,
    )
    found = paper_verdicts.comparisons(rows)
    gains = paper_verdicts.means(rows)
    if gains:
        _write(given.results / "paper_v1_means.csv", gains)
    if teachers:
        _write(given.results / "paper_v1_teachers.csv", teachers)
    _write(given.results / "paper_v1.csv", rows)
    _write(given.results / "paper_v1_cells.csv", found)
    paper_tables.draw_v1(rows, given.results / "paper_v1.png")
    _show(
        given.results,
        v1=paper_tables.v1_markdown(found),
        means=paper_tables.means_markdown(gains),
        teachers=paper_tables.teachers_markdown(teachers),
        spread=paper_tables.spread_markdown(rows),
        failures=paper_tables.failures_markdown(rows),
        controls=paper_tables.controls_markdown(found),
        terms=paper_tables.terms_markdown(),
    )


def _v2(given: argparse.Namespace, tell: Any) -> None:
    rows = paper_v2.run(
        paper_v2.all_cells(_chosen("--data", given.data, paper_v2.DATA_SETS)),
        folder=given.out,
        root=given.data_root,
        epochs=given.epochs,
        seeds=given.short_seeds,
        tell=tell,
        only_kept=given.what == "tables",
    )
    if rows:
        rows = [*_kept_v2(given.results / "paper_v2.csv", rows), *rows]
        _write(given.results / "paper_v2.csv", rows)
        paper_tables.draw_v2(rows, given.results / "paper_v2.png")
        _show(given.results, v2=paper_tables.v2_markdown(rows))


def _kept_v2(path: Path, made: Sequence[paper_v2.Row]) -> list[paper_v2.Row]:
    """Return the rows of the tasks that are not run here, from an earlier file."""
    if not path.exists():
        return []
    kinds = get_type_hints(paper_v2.Row)
    with path.open(newline="", encoding="utf-8") as file:
        rows = [
            paper_v2.Row(**{name: kinds[name](value) for name, value in row.items()})
            for row in csv.DictReader(file)
        ]
    tasks = {row.task for row in made}
    return [row for row in rows if row.task not in tasks]


def _chosen(option: str, given: str | None, known: Sequence[str]) -> list[str]:
    names = given.split(",") if given else list(known)
    unknown = [name for name in names if name not in known]
    if unknown:
        raise InputError(f"{option}: {unknown[0]!r} is unknown; give some of {','.join(known)}")
    return names


def _show(results: Path, **tables: str) -> None:
    """Put tables between their marks in the page, or print them where the results go elsewhere."""
    if results != RESULTS or not PAGE.exists():
        print("\n\n".join(tables.values()))
        return
    page = PAGE.read_text(encoding="utf-8")
    for name, table in tables.items():
        mark = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        page = mark.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", page)
    write_text(PAGE, page)


def _write(path: Path, rows: Sequence[Any]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(rows[0])])
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in astuple(row)])
    write_text(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
