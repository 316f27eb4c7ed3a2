"""Progress of a run: what is called while it goes on."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.targets.ibm.job_records import Totals


class Callback:
    """Is called with stages, epochs, images and tasks; the base class is silent."""

    def stage(self, text: str) -> None:
        """A new stage has begun."""

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """A population has finished an epoch."""

    def teacher_epoch(self, epoch: int, *, epochs: int, loss: float, accuracy: float) -> None:
        """The teacher has finished an epoch; accuracy is on the validation split."""

    def evaluated(self, images: int, *, total: int) -> None:
        """More images have been evaluated on a target; `total` is for the whole target."""

    def tasks(self, done: int, *, total: int) -> None:
        """So many tasks of a round that runs in several processes are finished."""

    def step(self, number: int, *, steps: int, loss: float) -> None:
        """A step of training on a device has been taken; loss is the mean over the members."""

    def jobs(self, totals: Totals) -> None:
        """Something happened to a job on a device; `totals` is for all jobs of the submission."""
