"""What a compressed run gives at how many two-qubit gates: sentence, table and figure."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.experiments.compression import (
    Compression,
    CompressionRow,
    Method,
    Search,
    SearchedStudent,
    compression_rows,
    read_compression,
)
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe.arms import BASELINE
from qkd_qiskit.report.html import Markup, panel, panels, section, table
from qkd_qiskit.report.svg import INK, SOFT, canvas, svg_element
from qkd_qiskit.report.text import arm_name, count, percent, teacher_accuracy

HEADER = ("", "two-qubit gates", "exact", "on the target", "recalibrated")
SEARCH_HEADER = ("", "student", "two-qubit gates", "tried", "chosen on", "confirmed on")
_METHODS: dict[Method, str] = {
    "default": "default",
    "halving": "search",
    "random": "random search",
}
_COLOURS = {"exact": "#0072b2", "noisy": "#d55e00", "recalibrated": "#009e73"}
_LABELS = {"exact": "exact", "noisy": "on the target", "recalibrated": "recalibrated"}
_MARKERS = {"exact": "o", "noisy": "s", "recalibrated": "D"}


def compression_section(folder: RunFolder, result: Result) -> Markup:
    """Return what `qkd compress` has come to; nothing of other runs, or before it has ended."""
    compression = read_compression(folder)
    if compression is None or not is_complete(result, compression):
        return Markup()
    rows = compression_rows(result, compression)
    figure = pareto_figure(rows, teacher=result.teacher.accuracy, name="pareto")
    return section(
        "Two-qubit gates and accuracy",
        panels(
            panel(f"on {compression.target}", figure),
            caption=compression_notes(compression),
        ),
        table(HEADER, [[compression_cells(row) for row in rows]], caption=_caption(result)),
        *_search_part(compression.search),
    )


def compressed_answer(folder: RunFolder, result: Result) -> str:
    """Return what a compressed run comes to, in a sentence; empty of other runs."""
    compression = read_compression(folder)
    if compression is None or not is_complete(result, compression):
        return ""
    return compression_answer(compression_rows(result, compression), compression, result)


def is_complete(result: Result, compression: Compression) -> bool:
    """Return whether a result has the figures of a compression: exact, noisy and recalibrated."""
    return sum(name.startswith(compression.target) for name in result.targets) > 1


def compression_answer(
    rows: Sequence[CompressionRow], compression: Compression, result: Result
) -> str:
    """Return what the last depth gives on the target, and what the teacher takes, in a sentence."""
    last = [row for row in rows if row.arm != BASELINE][-1]
    teacher = f"The teacher is right at {teacher_accuracy(result)}"
    if compression.teacher_gates is not None and compression.teacher != "classical":
        teacher += f", with {count(compression.teacher_gates, 'two-qubit gate')} there"
    gates = count(last.two_qubit_gates, "two-qubit gate")
    return (
        f"{_with_interval(last.recalibrated)} on {compression.target}, recalibrated, with {gates}: "
        f"{arm_name(last.arm)}; {_with_interval(last.exact)} exact. {teacher}."
    )


def compression_cells(row: CompressionRow) -> list[str]:
    """Return the cells of a row under `HEADER`."""
    return [
        arm_name(row.arm),
        count(row.two_qubit_gates),
        *(_with_interval(value) for value in (row.exact, row.noisy, row.recalibrated)),
    ]


def compression_notes(compression: Compression) -> str:
    """Return what was compressed, by whom it was taught and why it ended there."""
    teachers = {
        "student": f"the {arm_name(compression.arm)} student of its seed",
        "ensemble": f"all {arm_name(compression.arm)} students together",
        "classical": "the classical teacher",
    }
    end = "No deeper circuit was asked for."
    if compression.refused is not None:
        end = (
            f"The next depth takes {compression.refused} two-qubit gates; at most "
            f"{compression.max_two_qubit_gates} were asked for."
        )
    return (
        f"Compressed from {compression.run}: {teachers[compression.teacher]} labelled the images, "
        f"no label was read. Every depth begins as the one before. {end} label only: students of "
        "the last depth that learn from the labels alone."
    )


def search_cells(search: Search, entry: SearchedStudent) -> list[str]:
    """Return the cells of a row under `SEARCH_HEADER`."""
    features = "" if entry.features is None else f", {count(entry.features, 'feature')}"
    sharp = "" if entry.sharpness is None else f", sharpness {entry.sharpness:g}"
    taken = "*" if entry.method == search.chosen else ""
    return [
        _METHODS[entry.method] + taken,
        f"{entry.qubits} qubits, {count(entry.layers, 'layer')} of {entry.ansatz}{features}{sharp}",
        count(entry.two_qubit_gates),
        count(entry.tried),
        percent(entry.selection),
        percent(entry.confirmation),
    ]


def search_caption(search: Search) -> str:
    """Return how was searched, in a sentence."""
    chose, confirmed = search.images
    return (
        f"{search.seconds:g} s of search and as many of random search; accuracy under "
        f"{search.target}, mean of {count(search.seeds, 'seed')}, on {chose} validation images "
        f"that chose and {confirmed} that did not; * taken"
    )


def _search_part(search: Search | None) -> list[Markup]:
    if search is None:
        return []
    rows = [search_cells(search, entry) for entry in search.best]
    return [table(SEARCH_HEADER, [rows], caption=f"{search_caption(search)}.")]


def pareto_figure(rows: Sequence[CompressionRow], *, teacher: float | None, name: str) -> str:
    """Draw accuracy over two-qubit gates: exact, on the target and recalibrated.

    Args:
        rows: The depths, then the label-only students.
        teacher: Its accuracy; None where it is not known.
        name: Prefix of the identifiers inside; unique on a page.
    """
    depths = [row for row in rows if row.arm != BASELINE]
    with canvas(4.4, 3.0) as (figure, axes):
        for key, colour in _COLOURS.items():
            values = [getattr(row, key) for row in depths]
            axes.errorbar(
                [row.two_qubit_gates for row in depths],
                [100 * mean for mean, _ in values],
                yerr=[100 * (half or 0.0) for _, half in values],
                color=colour,
                marker=_MARKERS[key],
                markersize=4.5,
                linewidth=1.6,
                elinewidth=0.9,
                label=_LABELS[key],
            )
            for row in rows:
                if row.arm == BASELINE:
                    axes.plot(
                        row.two_qubit_gates,
                        100 * getattr(row, key)[0],
                        color=colour,
                        marker=_MARKERS[key],
                        markersize=6,
                        fillstyle="none",
                    )
        if teacher is not None:
            axes.axhline(100 * teacher, color=SOFT, linewidth=0.9, linestyle=(0, (4, 2)))
            axes.annotate(
                "teacher",
                (depths[0].two_qubit_gates, 100 * teacher),
                xytext=(0, 2),
                textcoords="offset points",
                color=SOFT,
            )
        axes.set_xlabel("two-qubit gates after transpiling")
        axes.set_ylabel("test accuracy, %")
        axes.grid(axis="y")
        figure.legend(
            loc="outside upper center",
            ncols=len(_COLOURS),
            frameon=False,
            labelcolor=INK,
            title="hollow: label only",
        )
        return svg_element(figure, name=name, title="Test accuracy over two-qubit gates")


def _caption(result: Result) -> str:
    return (
        f"Test accuracy: mean of {count(len(result.seeds), 'seed')}, all of them, and half of its "
        "95\u202f% interval."
    )


def _with_interval(value: tuple[float, float | None]) -> str:
    mean, half = value
    return percent(mean) if half is None else f"{percent(mean)} ± {100 * half:.1f}"
