"""QPU seconds that a run may use: checked before each job, and while one takes too long."""

from __future__ import annotations

import logging
import math

from qkd_qiskit.errors import BudgetError, InputError
from qkd_qiskit.targets.ibm.journal import JobRecord, Journal
from qkd_qiskit.targets.ibm.protocols import Job
from qkd_qiskit.targets.ibm.service_errors import ServiceError

logger = logging.getLogger(__name__)


class Budget:
    """What the jobs of a journal may use together."""

    def __init__(self, max_qpu_seconds: float | None, *, journal: Journal, hint: str) -> None:
        """Take the QPU seconds, what was sent so far, and what a user does to allow more.

        Raises:
            InputError: Max_qpu_seconds is not accepted.
        """
        if max_qpu_seconds is not None and not max_qpu_seconds > 0:
            raise InputError(f"max_qpu_seconds is {max_qpu_seconds}; give a number above 0")
        self.max_qpu_seconds, self.journal, self.hint = max_qpu_seconds, journal, hint
        self._stopped: dict[str, str] = {}

    def check(self, expected: float) -> None:
        """Check that a job of so many expected QPU seconds may be sent.

        Raises:
            BudgetError: It would pass them.
        """
        if self.max_qpu_seconds is None:
            return
        used = self.journal.totals().spent_s
        if used + expected > self.max_qpu_seconds:
            raise BudgetError(
                f"the next job is expected to take {expected:.3g} QPU seconds; with "
                f"{used:.6g} used, the {self.max_qpu_seconds:g} that are allowed would be passed; "
                f"{math.ceil(used + expected)} are needed; {self.hint}"
            )

    def watch(self, record: JobRecord, job: Job) -> None:
        """Cancel a job that runs, where it has used more than it was expected to and is allowed.

        What it has used so far is not final, and not every service or client tells it.
        """
        if self.max_qpu_seconds is None or record.tag in self._stopped:
            return
        try:
            so_far = job.usage_so_far()
        except ServiceError:
            return  # the next look asks again
        if so_far is None or so_far <= record.estimate_s:
            return
        used = self.journal.totals().spent_s - record.estimate_s + so_far
        if used <= self.max_qpu_seconds:
            return
        self._stopped[record.tag] = (
            f"job {job.id} was expected to take {record.estimate_s:.3g} QPU seconds and has used "
            f"{so_far:.3g} so far: the {self.max_qpu_seconds:g} that are allowed are passed, so it "
            f"was cancelled; {self.hint}"
        )
        try:
            job.cancel()
        except ServiceError as failure:
            logger.warning("job %s could not be cancelled: %s", job.id, failure)

    def check_stopped(self, record: JobRecord) -> None:
        """Raise where a job was cancelled because it took too long.

        Raises:
            BudgetError: It was.
        """
        if record.tag in self._stopped:
            raise BudgetError(self._stopped[record.tag])
