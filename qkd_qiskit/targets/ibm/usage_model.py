"""What a job costs on a quantum computer: the model that estimates and the emulator share.

IBM bills the seconds for which a job locks the device. Before it runs, they can be estimated, with
the formula of IBM's guide "Workload usage" (section "Estimate usage before submitting a job")::

    seconds = jobs * overhead + executions * (rep_delay + init + circuit duration)

- overhead: about 2 s, in which a job's circuits are loaded into the control electronics. A job that
  is too large for them is cut into several and pays it several times; this model counts one.
- executions: circuits with their values bound, times shots (times randomizations, when twirling).
- rep_delay: the wait between two executions, 250 us on most devices (`backend.default_rep_delay`).
- init: the reset of the qubits before each execution, as long as the device's `reset` takes; 0 on a
  device that describes none.
- circuit duration: from the first gate to the end of the measurement, of the scheduled circuit.

It is a model: the bill is what `job.usage()` says after the job. A session is billed by the time
that it is active, waits for the next job included, whatever its jobs use.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

JOB_OVERHEAD_S = 2.0
"""Seconds that every job takes before its first execution."""
REP_DELAY_S = 250e-6
"""Seconds between two executions, where the device does not say otherwise."""
MAX_EXECUTIONS = 10_000_000
"""Executions that a job may have."""
MAX_JOB_S = 3 * 3600.0
"""Seconds that a job may take."""
INTERACTIVE_TTL_S = 60.0
"""Seconds that a session stays active without a job."""
MAX_SESSION_S = 8 * 3600.0
"""Seconds that a session may last."""


@dataclass(frozen=True)
class Timing:
    """The times of a device that every execution pays.

    Attributes:
        rep_delay_s: Seconds between two executions.
        init_s: Seconds for the reset of the qubits before an execution.
    """

    rep_delay_s: float = REP_DELAY_S
    init_s: float = 0.0


def device_timing(backend: Any) -> Timing:
    """Return the times that a backend describes: its default rep delay and its longest reset.

    Args:
        backend: A `BackendV2`; `default_rep_delay` is in seconds where it is there.
    """
    rep_delay = getattr(backend, "default_rep_delay", None)
    resets = backend.target["reset"] if "reset" in backend.target.operation_names else None
    durations = [
        known.duration for known in (resets or {}).values() if known and known.duration is not None
    ]
    return Timing(
        rep_delay_s=REP_DELAY_S if rep_delay is None else float(rep_delay),
        init_s=max((float(duration) for duration in durations), default=0.0),
    )


def quantum_seconds(
    *,
    executions: int,
    circuit_duration_s: float,
    jobs: int = 1,
    timing: Timing | None = None,
) -> float:
    """Return the QPU seconds of jobs whose executions all run the same circuit.

    Args:
        executions: Circuits with their values bound times shots, over all jobs.
        circuit_duration_s: Seconds from the first gate to the end of the measurement.
        jobs: How many jobs share the executions.
        timing: The device's times; default: those of most devices.
    """
    return jobs * JOB_OVERHEAD_S + executions * seconds_per_execution(circuit_duration_s, timing)


def job_seconds(loads: Iterable[tuple[int, float]], *, timing: Timing | None = None) -> float:
    """Return the QPU seconds of one job.

    Args:
        loads: Executions and circuit duration in seconds of each of its PUBs.
        timing: The device's times; default: those of most devices.
    """
    # The sum does not depend on the order of the PUBs: what is planned equals what is served.
    return JOB_OVERHEAD_S + math.fsum(
        executions * seconds_per_execution(duration, timing) for executions, duration in loads
    )


def seconds_per_execution(circuit_duration_s: float, timing: Timing | None = None) -> float:
    """Return the QPU seconds of one execution of a circuit."""
    times = timing or Timing()
    return times.rep_delay_s + times.init_s + circuit_duration_s


def session_seconds(
    jobs: Iterable[float], *, waits: Iterable[float] = (), interactive_ttl_s: float | None = None
) -> float:
    """Return what a session is billed for: its jobs and the waits between them.

    Args:
        jobs: QPU seconds of its jobs.
        waits: Seconds without a job, one number per wait; a session is deactivated, and not
            billed, for what is longer than `interactive_ttl_s`.
        interactive_ttl_s: Seconds that it stays active without a job; default:
            `INTERACTIVE_TTL_S`.
    """
    ttl = INTERACTIVE_TTL_S if interactive_ttl_s is None else interactive_ttl_s
    return math.fsum([*jobs, *(min(wait, ttl) for wait in waits)])
