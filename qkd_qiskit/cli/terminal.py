"""What a run looks like on a terminal: live bars, or plain lines when piped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from qkd_qiskit.experiments.progress import Progress
from qkd_qiskit.experiments.result_tables import gain_text
from qkd_qiskit.experiments.results import COMPARISONS, Comparison, Result
from qkd_qiskit.report.conclusions import conclusions
from qkd_qiskit.targets.ibm.job_records import Totals

_WIDE = 100  # columns of a terminal, from which bars are long
_GAIN_TITLES = (
    "gain (points)",
    "over the classical twin",
    "over the full-size twin",
    "training through noise",
)


class Terminal(Progress):
    """Shows stages, epochs and evaluated images; use as a context manager."""

    def __init__(self, console: Console) -> None:
        super().__init__(partial(console.print, highlight=False))
        self._live = console.is_terminal
        wide = console.width >= _WIDE
        self._progress = Bars(
            TextColumn("{task.description}", table_column=Column(min_width=28 if wide else 24)),
            BarColumn(bar_width=30 if wide else 6),
            _Done(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not self._live,
        )
        self._task: TaskID | None = None
        self._begun: TaskID | None = None

    def __enter__(self) -> Terminal:
        if self._live:  # in a pipe rich before 15 ends with an empty line
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._forget_begun()
        if self._live:
            self._progress.stop()

    def begin(self) -> None:
        """Show that a stage has begun: as a line, or as a bar that goes where no figures come."""
        if not self._live:
            super().begin()
            return
        self._forget_begun()
        self._task = None
        self._begun = self._progress.add_task(self.stage_name, total=None, figures="")

    def jobs(self, totals: Totals) -> None:
        """Show what happened to a job on a device."""
        super().jobs(totals)
        if self._live:
            self._progress.update(self._bar(total=None), figures=self.text)

    def show(self, done: int, total: int, *, unit: str) -> None:
        """Show how far a stage is."""
        if self._live:
            bar = self._bar(total=total)
            self._progress.update(bar, completed=done, total=total, figures=self.text)
        else:
            super().show(done, total, unit=unit)

    def _bar(self, *, total: int | None) -> TaskID:
        """Return the bar of the stage, a new one where it has none."""
        if self._task is None and self._begun is not None:
            self._task, self._begun = self._begun, None
        if self._task is None:
            self._task = self._progress.add_task(self.stage_name, total=total, figures="")
        return self._task

    def _forget_begun(self) -> None:
        """Remove the bar of a stage that had no figures to show."""
        if self._begun is not None:
            self._progress.remove_task(self._begun)
            self._begun = None


class _Done(MofNCompleteColumn):
    """How much of a stage is done, empty while its size is not known."""

    def render(self, task: Task) -> Text:
        """Return the text of a bar."""
        return Text("") if task.total is None else super().render(task)


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
    table = Table(
        title="paired gains in points, with their 95 % interval",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("", overflow="fold")
    for name in ("gain", "p (Holm)", "effect\nd_z", "pairs", "seeds for\n1 point"):
        table.add_column(name, justify="right", no_wrap=True)
    for target in result.targets:
        table.add_section()
        for entry in result.comparisons:
            if entry.target == target:
                table.add_row(*_comparison(entry, result))
    return table


def answers(result: Result) -> list[tuple[str, bool]]:
    """Return whether distillation helped on each target, and whether that is decided."""
    lines = []
    for target in result.targets:
        for answer in conclusions(result, target)[: target in result.gain]:
            text = answer.sentence.replace("\u202f", " ").replace("−", "-")
            lines.append((f"{target}: {text}", answer.verdict != "open"))
    return lines


def _comparison(entry: Comparison, result: Result) -> list[str]:
    where = f" on {entry.target}" if len(result.targets) > 1 else ""
    if result.twins is not None and entry.baseline == result.twins.best:
        where = f" (best twin){where}"
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
