"""The queue of jobs, and the thread that runs them one after the other."""

import collections
import datetime
import logging
import threading
import time
from collections.abc import Callable, Mapping

from qkd_qiskit.targets.ibm.emulator.devices import EmulatedDevice
from qkd_qiskit.targets.ibm.emulator.fault_injection import RUN, Fault, Faults
from qkd_qiskit.targets.ibm.emulator.jobs import EmulatedJob
from qkd_qiskit.targets.ibm.emulator.programs import write_result
from qkd_qiskit.targets.ibm.emulator.sessions import EmulatedSession, iso_now
from qkd_qiskit.targets.ibm.usage_model import MAX_JOB_S

logger = logging.getLogger(__name__)

INVALID = 1002
"""IBM's number for a job or request that is not valid."""
_SYSTEM_ERROR = 1010
_SESSION_CLOSED = 1217
_TOO_LONG = 1305
_IDLE_S = 0.02
_OVERRUN_SEEN_S = 3.0
"""Seconds on this machine's clock that a job with the fault ``overrun`` runs at most."""


class JobQueue:
    """Jobs in the order in which they came; those of a session do not overtake others.

    There are no other users, so a session has nothing to wait for.
    """

    def __init__(
        self,
        devices: Mapping[str, EmulatedDevice],
        *,
        faults: Faults,
        lock: threading.RLock,
        is_open: Callable[[], bool],
    ):
        """Take what runs the jobs.

        Args:
            devices: The devices by name.
            faults: What goes wrong with jobs.
            lock: Held while a record changes.
            is_open: Whether the instance has QPU seconds left; jobs wait while it has none.
        """
        self.jobs: dict[str, EmulatedJob] = {}
        """All jobs by id, the oldest first."""
        self.sessions: dict[str, EmulatedSession] = {}
        """All sessions and batches by id."""
        self._devices = devices
        self._faults = faults
        self._lock = lock
        self._is_open = is_open
        self._waiting: collections.deque[EmulatedJob] = collections.deque()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rehearsal-jobs", daemon=True)

    def start(self) -> None:
        """Start to run jobs."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the job that runs."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def put(self, job: EmulatedJob) -> None:
        """Let a job wait for its turn."""
        with self._lock:
            self.jobs[job.record.id] = job
            self._waiting.append(job)
        self._wake.set()

    def end(
        self,
        job: EmulatedJob,
        status: str,
        *,
        reason: str | None = None,
        code: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        """Bring a job to its end, unless it has ended.

        Args:
            job: The job.
            status: ``Completed``, ``Failed`` or ``Cancelled``.
            reason: Why it was not completed.
            code: IBM's number for that.
            seconds: QPU seconds to charge.
        """
        with self._lock:
            record = job.record
            if record.final:
                return
            record.status, record.reason, record.reason_code = status, reason, code
            record.finished, record.quantum_seconds = iso_now(), seconds
            session = self.sessions.get(record.session_id or "")
            if session is not None:
                session.job_ended(seconds, started=record.started is not None)

    def drop_waiting(self, session: EmulatedSession, status: str, *, reason: str) -> None:
        """End the jobs of a session that have not begun."""
        with self._lock:
            for job_id in session.record.jobs:
                job = self.jobs[job_id]
                if job.record.status == "Queued":
                    self.end(job, status, reason=reason, code=_SESSION_CLOSED)

    def expire_sessions(self) -> None:
        """Let all sessions and batches reach their maximum time: what still waits fails."""
        with self._lock:
            for session in self.sessions.values():
                session.expire()
                self._fail_expired(session)

    def _fail_expired(self, session: EmulatedSession) -> None:
        self.drop_waiting(session, "Failed", reason="The session has expired")

    def _work(self) -> None:
        while not self._stopping.is_set():
            job = self._next()
            if job is None:
                self._wake.wait(_IDLE_S)
                self._wake.clear()
                continue
            try:
                self._serve(job)
            except Exception as error:  # a fault of the simulator must not end the service
                logger.exception("job %s could not be simulated", job.record.id)
                reason = f"{type(error).__name__}: {error}"
                self.end(job, "Failed", reason=reason, code=_SYSTEM_ERROR)

    def _next(self) -> EmulatedJob | None:
        with self._lock:
            if not self._is_open():
                return None
            for job in self._waiting:
                if job.record.final or self._devices[job.record.backend].status == "active":
                    self._waiting.remove(job)
                    return job
        return None

    def _serve(self, job: EmulatedJob) -> None:
        fault = None if job.record.final else self._faults.draw(RUN)
        if fault is not None and fault.kind == "expire_session":
            self.expire_sessions()
        with self._lock:
            session = self.sessions.get(job.record.session_id or "")
            if session is not None:
                session.refresh()
                if session.record.expired:
                    self._fail_expired(session)
            if job.record.final:
                return
            job.record.status, job.record.started = "Running", iso_now()
            if session is not None:
                session.job_started()
        if fault is not None and fault.kind == "delay":
            self._stopping.wait(fault.seconds)
        if fault is not None and fault.kind == "overrun":
            job.overrun_s = fault.seconds
            self._wait_for_cancelling(job)
        if job.problem is not None:
            self.end(job, "Failed", reason=job.problem, code=INVALID)
        elif not self._strike(job, fault):
            self._run(job)

    def _wait_for_cancelling(self, job: EmulatedJob) -> None:
        """Let a client see for a while that a job takes long."""
        until = time.monotonic() + _OVERRUN_SEEN_S
        while not job.record.final and time.monotonic() < until:
            self._stopping.wait(_IDLE_S)

    def _strike(self, job: EmulatedJob, fault: Fault | None) -> bool:
        """Let a job's fault, or its time limit, strike it; whether it has ended by that."""
        needed = job.needed_s
        limit = min(job.record.max_seconds or MAX_JOB_S, MAX_JOB_S)
        kind = None if fault is None else fault.kind
        if needed > limit or kind == "max_time":
            reason = "Job exceeded its maximum execution time; it was cancelled"
            seconds = min(needed, limit)
            self.end(job, "Cancelled", reason=reason, code=_TOO_LONG, seconds=seconds)
            return True
        # IBM does not charge for its own errors; one that comes late is there to test the other.
        seconds = needed if fault is not None and fault.accepted else 0.0
        if kind == "fail":
            reason = "Error returned at backend level."
            self.end(job, "Failed", reason=reason, code=_SYSTEM_ERROR, seconds=seconds)
        elif kind == "cancel":
            self.end(job, "Cancelled", reason="Job was cancelled", seconds=seconds)
        return kind in ("fail", "cancel")

    def _run(self, job: EmulatedJob) -> None:
        device = self._devices[job.record.backend]
        started = datetime.datetime.now(datetime.timezone.utc)
        results = [
            device.run(pub, seed=seed)
            for pub, seed in zip(job.program.pubs, job.seeds, strict=True)
        ]
        finished = datetime.datetime.now(datetime.timezone.utc)
        output = write_result(job.program, results, started=started, finished=finished)
        with self._lock:
            if not job.record.final:
                job.output, job.record.executed = output, True
                self.end(job, "Completed", seconds=job.needed_s)
