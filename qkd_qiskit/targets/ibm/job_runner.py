"""Jobs on a device, each exactly once, whatever fails in between.

A job's life is written down before each step (see journal.py), so that the next process knows what
the last one was about to do. Of a job that was meant and has no id, the service is asked by its tag
before anything is sent again; of one that has an id, its counts are fetched; counts on the disk are
read from there. Nothing here knows the service itself, only `Connection`.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import BudgetError, CheckpointError, InputError, SubmissionError
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.job_plan import JobPlan, Limits, Pub, plan_jobs, pubs_digest
from qkd_qiskit.targets.ibm.journal import JobRecord, Journal, check_key
from qkd_qiskit.targets.ibm.protocols import Connection, Job, JobState
from qkd_qiskit.targets.ibm.retry import Asking, RetryPolicy
from qkd_qiskit.targets.ibm.service_errors import Fault
from qkd_qiskit.targets.ibm.sessions import SessionKeeper
from qkd_qiskit.targets.ibm.usage import Usage

logger = logging.getLogger(__name__)
Counts = list[NDArray[np.int64]]


@dataclass(frozen=True)
class _Task:
    """One job of a key: what is sent, and with which seed."""

    key: str
    part: int
    parts: int
    plan: JobPlan
    pubs: list[Pub]
    digest: str
    seed: int | None


class Runner:
    """Submits jobs to one device and collects their counts; use it in a `with` statement."""

    def __init__(
        self,
        connection: Connection,
        *,
        journal: Journal,
        options: RuntimeSpec | None = None,
        patience: RetryPolicy | None = None,
        estimate: Callable[[Sequence[Pub]], float] | None = None,
        max_qpu_seconds: float | None = None,
        go_on: str = "run the same command again to go on",
    ) -> None:
        """Take a device and the journal of a run.

        Args:
            connection: the device; `runtime.connect` gives one.
            journal: what has happened so far, and where what happens now is written.
            options: mode, twirling and limits.
            patience: how long the service is waited for.
            estimate: QPU seconds expected of a job with these PUBs; default: the connection's.
            max_qpu_seconds: QPU seconds that all jobs of the journal together may use, with what
                closed sessions cost beyond them; a job that is expected to pass them is not sent.
            go_on: what a user does to continue, for messages.

        Raises:
            InputError: max_qpu_seconds is not accepted.
        """
        if max_qpu_seconds is not None and not max_qpu_seconds > 0:
            raise InputError(f"max_qpu_seconds is {max_qpu_seconds}; give a number above 0")
        self.connection, self.journal = connection, journal
        self.options = options or RuntimeSpec()
        self.limits = Limits(max_executions=self.options.max_executions)
        self.patience = patience or RetryPolicy()
        self.estimate = estimate or connection.estimate
        self.max_qpu_seconds, self.go_on = max_qpu_seconds, go_on
        self._service = Asking(connection.name, patience=self.patience, go_on=go_on)
        self._session = SessionKeeper(
            connection, journal=journal, service=self._service, mode=self.options.mode
        )
        self._bills = Usage(connection, journal=journal, service=self._service)
        self._tasks: dict[str, list[_Task]] = {}
        self._jobs: dict[str, Job] = {}
        self._sent_again: set[str] = set()
        """Tags of jobs that were sent although an earlier try may still be accepted."""
        self._failures: dict[tuple[str, int], int] = {}
        self._available = False

    @property
    def mode(self) -> Mode:
        """How jobs are submitted: a batch, where sessions were asked for and the plan has none."""
        return self._session.mode

    def __enter__(self) -> Runner:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._session.close()
        if kind is None:
            self.settle()

    def submit(self, key: str, pubs: Sequence[Pub], *, seed: int | None = None) -> None:
        """Send what a key stands for, unless it has been sent; `collect` gives the counts.

        Args:
            key: name of what the jobs are for, the same in every process of the run.
            pubs: what is sent; the same as in every process before.
            seed: seed of a simulator's shots; a quantum computer has none.

        Raises:
            CheckpointError: the key stands for other PUBs in the journal.
            TargetError: the device cannot run the PUBs.
            BudgetError: the next job would pass `max_qpu_seconds`.
            SubmissionError: the service failed; what was done is kept.
        """
        check_key(key)
        if key not in self._tasks:
            self._tasks[key] = self._cut(key, list(pubs), seed)
        for task in self._tasks[key]:
            record = self.journal.latest(task.key, task.part)
            if record is None or record.state in ("failed", "abandoned"):
                self._send(task)
            elif record.state == "intended":
                self._post(record, task, look_first=True)

    def collect(self, key: str) -> Counts:
        """Return the counts (rows, 2**n) of each PUB of a submitted key, little-endian.

        Raises:
            SubmissionError: as `submit`; or a job failed, or was cancelled.
        """
        if key not in self._tasks:
            raise InputError(f"nothing was submitted as {key!r}; submit it first")
        pieces: dict[int, Counts] = {}
        for task in self._tasks[key]:
            for (place, _, _), rows in zip(task.plan.slices, self._finish(task), strict=True):
                pieces.setdefault(place, []).append(rows)
        del self._tasks[key]
        return [np.concatenate(pieces[place]) for place in sorted(pieces)]

    def run(self, key: str, pubs: Sequence[Pub], *, seed: int | None = None) -> Counts:
        """Return the counts of PUBs: `submit`, then `collect`."""
        self.submit(key, pubs, seed=seed)
        return self.collect(key)

    def settle(self) -> None:
        """Ask for the QPU seconds of jobs and sessions that the service had not told yet."""
        self._bills.settle()

    def _cut(self, key: str, pubs: list[Pub], seed: int | None) -> list[_Task]:
        plans = plan_jobs(
            [pub.size for pub in pubs], limits=self.limits, twirled=self.options.twirled
        )
        tasks = []
        for part, plan in enumerate(plans):
            cut = plan.cut(pubs)
            own = None if seed is None else _part_seed(seed, part)
            digest = pubs_digest(cut, receiver=self.connection.identity)
            tasks.append(_Task(key, part, len(plans), plan, cut, digest, own))
            record = self.journal.latest(key, part)
            if record is not None and (record.digest, record.parts) != (digest, len(plans)):
                raise CheckpointError(
                    f"{self.journal.path} holds other circuits, values or options, or another "
                    f"device, under {key!r}; go on with those of that run, and its versions, or "
                    "begin in a new folder"
                )
        return tasks

    def _send(self, task: _Task) -> None:
        """Write down what will be sent, and send it."""
        if not self._available:
            self._service.ask("the device's status", self.connection.check_status)
            self._available = True
        self.connection.check(task.pubs)
        expected = self.estimate(task.pubs)
        self._keep_budget(expected)
        last = self.journal.latest(task.key, task.part)
        record = JobRecord(
            key=task.key,
            part=task.part,
            parts=task.parts,
            attempt=0 if last is None else last.attempt + 1,
            tag=f"qkd:{uuid.uuid4().hex}",
            digest=task.digest,
            pubs=len(task.pubs),
            circuits=task.plan.circuits,
            shots=task.plan.shots,
            executions=task.plan.executions,
            estimate_s=expected,
        )
        self._post(self.journal.intend(record), task, look_first=False)

    def _keep_budget(self, expected: float) -> None:
        if self.max_qpu_seconds is None:
            return
        used = self.journal.totals().spent_s
        if used + expected > self.max_qpu_seconds:
            raise BudgetError(
                f"the next job is expected to take {expected:.3g} QPU seconds; with "
                f"{used:.6g} used, the {self.max_qpu_seconds:g} that are allowed would be passed; "
                f"raise --max-qpu-seconds and {self.go_on}"
            )

    def _post(self, record: JobRecord, task: _Task, *, look_first: bool) -> None:
        """Send one attempt, unless the service has it."""
        for number in count(1):
            job = self._look_up(record) if look_first else None
            if job is None:
                self._keep_budget(record.estimate_s)
                self._session.enter()
                if look_first:
                    self._sent_again.add(record.tag)
                job = fault = None
                try:
                    job = self.connection.submit(task.pubs, tag=record.tag, seed=task.seed)
                except Fault as caught:
                    fault = caught
            if job is not None:
                self.journal.append("submitted", tag=record.tag, job=job.id)
                self._jobs[record.tag] = job
                return
            assert fault is not None
            look_first = True  # it may have been accepted before the answer was lost
            if fault.kind in ("refused", "closed"):
                if self._session.lost():
                    self._session.over()
                    fault = Fault("busy", str(fault))
                elif self._look_up(record) is not None:
                    continue
                else:
                    self.journal.append("abandoned", tag=record.tag, reason=str(fault))
            self._service.wait_or_stop(f"submitting {task.key}", fault, number)

    def _look_up(self, record: JobRecord) -> Job | None:
        """Return the job with a record's tag, if the service has one."""
        if self.connection.local:
            return None
        found = self._found(record)
        if not found:
            time.sleep(self.patience.settle_s)
            found = self._found(record)
        for second in found[1:]:
            self._drop(second)
        return found[0] if found else None

    def _found(self, record: JobRecord) -> list[Job]:
        return self._service.ask("looking for a job", lambda: self.connection.find(record.tag))

    def _drop_late(self, record: JobRecord) -> None:
        """Stop what the service accepted of an earlier try, after the job was sent again."""
        if record.tag not in self._sent_again or self.connection.local:
            return
        for second in self._found(record):
            if second.id != record.job:
                self._drop(second)
        self._sent_again.discard(record.tag)

    def _drop(self, job: Job) -> None:
        """Stop a second job of one tag, which the service accepted without telling."""
        if job.id in self.journal.duplicates:
            return
        logger.warning("job %s was accepted twice; the second is cancelled", job.id)
        try:
            job.cancel()
        except Fault as fault:
            logger.warning("job %s could not be cancelled: %s", job.id, fault)
        self.journal.append("duplicate", job=job.id, usage_s=self._bills.of_job(job))

    def _finish(self, task: _Task) -> Counts:
        """Bring a job to its end, as often as that takes."""
        while True:
            record = self.journal.latest(task.key, task.part)
            assert record is not None  # `submit` came before
            if record.state == "finished":
                counts = self.journal.load_counts(record)
                return self._fetch_again(record, task) if counts is None else counts
            if record.state == "submitted":
                self._await(record, task)
            elif record.state == "intended":
                self._post(record, task, look_first=True)
            else:
                self._send(task)

    def _await(self, record: JobRecord, task: _Task) -> None:
        """Wait for a job and write down how it ended."""
        if self.connection.local and record.tag not in self._jobs:
            reason = "the process that simulated it has ended"
            self.journal.append("failed", tag=record.tag, reason=reason, usage_s=0.0)
            return
        job = self._job(record)
        state = self._poll(job, task)
        self._drop_late(record)
        if state == "done":
            counts = self._service.ask(f"results of job {job.id}", lambda: job.counts(task.pubs))
            digest = self.journal.save_counts(record, counts)
            usage = self._bills.of_job(job)
            self.journal.append("finished", tag=record.tag, result=digest, usage_s=usage)
            self._jobs.pop(record.tag, None)
            self._failures.pop((task.key, task.part), None)
            return
        reason, final = ("cancelled", False)
        if state == "failed":
            reason, final = self._service.ask(f"job {job.id}", job.reason)
        usage = self._bills.of_job(job)
        self.journal.append("failed", tag=record.tag, reason=reason, usage_s=usage)
        self._jobs.pop(record.tag, None)
        stopped = state == "cancelled" and not self._session.took_along(record.session)
        failures = self._failures.get((task.key, task.part), 0) + 1
        self._failures[task.key, task.part] = failures
        if stopped or final or failures >= self.patience.attempts:
            times = "" if failures == 1 else f" {failures} times"
            what = "was cancelled" if stopped else f"failed{times}: {reason}"
            raise SubmissionError(f"job {job.id} ({task.key}) {what}; {self.go_on}")
        logger.warning("job %s (%s) failed and is sent again: %s", job.id, task.key, reason)
        time.sleep(self.patience.wait_s(failures))

    def _poll(self, job: Job, task: _Task) -> JobState:
        wait, until = self.patience.poll_s, time.monotonic() + self.patience.job_timeout_s
        while True:
            state = self._service.ask(f"state of job {job.id}", job.state)
            if state != "waiting":
                return state
            if time.monotonic() > until:
                raise SubmissionError(
                    f"job {job.id} ({task.key}) has not ended after "
                    f"{self.patience.job_timeout_s:g} s; {self.go_on}, nothing is sent twice"
                )
            time.sleep(wait)
            wait = self.patience.next_poll_s(wait)

    def _fetch_again(self, record: JobRecord, task: _Task) -> Counts:
        """Fetch the counts of a finished job whose file is missing or damaged."""
        path = self.journal.result_path(record)
        lost = f"{path} is missing or damaged"
        if self.connection.local:
            raise CheckpointError(
                f"{lost}, and a simulated job cannot be fetched again; restore it"
            )
        job = self._job(record)
        counts = self._service.ask(f"results of job {job.id}", lambda: job.counts(task.pubs))
        if self.journal.save_counts(record, counts) != record.result:
            raise CheckpointError(f"{lost}, and job {job.id} now has other counts; restore it")
        return counts

    def _job(self, record: JobRecord) -> Job:
        job = self._jobs.get(record.tag)
        if job is None:
            known = record.job
            assert known is not None
            job = self._service.ask(f"job {known}", lambda: self.connection.job(known))
            self._jobs[record.tag] = job
        return job


def _part_seed(seed: int, part: int) -> int:
    """Return the seed of one job of a key: the key's own for the first."""
    if not part:
        return seed
    return int(np.random.SeedSequence([seed, part]).generate_state(1)[0] >> 2)
