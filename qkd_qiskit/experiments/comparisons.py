"""Which arms are compared with which, and what the paired seeds say of each pair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from qkd_qiskit.experiments.results import (
    BASELINE,
    FULL_TWIN,
    NOISE_AWARE,
    TREATMENT,
    TWIN,
    Comparison,
    Result,
)
from qkd_qiskit.experiments.statistics import compare, holm
from qkd_qiskit.recipe import Arm

BEFORE: dict[str, Arm] = {TREATMENT: "distilled_before", BASELINE: "label_only_before"}
TUNED, REPLICATE, TRANSFER = "label_only_tuned", "replicate", "transfer"
CONTROLS = (
    BASELINE,
    "scaled_ce",
    "label_smoothing",
    "class_mean_labels",
    "shuffled_teacher",
    "untrained_teacher",
)


def baseline_of(arms: Sequence[str]) -> str | None:
    """The arm that a gain has to beat: label-only with its own settings, else label-only."""
    return next((arm for arm in (TUNED, BASELINE) if arm in arms), None)


def compared_pairs(arms: Sequence[str]) -> list[tuple[str, str]]:
    """Arms that are compared: all with the baseline, the distilled one with every control.

    The replicate is compared with label-only alone, from which it differs by the order of the
    images and nothing else: their difference is noise. What was trained on a device is compared
    with what it was before.
    """
    baseline = baseline_of(arms)
    alone = (baseline, REPLICATE, *BEFORE.values())
    pairs = [(arm, baseline) for arm in arms if arm not in alone]
    pairs += [(BEFORE[TREATMENT], BEFORE[BASELINE]), *BEFORE.items()]
    pairs += [(TREATMENT, arm) for arm in (*CONTROLS, TWIN, FULL_TWIN)]
    pairs += [(NOISE_AWARE, TREATMENT), (REPLICATE, BASELINE)]
    return [(a, b) for a, b in dict.fromkeys(pairs) if a in arms and b in arms and b is not None]


def compare_arms(result: Result) -> tuple[Comparison, ...]:
    """Compare the arms of a result on each of its targets.

    p is corrected for the number of all comparisons that have one.
    """
    comparisons = []
    for target in result.targets:
        for arm, baseline in compared_pairs(list(result.arms)):
            kept = result.kept_rows(arm, baseline, target=target)
            test = compare(*(result.accuracies(name, target, kept) for name in (arm, baseline)))
            evaluated = result.kept_rows(target=target)
            left_out = tuple(str(result.seeds[row]) for row in evaluated if row not in kept)
            comparisons.append(
                Comparison(
                    arm=arm, baseline=baseline, target=target, left_out=left_out, **vars(test)
                )
            )
    tested = [entry.p for entry in comparisons if entry.p is not None]
    corrected = iter(holm(tested))
    return tuple(
        entry if entry.p is None else replace(entry, p_holm=next(corrected))
        for entry in comparisons
    )
