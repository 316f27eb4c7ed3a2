"""Plain tables of results: CSV and LaTeX, and the texts in their cells."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Protocol

from qkd_qiskit.experiments.statistics import mean_interval

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}


def mean_text(accuracies: Sequence[float], *, sign: str) -> str:
    """Return the mean in percent and half of its 95 % interval: `93.0 ± 1.2`."""
    if not accuracies:
        return "all failed"
    mean, half = mean_interval(accuracies)
    return f"{100 * mean:.1f}" + ("" if half is None else f" {sign} {100 * half:.1f}")


class Difference(Protocol):
    """A mean difference in points, as `Gain` and `Comparison` have it."""

    @property
    def mean(self) -> float | None:
        """The mean; None without a pair."""

    @property
    def ci95(self) -> tuple[float, float] | None:
        """Its 95 % interval; None with one pair."""


def gain_text(gain: Difference) -> str:
    """Return a gain in points with its 95 % interval: `+1.2 [-0.3, +2.7]`."""
    if gain.mean is None:
        return "no pair"
    if gain.ci95 is None:
        return f"{gain.mean:+.1f} (one seed)"
    low, high = gain.ci95
    return f"{gain.mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def csv_text(rows: Sequence[Mapping[str, object]]) -> str:
    """Return rows as CSV, with a line of heads; None is empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(rows[0] if rows else [])
    writer.writerows(row.values() for row in rows)
    return text.getvalue()


def latex_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str) -> str:
    """Return a LaTeX table in the style of booktabs; the first column is text.

    Args:
        heads: Names of the columns.
        rows: Their cells; cells may hold LaTeX, the first of a row may not.
        caption: Below the table.
    """
    lines = [
        r"\begin{table}",
        rf"\begin{{tabular}}{{l{'r' * (len(heads) - 1)}}}",
        r"\toprule",
        _latex_row([_latex(head) for head in heads]),
        r"\midrule",
        *(_latex_row([_latex(first), *cells]) for first, *cells in rows),
        r"\bottomrule",
        r"\end{tabular}",
        rf"\caption{{{_latex(caption)}}}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
