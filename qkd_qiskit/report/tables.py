"""The tables of a report: an arm, or what was gained, in every row."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean

from qkd_qiskit.experiments.results import COMPARISONS, Result
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.report.html import Markup, element, join, table
from qkd_qiskit.report.text import (
    NONE,
    PLACES,
    arm_name,
    best_case,
    conditions,
    count,
    measured,
    percent,
    points,
    seeds_text,
    teacher_accuracy,
)

_GAIN_HEADINGS = (
    "gain of distillation, points",
    "distilled − classical twin, points",
    "distilled − full-size twin, points",
    "distilled noisy − distilled, points",
)
Pairs = dict[str, dict[str, tuple[list[float], list[float]]]]
"""Exact and sampled accuracies, one for each seed: target -> arm -> both."""


def accuracy_table(result: Result) -> Markup:
    """Return test accuracy and gains: an arm a row, a target a column."""
    targets = list(result.targets)
    heads = [_target_heading(result, name) for name in targets]
    teacher = [
        teacher_accuracy(result) if result.targets[name].shots is None else NONE for name in targets
    ]
    arms = [
        [_arm_heading(result, arm), *(_spread(result, arm, name, "accuracy") for name in targets)]
        for arm in result.arms
    ]
    gains = [
        [heading, *(_gain_cell(gains[name]) for name in targets)]
        for key, heading in zip(COMPARISONS, _GAIN_HEADINGS, strict=True)
        if (gains := result.gains(key))
    ]
    return table(
        ["", *heads],
        [[[f"teacher ({result.teacher.title})", *teacher]], arms, gains],
        caption=f"Mean and, below it, lowest to highest of {seeds_text(result)}. Gains: mean "
        "of the paired differences in points and its 95\u202f% interval (paired t). "
        f"The teacher is measured on the whole test set. {best_case(result)}",
    )


def teacher_table(result: Result) -> Markup:
    """Return how near the students are to the teacher, and their calibration: a target a group."""
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "agreement": ("agreement with teacher", percent),
        "divergence": ("KL to teacher, nats", "{:.3f}".format),
        "calibration_error": ("calibration error", "{:.3f}".format),
    }
    groups = []
    for name in result.targets:
        heading = _target_heading(result, name)
        group: list[list[object]] = [[heading]]
        group += [
            [
                _arm_heading(result, arm),
                *(_spread(result, arm, name, key, form) for key, (_, form) in columns.items()),
            ]
            for arm in result.arms
        ]
        groups.append(group)
    return table(
        ["", *(title for title, _ in columns.values())],
        groups,
        caption=f"Mean and lowest to highest of {seeds_text(result)}. Agreement: how "
        "often student and teacher choose the same class. KL: divergence from the teacher's "
        "class probabilities at temperature 1, mean over the test set. Calibration error: expected "
        f"calibration error, 15 bins of equal width. {best_case(result)}",
    )


def cost_table(result: Result) -> Markup:
    """Return what the circuit costs on each target; nothing where none compiled it."""
    costs = {
        name: target.circuit
        for name, target in result.targets.items()
        if target.circuit is not None and target.recalibration is None
    }
    if not costs:
        return Markup()
    rows = [
        [
            _target_heading(result, name),
            count(cost.two_qubit_gates),
            count(cost.depth),
            NONE if cost.duration_s is None else f"{1e6 * cost.duration_s:.2f}",
            f"{cost.fidelity:.3f}",
            ", ".join(map(str, cost.layout)),
        ]
        for name, cost in costs.items()
    ]
    header = ["", "two-qubit gates", "depth", "duration, µs", "fidelity", "layout"]
    return table(
        header,
        [rows],
        caption="The circuit as it runs, measurement included. Fidelity: estimate, the product of "
        "1 − error over gates and measurements. Layout: physical qubit of each logical qubit. "
        f"{best_case(result)}",
    )


def device_table(result: Result) -> Markup:
    """Return what was submitted: where, when, how much, and what it cost; a target a row."""
    sent = {
        name: replace(target.device, calibration_date=target.calibration_date)
        for name, target in result.targets.items()
        if target.device is not None and target.recalibration is None
    }
    if result.trained_on is not None:
        sent = {"training": result.trained_on, **sent}
    rows: list[list[object]] = []
    for name, device in sent.items():
        where = PLACES[device.place].format(device.backend)
        seconds, expected = device.qpu_seconds, device.expected_qpu_seconds
        charged = f"about {expected:.1f}" if seconds is None else f"{seconds:.1f}"
        rows.append(
            [
                join([name, _small(f"{where}, {' to '.join(device.submitted)}")]),
                device.calibration_date or "",
                device.mode,
                count(len(device.jobs)),
                count(device.circuits),
                count(device.executions),
                charged,
                f"{device.wait_seconds:.1f}" if device.mode == "session" else NONE,
            ]
        )
    real = [
        f"Jobs of {name}: {', '.join(device.jobs)}."
        for name, device in sent.items()
        if device.place == "device"
    ]
    header = ["", "calibrated", "mode", "jobs", "circuits", "executions", "QPU s", "waits, s"]
    explained = (
        "Circuits: with their values bound. Executions: circuits times shots. Waits: what a "
        "session, which is billed while it is open, waited for this computer between jobs."
    )
    return table(header, [rows], caption=" ".join([explained, *real, *measured(result)]))


def noise_table(result: Result, pairs: Pairs) -> Markup:
    """Return accuracy without and with noise on the same images: a target a group."""
    groups = []
    for target, arms in pairs.items():
        rows: list[list[object]] = [[_target_heading(result, target)]]
        for arm, (exact, sampled) in arms.items():
            change = [100 * (after - before) for before, after in zip(exact, sampled, strict=True)]
            means = percent(fmean(exact)), percent(fmean(sampled))
            rows.append([_arm_heading(result, arm), *means, _with_range(change, points)])
        groups.append(rows)
    return table(
        ["", "exact", "sampled", "change, points"],
        groups,
        caption=f"Means of {seeds_text(result)}; below the change, its lowest to highest. "
        "The classical twin has no circuit: nothing changes.",
    )


def legend(arms: Sequence[str]) -> Markup:
    """Return the colours of arms."""
    entries = [
        element(
            "span",
            element("span", class_=f"swatch {arm.replace('_', '-')}"),
            arm_name(arm),
        )
        for arm in arms
    ]
    return element("p", *entries, class_="legend")


def _target_heading(result: Result, target: str) -> Markup:
    return join([target, _small(conditions(result, target))])


def _arm_heading(result: Result, arm: str) -> Markup:
    failed = len(result.failed.get(arm, {}))
    return join(
        [arm_name(arm), *([_small(f"{failed} of {len(result.seeds)} failed")] if failed else [])]
    )


def _spread(
    result: Result,
    arm: str,
    target: str,
    key: str,
    form: Callable[[float], str] = percent,
) -> object:
    rows = result.kept_rows(arm, target=target)
    column: Sequence[float | None] = getattr(result.arms[arm][target], key)
    values = [value for row in rows if (value := column[row]) is not None]
    if not rows:
        return "all failed"
    return NONE if len(values) < len(rows) else _with_range(values, form)


def _with_range(values: Sequence[float], form: Callable[[float], str]) -> Markup:
    spread = _small(f"{form(min(values))} to {form(max(values))}")
    return join([form(fmean(values)), *([spread] if len(values) > 1 else [])])


def _gain_cell(gain: Gain) -> object:
    if gain.mean is None:
        return "no pair"
    if gain.ci95 is None:
        return join([points(gain.mean), _small("one pair, no interval")])
    low, high = gain.ci95
    return join([points(gain.mean), _small(f"{points(low)} to {points(high)}")])


def _small(text: str) -> Markup:
    return element("span", text, class_="small")
