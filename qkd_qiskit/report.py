"""report.html: what a run found, on one page that loads nothing from elsewhere."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from qkd_qiskit.circuits.openqasm import load_circuit
from qkd_qiskit.drawing import draw_student
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.figures import (
    Curves,
    GainRow,
    confusion_figure,
    curves_figure,
    gain_figure,
    paired_figure,
)
from qkd_qiskit.page import Markup, document, element, join, panel, panels, section, table
from qkd_qiskit.recipe import dump_recipe
from qkd_qiskit.results import BASELINE, TREATMENT, TWIN, kept_rows
from qkd_qiskit.runs import CIRCUIT, RECIPE, REPORT, RESULT, RunFolder
from qkd_qiskit.storage import write_text
from qkd_qiskit.wording import (
    UNDECIDED,
    arm_name,
    best_case,
    conditions,
    count,
    distillation_answer,
    missing_answer,
    percent,
    points,
    reminders,
    seeds_text,
    subject,
    twin_answer,
    verdict,
)

_NONE = "–"
_CONTENTS = {
    RECIPE: "everything the run is; `qkd distill recipe.yaml` repeats it",
    RESULT: "the figures of this page as JSON",
    REPORT: "this page",
    CIRCUIT: "the student's circuit as OpenQASM 3, without measurements",
    "teacher.safetensors": "weights of the teacher",
    "teacher.json": "what the teacher is",
    "journal.jsonl": "jobs on devices",
    "checkpoints": "state of the training, for --resume",
}


def write_report(folder: RunFolder) -> Path:
    """Write report.html into a finished run, and return its path.

    Raises:
        CheckpointError: The run has not ended.
        StorageError: The file could not be written.
    """
    result = folder.result
    if result is None:
        raise CheckpointError(
            f"{folder.path} has no {RESULT}: the run has not ended; continue it with "
            f"qkd distill --resume {folder.path}"
        )
    title, what = subject(folder.recipe, result)
    content = (
        _headline(folder, result, title=title, what=what),
        _figures_section(result),
        _gain_section(result),
        _training_section(folder, result),
        _confusion_section(result),
        _circuit_section(folder, result),
        _noise_section(result),
        _repeat_section(folder, result),
    )
    path = folder.path / REPORT
    write_text(path, document(title, *content))
    return path


def _headline(folder: RunFolder, result: Mapping[str, Any], *, title: str, what: str) -> Markup:
    return element(
        "header",
        element("p", f"Quantum knowledge distillation · {folder.path.name}", class_="kicker"),
        element("h1", title),
        element("p", what),
        *_answers(result),
        element(
            "ul",
            *(
                element("li", text)
                for text in (*reminders(folder.recipe, result), best_case(result))
                if text
            ),
            class_="note",
        ),
        _failures(result),
    )


def _answers(result: Mapping[str, Any]) -> list[Markup]:
    """The answer on each target in a box; without the arms for one, why there is none."""
    boxes = []
    if not result["gain"]:
        text = missing_answer(list(result["arms"]))
        boxes.append(element("div", element("p", text), class_="answer"))
    for target in result["targets"]:
        gain, twin = result["gain"].get(target), result["gain_over_twin"].get(target)
        sentences = [] if gain is None else [distillation_answer(gain)]
        sentences += [] if twin is None else [twin_answer(twin)]
        if sentences:
            where = element("p", f"{target}: {conditions(result, target)}", class_="small")
            first, *more = (element("p", sentence) for sentence in sentences)
            kind = UNDECIDED if gain is None else verdict(gain)
            boxes.append(element("div", first, where, *more, class_=f"answer {kind}"))
    return boxes


def _failures(result: Mapping[str, Any]) -> Markup:
    failed = {arm: reasons for arm, reasons in result["failed"].items() if reasons}
    if not failed:
        return Markup()
    total = sum(map(len, failed.values()))
    lines = [
        element("li", f"{arm_name(arm)}, seed {seed}: {reason}")
        for arm, reasons in failed.items()
        for seed, reason in reasons.items()
    ]
    text = (
        f"{count(total, 'student')} failed to train. Means and ranges leave them out, gains leave "
        "out their whole pair."
    )
    return element("div", element("p", text), element("ul", *lines), class_="failed")


def _figures_section(result: Mapping[str, Any]) -> Markup:
    targets = list(result["targets"])
    heads = [join([name, _small(conditions(result, name))]) for name in targets]
    teacher = [
        percent(result["teacher"]["accuracy"])
        if result["targets"][name]["shots"] is None
        else _NONE
        for name in targets
    ]
    arms = [
        [_arm_heading(result, arm), *(_spread(result, arm, name, "accuracy") for name in targets)]
        for arm in result["arms"]
    ]
    gains = [
        [heading, *(_gain_cell(result[key][name]) for name in targets)]
        for key, heading in (
            ("gain", "gain of distillation, points"),
            ("gain_over_twin", "distilled − classical twin, points"),
        )
        if result[key]
    ]
    return section(
        "Test accuracy",
        table(
            ["", *heads],
            [[[f"teacher ({result['teacher']['kind']})", *teacher]], arms, gains],
            caption=f"Mean and, below it, lowest to highest of {seeds_text(result)}. Gains: mean "
            "of the paired differences in points and its 95\u202f% interval (paired t). "
            f"The teacher is measured on all test images. {best_case(result)}",
        ),
        _detail_table(result),
    )


def _detail_table(result: Mapping[str, Any]) -> Markup:
    columns: dict[str, tuple[str, Callable[[float], str]]] = {
        "agreement": ("agreement with teacher", percent),
        "divergence": ("KL to teacher, nats", "{:.3f}".format),
        "calibration_error": ("calibration error", "{:.3f}".format),
    }
    groups = []
    for name in result["targets"]:
        heading = join([name, _small(conditions(result, name))])
        group: list[list[object]] = [[heading]]
        group += [
            [
                _arm_heading(result, arm),
                *(_spread(result, arm, name, key, form) for key, (_, form) in columns.items()),
            ]
            for arm in result["arms"]
        ]
        groups.append(group)
    return table(
        ["", *(title for title, _ in columns.values())],
        groups,
        caption=f"Mean and lowest to highest of {seeds_text(result)}. Agreement: share of images "
        "on which student and teacher choose the same class. KL: divergence from the teacher's "
        "class probabilities at temperature 1, mean over images. Calibration error: expected "
        f"calibration error, 15 bins of equal width. {best_case(result)}",
    )


def _gain_section(result: Mapping[str, Any]) -> Markup:
    shown = {
        title: {
            name: _gain_row(result, name, gain, baseline=baseline)
            for name, gain in result[key].items()
        }
        for key, baseline, title in (
            ("gain", BASELINE, "Distilled − label only"),
            ("gain_over_twin", TWIN, "Distilled − classical twin"),
        )
        if result[key]
    }
    if not shown:
        return section("Gain", element("p", "The run has no pair of arms to compare."))
    limits = _limits([row for rows in shown.values() for row in rows.values()])
    figures = [
        panel(
            title,
            gain_figure(
                list(rows.values()),
                name=f"gain{number}",
                label="points of test accuracy",
                limits=limits,
            ),
        )
        for number, (title, rows) in enumerate(shown.items())
    ]
    where = "; ".join(f"{name}: {conditions(result, name)}" for name in result["targets"])
    return section(
        "Gain",
        panels(
            *figures,
            caption="Each dot is the difference of one pair of students with the same seed; the "
            "diamond is their mean, the bar its 95\u202f% interval (paired t). "
            f"{seeds_text(result)}. {where}. {best_case(result)}",
        ),
    )


def _gain_row(
    result: Mapping[str, Any], target: str, gain: Mapping[str, Any], *, baseline: str
) -> GainRow:
    treated, compared = (result["arms"][arm][target]["accuracy"] for arm in (TREATMENT, baseline))
    return GainRow(
        label=target,
        differences=[
            100 * (treated[row] - compared[row]) for row in kept_rows(result, TREATMENT, baseline)
        ],
        mean=gain["mean"],
        interval=None if gain["ci95"] is None else tuple(gain["ci95"]),
    )


def _limits(rows: Sequence[GainRow]) -> tuple[float, float]:
    """A common range in points that holds every dot, interval and zero."""
    values = [value for row in rows for value in (*row.differences, *(row.interval or ()))]
    low, high = min([0, *values]), max([0, *values])
    margin = 0.06 * (high - low) or 1
    return low - margin, high + margin


def _training_section(folder: RunFolder, result: Mapping[str, Any]) -> Markup:
    histories = {
        arm: [folder.metrics(arm, seed) for seed in result["seeds"]] for arm in result["arms"]
    }
    histories = {arm: lines for arm, lines in histories.items() if any(lines)}
    if not histories:
        return section("Training", element("p", "The folder has no metrics of the training."))

    def curves(key: str) -> list[Curves]:
        return [
            Curves(
                arm=arm,
                lines=[[getattr(epoch, key) for epoch in line] for line in lines],
                kept=[row in kept_rows(result, arm) for row in range(len(lines))],
            )
            for arm, lines in histories.items()
        ]

    spec = folder.recipe.distill
    kept = "of the last epoch" if spec.selection == "last" else "of the best validation accuracy"
    drawn = (
        ("validation_accuracy", "Validation accuracy", ""),
        ("ce", "Cross-entropy with the labels", "nats"),
        ("kd", "Divergence from the teacher", "nats"),
    )
    return section(
        "Training",
        _legend(list(histories)),
        panels(
            *(
                panel(
                    title,
                    curves_figure(curves(key), name=key, title=title, unit=unit, share=not unit),
                )
                for key, title, unit in drawn
            ),
            caption=f"Each seed thin, the mean bold, {seeds_text(result)}; both losses are means "
            "over the training images of an epoch. Distilled students minimise "
            f"{spec.ce_weight:g} × cross-entropy + {spec.kd_weight:g} × divergence (temperature "
            f"{spec.temperature:g}), label-only students the cross-entropy alone. "
            f"The weights {kept} are kept.",
        ),
    )


def _confusion_section(result: Mapping[str, Any]) -> Markup:
    target = next(iter(result["targets"]))
    shown: list[Markup] = []
    teacher = result["teacher"].get("confusion")
    if teacher is not None:
        shown.append(_confusion_panel(result, teacher, arm="teacher"))
    for arm in (BASELINE, TREATMENT):
        rows = kept_rows(result, arm) if arm in result["arms"] else []
        if rows:
            matrices = [result["arms"][arm][target]["confusion"][row] for row in rows]
            total = [
                [sum(cells) for cells in zip(*lines, strict=True)]
                for lines in zip(*matrices, strict=True)
            ]
            shown.append(_confusion_panel(result, total, arm=arm))
    return section(
        "Confusion",
        panels(
            *shown,
            caption="Of 100 test images of a class (row), how many were taken for which (column). "
            f"Students: summed over {seeds_text(result)}, {target} ({conditions(result, target)}). "
            "Teacher: all test images.",
        ),
    )


def _confusion_panel(
    result: Mapping[str, Any], counts: Sequence[Sequence[int]], *, arm: str
) -> Markup:
    classes = result.get("classes") or [str(label) for label in range(len(counts))]
    title = f"Confusion of {arm_name(arm)}, row = label, column = choice"
    svg = confusion_figure(counts, classes, name=f"confusion-{arm}", arm=arm, title=title)
    return panel(arm_name(arm).capitalize(), svg)


def _circuit_section(folder: RunFolder, result: Mapping[str, Any]) -> Markup:
    size, spec = result["student"], folder.recipe.student
    if "qubits" not in size:
        return section("Circuit", element("p", "The student is classical and has no circuit."))
    made = {"encoding": spec.encoding, "ansatz": f"{spec.ansatz}, {count(spec.layers, 'layer')}"}
    if spec.circuit is not None:
        made = {"circuit": f"your own, {Path(spec.circuit).name}"}
    facts = {
        "qubits": count(size["qubits"]),
        **made,
        "read-out": f"{spec.readout}, head: {spec.head}",
        "circuit weights": count(size["weights"]),
        "trained parameters in all": count(size["parameters"]),
        "two-qubit gates": f"{count(size['two_qubit_gates'])} before transpiling",
        "depth": f"{count(size['depth'])} before transpiling",
    }
    return section("Circuit", _halves(facts), _drawing(folder), _costs(result))


def _drawing(folder: RunFolder) -> Markup:
    spec = folder.recipe.student
    try:
        foreign = None if spec.circuit is None else load_circuit(folder.path / CIRCUIT).circuit
        drawing = draw_student(spec, foreign)
    except CircuitError as error:
        return element("p", f"The circuit cannot be drawn: {error}", class_="note")
    legend = element(
        "p",
        element("span", element("span", class_="swatch box input"), "set by the image"),
        element("span", element("span", class_="swatch box trained"), "trained"),
        class_="legend",
    )
    caption = " ".join([*drawing.notes, f"The whole circuit is in {CIRCUIT}."])
    figure = element("div", Markup(drawing.svg), class_="scroll")
    return element("figure", legend, figure, element("figcaption", caption))


def _costs(result: Mapping[str, Any]) -> Markup:
    costs = {
        name: described["circuit"]
        for name, described in result["targets"].items()
        if "circuit" in described
    }
    if not costs:
        return Markup()
    rows = [
        [
            join([name, _small(conditions(result, name))]),
            count(cost["two_qubit_gates"]),
            count(cost["depth"]),
            _NONE if cost["duration_s"] is None else f"{1e6 * cost['duration_s']:.2f}",
            f"{cost['fidelity']:.3f}",
            ", ".join(map(str, cost["layout"])),
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


def _noise_section(result: Mapping[str, Any]) -> Markup:
    shown, groups = [], []
    for number, (target, described) in enumerate(result["targets"].items()):
        pairs = _exact_and_sampled(result, target)
        if described["shots"] is None or not pairs:
            continue
        shown.append(panel(target, paired_figure(pairs, name=f"paired{number}", target=target)))
        heading = join([target, _small(conditions(result, target))])
        rows: list[list[object]] = [[heading]]
        for arm, (exact, sampled) in pairs.items():
            change = [100 * (after - before) for before, after in zip(exact, sampled, strict=True)]
            rows.append(
                [
                    _arm_heading(result, arm),
                    percent(fmean(exact)),
                    percent(fmean(sampled)),
                    _with_range(change, points),
                ]
            )
        groups.append(rows)
    title = "What shots and noise cost"
    if not shown:
        return section(title, element("p", "No circuit was evaluated on a sampled target."))
    numbers = table(
        ["", "exact", "sampled", "change, points"],
        groups,
        caption=f"Means of {seeds_text(result)}; below the change, its lowest to highest. "
        "The classical twin has no circuit: nothing changes.",
    )
    caption = (
        "Each line is one student on the same images with exact probabilities and on the target; "
        f"the bold line is the mean of {seeds_text(result)}. {best_case(result)}"
    )
    return section(
        title,
        _legend([arm for arm in result["arms"] if _has_circuit(result, arm)]),
        panels(*shown, numbers, caption=caption),
    )


def _exact_and_sampled(
    result: Mapping[str, Any], target: str
) -> dict[str, tuple[list[float], list[float]]]:
    pairs = {}
    for arm, figures in result["arms"].items():
        rows = kept_rows(result, arm)
        if rows and figures[target]["shots"][0] is not None:
            exact, sampled = (
                [figures[target][key][row] for row in rows]
                for key in ("exact_accuracy", "accuracy")
            )
            pairs[arm] = exact, sampled
    return pairs


def _has_circuit(result: Mapping[str, Any], arm: str) -> bool:
    return any(figures["shots"][0] is not None for figures in result["arms"][arm].values())


def _repeat_section(folder: RunFolder, result: Mapping[str, Any]) -> Markup:
    commands = [result["command"]] if result["command"] else []
    commands.append(shlex.join(["qkd", "distill", RECIPE]))
    seconds = {
        key.removesuffix("_s").replace("_", " "): f"{value:.1f} s"
        for key, value in result["timing"].items()
    }
    files = {entry.name for entry in folder.path.iterdir()} | {REPORT}
    contents = {name: text for name, text in _CONTENTS.items() if name in files}
    for arm in result["arms"]:
        contents[f"{arm}/seed_N/"] = "weights, figures of each epoch and of each target"
    return section(
        "To repeat it",
        *(element("pre", command, class_="command") for command in commands[:1]),
        element("p", "or, with the recipe in this folder,"),
        element("pre", commands[-1], class_="command"),
        element("h3", "Recipe"),
        element("pre", dump_recipe(folder.recipe)),
        _columns(
            join([element("h3", "Versions"), _definitions(result["versions"])]),
            join([element("h3", "Time"), _definitions(seconds)]),
        ),
        element("h3", "Files"),
        _definitions(contents),
    )


def _arm_heading(result: Mapping[str, Any], arm: str) -> Markup:
    failed = len(result["failed"].get(arm, {}))
    return join(
        [arm_name(arm), *([_small(f"{failed} of {len(result['seeds'])} failed")] if failed else [])]
    )


def _spread(
    result: Mapping[str, Any],
    arm: str,
    target: str,
    key: str,
    form: Callable[[float], str] = percent,
) -> object:
    values = [result["arms"][arm][target][key][row] for row in kept_rows(result, arm)]
    if not values:
        return "all failed"
    return _NONE if None in values else _with_range(values, form)


def _with_range(values: Sequence[float], form: Callable[[float], str]) -> Markup:
    spread = _small(f"{form(min(values))} to {form(max(values))}")
    return join([form(fmean(values)), *([spread] if len(values) > 1 else [])])


def _gain_cell(gain: Mapping[str, Any]) -> object:
    if gain["mean"] is None:
        return "no pair"
    if gain["ci95"] is None:
        return join([points(gain["mean"]), _small("one pair, no interval")])
    low, high = gain["ci95"]
    return join([points(gain["mean"]), _small(f"{points(low)} to {points(high)}")])


def _small(text: str) -> Markup:
    return element("span", text, class_="small")


def _legend(arms: Sequence[str]) -> Markup:
    entries = [
        element(
            "span",
            element("span", class_=f"swatch {arm.replace('_', '-')}"),
            arm_name(arm),
        )
        for arm in arms
    ]
    return element("p", *entries, class_="legend")


def _definitions(entries: Mapping[str, str]) -> Markup:
    return element(
        "dl",
        *(join([element("dt", name), element("dd", value)]) for name, value in entries.items()),
    )


def _halves(entries: Mapping[str, str]) -> Markup:
    items = list(entries.items())
    middle = (len(items) + 1) // 2
    return _columns(_definitions(dict(items[:middle])), _definitions(dict(items[middle:])))


def _columns(*content: Markup) -> Markup:
    return element("div", *(element("div", part) for part in content), class_="columns")
