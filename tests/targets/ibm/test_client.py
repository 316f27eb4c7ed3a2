"""The Runtime client's errors, warnings and logs, read without their secrets."""

import json
import logging
import threading
import warnings
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime

import pytest
import requests
from ibm_cloud_sdk_core import ApiException
from qiskit.providers.exceptions import JobError, QiskitBackendNotFoundError
from qiskit_ibm_runtime import RuntimeJobNotFound
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMNotAuthorizedError,
    IBMRuntimeError,
)

from qkd_qiskit.errors import QKDError, TargetError
from qkd_qiskit.targets.ibm import client as module
from qkd_qiskit.targets.ibm.service_errors import ServiceError

SECRET = "not-a-real-token"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123abcd:4567-89ef::"


class TestLogs:
    def test_the_clients_own_log(self, caplog, monkeypatch):
        # It has a handler of its own and passes nothing on, which pytest before 9 does not see.
        monkeypatch.setattr(logging.getLogger("qiskit_ibm_runtime"), "propagate", True)
        module.quiet_client()
        module.quiet_client()
        client = logging.getLogger("qiskit_ibm_runtime.qiskit_runtime_service")
        with caplog.at_level(logging.INFO):
            client.warning("Invalid instance %s", CRN)
            client.error("failed for %s", CRN)
        told = [(record.name, record.getMessage()) for record in caplog.records]
        assert (client.name, "failed for crn:...") in told
        assert (module.__name__, "the client says: Invalid instance crn:...") in told
        assert CRN not in str(told)

    def test_the_clients_warnings(self, caplog):
        with caplog.at_level(logging.INFO):
            module.call_client(lambda: warnings.warn(f"limit of {CRN}", stacklevel=1))
        assert "the client warns: limit of crn:..." in caplog.text


def answered(status, *, headers=None, body=None):
    """The error that `requests` raises for an answer."""
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers or {})
    response._content = json.dumps(body or {}).encode()
    response.request = requests.Request("GET", "http://x", headers={"k": SECRET}).prepare()
    return requests.HTTPError(f"{status} with {SECRET}", response=response)


def wrapped(inner, outer, *, hidden=False):
    """An error as the client raises it from another."""
    try:
        try:
            raise inner
        except Exception as error:
            if hidden:
                raise outer from None
            raise outer from error
    except Exception as error:
        return error


class TestFaults:
    @pytest.mark.parametrize(
        ("status", "kind"),
        [
            (400, "refused"),
            (401, "unauthorized"),
            (403, "unauthorized"),
            (404, "missing"),
            (409, "busy"),
            (429, "busy"),
            (500, "server"),
            (503, "server"),
        ],
    )
    @pytest.mark.parametrize("hidden", [True, False])
    def test_the_status_is_found_where_the_client_hides_it(self, status, kind, hidden):
        inner = answered(
            status,
            headers={"Retry-After": "7"},
            body={"errors": [{"message": f"no, {CRN}", "code": 12}]},
        )
        middle = wrapped(inner, RequestsApiError(SECRET), hidden=hidden)
        fault = module.service_error_of(wrapped(middle, IBMRuntimeError(SECRET), hidden=True))
        assert (fault.kind, fault.retry_after) == (kind, 7.0)
        assert str(fault) == f"the service answered {status} (no, crn:... Code 12.)"

    @pytest.mark.parametrize(
        ("text", "seconds"),
        [
            ("Fri, 20 Nov 2020 14:00:00 GMT", 0.0),
            ("-3", 0.0),
            ("inf", None),
            ("nan", None),
            ("soon", None),
            ("Fri, 99 Nov 2020 14:00:00 GMT", None),
            ("", None),
            ("2.5", 2.5),
        ],
    )
    def test_a_wait_that_is_asked_for(self, text, seconds):
        failure = module.service_error_of(answered(429, headers={"Retry-After": text}))
        assert failure.retry_after == seconds

    def test_a_wait_until_a_date(self):
        until = datetime.now(timezone.utc) + timedelta(seconds=90)
        headers = {"Retry-After": format_datetime(until, usegmt=True)}
        asked = module.service_error_of(answered(429, headers=headers)).retry_after
        assert asked == pytest.approx(90, abs=5)

    def test_an_answer_that_drips_ends(self):
        release = threading.Event()
        with pytest.raises(ServiceError, match=r"no whole answer within 0\.05 s") as caught:
            module.call_client(release.wait, limit_s=0.05)
        release.set()
        assert caught.value.kind == "network"
        assert module.call_client(lambda: 3, limit_s=5.0) == 3

    @pytest.mark.parametrize(
        ("error", "kind"),
        [
            (RequestsApiError("cut"), "network"),
            (requests.ConnectionError("cut"), "network"),
            (TimeoutError("late"), "network"),
            (IBMNotAuthorizedError("you"), "unauthorized"),
            (RuntimeJobNotFound("where"), "missing"),
            (QiskitBackendNotFoundError("where"), "missing"),
            (IBMInputValueError("what"), "refused"),
            (ZeroDivisionError("bug"), "refused"),
            (KeyError("state"), "server"),
            (json.JSONDecodeError("what", "", 0), "server"),
            (JobError("what"), "server"),
        ],
    )
    def test_without_an_answer_its_type_decides(self, error, kind):
        assert module.service_error_of(error).kind == kind

    @pytest.mark.parametrize(
        ("code", "kind"),
        [(400, "unauthorized"), (401, "unauthorized"), (429, "busy"), (500, "network")],
    )
    def test_the_api_key_is_never_sent(self, code, kind):
        """The client warns and would go on with the key itself."""
        sent = []

        def ask():
            try:
                raise ApiException(code, message=SECRET)
            except ApiException as error:
                warnings.warn(
                    "Unable to retrieve IBM Cloud access token. API Key will be used instead. "
                    f"{error}",
                    stacklevel=1,
                )
            sent.append(SECRET)

        with pytest.raises(ServiceError) as caught:
            module.call_client(ask)
        assert caught.value.kind == kind
        assert not sent
        assert SECRET not in str(caught.value)

    def test_nothing_of_the_clients_error_is_kept(self):
        def ask():
            raise wrapped(answered(500), RequestsApiError(SECRET))

        with pytest.raises(ServiceError) as caught:
            module.call_client(ask)
        assert caught.value.__cause__ is caught.value.__context__ is None

    def test_our_own_errors_pass(self):
        def ask():
            raise TargetError("ours")

        with pytest.raises(QKDError, match="ours"):
            module.call_client(ask)
