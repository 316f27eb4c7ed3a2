"""What a run looks like on a terminal: live bars, or plain lines when piped."""

from __future__ import annotations

import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.results import COMPARISONS, Comparison, Result
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.report.conclusions import conclusions
from qkd_qiskit.targets.ibm.job_records import Totals

_PLAIN_EVERY_S = 5.0
_GAIN_TITLES = (
    "gain (points)",
    "over the classical twin",
    "over the full-size twin",
    "training through noise",
)


class Terminal(Callback):
    """Shows stages, epochs and evaluated images; use as a context manager."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._live = console.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<28}"),
            BarColumn(bar_width=30),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._stage, self._done, self._printed = "", 0, 0.0
        self._figures, self._jobs = "", ""

    def __enter__(self) -> Terminal:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def stage(self, text: str) -> None:
        """Show that a new stage has begun."""
        self._stage, self._task, self._done, self._printed = text, None, 0, time.monotonic()
        self._figures = ""
        if not self._live:
            self.console.print(text, highlight=False)

    def teacher_epoch(self, epoch: int, *, epochs: int, loss: float, accuracy: float) -> None:
        """Show that the teacher has finished an epoch."""
        self._show(epoch, epochs, f"loss {loss:.3f}  validation {accuracy:.1%}", unit="epoch")

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """Show that a population has finished an epoch: means over its members."""
        loss = sum(member.loss for member in figures) / len(figures)
        accuracy = sum(member.validation_accuracy for member in figures) / len(figures)
        text = f"loss {loss:.3f}  validation {accuracy:.1%}"
        self._show(figures[0].epoch, epochs, text, unit="epoch")

    def evaluated(self, images: int, *, total: int) -> None:
        """Show that more images have been evaluated."""
        self._done += images
        self._show(self._done, total, "images", unit="image")

    def tasks(self, done: int, *, total: int) -> None:
        """Show how far a round of tasks is."""
        self._show(done, total, "trained", unit="task")

    def step(self, number: int, *, steps: int, loss: float) -> None:
        """Show a step of training on a device."""
        self._show(number, steps, f"loss {loss:.3f}", unit="step")

    def jobs(self, totals: Totals) -> None:
        """Show what happened to a job on a device."""
        spent = totals.spent_s
        failed = f", {totals.failed} failed" if totals.failed else ""
        self._jobs = (
            f"jobs: {totals.pending} running or queued, {totals.finished} done{failed}; "
            f"{spent:.1f} QPU s"
        )
        if self._live:
            if self._task is None:
                self._task = self._progress.add_task(self._stage, total=None, figures="")
            self._progress.update(self._task, figures=self._with_jobs())

    def _with_jobs(self) -> str:
        return "  ".join(filter(None, [self._figures, self._jobs]))

    def _show(self, done: int, total: int, figures: str, *, unit: str) -> None:
        self._figures = figures
        figures = self._with_jobs()
        if self._live:
            if self._task is None:
                self._task = self._progress.add_task(self._stage, total=total, figures="")
            self._progress.update(self._task, completed=done, total=total, figures=figures)
        elif done == total or time.monotonic() - self._printed > _PLAIN_EVERY_S:
            self._printed = time.monotonic()
            self.console.print(f"  {unit} {done}/{total}  {figures}", highlight=False)


def summary_table(result: Result) -> Table:
    """Return the table that a run ends with: an arm a row, a target a column, means."""
    targets, teacher, count = list(result.targets), result.teacher, len(result.seeds)
    table = Table(title=f"test accuracy, mean and range over {count} seed{'s' * (count > 1)}")
    table.add_column("", no_wrap=True)
    for name in targets:
        table.add_column(_target_heading(result, name), justify="right", overflow="fold")
    table.add_row(
        f"teacher ({teacher.title})",
        "not known" if teacher.accuracy is None else f"{teacher.accuracy:.1%}",
    )
    for arm in result.arms:
        failed = result.failed.get(arm, {})
        spreads = (
            _spread(result.accuracies(arm, name, result.kept_rows(arm, target=name)))
            for name in targets
        )
        note = f" ({len(failed)} failed)" if failed else ""
        table.add_row(arm.replace("_", " ") + note, *spreads)
    for key, title in zip(COMPARISONS, _GAIN_TITLES, strict=True):
        gains = result.gains(key)
        if gains:
            table.add_section()
            table.add_row(title, *(gain_text(gains[name]) for name in targets))
    return table


def comparison_table(result: Result) -> Table:
    """Return what a study ends with: a comparison of two arms a row."""
    table = Table(title="paired gains in points, with their 95 % interval")
    table.add_column("", no_wrap=True)
    for name in ("gain", "p (Holm)", "effect d_z", "pairs", "seeds for 1 point"):
        table.add_column(name, justify="right")
    for target in result.targets:
        table.add_section()
        for entry in result.comparisons:
            if entry.target == target:
                table.add_row(*_comparison(entry, several=len(result.targets) > 1))
    return table


def answers(result: Result) -> list[tuple[str, bool]]:
    """Return whether distillation helped on each target, and whether that is decided."""
    lines = []
    for target in result.targets:
        for answer in conclusions(result, target)[: target in result.gain]:
            text = answer.sentence.replace("\u202f", " ").replace("−", "-")
            lines.append((f"{target}: {text}", answer.verdict != "open"))
    return lines


def _comparison(entry: Comparison, *, several: bool) -> list[str]:
    where = f" on {entry.target}" if several else ""
    arms = f"{entry.arm} - {entry.baseline}".replace("_", " ")
    corrected, effect, needed = entry.p_holm, entry.effect, entry.seeds_needed["1"]
    return [
        arms + where,
        gain_text(entry),
        "" if corrected is None else "< 0.001" if corrected < 0.001 else f"{corrected:.3f}",
        "" if effect is None else f"{effect:+.2f}",
        str(entry.seeds),
        "" if needed is None else str(needed),
    ]


def gain_text(gain: Gain | Comparison) -> str:
    """Return a gain in points with its 95 % interval: `+1.2 [-0.3, +2.7]`."""
    if gain.mean is None:
        return "no pair"
    if gain.ci95 is None:
        return f"{gain.mean:+.1f} (one seed)"
    low, high = gain.ci95
    return f"{gain.mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _spread(values: Sequence[float]) -> str:
    if not values:
        return "all failed"
    mean = sum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.1%}"
    return f"{mean:.1%} ({min(values):.1%} to {max(values):.1%})"


def _target_heading(result: Result, name: str) -> str:
    shots = result.targets[name].shots
    tested = f"{result.num_images(name)} {result.sample}s"
    return f"{name}\n{tested}" + (f", {shots} shots" if shots else "")
