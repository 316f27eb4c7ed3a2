"""The account: what is said where there is none, and that nothing secret is repeated."""

import json
import logging
import traceback

import pytest
import qiskit_ibm_runtime
from qiskit.providers.exceptions import QiskitBackendNotFoundError
from qiskit_ibm_runtime.accounts import management
from qiskit_ibm_runtime.accounts.exceptions import AccountNotFoundError, InvalidAccountError
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMInputValueError,
)

from qkd_qiskit.errors import SubmissionError, TargetError
from qkd_qiskit.hardware.jobs.asking import Patience
from qkd_qiskit.hardware.jobs.faults import hide
from qkd_qiskit.hardware.runtime import account, connect, real_backend

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
    hide(SECRET)
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
