"""The session or batch that a run's jobs go into: opened, rejoined, renewed."""

import contextlib
import logging
from functools import partial

from qkd_qiskit.errors import SubmissionError
from qkd_qiskit.recipe import Mode
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.protocols import Connection
from qkd_qiskit.targets.ibm.retry import Retries
from qkd_qiskit.targets.ibm.service_errors import ServiceError

logger = logging.getLogger(__name__)
_CLOSING = 4
"""Times that a session is tried to be closed: nobody waits for long after Ctrl-C."""


class SessionKeeper:
    """Has a session open when a job is sent; in mode job there is none."""

    def __init__(
        self, connection: Connection, *, journal: Journal, retries: Retries, mode: Mode
    ) -> None:
        self.connection, self.journal, self.retries = connection, journal, retries
        self.mode: Mode = mode
        """What is opened: a batch, where sessions are wanted and the plan has none."""
        self._inside = False

    def enter(self) -> None:
        """Join a session: that of the process before where it is still open, or a new one."""
        if self.mode == "job" or self._inside:
            return
        if self.journal.session is not None:
            before, mode = self.journal.session
            if self._rejoin(before, mode):
                if mode == self.mode:
                    return
                self.retries.call("closing a session", self.connection.close_session)
            self.record_closed()
        opened = self.retries.call("opening a session", self._open)
        self._inside = True
        if opened is not None:
            self.journal.append("session", state="opened", id=opened, mode=self.mode)

    def lost(self) -> bool:
        """Return whether there was a session and it takes no more jobs."""
        return self._inside and not self.retries.call("session", self.connection.session_open)

    def has_ended(self, session: str | None) -> bool:
        """Return whether a session that a job was submitted to has ended since."""
        if session is None:
            return False
        now = self.journal.session
        if now is None or now[0] != session:
            return True
        if self._inside:
            return self.lost()
        return not self._rejoin(*now)

    def record_closed(self) -> None:
        """Record that the session has ended; the next job opens another."""
        self._inside = False
        if self.journal.session is None:
            return
        before, mode = self.journal.session
        usage = None
        # One request: what is not known now is requested when all else is done.
        with contextlib.suppress(ServiceError):
            usage = self.connection.session_usage(before)
        self.journal.append("session", state="closed", id=before, mode=mode, usage_s=usage)

    def pause(self) -> None:
        """Close a session, which is billed while it is open, until `enter` opens another."""
        if self.mode == "session" and self._inside:
            self.close()

    def close(self) -> None:
        """Let the session take no more jobs, that of a process that died too; its jobs run on."""
        try:
            if self.journal.session is not None and not self._inside:
                rejoin = partial(self.connection.rejoin_session, *self.journal.session)
                self._inside = self.retries.call("joining the session", rejoin, tries=_CLOSING)
            if self._inside:
                close = self.connection.close_session
                self.retries.call("closing the session", close, tries=_CLOSING)
        except SubmissionError as failure:
            logger.warning("session not closed: %s", failure)
            return
        self.record_closed()

    def _rejoin(self, session: str, mode: Mode) -> bool:
        rejoin = partial(self.connection.rejoin_session, session, mode)
        self._inside = self.retries.call(f"session {session}", rejoin)
        return self._inside

    def _open(self) -> str | None:
        try:
            return self.connection.open_session(self.mode)
        except ServiceError as failure:
            if failure.kind != "no_sessions" or self.mode == "batch":
                raise
            reason = str(failure)
        logger.warning(
            "%s: this plan has no sessions, so jobs go in a batch, where each may wait (%s)",
            self.connection.name,
            reason,
        )
        self.mode = "batch"
        return self.connection.open_session(self.mode)
