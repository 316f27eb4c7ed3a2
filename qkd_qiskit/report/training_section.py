"""The sections on what was learned: the curves of the training, and which classes are confused."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.distillation.trainer import WATCHED
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe.arms import BASELINE, BEFORE, FULL_TWIN, NOISE_AWARE, TREATMENT, TWIN
from qkd_qiskit.report.figures import Curves, confusion_figure, curves_figure
from qkd_qiskit.report.html import Markup, element, panel, panels, section
from qkd_qiskit.report.tables import legend
from qkd_qiskit.report.text import arm_name, conditions, count, seeds_text, training_place

_DRAWN, _MOST_DRAWN = (BASELINE, TREATMENT, NOISE_AWARE, TWIN, FULL_TWIN), 5


def training_section(folder: RunFolder, result: Result) -> Markup:
    """Return curves of accuracy and loss terms over the epochs."""
    trained = [arm for arm in result.arms if arm not in BEFORE.values()]
    arms = [arm for arm in trained if arm in _DRAWN or len(trained) <= _MOST_DRAWN]
    histories = {arm: [folder.metrics(arm, seed) for seed in result.seeds] for arm in arms}
    histories = {arm: lines for arm, lines in histories.items() if any(lines)}
    if not histories:
        return section("Training", element("p", "The folder has no metrics of the training."))

    def curves(key: str) -> list[Curves]:
        return [
            Curves(
                arm=arm,
                lines=[[epoch.to_json()[key] for epoch in line] for line in lines],
                kept=[row in result.kept_rows(arm) for row in range(len(lines))],
            )
            for arm, lines in histories.items()
        ]

    spec = folder.recipe.distill
    maps, feature_term = spec.feature_weight > 0, ""
    if maps:
        feature_term = (
            f" + {spec.feature_weight:g} × mean squared difference of the feature maps (layer "
            f"{spec.teacher_layer} of the teacher, {spec.student_layer} of the student)"
        )
    other_terms = "".join(f" + {term.weight:g} × {term.loss}" for term in spec.other_terms)
    softened = spec.temperature if spec.student_temperature is None else spec.student_temperature
    kept = "of the last epoch" if spec.selection == "last" else "of the best validation accuracy"
    drawn = (
        ("validation_accuracy", "Validation accuracy", ""),
        ("ce", "Cross-entropy with the labels", "nats"),
        ("kd", "Divergence from the teacher", "nats"),
        *([("feature", "Difference of feature maps", "mean square")] if maps else []),
        *((term.loss, f"Loss {term.loss}", "mean") for term in spec.other_terms),
    )
    return section(
        "Training",
        legend(list(histories)),
        panels(
            *(
                panel(
                    title,
                    curves_figure(curves(key), name=key, title=title, unit=unit, share=not unit),
                )
                for key, title, unit in drawn
            ),
            caption=f"Each seed thin, the mean bold, {seeds_text(result)}; losses are means "
            "over what an epoch trains on. Distilled students minimise "
            f"{spec.ce_weight:g} × cross-entropy + {spec.kd_weight:g} × divergence"
            f"{feature_term}{other_terms}, label-only "
            f"students the cross-entropy alone. The divergence is {softened:g}² × KL(teacher ‖ "
            f"student), the teacher softened by {spec.temperature:g}, the student by "
            f"{softened:g}. The weights {kept} are kept. "
            + (
                f"Validation accuracy before it is of {count(WATCHED)} images at most. "
                if spec.selection == "last"
                else ""
            )
            + ("Other arms are in the folder. " if len(arms) < len(trained) else "")
            + training_place(folder.recipe, result),
        ),
    )


def confusion_section(result: Result) -> Markup:
    """Return which classes the teacher and the students take for which."""
    target = next(iter(result.targets))
    shown: list[Markup] = []
    teacher = result.teacher.confusion
    if teacher is not None:
        shown.append(_confusion_panel(result, teacher, arm="teacher"))
    for arm in (BASELINE, TREATMENT):
        rows = result.kept_rows(arm, target=target) if arm in result.arms else []
        if rows:
            confusions = result.arms[arm][target].confusion
            matrices = [matrix for row in rows if (matrix := confusions[row]) is not None]
            total = [
                [sum(cells) for cells in zip(*lines, strict=True)]
                for lines in zip(*matrices, strict=True)
            ]
            shown.append(_confusion_panel(result, total, arm=arm))
    return section(
        "Confusion",
        panels(
            *shown,
            caption="Of 100 in a class (row) of the test set, how many were taken for which "
            "(column). "
            f"Students: summed over {seeds_text(result)}, {target} ({conditions(result, target)}). "
            "Teacher: the whole test set.",
        ),
    )


def _confusion_panel(result: Result, counts: Sequence[Sequence[int]], *, arm: str) -> Markup:
    classes = result.classes or [str(label) for label in range(len(counts))]
    title = f"Confusion of {arm_name(arm)}, row = label, column = choice"
    svg = confusion_figure(counts, classes, name=f"confusion-{arm}", arm=arm, title=title)
    return panel(arm_name(arm).capitalize(), svg)
