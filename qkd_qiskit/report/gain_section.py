"""Paired gains as figures: a dot for each pair of students, their mean and its interval."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.experiments.results import COMPARISONS, Comparison, Result
from qkd_qiskit.experiments.statistics import Gain, differences
from qkd_qiskit.report.figures import GainRow, gain_figure
from qkd_qiskit.report.html import Markup, element, panel, panels, section
from qkd_qiskit.report.text import arm_name, best_case, conditions, seeds_text


def gain_section(result: Result) -> Markup:
    """Return the gains of a run, a figure for each pair of arms."""
    shown = {
        title: [
            gain_row(result, gain, arms=arms, target=name, label=name)
            for name, gain in result.gains(key).items()
        ]
        for key, arms in COMPARISONS.items()
        if result.gains(key)
        for title in [" − ".join(arm_name(arm) for arm in arms).capitalize()]
    }
    if not shown:
        return section("Gain", element("p", "The run has no pair of arms to compare."))
    limits = gain_limits([row for rows in shown.values() for row in rows])
    figures = [
        panel(
            title,
            gain_figure(rows, name=f"gain{number}", label="points of test accuracy", limits=limits),
        )
        for number, (title, rows) in enumerate(shown.items())
    ]
    where = "; ".join(f"{name}: {conditions(result, name)}" for name in result.targets)
    return section(
        "Gain",
        panels(
            *figures,
            caption="Each dot is the difference of one pair of students with the same seed; the "
            "diamond is their mean, the bar its 95\u202f% interval (paired t). "
            f"{seeds_text(result)}. {where}. {best_case(result)}",
        ),
    )


def gain_row(
    result: Result,
    gain: Gain | Comparison,
    *,
    arms: tuple[str, str],
    target: str,
    label: str,
    clear: bool = True,
) -> GainRow:
    """Return one line of a gain figure.

    Args:
        result: Of the run.
        gain: Mean and interval of the gain.
        arms: What gains, and over what.
        target: Where both were evaluated.
        label: What the line is called.
        clear: Whether the gain is told from zero; else it is grey.
    """
    kept = result.kept_rows(*arms, target=target)
    treated, compared = (result.accuracies(arm, target, kept) for arm in arms)
    return GainRow(
        label=label,
        differences=differences(treated, compared),
        mean=gain.mean,
        interval=gain.ci95,
        clear=clear,
    )


def gain_limits(rows: Sequence[GainRow]) -> tuple[float, float]:
    """Return a range in points that holds every dot, interval and zero."""
    values = [value for row in rows for value in (*row.differences, *(row.interval or ()), 0.0)]
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin
