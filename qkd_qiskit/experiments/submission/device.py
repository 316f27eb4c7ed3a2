"""A device with its journal, to which a run's jobs are submitted."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.run_folder import DEVICES, RunFolder
from qkd_qiskit.experiments.submission.session_waits import SessionWaits
from qkd_qiskit.experiments.submission.submission import RECORD, Submission
from qkd_qiskit.experiments.target_summary import DeviceJobs, Place
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.account import is_emulator
from qkd_qiskit.targets.ibm.allowance import Allowance
from qkd_qiskit.targets.ibm.connection import RuntimeConnection, connect
from qkd_qiskit.targets.ibm.job_records import JOURNAL, Records, Totals, read_journal
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import RESULTS, Journal
from qkd_qiskit.targets.ibm.retry import Retries, RetryPolicy
from qkd_qiskit.targets.ibm.run_jobs import RunJobs
from qkd_qiskit.targets.ibm.service_limits import OPEN, ServiceLimits


def open_device(name: str, *, options: RuntimeSpec) -> RuntimeConnection:
    """Return a connection to a device, or to a snapshot of one.

    Raises:
        TargetError: There is no account, or no such device.
        SubmissionError: The service does not answer.
    """
    if name in ("exact", "aer") or name.endswith(".json") or ":" in name:
        raise InputError(
            f"--backend: {name!r} takes no jobs; give a device of your account such as ibm_torino, "
            "or a snapshot such as fake_torino; to evaluate on a simulator: qkd evaluate"
        )
    return connect(name, options=options)


def check_takes_jobs(connection: RuntimeConnection) -> None:
    """Check that a device takes jobs now.

    Raises:
        TargetError: It does not.
        SubmissionError: The service does not answer.
    """
    _retries_of(connection).call("the status", connection.check_status)


def has_sessions(connection: RuntimeConnection) -> bool:
    """Return whether the plan of the account has sessions on a device.

    Raises:
        SubmissionError: The service does not answer.
    """
    return _retries_of(connection).call("reading its plan", connection.has_sessions)


def service_limits(connection: RuntimeConnection) -> ServiceLimits:
    """Return how many jobs a device's account may create; of a snapshot, what the Open Plan may.

    Raises:
        SubmissionError: The service does not answer.
    """
    if connection.local:
        return ServiceLimits.of_plan(OPEN)
    return _retries_of(connection).call("reading its plan", connection.service_limits)


def allowance_of(connection: RuntimeConnection) -> Allowance:
    """Return what the instance of a device has left of its QPU seconds.

    Raises:
        SubmissionError: The service does not answer.
    """
    return _retries_of(connection).call("reading its usage", connection.allowance)


def _retries_of(connection: RuntimeConnection) -> Retries:
    return Retries(connection.name, policy=RetryPolicy(tries=4), resume_hint="try again later")


def place_of(connection: RuntimeConnection) -> Place:
    """Return what runs the jobs of a connection."""
    if connection.local:
        return "simulation"
    return "rehearsal" if is_emulator() else "device"


@contextmanager
def open_runner(
    run: RunFolder,
    submission: Submission,
    connection: RuntimeConnection,
    *,
    watch: Callable[[Totals], None] | None = None,
    adopt: bool = False,
) -> Iterator[Runner]:
    """Yield a runner on the submission's journal.

    Args:
        run: The run.
        submission: Whose jobs are run.
        connection: The device.
        watch: Called after every line of the journal with what all jobs come to.
        adopt: Whether jobs of the submission that the journal does not know are taken into it.
    """
    folder = submission.folder(run)
    begun = (folder / RECORD).exists()
    options = submission.runtime(run.recipe.runtime)
    resume_hint = f"to go on: qkd collect {shlex.quote(str(run.path))}"
    budget_hint = f"{resume_hint} --max-qpu-seconds N"
    with (
        WatchedJournal(folder, watch) as journal,
        Runner(
            connection,
            journal=journal,
            options=options,
            run_jobs=RunJobs(
                submission.id,
                journal=journal,
                begun=begun,
                adopt=adopt,
                adopt_hint=_adopt_hint(run),
            ),
            max_qpu_seconds=submission.max_qpu_seconds,
            resume_hint=resume_hint,
            budget_hint=budget_hint,
        ) as runner,
    ):
        yield runner


def check_journal(run: RunFolder, submission: Submission, *, adopt: bool) -> Records:
    """Return what a submission's journal says, after checking that it was not lost.

    Where it was, and its jobs are to be adopted, a damaged one is put aside.

    Raises:
        CheckpointError: It is damaged, or missing beside what jobs have left.
    """
    folder = submission.folder(run)
    hint = f", or {_adopt_hint(run)}" if submission.id else ""
    try:
        records = read_journal(folder)
    except CheckpointError as error:
        if not (adopt and submission.id):
            raise CheckpointError(f"{error}{hint}") from None
        (folder / JOURNAL).rename(folder / f"{JOURNAL}.damaged")
        return Records()
    lost = not records.records and any((folder / RESULTS).rglob("*.safetensors"))
    if lost and submission.place != "simulation" and not (adopt and submission.id):
        raise CheckpointError(
            f"{folder / JOURNAL} is missing or empty and counts of jobs lie beside it: what has "
            f"been paid could be paid again; bring back a copy{hint}"
        )
    return records


def _adopt_hint(run: RunFolder) -> str:
    """Return what a user does to take jobs that the service has into a journal."""
    return f"take them from the service: qkd collect {shlex.quote(str(run.path))} --adopt"


class WatchedJournal(Journal):
    """A journal that counts waits in a session before they are billed, and passes on its totals."""

    def __init__(self, folder: Path, watch: Callable[[Totals], None] | None) -> None:
        super().__init__(folder)
        self._watch = watch
        self._waits = SessionWaits()
        for entry in _entries(folder):
            self._waits.add(entry)

    def append(self, event: str, **content: Any) -> None:
        """Write a line, as `Journal.append`."""
        super().append(event, **content)
        time = datetime.now(timezone.utc).isoformat()
        self._waits.add({"event": event, "time": time, **content})
        if self._watch is not None:
            self._watch(self.totals())

    def totals(self) -> Totals:
        """Return `Records.totals` with the waits of sessions whose usage is not known yet."""
        totals = super().totals()
        billed = {name for name, (_, usage) in self.sessions.items() if usage is not None}
        waited = sum(s for name, s in self._waits.of_sessions.items() if name not in billed)
        return replace(totals, waiting_s=totals.waiting_s + waited)


def running_jobs(run: Path) -> list[str]:
    """Return the ids of the jobs of a run folder that were submitted and have not been read."""
    return [
        str(record.job)
        for folder in sorted((run / DEVICES).glob("*"))
        for record in read_journal(folder).records.values()
        if record.state == "submitted"
    ]


def describe_jobs(run: RunFolder, submission: Submission, prefix: str, *, mode: Mode) -> DeviceJobs:
    """Return what the finished jobs of a submission come to.

    Args:
        run: The run.
        submission: Whose jobs.
        prefix: Only jobs whose keys begin with it.
        mode: How they were submitted.
    """
    folder = submission.folder(run)
    options = submission.runtime(run.recipe.runtime).changes
    dates: list[str] = []
    waits, keys = SessionWaits(), dict[str, str]()
    for entry in _entries(folder):
        waits.add(entry)
        if entry["event"] == "intent":
            keys[entry["tag"]] = entry["key"]
        elif entry["event"] == "submitted" and keys[entry["tag"]].startswith(prefix):
            dates.append(str(entry["time"])[:10])
    jobs = [
        record
        for record in read_journal(folder).records.values()
        if record.key.startswith(prefix) and record.state == "finished"
    ]
    charged = [record.usage_s for record in jobs if record.usage_s is not None]
    return DeviceJobs(
        place=submission.place,
        backend=submission.backend,
        mode=mode,
        submitted=tuple(sorted({min(dates), max(dates)})) if dates else (),
        jobs=tuple(str(record.job) for record in jobs),
        pubs=sum(record.pubs for record in jobs),
        circuits=sum(record.circuits for record in jobs),
        executions=sum(record.executions for record in jobs),
        qpu_seconds=sum(charged) if len(charged) == len(jobs) else None,
        expected_qpu_seconds=sum(record.estimate_s for record in jobs),
        options=options or None,
        wait_seconds=sum(s for key, s in waits.of_keys.items() if key.startswith(prefix)),
    )


def _entries(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a journal that has been checked."""
    path = folder / JOURNAL
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]
