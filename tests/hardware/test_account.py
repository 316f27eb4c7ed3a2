"""The account: what is said where there is none, and that nothing secret is repeated."""

import json
import logging
import traceback
import warnings

import pytest
import qiskit_ibm_runtime
import requests
from ibm_cloud_sdk_core import ApiException
from qiskit.providers.exceptions import JobError, QiskitBackendNotFoundError
from qiskit_ibm_runtime import RuntimeJobNotFound
from qiskit_ibm_runtime.accounts import management
from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
    IBMNotAuthorizedError,
    IBMRuntimeError,
)

from qkd_qiskit.errors import QKDError, SubmissionError, TargetError
from qkd_qiskit.hardware import account
from qkd_qiskit.hardware.asking import Patience
from qkd_qiskit.hardware.faults import Fault, scrub
from qkd_qiskit.hardware.runtime import connect, real_backend

SECRET = "not-a-real-token"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123abcd:4567-89ef::"
QUICK = Patience(tries=3, first_wait_s=0.0, longest_wait_s=0.0)


@pytest.fixture(autouse=True)
def saved(monkeypatch, tmp_path):
    """The file of saved accounts, which is not there; nor has the environment an account."""
    for name in ("QISKIT_IBM_TOKEN", "QISKIT_IBM_INSTANCE", "QKD_RUNTIME_URL", "IAM_URL"):
        monkeypatch.delenv(name, raising=False)
    saved = tmp_path / "saved.json"
    monkeypatch.setattr(management, "_DEFAULT_ACCOUNT_CONFIG_JSON_FILE", str(saved))
    return saved


class Named:
    target = None

    def __init__(self, name):
        self.name = name


class Service:
    @staticmethod
    def saved_accounts():
        return {}

    def backend(self, name):
        if name == "ibm_torino":
            return Named(name)
        raise QiskitBackendNotFoundError("No backend matches the criteria.")

    def backends(self):
        return [Named("ibm_torino"), Named("ibm_fez")]


def raising(error):
    class Raising:
        def __init__(self):
            raise error

        @staticmethod
        def saved_accounts():
            return {}

    return Raising


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (AccountNotFoundError("none"), "needs an IBM Quantum account and none is saved here"),
        (InvalidAccountError(f"token {SECRET}"), r"cannot be used \(InvalidAccountError\)"),
    ],
)
def test_an_account_that_is_missing_or_refused_is_one_line(error, said, monkeypatch):
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", raising(error))
    with pytest.raises(TargetError, match=said) as caught:
        real_backend("ibm_torino")
    assert "\n" not in str(caught.value)
    assert SECRET not in str(caught.value)
    assert caught.value.__suppress_context__ or SECRET not in str(caught.value.__cause__)


def test_a_device_is_found_or_near_names_are_given(monkeypatch):
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", Service)
    assert real_backend("ibm_torino").name == "ibm_torino"
    with pytest.raises(TargetError, match=r"no device 'ibm_torin'; it has ibm_torino"):
        real_backend("ibm_torin")


def test_without_an_account_the_true_client_is_not_asked():
    with pytest.raises(TargetError, match=r"needs an IBM Quantum account and none is saved here"):
        connect("ibm_torino")


def test_a_saved_account_whose_key_gives_no_token(saved, monkeypatch, caplog):
    account = {"token": SECRET, "channel": "ibm_quantum_platform", "is_default_account": True}
    saved.write_text(json.dumps({"default": account}))
    monkeypatch.setenv("IAM_URL", "http://127.0.0.1:9")  # nothing listens there
    with caplog.at_level(logging.DEBUG), pytest.raises(SubmissionError) as caught:
        real_backend("ibm_torino", patience=QUICK)
    said = "opening the account failed 3 times: no access token could be had"
    assert said in str(caught.value)
    assert_silent(caught.value, caplog.text)


