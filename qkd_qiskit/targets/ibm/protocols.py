"""What the runner needs of a service that runs jobs; `connection` has that of IBM Quantum."""

from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.recipe import Mode
from qkd_qiskit.targets.ibm.job_plan import Pub
from qkd_qiskit.targets.ibm.service_limits import ServiceLimits

JobState = Literal["waiting", "done", "failed", "cancelled"]


class Job(Protocol):
    """One job of a service; every method calls it, and raises `ServiceError` where that fails."""

    id: str
    """The service's name for it."""
    tags: tuple[str, ...]
    """What it was tagged with."""

    def state(self) -> JobState:
        """Return how far it is."""

    def counts(self, pubs: Sequence[Pub]) -> list[NDArray[np.int64]]:
        """Return the counts (rows, 2**bits) of each PUB, little-endian."""

    def reason(self) -> tuple[str, bool]:
        """Return why it failed, and whether it would fail again."""

    def usage(self) -> float | None:
        """Return QPU seconds, or None where the service has not reported them yet."""

    def usage_so_far(self) -> float | None:
        """Return QPU seconds that are not final, of one that runs; None where nothing is told."""

    def cancel(self) -> None:
        """Stop it."""


class Connection(Protocol):
    """A device of a service; a method that calls it raises `ServiceError` where that fails."""

    name: str
    """Name of the device."""
    identity: str
    """The device, whether it is real, and the options that change counts: what is sent to one
    connection is not the same as what is sent to another of another identity."""
    local: bool
    """Whether jobs live in this process, and end with it."""

    def check_status(self) -> None:
        """Check that the device takes jobs.

        Raises:
            TargetError: It does not.
        """

    def service_limits(self) -> ServiceLimits:
        """Return how many jobs may be created, and be on their way."""

    def check(self, pubs: Sequence[Pub]) -> None:
        """Check, before anything is sent, that the device can run these PUBs.

        Raises:
            TargetError: It cannot.
        """

    def estimate(self, pubs: Sequence[Pub]) -> float:
        """Return the QPU seconds that a job of these PUBs is expected to take."""

    def submit(self, pubs: Sequence[Pub], *, tag: str, group: str | None, seed: int | None) -> Job:
        """Send a job, into the session where one is open; `group` is a tag that others share."""

    def find(self, tag: str) -> list[Job]:
        """Return the jobs with this tag, the oldest first."""

    def job(self, job_id: str) -> Job:
        """Return the job with this id."""

    def open_session(self, mode: Mode) -> str | None:
        """Open a session or batch and return its id; None where there is nothing to open."""

    def rejoin_session(self, session_id: str, mode: Mode) -> bool:
        """Continue a session that was opened before; return whether it still takes jobs."""

    def session_open(self) -> bool:
        """Return whether the session takes jobs."""

    def session_usage(self, session_id: str) -> float | None:
        """Return the QPU seconds that a session was billed for so far; None where it is unknown."""

    def close_session(self) -> None:
        """Let the session take no more jobs; those that it has run to their end."""
