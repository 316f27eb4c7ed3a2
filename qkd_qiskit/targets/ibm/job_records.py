"""What a journal of jobs says: one record for each attempt at a job, and what they come to."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.recipe import Mode

JOURNAL = "journal.jsonl"
_CREATED = 64
State = Literal["intended", "submitted", "finished", "failed", "abandoned"]


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One attempt at one job.

    Attributes:
        key: Name of what the job is for.
        part: Number of the job among those of its key, from 0.
        parts: Jobs of its key.
        attempt: Number of the attempt, from 0.
        tag: A text that no other job carries.
        digest: Of what is sent.
        pubs: Its PUBs.
        circuits: Rows of all PUBs.
        shots: Shots of each row.
        executions: Circuits times shots.
        estimate_s: QPU seconds expected.
        options: How it is run, in words, where that is not plain.
        state: Intended, submitted, finished, failed or abandoned.
        job: The service's id for it, or None before it is known.
        session: The session that was open when it was submitted, or None.
        result: Digest of its counts, or None.
        reason: Why it failed or was abandoned, or None.
        usage_s: QPU seconds that the service reported, or None before.
    """

    key: str
    part: int
    parts: int
    attempt: int
    tag: str
    digest: str
    pubs: int
    circuits: int
    shots: int
    executions: int
    estimate_s: float
    options: str = ""
    state: State = "intended"
    job: str | None = None
    session: str | None = None
    result: str | None = None
    reason: str | None = None
    usage_s: float | None = None

    @property
    def intent(self) -> dict[str, Any]:
        """What is known before it is sent."""
        names = _FIRST if self.options else [name for name in _FIRST if name != "options"]
        return {name: getattr(self, name) for name in names}

    @property
    def paid(self) -> bool:
        """Whether a device may have worked on it."""
        return self.state in ("submitted", "finished", "failed")


_KNOWN_LATER = ("state", "job", "session", "result", "reason", "usage_s")
_FIRST = [name for name in JobRecord.__annotations__ if name not in _KNOWN_LATER]


@dataclass(frozen=True)
class Totals:
    """What a run's jobs come to.

    Attributes:
        jobs: Jobs that were submitted, failed ones included.
        finished: Jobs whose counts are there.
        failed: Jobs that failed or were cancelled.
        pending: Jobs that were submitted and not read yet.
        circuits: Circuits of all submitted jobs.
        executions: Circuits times shots of all submitted jobs.
        usage_s: QPU seconds that the service reported, of all jobs.
        failed_usage_s: Those of failed jobs among them, and of second jobs of one tag.
        expected_s: QPU seconds expected of jobs whose usage is not known yet.
        waiting_s: QPU seconds that closed sessions were billed beyond their jobs, which is the time
            that the device was held between them; 0 for batches.
    """

    jobs: int
    finished: int
    failed: int
    pending: int
    circuits: int
    executions: int
    usage_s: float
    failed_usage_s: float
    expected_s: float
    waiting_s: float

    @property
    def spent_s(self) -> float:
        """QPU seconds that all of it costs, as far as that is known or expected."""
        return self.usage_s + self.expected_s + self.waiting_s


