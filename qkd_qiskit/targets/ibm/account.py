"""The IBM Quantum account and its devices.

Credentials are those that the client itself has saved, or its environment variables
QISKIT_IBM_TOKEN and QISKIT_IBM_INSTANCE. They are never written or shown here: what the client
says, in errors, logs and warnings, is repeated without them. With QKD_RUNTIME_URL, an address on
this machine, the client talks to a rehearsal in place of IBM.
"""

import difflib
import functools
import ipaddress
import logging
import os
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from qkd_qiskit.errors import NoAccountError, TargetError
from qkd_qiskit.targets.ibm.client import (
    call_client,
    no_token,
    quiet_client,
    service_error_of,
)
from qkd_qiskit.targets.ibm.client_internals import (
    clients_of,
    instance_of,
    instances_with_devices,
    send_once,
)
from qkd_qiskit.targets.ibm.client_version import version_fault
from qkd_qiskit.targets.ibm.retry import Retries, RetryPolicy
from qkd_qiskit.targets.ibm.service_errors import ServiceError, hide

logger = logging.getLogger(__name__)
_warn_once = functools.cache(logger.warning)

URL = "QKD_RUNTIME_URL"
_IAM = "https://iam.cloud.ibm.com"


def real_backend(name: str, *, policy: RetryPolicy | None = None, fractional: bool = False) -> Any:
    """Return a device of the user's account, such as ``ibm_torino``, with its calibration.

    Args:
        name: Name of the device.
        policy: How long the service is waited for.
        fractional: Whether it is asked for with its gates of any angle.

    Raises:
        TargetError: There is no account, it cannot be used, or it has no such device.
        SubmissionError: The service does not answer.
    """
    account, backend, names = find_device(name, policy=policy, fractional=fractional)
    if backend is None:
        near = difflib.get_close_matches(name, names, n=3) or names
        raise TargetError(f"the account has no device {name!r}; it has {', '.join(near) or 'none'}")
    if len(instances_of(account)) > 1:
        retries = _retries(name, policy)
        logger.warning(
            "the account has several instances: jobs of %s go to the one of plan %s; to choose "
            "one, set QISKIT_IBM_INSTANCE or save it with the account",
            name,
            retries.call("reading its plan", lambda: plan_of(account, backend)) or "unknown",
        )
    return backend


def find_device(
    name: str, *, policy: RetryPolicy | None = None, fractional: bool = False
) -> tuple[Any, Any, list[str]]:
    """Return the account, a device of it, and the names of its devices where it has no such one.

    The device is None where the account has it not, or no more. Arguments are those of
    `real_backend`.

    Raises:
        TargetError: There is no account, or it cannot be used.
        SubmissionError: The service does not answer.
    """
    retries, names = _retries(name, policy), list[str]()
    account = retries.call("opening the account", lambda: call_client(open_account))

    def device() -> Any:
        from qiskit.providers.exceptions import QiskitBackendNotFoundError
        from qiskit_ibm_runtime.exceptions import IBMInputValueError

        try:
            backend = account.backend(
                name, **({"use_fractional_gates": True} if fractional else {})
            )
        except QiskitBackendNotFoundError:
            return None
        except IBMInputValueError:
            if not fractional:
                raise
            raise no_fractional_gates(name) from None
        if not _is_calibrated(backend.target):  # which is loaded here, and may fail too
            raise ServiceError("server", "the service told no calibration of it")
        return backend

    backend = retries.call("reading the device", lambda: call_client(device))
    if backend is None:
        names = retries.call("listing the devices", lambda: _device_names(account))
        if name in names:  # it could not be read before
            backend = retries.call("reading the device", lambda: call_client(device))
    return account, backend, names


def _is_calibrated(device: Any) -> bool:
    """Return whether a device's description says how long a measurement takes anywhere."""
    if "measure" not in getattr(device, "operation_names", ()):
        return True  # nothing is known of what it measures; the circuit's check says so
    return any(it is not None and it.duration is not None for it in device["measure"].values())


