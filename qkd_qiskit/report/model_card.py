"""The model card of a published run: what was trained, on what, how good it is, how to load it."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.experiments.provenance import Provenance
from qkd_qiskit.experiments.result_tables import mean_text
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.run_list import recipe_name
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, UNTRAINED_TEACHERS, Recipe
from qkd_qiskit.recipe.arms import TREATMENT
from qkd_qiskit.report.conclusions import conclusions
from qkd_qiskit.report.text import (
    arm_name,
    best_case,
    conditions,
    count,
    making,
    measured,
    percent,
    seeds_text,
    subject,
)

_FRONT = """---
library_name: qkd-qiskit
tags: [quantum-machine-learning, knowledge-distillation, qiskit]
---"""


_CIRCUIT = """
The circuit alone, its weights bound and its inputs `x_000`, ... left open, for Qiskit and for
whatever reads OpenQASM 3 or QPY (`bound.qpy`):
"""
_VALUES = """
`student.encode(images)` gives values for the inputs in the order of their names, in radians;
`student.decode(probabilities)` makes logits of outcome probabilities, qubit 0 the lowest bit."""


def model_card(folder: RunFolder, result: Result, provenance: Provenance) -> str:
    """Return the README.md of a published run.

    Args:
        folder: The published run.
        result: Its figures.
        provenance: How it was made.
    """
    recipe = folder.recipe
    title, what = subject(recipe, result)
    parts = [
        _FRONT,
        f"# {title}",
        what,
        _accuracy(result),
        _data(recipe, result, provenance),
        _teacher(recipe, result),
        _limits(recipe, result),
        _loading(folder, result),
        _making(recipe, result, provenance),
    ]
    return "\n\n".join(parts).replace("\u202f", " ").replace("\u2011", "-") + "\n"


def teacher_saw(recipe: Recipe, *, sample: str) -> str:
    """Return which labels the teacher has seen, in a sentence."""
    spec = recipe.teacher
    if spec.same_draw:
        return (
            f"The teacher of each seed has seen the same labelled {sample}s as its students and no "
            "others: what it hands on is no label that they lack."
        )
    if spec.checkpoint is not None or spec.kind in UNTRAINED_TEACHERS:
        return (
            "The teacher was not trained in this run: what it has seen is not known to it. A gain "
            "can be knowledge of labels that the students do not have."
        )
    if spec.train_per_class is not None:
        seen = f"{count(spec.train_per_class, f'labelled {sample}')} per class"
    else:
        seen = f"all labelled {sample}s of the training data but those held out for validation"
    few = recipe.data.train_per_class is not None or recipe.data.train_points is not None
    own = (
        " The students have seen fewer: part of a gain is knowledge of other labels." if few else ""
    )
    return f"The teacher was trained on {seen}.{own}"


def _accuracy(result: Result) -> str:
    targets = list(result.targets)
    rows = [
        [arm_name(arm)]
        + [
            mean_text(result.accuracies(arm, key, result.kept_rows(arm, target=key)), sign="±")
            for key in targets
        ]
        for arm in result.arms
    ]
    failed = ", ".join(
        f"{arm_name(arm)} ({len(seeds)} of {len(result.seeds)})"
        for arm, seeds in result.failed.items()
        if seeds
    )
    sentences = [
        f"- `{key}`: {conditions(result, key)}. {answer.sentence}"
        for key in targets
        for answer in conclusions(result, key)[:1]
        if key in result.gain
    ] or [f"- `{key}`: {conditions(result, key)}." for key in targets]
    left_out = [f"- Failed to train and left out: {failed}."] if failed else []
    return "\n".join(
        [
            "## Accuracy\n",
            f"Test accuracy in %, mean of {seeds_text(result)} and half of its 95 % t interval.\n",
            *_table(["arm", *(f"`{key}`" for key in targets)], rows),
            "",
            *sentences,
            *left_out,
        ]
    )


def _data(recipe: Recipe, result: Result, provenance: Provenance) -> str:
    spec = recipe.data
    if spec.train_points is not None:
        labels = f"{count(spec.train_points)} drawn over all classes"
    elif spec.train_per_class is not None:
        labels = f"{count(spec.train_per_class)} per class"
    else:
        labels = "all of the training data"
    tested = ", ".join(f"{result.num_images(key)} ({key})" for key in result.targets)
    lines = [
        "## Data\n",
        f"- Data set: {spec.title}; classes: {', '.join(result.classes) or 'not recorded'}.",
        f"- Labelled {result.sample}s that each student learned from: {labels}.",
        f"- Tested on {tested} {result.sample}s; nothing was chosen by them.",
    ]
    if spec.digest is not None:
        lines.append(f"- SHA-256 of the file: `{spec.digest}`.")
    if spec.backbone is not None:
        lines.append(f"- Features of a frozen network in their place: {spec.backbone_origin}.")
    if spec.backbone_digest is not None:
        lines.append(f"- SHA-256 of its weights: `{spec.backbone_digest}`.")
    lines += [f"- SHA-256 of the {name} split: `{it}`." for name, it in provenance.data.items()]
    return "\n".join(lines)


def _teacher(recipe: Recipe, result: Result) -> str:
    teacher = result.teacher
    size = "" if teacher.parameters is None else f", {count(teacher.parameters)} parameters"
    right = "" if teacher.accuracy is None else f", {percent(teacher.accuracy)} on the test "
    right += "" if teacher.accuracy is None else f"{result.sample}s"
    saw = teacher_saw(recipe, sample=result.sample)
    return f"## Teacher\n\n{recipe.teacher.kind}{size}{right}. {saw}"


def _limits(recipe: Recipe, result: Result) -> str:
    lines = [best_case(result), *measured(result)]
    lines += [
        f"Intervals cover what differs between {seeds_text(result)}; data set, split and teacher "
        + ("training are the same in all." if recipe.teacher.same_draw else "are the same in all."),
        (
            f"Students are for {result.sample}s like those of {recipe.data.title}, prepared in the "
            "same way; nothing was tested on others."
        ),
    ]
    if any(target.shots for target in result.targets.values()):
        lines.append("Figures from shots scatter with the shots, also for the same student.")
    return "\n".join(["## Limits\n", *(f"- {line}" for line in lines if line)])


def _loading(folder: RunFolder, result: Result) -> str:
    recipe, seed = folder.recipe, result.seeds[0]
    with_circuit = [arm for arm in result.arms if _has_circuit(recipe, arm)]
    arm = TREATMENT if TREATMENT in result.arms else next(iter(with_circuit or result.arms))
    lines = [
        "## How to load it\n",
        "`pip install qkd-qiskit`, then, in this folder:\n",
        "```python",
        "from qkd_qiskit import load_student",
        "",
        f'student = load_student("{arm}/seed_{seed}")  # a torch module: images to logits',
        "```",
        "",
        '`Run.open(".")` opens the whole folder as a run.',
    ]
    member = folder.member(arm, seed)
    if (member / "bound.qasm").exists():
        circuit = f'circuit = qasm3.load("{arm}/seed_{seed}/bound.qasm")'
        lines += [_CIRCUIT, "```python\nfrom qiskit import qasm3\n", f"{circuit}\n```", _VALUES]
    return "\n".join(lines)


def _making(recipe: Recipe, result: Result, provenance: Provenance) -> str:
    name, made = recipe_name(result), making(provenance)
    root = ", where `data.root` or $QKD_DATA says where the data is" if _on_disk(recipe) else ""
    lines = [f"## How it was made\n\n`qkd distill recipe.yaml` repeats it{root}.\n"]
    if name:
        lines.append(f"- recipe: {name}; `recipe.yaml` has it in full")
    lines += [f"- {key}: {text}" for key, text in made.items()]
    if made:
        lines.append("- all packages and digests: `provenance.json`")
    else:
        versions = (f"{package} {version}" for package, version in result.versions.items())
        lines.append(f"- with: {', '.join(versions)}")
    return "\n".join(lines)


def _on_disk(recipe: Recipe) -> bool:
    return recipe.data.name in ("mnist", "fashion_mnist", "cifar10")


def _has_circuit(recipe: Recipe, arm: str) -> bool:
    return recipe.student_of(arm).kind not in (*CLASSICAL_STUDENTS, "convolution")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    rules = ["---", *["---:"] * (len(heads) - 1)]
    return [f"| {' | '.join(cells)} |" for cells in (heads, rules, *rows)]
