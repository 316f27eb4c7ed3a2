"""The IBM Quantum account and its devices, and every question that is put to the Runtime client.

Credentials are those that the client itself has saved, or its environment variables
QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE. They are never written or shown here: what the client
says, in errors, logs and warnings, is repeated without them. With QKD_RUNTIME_URL, an address on
this machine, the client talks to a rehearsal in place of IBM.
"""

import difflib
import ipaddress
import logging
import os
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qkd_qiskit.errors import TargetError
from qkd_qiskit.hardware.asking import Asking, Patience
from qkd_qiskit.hardware.faults import Fault, FaultKind, hide, scrub

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

URL = "QKD_RUNTIME_URL"
_RAW_KEY = "Unable to retrieve IBM Cloud access token"
_READ_TIMEOUT_S = 120.0


def real_backend(name: str, *, patience: Patience | None = None) -> Any:
    """Return a device of the user's account, such as ``ibm_torino``, with its calibration.

    Args:
        name: name of the device.
        patience: how long the service is waited for.

    Raises:
        TargetError: there is no account, it cannot be used, or it has no such device.
        SubmissionError: the service does not answer.
    """
    service = Asking(name, patience=patience or Patience(tries=4), go_on="try again later")
    account = service.ask("the account", lambda: ask_client(open_account))

    def device() -> Any:
        from qiskit.providers.exceptions import QiskitBackendNotFoundError

        try:
            backend = account.backend(name)
        except QiskitBackendNotFoundError:
            return None
        backend.target  # noqa: B018 - loads the calibration, which may fail too
        return backend

    backend = service.ask("the device", lambda: ask_client(device))
    if backend is None:
        names = service.ask("the devices", lambda: ask_client(lambda: _device_names(account)))
        if name in names:  # its configuration could not be read before
            backend = service.ask("the device", lambda: ask_client(device))
    if backend is None:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise TargetError(f"the account has no device {name!r}; it has {', '.join(near) or 'none'}")
    return backend


