"""A device that the account has no more: jobs that it has run are read, nothing is sent."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from qkd_qiskit.errors import TargetError
from qkd_qiskit.recipe import Mode, RuntimeSpec
from qkd_qiskit.targets.ibm.account import find_device
from qkd_qiskit.targets.ibm.connection import RuntimeConnection, connect, identity_of
from qkd_qiskit.targets.ibm.job_plan import Pub
from qkd_qiskit.targets.ibm.retry import RetryPolicy
from qkd_qiskit.targets.ibm.service_limits import UNLIMITED, ServiceLimits

logger = logging.getLogger(__name__)


def reconnect(
    name: str, *, options: RuntimeSpec, policy: RetryPolicy | None = None
) -> RuntimeConnection:
    """Return a connection to a device that jobs were sent to, whether or not it still exists.

    Raises:
        TargetError: There is no account, or it cannot be used.
        SubmissionError: The service does not answer.
    """
    if name.startswith("fake_"):
        return connect(name, options=options, policy=policy)
    account, backend, _ = find_device(name, policy=policy, fractional=options.fractional)
    if backend is not None:
        return RuntimeConnection(backend, options=options)
    logger.warning("the account has %s no more: jobs that it has run are read", name)
    return RetiredConnection(name, account=account, options=options)


class RetiredConnection(RuntimeConnection):
    """The account alone; see `protocols.Connection`."""

    def __init__(self, name: str, *, account: Any, options: RuntimeSpec) -> None:
        """Take the device's name and the account that its jobs were sent from."""
        self.name, self.account, self.options = name, account, options
        self.backend, self.local, self._session = None, False, None
        self.identity = identity_of(name, local=False, options=options)

    def check_status(self) -> None:
        """Raise `TargetError`: it takes no jobs."""
        raise TargetError(
            f"the account has {self.name} no more: nothing can be sent to it, and what it has run "
            "is kept; give another device"
        )

    def service_limits(self) -> ServiceLimits:
        """Return none: nothing is sent."""
        return UNLIMITED

    def check(self, pubs: Sequence[Pub]) -> None:
        """Raise `TargetError`, as `check_status`."""
        self.check_status()

    def estimate(self, pubs: Sequence[Pub]) -> float:
        """Return 0: its times are not known any more, and nothing is sent."""
        return 0.0

    def has_sessions(self) -> bool:
        """Return False: none can be opened."""
        return False

    def rejoin_session(self, session_id: str, mode: Mode) -> bool:
        """Return False: a session ends with its device."""
        return False

    def session_usage(self, session_id: str) -> float | None:
        """Return None: the client asks for it by the device alone."""
        return None

    def _is_own(self, instance: str | None) -> bool:
        return instance is None
