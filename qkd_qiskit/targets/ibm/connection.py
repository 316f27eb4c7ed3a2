"""IBM Quantum's Runtime as a connection: sampler, sessions and jobs of the client.

Jobs go through the client's executor-based `Sampler`. A device snapshot such as ``fake_torino``
takes the same way through the client's local testing mode, without an account: its jobs live in
this process and cost nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import TargetError
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.account import (
    instances_of,
    is_emulator,
    no_fractional_gates,
    plan_of,
    real_backend,
)
from qkd_qiskit.targets.ibm.allowance import Allowance, read_allowance
from qkd_qiskit.targets.ibm.client import ANSWER_LIMIT_S, call_client
from qkd_qiskit.targets.ibm.client_internals import instance_of, known_session
from qkd_qiskit.targets.ibm.isa_check import check_pubs
from qkd_qiskit.targets.ibm.job_plan import Pub, executed_shots
from qkd_qiskit.targets.ibm.protocols import Job, JobState
from qkd_qiskit.targets.ibm.retry import RetryPolicy
from qkd_qiskit.targets.ibm.service_errors import ServiceError, scrub
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits
from qkd_qiskit.targets.ibm.usage import seconds_of
from qkd_qiskit.targets.ibm.usage_model import device_timing, job_seconds
from qkd_qiskit.targets.sampling import count_outcomes
from qkd_qiskit.targets.snapshots import fake_backend

__all__ = ["RuntimeConnection", "connect", "real_backend"]

logger = logging.getLogger(__name__)
_STATES: dict[str, JobState] = {"DONE": "done", "ERROR": "failed", "CANCELLED": "cancelled"}
_RESULT_TIMEOUT_S = 120.0
REHEARSED = "rehearsed_limits"
"""Key of an instance's usage under which a rehearsal tells the limits that it enforces."""
_BELIEVED_MISSING = 3
"""Answers in a row that a session is not there: one that is believed too soon stays open."""


def connect(
    device: Any, *, options: RuntimeSpec | None = None, policy: RetryPolicy | None = None
) -> RuntimeConnection:
    """Return a connection to a device.

    Args:
        device: Name of a device of the account such as ``ibm_torino``, of a snapshot such as
            ``fake_torino``, or a backend.
        options: Twirling, dynamical decoupling and limits; the mode is the runner's affair.
        policy: How long the service is waited for.

    Raises:
        TargetError: There is no account, it cannot be used, or there is no such device.
        SubmissionError: The service does not answer.
    """
    options = options or RuntimeSpec()
    if isinstance(device, str):
        local = device.startswith("fake_")
        device = (
            fake_backend(device)
            if local
            else real_backend(device, policy=policy, fractional=options.fractional)
        )
    if options.fractional and not {"rx", "rzz"} & set(device.target.operation_names):
        raise no_fractional_gates(device.name)
    return RuntimeConnection(device, options=options)


