"""Sessions and batches: their states, their time, and who may open them."""

import datetime
import time
from dataclasses import dataclass, field
from typing import Any, Literal

from qkd_qiskit.targets.ibm.emulator.ledger import LedgerSession
from qkd_qiskit.targets.ibm.usage_model import INTERACTIVE_TTL_S, MAX_SESSION_S, session_seconds

Plan = Literal["open", "premium"]
UNUSED_TTL_S = 1800.0
"""Seconds after which a session without any job is closed."""


class Refused(Exception):
    """A request that the service does not serve.

    Attributes:
        status: HTTP status.
        code: IBM's number of the error.
        message: What the service says.
    """

    def __init__(self, status: int, code: int, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


@dataclass
class EmulatedSession:
    """A session or batch with its clock.

    Attributes:
        record: What the ledger shows.
        jobs: QPU seconds of its finished jobs.
        waits: Seconds between its jobs, as they were on this machine's clock.
        idle_since: When its last job ended, on the same clock; None before the first.
        pending: Its jobs that are not finished.
    """

    record: LedgerSession
    jobs: list[float] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    idle_since: float | None = None
    opened: float = field(default_factory=time.monotonic)
    pending: int = 0

    @property
    def closed(self) -> bool:
        """Whether it has ended."""
        return self.record.state == "closed"

    def job_submitted(self, job_id: str) -> None:
        """Count a job that waits."""
        self.record.jobs.append(job_id)
        self.pending += 1

    def job_started(self) -> None:
        """Become active, and bill the wait before the job."""
        if self.idle_since is not None:
            self.waits.append(time.monotonic() - self.idle_since)
            self.idle_since = None
        if self.record.state != "active":
            self.enter("active")

    def job_ended(self, seconds: float, *, started: bool) -> None:
        """Bill a job that ended, and close if it was the last that was waited for."""
        self.pending -= 1
        if started:
            self.jobs.append(seconds)
            self.idle_since = time.monotonic()
        self._bill()
        if not self.pending and not self.record.accepting_jobs:
            self.enter("closed")

    def refresh(self) -> None:
        """Let time pass: without jobs it is deactivated, and after its maximum time closed."""
        self._bill()
        now = time.monotonic()
        if self.closed:
            return
        unused = self.idle_since is None and not self.record.jobs
        if self.record.quantum_seconds >= self.record.max_seconds or (
            unused and now - self.opened > UNUSED_TTL_S
        ):
            self.expire()
        elif (
            self.record.state == "active"
            and self.idle_since is not None
            and now - self.idle_since > INTERACTIVE_TTL_S
        ):
            self.enter("inactive")

    def close(self) -> None:
        """Accept no more jobs; end when the last one has."""
        self.record.accepting_jobs = False
        if not self.pending and not self.closed:
            self.enter("closed")

    def expire(self) -> None:
        """End because the time is over."""
        if not self.closed:
            self.record.accepting_jobs = False
            self.record.expired = True
            self.enter("closed")

    def enter(self, state: str) -> None:
        """Change the state."""
        self.record.state = state
        self.record.timestamps.append({"status": state.upper(), "timestamp": iso_now()})

    def details(self) -> dict[str, Any]:
        """Return what ``GET /sessions/ID`` answers."""
        record = self.record
        stamps = {stamp["status"]: stamp["timestamp"] for stamp in record.timestamps}
        return {
            "id": record.id,
            "backend_name": record.backend,
            "interactive_ttl": int(INTERACTIVE_TTL_S),
            "max_ttl": int(record.max_seconds),
            "active_ttl": int(record.max_seconds),
            "state": record.state,
            "accepting_jobs": record.accepting_jobs,
            "last_job_started": None,
            "last_job_completed": None,
            "started_at": stamps.get("ACTIVE"),
            "activated_at": stamps.get("ACTIVE"),
            "closed_at": stamps.get("CLOSED"),
            "mode": record.mode,
            "elapsed_time": record.quantum_seconds,
            "timestamps": record.timestamps,
        }

    def _bill(self) -> None:
        waits = list(self.waits)
        if self.idle_since is not None and not self.closed:
            waits.append(time.monotonic() - self.idle_since)
        # A batch is charged for its jobs alone.
        dedicated = self.record.mode == "dedicated"
        if not self.closed:
            self.record.quantum_seconds = session_seconds(
                self.jobs, waits=waits if dedicated else ()
            )
        elif not dedicated:
            self.record.quantum_seconds = session_seconds(self.jobs)


def open_session(
    *, session_id: str, mode: str | None, backend: str, max_seconds: float | None, plan: Plan
) -> EmulatedSession:
    """Return a new session or batch.

    Raises:
        Refused: The mode is not known, or the plan does not allow it.
    """
    if mode not in ("dedicated", "batch"):
        raise Refused(400, 1002, f"mode {mode!r} is not accepted; give dedicated or batch")
    if mode == "dedicated" and plan == "open":
        raise Refused(
            400, 1352, "You are not authorized to run a session when using the open plan."
        )
    record = LedgerSession(
        id=session_id,
        mode=mode,
        backend=backend,
        max_seconds=min(max_seconds or MAX_SESSION_S, MAX_SESSION_S),
        created=iso_now(),
    )
    session = EmulatedSession(record)
    session.enter("open")
    return session


def iso_now() -> str:
    """Return the time as the service writes it: ISO 8601, UTC, ``Z``."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat().replace("+00:00", "Z")
