"""Jobs on a device, each exactly once, whatever fails in between.

A job's life is written down before each step (see journal.py), so that the next process knows what
the last one was about to do. Of a job that was meant and has no id, the service is asked by its tag
before anything is sent again; of one that has an id, its counts are fetched; counts on the disk are
read from there. Nothing here knows the service itself, only `Connection`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import CheckpointError, InputError, SubmissionError
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.budget import Budget
from qkd_qiskit.targets.ibm.job_plan import (
    Limits,
    PlannedJob,
    Pub,
    counts_fault,
    cut_jobs,
)
from qkd_qiskit.targets.ibm.journal import JobRecord, Journal, check_key
from qkd_qiskit.targets.ibm.pacing import JobPacing
from qkd_qiskit.targets.ibm.protocols import Connection, Job, JobState
from qkd_qiskit.targets.ibm.retry import Retries, RetryPolicy
from qkd_qiskit.targets.ibm.run_jobs import RunJobs
from qkd_qiskit.targets.ibm.service_errors import ServiceError
from qkd_qiskit.targets.ibm.sessions import SessionKeeper
from qkd_qiskit.targets.ibm.usage import Usage

logger = logging.getLogger(__name__)
Counts = list[NDArray[np.int64]]


class Runner:
    """Submits jobs to one device and collects their counts; use it in a `with` statement."""

    def __init__(
        self,
        connection: Connection,
        *,
        journal: Journal,
        options: RuntimeSpec | None = None,
        policy: RetryPolicy | None = None,
        estimate: Callable[[Sequence[Pub]], float] | None = None,
        max_qpu_seconds: float | None = None,
        run_jobs: RunJobs | None = None,
        resume_hint: str = "run the same command again to go on",
        budget_hint: str = "raise max_qpu_seconds to go on",
    ) -> None:
        """Take a device and the journal of a run.

        Args:
            connection: The device; `runtime.connect` gives one.
            journal: What has happened so far, and where what happens now is written.
            options: Mode, twirling and limits.
            policy: How long the service is waited for.
            estimate: QPU seconds expected of a job with these PUBs; default: the connection's.
            max_qpu_seconds: QPU seconds that all jobs of the journal together may use, with what
                closed sessions cost beyond them; a job that is expected to pass them is not sent.
            run_jobs: Tags of the jobs, and what the service has that the journal does not know;
                default: tags at random.
            resume_hint: What a user does to continue, for messages.
            budget_hint: What a user does to allow more QPU seconds.

        Raises:
            InputError: Max_qpu_seconds is not accepted.
        """
        self.connection, self.journal = connection, journal
        self.options = options or RuntimeSpec()
        self.limits = Limits(max_executions=self.options.max_executions)
        self.policy = policy or RetryPolicy()
        self.estimate = estimate or connection.estimate
        self._budget = Budget(max_qpu_seconds, journal=journal, hint=budget_hint)
        self.resume_hint = resume_hint
        self._retries = Retries(connection.name, policy=self.policy, resume_hint=resume_hint)
        self._session = SessionKeeper(
            connection, journal=journal, retries=self._retries, mode=self.options.mode
        )
        self._pacing = JobPacing(
            connection,
            journal=journal,
            retries=self._retries,
            session=self._session,
            job_of=self._job,
        )
        self._usage = Usage(connection, journal=journal, retries=self._retries)
        self._run_jobs = run_jobs or RunJobs(
            "", journal=journal, begun=False, adopt=False, adopt_hint=""
        )
        self._planned: dict[str, list[PlannedJob]] = {}
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
            key: Name of what the jobs are for, the same in every process of the run.
            pubs: What is sent; the same as in every process before.
            seed: Seed of a simulator's shots; a quantum computer has none.

        Raises:
            CheckpointError: The key stands for other PUBs in the journal.
            TargetError: The device cannot run the PUBs.
            BudgetError: The next job would pass `max_qpu_seconds`.
            SubmissionError: The service failed; what was done is kept.
        """
        check_key(key)
        if key not in self._planned:
            self._planned[key] = self._cut(key, list(pubs), seed)
        for planned in self._planned[key]:
            record = self.journal.latest(planned.key, planned.part)
            if record is None or record.state in ("failed", "abandoned"):
                self._send(planned)
            elif record.state == "intended":
                self._post(record, planned, look_first=True)

    def collect(self, key: str) -> Counts:
        """Return the counts (rows, 2**n) of each PUB of a submitted key, little-endian.

        Raises:
            SubmissionError: As `submit`; or a job failed, or was cancelled.
        """
        if key not in self._planned:
            raise InputError(f"nothing was submitted as {key!r}; submit it first")
        pieces: dict[int, Counts] = {}
        for planned in self._planned[key]:
            for (index, _, _), rows in zip(planned.plan.slices, self._finish(planned), strict=True):
                pieces.setdefault(index, []).append(rows)
        del self._planned[key]
        return [np.concatenate(pieces[index]) for index in sorted(pieces)]

    def run(self, key: str, pubs: Sequence[Pub], *, seed: int | None = None) -> Counts:
        """Return the counts of PUBs: `submit`, then `collect`."""
        self.submit(key, pubs, seed=seed)
        return self.collect(key)

    def settle(self) -> None:
        """Request the QPU seconds of jobs and sessions that are not known yet."""
        self._usage.settle()

    def _cut(self, key: str, pubs: list[Pub], seed: int | None) -> list[PlannedJob]:
        twirled, receiver = self.options.twirled, self.connection.identity
        jobs = cut_jobs(
            key, pubs, limits=self.limits, twirled=twirled, receiver=receiver, seed=seed
        )
        for job in jobs:
            record = self.journal.latest(key, job.part)
            if record is not None and (record.digest, record.parts) != (job.digest, job.parts):
                raise CheckpointError(
                    f"{self.journal.path} holds other circuits, values or options, or another "
                    f"device, under {key!r}; go on with those of that run, and its versions, or "
                    "begin in a new folder"
                )
        return jobs

    def _send(self, planned: PlannedJob) -> None:
        """Record what will be sent, and send it, unless it is one that is adopted."""
        if not self.connection.local:
            self._run_jobs.check(self._find)
        last = self.journal.latest(planned.key, planned.part)
        attempt = 0 if last is None else last.attempt + 1
        tag = self._run_jobs.tag(planned.key, planned.part, attempt, digest=planned.digest)
        adopted = self._run_jobs.take(tag)
        if not adopted:
            self._check_sendable(planned)
        expected = self.estimate(planned.pubs)
        if not adopted:
            self._budget.check(expected)
        record = JobRecord(
            key=planned.key,
            part=planned.part,
            parts=planned.parts,
            attempt=attempt,
            tag=tag,
            digest=planned.digest,
            pubs=len(planned.pubs),
            circuits=planned.plan.circuits,
            shots=planned.plan.shots,
            executions=planned.plan.executions,
            estimate_s=expected,
            options=self.options.describe(),
        )
        self.journal.intend(record)
        if not adopted:
            self._post(record, planned, look_first=False)
            return
        self._accept(record, adopted[0])
        for second in adopted[1:]:
            self._drop(second)

    def _check_sendable(self, planned: PlannedJob) -> None:
        if not self._available:
            self._retries.call("the device's status", self.connection.check_status)
            self._available = True
        self.connection.check(planned.pubs)

    def _post(self, record: JobRecord, planned: PlannedJob, *, look_first: bool) -> None:
        """Send one attempt, unless the service has it."""
        for number in count(1):
            job = self._look_up(record) if look_first else None
            if job is None:
                self._budget.check(record.estimate_s)
                self._pacing.before_job()
                self._session.enter()
                if look_first:
                    self._sent_again.add(record.tag)
                job = failure = None
                try:
                    job = self.connection.submit(
                        planned.pubs, tag=record.tag, group=self._run_jobs.group, seed=planned.seed
                    )
                except ServiceError as caught:
                    failure = caught
                self._pacing.answered()
            if job is not None:
                self._accept(record, job)
                return
            assert failure is not None
            look_first = True  # it may have been accepted before the answer was lost
            if failure.kind == "full" and self._pacing.refused():
                continue
            if failure.kind in ("refused", "closed"):
                if self._session.lost():
                    self._session.record_closed()
                    failure = ServiceError("busy", str(failure))
                elif self._look_up(record) is not None:
                    continue
                else:
                    self.journal.append("abandoned", tag=record.tag, reason=str(failure))
            self._retries.wait_or_stop(f"submitting {planned.key}", failure, number)

    def _accept(self, record: JobRecord, job: Job) -> None:
        """Record that the service has a job."""
        self.journal.append("submitted", tag=record.tag, job=job.id)
        self._jobs[record.tag] = job

    def _look_up(self, record: JobRecord) -> Job | None:
        """Return the job with a record's tag, if the service has one."""
        if self.connection.local:
            return None
        jobs = self._jobs_of(record)
        if not jobs:
            time.sleep(self.policy.settle_s)
            jobs = self._jobs_of(record)
        for second in jobs[1:]:
            self._drop(second)
        return jobs[0] if jobs else None

    def _jobs_of(self, record: JobRecord) -> list[Job]:
        return self._find(record.tag)

    def _find(self, tag: str) -> list[Job]:
        return self._retries.call("looking for jobs", lambda: self.connection.find(tag))

    def _drop_late(self, record: JobRecord) -> None:
        """Stop what the service accepted of an earlier try, after the job was sent again."""
        if record.tag not in self._sent_again or self.connection.local:
            return
        for second in self._jobs_of(record):
            if second.id != record.job:
                self._drop(second)
        self._sent_again.discard(record.tag)

    def _drop(self, job: Job) -> None:
        """Stop a second job of one tag, which the service accepted without an answer."""
        if job.id in self.journal.duplicates:
            return
        logger.warning("job %s was accepted twice; the second is cancelled", job.id)
        try:
            job.cancel()
        except ServiceError as failure:
            logger.warning("job %s could not be cancelled: %s", job.id, failure)
        self.journal.append("duplicate", job=job.id, usage_s=self._usage.of_job(job))

    def _finish(self, planned: PlannedJob) -> Counts:
        """Bring a job to its end, as often as that takes."""
        while True:
            record = self.journal.latest(planned.key, planned.part)
            assert record is not None  # `submit` came before
            if record.state == "finished":
                counts = self.journal.load_counts(record)
                return self._fetch_again(record, planned) if counts is None else counts
            if record.state == "submitted":
                self._await(record, planned)
            elif record.state == "intended":
                self._post(record, planned, look_first=True)
            else:
                self._send(planned)

    def _await(self, record: JobRecord, planned: PlannedJob) -> None:
        """Wait for a job and record how it ended."""
        if self.connection.local and record.tag not in self._jobs:
            reason = "the process that simulated it has ended"
            self.journal.append("failed", tag=record.tag, reason=reason, usage_s=0.0)
            return
        job = self._job(record)
        state = self._poll(job, record)
        self._drop_late(record)
        if state == "done":
            counts = self._counts_of(job, planned)
            digest = self.journal.save_counts(record, counts)
            usage = self._usage.of_job(job)
            self.journal.append("finished", tag=record.tag, result=digest, usage_s=usage)
            self._jobs.pop(record.tag, None)
            self._failures.pop((planned.key, planned.part), None)
            return
        reason, final = ("cancelled", False)
        if state == "failed":
            reason, final = self._retries.call(f"job {job.id}", job.reason)
        usage = self._usage.of_job(job)
        self.journal.append("failed", tag=record.tag, reason=reason, usage_s=usage)
        self._jobs.pop(record.tag, None)
        self._budget.check_stopped(record)
        stopped = state == "cancelled" and not self._session.has_ended(record.session)
        failures = self._failures.get((planned.key, planned.part), 0) + 1
        self._failures[planned.key, planned.part] = failures
        if stopped or final or failures >= self.policy.attempts:
            times = "" if failures == 1 else f" {failures} times"
            what = "was cancelled" if stopped else f"failed{times}: {reason}"
            raise SubmissionError(f"job {job.id} ({planned.key}) {what}; {self.resume_hint}")
        logger.warning("job %s (%s) failed and is sent again: %s", job.id, planned.key, reason)
        time.sleep(self.policy.wait_s(failures))

    def _poll(self, job: Job, record: JobRecord) -> JobState:
        wait, until = self.policy.poll_s, time.monotonic() + self.policy.job_timeout_s
        while True:
            state = self._retries.call(f"state of job {job.id}", job.state)
            if state != "waiting":
                return state
            self._budget.watch(record, job)
            if time.monotonic() > until:
                raise SubmissionError(
                    f"job {job.id} ({record.key}) has not ended after "
                    f"{self.policy.job_timeout_s:g} s; {self.resume_hint}, nothing is sent twice"
                )
            time.sleep(wait)
            wait = self.policy.next_poll_s(wait)

    def _fetch_again(self, record: JobRecord, planned: PlannedJob) -> Counts:
        """Fetch the counts of a finished job whose file is missing or damaged."""
        path = self.journal.result_path(record)
        lost = f"{path} is missing or damaged"
        if self.connection.local:
            raise CheckpointError(
                f"{lost}, and a simulated job cannot be fetched again; restore it"
            )
        job = self._job(record)
        counts = self._counts_of(job, planned)
        if self.journal.save_counts(record, counts) != record.result:
            raise CheckpointError(f"{lost}, and job {job.id} now has other counts; restore it")
        return counts

    def _counts_of(self, job: Job, planned: PlannedJob) -> Counts:
        """Return a job's counts; what is not what was sent is requested again, and never kept."""

        def read() -> Counts:
            counts, pubs = job.counts(planned.pubs), planned.pubs
            # Twirled shots are rounded up, but a simulator may not twirl.
            shots = {planned.plan.shots, *((pubs[0].shots,) if self.connection.local else ())}
            fault = counts_fault(counts, pubs, shots=shots)
            if fault is not None:
                raise ServiceError("server", fault)
            return counts

        return self._retries.call(f"results of job {job.id}", read)

    def _job(self, record: JobRecord) -> Job:
        job = self._jobs.get(record.tag)
        if job is None:
            known = record.job
            assert known is not None
            job = self._retries.call(f"job {known}", lambda: self.connection.job(known))
            self._jobs[record.tag] = job
        return job
