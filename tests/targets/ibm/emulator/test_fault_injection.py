"""What each fault looks like from the true client."""

import uuid
import warnings

import pytest
import requests
from qiskit import QuantumCircuit
from qiskit_ibm_runtime import Batch, QiskitRuntimeService, Session
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import (
    IBMNotAuthorizedError,
    IBMRuntimeError,
    RuntimeInvalidStateError,
    RuntimeJobFailureError,
    RuntimeJobMaxTimeoutError,
    RuntimeJobTimeoutError,
    RuntimeProgramNotFound,
)
from qiskit_ibm_runtime.executor_sampler import Sampler

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.emulator import Fault, Faults, ServiceEmulator

PATIENCE_S = 30


def test_a_fault_and_its_text_are_the_same():
    fault = Fault("submit", "429", times=3, after=2, accepted=True, retry_after=5)
    assert str(fault) == "submit:429:times=3:after=2:accepted:retry_after=5"
    assert Fault.parse(str(fault)) == fault
    assert Fault.parse("run:fail") == Fault("run", "fail")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("sub:500", "there is no request 'sub'"),
        ("submit:418", "kind '418' is not known; accepted are 401"),
        ("run:500", "accepted are fail, max_time"),
        ("submit:500:tims=3", "'tims=3' cannot be read"),
        ("submit:500:times=x", "'times=x' cannot be read"),
        ("submit:500:rate=2", r"rate is 2\.0; give 0 to 1"),
        ("submit:delay:seconds=-1", r"seconds is -1\.0"),
        ("submit", "kind '' is not known"),
    ],
)
def test_a_text_that_is_no_fault_is_one_line(text, said):
    with pytest.raises(TargetError, match=said) as caught:
        Fault.parse(text)
    assert "\n" not in str(caught.value)


def test_scripted_faults_strike_in_order_as_often_and_as_late_as_they_say():
    faults = Faults(["job:500:after=1:times=2", "submit:503", "j*:404"])
    struck = [faults.draw("job") for _ in range(5)]
    assert [fault and fault.kind for fault in struck] == ["404", "500", "500", None, None]
    assert faults.draw("submit").kind == "503"
    assert faults.draw("submit") is None
    assert [strike.endpoint for strike in faults.strikes] == ["job", "job", "job", "submit"]
    assert faults.armed == ()


def test_random_faults_depend_on_their_seed_alone():
    def drawn(seed, others=()):
        faults = Faults(["submit:503:rate=0.3", *others], seed=seed)
        return [faults.draw("submit") is not None for _ in range(200)]

    assert drawn(1) == drawn(1) == drawn(1, others=["job:500:rate=0.5"])
    assert drawn(1) != drawn(2)
    assert 35 <= sum(drawn(1)) <= 85


def test_faults_change_while_the_server_runs():
    faults = Faults(["submit:503:times=9"])
    faults.clear()
    assert faults.draw("submit") is None
    faults.add("submit:cut")
    assert faults.draw("submit").kind == "cut"


@pytest.fixture(scope="module")
def server():
    with ServiceEmulator("fake_manila") as running, pytest.MonkeyPatch.context() as patch:
        for name, value in running.environment().items():
            patch.setenv(name, value)
        yield running


@pytest.fixture
def connect(server):
    def connected(**given):
        settings = {"token": server.token, "instance": server.instance, **given}
        return QiskitRuntimeService(
            channel="ibm_quantum_platform",
            url=server.url,
            url_resolver=lambda url, instance, private, channel: url,
            **settings,
        )

    yield connected
    server.faults.clear()


@pytest.fixture(scope="module")
def shared_backend(server):
    service = QiskitRuntimeService(
        channel="ibm_quantum_platform",
        token=server.token,
        instance=server.instance,
        url=server.url,
        url_resolver=lambda url, instance, private, channel: url,
    )
    return service.backend("ibm_manila")


@pytest.fixture
def backend(server, shared_backend):
    server.faults.clear()
    yield shared_backend
    server.faults.clear()


@pytest.fixture
def tag():
    return uuid.uuid4().hex


def flipped():
    circuit = QuantumCircuit(5, 1)
    circuit.x(2)
    circuit.measure(2, 0)
    return circuit


