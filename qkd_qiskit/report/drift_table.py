"""What a sweep over days comes to: a day a row."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import fmean

from rich.table import Table

from qkd_qiskit.experiments.drift_sweep import CHECK_IMAGES, DriftRow
from qkd_qiskit.report.text import arm_name

FIGURES = ("exact", "measured", "stale", "fresh")


def drift_summary(rows: Sequence[DriftRow]) -> list[dict[str, object]]:
    """Return means for scripts: accuracies, agreement, share of seeds that need another map."""
    return [
        {
            "device": of_day[0].device,
            "arm": of_day[0].arm,
            "day": of_day[0].day,
            "seeds": len(of_day),
            **{name: fmean(getattr(row, name) for row in of_day) for name in FIGURES},
            "held_out": fmean(row.held_out for row in of_day),
            "agreement": fmean(row.agreement for row in of_day),
            "again": fmean(row.again for row in of_day),
            "moved": fmean(row.moved for row in of_day),
        }
        for of_day in _by_day(rows)
    ]


def drift_table(rows: Sequence[DriftRow]) -> Table:
    """Return the same as a table for the terminal."""
    seeds = len({row.seed for row in rows})
    table = Table(
        title=f"test accuracy under the drift of {rows[0].device}, mean of {seeds} "
        f"seed{'s' * (seeds > 1)}; each with a walk of its own",
        caption=f"Agreement: of {CHECK_IMAGES} unlabelled images of the day with the exact choice, "
        "by the map of day 0. Again: seeds for which that is less than the fit promised. Moved: "
        "seeds whose circuit was compiled to other qubits.",
    )
    heads = ("day", "exact", "as measured", "map of day 0", "map of the day", "agreement")
    table.add_column("", no_wrap=True)
    for head in (*heads, "again", "moved"):
        table.add_column(head, justify="right")
    for of_day in _by_day(rows):
        table.add_row(
            arm_name(of_day[0].arm),
            str(of_day[0].day),
            *(f"{fmean(getattr(row, name) for row in of_day):.1%}" for name in FIGURES),
            f"{fmean(row.agreement for row in of_day):.1%}",
            *(str(sum(getattr(row, name) for row in of_day)) for name in ("again", "moved")),
        )
    return table


def _by_day(rows: Sequence[DriftRow]) -> Iterator[list[DriftRow]]:
    for arm, day in dict.fromkeys((row.arm, row.day) for row in rows):
        yield [row for row in rows if (row.arm, row.day) == (arm, day)]