def no_fractional_gates(name: str) -> TargetError:
    """Return the error for a device that has no gates of any angle."""
    return TargetError(
        f"{name} has no fractional gates (rx and rzz of any angle); give a device that has, or "
        "leave --fractional out"
    )


def _retries(name: str, policy: RetryPolicy | None) -> Retries:
    return Retries(name, policy=policy or RetryPolicy(tries=4), resume_hint="try again later")


def instances_of(account: Any) -> list[str | None]:
    """Return the instances that an account sends jobs to; None alone for the only one."""
    return list(clients_of(account)) or [None]


def plan_of(account: Any, backend: Any) -> str | None:
    """Return the plan of a device's instance as the client tells it, in lower case.

    Raises:
        ServiceError: The service failed.
    """
    here = instance_of(backend)
    instances = call_client(account.instances)
    plans = [known.get("plan") for known in instances if known.get("crn") == here]
    return str(plans[0]).lower() if plans else None


def open_account() -> Any:
    """Return a `QiskitRuntimeService` of the user's account, or of a rehearsal on this machine.

    Raises:
        TargetError: There is no account, it cannot be used, or the address is not on this machine.
    """
    from qiskit_ibm_runtime import QiskitRuntimeService
    from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError
    from qiskit_ibm_runtime.exceptions import IBMInputValueError

    quiet_client()
    untested = version_fault()
    if untested is not None:
        _warn_once(untested)
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
        if service_error_of(error).kind in ("busy", "server"):
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
    for client in clients_of(account).values():
        send_once(client)
    _check_instances(account)
    return account


def _check_instances(account: Any) -> None:
    """Check that every instance has told its devices.

    The client takes one that failed for one without devices, and another's plan is billed.

    Raises:
        ServiceError: One has not, and may when it is asked again.
    """
    listed = instances_with_devices(account)
    for instance, client in clients_of(account).items():
        if not listed or instance in listed:
            continue
        try:
            call_client(partial(client.list_backends, True))
        except ServiceError as failure:
            if failure.kind != "unauthorized":
                raise
        else:
            raise ServiceError("server", "an instance of the account did not tell its devices")


def _check_token() -> None:
    """Check that the account's API key gives an access token, before the client is asked.

    The client answers a failure by waiting for 60 s, and by a list of no devices.

    Raises:
        TargetError: The key is refused.
        ServiceError: The service that gives tokens failed.
    """
    from ibm_cloud_sdk_core import IAMTokenManager

    token = os.environ.get("QISKIT_IBM_TOKEN") or _saved_token()
    if token is None:
        return
    hide(token)
    try:
        IAMTokenManager(token, url=os.environ.get("IAM_URL") or _IAM).get_token()
    except Exception as error:
        failure = no_token(error)
    else:
        return
    if failure.kind != "unauthorized":
        raise failure
    raise TargetError(f"{failure}; check the one that is saved, or set in QISKIT_IBM_TOKEN")


def _saved_token() -> str | None:
    """Return the API key of the saved account, where it is clear which that is."""
    from qiskit_ibm_runtime import QiskitRuntimeService

    saved = list(QiskitRuntimeService.saved_accounts().values())
    if len(saved) > 1:
        saved = [known for known in saved if known.get("is_default_account")]
    plain = [
        known
        for known in saved
        if not (known.get("proxies") or known.get("private_endpoint")) and known.get("verify", True)
    ]
    return plain[0].get("token") if len(plain) == 1 else None


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


def is_emulator() -> bool:
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
    def read() -> list[str]:
        # `account.backends()` says nothing of a service that fails: it returns no devices.
        listed = (client.list_backends(True) for client in clients_of(account).values())
        names = {device["name"] for devices in listed for device in devices}
        return sorted(names or {backend.name for backend in account.backends()})

    try:
        return call_client(read)
    except ServiceError as failure:
        if failure.kind != "unauthorized":
            raise
        reason = str(failure)
    raise TargetError(
        f"the IBM Quantum account may not use its instance ({reason}); check the one that is saved "
        "or set in QISKIT_IBM_INSTANCE"
    )
