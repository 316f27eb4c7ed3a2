"""The jobs that the service has of a run, which its journal may have lost or never known.

Every job of a run carries a tag of the run beside its own, and its own is derived from what it is
for. So a journal that was lost is made again from what the service lists, and a second copy of a
run folder is noticed before it pays for what the first one has sent.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable

from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.targets.ibm.journal import Journal
from qkd_qiskit.targets.ibm.protocols import Job


class RunJobs:
    """Tags of a run's jobs, and the jobs with such tags that its journal does not know."""

    def __init__(
        self, run_id: str, *, journal: Journal, begun: bool, adopt: bool, adopt_hint: str
    ) -> None:
        """Take what tells a run from all others.

        Args:
            run_id: Of the run; "" for one that has none, whose jobs get tags at random.
            journal: What it has sent, as far as it knows.
            begun: Whether an earlier process may have sent jobs.
            adopt: Whether jobs that the journal does not know are taken into it.
            adopt_hint: What a user does to adopt them.
        """
        self.run_id, self.journal, self.adopt, self.adopt_hint = run_id, journal, adopt, adopt_hint
        self._listed = not (run_id and begun)
        self._unknown: dict[str, list[Job]] = {}

    @property
    def group(self) -> str | None:
        """The tag that all jobs of the run carry, or None."""
        return f"qkd-run:{self.run_id}" if self.run_id else None

    def tag(self, key: str, part: int, attempt: int, *, digest: str) -> str:
        """Return the tag of one attempt at one job; digest is of what is sent."""
        if not self.run_id:
            return f"qkd:{uuid.uuid4().hex}"
        text = f"{self.run_id}/{key}/{part}/{attempt}/{digest}"
        return f"qkd:{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def check(self, find: Callable[[str], list[Job]]) -> None:
        """Ask the service once for the run's jobs, before the first is sent.

        Args:
            find: Returns the jobs with a tag.

        Raises:
            CheckpointError: It has some that the journal does not know, and they are not adopted.
        """
        group = self.group
        if self._listed or group is None:
            return
        for job in find(group):
            own = [tag for tag in job.tags if tag.startswith("qkd:")]
            if not set(own) & set(self.journal.records) and job.id not in self.journal.duplicates:
                for tag in own:
                    self._unknown.setdefault(tag, []).append(job)
        if self._unknown and not self.adopt:
            names = [job.id for jobs in self._unknown.values() for job in jobs]
            shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if names[3:] else "")
            raise CheckpointError(
                f"the service has {len(names)} jobs of this run that {self.journal.path} does not "
                f"know ({shown}): another copy of the run has sent them, or the journal is not the "
                f"last one; go on with that copy or journal, or {self.adopt_hint}"
            )
        self._listed = True

    def take(self, tag: str) -> list[Job]:
        """Return the adopted jobs with a tag, the oldest first."""
        return self._unknown.pop(tag, [])
