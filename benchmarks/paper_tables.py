"""What the runs of paper.py say: verdicts per published cell, tables in Markdown, figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from paper_v1 import (
    CELLS,
    Cell,
    PublishedStudent,
    published_loss,
    teacher_only_term,
    zero_weight_term,
)
from paper_v1.study import Row, TeacherRow
from paper_v2 import INPUTS, PUBLISHED, QUBITS
from paper_v2 import Row as Row2
from paper_verdicts import ALPHA, Comparison, Mean, baseline_of
from scipy import stats

from qkd_qiskit.distillation.terms import check_term
from qkd_qiskit.errors import TrainingError

TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10"}
TEACHER_TITLES = {"lenet5": "LeNet", "alexnet": "AlexNet", "ensemble": "ensemble"}


def failures_markdown(rows: Sequence[Row]) -> str:
    """Failed runs of all cells, each arm paired with its baseline; McNemar's exact test."""
    lines = ["| arm | failed, all cells | its baseline | p |", "|---|--:|--:|--:|"]
    names = sorted({row.arm for row in rows if row.arm != "label_only"})
    for arm in names:
        base = baseline_of(arm)
        found = {(row.cell, row.seed): row.failed for row in rows if row.arm == arm}
        plain = {(row.cell, row.seed): row.failed for row in rows if row.arm == base}
        pairs = sorted(found.keys() & plain.keys())
        worse = sum(found[pair] and not plain[pair] for pair in pairs)
        better = sum(plain[pair] and not found[pair] for pair in pairs)
        p = stats.binomtest(worse, worse + better).pvalue if worse + better else 1.0
        lines.append(
            f"| `{arm}` | {sum(found[pair] for pair in pairs)} of {len(pairs)} "
            f"| {sum(plain[pair] for pair in pairs)} (`{base}`) | {_p(p)} |"
        )
    return "\n".join(lines)


def v1_markdown(found: Sequence[Comparison]) -> str:
    """The table of the published cells."""
    lines = [
        (
            "| student | teacher | published gain (one run) | as often by chance | ours, published "
            "protocol | sound protocol, all runs | failed | sound, failed pairs left out "
            "| p (Holm) | verdict |"
        ),
        "|---|---|--:|--:|--:|--:|--:|--:|--:|---|",
    ]
    for one in found:
        if one.published_gain is None:
            continue
        teacher = one.arm.split("_")[1]
        flaw = f" ({one.flaw})" if one.flaw else ""
        lines.append(
            f"| {_title(one.cell)} | {TEACHER_TITLES[teacher]} | {one.published_gain:+.2f}{flaw} "
            f"| {_share(one.chance)}, {_share(one.chance_trained)} "
            f"| {_interval(one.subset_gain, one.subset_low, one.subset_high)} "
            f"| {_interval(one.all_gain, one.all_low, one.all_high)} "
            f"| {one.failed[0]} and {one.failed[1]} of {one.seeds} "
            f"| {_interval(one.gain, one.low, one.high)} | {_p(one.p_holm)} | {one.verdict} |"
        )
    return "\n".join(lines)


def means_markdown(found: Sequence[Mean]) -> str:
    """The table of the mean gains."""
    lines = [
        "| cells of | arms | against | published mean | ours, published protocol | sound | p |",
        "|---|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {TITLES[one.dataset]}, {one.cells} | `{one.arms}` | `{one.baseline}` "
        f"| {'' if math.isnan(one.published) else f'{one.published:+.2f}'} "
        f"| {_interval(one.subset_gain, one.subset_low, one.subset_high)} "
        f"| {_interval(one.gain, one.low, one.high)} | {_p(one.p)} |"
        for one in found
    ]
    return "\n".join(lines)


def teachers_markdown(found: Sequence[TeacherRow]) -> str:
    """The table of the teachers."""
    lines = [
        "| images | teacher | parameters | epochs | published | ours |",
        "|---|---|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {_classes(one.dataset, one.num_classes)} | {TEACHER_TITLES[one.teacher]} "
        f"| {one.parameters:,} | {one.epochs} | {one.published:.2f} | {one.test:.2f} |"
        for one in found
    ]
    return "\n".join(lines)