def open_account() -> Any:
    """Return a `QiskitRuntimeService` of the user's account, or of a rehearsal on this machine.

    Raises:
        TargetError: there is no account, it cannot be used, or the address is not on this machine.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError
    from qiskit_ibm_runtime.exceptions import IBMInputValueError

    _quiet_client()
    refused = None
    try:
        account = QiskitRuntimeService(**_rehearsal())
    except AccountNotFoundError:
        refused = (
            "a real device needs an IBM Quantum account and none is saved here; save one with "
            "QiskitRuntimeService.save_account(...), or set QISKIT_IBM_TOKEN and "
            "QISKIT_IBM_INSTANCE"
        )
    except InvalidAccountError as error:
        if fault_of(error).kind in ("busy", "server"):
            raise
        refused = (
            f"the IBM Quantum account cannot be used ({type(error).__name__}); check its token "
            "and instance, and the network"
        )
    except IBMInputValueError:
        refused = (
            "the IBM Quantum account has no access to the instance that is saved or set in "
            "QISKIT_IBM_INSTANCE; give one of its own"
        )
    if refused is not None:
        raise TargetError(refused)
    active = account.active_account() if hasattr(account, "active_account") else None
    hide(*((active or {}).get(key) for key in ("token", "instance")))
    for client in _clients(account):
        _leave_retries_to_us(client)
    return account


def ask_client(ask: Callable[[], Answer]) -> Answer:
    """Return what a question to the client gives; its warnings go to the log.

    Raises:
        Fault: the client failed; nothing of its own error, which may hold secrets, is kept.
        TargetError: raised by `ask` itself.
    """
    fault = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # The client would go on and send the API key itself.
        warnings.filterwarnings("error", message=_RAW_KEY)
        try:
            return ask()
        except (TargetError, Fault):
            raise
        except Exception as error:
            fault = fault_of(error)
        finally:
            for warning in caught:
                logger.info("the client warns: %s", scrub(str(warning.message)))
    raise fault


def fault_of(error: BaseException) -> Fault:
    """Return what an error of the client means, without its secrets.

    The client hides the answer of the service in the errors that it raises from; the status and the
    wait that was asked for are found there.
    """
    kind: FaultKind | None = None
    wait: float | None = None
    for link in _chain(error):
        if str(link).startswith(_RAW_KEY):
            return _no_token(error)
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None) or getattr(link, "status_code", None)
        if isinstance(status, int) and status > 0:
            kind = kind or _kind_of(status)
        wait = wait or _retry_after(response)
    return Fault(kind or _kind_by_type(error), f"{type(error).__name__}: {error}", retry_after=wait)


def _no_token(error: BaseException) -> Fault:
    """Return why there is no access token: a key that is refused, or a service that fails."""
    for link in _chain(error):
        status = getattr(link, "status_code", None)  # ibm_cloud_sdk_core.ApiException
        if status in (400, 401, 403):
            return Fault("unauthorized", "the token of the IBM Quantum account is not accepted")
        if status == 429:
            return Fault("busy", "the service that gives access tokens is busy")
    return Fault("network", "no access token could be had; the API key itself is never sent")


def _kind_of(status: int) -> FaultKind:
    if status == 429:
        return "busy"
    if status in (401, 403):
        return "unauthorized"
    if status == 404:
        return "missing"
    return "server" if status >= 500 else "refused"


def _kind_by_type(error: BaseException) -> FaultKind:
    from qiskit.providers import JobError
    from qiskit_ibm_runtime.exceptions import (
        IBMError,
        IBMInputValueError,
        IBMNotAuthorizedError,
        RuntimeJobNotFound,
    )

    if isinstance(error, IBMNotAuthorizedError):
        return "unauthorized"
    if isinstance(error, RuntimeJobNotFound):
        return "missing"
    if isinstance(error, IBMInputValueError):
        return "refused"
    # An answer that cannot be read ends as one of these, far from where it came.
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError, JobError)):
        return "server"
    return "network" if isinstance(error, (IBMError, OSError)) else "refused"


def _retry_after(response: Any) -> float | None:
    text = getattr(response, "headers", {}).get("Retry-After") if response is not None else None
    try:
        return None if text is None else max(0.0, float(text))
    except ValueError:  # a date
        return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _rehearsal() -> dict[str, Any]:
    """Return what makes the client talk to QKD_RUNTIME_URL, or nothing where it is not set."""
    url = os.environ.get(URL)
    if not url:
        return {}
    if not is_loopback(url):
        raise TargetError(
            f"{URL} is an address on another machine; accepted is one on this machine, such as "
            "http://127.0.0.1:8000, where a rehearsal runs; unset it to use IBM Quantum"
        )
    return {
        "channel": "ibm_quantum_platform",
        "token": os.environ.get("QISKIT_IBM_TOKEN"),
        "instance": os.environ.get("QISKIT_IBM_INSTANCE"),
        "url": url,
        "url_resolver": lambda url, *_: url,
    }


def is_rehearsal() -> bool:
    """Return whether the client talks to a rehearsal on this machine."""
    return bool(os.environ.get(URL))


def is_loopback(url: str) -> bool:
    """Return whether an address is on this machine."""
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _device_names(account: Any) -> list[str]:
    # `account.backends()` says nothing of a service that fails: it returns no devices.
    names = {
        device["name"] for client in _clients(account) for device in client.list_backends(True)
    }
    return sorted(names or {backend.name for backend in account.backends()})


def _clients(account: Any) -> list[Any]:
    return list(getattr(account, "_api_clients", {}).values())


def _leave_retries_to_us(client: Any) -> None:
    """Make the client's transport send everything once, and wait for no answer for ever.

    It would send a job again after an answer of 500, whether or not it was accepted; the runner
    looks first. These are private names: where a version lacks them, its own retries stay.
    """
    from urllib3.util.retry import Retry

    transport: Any = getattr(client, "_session", None)
    for adapter in getattr(transport, "adapters", {}).values():
        adapter.max_retries = Retry(total=0, read=False)
    if hasattr(transport, "_timeout"):
        transport._timeout = (10.0, _READ_TIMEOUT_S)


class _Scrub(logging.Filter):
    """Sends the client's warnings to our log, and lets only errors through, without secrets."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = scrub(record.getMessage()), ()
        record.exc_info = record.exc_text = None
        if record.levelno >= logging.ERROR:
            return True
        logger.info("the client says: %s", record.msg)
        return False


_SCRUB = _Scrub()


def _quiet_client() -> None:
    for handler in logging.getLogger("qiskit_ibm_runtime").handlers:
        handler.addFilter(_SCRUB)
