"""The part of a report that shows what summing outcomes into class bins has learned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from qkd_qiskit.report.figures import outcome_figure
from qkd_qiskit.report.html import Markup, panel, panels, section
from qkd_qiskit.report.text import arm_name

_START = "start"


def class_bin_section(result: Mapping[str, Any]) -> Markup:
    """The outcome distribution per class before and after training; empty without class bins."""
    told = result.get("outcomes")
    if not told:
        return Markup()
    figures = []
    for arm, distributions in told["distributions"].items():
        title = "Before training" if arm == _START else f"After training: {arm_name(arm)}"
        svg = outcome_figure(
            distributions,
            told["bins"],
            result["classes"],
            name=f"outcomes-{arm}",
            arm=arm,
            title=f"{title}: outcome probabilities of each class",
        )
        figures.append(panel(title, svg))
    sizes = Counter(told["bins"])
    listed = ", ".join(str(sizes[label]) for label in range(len(result["classes"])))
    caption = (
        f"Mean outcome probabilities of the test {result.get('sample', 'image')}s of each class "
        f"(row), seed {told['seed']}, exact; the darker, the likelier, each figure on its own "
        f"scale. {len(told['bins'])} outcomes in bins of {listed}. To the right: how much "
        "probability lies in the class's own bin, on average."
    )
    return section("What the outcomes stand for", panels(*figures, caption=caption))
