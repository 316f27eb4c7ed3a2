"""Calls of a service that are repeated after a failure that may pass."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from qkd_qiskit.errors import InputError, SubmissionError
from qkd_qiskit.targets.ibm.service_errors import ServiceError

logger = logging.getLogger(__name__)
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How long a service is waited for; times in seconds.

    Attributes:
        tries: Times that a call is made before the run stops.
        first_wait_s: Wait after the first failure; it doubles with each further one.
        longest_wait_s: What it grows to.
        longest_asked_s: A longer wait that the service asks for stops the run, which can go on
            later, so that no session is held open for it.
        attempts: Times that a job is sent anew after it has failed, the first included.
        poll_s: Wait between the first two looks at a job.
        longest_poll_s: What it grows to.
        settle_s: Wait until a job that the service may have accepted unnoticed can be found.
        job_timeout_s: Wait for one job.
    """

    tries: int = 8
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    longest_asked_s: float = 600.0
    attempts: int = 3
    poll_s: float = 0.5
    longest_poll_s: float = 10.0
    settle_s: float = 3.0
    job_timeout_s: float = 86_400.0

    def __post_init__(self) -> None:
        for name in ("tries", "attempts"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; give a whole number from 1")

    def wait_s(self, number: int) -> float:
        """Return the wait after a failure that is the first, second, ... in a row."""
        return min(self.longest_wait_s, self.first_wait_s * 2.0 ** min(number - 1, 60))

    def next_poll_s(self, wait_s: float) -> float:
        """Return the wait that follows one between two looks."""
        return min(self.longest_poll_s, 1.25 * wait_s)


class Retries:
    """Calls of one service, repeated after failures that may pass."""

    def __init__(self, name: str, *, policy: RetryPolicy, resume_hint: str) -> None:
        self.name, self.policy, self.resume_hint = name, policy, resume_hint

    def call(
        self, what: str, function: Callable[[], Result], *, tries: int | None = None
    ) -> Result:
        """Return what `function` returns.

        Args:
            what: What is done, for the message.
            function: Calls the service.
            tries: Times that it is called, where the policy has more.

        Raises:
            SubmissionError: It raised a `ServiceError` that does not pass, or too many that may.
        """
        for number in count(1):
            try:
                return function()
            except ServiceError as caught:
                failure = caught
            self.wait_or_stop(what, failure, number, tries=tries)
        raise AssertionError

    def wait_or_stop(
        self, what: str, failure: ServiceError, number: int, *, tries: int | None = None
    ) -> None:
        """Wait until something can be tried again.

        Args:
            what: What is tried, for the message.
            failure: What it raised.
            number: Failures in a row, this one included.
            tries: Failures that are too many, where the policy has more.

        Raises:
            SubmissionError: The failure does not pass, or there were too many.
        """
        if not failure.transient or number >= min(tries or self.policy.tries, self.policy.tries):
            times = f" {number} times" if number > 1 else ""
            raise SubmissionError(
                f"{self.name}: {what} failed{times}: {failure}; {self.resume_hint}"
            )
        asked = failure.retry_after or 0.0
        if asked > self.policy.longest_asked_s:
            raise SubmissionError(
                f"{self.name}: {what}: {failure}, and asks to wait {asked:.0f} s; after that "
                f"{self.resume_hint}"
            )
        wait = max(self.policy.wait_s(number), asked)
        level = logging.WARNING if asked > self.policy.longest_wait_s else logging.INFO
        logger.log(level, "%s: %s: %s; again in %.3g s", self.name, what, failure, wait)
        time.sleep(wait)
