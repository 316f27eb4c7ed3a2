"""Which arms are compared with which, and what the paired seeds say of each pair."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from qkd_qiskit.experiments.results import (
    BASELINE,
    FULL_TWIN,
    NOISE_AWARE,
    TREATMENT,
    TWIN,
    kept_rows,
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


def compare_arms(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The comparisons of a result, on each of its targets.

    Each entry has arm, baseline, target, left_out (seeds at which one of the two failed to train),
    what `statistics.compare` says, and p_holm: p corrected for the number of all entries that have
    one.
    """
    found = []
    for target in result["targets"]:
        for arm, baseline in compared_pairs(list(result["arms"])):
            kept = kept_rows(result, arm, baseline, target=target)
            treated, compared = (
                [result["arms"][name][target]["accuracy"][row] for row in kept]
                for name in (arm, baseline)
            )
            evaluated = kept_rows(result, target=target)
            left_out = [str(result["seeds"][row]) for row in evaluated if row not in kept]
            names = {"arm": arm, "baseline": baseline, "target": target, "left_out": left_out}
            found.append(names | compare(treated, compared) | {"p_holm": None})
    tested = [entry for entry in found if entry["p"] is not None]
    for entry, corrected in zip(tested, holm([entry["p"] for entry in tested]), strict=True):
        entry["p_holm"] = corrected
    return found
