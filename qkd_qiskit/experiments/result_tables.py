"""Plain tables of results: CSV, LaTeX and HTML."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from html import escape

from qkd_qiskit.experiments.statistics import mean_interval

_LATEX = {"\\": r"\textbackslash{}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$"}


def mean_text(accuracies: Sequence[float], *, sign: str) -> str:
    """Return the mean in percent and half of its 95 % interval: `93.0 ± 1.2`."""
    if not accuracies:
        return "all failed"
    mean, half = mean_interval(accuracies)
    return f"{100 * mean:.1f}" + ("" if half is None else f" {sign} {100 * half:.1f}")


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


def html_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, caption: str) -> str:
    """Return an HTML table, its texts escaped."""

    def line(cells: Sequence[str], tag: str) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(cell)}</{tag}>' for cell in cells)}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return (
        f"<table><caption>{escape(caption)}</caption>"
        f"<thead>{line(heads, 'th')}</thead><tbody>{body}</tbody></table>"
    )


def _latex(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _latex_row(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"
