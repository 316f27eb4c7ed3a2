"""Progress of a run: what is called while it goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.targets.ibm.job_records import Totals


class Callback:
    """Hears of stages, epochs, images and tasks; the base class is silent."""

    def began(self, folder: RunFolder) -> None:
        """Hear that a run begins or goes on: its recipe fits, and nothing is trained yet."""

    def ended(self, result: Result) -> None:
        """Hear that the run has ended."""

    def close(self) -> None:
        """Hear that nothing more will be heard, as the run was interrupted or failed."""

    def stage(self, text: str) -> None:
        """Hear that a new stage has begun."""

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """Hear that a population has finished an epoch."""

    def teacher_epoch(self, epoch: int, *, epochs: int, loss: float, accuracy: float) -> None:
        """Hear that the teacher has finished an epoch; accuracy is on the validation split."""

    def evaluated(self, images: int, *, total: int) -> None:
        """Hear that more images have been evaluated; `total` is for the whole target."""

    def tasks(self, done: int, *, total: int) -> None:
        """Hear how many tasks of a round in several processes are finished."""

    def step(self, number: int, *, steps: int, loss: float) -> None:
        """Hear of a step of training on a device; loss is the mean over the members."""

    def jobs(self, totals: Totals) -> None:
        """Hear of a job on a device; `totals` is for all jobs of the submission."""


class Callbacks(Callback):
    """Tells several others what it hears, in their order."""

    def __init__(self, *callbacks: Callback) -> None:
        for name in vars(Callback):
            if not name.startswith("_"):
                setattr(self, name, partial(_call_all, [getattr(it, name) for it in callbacks]))


def _call_all(calls: Sequence[Callable[..., None]], *values: Any, **named: Any) -> None:
    for call in calls:
        call(*values, **named)
