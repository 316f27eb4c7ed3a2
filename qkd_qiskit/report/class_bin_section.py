"""The part of a report that shows what summing outcomes into class bins has learned."""

from __future__ import annotations

from collections import Counter

from qkd_qiskit.experiments.results import Result
from qkd_qiskit.report.figures import outcome_figure
from qkd_qiskit.report.html import Markup, panel, panels, section
from qkd_qiskit.report.text import arm_name

_START = "start"


def class_bin_section(result: Result) -> Markup:
    """Return outcome distributions per class before and after training; empty without bins."""
    outcomes = result.outcomes
    if outcomes is None:
        return Markup()
    figures = []
    for arm, distributions in outcomes.distributions.items():
        title = "Before training" if arm == _START else f"After training: {arm_name(arm)}"
        svg = outcome_figure(
            distributions,
            outcomes.bins,
            result.classes,
            name=f"outcomes-{arm}",
            arm=arm,
            title=f"{title}: outcome probabilities of each class",
        )
        figures.append(panel(title, svg))
    sizes = Counter(outcomes.bins)
    listed = ", ".join(str(sizes[label]) for label in range(len(result.classes)))
    caption = (
        f"Mean outcome probabilities of the test {result.sample}s of each class "
        f"(row), seed {outcomes.seed}, exact; the darker, the likelier, each figure on its own "
        f"scale. {len(outcomes.bins)} outcomes in bins of {listed}. To the right: how much "
        "probability lies in the class's own bin, on average."
    )
    return section("What the outcomes stand for", panels(*figures, caption=caption))
