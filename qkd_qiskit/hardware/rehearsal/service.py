"""The service behind the endpoints: its jobs, its queue and what they are charged."""

import collections
import datetime
import logging
import math
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qkd_qiskit.errors import InputError
from qkd_qiskit.hardware.accounting import MAX_EXECUTIONS, MAX_JOB_S, job_seconds
from qkd_qiskit.hardware.rehearsal.devices import RehearsalDevice
from qkd_qiskit.hardware.rehearsal.faults import RUN, Fault, Faults
from qkd_qiskit.hardware.rehearsal.ledger import JobRecord, Ledger
from qkd_qiskit.hardware.rehearsal.programs import Program, job_seeds, read_program, write_result
from qkd_qiskit.hardware.rehearsal.sessions import Plan, Refused, Session, iso_now, open_session

logger = logging.getLogger(__name__)

OPEN_PLAN_S = 600.0
"""QPU seconds of the Open Plan in 28 days."""
_IDLE_S = 0.02
_SYSTEM_ERROR = 1010
_INVALID = 1002
_TOO_LONG = 1305


@dataclass
class _Job:
    record: JobRecord
    params: Any
    program: Program
    seeds: tuple[int, ...]
    problem: str | None
    output: str = ""
    deleted: bool = False


class Service:
    """Jobs, sessions and one queue, worked off by a thread of its own.

    Jobs of a batch or session do not overtake others: there are no other users.
    """

    def __init__(
        self,
        devices: Sequence[RehearsalDevice],
        *,
        plan: Plan,
        faults: Faults,
        seed: int,
        allowance_s: float | None = None,
    ):
        """Take the devices, the plan, the switchboard, the seed of the shots and the allowance.

        Args:
            devices: what is served.
            plan: ``open`` refuses sessions and has `OPEN_PLAN_S`.
            faults: what goes wrong.
            seed: seed of jobs without a seed tag.
            allowance_s: QPU seconds of the instance; default: the plan's; None: no limit.
        """
        self.devices = {device.name: device for device in devices}
        self.plan: Plan = plan
        self.faults = faults
        self.seed = seed
        self.allowance_s = OPEN_PLAN_S if allowance_s is None and plan == "open" else allowance_s
        self.ledger = Ledger(faults)
        self._lock = self.ledger.lock
        self._jobs: dict[str, _Job] = {}
        self._sessions: dict[str, Session] = {}
        self._queue: collections.deque[_Job] = collections.deque()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._work, name="rehearsal-jobs", daemon=True)

    def start(self) -> None:
        """Begin to work off the queue."""
        self._thread.start()

    def stop(self) -> None:
        """Stop after the job that runs."""
        self._stopping.set()
        self._wake.set()
        self._thread.join()

    def device(self, name: str) -> RehearsalDevice:
        """Return a device.

        Raises:
            Refused: there is no such device.
        """
        try:
            return self.devices[name]
        except KeyError:
            raise Refused(404, 1007, f"Backend not found: {name}") from None

    def pending(self, device: str) -> int:
        """Return how many jobs wait for a device or run on it."""
        with self._lock:
            return sum(
                job.record.backend == device and not job.record.final for job in self._jobs.values()
            )

    def consumed_s(self) -> float:
        """Return the QPU seconds that are charged so far: sessions as a whole, jobs, batches."""
        with self._lock:
            for session in self._sessions.values():
                session.refresh()
            sessions = [
                session.record.quantum_seconds
                for session in self._sessions.values()
                if session.record.mode == "dedicated"
            ]
            jobs = [
                job.record.quantum_seconds
                for job in self._jobs.values()
                if job.record.mode != "dedicated"
            ]
            return math.fsum(sessions + jobs)

    def submit(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Accept a job; returns what ``POST /jobs`` answers.

        Raises:
            Refused: program, device, session or a tag is not accepted.
        """
        device = self.device(str(payload.get("backend")))
        if payload.get("program_id") != "executor":
            raise Refused(
                404, _INVALID, f"Program not found: {payload.get('program_id')!r}; the rehearsal "
                "runs the executor-based primitives"
            )  # fmt: skip
        tags = tuple(str(tag) for tag in payload.get("tags") or ())
        try:
            program = read_program(payload.get("params") or {})
            seeds = job_seeds(tags, program, seed=self.seed)
        except InputError as error:
            raise Refused(400, _INVALID, str(error)) from error
        problem = device.problem(program)
        loads = tuple(device.load(pub, runs=problem is None) for pub in program.pubs)
        executions = sum(load.executions for load in loads)
        if problem is None and executions > MAX_EXECUTIONS:
            problem = f"{executions:,} executions; a job may have {MAX_EXECUTIONS:,}"
        cost = payload.get("cost")
        record = JobRecord(
            id=_new_id(),
            backend=device.name,
            mode="job",
            session_id=payload.get("session_id"),
            tags=tags,
            created=iso_now(),
            pubs=loads,
            max_seconds=None if cost is None else float(cost),
            estimated_seconds=job_seconds(
                [(load.executions, load.duration_s or 0.0) for load in loads],
                timing=device.program_timing(program),
            ),
        )
        with self._lock:
            if record.session_id is not None:
                session = self._accepting(record.session_id, device.name)
                record.mode = session.record.mode
                session.job_submitted(record.id)
            job = _Job(record, payload.get("params"), program, seeds, problem)
            self._jobs[record.id] = job
            self.ledger.enter(record)
            self._queue.append(job)
        self._wake.set()
        return {"id": record.id, "backend": record.backend, "session_id": record.session_id}

    def job(self, job_id: str) -> JobRecord:
        """Return a job.

        Raises:
            Refused: there is no such job.
        """
        return self._find(job_id).record

    def describe(self, job_id: str, *, params: bool = False) -> dict[str, Any]:
        """Return what ``GET /jobs/ID`` answers.

        Raises:
            Refused: there is no such job.
        """
        job = self._find(job_id)
        with self._lock:
            record = job.record
            state: dict[str, Any] = {"status": record.status}
            if record.reason:
                state |= {"reason": record.reason, "reason_code": record.reason_code}
            found = {
                "id": record.id,
                "backend": record.backend,
                "state": state,
                "status": record.status,
                "program": {"id": "executor"},
                "created": record.created,
                "ended": record.finished,
                "cost": record.max_seconds,
                "tags": list(record.tags),
                "session_id": record.session_id,
                "private": False,
                "estimated_running_time_seconds": record.estimated_seconds,
                "usage": {"seconds": record.quantum_seconds},
            }
        return found | ({"params": job.params} if params else {})

    def find(
        self,
        *,
        tags: Sequence[str] = (),
        backend: str | None = None,
        session_id: str | None = None,
        pending: bool | None = None,
        created_after: str | None = None,
        created_before: str | None = None,
        ascending: bool = False,
        limit: int = 200,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Return what ``GET /jobs`` answers: the newest first, those with all of the tags."""
        after, before = (
            text and datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
            for text in (created_after, created_before)
        )
        with self._lock:
            found = [
                job.record
                for job in self._jobs.values()
                if not job.deleted
                and set(tags) <= set(job.record.tags)
                and backend in (None, job.record.backend)
                and session_id in (None, job.record.session_id)
                and pending in (None, not job.record.final)
            ]
        if after or before:
            found = [
                record
                for record in found
                if (created := datetime.datetime.fromisoformat(record.created[:-1] + "+00:00"))
                and (not after or created >= after)
                and (not before or created <= before)
            ]
        if not ascending:
            found.reverse()
        page = found[offset : offset + limit]
        return {
            "jobs": [self.describe(record.id) for record in page],
            "count": len(found),
            "limit": limit,
            "offset": offset,
        }

    def results(self, job_id: str) -> str | None:
        """Return a job's result, or the text of its failure; None before it has ended.

        Raises:
            Refused: there is no such job.
        """
        job = self._find(job_id)
        with self._lock:
            if not job.record.final:
                return None
            job.record.results_read += job.record.status == "Completed"
            return job.output or job.record.reason or ""

    def metrics(self, job_id: str, *, pending: bool = False) -> dict[str, Any]:
        """Return what ``GET /jobs/ID/metrics`` answers.

        Args:
            job_id: the job.
            pending: whether its usage is said not to be final, as soon after a job's end.

        Raises:
            Refused: there is no such job.
        """
        record = self.job(job_id)
        complete = record.final and not pending
        return {
            "timestamps": {
                "created": record.created,
                "running": record.started,
                "finished": record.finished,
            },
            "usage": {
                "qpu_charge_time_seconds": record.quantum_seconds if complete else 0,
                "status": "complete" if complete else "pending",
            },
            "num_circuits": record.circuits,
            "executions": record.executions,
        }

    def logs(self, job_id: str) -> str:
        """Return a job's log.

        Raises:
            Refused: there is no such job, or it has not ended.
        """
        record = self.job(job_id)
        if not record.final:
            raise Refused(404, _INVALID, "Job logs are available when the job has ended")
        return (
            f"{record.created} created: {len(record.pubs)} PUBs, {record.executions} executions\n"
            f"{record.started} running on {record.backend}\n"
            f"{record.finished} {record.status}: {record.quantum_seconds:.3f} QPU seconds\n"
        )

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that runs is charged for.

        Raises:
            Refused: there is no such job, or it has ended.
        """
        job = self._find(job_id)
        with self._lock:
            if job.record.final:
                raise Refused(409, _INVALID, f"Job {job_id} is in state {job.record.status}")
            self._end(
                job,
                "Cancelled",
                reason="Job was cancelled by the user",
                seconds=job.record.estimated_seconds if job.record.started else 0.0,
            )

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended; the ledger keeps it.

        Raises:
            Refused: there is no such job, or it has not ended.
        """
        job = self._find(job_id)
        with self._lock:
            if not job.record.final:
                raise Refused(409, _INVALID, f"Job {job_id} has not ended")
            job.deleted = True

    def set_tags(self, job_id: str, tags: Sequence[str]) -> None:
        """Replace a job's tags.

        Raises:
            Refused: there is no such job.
        """
        job = self._find(job_id)
        with self._lock:
            job.record.tags = tuple(str(tag) for tag in tags)

    def open_session(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Open a session or batch; returns what ``POST /sessions`` answers.

        Raises:
            Refused: device or mode is not accepted, or the plan has no sessions.
        """
        device = self.device(str(payload.get("backend")))
        session = open_session(
            session_id=_new_id(),
            mode=payload.get("mode"),
            backend=device.name,
            max_seconds=payload.get("max_ttl"),
            plan=self.plan,
        )
        with self._lock:
            self._sessions[session.record.id] = session
            self.ledger.enter(session.record)
            return session.details()

    def session(self, session_id: str) -> dict[str, Any]:
        """Return what ``GET /sessions/ID`` answers.

        Raises:
            Refused: there is no such session.
        """
        with self._lock:
            session = self._session(session_id)
            session.refresh()
            return session.details()

    def close_session(self, session_id: str, *, cancel: bool = False) -> None:
        """Let a session accept no more jobs; `cancel` also takes back those that wait.

        Raises:
            Refused: there is no such session.
        """
        with self._lock:
            session = self._session(session_id)
            session.close()
            if cancel:
                self._drop_waiting(session, status="Cancelled", reason="The session was cancelled")

    def expire_sessions(self) -> None:
        """Let all sessions and batches reach their maximum time: what still waits fails."""
        with self._lock:
            for session in self._sessions.values():
                session.expire()
                self._drop_waiting(session, status="Failed", reason="The session has expired")

    def _find(self, job_id: str) -> _Job:
        with self._lock:
            job = self._jobs.get(job_id)
        if job is None or job.deleted:
            raise Refused(404, 1291, f"Job not found: {job_id}")
        return job

    def _session(self, session_id: str) -> Session:
        if session_id not in self._sessions:
            raise Refused(404, 1217, f"Session not found: {session_id}")
        return self._sessions[session_id]

    def _accepting(self, session_id: str, device: str) -> Session:
        session = self._session(session_id)
        session.refresh()
        if session.closed or not session.record.accepting_jobs:
            raise Refused(400, 1217, "Session has been closed.")
        if session.record.backend != device:
            raise Refused(400, _INVALID, f"The session is one of {session.record.backend}")
        return session

    def _drop_waiting(self, session: Session, *, status: str, reason: str) -> None:
        for job_id in session.record.jobs:
            job = self._jobs[job_id]
            if job.record.status == "Queued":
                self._end(job, status, reason=reason, code=1217)

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
                self._fail(job, f"{type(error).__name__}: {error}", code=_SYSTEM_ERROR)

    def _next(self) -> _Job | None:
        with self._lock:
            if self.allowance_s is not None and self.consumed_s() >= self.allowance_s:
                return None  # as the service does: jobs wait until there is time again
            for job in self._queue:
                if self.devices[job.record.backend].status == "active" or job.record.final:
                    self._queue.remove(job)
                    return job
        return None

    def _serve(self, job: _Job) -> None:
        fault = None if job.record.final else self.faults.draw(RUN)
        if fault is not None and fault.kind == "expire_session":
            self.expire_sessions()
        with self._lock:
            session = self._sessions.get(job.record.session_id or "")
            if session is not None:
                session.refresh()
                if session.record.expired:
                    self._drop_waiting(session, status="Failed", reason="The session has expired")
            if job.record.final:
                return
            job.record.status, job.record.started = "Running", iso_now()
            if session is not None:
                session.job_started()
        if fault is not None and fault.kind == "delay":
            self._stopping.wait(fault.seconds)
        if job.problem is not None:
            self._fail(job, job.problem, code=_INVALID)
        elif not self._strike(job, fault):
            self._run(job)

    def _strike(self, job: _Job, fault: Fault | None) -> bool:
        """Let a job's fault strike it; whether it has ended by it."""
        record = job.record
        limit = min(record.max_seconds or MAX_JOB_S, MAX_JOB_S)
        if record.estimated_seconds > limit or (fault and fault.kind == "max_time"):
            seconds = min(record.estimated_seconds, limit)
            self._end(
                job,
                "Cancelled",
                reason="Job exceeded its maximum execution time; it was cancelled",
                code=_TOO_LONG,
                seconds=seconds,
            )
            return True
        # IBM does not charge for its own errors; one that comes late is there to test the other.
        if fault is not None and fault.kind in ("fail", "cancel"):
            seconds = record.estimated_seconds if fault.accepted else 0.0
            if fault.kind == "fail":
                self._fail(
                    job, "Error returned at backend level.", code=_SYSTEM_ERROR, seconds=seconds
                )
            else:
                self._end(job, "Cancelled", reason="Job was cancelled", seconds=seconds)
            return True
        return False

    def _run(self, job: _Job) -> None:
        device = self.devices[job.record.backend]
        started = datetime.datetime.now(datetime.timezone.utc)
        clock = time.monotonic()
        found = [
            device.run(pub, seed=seed)
            for pub, seed in zip(job.program.pubs, job.seeds, strict=True)
        ]
        finished = datetime.datetime.now(datetime.timezone.utc)
        output = write_result(job.program, found, started=started, finished=finished)
        logger.debug("job %s took %.3f s", job.record.id, time.monotonic() - clock)
        with self._lock:
            if not job.record.final:
                job.output = output
                job.record.executed = True
                self._end(job, "Completed", seconds=job.record.estimated_seconds)

    def _fail(self, job: _Job, reason: str, *, code: int, seconds: float = 0.0) -> None:
        self._end(job, "Failed", reason=reason, code=code, seconds=seconds)

    def _end(
        self,
        job: _Job,
        status: str,
        *,
        reason: str | None = None,
        code: int | None = None,
        seconds: float = 0.0,
    ) -> None:
        with self._lock:
            record = job.record
            if record.final:
                return
            record.status, record.reason, record.reason_code = status, reason, code
            record.finished, record.quantum_seconds = iso_now(), seconds
            session = self._sessions.get(record.session_id or "")
            if session is not None:
                session.job_ended(seconds, started=record.started is not None)


def _new_id() -> str:
    return f"d{uuid.uuid4().hex[:19]}"
