"""report.html: the figures of a run on one page that loads nothing from elsewhere."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path

from qkd_qiskit.experiments.compression import COMPRESSION
from qkd_qiskit.experiments.provenance import read_provenance
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import (
    CERTIFY,
    CIRCUIT,
    DEVICES,
    PROVENANCE,
    RECIPE,
    REPORT,
    RESULT,
    TEACHER,
    RunFolder,
)
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, Recipe
from qkd_qiskit.recipe.parsing import dump_recipe
from qkd_qiskit.report.certification_section import certification_section
from qkd_qiskit.report.circuit_section import circuit_section
from qkd_qiskit.report.class_bin_section import class_bin_section
from qkd_qiskit.report.comparison_section import comparison_section
from qkd_qiskit.report.compression_section import compressed_answer, compression_section
from qkd_qiskit.report.conclusions import conclusions, missing_answer, reminders
from qkd_qiskit.report.figures import paired_figure
from qkd_qiskit.report.gain_section import gain_section
from qkd_qiskit.report.html import (
    Markup,
    columns,
    definitions,
    document,
    element,
    join,
    panel,
    panels,
    section,
)
from qkd_qiskit.report.recalibration_section import recalibration_section
from qkd_qiskit.report.tables import (
    Pairs,
    accuracy_table,
    device_table,
    legend,
    noise_table,
    teacher_table,
)
from qkd_qiskit.report.text import (
    arm_name,
    best_case,
    checked,
    conditions,
    count,
    making,
    measured,
    seeds_text,
    subject,
)
from qkd_qiskit.report.training_section import confusion_section, training_section
from qkd_qiskit.storage import write_text

_MOST_NAMED = 4  # failed students of an arm
_CONTENTS = {
    RECIPE: "everything the run is; `qkd distill recipe.yaml` repeats it",
    RESULT: "the figures of this page as JSON",
    REPORT: "this page",
    PROVENANCE: "when, where and with what it was made: packages, commit, digests of the data",
    CIRCUIT: "the student's circuit as OpenQASM 3, without measurements",
    TEACHER: "weights of the teacher",
    "teachers": "weights of the teacher of each seed",
    "bench": "what noise and shots cost, by qkd sweep: tables and figures",
    COMPRESSION: "what it was compressed from, and the two-qubit gates of each depth",
    CERTIFY: "models without the circuit, and the students in closed form, by qkd certify",
    DEVICES: "jobs on devices: what was asked, a journal of every job, circuits and counts",
    "checkpoints": "state of the training, for --resume",
    "tuning": "validation accuracies of each setting of the tuned arm",
}


def write_report(folder: RunFolder) -> Path:
    """Write report.html into a finished run, and return its path.

    Raises:
        CheckpointError: The run has not ended.
        StorageError: The file could not be written.
    """
    result = folder.ended()
    title, what = subject(folder.recipe, result)
    content = (
        _headline(folder, result, title=title, what=what),
        compression_section(folder, result),
        section("Test accuracy", accuracy_table(result), teacher_table(result)),
        gain_section(result),
        comparison_section(result),
        certification_section(folder),
        training_section(folder, result),
        confusion_section(result),
        class_bin_section(result),
        circuit_section(folder, result),
        _noise_section(folder.recipe, result),
        *recalibration_section(result),
        *_device_section(result),
        _repeat_section(folder, result),
    )
    path = folder.path / REPORT
    write_text(path, document(title, *content))
    return path


def _headline(folder: RunFolder, result: Result, *, title: str, what: str) -> Markup:
    return element(
        "header",
        element("p", f"Quantum knowledge distillation · {folder.path.name}", class_="kicker"),
        element("h1", title),
        element("p", what),
        *_answers(folder, result),
        element(
            "ul",
            *(
                element("li", text)
                for text in (
                    *reminders(folder.recipe, result),
                    *measured(result),
                    *checked(result),
                    best_case(result),
                )
                if text
            ),
            class_="note",
        ),
        _failures(result),
    )


def _answers(folder: RunFolder, result: Result) -> list[Markup]:
    """Return the answer on each target; without the arms for one, why there is none."""
    boxes = []
    compressed = compressed_answer(folder, result)
    if compressed:
        boxes.append(element("div", element("p", compressed), class_="answer"))
    elif not result.gain:
        text = missing_answer(list(result.arms))
        boxes.append(element("div", element("p", text), class_="answer"))
    for target in result.targets:
        answers = conclusions(result, target)
        if answers:
            where = element("p", f"{target}: {conditions(result, target)}", class_="small")
            first, *more = (element("p", answer.sentence) for answer in answers)
            kind = answers[0].verdict if target in result.gain else "open"
            boxes.append(element("div", first, where, *more, class_=f"answer {kind}"))
    return boxes


def _failures(result: Result) -> Markup:
    failed = {arm: reasons for arm, reasons in result.failed.items() if reasons}
    if not failed:
        return Markup()
    total = sum(map(len, failed.values()))
    lines = [
        element("li", f"{arm_name(arm)}, seed {seed}: {reason}")
        for arm, reasons in failed.items()
        for seed, reason in itertools.islice(reasons.items(), _MOST_NAMED)
    ]
    lines += [
        element("li", f"{arm_name(arm)}: {len(reasons) - _MOST_NAMED} more, in {RESULT}")
        for arm, reasons in failed.items()
        if len(reasons) > _MOST_NAMED
    ]
    text = (
        f"{count(total, 'student')} failed to train. Means and ranges leave them out, gains leave "
        "out their whole pair."
    )
    return element("div", element("p", text), element("ul", *lines), class_="failed")


def _noise_section(recipe: Recipe, result: Result) -> Markup:
    title, pairs = "What shots and noise cost", _exact_and_sampled(recipe, result)
    if not pairs:
        return section(title, element("p", "No circuit was evaluated on a sampled target."))
    figures = [
        panel(target, paired_figure(arms, name=f"paired{number}", target=target))
        for number, (target, arms) in enumerate(pairs.items())
    ]
    caption = (
        "Each line is one student, with exact probabilities and on the target, tested on the same; "
        f"the bold line is the mean of {seeds_text(result)}. {best_case(result)}"
    )
    shown = dict.fromkeys(arm for arms in pairs.values() for arm in arms)
    return section(
        title,
        legend(list(shown)),
        panels(*figures, noise_table(result, pairs), caption=caption),
    )


def _device_section(result: Result) -> list[Markup]:
    """Return what ran where and what it cost, where anything was submitted."""
    devices = [target for target in result.targets.values() if target.device is not None]
    if not devices and result.trained_on is None:
        return []
    return [section("Jobs", device_table(result))]


def _exact_and_sampled(recipe: Recipe, result: Result) -> Pairs:
    """Return accuracies of the students whose circuit was sampled, by target and arm."""
    pairs: Pairs = {}
    for target, arm in itertools.product(result.targets, result.arms):
        metrics, rows = result.arms[arm][target], result.kept_rows(arm, target=target)
        has_circuit = recipe.student_of(arm).kind not in CLASSICAL_STUDENTS
        if rows and has_circuit and result.targets[target].circuit is not None:
            exact, sampled = (
                [value for row in rows if (value := column[row]) is not None]
                for column in (metrics.exact_accuracy, metrics.accuracy)
            )
            pairs.setdefault(target, {})[arm] = exact, sampled
    return pairs


def _repeat_section(folder: RunFolder, result: Result) -> Markup:
    commands = [result.command] if result.command else []
    name = "study" if result.command.startswith("qkd study ") else "distill"
    here = shlex.join(["qkd", name, RECIPE])
    # A training on a device begins with another run, which the recipe alone does not hold.
    by_recipe = result.trained_on is None
    seconds = {
        key.removesuffix("_s").replace("_", " "): f"{value:.1f} s"
        for key, value in result.timing.items()
    }
    made = making(read_provenance(folder))
    files = {entry.name for entry in folder.path.iterdir()} | {REPORT}
    contents = {name: text for name, text in _CONTENTS.items() if name in files}
    if not by_recipe:
        contents[RECIPE] = "everything the training is, but the run that it began with"
    for arm in result.arms:
        contents[f"{arm}/seed_N/"] = "weights, figures of each epoch and of each target"
    return section(
        "To repeat it",
        *(element("pre", command, class_="command") for command in commands),
        *([element("p", "or, with the recipe in this folder,")] if by_recipe and commands else []),
        *([element("pre", here, class_="command")] if by_recipe else []),
        element("h3", "Recipe"),
        element("pre", dump_recipe(folder.recipe)),
        columns(
            join([element("h3", "Versions"), definitions(result.versions)]),
            join([element("h3", "Time"), definitions(seconds)]),
        ),
        *([element("h3", "Made"), definitions(made)] if made else []),
        element("h3", "Files"),
        definitions(contents),
    )