def submit(mode, tag, *, shots=20):
    sampler = Sampler(mode=mode)
    sampler.options.environment.job_tags = [tag]
    return sampler.run([(flipped(), None, shots)])


def received(server, tag):
    return [job for job in server.ledger.jobs.values() if tag in job.tags]


@pytest.mark.parametrize(
    ("fault", "error", "jobs"),
    [
        # What the client retries by itself; a job that was accepted is there twice then.
        ("submit:500", None, 1),
        ("submit:503", None, 1),
        ("submit:503:accepted", None, 2),
        ("submit:delay:seconds=0.05", None, 1),
        # What it gives up at once, with or without a job.
        ("submit:429", IBMRuntimeError, 0),
        ("submit:429:retry_after=1", IBMRuntimeError, 0),
        ("submit:429:accepted", IBMRuntimeError, 1),
        ("submit:409", IBMRuntimeError, 0),
        ("submit:cut", IBMRuntimeError, 0),
        ("submit:cut:accepted", IBMRuntimeError, 1),
        ("submit:401", IBMNotAuthorizedError, 0),
        ("submit:404", RuntimeProgramNotFound, 0),
    ],
)
def test_faults_of_a_submission(server, backend, tag, fault, error, jobs):
    server.faults.add(fault)
    if error is None:
        result = submit(backend, tag).result(timeout=PATIENCE_S, poll_interval=0.1)
        assert result[0].data.c.num_shots == 20
    else:
        with pytest.raises(error):
            submit(backend, tag)
    assert len(received(server, tag)) == jobs
    assert server.faults.armed == ()
    # A job that the client does not know of is found by its tag.
    found = backend.service.jobs(job_tags=[tag])
    assert {job.job_id() for job in found} == {job.id for job in received(server, tag)}


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("job:429", RequestsApiError),
        ("job:429:retry_after=1", None),
        ("job:500", None),
        ("job:503", None),
        ("job:cut", None),
        ("job:404", RequestsApiError),
        ("job:401", IBMNotAuthorizedError),
        ("results:500", None),
        ("results:cut:accepted", None),
        ("results:429", RequestsApiError),
    ],
)
def test_faults_of_a_poll(server, backend, tag, fault, error):
    job = submit(backend, tag)
    server.faults.add(fault)
    if error is None:
        assert len(job.result(timeout=PATIENCE_S, poll_interval=0.1)) == 1
    else:
        with pytest.raises(error):
            job.result(timeout=PATIENCE_S, poll_interval=0.1)
        # Nothing is lost: the same job answers later.
        server.faults.clear()
        assert len(job.result(timeout=PATIENCE_S, poll_interval=0.1)) == 1
    assert len(received(server, tag)) == 1


@pytest.mark.slow
def test_results_that_stay_away_are_given_up_after_five_retries(server, backend, tag):
    job = submit(backend, tag)
    server.faults.add("results:500:times=6")
    with pytest.raises(RequestsApiError):
        job.result(timeout=60, poll_interval=0.1)
    assert server.faults.armed == ()


@pytest.mark.parametrize(
    ("fault", "error", "state", "charged"),
    [
        ("run:fail", RuntimeJobFailureError, "Failed", False),
        ("run:fail:accepted", RuntimeJobFailureError, "Failed", True),
        ("run:max_time", RuntimeJobMaxTimeoutError, "Cancelled", True),
        ("run:cancel", RuntimeInvalidStateError, "Cancelled", False),
    ],
)
def test_faults_of_a_job(server, backend, tag, fault, error, state, charged):
    server.faults.add(fault)
    job = submit(backend, tag)
    with pytest.raises(error):
        job.result(timeout=PATIENCE_S, poll_interval=0.1)
    (record,) = received(server, tag)
    assert record.status == state
    assert not record.executed
    assert record.quantum_seconds == (record.estimated_seconds if charged else 0)
    assert job.usage() == pytest.approx(record.quantum_seconds)
    expected = {"run:max_time": 1305, "run:cancel": None}.get(fault, 1010)
    assert record.reason_code == expected


