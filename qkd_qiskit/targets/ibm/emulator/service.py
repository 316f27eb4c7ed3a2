"""The service behind the endpoints: what it accepts, and what it says of it."""

import math
import uuid
from collections import ChainMap
from collections.abc import Mapping, Sequence
from typing import Any

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.emulator import jobs
from qkd_qiskit.targets.ibm.emulator.devices import EmulatedDevice
from qkd_qiskit.targets.ibm.emulator.fault_injection import Faults
from qkd_qiskit.targets.ibm.emulator.job_limits import JobLimits
from qkd_qiskit.targets.ibm.emulator.jobs import EmulatedJob
from qkd_qiskit.targets.ibm.emulator.ledger import Ledger, LedgerJob
from qkd_qiskit.targets.ibm.emulator.programs import job_seeds, read_program
from qkd_qiskit.targets.ibm.emulator.queue import INVALID, JobQueue
from qkd_qiskit.targets.ibm.emulator.sessions import (
    EmulatedSession,
    Plan,
    Refused,
    iso_now,
    open_session,
)
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits
from qkd_qiskit.targets.ibm.usage_model import MAX_EXECUTIONS, job_seconds

OPEN_PLAN_S = 600.0
"""QPU seconds of the Open Plan in 28 days."""


class EmulatedService:
    """Devices, jobs and sessions of one instance; all of it is gone when it ends."""

    def __init__(
        self,
        devices: Sequence[EmulatedDevice],
        *,
        plan: Plan,
        faults: Faults,
        seed: int,
        allowance_s: float | None = None,
        limits: ServiceLimits = UNLIMITED,
    ):
        """Take the devices, the plan, the switchboard, the seed of the shots and the allowance.

        Args:
            devices: What is served.
            plan: ``open`` refuses sessions and has `OPEN_PLAN_S`.
            faults: What goes wrong.
            seed: Seed of jobs without a seed tag.
            allowance_s: QPU seconds of the instance; default: the plan's, or no limit.
            limits: Jobs that may be created, and be on their way.
        """
        self.devices = {device.name: device for device in devices}
        self._retired: dict[str, EmulatedDevice] = {}
        self.plan: Plan = plan
        self.faults = faults
        self.seed = seed
        self.allowance_s = OPEN_PLAN_S if allowance_s is None and plan == "open" else allowance_s
        self.limits = JobLimits(limits)
        self.ledger = Ledger(faults)
        self._lock = self.ledger.lock
        served = ChainMap(self.devices, self._retired)
        self.queue = JobQueue(
            served, faults=faults, lock=self._lock, is_open=lambda: not self.used_up
        )

    def device(self, name: str) -> EmulatedDevice:
        """Return a device.

        Raises:
            Refused: There is no such device.
        """
        try:
            return self.devices[name]
        except KeyError:
            raise Refused(404, 1007, f"Backend not found: {name}") from None

    def retire(self, name: str) -> None:
        """Take a device out of service: it is no longer listed, what it has run stays."""
        self._retired[name] = self.devices.pop(name)

    def pending(self, device: str) -> int:
        """Return how many jobs wait for a device or run on it."""
        with self._lock:
            return sum(
                job.record.backend == device and not job.record.final
                for job in self.queue.jobs.values()
            )

    def consumed_s(self) -> float:
        """Return the QPU seconds that are charged so far: sessions as a whole, jobs, batches."""
        with self._lock:
            sessions = list(self.queue.sessions.values())
            for session in sessions:
                session.refresh()
            charged = [
                session.record.quantum_seconds
                for session in sessions
                if session.record.mode == "dedicated"
            ]
            charged += [
                job.record.quantum_seconds
                for job in self.queue.jobs.values()
                if job.record.mode != "dedicated"
            ]
        return math.fsum(charged)

    @property
    def used_up(self) -> bool:
        """Whether the allowance is spent: jobs wait then, as with the real service."""
        return self.allowance_s is not None and self.consumed_s() >= self.allowance_s

    def submit(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Accept a job; returns what ``POST /jobs`` answers.

        Raises:
            Refused: Program, device, session or a tag is not accepted.
        """
        with self._lock:
            self.limits.check(pending=sum(self.pending(name) for name in self.devices))
        device = self.device(str(payload.get("backend")))
        given = payload.get("program_id")
        if given != "executor":
            message = f"Program not found: {given!r}; here the executor-based primitives run"
            raise Refused(404, INVALID, message)
        tags = tuple(str(tag) for tag in payload.get("tags") or ())
        try:
            program = read_program(payload.get("params") or {})
            seeds = job_seeds(tags, program, seed=self.seed)
        except InputError as error:
            raise Refused(400, INVALID, str(error)) from error
        problem = device.problem(program)
        loads = tuple(device.load(pub, runs=problem is None) for pub in program.pubs)
        executions = sum(load.executions for load in loads)
        if problem is None and executions > MAX_EXECUTIONS:
            problem = f"{executions:,} executions; a job may have {MAX_EXECUTIONS:,}"
        cost = payload.get("cost")
        record = LedgerJob(
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
            self.ledger.enter(record)
            self.queue.put(EmulatedJob(record, payload.get("params"), program, seeds, problem))
        return {"id": record.id, "backend": record.backend, "session_id": record.session_id}

    def describe(self, job_id: str, *, params: bool = False) -> dict[str, Any]:
        """Return what ``GET /jobs/ID`` answers.

        Raises:
            Refused: There is no such job.
        """
        with self._lock:
            return jobs.describe(self._find(job_id), params=params)

    def find(self, query: Mapping[str, str], *, tags: Sequence[str] = ()) -> dict[str, Any]:
        """Return what ``GET /jobs`` answers; see `jobs.select`."""
        with self._lock:
            return jobs.select(self.queue.jobs.values(), query, tags)

    def results(self, job_id: str) -> str | None:
        """Return a job's result, or the text of its failure; None before it has ended.

        Raises:
            Refused: There is no such job.
        """
        with self._lock:
            job = self._find(job_id)
            if not job.record.final:
                return None
            job.record.results_read += job.record.status == "Completed"
            return job.output or job.record.reason or ""

    def metrics(self, job_id: str, *, pending: bool = False) -> dict[str, Any]:
        """Return what ``GET /jobs/ID/metrics`` answers; see `jobs.metrics`.

        Raises:
            Refused: There is no such job.
        """
        with self._lock:
            return jobs.metrics(self._find(job_id), pending=pending)

    def logs(self, job_id: str) -> str:
        """Return a job's log.

        Raises:
            Refused: There is no such job, or it has not ended.
        """
        with self._lock:
            record = self._find(job_id).record
            if not record.final:
                raise Refused(404, INVALID, "Job logs are available when the job has ended")
            return jobs.log_text(record)

    def cancel(self, job_id: str) -> None:
        """Cancel a job; one that runs is charged for.

        Raises:
            Refused: There is no such job, or it has ended.
        """
        with self._lock:
            job = self._find(job_id)
            if job.record.final:
                raise Refused(409, INVALID, f"Job {job_id} is in state {job.record.status}")
            seconds = job.needed_s if job.record.started else 0.0
            self.queue.end(
                job, "Cancelled", reason="Job was cancelled by its user", seconds=seconds
            )

    def delete(self, job_id: str) -> None:
        """Forget a job that has ended; the ledger keeps it.

        Raises:
            Refused: There is no such job, or it has not ended.
        """
        with self._lock:
            job = self._find(job_id)
            if not job.record.final:
                raise Refused(409, INVALID, f"Job {job_id} has not ended")
            job.deleted = True

    def set_tags(self, job_id: str, tags: Sequence[str]) -> None:
        """Replace a job's tags.

        Raises:
            Refused: There is no such job.
        """
        with self._lock:
            self._find(job_id).record.tags = tuple(str(tag) for tag in tags)

    def open_session(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """Open a session or batch; returns what ``POST /sessions`` answers.

        Raises:
            Refused: Device or mode is not accepted, or the plan has no sessions.
        """
        session = open_session(
            session_id=_new_id(),
            mode=payload.get("mode"),
            backend=self.device(str(payload.get("backend"))).name,
            max_seconds=payload.get("max_ttl"),
            plan=self.plan,
        )
        with self._lock:
            self.queue.sessions[session.record.id] = session
            self.ledger.enter(session.record)
            return session.details()

    def session(self, session_id: str) -> dict[str, Any]:
        """Return what ``GET /sessions/ID`` answers.

        Raises:
            Refused: There is no such session.
        """
        with self._lock:
            session = self._session(session_id)
            session.refresh()
            return session.details()

    def close_session(self, session_id: str, *, cancel: bool = False) -> None:
        """Let a session accept no more jobs; `cancel` also takes back those that wait.

        Raises:
            Refused: There is no such session.
        """
        with self._lock:
            session = self._session(session_id)
            session.close()
            if cancel:
                self.queue.drop_waiting(session, "Cancelled", reason="The session was cancelled")

    def _find(self, job_id: str) -> EmulatedJob:
        job = self.queue.jobs.get(job_id)
        if job is None or job.deleted:
            raise Refused(404, 1291, f"Job not found: {job_id}")
        return job

    def _session(self, session_id: str) -> EmulatedSession:
        if session_id not in self.queue.sessions:
            raise Refused(404, 1217, f"Session not found: {session_id}")
        return self.queue.sessions[session_id]

    def _accepting(self, session_id: str, device: str) -> EmulatedSession:
        session = self._session(session_id)
        session.refresh()
        if session.closed or not session.record.accepting_jobs:
            raise Refused(400, 1217, "Session has been closed.")
        if session.record.backend != device:
            raise Refused(400, INVALID, f"The session is one of {session.record.backend}")
        return session


def _new_id() -> str:
    return f"d{uuid.uuid4().hex[:19]}"
