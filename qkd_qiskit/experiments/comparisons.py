"""Which arms are compared with which, and what the paired seeds say of each pair."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from qkd_qiskit.experiments.results import Comparison, Result
from qkd_qiskit.experiments.statistics import compare, holm
from qkd_qiskit.recipe.arms import ARMS, BASELINE, COUNTING_BASELINE, TREATMENT, TUNED, Arm


def baseline_of(arms: Collection[str]) -> str | None:
    """Return the arm that a gain has to beat: label-only with its own settings, else label-only."""
    return next((arm for arm in (TUNED, BASELINE) if arm in arms), None)


def compared_pairs(arms: Sequence[str], table: Mapping[str, Arm] = ARMS) -> list[tuple[str, str]]:
    """Return the pairs of arms that are compared: first all with the baseline, then the others.

    The replicate is compared with label-only alone, from which it differs by the order of the
    images and nothing else: their difference is noise. What was trained on a device is compared
    with what it was before.
    """
    baseline = baseline_of(arms)
    pairs = [(arm, baseline) for arm in arms if COUNTING_BASELINE in table[arm].compared_with]
    pairs += [(name, other) for name, arm in table.items() for other in arm.compared_with]
    kept = dict.fromkeys((a, b) for a, b in pairs if a != b and a in arms and b in arms)
    return [(a, b) for a, b in kept if b is not None]


def compare_arms(result: Result, table: Mapping[str, Arm] = ARMS) -> tuple[Comparison, ...]:
    """Compare the arms of a result on each of its targets.

    p is corrected for the number of all comparisons that have one. Of the twins only the best on
    validation images is compared with the distilled student.

    Args:
        result: What is compared in it.
        table: The arms that the recipe of the run can name.
    """
    comparisons = []
    pairs = compared_pairs(list(result.arms), table)
    if result.twins is not None and TREATMENT in result.arms:
        pairs = list(dict.fromkeys([*pairs, (TREATMENT, result.twins.best)]))
    for target in result.targets:
        for arm, baseline in pairs:
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
