"""What a rehearsal has received: every job, session, request and fault."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from qkd_qiskit.targets.ibm.emulator.fault_injection import Faults

FINAL = ("Completed", "Failed", "Cancelled")
"""States that a job does not leave."""


@dataclass(frozen=True)
class PubLoad:
    """What one PUB of a job asks for.

    Attributes:
        circuits: Circuits with their values bound, randomizations included.
        shots: Shots of each.
        qubits: Qubits that the circuit uses.
        two_qubit_gates: Gates on two or more qubits in one circuit.
        duration_s: Seconds from its first gate to the end of the measurement; None where it
            cannot run.
    """

    circuits: int
    shots: int
    qubits: int
    two_qubit_gates: int
    duration_s: float | None

    @property
    def executions(self) -> int:
        """Circuits times shots."""
        return self.circuits * self.shots


@dataclass
class LedgerJob:
    """A job as the ledger knows it.

    Attributes:
        id: The job's id.
        backend: The device that it was submitted to.
        mode: ``job``, ``batch`` or ``dedicated``.
        session_id: Session or batch; None in job mode.
        tags: Its tags.
        created: ISO time, UTC.
        pubs: What each of its PUBs asks for.
        max_seconds: QPU seconds after which it is to be stopped; None: the device's limit.
        estimated_seconds: QPU seconds by the model.
        status: ``Queued``, ``Running``, ``Completed``, ``Failed`` or ``Cancelled``.
        reason: Why it failed or was cancelled.
        reason_code: IBM's number for that.
        started: ISO time, UTC; None before.
        finished: ISO time, UTC; None before.
        quantum_seconds: QPU seconds that are charged.
        executed: Whether its circuits were run to the end.
        results_read: How often its results were handed out.
    """

    id: str
    backend: str
    mode: str
    session_id: str | None
    tags: tuple[str, ...]
    created: str
    pubs: tuple[PubLoad, ...] = ()
    max_seconds: float | None = None
    estimated_seconds: float = 0.0
    status: str = "Queued"
    reason: str | None = None
    reason_code: int | None = None
    started: str | None = None
    finished: str | None = None
    quantum_seconds: float = 0.0
    executed: bool = False
    results_read: int = 0

    @property
    def final(self) -> bool:
        """Whether it has come to an end."""
        return self.status in FINAL

    @property
    def circuits(self) -> int:
        """Circuits with their values bound."""
        return sum(pub.circuits for pub in self.pubs)

    @property
    def executions(self) -> int:
        """Circuits times shots."""
        return sum(pub.executions for pub in self.pubs)

    @property
    def two_qubit_gates(self) -> int:
        """Gates on two or more qubits over all its circuits."""
        return sum(pub.circuits * pub.two_qubit_gates for pub in self.pubs)


@dataclass
class LedgerSession:
    """A session or batch as the ledger knows it.

    Attributes:
        id: Its id.
        mode: ``dedicated`` (a session) or ``batch``.
        backend: Its device.
        max_seconds: Seconds after which it ends.
        created: ISO time, UTC.
        state: ``open``, ``active``, ``inactive`` or ``closed``.
        accepting_jobs: Whether jobs may be submitted to it.
        expired: Whether it was closed because its time was over.
        jobs: Ids of its jobs.
        quantum_seconds: What it is charged for: its jobs, and in a session the waits between.
        timestamps: Its states with their ISO times.
    """

    id: str
    mode: str
    backend: str
    max_seconds: float
    created: str
    state: str = "open"
    accepting_jobs: bool = True
    expired: bool = False
    jobs: list[str] = field(default_factory=list)
    quantum_seconds: float = 0.0
    timestamps: list[dict[str, str]] = field(default_factory=list)


class Ledger:
    """Everything that a rehearsal has received; reading it gives copies."""

    def __init__(self, faults: Faults):
        self.lock = threading.RLock()
        """Held by whoever changes a record."""
        self._jobs: dict[str, LedgerJob] = {}
        self._sessions: dict[str, LedgerSession] = {}
        self._requests: Counter[str] = Counter()
        self._faults = faults

    def count(self, endpoint: str) -> None:
        """Count a request."""
        with self.lock:
            self._requests[endpoint] += 1

    def enter(self, record: LedgerJob | LedgerSession) -> None:
        """Keep a new job or session."""
        with self.lock:
            if isinstance(record, LedgerJob):
                self._jobs[record.id] = record
            else:
                self._sessions[record.id] = record

    @property
    def jobs(self) -> Mapping[str, LedgerJob]:
        """The jobs by id, in the order in which they came, deleted ones included."""
        with self.lock:
            return {name: replace(record) for name, record in self._jobs.items()}

    @property
    def sessions(self) -> Mapping[str, LedgerSession]:
        """The sessions and batches by id, in the order in which they were opened."""
        with self.lock:
            return {
                name: replace(record, jobs=list(record.jobs), timestamps=list(record.timestamps))
                for name, record in self._sessions.items()
            }

    @property
    def requests(self) -> Counter[str]:
        """How often each endpoint was asked, faults included."""
        with self.lock:
            return Counter(self._requests)

    def totals(self) -> dict[str, float]:
        """Return sums over all jobs: what was submitted, what was executed, what it cost."""
        jobs = list(self.jobs.values())
        return {
            "jobs": len(jobs),
            "executed_jobs": sum(job.executed for job in jobs),
            "pubs": sum(len(job.pubs) for job in jobs),
            "circuits": sum(job.circuits for job in jobs),
            "executions": sum(job.executions for job in jobs),
            "two_qubit_gates": sum(job.two_qubit_gates for job in jobs),
            "quantum_seconds": sum(job.quantum_seconds for job in jobs),
            "session_seconds": sum(
                session.quantum_seconds
                for session in self.sessions.values()
                if session.mode == "dedicated"
            ),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return the whole ledger as what JSON can hold."""
        return {
            "totals": self.totals(),
            "jobs": [
                asdict(job)
                | {
                    "circuits": job.circuits,
                    "executions": job.executions,
                    "two_qubit_gates": job.two_qubit_gates,
                }
                for job in self.jobs.values()
            ],
            "sessions": [asdict(session) for session in self.sessions.values()],
            "requests": dict(self.requests),
            "faults": [asdict(strike) for strike in self._faults.strikes],
        }

    def summary(self) -> str:
        """Return a few lines: what was received, what it would have cost, what went wrong."""
        jobs, totals = list(self.jobs.values()), self.totals()
        states = Counter(job.status.lower() for job in jobs)
        modes = Counter(session.mode for session in self.sessions.values())
        strikes = Counter(f"{strike.endpoint} {strike.fault}" for strike in self._faults.strikes)
        lines = [
            f"jobs: {totals['jobs']}"
            + (f" ({', '.join(f'{n} {state}' for state, n in states.items())})" if jobs else ""),
            f"sessions: {modes['dedicated']}, batches: {modes['batch']}",
            ", ".join(
                f"{name}: {totals[key]:,}"
                for name, key in (
                    ("PUBs", "pubs"),
                    ("circuits", "circuits"),
                    ("executions", "executions"),
                    ("two-qubit gates", "two_qubit_gates"),
                )
            ),
            f"QPU seconds of jobs, by the model: {totals['quantum_seconds']:.1f}",
        ]
        if modes["dedicated"]:
            lines.append(
                f"QPU seconds of sessions, waits included: {totals['session_seconds']:.1f}"
            )
        lines.append(f"requests: {sum(self.requests.values()):,}")
        lines += [f"fault, {number} times: {text}" for text, number in strikes.items()]
        return "\n".join(lines)
