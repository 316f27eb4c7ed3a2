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

from qkd_qiskit.errors import NoAccountError, TargetError
from qkd_qiskit.hardware.asking import Asking, Patience
from qkd_qiskit.hardware.faults import Fault, FaultKind, hide, scrub

logger = logging.getLogger(__name__)
Answer = TypeVar("Answer")

URL = "QKD_RUNTIME_URL"
_IAM = "https://iam.cloud.ibm.com"
_CLIENT = "qiskit_ibm_runtime"
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
    account = service.ask("opening the account", lambda: ask_client(open_account))

    def device() -> Any:
        from qiskit.providers.exceptions import QiskitBackendNotFoundError

        try:
            backend = account.backend(name)
        except QiskitBackendNotFoundError:
            return None
        backend.target  # noqa: B018 - loads the calibration, which may fail too
        return backend

    backend = service.ask("reading the device", lambda: ask_client(device))
    if backend is None:
        names = service.ask("listing the devices", lambda: _device_names(account))
        if name in names:  # it could not be read before
            backend = service.ask("reading the device", lambda: ask_client(device))
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
    _check_token()
    refused: TargetError | None = None
    try:
        account = QiskitRuntimeService(**_rehearsal())
    except AccountNotFoundError:
        refused = NoAccountError(
            "a real device needs an IBM Quantum account and none is saved here; save one with "
            "QiskitRuntimeService.save_account(...), or set QISKIT_IBM_TOKEN and "
            "QISKIT_IBM_INSTANCE"
        )
    except InvalidAccountError as error:
        if fault_of(error).kind in ("busy", "server"):
            raise
        refused = TargetError(
            f"the IBM Quantum account cannot be used ({type(error).__name__}); check its token "
            "and instance, and the network"
        )
    except IBMInputValueError:
        refused = TargetError(
            "the IBM Quantum account has no access to the instance that is saved or set in "
            "QISKIT_IBM_INSTANCE; give one of its own"
        )
    if refused is not None:
        raise refused
    active = account.active_account() if hasattr(account, "active_account") else None
    hide(*((active or {}).get(key) for key in ("token", "instance")))
    for client in _clients(account):
        _leave_retries_to_us(client)
    return account


def _check_token() -> None:
    """Check that the account's API key gives an access token, before the client is asked.

    The client answers a failure by waiting for 60 s, and by a list of no devices.

    Raises:
        TargetError: the key is refused.
        Fault: the service that gives tokens failed.
    """
    from ibm_cloud_sdk_core import IAMTokenManager

    token = os.environ.get("QISKIT_IBM_TOKEN") or _saved_token()
    if token is None:
        return
    hide(token)
    try:
        IAMTokenManager(token, url=os.environ.get("IAM_URL") or _IAM).get_token()
    except Exception as error:
        fault = _no_token(error)
    else:
        return
    if fault.kind != "unauthorized":
        raise fault
    raise TargetError(f"{fault}; check the one that is saved, or set in QISKIT_IBM_TOKEN")


def _saved_token() -> str | None:
    """Return the API key of the saved account, where it is clear which that is."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    saved = list(QiskitRuntimeService.saved_accounts().values())
    chosen = saved if len(saved) == 1 else [one for one in saved if one.get("is_default_account")]
    plain = [
        one
        for one in chosen
        if not (one.get("proxies") or one.get("private_endpoint")) and one.get("verify", True)
    ]
    return plain[0].get("token") if len(plain) == 1 else None


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
    for link in _chain(error):
        if str(link).startswith(_RAW_KEY):
            return _no_token(error)
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            text = f"the service answered {status}{_said(response)}"
            return Fault(_kind_of(status), text, retry_after=_retry_after(response))
    kind = _kind_by_type(error)
    if kind == "network":
        return Fault(kind, f"no answer ({type(error).__name__}: {_innermost(error)})")
    return Fault(kind, f"{type(error).__name__}: {error}")


def _said(response: Any) -> str:
    """Return what an answer gives as reason, in brackets, or nothing."""
    try:
        content = response.json()
        errors = content.get("errors") or [content["error"]]
        said = f" ({errors[0]['message']} Code {errors[0]['code']}.)"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return said


def _innermost(error: BaseException) -> str:
    *_, last = _chain(error)
    return f"{type(last).__name__}: {last}"


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
    if status in (408, 409, 425, 429):
        return "busy"
    if status in (401, 403):
        return "unauthorized"
    if status == 404:
        return "missing"
    return "server" if status >= 500 else "refused"


def _kind_by_type(error: BaseException) -> FaultKind:
    from qiskit.providers import JobError
    from qiskit.providers.exceptions import QiskitBackendNotFoundError
    from qiskit_ibm_runtime.exceptions import (
        IBMError,
        IBMInputValueError,
        IBMNotAuthorizedError,
        RuntimeJobNotFound,
    )

    if isinstance(error, IBMNotAuthorizedError):
        return "unauthorized"
    if isinstance(error, (RuntimeJobNotFound, QiskitBackendNotFoundError)):
        return "missing"
    if isinstance(error, IBMInputValueError):
        return "refused"
    # An answer that cannot be read ends as one of these, far from where it came.
    if isinstance(error, (ValueError, KeyError, TypeError, AttributeError, JobError)):
        return "server"
    return "network" if isinstance(error, (IBMError, OSError)) else "refused"


def _retry_after(response: Any) -> float | None:
    text = response.headers.get("Retry-After")
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
    def ask() -> list[str]:
        # `account.backends()` says nothing of a service that fails: it returns no devices.
        listed = (client.list_backends(True) for client in _clients(account))
        names = {device["name"] for devices in listed for device in devices}
        return sorted(names or {backend.name for backend in account.backends()})

    try:
        return ask_client(ask)
    except Fault as fault:
        if fault.kind != "unauthorized":
            raise
        reason = str(fault)
    raise TargetError(
        f"the IBM Quantum account may not use its instance ({reason}); check the one that is saved "
        "or set in QISKIT_IBM_INSTANCE"
    )


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
        if not record.name.startswith(_CLIENT):  # a handler that others share, our log among them
            return True
        record.msg, record.args = scrub(record.getMessage()), ()
        record.exc_info = record.exc_text = None
        if record.levelno >= logging.ERROR:
            return True
        level = logging.INFO if record.levelno >= logging.WARNING else logging.DEBUG
        logger.log(level, "the client says: %s", record.msg)
        return False


_SCRUB = _Scrub()


def _quiet_client() -> None:
    for handler in logging.getLogger(_CLIENT).handlers:
        handler.addFilter(_SCRUB)
