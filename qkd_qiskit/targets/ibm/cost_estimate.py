"""What jobs will cost, counted before any is sent.

The numbers of jobs, PUBs, circuits and executions are those that will be sent: the same functions
cut the work here and in the submission. QPU seconds are the model of `usage_model`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.ibm.job_plan import Limits, PubSize, plan_jobs
from qkd_qiskit.targets.ibm.usage_model import (
    JOB_OVERHEAD_S,
    Timing,
    job_seconds,
    seconds_per_execution,
)

SESSION_WAIT_S = 1.5
"""Seconds that a session is assumed to wait, and is billed, between a job and the next: a guess,
which network and computer decide."""
_PER_SECOND = {"": 1.0, "s": 1.0, "sec": 1.0, "second": 1.0, "min": 60.0, "minute": 60.0}


@dataclass(frozen=True)
class Load:
    """Rows of one circuit.

    Attributes:
        rows: Circuits with their values bound.
        duration_s: Seconds from the circuit's first gate to the end of its measurement.
        two_qubit_gates: Gates on two or more qubits.
    """

    rows: int
    duration_s: float
    two_qubit_gates: int


Call = tuple[Load, ...]
"""The PUBs that are sent together, of one circuit each."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What some work comes to.

    Attributes:
        what: The work, in words.
        jobs: Jobs that are sent.
        pubs: PUBs in them.
        circuits: Circuits with their values bound.
        shots: Shots of each, as they are run (twirling rounds them up).
        executions: Circuits times shots.
        two_qubit_gates: Gates on two or more qubits in all circuits, each circuit counted once.
        seconds: QPU seconds, those of waits in a session included.
        wait_seconds: Those of waits among them.
        formula: How they come about, in words and numbers.
    """

    what: str
    jobs: int
    pubs: int
    circuits: int
    shots: int
    executions: int
    two_qubit_gates: int
    seconds: float
    wait_seconds: float
    formula: str

    def money(self, rate: float | None) -> float | None:
        """Return what it costs at a rate per QPU second; None without one."""
        return None if rate is None else self.seconds * rate

    def __add__(self, other: Estimate) -> Estimate:
        return Estimate(
            what=f"{self.what}, {other.what}",
            jobs=self.jobs + other.jobs,
            pubs=self.pubs + other.pubs,
            circuits=self.circuits + other.circuits,
            shots=max(self.shots, other.shots),
            executions=self.executions + other.executions,
            two_qubit_gates=self.two_qubit_gates + other.two_qubit_gates,
            seconds=self.seconds + other.seconds,
            wait_seconds=self.wait_seconds + other.wait_seconds,
            formula=f"{self.formula}; {other.formula}",
        )


def estimate(
    what: str,
    calls: Iterable[Call],
    *,
    shots: int,
    limits: Limits | None = None,
    twirled: bool = False,
    timing: Timing | None = None,
    session: bool = False,
) -> Estimate:
    """Return what calls of a device come to, each sent in jobs of its own.

    Args:
        what: The work, in words.
        calls: What is sent together; a call that is too large for one job takes several.
        shots: Shots per circuit.
        limits: What one job may be at most.
        twirled: Whether gates or measurements are twirled.
        timing: The device's times; default: those of most devices.
        session: Whether the device is held, and paid, between the jobs.

    Raises:
        InputError: One circuit alone is more than a job may have.
    """
    timing = timing or Timing()
    totals: Counter[str] = Counter()
    executions_of: Counter[float] = Counter()
    seconds, executed = 0.0, shots
    for call, times in Counter(calls).items():
        sizes = [PubSize(rows=load.rows, shots=shots) for load in call]
        for job in plan_jobs(sizes, limits=limits, twirled=twirled):
            executed = job.shots
            loads = []
            for index, first, last in job.slices:
                runs = (last - first) * job.shots
                loads.append((runs, call[index].duration_s))
                executions_of[call[index].duration_s] += times * runs
                totals["gates"] += times * (last - first) * call[index].two_qubit_gates
            seconds += times * job_seconds(loads, timing=timing)
            totals["jobs"] += times
            totals["pubs"] += times * len(job.slices)
            totals["circuits"] += times * job.circuits
            totals["executions"] += times * job.executions
    waits = SESSION_WAIT_S * max(0, totals["jobs"] - 1) if session else 0.0
    return Estimate(
        what=what,
        jobs=totals["jobs"],
        pubs=totals["pubs"],
        circuits=totals["circuits"],
        shots=executed,
        executions=totals["executions"],
        two_qubit_gates=totals["gates"],
        seconds=seconds + waits,
        wait_seconds=waits,
        formula=_formula(
            totals["jobs"], executions_of, seconds=seconds, waits=waits, timing=timing
        ),
    )


def _formula(
    jobs: int, executions: Counter[float], *, seconds: float, waits: float, timing: Timing
) -> str:
    parts = [f"{jobs:,} jobs x {JOB_OVERHEAD_S:g} s"]
    for duration, runs in executions.items():
        known = [(timing.rep_delay_s, "between two"), (timing.init_s, "reset")]
        times = [*(time for time in known if time[0]), (duration, "circuit")]
        each = " + ".join(f"{1e6 * time:.4g} us {name}" for time, name in times)
        whole = 1e6 * seconds_per_execution(duration, timing)
        parts.append(f"{runs:,} executions x {whole:.4g} us ({each})")
    if waits:
        parts.append(f"{jobs - 1:,} waits in the session x {SESSION_WAIT_S:g} s")
    return f"{' + '.join(parts)} = {seconds + waits:,.1f} QPU seconds"


def parse_rate(text: str) -> float:
    """Return a price per QPU second from ``1.6``, ``1.6/s`` or ``96/min``.

    Raises:
        InputError: It is no such number.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(?:(?:/|per)\s*(\w+))?\s*", text)
    if not match or (match[2] or "") not in _PER_SECOND:
        raise InputError(
            f"--rate: {text!r} is not accepted; give the price of a QPU second, such as 1.6, or of "
            "a minute, such as 96/min"
        )
    return float(match[1]) / _PER_SECOND[match[2] or ""]
