"""A job as the service has it, and what it says of it."""

import datetime
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from qkd_qiskit.targets.ibm.emulator.ledger import LedgerJob
from qkd_qiskit.targets.ibm.emulator.programs import ExecutorProgram


@dataclass
class EmulatedJob:
    """A job with its input and output.

    Attributes:
        record: What the ledger shows.
        params: Its input, as it came.
        program: Its input, read.
        seeds: Simulator seed of each PUB.
        problem: Why the device cannot run it, or None.
        output: JSON text of its result.
        deleted: Whether the service says that it is not there.
        overrun_s: QPU seconds that it takes beyond the model's.
    """

    record: LedgerJob
    params: Any
    program: ExecutorProgram
    seeds: tuple[int, ...]
    problem: str | None
    output: str = ""
    deleted: bool = False
    overrun_s: float = 0.0

    @property
    def needed_s(self) -> float:
        """QPU seconds that it takes."""
        return self.record.estimated_seconds + self.overrun_s


def describe(job: EmulatedJob, *, params: bool = False) -> dict[str, Any]:
    """Return what ``GET /jobs/ID`` answers.

    Args:
        job: The job.
        params: Whether its input is part of it.
    """
    record = job.record
    state: dict[str, Any] = {"status": record.status}
    if record.reason:
        state |= {"reason": record.reason, "reason_code": record.reason_code}
    description = {
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
    return description | ({"params": job.params} if params else {})


def metrics(job: EmulatedJob, *, pending: bool = False) -> dict[str, Any]:
    """Return what ``GET /jobs/ID/metrics`` answers: of a job that runs, what it needs by then.

    Args:
        job: The job.
        pending: Whether its usage is said not to be final, as soon after a job's end.
    """
    record = job.record
    complete = record.final and not pending
    running = job.needed_s if record.status == "Running" else 0
    return {
        "timestamps": {
            "created": record.created,
            "running": record.started,
            "finished": record.finished,
        },
        "usage": {
            "qpu_charge_time_seconds": record.quantum_seconds if complete else running,
            "status": "complete" if complete else "pending",
        },
        "num_circuits": record.circuits,
        "executions": record.executions,
    }


def log_text(record: LedgerJob) -> str:
    """Return what ``GET /jobs/ID/logs`` answers."""
    return (
        f"{record.created} created: {len(record.pubs)} PUBs, {record.executions} executions\n"
        f"{record.started} running on {record.backend}\n"
        f"{record.finished} {record.status}: {record.quantum_seconds:.3f} QPU seconds\n"
    )


def select(
    jobs: Iterable[EmulatedJob], query: Mapping[str, str], tags: Sequence[str]
) -> dict[str, Any]:
    """Return what ``GET /jobs`` answers: the newest first, those with all of the tags.

    Args:
        jobs: All jobs, the oldest first.
        query: Backend, session_id, pending, created_after, created_before, sort, limit, offset.
        tags: Tags that a job must have.

    Raises:
        ValueError: A time or number cannot be read.
    """
    after, before = (
        _time(query[name]) if name in query else None
        for name in ("created_after", "created_before")
    )
    pending = {"true": True, "false": False}.get(query.get("pending", ""))
    selected = [
        job
        for job in jobs
        if not job.deleted
        and set(tags) <= set(job.record.tags)
        and query.get("backend") in (None, job.record.backend)
        and query.get("session_id") in (None, job.record.session_id)
        and pending in (None, not job.record.final)
        and (after is None or _time(job.record.created) >= after)
        and (before is None or _time(job.record.created) <= before)
    ]
    if query.get("sort", "").upper() != "ASC":
        selected.reverse()
    limit, offset = int(query.get("limit", 200)), int(query.get("offset", 0))
    return {
        "jobs": [describe(job) for job in selected[offset : offset + limit]],
        "count": len(selected),
        "limit": limit,
        "offset": offset,
    }


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
