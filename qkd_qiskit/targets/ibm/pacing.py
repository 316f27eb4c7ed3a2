"""How fast a run creates jobs: no more than the service takes, and no session held meanwhile."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from qkd_qiskit.targets.ibm.journal import JobRecord, Journal
from qkd_qiskit.targets.ibm.protocols import Connection, Job
from qkd_qiskit.targets.ibm.retry import Retries
from qkd_qiskit.targets.ibm.service_limits import CreationPace, ServiceLimits
from qkd_qiskit.targets.ibm.sessions import SessionKeeper

logger = logging.getLogger(__name__)

HELD_S = 5.0
"""Seconds that a session is held, and billed, for the pace of job creation; for longer waits it is
closed, and another one opened after it."""


class JobPacing:
    """Waits before each job until the service takes another one."""

    def __init__(
        self,
        connection: Connection,
        *,
        journal: Journal,
        retries: Retries,
        session: SessionKeeper,
        job_of: Callable[[JobRecord], Job],
    ) -> None:
        """Take what is paced.

        Args:
            connection: The device, whose service has limits.
            journal: What was sent before, by an earlier process too.
            retries: Calls the service.
            session: What is closed during long waits.
            job_of: Returns the job of a record.
        """
        self.connection, self.journal, self.retries = connection, journal, retries
        self.session, self._job_of = session, job_of
        self._pace: CreationPace | None = None
        self._room: int | None = None
        self._ended: set[str] = set()
        self._shown = False

    def before_job(self) -> None:
        """Wait until another job may be created, and count it.

        Raises:
            SubmissionError: The service does not answer.
        """
        pace = self._started()
        self._wait_for_room()
        wait = pace.wait_s()
        if wait:
            if not self._shown:
                self._shown = True
                limits = pace.limits.describe()
                logger.warning("%s takes %s: waiting %.0f s", self.connection.name, limits, wait)
            if wait > HELD_S and not self._pending():
                self.session.pause()
            time.sleep(wait)
        pace.created()

    def answered(self) -> None:
        """Count the last job from now on: when the request arrived is not known."""
        self._started().answered()

    def refused(self) -> bool:
        """Take note that too many jobs are on their way; return whether own ones will make room."""
        pending = len(self._pending())
        self._room = pending or None
        return pending > 0

    def _started(self) -> CreationPace:
        if self._pace is None:
            limits: ServiceLimits = self.retries.call(
                "the limits of the account", self.connection.service_limits
            )
            self._pace, self._room = CreationPace(limits), limits.pending
            for at in list(self.journal.created)[:-1]:  # the last one is about to be sent
                self._pace.created(at)
        return self._pace

    def _wait_for_room(self) -> None:
        wait = self.retries.policy.poll_s
        while self._room is not None:
            pending = self._pending()
            if len(pending) < self._room:
                return
            for record in pending:
                job = self._job_of(record)
                if self.retries.call(f"state of job {job.id}", job.state) != "waiting":
                    self._ended.add(record.tag)
                    break
            else:
                time.sleep(wait)
                wait = self.retries.policy.next_poll_s(wait)

    def _pending(self) -> list[JobRecord]:
        """Return the jobs that wait or run, as far as it is known, the oldest first."""
        return [
            record
            for record in self.journal.records.values()
            if record.state == "submitted" and record.tag not in self._ended
        ]
