"""Requests to the Runtime client: what it fails with, logs and sends, without secrets.

The client hides a service's answer in chains of errors, repeats resource names in logs and
warnings, sends the API key itself where it has no token, and sends a job again after an answer of
500. All of that is dealt with here, and nowhere else.
"""

import logging
import math
import threading
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.client_internals import RAW_KEY_WARNING
from qkd_qiskit.targets.ibm.service_errors import ServiceError, ServiceErrorKind, scrub

logger = logging.getLogger(__name__)
Result = TypeVar("Result")

_CLIENT = "qiskit_ibm_runtime"
ANSWER_LIMIT_S = 600.0
"""Seconds for a whole answer: the client's own limit is for each piece, and never ends a drip."""


def call_client(request: Callable[[], Result], *, limit_s: float | None = ANSWER_LIMIT_S) -> Result:
    """Return what a request to the client gives; its warnings go to the log.

    Args:
        request: Calls the client.
        limit_s: Seconds until the answer must be whole; None: no limit.

    Raises:
        ServiceError: The client failed; nothing of its own error, which may hold secrets, is kept.
        TargetError: Raised by `request` itself.
    """
    failure = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        # The client would go on and send the API key itself.
        warnings.filterwarnings("error", message=RAW_KEY_WARNING)
        try:
            return request() if limit_s is None else _within(limit_s, request)
        except (TargetError, ServiceError):
            raise
        except Exception as error:
            failure = service_error_of(error)
        finally:
            for warning in caught:
                logger.info("the client warns: %s", scrub(str(warning.message)))
    raise failure


def _within(limit_s: float, request: Callable[[], Result]) -> Result:
    """Return what a request gives, or stop waiting for it; the thread that waits on is left."""
    answer: Future[Result] = Future()

    def run() -> None:
        try:
            answer.set_result(request())
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        return answer.result(limit_s)
    except FutureTimeout:
        if answer.done():
            raise  # the request's own
    raise ServiceError("network", f"no whole answer within {limit_s:g} s")


def service_error_of(error: BaseException) -> ServiceError:
    """Return what an error of the client means, without its secrets.

    The client hides the answer of the service in the errors that it raises from; the status and the
    wait that was asked for are found there.
    """
    for link in _chain(error):
        if str(link).startswith(RAW_KEY_WARNING):
            return no_token(error)
        response = getattr(link, "response", None)
        status = getattr(response, "status_code", None)
        if isinstance(status, int):
            text = f"the service answered {status}{_reason(response)}"
            full = 400 <= status < 500 and "pending jobs" in text.lower()
            kind = "full" if full else _kind_of(status)
            return ServiceError(kind, text, retry_after=_retry_after(response))
    kind = _kind_by_type(error)
    if kind == "network":
        return ServiceError(kind, f"no answer ({type(error).__name__}: {_innermost(error)})")
    return ServiceError(kind, f"{type(error).__name__}: {error}")


def _reason(response: Any) -> str:
    """Return what an answer gives as reason, in brackets, or nothing."""
    try:
        content = response.json()
        errors = content.get("errors") or [content["error"]]
        reason = f" ({errors[0]['message']} Code {errors[0]['code']}.)"
    except (ValueError, KeyError, IndexError, TypeError, AttributeError):
        return ""
    return reason


def _innermost(error: BaseException) -> str:
    *_, last = _chain(error)
    return f"{type(last).__name__}: {last}"


def no_token(error: BaseException) -> ServiceError:
    """Return why there is no access token: a key that is refused, or a service that fails."""
    for link in _chain(error):
        status = getattr(link, "status_code", None)  # ibm_cloud_sdk_core.ApiException
        if status in (400, 401, 403):
            return ServiceError(
                "unauthorized", "the token of the IBM Quantum account is not accepted"
            )
        if status == 429:
            return ServiceError("busy", "the service that gives access tokens is busy")
    return ServiceError("network", "no access token could be had; the API key itself is never sent")


def _kind_of(status: int) -> ServiceErrorKind:
    if status in (408, 409, 425, 429):
        return "busy"
    if status in (401, 403):
        return "unauthorized"
    if status == 404:
        return "missing"
    return "server" if status >= 500 else "refused"


def _kind_by_type(error: BaseException) -> ServiceErrorKind:
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
    """Return the seconds in a Retry-After header, a number or a date; None where there are none."""
    text = str(response.headers.get("Retry-After", ""))
    try:
        seconds = float(text)
    except ValueError:
        try:
            date = parsedate_to_datetime(text)
        except ValueError:
            return None
        seconds = (date.astimezone(timezone.utc) - datetime.now(timezone.utc)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    # An interrupt is what was being dealt with when the request was made, not why it failed.
    while isinstance(error, Exception) and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


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


def quiet_client() -> None:
    """Send what the client logs through our own log, without secrets; errors stay its own."""
    for handler in logging.getLogger(_CLIENT).handlers:
        handler.addFilter(_SCRUB)
