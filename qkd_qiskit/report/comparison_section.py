"""The section of a report that compares arms: forest plot, tests, and what was tuned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qkd_qiskit.experiments.comparisons import CONTROLS, REPLICATE, TRANSFER, TUNED, baseline_of
from qkd_qiskit.experiments.results import TREATMENT
from qkd_qiskit.report.figures import gain_figure
from qkd_qiskit.report.gain_section import gain_limits, gain_row
from qkd_qiskit.report.html import Markup, element, join, panel, panels, section, table
from qkd_qiskit.report.text import NONE, arm_name, count, interval, points

_HEADER = ["", "gain, points", "bootstrap", "p", "p (Holm)", "effect", "pairs", "for 1 point"]
_LEVEL = 0.05
_WIDTH = 8.2  # inches


def comparison_section(result: Mapping[str, Any]) -> Markup:
    """Every comparison of the run; nothing where it has no two seeds to compare."""
    found = [entry for entry in result.get("comparisons", []) if entry["ci95"] is not None]
    if not found:
        return Markup()
    targets = list(dict.fromkeys(entry["target"] for entry in found))
    figures = [
        panel(target, _forest(result, [entry for entry in found if entry["target"] == target]))
        for target in targets
    ]
    tests = sum(entry["p_holm"] is not None for entry in found)
    return section(
        "Is it real?",
        *(element("p", text) for text in _texts(result)),
        panels(
            *figures,
            caption="Each dot is the difference of one pair of students with the same seed; the "
            "diamond is their mean, the bar its 95\u202f% interval (paired t). Grey: Holm's p is "
            f"{_LEVEL:g} or more.",
        ),
        table(
            _HEADER,
            [[[target], *map(_row, _of(found, target))] for target in targets],
            caption="Gain: mean of the paired differences and its 95\u202f% t interval. Bootstrap: "
            "bias-corrected and accelerated 95\u202f% interval of the same mean. p: paired t test, "
            f"two-sided; p (Holm): corrected for the {count(tests, 'test')} of this table. Effect: "
            "Cohen's d_z. For 1 point: the seeds that tell such a gain from zero with a power of "
            "0.8, given the spread of these pairs. A pair of which a student failed to train is "
            "left out and counted.",
        ),
    )


def _of(found: Sequence[Mapping[str, Any]], target: str) -> list[Mapping[str, Any]]:
    return [entry for entry in found if entry["target"] == target]


def _texts(result: Mapping[str, Any]) -> list[str]:
    """What has to be known to read the comparisons."""
    arms, said = list(result["arms"]), []
    tuning = result.get("tuning")
    if tuning is not None:
        chosen = tuning["chosen"]
        said.append(
            f"The baseline is the label-only student with settings of its own: learning rate "
            f"{chosen['lr']:g}, weight decay {chosen['weight_decay']:g}, "
            f"{count(chosen['epochs'], 'epoch')}, the best of {count(len(tuning['tried']))} on "
            f"validation images over {count(len(tuning['seeds']), 'seed')}."
        )
    elif baseline_of(arms) is not None:
        said.append(
            "The label-only student has the settings of the distilled one, which may not be its "
            f"best: the arm {TUNED} has its own."
        )
    controls = [arm_name(arm) for arm in CONTROLS[1:] if arm in arms]
    if controls:
        said.append(
            f"Controls ({', '.join(controls)}) keep the loss and take away what the teacher knows "
            "of the single image: what they gain as well is not the teacher's doing."
        )
    noise = [entry for entry in result["comparisons"] if entry["arm"] == REPLICATE]
    if noise and noise[0]["ci95"] is not None:
        said.append(
            "The replicate differs from label only by the order of the images alone, by "
            f"{points(noise[0]['mean'])} points ({interval(noise[0])}): the floor of the noise."
        )
    if TRANSFER in arms:
        said.append(
            "The arm transfer sees images that the others do not, labelled by the teacher: its "
            "gain is not that of distillation on equal images."
        )
    return said


def _forest(result: Mapping[str, Any], found: Sequence[Mapping[str, Any]]) -> str:
    target = found[0]["target"]
    rows = [
        gain_row(
            result,
            entry,
            arms=(entry["arm"], entry["baseline"]),
            target=target,
            label=_pair_name(entry),
            clear=entry["p_holm"] is not None and entry["p_holm"] < _LEVEL,
        )
        for entry in found
    ]
    return gain_figure(
        rows,
        name=f"forest-{list(result['targets']).index(target)}",
        label="points of test accuracy",
        limits=gain_limits(rows),
        width=_WIDTH,
    )


def _pair_name(entry: Mapping[str, Any]) -> str:
    return f"{arm_name(entry['arm'])} − {arm_name(entry['baseline'])}"


def _row(entry: Mapping[str, Any]) -> list[object]:
    name = _pair_name(entry)
    needed = entry["seeds_needed"]["1"]
    left_out = len(entry["left_out"])
    note = [element("span", f"{left_out} failed", class_="small")] if left_out else []
    effect = NONE if entry["effect"] is None else f"{entry['effect']:+.2f}".replace("-", "−")
    return [
        element("strong", name) if entry["arm"] == TREATMENT else name,
        join([points(entry["mean"]), _span(entry["ci95"])]),
        NONE if entry["bootstrap95"] is None else _span(entry["bootstrap95"]),
        _p(entry["p"]),
        _p(entry["p_holm"]),
        effect,
        join([str(entry["seeds"]), *note]),
        NONE if needed is None else count(needed),
    ]


def _span(ends: Sequence[float]) -> Markup:
    return element("span", f"{points(ends[0])} to {points(ends[1])}", class_="small")


def _p(value: float | None) -> str:
    if value is None:
        return NONE
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