def assert_silent(error, *texts):
    """Nothing that is printed of an error holds a secret."""
    assert "\n" not in str(error)
    shown = "".join(traceback.format_exception(error))
    for text in (str(error), repr(error), shown, *texts):
        assert SECRET not in text
        assert CRN not in text


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (IBMInputValueError(f"instance {CRN} is wrong"), TargetError, "no access to the instance"),
        (RequestsApiError(f"{SECRET}"), SubmissionError, "no answer"),
    ],
)
def test_an_account_that_cannot_be_opened(error, kind, said, monkeypatch):
    monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", raising(error))
    account.hide(SECRET)
    with pytest.raises(kind, match=said) as caught:
        real_backend("ibm_torino", patience=QUICK)
    assert_silent(caught.value)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1:80", "https://quantum.cloud.ibm.com", "http://localhost.evil.org", "x"]
)
def test_a_rehearsal_is_on_this_machine(url, monkeypatch):
    monkeypatch.setenv("QKD_RUNTIME_URL", url)
    with pytest.raises(TargetError, match="accepted is one on this machine"):
        connect("ibm_torino")


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"])
def test_loopback(url):
    assert account.is_loopback(url)


class TestScrub:
    @pytest.mark.parametrize(
        "text",
        [
            f"key {SECRET}.",
            f"in {CRN}, or",
            f"at /instances/{CRN.replace(':', '%3A').replace('/', '%2F')}/x",
            "Authorization: Bearer abc.def-ghi_jkl",
            "apikey AbCdEfGh",
            "token=AbCdEfGh12",
            "api_key: AbCdEfGh12",
            "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4",
        ],
    )
    def test_no_secret_is_left(self, text, monkeypatch):
        monkeypatch.setenv("QISKIT_IBM_TOKEN", SECRET)
        found = scrub(text)
        for secret in (SECRET, CRN[8:], "abc.def", "AbCdEfGh", "eyJ", "0123abcd"):
            assert secret not in found
        assert "..." in found

    def test_the_rest_stays_in_one_line(self):
        assert (
            scrub("job d12\n failed: token of the account")
            == "job d12 failed: token of the account"
        )
        assert len(scrub("x" * 1000)) == 304

    def test_the_clients_own_log(self, caplog):
        account._quiet_client()
        account._quiet_client()
        client = logging.getLogger("qiskit_ibm_runtime.qiskit_runtime_service")
        with caplog.at_level(logging.INFO):
            client.warning("Invalid instance %s", CRN)
            client.error("failed for %s", CRN)
        told = [(record.name, record.getMessage()) for record in caplog.records]
        assert (client.name, "failed for crn:...") in told
        assert (account.__name__, "the client says: Invalid instance crn:...") in told
        assert CRN not in str(told)

    def test_the_clients_warnings(self, caplog):
        with caplog.at_level(logging.INFO):
            account.ask_client(lambda: warnings.warn(f"limit of {CRN}", stacklevel=1))
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
        fault = account.fault_of(wrapped(middle, IBMRuntimeError(SECRET), hidden=True))
        assert (fault.kind, fault.retry_after) == (kind, 7.0)
        assert str(fault) == f"the service answered {status} (no, crn:... Code 12.)"

    def test_a_wait_until_a_date_is_not_understood(self):
        headers = {"Retry-After": "Fri, 20 Nov 2026 14:00:00 GMT"}
        assert account.fault_of(answered(429, headers=headers)).retry_after is None

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
        assert account.fault_of(error).kind == kind

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

        with pytest.raises(Fault) as caught:
            account.ask_client(ask)
        assert caught.value.kind == kind
        assert not sent
        assert SECRET not in str(caught.value)

    def test_nothing_of_the_clients_error_is_kept(self):
        def ask():
            raise wrapped(answered(500), RequestsApiError(SECRET))

        with pytest.raises(Fault) as caught:
            account.ask_client(ask)
        assert caught.value.__cause__ is caught.value.__context__ is None

    def test_our_own_errors_pass(self):
        def ask():
            raise TargetError("ours")

        with pytest.raises(QKDError, match="ours"):
            account.ask_client(ask)
