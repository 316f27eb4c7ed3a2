"""What recalibration has changed: maps, how sure they are, what they cost and bring."""

from __future__ import annotations

from statistics import fmean

from qkd_qiskit.experiments.recalibration import SUFFIX
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.target_summary import RecalibrationSummary
from qkd_qiskit.report.html import Markup, section, table
from qkd_qiskit.report.text import arm_name, count, percent
from qkd_qiskit.targets.recalibration import Kind

_KINDS: dict[Kind, str] = {
    "affine": "an affine map of the outputs",
    "diagonal": "a scale and a shift of each output",
    "head": "a head that was fitted again",
}


def recalibration_section(result: Result) -> list[Markup]:
    """Return a table for each target with corrected figures; nothing without one."""
    tables = [
        _table(result, key)
        for key, target in result.targets.items()
        if target.recalibration is not None and key.removesuffix(SUFFIX) in result.targets
    ]
    return [section("Recalibration", *tables)] if tables else []


def _table(result: Result, key: str) -> Markup:
    """Return what the maps of a target have changed, an arm a row."""
    raw, summary = key.removesuffix(SUFFIX), result.targets[key].recalibration
    assert summary is not None
    rows: list[list[object]] = []
    for arm in result.arms:
        both = [
            [
                [value for row in kept if (value := column[row]) is not None]
                for column in (metrics.accuracy, metrics.exact_accuracy, metrics.calibration_error)
            ]
            for metrics in (result.arms[arm][raw], result.arms[arm][key])
            for kept in [result.kept_rows(arm, target=key)]
        ]
        if both[0][0]:
            (before, exact, error_before), (after, _, error_after) = both
            rows.append(
                [
                    arm_name(arm),
                    *(percent(fmean(values)) for values in (exact, before, after)),
                    *(f"{fmean(values):.3f}" for values in (error_before, error_after)),
                ]
            )
    heads = ["", "exact", "as measured", "recalibrated", "calibration error", "recalibrated"]
    caption = map_sentence(summary, calibrated=result.targets[key].calibration_date)
    return table(heads, [[[raw]], rows], caption=caption)


def map_sentence(summary: RecalibrationSummary, *, calibrated: str | None = None) -> str:
    """Return what a map is, how old, how large its correction and how sure.

    Args:
        summary: The maps.
        calibrated: ISO date of the calibration of the target on which they were used.
    """
    shots = "exact probabilities" if summary.shots is None else count(summary.shots, "shot")
    date = summary.fitted[:10]
    parts = [
        f"Corrected by {_KINDS[summary.kind]}",
        f"fitted {date} ({_age(summary.age_days)}) to {count(summary.images, 'unlabelled image')}",
        shots,
    ]
    if summary.calibration_date is not None:
        other = calibrated not in (None, summary.calibration_date)
        used = f", used on that of {calibrated}" if other else ""
        parts.append(f"calibration of {summary.calibration_date}{used}")
    if summary.qpu_seconds is not None:
        parts.append(f"{summary.qpu_seconds:.1f} QPU seconds a student")
    return (
        f"{', '.join(parts)}. It changes outputs by {summary.correction:.0%} of their spread. "
        f"Images that were left out of the fit: {summary.agreement:.1%} choose as without noise, "
        f"{summary.agreement_before:.1%} before."
    )


def _age(days: float) -> str:
    if days < 1:
        return "less than a day before"
    return f"{count(round(days), 'day')} before"
