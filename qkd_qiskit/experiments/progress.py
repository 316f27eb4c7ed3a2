"""Progress of a run as lines of text, and as a bar in the cell of a notebook."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from html import escape
from importlib import import_module
from typing import Any

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.targets.ibm.job_records import Totals

_LINE_EVERY_S = 5.0
_CELL_EVERY_S = 0.2


class Progress(Callback):
    """Makes one line of what a run tells; as it is, it prints lines at most every five seconds.

    Args:
        write: What takes a line.
    """

    def __init__(self, write: Callable[[str], object] = print) -> None:
        self.write = write
        self.stage_name, self.figures, self.jobs_text = "", "", ""
        self._evaluated, self._written = 0, 0.0

    def stage(self, text: str) -> None:
        """Begin a stage."""
        self.stage_name, self.figures = text, ""
        self._evaluated, self._written = 0, time.monotonic()
        self.begin()

    def teacher_epoch(self, epoch: int, *, epochs: int, loss: float, accuracy: float) -> None:
        """Show that the teacher has finished an epoch."""
        self._next(epoch, epochs, f"loss {loss:.3f}  validation {accuracy:.1%}", unit="epoch")

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """Show that a population has finished an epoch: means over its members."""
        loss = sum(member.loss for member in figures) / len(figures)
        accuracy = sum(member.validation_accuracy for member in figures) / len(figures)
        text = f"loss {loss:.3f}  validation {accuracy:.1%}"
        self._next(figures[0].epoch, epochs, text, unit="epoch")

    def evaluated(self, images: int, *, total: int) -> None:
        """Show that more images have been evaluated."""
        self._evaluated += images
        self._next(self._evaluated, total, "images", unit="image")

    def tasks(self, done: int, *, total: int) -> None:
        """Show how far a round of tasks is."""
        self._next(done, total, "trained", unit="task")

    def step(self, number: int, *, steps: int, loss: float) -> None:
        """Show a step of training on a device."""
        self._next(number, steps, f"loss {loss:.3f}", unit="step")

    def jobs(self, totals: Totals) -> None:
        """Keep what happened to a job on a device, to be shown with the figures."""
        failed = f", {totals.failed} failed" if totals.failed else ""
        self.jobs_text = (
            f"jobs: {totals.pending} running or queued, {totals.finished} done{failed}; "
            f"{totals.spent_s:.1f} QPU s"
        )

    @property
    def text(self) -> str:
        """The figures, with those of jobs where there are some."""
        return "  ".join(filter(None, [self.figures, self.jobs_text]))

    def begin(self) -> None:
        """Show that the stage `stage_name` has begun."""
        self.write(self.stage_name)

    def show(self, done: int, total: int, *, unit: str) -> None:
        """Show how far the stage is, with `text`."""
        if self.is_due(_LINE_EVERY_S) or done == total:
            text = "" if self.text == f"{unit}s" else self.text  # the unit is there already
            self.write(f"  {unit} {done}/{total}  {text}".rstrip())

    def is_due(self, seconds: float) -> bool:
        """Return whether that long has passed since it last did, or since the stage began."""
        due = time.monotonic() - self._written > seconds
        if due:
            self._written = time.monotonic()
        return due

    def _next(self, done: int, total: int, figures: str, *, unit: str) -> None:
        self.figures = figures
        self.show(done, total, unit=unit)


class NotebookProgress(Progress):
    """Shows a bar for each stage in the cell that runs, without widgets."""

    def __init__(self) -> None:
        super().__init__()
        self._stages: list[_Stage] = []
        self._handle: Any = None

    def begin(self) -> None:
        """Add a bar."""
        self._stages.append(_Stage(self.stage_name))
        self._update()

    def show(self, done: int, total: int, *, unit: str) -> None:
        """Move the last bar."""
        if not self._stages:
            self.begin()
        last = self._stages[-1]
        last.done, last.total, last.text = done, total, f"{unit} {done}/{total}  {self.text}"
        if self.is_due(_CELL_EVERY_S) or done == total:
            self._update()

    def _update(self) -> None:
        bars = _Bars(self._stages)
        if self._handle is None:
            self._handle = import_module("IPython.display").display(bars, display_id=True)
        else:
            self._handle.update(bars)


class _Stage:
    """A stage in a cell: its name and how far it is."""

    def __init__(self, name: str) -> None:
        self.name, self.done, self.total, self.text = name, 0, 0, ""


class _Bars:
    """Stages as IPython shows them; plain text is for what shows no HTML."""

    def __init__(self, stages: Sequence[_Stage]) -> None:
        self.stages = stages

    def __repr__(self) -> str:
        return "\n".join(f"{stage.name}  {stage.text}".rstrip() for stage in self.stages)

    def _repr_html_(self) -> str:
        def row(stage: _Stage) -> str:
            value = f' value="{stage.done}" max="{stage.total}"' if stage.total else ""
            bar = f"<progress{value}></progress>" if stage.text else ""
            cells = (escape(stage.name), bar, escape(stage.text))
            left = 'style="text-align: left"'
            return f"<tr>{''.join(f'<td {left}>{cell}</td>' for cell in cells)}</tr>"

        return f'<table style="color: inherit">{"".join(map(row, self.stages))}</table>'


def default_callback() -> Callback:
    """Return what shows progress where nothing is said: bars in a notebook, elsewhere nothing."""
    return NotebookProgress() if in_notebook() else Callback()


def in_notebook() -> bool:
    """Return whether this runs in a cell of a notebook, whose output can be replaced."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and hasattr(shell, "kernel")
