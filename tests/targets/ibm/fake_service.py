"""A service in memory, whose answers a test scripts: what `connection.Connection` asks for."""

from collections import Counter, deque
from dataclasses import dataclass, field

import numpy as np
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.targets.ibm.job_plan import Pub
from qkd_qiskit.targets.ibm.retry import RetryPolicy
from qkd_qiskit.targets.ibm.service_errors import ServiceError
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits

QUICK = RetryPolicy(tries=4, first_wait_s=0.0, longest_wait_s=0.0, attempts=3, poll_s=0, settle_s=0)


class Crash(BaseException):
    """The process dies here."""


def circuit(name="x_000", qubits=2):
    made = QuantumCircuit(qubits, qubits)
    made.ry(Parameter(name), 0)
    made.measure(range(qubits), range(qubits))
    return made


def pub(rows=3, *, shots=10, start=0.0, made=None):
    made = circuit() if made is None else made
    values = start + np.arange(rows, dtype=float)[:, None]
    return Pub(made, ("x_000",), values, shots)


@dataclass
class FakeJob:
    """One job: its counts depend on nothing but its values."""

    service: "FakeService"
    id: str
    tag: str
    pubs: list
    ends: str = "done"
    told: float | None = 1.5
    text: str = "broken"
    final: bool = False
    read: int = 0
    so_far: float | None = None

    def state(self):
        self.service.meet("state")
        return self.ends

    def counts(self, pubs):
        self.service.meet("counts")
        self.read += 1
        return [expected(pub) for pub in pubs]

    def reason(self):
        self.service.meet("reason")
        return self.text, self.final

    def usage(self):
        self.service.meet("usage")
        return self.told

    def usage_so_far(self):
        self.service.meet("usage_so_far")
        return self.so_far

    def cancel(self):
        self.service.meet("cancel")
        self.ends = "cancelled"


def expected(pub):
    """What a job counts: the integer part of the angle decides the outcome."""
    counts = np.zeros((len(pub.values), 2**pub.num_bits), dtype=np.int64)
    counts[np.arange(len(counts)), pub.values[:, 0].astype(int) % counts.shape[1]] = pub.shots
    return counts


def damaged(how, counts):
    """Counts as a service that is wrong would give them."""
    first = counts[0]
    return {
        "a row too few": [first[:-1], *counts[1:]],
        "a bit too many": [np.concatenate([first, 0 * first], axis=1), *counts[1:]],
        "a shot too few": [np.maximum(first - 1, 0), *counts[1:]],
        "a shot too many": [first + (first > 0), *counts[1:]],
        "below zero": [np.where(first > 0, first + 1, -first - 1), *counts[1:]],
        "a PUB too few": counts[:-1],
        "a PUB too many": [*counts, first],
    }[how]


@dataclass
class FakeService:
    """What is scripted for an endpoint happens to its next calls: a fault, a crash, or None."""

    name: str = "fake"
    identity: str = "fake/twirled=False"
    local: bool = False
    jobs: dict = field(default_factory=dict)
    script: dict = field(default_factory=dict)
    """What meets the next calls: endpoint -> exceptions, raised before; None lets one pass."""
    after: dict = field(default_factory=dict)
    """Likewise, raised after the call had its effect."""
    ends: deque = field(default_factory=deque)
    """How the next jobs end, as keyword arguments of `FakeJob`."""
    calls: Counter = field(default_factory=Counter)
    sessions: dict = field(default_factory=dict)
    session: str | None = None
    modes: tuple = ("session", "batch")
    billed: float | None = 10.0
    limits: ServiceLimits = UNLIMITED

    def meet(self, endpoint, script=None):
        if script is None:
            self.calls[endpoint] += 1
        waiting = (self.script if script is None else script).get(endpoint)
        if waiting:
            met = waiting.pop(0)
            if met is not None:
                raise met

    def check_status(self):
        self.meet("status")

    def service_limits(self):
        self.meet("limits")
        return self.limits

    def check(self, pubs):
        self.meet("check")

    def estimate(self, pubs):
        return 2.0

    def submit(self, pubs, *, tag, seed, group=None):
        self.meet("submit")
        if self.session is not None and not self.sessions[self.session]:
            raise ServiceError("refused", "Session has been closed.")
        made = self.ends.popleft() if self.ends else {}
        job = FakeJob(self, f"job{len(self.jobs)}", tag, list(pubs), **made)
        job.tags = (tag, group) if group else (tag,)
        self.jobs[job.id] = job
        self.meet("submit", self.after)
        return job

    def find(self, tag):
        self.meet("find")
        return [job for job in self.jobs.values() if tag in job.tags]

    def job(self, job_id):
        self.meet("job")
        return self.jobs[job_id]

    def open_session(self, mode):
        self.meet("open")
        if mode not in self.modes:
            raise ServiceError("no_sessions", "not in this plan")
        self.session = f"s{len(self.sessions)}"
        self.sessions[self.session] = True
        return self.session

    def rejoin_session(self, session_id, mode):
        self.meet("rejoin")
        self.session = session_id if self.sessions.get(session_id) else None
        return self.session is not None

    def session_open(self):
        self.meet("session")
        return self.sessions[self.session]

    def session_usage(self, session_id):
        self.meet("billed")
        return self.billed

    def close_session(self):
        self.meet("close")
        self.sessions[self.session], self.session = False, None


WORK = {"a": [pub(3)], "b/1": [pub(5, start=1.0), pub(2, start=7.0)], "c": [pub(1)]}
# Parts of at most 40 executions: 3 rows; 4 + 3 rows in 2 jobs; 1 row.
SPLIT = RuntimeSpec(mode="batch", max_executions=40)


def assert_right(found, keys=WORK):
    for key, pubs in keys.items():
        for mine, theirs in zip(found[key], pubs, strict=True):
            np.testing.assert_array_equal(mine, expected(theirs))