class RuntimeConnection:
    """A device of IBM Quantum, or a snapshot of one; see `protocols.Connection`."""

    def __init__(self, backend: Any, *, options: RuntimeSpec) -> None:
        self.backend, self.options = backend, options
        self.name: str = backend.name
        self.account: Any = getattr(backend, "service", None)
        """The client's service; None in local testing mode."""
        self.local = self.account is None
        self.identity = identity_of(self.name, local=self.local, options=options)
        self._session: Any = None

    def check(self, pubs: Sequence[Pub]) -> None:
        """Check width, gates and angles; see isa_check.py."""
        check_pubs(pubs, self.backend.target, name=self.name)

    def check_status(self) -> None:
        """Check that the device takes jobs.

        Raises:
            TargetError: It does not; the message has what the service says of it.
            ServiceError: The service failed.
        """
        if self.local:
            return
        status = call_client(self.backend.status)
        if not status.operational:
            raise TargetError(
                f"{self.name} takes no jobs now (status {status.status_msg!r}); try again later, "
                "or give another device"
            )
        if status.status_msg != "active":
            logger.warning("%s has status %r: jobs may wait", self.name, status.status_msg)
        if call_client(self.account.usage).get("usage_limit_reached"):
            logger.warning(
                "%s: the instance has used up its QPU time; jobs wait until it has more", self.name
            )

    def service_limits(self) -> ServiceLimits:
        """Return how many jobs the account may create; a rehearsal tells its own."""
        if self.local:
            return UNLIMITED
        if is_emulator():
            return ServiceLimits(**call_client(self.account.usage).get(REHEARSED, {}))
        return ServiceLimits.of_plan(plan_of(self.account, self.backend))

    def allowance(self) -> Allowance:
        """Return what the instance has left of its QPU seconds."""
        return Allowance() if self.local else read_allowance(call_client(self.account.usage))

    def estimate(self, pubs: Sequence[Pub]) -> float:
        """Return QPU seconds after the model of usage_model.py; 0 in local testing mode."""
        if self.local:
            return 0.0
        loads = [
            (
                len(pub.values) * executed_shots(pub.shots, twirled=self.options.twirled),
                float(pub.circuit.estimate_duration(self.backend.target, unit="s")),
            )
            for pub in pubs
        ]
        return job_seconds(loads, timing=device_timing(self.backend))

    def submit(self, pubs: Sequence[Pub], *, tag: str, group: str | None, seed: int | None) -> Job:
        """Send a job, into the session where one is open; `group` is a tag that others share."""
        from qiskit_ibm_runtime.executor_sampler import Sampler

        mode = self.backend if self._session is None else self._session
        options = self._sampler_options(tags=[tag, *([group] if group else [])], seed=seed)
        sent = [part for pub in pubs for part in _client_pubs(pub)]
        try:
            job = call_client(lambda: Sampler(mode=mode, options=options).run(sent))
        except ServiceError as failure:
            text = str(failure).lower()
            closed = failure.kind == "refused" and "session" in text and "closed" in text
            given = ServiceError("closed", str(failure)) if closed else failure
        else:
            return _ClientJob(job, local=self.local)
        raise given

    def find(self, tag: str) -> list[Job]:
        """Return the jobs with this tag, the oldest of each instance of the account first."""
        # The client goes on in the instance that was asked last.
        own_last = sorted(instances_of(self.account), key=self._is_own)
        return [
            _ClientJob(job, local=False)
            for instance in own_last
            for job in reversed(self._tagged(tag, instance))
        ]

    def _tagged(self, tag: str, instance: str | None) -> list[Any]:
        try:
            return list(
                call_client(
                    lambda: self.account.jobs(instance=instance, job_tags=[tag], limit=None)
                )
            )
        except ServiceError as failure:
            if failure.kind != "unauthorized" or self._is_own(instance):
                raise
            return []  # where nothing may be sent, nothing was

    def _is_own(self, instance: str | None) -> bool:
        return instance in (None, instance_of(self.backend))

    def job(self, job_id: str) -> Job:
        """Return the job with this id."""
        return _ClientJob(call_client(lambda: self.account.job(job_id)), local=False)

    def has_sessions(self) -> bool:
        """Return whether the plan of its instance has sessions: the Open Plan has batches only."""
        return self.local or plan_of(self.account, self.backend) != "open"

    def open_session(self, mode: Mode) -> str | None:
        """Open a session or batch and return its id; None in local testing mode."""
        from qiskit_ibm_runtime import Batch, Session

        if mode == "session" and not self.has_sessions():
            raise ServiceError("no_sessions", "the plan of the instance is Open")
        kind, limit = (Session if mode == "session" else Batch), self.options.session_max_time
        try:
            self._session = call_client(lambda: kind(backend=self.backend, max_time=limit))
        except ServiceError as failure:
            refused = failure.kind in ("refused", "unauthorized")
            none = refused and "plan" in str(failure).lower()
            given = ServiceError("no_sessions", str(failure)) if none else failure
        else:
            opened: str | None = self._session.session_id
            return opened
        raise given

    def rejoin_session(self, session_id: str, mode: Mode) -> bool:
        """Continue a session of an earlier process; return whether it still takes jobs."""
        session = self._known_session(session_id, mode)
        self._session = session if self._accepts_jobs(session) else None
        return self._session is not None

    def session_open(self) -> bool:
        """Return whether the session takes jobs."""
        return self._accepts_jobs(self._session)

    def session_usage(self, session_id: str) -> float | None:
        """Return the QPU seconds that a session was billed for, waits between its jobs included."""
        if self.local:
            return 0.0
        session = self._known_session(session_id, "session")
        usage = (call_client(session.details) or {}).get("usage_time")
        return seconds_of(usage, of=f"session {session_id}")

    def _known_session(self, session_id: str, mode: Mode) -> Any:
        from qiskit_ibm_runtime import Batch, Session

        kind = Session if mode == "session" else Batch
        return known_session(kind, session_id, backend=self.backend)

    def _accepts_jobs(self, session: Any) -> bool:
        if session is None or self.local:
            return session is not None and session is self._session
        for _ in range(_BELIEVED_MISSING):
            try:
                return bool((call_client(session.details) or {}).get("accepting_jobs"))
            except ServiceError as failure:
                if failure.kind != "missing":
                    raise
        return False

    def close_session(self) -> None:
        """Let the session take no more jobs."""
        if self._session is None:
            return
        call_client(self._session.close)
        # The client takes a 404 for a session that is closed.
        if not self.local and self._accepts_jobs(self._session):
            raise ServiceError("server", "the session still takes jobs")
        self._session = None

    def _sampler_options(self, *, tags: list[str], seed: int | None) -> dict[str, Any]:
        spec = self.options
        options: dict[str, Any] = {
            "twirling": {"enable_gates": spec.twirl_gates, "enable_measure": spec.twirl_measure},
            "environment": {"job_tags": tags},
        }
        if spec.dynamical_decoupling != "none":
            options["dynamical_decoupling"] = {
                "enable": True,
                "sequence_type": spec.dynamical_decoupling,
            }
        if spec.max_execution_time is not None:
            options["max_execution_time"] = spec.max_execution_time
        if seed is not None and self.local:
            options["simulator"] = {"seed_simulator": seed}
        elif seed is not None and is_emulator():
            options["environment"]["job_tags"].append(f"seed:{seed}")
        return options


