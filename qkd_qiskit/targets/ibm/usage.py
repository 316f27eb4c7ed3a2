"""What jobs and sessions have used, requested until the service reports it."""

import logging
import math
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from qkd_qiskit.errors import SubmissionError
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.protocols import Connection, Job
from qkd_qiskit.targets.ibm.retry import Retries

logger = logging.getLogger(__name__)

_ROUNDS = 4


class Usage:
    """Writes into a journal what a service charges, which it may report some time after a job."""

    def __init__(self, connection: Connection, *, journal: Journal, retries: Retries) -> None:
        self.connection, self.journal, self.retries = connection, journal, retries

    def of_job(self, job: Job) -> float | None:
        """Return a job's QPU seconds; None, to be requested again later, where that fails."""
        return self._of(job.usage)

    def settle(self) -> None:
        """Request the QPU seconds of jobs and sessions that are not known yet."""
        for number in range(1, _ROUNDS + 1):
            self._request_missing()
            if not self.journal.unsettled():
                return
            if number < _ROUNDS:
                time.sleep(self.retries.policy.wait_s(number))
        missing, hint = len(self.journal.unsettled()), self.retries.resume_hint
        logger.warning("the service has not told yet what %d jobs used; %s", missing, hint)

    def _request_missing(self) -> None:
        for record in self.journal.unsettled():
            usage = self._of(partial(self._by_id, str(record.job)))
            if usage is not None:
                self.journal.append("usage", tag=record.tag, usage_s=usage)
        for job in _unknown(self.journal.duplicates):
            usage = self._of(partial(self._by_id, job))
            if usage is not None:
                self.journal.append("duplicate", job=job, usage_s=usage)
        sessions = {name: seconds for name, (_, seconds) in self.journal.sessions.items()}
        for session in _unknown(sessions):
            usage = self._of(partial(self.connection.session_usage, session))
            if usage is not None:
                self.journal.append("session_usage", id=session, usage_s=usage)

    def _by_id(self, job: str) -> float | None:
        return self.connection.job(job).usage()

    def _of(self, request: Callable[[], float | None]) -> float | None:
        if self.connection.local:
            return 0.0
        try:
            return self.retries.call("usage", request)
        except SubmissionError as error:
            logger.warning("%s", error)
            return None


def seconds_of(reported: Any, *, of: str) -> float | None:
    """Return the QPU seconds that a service reported, or None where it is no number from 0.

    Args:
        reported: What it answered.
        of: The job or session, for the log.
    """
    if reported is None:
        return None
    number = isinstance(reported, (int, float)) and not isinstance(reported, bool)
    if number and 0 <= reported < math.inf:
        return float(reported)
    logger.warning("%s: the service reports %.40r QPU seconds, which is not counted", of, reported)
    return None


def _unknown(usage: Mapping[str, float | None]) -> list[str]:
    return [name for name, seconds in usage.items() if seconds is None]