class Records:
    """What a journal says, line by line."""

    def __init__(self) -> None:
        self.records: dict[str, JobRecord] = {}
        """Every attempt by its tag, in the order of the intents."""
        self.duplicates: dict[str, float | None] = {}
        """QPU seconds of second jobs of one tag, by job id."""
        self.session: tuple[str, Mode] | None = None
        """Id and mode of the session that was opened last, unless it was closed."""
        self.sessions: dict[str, tuple[Mode, float | None]] = {}
        """Mode and QPU seconds of each closed session or batch, by id."""
        self.created: deque[float] = deque(maxlen=_CREATED)
        """When the last jobs were about to be sent, in seconds since the epoch."""
        self._latest: dict[tuple[str, int], str] = {}

    def latest(self, key: str, part: int = 0) -> JobRecord | None:
        """Return the last attempt at a job, or None."""
        tag = self._latest.get((key, part))
        return None if tag is None else self.records[tag]

    def keys(self) -> list[str]:
        """Return the keys that something was meant to be sent for, in order."""
        return list(dict.fromkeys(record.key for record in self.records.values()))

    def finished(self, key: str) -> bool:
        """Return whether all jobs of a key are finished."""
        first = self.latest(key)
        if first is None:
            return False
        last = (self.latest(key, part) for part in range(first.parts))
        return all(record is not None and record.state == "finished" for record in last)

    def totals(self) -> Totals:
        """Return what all jobs come to."""
        paid = [record for record in self.records.values() if record.paid]
        failed = [record for record in paid if record.state == "failed"]
        second = sum(usage or 0.0 for usage in self.duplicates.values())
        return Totals(
            jobs=len(paid) + len(self.duplicates),
            finished=sum(record.state == "finished" for record in paid),
            failed=len(failed),
            pending=sum(record.state == "submitted" for record in paid),
            circuits=sum(record.circuits for record in paid),
            executions=sum(record.executions for record in paid),
            usage_s=sum(record.usage_s or 0.0 for record in paid) + second,
            failed_usage_s=sum(record.usage_s or 0.0 for record in failed) + second,
            expected_s=sum(record.estimate_s for record in paid if record.usage_s is None),
            waiting_s=sum(self._waiting_s(session) for session in self.sessions),
        )

    def _waiting_s(self, session: str) -> float:
        mode, usage = self.sessions[session]
        if mode != "session" or usage is None:
            return 0.0
        inside = (r.usage_s or 0.0 for r in self.records.values() if r.session == session)
        return max(0.0, usage - sum(inside))

    def unsettled(self) -> list[JobRecord]:
        """Return the jobs that have ended and whose usage the service has not reported yet."""
        return [
            record
            for record in self.records.values()
            if record.state in ("finished", "failed") and record.usage_s is None
        ]

    def apply(self, entry: Mapping[str, Any]) -> None:
        """Apply one line.

        Raises:
            KeyError, TypeError, ValueError: It is none of those that a journal holds.
        """
        event = entry["event"]
        if event == "intent":
            self._note_time(entry)
            names = [name for name in _FIRST if name in entry or name != "options"]
            record = JobRecord(**{"options": ""} | {name: entry[name] for name in names})
            if record.tag in self.records:
                raise ValueError("a tag came twice")
            self.records[record.tag] = record
            self._latest[record.key, record.part] = record.tag
        elif event == "session":
            opened = entry["state"] == "opened"
            self.session = (entry["id"], entry["mode"]) if opened else None
            if not opened:
                self.sessions[entry["id"]] = (entry["mode"], entry["usage_s"])
        elif event == "session_usage":
            self.sessions[entry["id"]] = (self.sessions[entry["id"]][0], entry["usage_s"])
        elif event == "duplicate":
            self.duplicates[entry["job"]] = entry["usage_s"]
        else:
            self._change(event, entry)

    def _note_time(self, entry: Mapping[str, Any]) -> None:
        given = entry.get("time")
        if isinstance(given, str):
            self.created.append(datetime.fromisoformat(given).timestamp())

    def _change(self, event: str, entry: Mapping[str, Any]) -> None:
        record = self.records[entry["tag"]]
        changed: dict[str, Any] = {}
        if event == "usage":
            changed = {"usage_s": entry["usage_s"]}
        elif event == "submitted":
            if self.created:
                self.created.pop()
            self._note_time(entry)
            inside = None if self.session is None else self.session[0]
            changed = {"job": entry["job"], "session": inside, "state": event}
        elif event == "finished":
            changed = {"result": entry["result"], "usage_s": entry["usage_s"], "state": event}
        elif event == "failed":
            changed = {"reason": entry["reason"], "usage_s": entry["usage_s"], "state": event}
        elif event == "abandoned":
            changed = {"reason": entry["reason"], "state": event}
        else:
            raise ValueError(f"event {event!r} is unknown")
        self.records[record.tag] = replace(record, **changed)


def read_journal(folder: str | Path) -> Records:
    """Return what the journal of a run folder says; nothing where there is none.

    Raises:
        CheckpointError: The journal is damaged before its last line.
    """
    records = Records()
    read_lines(Path(folder) / JOURNAL, records)
    return records


def format_line(entry: Mapping[str, Any]) -> bytes:
    """Return an entry as a line of the journal, with its checksum."""
    text = json.dumps(entry, allow_nan=False)
    return f'{text[:-1]}, "sum": "{_checksum(text)}"}}\n'.encode()


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _parse(line: str) -> dict[str, Any]:
    text, mark, checksum = line.rpartition(', "sum": "')
    if not mark or checksum != _checksum(text + "}") + '"}':
        raise ValueError("the checksum differs")
    entry: dict[str, Any] = json.loads(text + "}")
    return entry


def read_lines(path: Path, records: Records) -> int:
    """Apply a journal's lines and return how many bytes of it are whole."""
    try:
        content = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or error}") from None
    whole = content.rfind(b"\n") + 1
    for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
        try:
            records.apply(_parse(line.decode()))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path} is damaged in line {number} ({type(error).__name__}): bring back a copy; "
                "without it, what has been paid could be paid again"
            ) from None
    return whole
