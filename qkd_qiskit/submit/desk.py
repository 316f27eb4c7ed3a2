"""A device with its journal: where a run's jobs are handed in."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import InputError
from qkd_qiskit.hardware.account import is_rehearsal
from qkd_qiskit.hardware.asking import Asking, Patience
from qkd_qiskit.hardware.journal import Journal
from qkd_qiskit.hardware.records import JOURNAL, Records, Totals, read_journal
from qkd_qiskit.hardware.runtime import RuntimeConnection, connect
from qkd_qiskit.hardware.submission import Runner
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.runs import RunFolder
from qkd_qiskit.submit.record import DEVICES, Place, Submission


def open_device(name: str, *, options: RuntimeSpec) -> RuntimeConnection:
    """A device that takes jobs, or a snapshot of one.

    Raises:
        TargetError: There is no account, no such device, or it takes no jobs now.
        SubmissionError: The service does not answer.
    """
    if name in ("exact", "aer") or name.endswith(".json") or ":" in name:
        raise InputError(
            f"--backend: {name!r} takes no jobs; give a device of your account such as ibm_torino, "
            "or a snapshot such as fake_torino; to evaluate on a simulator: qkd evaluate"
        )
    connection = connect(name, options=options)
    service = Asking(name, patience=Patience(tries=4), go_on="try again later")
    service.ask("the status", connection.check_status)
    return connection


def place_of(connection: RuntimeConnection) -> Place:
    """Whether a connection is to a real device."""
    if connection.local:
        return "simulation"
    return "rehearsal" if is_rehearsal() else "device"


@contextmanager
def open_runner(
    run: RunFolder,
    submission: Submission,
    connection: RuntimeConnection,
    *,
    watch: Callable[[Totals], None] | None = None,
) -> Iterator[Runner]:
    """A runner on the submission's journal.

    Args:
        run: The run.
        submission: Whose jobs are run.
        connection: The device.
        watch: Called after every line of the journal with what all jobs come to.
    """
    folder = submission.folder(run)
    options = replace(run.recipe.runtime, mode=submission.mode)
    go_on = f"to go on: qkd collect {shlex.quote(str(run.path))}"
    with (
        WatchedJournal(folder, watch) as journal,
        Runner(
            connection,
            journal=journal,
            options=options,
            max_qpu_seconds=submission.max_qpu_seconds,
            go_on=go_on,
        ) as runner,
    ):
        yield runner


class WatchedJournal(Journal):
    """A journal that tells what its jobs come to."""

    def __init__(self, folder: Path, watch: Callable[[Totals], None] | None) -> None:
        super().__init__(folder)
        self._watch = watch

    def append(self, event: str, **content: Any) -> None:
        """As `Journal.append`."""
        super().append(event, **content)
        if self._watch is not None:
            self._watch(self.totals())


def running_jobs(run: Path) -> list[str]:
    """Ids of the jobs of a run folder that were submitted and have not been read."""
    return [
        str(record.job)
        for folder in sorted((run / DEVICES).glob("*"))
        for record in read_journal(folder).records.values()
        if record.state == "submitted"
    ]


def jobs_of(records: Records, prefix: str) -> dict[str, Any]:
    """What the finished jobs of keys with a prefix come to, for result.json."""
    jobs = [
        record
        for record in records.records.values()
        if record.key.startswith(prefix) and record.state == "finished"
    ]
    told = [record.usage_s for record in jobs]
    known = all(usage is not None for usage in told)
    return {
        "jobs": [record.job for record in jobs],
        "pubs": sum(record.pubs for record in jobs),
        "circuits": sum(record.circuits for record in jobs),
        "executions": sum(record.executions for record in jobs),
        "qpu_seconds": sum(usage or 0.0 for usage in told) if known else None,
        "expected_qpu_seconds": sum(record.estimate_s for record in jobs),
    }


def submitted_dates(folder: Path, prefix: str) -> list[str]:
    """First and last ISO date on which jobs of keys with a prefix were submitted."""
    dates, keys = [], {}
    for line in (folder / JOURNAL).read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if entry["event"] == "intent":
            keys[entry["tag"]] = entry["key"]
        elif entry["event"] == "submitted" and keys[entry["tag"]].startswith(prefix):
            dates.append(str(entry["time"])[:10])
    return sorted({min(dates), max(dates)}) if dates else []
