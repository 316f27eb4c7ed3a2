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
from qiskit_ibm_runtime.exceptions import IBMInputValueError, IBMNotAuthorizedError

from qkd_qiskit.errors import SubmissionError, TargetError
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.targets.ibm import account
from qkd_qiskit.targets.ibm.connection import RuntimeConnection, connect, real_backend
from qkd_qiskit.targets.ibm.retry import RetryPolicy
from qkd_qiskit.targets.ibm.service_errors import ServiceError, hide

SECRET = "not-a-real-token"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/0123abcd:4567-89ef::"
QUICK = RetryPolicy(tries=3, first_wait_s=0.0, longest_wait_s=0.0)


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


class Instance:
    """The client of one instance: its answers to a list of devices, a fault or a list."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def list_backends(self, mocks):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def with_instances(told, **clients):
    """A service whose account has instances, of which some have told their devices."""

    class Several(Service):
        def __init__(self):
            self._backends_info_per_instance = {name: [] for name in told}
            self._api_clients = clients

        def backend(self, name):
            device = Named(name)
            device._instance = next(iter(clients))
            return device

        def instances(self):
            plans = ["Open", "Premium"]
            return [{"crn": crn, "plan": plan} for crn, plan in zip(clients, plans, strict=True)]

    return Several


class TestInstances:
    def test_the_plan_that_pays_is_told(self, monkeypatch, caplog):
        service = with_instances(["a", "b"], a=Instance(), b=Instance())
        monkeypatch.setattr(qiskit_ibm_runtime, "QiskitRuntimeService", service)
        real_backend("ibm_torino")
        assert "jobs of ibm_torino go to the one of plan open" in caplog.text

    def test_one_that_failed_is_not_passed_over_for_another(self, monkeypatch):
        failing = Instance(*[RequestsApiError("down", 500)] * 3)
        monkeypatch.setattr(
            qiskit_ibm_runtime,
            "QiskitRuntimeService",
            with_instances(["b"], a=failing, b=Instance()),
        )
        with pytest.raises(SubmissionError, match="opening the account failed 3 times"):
            real_backend("ibm_torino", policy=QUICK)
        # It answers again, and the client still holds it for one without devices.
        failing.answers = [[]] * 3
        with pytest.raises(SubmissionError, match="did not tell its devices"):
            real_backend("ibm_torino", policy=QUICK)

    def test_one_that_refuses_the_account_is(self, monkeypatch):
        refusing = Instance(IBMNotAuthorizedError("you"))
        monkeypatch.setattr(
            qiskit_ibm_runtime,
            "QiskitRuntimeService",
            with_instances(["a"], a=Instance(), b=refusing),
        )
        assert real_backend("ibm_torino", policy=QUICK).name == "ibm_torino"
        assert not refusing.answers


class Job:
    def __init__(self, name):
        self.name = name

    def job_id(self):
        return self.name


class TestFind:
    """A job is looked for wherever the account could have sent it."""

    class Account:
        def __init__(self, refused):
            self._api_clients = dict.fromkeys(("mine", "other", "closed"))
            self.refused, self.fixed = refused, []

        def jobs(self, *, instance, job_tags, limit):
            self.fixed.append(instance)
            if instance in self.refused:
                raise IBMNotAuthorizedError("you")
            return [Job(f"{instance}-second"), Job(f"{instance}-first")]

    def connection(self, *refused):
        backend = Named("ibm_torino")
        backend._instance, backend.service = "mine", self.Account(refused)
        return RuntimeConnection(backend, options=RuntimeSpec())

    def test_in_all_instances_that_may_be_used(self):
        connection = self.connection("closed")
        found = [job.id for job in connection.find("t")]
        assert found == ["other-first", "other-second", "mine-first", "mine-second"]
        assert connection.account.fixed[-1] == "mine"

    def test_not_without_its_own(self):
        with pytest.raises(ServiceError, match="you"):
            self.connection("mine").find("t")


def test_without_an_account_the_true_client_is_not_asked():
    with pytest.raises(TargetError, match=r"needs an IBM Quantum account and none is saved here"):
        connect("ibm_torino")


def test_a_saved_account_whose_key_gives_no_token(saved, monkeypatch, caplog):
    account = {"token": SECRET, "channel": "ibm_quantum_platform", "is_default_account": True}
    saved.write_text(json.dumps({"default": account}))
    monkeypatch.setenv("IAM_URL", "http://127.0.0.1:9")  # nothing listens there
    with caplog.at_level(logging.DEBUG), pytest.raises(SubmissionError) as caught:
        real_backend("ibm_torino", policy=QUICK)
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
        real_backend("ibm_torino", policy=QUICK)
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
