"""The figures of a report: numbers in, one SVG element out.

Each is drawn small, so that a row of them wraps on a phone instead of shrinking, and its colours
are style-sheet variables of the page, so that it follows light and dark. Text stays text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from qkd_qiskit.recipe.arms import ARMS
from qkd_qiskit.recipe.display import Style
from qkd_qiskit.report.svg import ARM_COLOURS, INK, PAPER, SOFT, canvas, svg_element

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_POINTS = 120  # of one line: what a panel of 300 pixels can show


@dataclass(frozen=True, kw_only=True)
class GainRow:
    """One line of a gain figure.

    Attributes:
        label: What it is called.
        differences: Gain of each pair, in points.
        mean: Their mean in points; None without pairs.
        interval: 95 % interval in points; None below two pairs.
        clear: Whether it is told from zero; else it is grey.
    """

    label: str
    differences: Sequence[float]
    mean: float | None
    interval: tuple[float, float] | None
    clear: bool = True


@dataclass(frozen=True, kw_only=True)
class Curves:
    """What one arm draws in a training figure.

    Attributes:
        arm: Its name.
        lines: One line for each seed: a value for each epoch.
        kept: Which lines count for the mean and the range of the axis.
    """

    arm: str
    lines: Sequence[Sequence[float]]
    kept: Sequence[bool]


def gain_figure(
    rows: Sequence[GainRow],
    *,
    name: str,
    label: str,
    limits: tuple[float, float],
    width: float = 4.95,
) -> str:
    """Draw paired gains: a dot for each seed, mean and interval above them, row by row.

    Args:
        rows: From top to bottom.
        name: Prefix of the identifiers inside; unique on a page.
        label: Title of the axis.
        limits: Range of the axis in points, so that two figures can share it.
        width: Of the figure, in inches.
    """
    with canvas(width, 0.75 + 0.55 * len(rows)) as (figure, axes):
        axes.axvline(0, color=INK, linewidth=0.9, zorder=1)
        for height, row in enumerate(reversed(rows)):
            colour = ARM_COLOURS["distilled" if row.clear else "classical_twin"]
            if row.interval is not None:
                axes.plot(row.interval, [height + 0.1] * 2, color=colour, linewidth=2.4)
                for end in row.interval:
                    axes.plot([end] * 2, [height, height + 0.2], color=colour, linewidth=1.2)
            if row.mean is not None:
                axes.plot(row.mean, height + 0.1, marker="D", markersize=7, color=colour)
            else:
                axes.text(0, height, "  no pair is left", va="center", color=SOFT)
            axes.plot(
                row.differences,
                [height - 0.22] * len(row.differences),
                linestyle="none",
                marker="o",
                markersize=5.5,
                markerfacecolor=colour,
                markeredgecolor="none",
                alpha=0.45,
            )
        axes.set(xlim=limits, ylim=(-0.6, len(rows) - 0.4), xlabel=label)
        axes.set_yticks(range(len(rows)), [row.label for row in reversed(rows)])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_axisbelow(True)
        axes.xaxis.set_major_formatter(
            lambda value, _: f"{value:+g}".replace("-", "−") if value else "0"
        )
        return svg_element(figure, name=name, title=label)


def curves_figure(
    arms: Sequence[Curves], *, name: str, title: str, unit: str = "", share: bool = False
) -> str:
    """Draw a figure of training over epochs: each seed thin, their mean bold.

    Args:
        arms: What is drawn.
        name: Prefix of the identifiers inside; unique on a page.
        title: What is drawn, for readers who cannot see it.
        unit: Label of the vertical axis.
        share: Whether values are shares, shown in percent.
    """
    with canvas(3.25, 2.45) as (figure, axes):
        shown: list[float] = []
        for arm in arms:
            draw = partial(axes.plot, color=arm_colour(arm.arm))
            for line in arm.lines:
                draw(*_thinned(line), linewidth=0.8, alpha=0.5)
            kept = [line for line, keep in zip(arm.lines, arm.kept, strict=True) if keep and line]
            shown += [value for line in kept for value in line if np.isfinite(value)]
            if kept:
                epochs = min(map(len, kept))
                mean = np.mean([line[:epochs] for line in kept], axis=0)
                draw(
                    *_thinned(mean),
                    marker="o" if epochs == 1 else "",
                    linestyle=arm_style(arm.arm).line or "-",
                    linewidth=2,
                )
        if shown:
            low, high = min(shown), max(shown)
            margin = 0.05 * (high - low) or 0.05
            axes.set_ylim(low - margin, high + margin)
        _label_epochs(axes)
        axes.set_ylabel(unit)
        axes.grid(axis="y")
        if share:
            axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        return svg_element(figure, name=name, title=f"{title} over epochs")


def confusion_figure(
    counts: Sequence[Sequence[int]], classes: Sequence[str], *, name: str, arm: str, title: str
) -> str:
    """Draw confusion in percent of each row (row = label, column = choice).

    Args:
        counts: Images, row = label, column = choice.
        classes: Names in the order of the rows.
        name: Prefix of the identifiers inside; unique on a page.
        arm: Whose colour it takes.
        title: What it is, for readers who cannot see it.
    """
    from matplotlib.patches import Rectangle

    matrix = np.asarray(counts, dtype=float)
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    long = max(map(len, classes)) > 3
    with canvas(3.25, 3.25) as (figure, axes):
        for (row, column), value in np.ndenumerate(shares):
            axes.add_patch(
                Rectangle(
                    (column - 0.47, row - 0.47),
                    0.94,
                    0.94,
                    facecolor=arm_colour(arm),
                    alpha=0.04 + 0.96 * value,
                    linewidth=0,
                    in_layout=False,
                )
            )
            if value >= 0.005:
                axes.text(
                    column,
                    row,
                    f"{100 * value:.0f}",
                    ha="center",
                    va="center",
                    fontsize=7.5,
                    color=PAPER if value > 0.55 else INK,
                    in_layout=False,  # measuring a hundred of them takes most of the time
                )
        size = len(classes)
        axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
        names = [_shortened(name) for name in classes]
        axes.set_xticks(range(size), names, rotation=90 if long else 0)
        axes.set_yticks(range(size), names)
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="chosen", ylabel="label")
        return svg_element(figure, name=name, title=title)


def outcome_figure(
    distributions: Sequence[Sequence[float]],
    bins: Sequence[int],
    classes: Sequence[str],
    *,
    name: str,
    arm: str,
    title: str,
) -> str:
    """Draw mean outcome probabilities of each class (row), the outcomes side by side in their bins.

    Args:
        distributions: Probability of each outcome, class by class.
        bins: Class that each outcome counts for.
        classes: Their names.
        name: Prefix of the identifiers inside; unique on a page.
        arm: Whose colour it has.
        title: What is drawn, for readers who cannot see it.
    """
    from matplotlib.patches import Rectangle

    probabilities = np.asarray(distributions, dtype=float)
    order = np.argsort(bins, kind="stable")
    edges = np.cumsum(np.bincount(bins, minlength=len(classes)))
    strongest, size = max(float(probabilities.max()), 1e-12), len(classes)
    with canvas(4.95, 0.9 + 0.34 * size) as (figure, axes):
        for row, (line, label) in enumerate(zip(probabilities, range(size), strict=True)):
            for column, outcome in enumerate(order):
                axes.add_patch(
                    Rectangle(
                        (column, row - 0.42),
                        1,
                        0.84,
                        facecolor=arm_colour(arm),
                        alpha=float(line[outcome]) / strongest,
                        linewidth=0,
                        in_layout=False,
                    )
                )
            share = float(line[np.asarray(bins) == label].sum())
            axes.text(len(order) + 1, row, f"{100 * share:.0f} %", va="center", fontsize=8)
        for edge in edges[:-1]:
            axes.axvline(edge, color=INK, linewidth=0.8)
        axes.set(xlim=(0, len(order)), ylim=(size - 0.5, -0.5))
        middles = (edges + np.concatenate([[0], edges[:-1]])) / 2
        axes.set_xticks(middles, [_shortened(name) for name in classes])
        axes.set_yticks(range(size), [_shortened(name) for name in classes])
        axes.tick_params(length=0, labelsize=8)
        axes.spines[:].set_visible(False)
        axes.set(xlabel="outcomes, by the class that they count for", ylabel="label")
        return svg_element(figure, name=name, title=title)


def paired_figure(
    arms: Mapping[str, tuple[Sequence[float], Sequence[float]]], *, name: str, target: str
) -> str:
    """Draw accuracy without and with noise on the same images: a line for each seed, the mean bold.

    Args:
        arms: Exact and sampled accuracies as shares, one for each seed, by arm.
        name: Prefix of the identifiers inside; unique on a page.
        target: Where it was sampled.
    """
    with canvas(1.1 + 1.15 * len(arms), 2.6) as (figure, axes):
        ticks: list[float] = []
        for number, (arm, (exact, sampled)) in enumerate(arms.items()):
            ends = [2.0 * number, 2.0 * number + 1]
            ticks += ends
            draw = partial(axes.plot, color=arm_colour(arm), marker=arm_style(arm).marker)
            for pair in zip(exact, sampled, strict=True):
                draw(ends, pair, linewidth=0.9, markersize=3.5, alpha=0.45)
            means = [float(np.mean(exact)), float(np.mean(sampled))]
            draw(ends, means, linewidth=2.4, markersize=6)
        axes.set_xlim(-0.45, ticks[-1] + 0.45)
        axes.set_xticks(ticks, ["exact", "sampled"] * len(arms))
        axes.margins(y=0.08)
        axes.grid(axis="y")
        axes.tick_params(axis="x", length=0)
        axes.set_ylabel("test accuracy")
        axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g} %")
        title = f"Accuracy exact and on {target}, the same images"
        return svg_element(figure, name=name, title=title)


def arm_style(arm: str) -> Style:
    """Return how an arm is drawn in every figure."""
    return ARMS[arm].style if arm in ARMS else Style()


def arm_colour(arm: str) -> str:
    """Return the colour of an arm in every figure."""
    return arm_style(arm).colour


def _thinned(line: Sequence[float]) -> tuple[Any, Any]:
    """Return epochs (from 1) and values of a line, at most MOST_POINTS; gaps if not finite."""
    chosen = np.unique(np.linspace(0, len(line) - 1, min(len(line), MOST_POINTS)).round())
    rows = chosen.astype(int)
    values = np.asarray(line, dtype=float)[rows]
    return rows + 1, np.where(np.isfinite(values), values, np.nan)


def _label_epochs(axes: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))


def _shortened(name: str, most: int = 11) -> str:
    return name if len(name) <= most else name[: most - 1] + "…"