def controls_markdown(found: Sequence[Comparison]) -> str:
    """The table of the controls."""
    lines = [
        (
            "| student | arm | against | accuracy | its baseline | gain, all runs | failed "
            "| gain, failed pairs left out | p (Holm) |"
        ),
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for one in found:
        if one.published_gain is None:
            lines.append(
                f"| {_title(one.cell)} | `{one.arm}` | `{one.baseline}` "
                f"| {_accuracy(one.arm_accuracy)} | {_accuracy(one.baseline_accuracy)} "
                f"| {_interval(one.all_gain, one.all_low, one.all_high)} "
                f"| {one.failed[0]} and {one.failed[1]} of {one.seeds} "
                f"| {_interval(one.gain, one.low, one.high)} | {_p(one.p_holm)} |"
            )
    return "\n".join(lines)


def spread_markdown(rows: Sequence[Row]) -> str:
    """Label-only runs of the published protocol beside the published one."""
    lines = [
        (
            "| student | published run | ours: median | smallest to largest | middle half | runs "
            "| failed |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for cell in CELLS:
        name = "label_only_softmax" if cell.baseline_head == "softmax" else "label_only"
        found = [row for row in rows if (row.cell, row.arm) == (cell.name, name)]
        if found:
            runs = [100 * row.published for row in found]
            low, first, middle, third, high = np.quantile(runs, [0, 0.25, 0.5, 0.75, 1])
            head = ", softmax head" if name.endswith("softmax") else ""
            lines.append(
                f"| {_title(cell.name)}{head} | {cell.baseline:.2f} | {middle:.2f} "
                f"| {low:.2f} to {high:.2f} | {first:.2f} to {third:.2f} | {len(runs)} "
                f"| {sum(row.failed for row in found)} |"
            )
    return "\n".join(lines)


def terms_markdown() -> str:
    """What the check before training says of the published loss terms, on one batch of noise."""
    random = torch.Generator().manual_seed(0)
    student = PublishedStudent(qubits=3)
    outputs = student(torch.rand(8, 1, 28, 28, generator=random))
    logits = torch.randn(8, 6, generator=random)
    terms = {
        "divergence from the teacher": published_loss(outputs, logits.argmax(1), logits)["kd"],
        "divergence computed on the teacher only": teacher_only_term(outputs, logits),
        "divergence multiplied by 0": zero_weight_term(outputs, logits),
    }
    lines = ["| published term | check before training |", "|---|---|"]
    for name, term in terms.items():
        try:
            check_term(term, list(student.parameters()), name="'kd'")
            said = "reaches the student"
        except TrainingError as error:
            said = f"refused: {error}"
        lines.append(f"| {name} | {said} |")
    return "\n".join(lines)


def v2_markdown(rows: Sequence[Row2]) -> str:
    """Test errors beside those of the bar chart."""
    data_sets = [name for name in TITLES if any(row.data == name for row in rows)]
    names = [f"{TITLES[data]}, {qubits} qubits" for data in data_sets for qubits in QUBITS]
    lines = [
        "| input | circuit | arm | " + " | ".join(names) + " |",
        "|---|---|---|" + "--:|" * len(names),
    ]
    for inputs in INPUTS:
        published = [PUBLISHED[inputs][data][q] for data in data_sets for q in (0, 1)]
        lines.append(f"| {inputs} | *published* | | " + " | ".join(map(str, published)) + " |")
        for circuit, arm in (
            ("local", "label_only"),
            ("local", "distilled"),
            ("entangled", "label_only"),
            ("entangled", "distilled"),
            ("entangled", "classical_twin"),
            ("entangled", "tuned_twin"),
            ("entangled", "convolution_twin"),
        ):
            cells = [
                _error(rows, data=data, qubits=qubits, inputs=inputs, circuit=circuit, arm=arm)
                for data in data_sets
                for qubits in QUBITS
            ]
            if any(cells):
                lines.append(
                    f"| | {circuit} | {arm.replace('_', ' ')} | " + " | ".join(cells) + " |"
                )
    return "\n".join(lines)


def _error(rows: Sequence[Row2], **what: Any) -> str:
    found = [row for row in rows if all(getattr(row, k) == v for k, v in what.items())]
    if not found:
        return ""
    errors = [100 * (1 - row.accuracy) for row in found]
    spread = f" ± {np.std(errors, ddof=1):.1f}" if len(errors) > 1 else ""
    return f"{np.mean(errors):.1f}{spread}"


def draw_v1(rows: Sequence[Row], path: Path) -> None:
    """Every run of the published protocol, beside the published single runs."""
    from matplotlib import pyplot as plt

    cells = [cell for cell in CELLS if any(row.cell == cell.name for row in rows)]
    figure, grid = plt.subplots(2, 3, figsize=(12, 7), constrained_layout=True)
    for axes, cell in zip(grid.flat, cells, strict=False):
        arms = ["label_only_softmax"] if cell.baseline_head == "softmax" else []
        arms += ["label_only", "replicate"]
        arms += [f"distilled_{teacher}_{ALPHA}" for teacher in cell.gains]
        found = {
            arm: [100 * r.published for r in rows if (r.cell, r.arm) == (cell.name, arm)]
            for arm in arms
        }
        found = {arm: runs for arm, runs in found.items() if runs}
        for place, (arm, runs) in enumerate(found.items()):
            offsets = np.linspace(-0.22, 0.22, len(runs))
            color = "#1f77b4" if arm.startswith("distilled") else "#777777"
            axes.scatter(place + offsets, runs, s=12, color=color, alpha=0.75, linewidths=0)
            axes.hlines(np.median(runs), place - 0.3, place + 0.3, color=color, linewidth=1.5)
            mark = _published_mark(cell, arm)
            if mark is not None:
                axes.scatter([place], [mark], marker="D", s=34, color="#d62728", zorder=3)
        axes.set_xticks(range(len(found)), [_arm_title(arm) for arm in found], fontsize=8)
        axes.set_title(_title(cell.name), fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    for axes in grid.flat[len(cells) :]:
        axes.set_visible(False)
    figure.supylabel("best epoch on the published test subset, %", fontsize=10)
    figure.suptitle(
        "One dot per run, bars are medians, red diamonds the published runs", fontsize=11
    )
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _published_mark(cell: Cell, arm: str) -> float | None:
    if arm == ("label_only_softmax" if cell.baseline_head == "softmax" else "label_only"):
        return cell.baseline
    if arm.startswith("distilled_"):
        return cell.gains[arm.split("_")[1]].accuracy
    return None


def _arm_title(arm: str) -> str:
    if arm.startswith("distilled_"):
        return TEACHER_TITLES[arm.split("_")[1]]
    titles = {"label_only": "label\nonly", "label_only_softmax": "label only,\nsoftmax head"}
    return titles.get(arm, arm)


def draw_v2(rows: Sequence[Row2], path: Path) -> None:
    """Test errors of the label-only arms beside the published bars."""
    from matplotlib import pyplot as plt

    panels = [(d, q) for d in TITLES for q in QUBITS if any(r.data == d for r in rows)]
    figure, grid = plt.subplots(
        len(panels) // 2, 2, figsize=(12, 2.2 + 2.6 * len(panels) / 2), constrained_layout=True
    )
    for axes, (data, qubits) in zip(np.atleast_1d(grid).flat, panels, strict=True):
        places = np.arange(len(INPUTS))
        published = [PUBLISHED[inputs][data][QUBITS.index(qubits)] for inputs in INPUTS]
        axes.bar(places - 0.27, published, 0.25, color="#d62728", label="published, distilled")
        for step, circuit, color in ((0, "local", "#9ecae1"), (1, "entangled", "#1f77b4")):
            heights = [
                _number_or_nan(
                    _error(
                        rows, data=data, qubits=qubits, inputs=inputs, circuit=circuit,
                        arm="label_only",
                    )
                )
                for inputs in INPUTS
            ]  # fmt: skip
            label = f"ours, {circuit}, label only"
            axes.bar(places + 0.27 * step, heights, 0.25, color=color, label=label)
        axes.set_xticks(places, [name.replace(" ", "\n") for name in INPUTS], fontsize=8)
        axes.set_title(f"{TITLES[data]}, {qubits} qubits", fontsize=10)
        axes.grid(axis="y", alpha=0.3)
    np.atleast_1d(grid).flat[0].legend(fontsize=8)
    figure.supylabel("test error, %", fontsize=10)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _number_or_nan(text: str) -> float:
    return float(text.split(" ")[0]) if text else math.nan


def _title(name: str) -> str:
    cell = next(cell for cell in CELLS if cell.name == name)
    return f"{_classes(cell.dataset, cell.num_classes)}, {cell.qubits} qubits"


def _classes(dataset: str, num_classes: int) -> str:
    return f"{TITLES[dataset]} 0-{num_classes - 1}"


def _accuracy(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def _interval(mean: float, low: float, high: float) -> str:
    if math.isnan(low):
        return "" if math.isnan(mean) else f"{mean:+.2f}"
    return f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def _share(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{100 * value:.0f} %"


def _p(value: float) -> str:
    if math.isnan(value):
        return ""
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