def test_a_slow_job_times_out_at_the_client_and_is_there_later(server, backend, tag):
    server.faults.add("run:delay:seconds=0.6")
    job = submit(backend, tag)
    with pytest.raises(RuntimeJobTimeoutError):
        job.result(timeout=0.1, poll_interval=0.1)
    assert len(job.result(timeout=PATIENCE_S, poll_interval=0.1)) == 1


def test_usage_may_be_final_later_than_the_job(server, backend, tag):
    job = submit(backend, tag)
    job.result(timeout=PATIENCE_S, poll_interval=0.1)
    server.faults.add("metrics:pending")
    assert job.usage() == 0
    assert job.usage() > 2


@pytest.mark.parametrize("mode", [Session, Batch])
def test_an_expired_session_takes_no_more_jobs(server, backend, tag, mode):
    with mode(backend=backend) as opened:
        submit(opened, tag).result(timeout=PATIENCE_S)
        server.faults.add("submit:expire_session")
        with pytest.raises(IBMRuntimeError, match=r"1217.*Session has been closed"):
            submit(opened, tag)
        assert opened.status() == "Closed"
        assert server.ledger.sessions[opened.session_id].expired
    assert [job.status for job in received(server, tag)] == ["Completed"]


def test_a_job_that_waits_in_a_session_that_expires_fails_unpaid(server, backend, tag):
    with Session(backend=backend) as session:
        server.faults.add("run:expire_session")
        job = submit(session, tag)
        with pytest.raises(RuntimeJobFailureError, match="session has expired"):
            job.result(timeout=PATIENCE_S)
    (record,) = received(server, tag)
    assert (record.status, record.quantum_seconds) == ("Failed", 0)


@pytest.mark.parametrize(
    ("fault", "error"),
    [("open_session:503", None), ("open_session:429", RequestsApiError)],
)
def test_faults_of_opening_a_session(server, backend, fault, error):
    server.faults.add(fault)
    before = len(server.ledger.sessions)
    if error is None:
        Session(backend=backend).close()
        assert len(server.ledger.sessions) == before + 1
    else:
        with pytest.raises(error):
            Session(backend=backend)
        assert len(server.ledger.sessions) == before


def test_an_expired_access_token_is_refused_until_another_is_asked_for(server, connect, tag):
    backend = connect().backend("ibm_manila")
    server.faults.add("submit:expire_token")
    with pytest.raises(IBMNotAuthorizedError):
        submit(backend, tag)
    assert received(server, tag) == []
    submit(connect().backend("ibm_manila"), tag).result(timeout=PATIENCE_S, poll_interval=0.1)


def test_a_wrong_key_gives_no_token_and_the_bare_key_no_access(server, connect):
    answer = requests.post(
        f"{server.url}/identity/token", data={"apikey": "wrong"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 400
    before = server.ledger.requests
    # The client sends the key itself then, with this warning, and goes on without devices.
    with pytest.warns(UserWarning, match="Unable to retrieve IBM Cloud access token"):
        connect(token="wrong")
    asked = server.ledger.requests - before
    assert (asked["token"], asked["backends"]) == (1, 1)
    for header in (f"apikey {server.token}", "Bearer wrong", ""):
        answer = requests.get(
            f"{server.url}/backends",
            headers={"Authorization": header, "Service-CRN": server.instance},
            timeout=PATIENCE_S,
        )
        assert answer.status_code == 401
        assert server.token not in answer.text


@pytest.mark.slow
def test_after_a_refused_key_the_client_waits_a_minute_and_says_so(server, connect):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Unable to retrieve IBM Cloud access token")
        service = connect(token="wrong")
        with pytest.raises(IBMNotAuthorizedError):
            service.usage()


def test_another_instance_is_refused(server, connect):
    service = connect(instance=server.instance.replace("us-east", "eu-de"))
    with pytest.raises(RequestsApiError, match="403"):
        service.usage()


def test_an_identity_service_that_is_away_is_no_access(server, connect):
    server.faults.add("token:500")
    before = server.ledger.requests
    with pytest.warns(UserWarning, match="Unable to retrieve IBM Cloud access token"):
        connect()
    assert (server.ledger.requests - before)["backends"] == 1
