"""What the service lets an account do at once, and how job creation keeps within it.

- Five jobs may be created in a minute with one access token (`POST /v1/jobs` in the API reference);
  more are answered 429.
- The Open Plan has at most three jobs that wait or run.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

JOBS_PER_WINDOW = 5
"""Jobs that may be created in `WINDOW_S`."""
WINDOW_S = 60.0
"""Seconds in which created jobs are counted."""
OPEN_PLAN_PENDING = 3
"""Jobs of the Open Plan that may wait or run."""
OPEN = "open"


@dataclass(frozen=True, kw_only=True)
class ServiceLimits:
    """How many jobs may be created, and may be on their way.

    Attributes:
        jobs: Jobs that may be created in `window_s`; None = not limited.
        window_s: Seconds in which created jobs are counted.
        pending: Jobs that may wait or run; None = not limited.
    """

    jobs: int | None = None
    window_s: float = WINDOW_S
    pending: int | None = None

    @classmethod
    def of_plan(cls, plan: str | None) -> ServiceLimits:
        """Return the limits of a plan, such as ``open``."""
        return cls(jobs=JOBS_PER_WINDOW, pending=OPEN_PLAN_PENDING if plan == OPEN else None)

    def creation_s(self, jobs: int) -> float:
        """Return the seconds that so many jobs take to be created, at least."""
        return 0.0 if self.jobs is None else self.window_s * (max(0, jobs - 1) // self.jobs)

    def describe(self) -> str:
        """Return them in words; "" where there are none."""
        parts = []
        if self.jobs is not None:
            span = "a minute" if self.window_s == WINDOW_S else f"in {self.window_s:g} s"
            parts.append(f"{self.jobs} new jobs {span}")
        if self.pending is not None:
            parts.append(f"{self.pending} that wait or run")
        return ", ".join(parts)


UNLIMITED = ServiceLimits()


class CreationPace:
    """When the next job may be created, so that a service never has to refuse one."""

    def __init__(
        self,
        limits: ServiceLimits,
        *,
        clock: Callable[[], float] | None = None,
        margin_s: float = 0.2,
    ) -> None:
        """Take the limits.

        Args:
            limits: Of the service.
            clock: Gives the seconds since the epoch; default: the computer's.
            margin_s: Waited beyond the window: clocks and networks are not exact.
        """
        self.limits, self._clock, self._margin_s = limits, clock or time.time, margin_s
        self._created: deque[float] = deque(maxlen=limits.jobs or 1)

    def created(self, at: float | None = None) -> None:
        """Count a request for a job, made now or at a time in seconds since the epoch."""
        self._created.append(self._clock() if at is None else at)

    def answered(self) -> None:
        """Count the last request from now on: it arrived no later than its answer did."""
        if self._created:
            self._created[-1] = self._clock()

    def wait_s(self) -> float:
        """Return the seconds until another job may be created."""
        if self.limits.jobs is None or len(self._created) < self.limits.jobs:
            return 0.0
        free = self._created[0] + self.limits.window_s + self._margin_s
        # A clock that was set back must not make a run wait for hours.
        return min(max(0.0, free - self._clock()), self.limits.window_s + self._margin_s)
