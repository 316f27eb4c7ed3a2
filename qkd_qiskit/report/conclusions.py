"""What a run concludes: whether distillation helped, or what is open and what it would take.

A conclusion needs three things: Holm's p over all comparisons of the result below 0.05, at least
five pairs, and a spread between them. Otherwise the sentence says which is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from qkd_qiskit.experiments.results import Comparison, Result, TwinChoice
from qkd_qiskit.experiments.statistics import LEAST_PAIRS, LEVEL, Gain, seeds_for_effect
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.arms import BASELINE, FULL_TWIN, SAME_DRAW, TREATMENT, TUNED, TWIN
from qkd_qiskit.report.text import arm_name, count, points

Verdict = Literal["up", "down", "open"]


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """One answer of a run.

    Attributes:
        verdict: Whether the arm is ahead (up), behind (down), or that is open.
        sentence: The answer, with its figures.
    """

    verdict: Verdict
    sentence: str


def conclusions(result: Result, target: str) -> list[Conclusion]:
    """Return whether distillation helped on a target, then how it stands against the twins.

    Over the label-only arm with settings of its own, where the run has it. Between the two what a
    teacher brings that has seen no other images than the student, where the run has that arm.
    """
    answers = []
    tuned = _gain(result, TREATMENT, TUNED, target)
    gain = tuned or _gain(result, TREATMENT, BASELINE, target)
    tests = sum(entry.p_holm is not None for entry in result.comparisons)
    if gain is not None:
        sentence = distillation_answer(gain, tests=tests, tuned=tuned is not None)
        answers.append(Conclusion(verdict=verdict(gain), sentence=sentence))
    for baseline in (TUNED, BASELINE):
        gain = result.comparison(SAME_DRAW, baseline, target)
        if gain is not None and gain.mean is not None:
            start = f"With a teacher of the student's own images alone: {points(gain.mean)} points"
            sentence = _ended(start, gain, tests=tests, up="it helped", down="it harmed")
            answers.append(Conclusion(verdict=verdict(gain), sentence=sentence))
            break
    twins = {TWIN: "classical twin", FULL_TWIN: "full-size twin"}
    if result.twins is not None:
        twins |= {result.twins.best: f"best twin ({arm_name(result.twins.best)})"}
    for arm, name in twins.items():
        gain = _gain(result, TREATMENT, arm, target)
        if gain is not None:
            sentence = twin_answer(gain, tests=tests, twin=name)
            answers.append(Conclusion(verdict=verdict(gain), sentence=sentence))
    return answers


def verdict(gain: Gain | Comparison) -> Verdict:
    """Return what a gain shows; a gain without a test shows nothing."""
    if gain.mean is None or missing_evidence(gain, tests=1):
        return "open"
    return "up" if gain.mean > 0 else "down"


def missing_evidence(gain: Gain | Comparison, *, tests: int) -> str:
    """Return what a conclusion from a gain lacks, and what it would take; empty for nothing.

    Args:
        gain: With an interval.
        tests: Number of comparisons that p is corrected for.
    """
    if gain.seeds < LEAST_PAIRS:
        return f"{gain.seeds} pairs are fewer than the {LEAST_PAIRS} that a conclusion takes"
    if not isinstance(gain, Comparison):
        return "this result holds no test of it"
    if gain.effect is None or gain.p_holm is None:
        return "all pairs differ by the same, and without a spread there is no test"
    if gain.p_holm < LEVEL:
        return ""
    needed = seeds_for_effect(gain.effect)
    enough = "more than 100,000 seeds" if needed is None else f"about {count(needed)} seeds"
    shown = "of this comparison" if tests == 1 else f"over the {tests} comparisons"
    return (
        f"Holm's p {shown} is {gain.p_holm:.2g}, not below {LEVEL:g}; a single test would take "
        f"{enough} to tell a gain of this size from zero"
    )


def distillation_answer(gain: Gain | Comparison, *, tests: int, tuned: bool = False) -> str:
    """Return whether distillation helped, in one sentence.

    Args:
        gain: The paired gain.
        tests: Number of comparisons that its p is corrected for.
        tuned: Whether it is over label-only students with settings of their own.
    """
    if gain.mean is None:
        return (
            "No pair of trained students is left: this run cannot say whether distillation helped."
        )
    verb = "gained" if gain.mean > 0 else "changed test accuracy by"
    unit = "points of test accuracy" if gain.mean > 0 else "points"
    over = " over label-only students with settings of their own" if tuned else ""
    start = f"Distillation {verb} {points(gain.mean)} {unit}{over}"
    return _ended(start, gain, tests=tests, up="it helped", down="it harmed")


def twin_answer(gain: Gain | Comparison, *, tests: int, twin: str = "classical twin") -> str:
    """Return how the distilled student stands against a twin without a circuit, in one sentence."""
    if gain.mean is None:
        return f"Against the {twin}: no pair of trained students is left."
    start = f"Against its {twin}, the distilled student: {points(gain.mean)} points"
    return _ended(start, gain, tests=tests, up="the student is ahead", down="the twin is ahead")


def interval(gain: Gain | Comparison) -> str:
    """Return the interval of a gain, and how many pairs it comes from; empty without one."""
    if gain.ci95 is None:
        return ""
    low, high = gain.ci95
    pairs = f"{gain.seeds} paired seeds"
    return f"95\u202f% interval {points(low)} to {points(high)}, {pairs}"


def reminders(recipe: Recipe, result: Result) -> list[str]:
    """Return what has to be known to read the answer rightly, a sentence or two each."""
    sentences = []
    gains = [(gain, gain.ci95) for gain in result.gain.values() if gain.ci95 is not None]
    if gains and gains[0][0].seeds < LEAST_PAIRS:
        low, high = gains[0][1]
        sentences.append(
            f"{gains[0][0].seeds} seeds are few: with their spread, only a gain beyond "
            f"±{points((high - low) / 2)[1:]} points would have been told from zero here. "
            "More seeds narrow the interval: qkd study trains ten, with a tuned baseline and "
            "controls."
        )
    if gains:
        sentences.append(
            "The interval covers what differs between seeds (draw of training data, its order, "
            "initialisation, shots). Teacher, validation split and test set are the same in "
            "all. Each target has its own interval; p values are corrected for their number."
        )
    if TWIN in result.arms:
        sentences.append(
            "The classical twin is trained with the student's settings; it may be better with "
            "settings of its own."
        )
    elif result.twins is None and recipe.student.kind != "classical":
        sentences.append(
            "No classical twin was trained, so this run cannot say whether the circuit is needed "
            "(--arms label_only,distilled,classical_twin)."
        )
    if result.twins is not None:
        sentences.append(twin_choice(result.twins))
    return sentences


def twin_choice(twins: TwinChoice) -> str:
    """Return which twin is the best, and the sizes of all, in a sentence."""
    sizes = ", ".join(f"{arm_name(arm)} {count(size)}" for arm, size in twins.parameters.items())
    return (
        f"The best twin is {arm_name(twins.best)}, by mean accuracy on validation images. Trained "
        f"numbers: {sizes}."
    )


def missing_answer(arms: Sequence[str]) -> str:
    """Return why there is no answer in a run that lacks an arm."""
    missing = " and ".join(arm_name(arm) for arm in (BASELINE, TREATMENT) if arm not in arms)
    return f"This run has no arm `{missing}`: it cannot say whether distillation helped."


def _ended(start: str, gain: Gain | Comparison, *, tests: int, up: str, down: str) -> str:
    if gain.ci95 is None:
        return f"{start} with one paired seed: no interval, so no conclusion."
    missing = missing_evidence(gain, tests=tests)
    end = f"open, as {missing}" if missing else up if verdict(gain) == "up" else down
    return f"{start} ({interval(gain)}): {end}."


def _gain(result: Result, arm: str, baseline: str, target: str) -> Gain | Comparison | None:
    """Return the comparison of two arms, or what a result without comparisons has of it."""
    names = {BASELINE: "gain", TWIN: "gain_over_twin", FULL_TWIN: "gain_over_full"}
    gains = result.gains(names[baseline]) if baseline in names else {}
    return result.comparison(arm, baseline, target) or gains.get(target)
