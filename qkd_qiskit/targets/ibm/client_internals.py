"""What guards read of the Runtime client that it does not promise to keep, in one place.

Where a version of the client lacks a name, a warning says once what is no longer guarded.
"""

import logging
from typing import Any

logger = logging.getLogger(__name__)

RAW_KEY_WARNING = "Unable to retrieve IBM Cloud access token"
"""Beginning of the client's warning that it is about to send the API key itself."""
_READ_TIMEOUT_S = 120.0
_missing: set[str] = set()


def clients_of(account: Any) -> dict[str, Any]:
    """Return the client of each instance of an account."""
    clients: dict[str, Any] = _read(
        account, "_api_clients", {}, lost="only one instance of the account is looked at"
    )
    return clients


def instances_with_devices(account: Any) -> set[str] | None:
    """Return the instances that have listed their devices; None where it is not known."""
    listed = _read(
        account,
        "_backends_info_per_instance",
        None,
        lost="an instance that does not answer is taken for one without devices",
    )
    return None if listed is None else set(listed)


def instance_of(backend: Any) -> str | None:
    """Return the instance that a device's jobs go to; None where it is not known."""
    instance: str | None = _read(
        backend, "_instance", None, lost="the plan that pays for a device's jobs is not known"
    )
    return instance


def send_once(client: Any) -> None:
    """Make a client's transport send everything once, and wait for no answer for ever.

    It would send a job again after an answer of 500, whether or not it was accepted; the runner
    asks the service for the job's tag first.
    """
    from urllib3.util.retry import Retry

    transport = _read(client, "_session", None, lost=_RETRIES)
    if transport is None:
        return
    for adapter in transport.adapters.values():
        adapter.max_retries = Retry(total=0, read=False)
    if _read(transport, "_timeout", None, lost="an answer is waited for without end") is not None:
        transport._timeout = (10.0, _READ_TIMEOUT_S)


def known_session(kind: Any, session_id: str, *, backend: Any) -> Any:
    """Return a `Session` or `Batch` that was opened before, without asking the service."""
    session = kind(backend=backend, create_new=False)
    if not hasattr(session, "_session_id"):
        # The public way reads the whole device anew.
        return kind.from_id(session_id, service=backend.service)
    session._session_id = session_id
    return session


_RETRIES = "the client repeats requests itself, and may send a job twice"


def _read(owner: Any, name: str, default: Any, *, lost: str) -> Any:
    if hasattr(owner, name):
        return getattr(owner, name)
    if name not in _missing:
        _missing.add(name)
        logger.warning(
            "this version of qiskit-ibm-runtime has no %s.%s: %s; install a version that the "
            "package was tested with",
            type(owner).__name__,
            name,
            lost,
        )
    return default
