"""The limits of job creation that a rehearsal enforces where it is told to.

Too many requests in a window are answered 429 with the number 1202, as IBM's registry of errors has
it. The limit of pending jobs has the text that users have reported (pytket-qiskit, issue 498) and
the number 3458 that the platform before this one gave it (qiskit-ibm-runtime, issue 1124); whether
today's status is 429 is not documented.
"""

from __future__ import annotations

import time
from collections import deque

from qkd_qiskit.targets.ibm.emulator.sessions import Refused
from qkd_qiskit.targets.ibm.service_limits import ServiceLimits

_TOO_MANY, _TOO_MANY_PENDING = 1202, 3458


class JobLimits:
    """Refuses jobs that are too many; every request counts, also one that is refused."""

    def __init__(self, limits: ServiceLimits) -> None:
        self.limits = limits
        self.refused = 0
        """Requests that were refused."""
        self._requests: deque[float] = deque()

    def check(self, *, pending: int) -> None:
        """Let a request for a job pass, beside so many jobs that wait or run.

        Raises:
            Refused: There were too many, or there are.
        """
        limits, now = self.limits, time.monotonic()
        while self._requests and now - self._requests[0] >= limits.window_s:
            self._requests.popleft()
        self._requests.append(now)
        if limits.jobs is not None and len(self._requests) > limits.jobs:
            self.refused += 1
            span = f"{limits.window_s:g} seconds"
            text = f"Too many job creation requests received: limit is {limits.jobs} per {span}."
            raise Refused(429, _TOO_MANY, text)
        if limits.pending is not None and pending >= limits.pending:
            self.refused += 1
            text = (
                f"You have reached the limit of {limits.pending} pending jobs. Please wait for a "
                "job to complete or cancel one before submitting anything new."
            )
            raise Refused(429, _TOO_MANY_PENDING, text)
