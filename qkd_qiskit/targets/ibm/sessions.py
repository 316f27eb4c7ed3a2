"""The session or batch that a run's jobs go into: opened when one is sent, found again, renewed."""

import contextlib
import logging
from functools import partial

from qkd_qiskit.recipe import Mode
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.protocols import Connection
from qkd_qiskit.targets.ibm.retry import Asking
from qkd_qiskit.targets.ibm.service_errors import Fault

logger = logging.getLogger(__name__)


class SessionKeeper:
    """Has a session open when a job is sent; in mode job there is none."""

    def __init__(
        self, connection: Connection, *, journal: Journal, service: Asking, mode: Mode
    ) -> None:
        self.connection, self.journal, self.service = connection, journal, service
        self.mode: Mode = mode
        """What is opened: a batch, where sessions were asked for and the plan has none."""
        self._inside = False

    def enter(self) -> None:
        """Be in a session: that of the process before where it is still open, or a new one."""
        if self.mode == "job" or self._inside:
            return
        if self.journal.session is not None:
            before, mode = self.journal.session
            if self._rejoin(before, mode):
                if mode == self.mode:
                    return
                self.service.ask("closing a session", self.connection.close_session)
            self.over()
        opened = self.service.ask("opening a session", self._open)
        self._inside = True
        if opened is not None:
            self.journal.append("session", state="opened", id=opened, mode=self.mode)

    def lost(self) -> bool:
        """Return whether there was a session and it takes no more jobs."""
        return self._inside and not self.service.ask("session", self.connection.session_open)

    def took_along(self, session: str | None) -> bool:
        """Return whether a session that a job was submitted to has ended since."""
        if session is None:
            return False
        now = self.journal.session
        if now is None or now[0] != session:
            return True
        if self._inside:
            return self.lost()
        return not self._rejoin(*now)

    def over(self) -> None:
        """Write down that the session has ended; the next job opens another."""
        self._inside = False
        if self.journal.session is None:
            return
        before, mode = self.journal.session
        usage = None
        # Asked once: what is not told now is asked for when all else is done.
        with contextlib.suppress(Fault):
            usage = self.connection.session_usage(before)
        self.journal.append("session", state="closed", id=before, mode=mode, usage_s=usage)

    def close(self) -> None:
        """Let the session take no more jobs, that of a process that died too; its jobs run on."""
        try:
            if self.journal.session is not None and not self._inside:
                self._inside = self.connection.rejoin_session(*self.journal.session)
            if self._inside:
                self.connection.close_session()
        except Fault as fault:
            logger.warning("%s: session not closed: %s", self.connection.name, fault)
            return
        self.over()

    def _rejoin(self, session: str, mode: Mode) -> bool:
        rejoin = partial(self.connection.rejoin_session, session, mode)
        self._inside = self.service.ask(f"session {session}", rejoin)
        return self._inside

    def _open(self) -> str | None:
        try:
            return self.connection.open_session(self.mode)
        except Fault as fault:
            if fault.kind != "no_sessions" or self.mode == "batch":
                raise
            reason = str(fault)
        logger.warning(
            "%s: this plan has no sessions, so jobs go in a batch, where each may wait (%s)",
            self.connection.name,
            reason,
        )
        self.mode = "batch"
        return self.connection.open_session(self.mode)