def identity_of(name: str, *, local: bool, options: RuntimeSpec) -> str:
    """Return what tells a device, its place and the options that change counts from others."""
    place = "local" if local else "rehearsal" if is_emulator() else "device"
    return "/".join(
        [
            name,
            place,
            f"gates={options.twirl_gates}",
            f"measure={options.twirl_measure}",
            f"decoupling={options.dynamical_decoupling}",
        ]
    )


class _ClientJob:
    """A job of the client; see `protocols.Job`."""

    def __init__(self, job: Any, *, local: bool) -> None:
        self._job, self._local = job, local
        self.id: str = job.job_id()
        self.tags: tuple[str, ...] = tuple(getattr(job, "tags", None) or ())

    def state(self) -> JobState:
        if self._local:
            return "done"  # `counts` waits for it
        return _STATES.get(call_client(self._job.status), "waiting")

    def counts(self, pubs: Sequence[Pub]) -> list[NDArray[np.int64]]:
        limit = {} if self._local else {"timeout": _RESULT_TIMEOUT_S}

        def read() -> list[NDArray[np.int64]]:
            results, counts = list(self._job.result(**limit)), []
            if len(results) != sum(map(_pieces, pubs)):
                text = f"the result has {len(results)} parts, not those of {len(pubs)} PUBs"
                raise ServiceError("server", text)
            for pub in pubs:
                own, results = results[: _pieces(pub)], results[_pieces(pub) :]
                counts.append(np.concatenate([_counts(result, pub) for result in own]))
            return counts

        # A simulator in this process takes as long as it takes.
        return call_client(read, limit_s=None if self._local else ANSWER_LIMIT_S)

    def reason(self) -> tuple[str, bool]:
        from qiskit.providers import JobError
        from qiskit_ibm_runtime.exceptions import (
            RuntimeInvalidStateError,
            RuntimeJobMaxTimeoutError,
        )

        def read() -> tuple[str, bool]:
            try:
                self._job.result(timeout=_RESULT_TIMEOUT_S)
            except RuntimeJobMaxTimeoutError:
                return "it ran longer than runtime.max_execution_time", True
            except (JobError, RuntimeInvalidStateError) as error:
                return scrub(str(error.message)), False
            return "no reason given", False

        return call_client(read)

    def usage(self) -> float | None:
        usage = (call_client(self._job.metrics) or {}).get("usage") or {}
        if not isinstance(usage, dict):
            return seconds_of(usage, of=f"job {self.id}")
        if usage.get("status", "pending") == "pending":
            return None
        seconds = usage.get("qpu_charge_time_seconds", usage.get("quantum_seconds"))
        return seconds_of(seconds, of=f"job {self.id}")

    def usage_so_far(self) -> float | None:
        if "partial" not in signature(self._job.usage).parameters:
            return None  # a client before qiskit-ibm-runtime 0.51
        return seconds_of(call_client(lambda: self._job.usage(partial=True)), of=f"job {self.id}")

    def cancel(self) -> None:
        call_client(self._job.cancel)


def _client_pubs(pub: Pub) -> list[tuple[Any, ...]]:
    """Return what the client is given: one PUB, or one for each row of a circuit without angles.

    A simulator would run a circuit without parameters once, whatever the rows.
    """
    if not pub.circuit.num_parameters:
        return [(pub.circuit, None, pub.shots)] * len(pub.values)
    return [(pub.circuit, pub.live, pub.shots)]


def _pieces(pub: Pub) -> int:
    return 1 if pub.circuit.num_parameters else len(pub.values)


def _counts(result: Any, pub: Pub) -> NDArray[np.int64]:
    return count_outcomes(result.data[pub.circuit.cregs[0].name])
