"""What jobs and sessions have used, asked for until the service tells."""

import logging
import time
from collections.abc import Callable, Mapping
from functools import partial

from qkd_qiskit.errors import SubmissionError
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.protocols import Connection, Job
from qkd_qiskit.targets.ibm.retry import Asking

logger = logging.getLogger(__name__)

_ROUNDS = 4


class Usage:
    """Writes into a journal what a service bills; a service may tell it some time after the job."""

    def __init__(self, connection: Connection, *, journal: Journal, service: Asking) -> None:
        self.connection, self.journal, self.service = connection, journal, service

    def of_job(self, job: Job) -> float | None:
        """Return a job's QPU seconds; None, to be asked for again later, where that fails."""
        return self._of(job.usage)

    def settle(self) -> None:
        """Ask for the QPU seconds of jobs and sessions that the service had not told yet."""
        for number in range(1, _ROUNDS + 1):
            self._ask_once()
            if not self.journal.unsettled():
                return
            if number < _ROUNDS:
                time.sleep(self.service.patience.wait_s(number))
        untold = len(self.journal.unsettled())
        go_on = self.service.go_on
        logger.warning("the service has not told yet what %d jobs used; %s", untold, go_on)

    def _ask_once(self) -> None:
        for record in self.journal.unsettled():
            usage = self._of(partial(self._by_id, str(record.job)))
            if usage is not None:
                self.journal.append("usage", tag=record.tag, usage_s=usage)
        for job in _unknown(self.journal.duplicates):
            usage = self._of(partial(self._by_id, job))
            if usage is not None:
                self.journal.append("duplicate", job=job, usage_s=usage)
        for session in _unknown({name: told for name, (_, told) in self.journal.sessions.items()}):
            usage = self._of(partial(self.connection.session_usage, session))
            if usage is not None:
                self.journal.append("session_usage", id=session, usage_s=usage)

    def _by_id(self, job: str) -> float | None:
        return self.connection.job(job).usage()

    def _of(self, ask: Callable[[], float | None]) -> float | None:
        if self.connection.local:
            return 0.0
        try:
            return self.service.ask("usage", ask)
        except SubmissionError as error:
            logger.warning("%s", error)
            return None


def _unknown(told: Mapping[str, float | None]) -> list[str]:
    return [name for name, seconds in told.items() if seconds is None]
