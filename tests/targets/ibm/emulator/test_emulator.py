"""The true client against a rehearsal: modes, counts, costs, and what it may not do."""

import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import requests
from qiskit import QuantumCircuit
from qiskit_ibm_runtime import Batch, QiskitRuntimeService, Session
from qiskit_ibm_runtime.api.exceptions import RequestsApiError
from qiskit_ibm_runtime.exceptions import RuntimeJobFailureError, RuntimeJobNotFound
from qiskit_ibm_runtime.executor_sampler import Sampler
from scipy.stats import chisquare

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import DeviceTarget, Target
from qkd_qiskit.targets.ibm.emulator import Faults, ServiceEmulator
from qkd_qiskit.targets.ibm.emulator.programs import circuit_digest
from qkd_qiskit.targets.ibm.usage_model import device_timing, job_seconds

PATIENCE_S = 60
SHOTS = 500


def sign_in(server):
    return QiskitRuntimeService(
        channel="ibm_quantum_platform",
        token=server.token,
        instance=server.instance,
        url=server.url,
        url_resolver=lambda url, instance, private, channel: url,
    )


@pytest.fixture(scope="module")
def problem(ring):
    """A ring compiled for a device, and values to run it with."""
    known = {}

    def made(name, *, batch=5):
        if name not in known:
            target = Target.parse(f"{name}:aer", shots=SHOTS, seed=11)  # as the server
            known[name] = (target, target.compile(ring(3)))
        target, compiled = known[name]
        rng = np.random.default_rng(4)
        return target, compiled, rng.uniform(-np.pi, np.pi, (batch, len(compiled.parameters)))

    return made


def pub_of(compiled, values, shots=SHOTS):
    columns = [
        compiled.parameters.index(parameter.name) for parameter in compiled.circuit.parameters
    ]
    return compiled.circuit, values[:, columns], shots


def run(mode, pubs, *tags, **options):
    sampler = Sampler(mode=mode, options=options or None)
    sampler.options.environment.job_tags = list(tags)
    return sampler.run(pubs)


def frequencies(bits, num_bits):
    counts = np.zeros((bits.size, 2**num_bits))
    for row in range(bits.size):
        for outcome, number in bits[row].get_int_counts().items():
            counts[row, outcome] = number
    return counts / bits.num_shots


def agree(measured, exact, shots):
    """The least p-value of a chi-squared test per row."""
    pairs = zip(measured * shots, exact * shots, strict=True)
    return min(chisquare(found, expected).pvalue for found, expected in pairs)


@pytest.mark.parametrize("mode", [None, Session, Batch])
def test_counts_are_those_of_the_simulated_device_in_every_mode(rehearsal, problem, mode):
    target, compiled, values = problem("fake_torino")
    server = rehearsal("fake_torino")
    backend = sign_in(server).backend("ibm_torino")
    seeds = [target._shot_seed(call) for call in (0, 1)]
    pubs = [pub_of(compiled, values), pub_of(compiled, values[:2])]
    opened = backend if mode is None else mode(backend=backend)
    job = run(opened, pubs, "some tag", f"seed:{seeds[0]},{seeds[1]}")
    first, second = job.result(timeout=PATIENCE_S)
    np.testing.assert_array_equal(
        frequencies(first.data.meas, 3), target.probabilities(compiled, values, seed=0)
    )
    np.testing.assert_array_equal(
        frequencies(second.data.meas, 3), target.probabilities(compiled, values[:2], seed=1)
    )
    record = server.ledger.jobs[job.job_id()]
    assert record.mode == {None: "job", Session: "dedicated", Batch: "batch"}[mode]
    assert record.tags == ("some tag", f"seed:{seeds[0]},{seeds[1]}")
    if mode is not None:
        assert record.session_id == opened.session_id
        assert opened.status() == "In progress, accepting new jobs"
        opened.close()
        assert opened.status() == "Closed"


def test_what_is_compiled_for_the_served_device_is_compiled_for_its_snapshot(rehearsal, ring):
    backend = sign_in(rehearsal("fake_torino")).backend("ibm_torino")
    served = DeviceTarget(backend, seed=11).compile(ring(3))
    snapshot = Target.parse("fake_torino", seed=11).compile(ring(3))
    assert circuit_digest(served.circuit) == circuit_digest(snapshot.circuit)
    assert (served.duration_s, served.fidelity) == (snapshot.duration_s, snapshot.fidelity)


def test_counts_follow_the_exact_noisy_probabilities(rehearsal, problem, ring):
    target, compiled, values = problem("fake_manila")
    backend = sign_in(rehearsal()).backend("ibm_manila")
    bits = run(backend, [pub_of(compiled, values, 8000)]).result(timeout=PATIENCE_S)[0].data.meas
    measured = frequencies(bits, 3)
    assert agree(measured, target.exact_probabilities(compiled, values), 8000) > 1e-4
    ideal = Target.parse("exact")
    noiseless = ideal.probabilities(ideal.compile(ring(3)), values)
    assert agree(measured, noiseless, 8000) < 1e-6


def test_without_noise_counts_are_those_of_the_noiseless_device(rehearsal, problem):
    target, compiled, values = problem("fake_manila:scale=0")
    backend = sign_in(rehearsal(noisy=False)).backend("ibm_manila")
    tag = f"seed:{target._shot_seed(0)}"
    bits = run(backend, [pub_of(compiled, values)], tag).result(timeout=PATIENCE_S)[0].data.meas
    np.testing.assert_array_equal(
        frequencies(bits, 3), target.probabilities(compiled, values, seed=0)
    )


def test_untagged_counts_depend_on_content_and_seed_not_on_order_or_faults(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    pubs = [pub_of(compiled, values[:1]), pub_of(compiled, values[1:2])]

    def counts(order, **settings):
        backend = sign_in(rehearsal(**settings)).backend("ibm_manila")
        jobs = {number: run(backend, [pubs[number]]) for number in order}
        return [
            frequencies(job.result(timeout=PATIENCE_S, poll_interval=0.1)[0].data.meas, 3).tolist()
            for _, job in sorted(jobs.items())
        ]

    usual = counts([0, 1])
    assert counts([1, 0], faults=Faults(["submit:503:accepted", "job:500"])) == usual
    assert counts([0, 1], seed=1) != usual


def test_shapes_and_options_of_the_sampler_are_served(rehearsal, problem):
    target, compiled, values = problem("fake_manila", batch=6)
    backend = sign_in(rehearsal()).backend("ibm_manila")
    exact = target.exact_probabilities(compiled, values)
    circuit, ordered, _ = pub_of(compiled, values)
    shaped = ordered.reshape(2, 3, -1)

    def measured(**options):
        job = run(backend, [(circuit, shaped, 4096)], "seed:5", **options)
        bits = job.result(timeout=PATIENCE_S, poll_interval=0.1)[0].data.meas
        assert bits.shape == (2, 3)
        return frequencies(bits.reshape(6), 3)

    plain = measured()
    assert agree(plain, exact, 4096) > 1e-4
    # Decoupling pulses change the circuit, twirling its errors: both stay near.
    for options in (
        {"dynamical_decoupling": {"enable": True}},
        {"twirling": {"enable_gates": True, "enable_measure": True}},
    ):
        found = measured(**options)
        assert not np.array_equal(found, plain)
        assert np.abs(found - exact).sum(axis=1).max() / 2 < 0.06
    bound = circuit.assign_parameters(ordered[0])
    bits = run(backend, [(bound, None, 64)]).result(timeout=PATIENCE_S)[0].data.meas
    assert (bits.shape, bits.num_shots) == ((), 64)


def test_the_ledger_has_what_was_sent_and_what_it_costs(rehearsal, problem):
    target, compiled, values = problem("fake_manila")
    server = rehearsal()
    service = sign_in(server)
    backend = service.backend("ibm_manila")
    job = run(backend, [pub_of(compiled, values, 100), pub_of(compiled, values[:2], 100)])
    job.result(timeout=PATIENCE_S, poll_interval=0.1)
    timing = device_timing(backend)
    assert timing == device_timing(target.backend)
    expected = job_seconds([(500, compiled.duration_s), (200, compiled.duration_s)], timing=timing)
    record = server.ledger.jobs[job.job_id()]
    assert [pub.circuits for pub in record.pubs] == [5, 2]
    assert (record.circuits, record.executions) == (7, 700)
    assert record.two_qubit_gates == 7 * compiled.two_qubit_gates
    assert record.executed
    assert record.results_read == 1
    assert record.quantum_seconds == pytest.approx(expected, rel=1e-12)
    assert job.usage() == job.usage_estimation["quantum_seconds"] == record.quantum_seconds
    assert job.metrics()["timestamps"]["finished"] == record.finished
    assert "700 executions" in job.logs()
    assert service.usage()["usage_consumed_seconds"] == pytest.approx(expected)
    totals = server.ledger.totals()
    assert totals["jobs"] == totals["executed_jobs"] == 1
    assert (totals["pubs"], totals["circuits"], totals["executions"]) == (2, 7, 700)
    assert server.ledger.requests["submit"] == 1
    # The same, for a process outside.
    with urllib.request.urlopen(f"{server.url}/rehearsal/ledger") as answer:
        outside = json.load(answer)
    assert outside == json.loads(json.dumps(server.ledger.as_dict()))
    assert outside["jobs"][0]["executions"] == 700
    assert "executions: 700" in server.ledger.summary()


def test_a_session_is_charged_for_its_waits_and_a_batch_is_not(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    server = rehearsal()
    backend = sign_in(server).backend("ibm_manila")
    for mode in (Session, Batch):
        with mode(backend=backend) as opened:
            for _ in range(2):
                run(opened, [pub_of(compiled, values)]).result(timeout=PATIENCE_S)
                time.sleep(0.2)
        jobs = sum(
            job.quantum_seconds
            for job in server.ledger.jobs.values()
            if job.session_id == opened.session_id
        )
        waits = opened.usage() - jobs
        assert waits > 0.2 if mode is Session else waits == pytest.approx(0, abs=1e-9)
        assert opened.details()["usage_time"] == opened.usage()


def test_jobs_are_found_by_tags_states_and_pages(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    server = rehearsal()
    service = sign_in(server)
    job = run(service.backend("ibm_manila"), [pub_of(compiled, values[:1], 10)], "all", "number 0")
    # The client asks for 20 at a time: more are needed, and sent faster without it.
    headers = service._active_api_client._session.auth.get_headers()
    where = {"headers": headers, "timeout": PATIENCE_S}
    known = requests.get(f"{server.url}/jobs/{job.job_id()}", **where).json()
    payload = {"program_id": "executor", "backend": "ibm_manila", "params": known["params"]}
    ids = [job.job_id()]
    for number in range(1, 23):
        tagged = {**payload, "tags": ["all", f"number {number}"]}
        answer = requests.post(f"{server.url}/jobs", json=tagged, **where)
        ids.append(answer.json()["id"])
    last = service.job(ids[-1])
    last.result(timeout=PATIENCE_S, poll_interval=0.1)
    assert [job.job_id() for job in service.jobs(limit=None, job_tags=["all"])] == ids[::-1]
    assert [job.job_id() for job in service.jobs(job_tags=["all", "number 7"])] == [ids[7]]
    assert service.jobs(job_tags=["number 7", "number 8"]) == []
    assert [job.job_id() for job in service.jobs(limit=3, skip=2)] == ids[::-1][2:5]
    assert service.jobs(pending=True) == []
    assert len(service.jobs(limit=2, descending=False, pending=False)) == 2
    assert service.jobs(created_after=last.creation_date)[0].job_id() == ids[-1]
    job.update_tags(["other"])
    assert service.job(ids[0]).tags == ["other"]
    service.delete_job(ids[0])
    with pytest.raises(RuntimeJobNotFound):
        service.job(ids[0])


def test_a_device_in_maintenance_keeps_its_jobs_waiting(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    server = rehearsal()
    backend = sign_in(server).backend("ibm_manila")
    server.backends["ibm_manila"].status = "maintenance"
    assert backend.status().operational
    with pytest.warns(UserWarning, match="has a status of maintenance"):
        job = run(backend, [pub_of(compiled, values[:1])])
    with pytest.warns(UserWarning, match="has a status of maintenance"):
        dropped = run(backend, [pub_of(compiled, values[:1])])
    assert job.status() == "QUEUED"
    assert backend.status().pending_jobs == 2
    dropped.cancel()
    server.backends["ibm_manila"].status = "offline"
    assert not backend.status().operational
    server.backends["ibm_manila"].status = "active"
    job.result(timeout=PATIENCE_S, poll_interval=0.1)
    assert server.ledger.jobs[dropped.job_id()].quantum_seconds == 0
    with pytest.raises(TargetError, match="accepted are active"):
        server.backends["ibm_manila"].status = "broken"


def test_the_open_plan_has_batches_and_ten_minutes_but_no_sessions(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    server = rehearsal(plan="open")
    service = sign_in(server)
    backend = service.backend("ibm_manila")
    with pytest.raises(RequestsApiError, match=r"400.*1352.*open plan"):
        Session(backend=backend)
    with Batch(backend=backend) as batch:
        run(batch, [pub_of(compiled, values)]).result(timeout=PATIENCE_S)
    usage = service.usage()
    assert usage["usage_allocation_seconds"] == 600
    assert usage["usage_remaining_seconds"] == pytest.approx(
        600 - server.ledger.totals()["quantum_seconds"]
    )


def test_an_instance_that_is_used_up_lets_jobs_wait(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    service = sign_in(rehearsal(allowance_s=1.0))
    backend = service.backend("ibm_manila")
    run(backend, [pub_of(compiled, values)]).result(timeout=PATIENCE_S, poll_interval=0.1)
    assert service.usage()["usage_limit_reached"]
    with pytest.warns(UserWarning, match="has met its usage limit"):
        job = run(backend, [pub_of(compiled, values)])
    time.sleep(0.2)
    assert job.status() == "QUEUED"


def test_what_a_device_cannot_run_fails_before_it_costs(rehearsal, problem):
    _, compiled, values = problem("fake_manila")
    server = rehearsal()
    backend = sign_in(server).backend("ibm_manila")
    circuit, ordered, _ = pub_of(compiled, values)
    foreign, wide = QuantumCircuit(2, 1), QuantumCircuit(6, 1)
    foreign.h(0)
    foreign.measure(0, 0)
    wide.measure(5, 0)
    for pub, said in (
        ((foreign, None, 10), r"Error code 1002.*instruction h on qubits \(0,\)"),
        ((wide, None, 10), "6 qubits"),
        ((circuit, np.tile(ordered, (300, 1)), 10_000), "15,000,000 executions"),
    ):
        job = run(backend, [pub])
        with pytest.raises(RuntimeJobFailureError, match=said):
            job.result(timeout=PATIENCE_S, poll_interval=0.1)
        assert server.ledger.jobs[job.job_id()].quantum_seconds == 0
    job = run(backend, [(circuit, ordered, 100)], max_execution_time=1)
    with pytest.raises(Exception, match="1305"):
        job.result(timeout=PATIENCE_S, poll_interval=0.1)
    assert server.ledger.jobs[job.job_id()].quantum_seconds == 1


@pytest.mark.parametrize("tag", ["seed:x", "seed:1,2", "seed:-1", "seed:"])
def test_a_seed_that_is_none_is_refused(rehearsal, problem, tag):
    _, compiled, values = problem("fake_manila")
    backend = sign_in(rehearsal()).backend("ibm_manila")
    with pytest.raises(Exception, match="is no seed; give one whole number from 0"):
        run(backend, [pub_of(compiled, values)], tag)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "listens on this machine alone"),
        ({"host": "example.org"}, "listens on this machine alone"),
        ({"plan": "free"}, "accepted are open and premium"),
        ({"port": 70000}, "accepted are 0"),
        ({"devices": "fake_manla"}, "did you mean fake_manila"),
        ({"devices": "aer"}, "give a device snapshot"),
        ({"devices": ["fake_manila", "fake_manila"]}, "give each device once"),
    ],
)
def test_what_cannot_be_served_is_one_line(settings, said):
    with pytest.raises(TargetError, match=said) as caught:
        ServiceEmulator(**{"devices": "fake_manila", **settings})
    assert "\n" not in str(caught.value)


def test_a_port_that_is_taken_is_one_line(rehearsal):
    port = int(rehearsal().url.rpartition(":")[2])
    with pytest.raises(TargetError, match=f"127.0.0.1:{port} cannot be listened on"):
        ServiceEmulator("fake_manila", port=port).start()


def test_without_its_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "qkd_qiskit.targets.ibm.emulator.endpoints", raising=False)
    with pytest.raises(TargetError, match=r"pip install 'qkd-qiskit\[rehearse\]'"):
        ServiceEmulator("fake_manila").start()


def test_only_requests_to_loopback_are_served(rehearsal):
    server = rehearsal()
    answer = requests.get(
        f"{server.url}/rehearsal/ledger", headers={"Host": "example.org"}, timeout=PATIENCE_S
    )
    assert answer.status_code == 403


def test_faults_are_set_from_outside(rehearsal):
    server = rehearsal()
    where = f"{server.url}/rehearsal/faults"
    answer = requests.post(where, json={"add": ["submit:503", "run:fail"]}, timeout=PATIENCE_S)
    assert answer.json() == {"armed": ["submit:503", "run:fail"]}
    answer = requests.post(where, json={"clear": True, "add": ["nothing:1"]}, timeout=PATIENCE_S)
    assert answer.status_code == 400
    assert len(server.faults.armed) == 2
    requests.post(where, json={"clear": True}, timeout=PATIENCE_S)
    assert requests.get(where, timeout=PATIENCE_S).json() == {"armed": []}


def test_several_devices_are_served_under_their_real_names(rehearsal):
    service = sign_in(rehearsal(["fake_manila", "fake_lima"]))
    assert {backend.name for backend in service.backends()} == {"ibm_manila", "ibm_lima"}
    assert service.backend("ibm_lima").num_qubits == 5
    assert service.least_busy().name in ("ibm_manila", "ibm_lima")


def test_no_credentials_in_logs_or_ledger(rehearsal, problem, caplog):
    for name in ("qkd_qiskit", "aiohttp", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name)
    _, compiled, values = problem("fake_manila")
    server = rehearsal(faults=Faults(["job:500", "results:cut", "submit:401"]))
    backend = sign_in(server).backend("ibm_manila")
    with pytest.raises(Exception, match="401"):
        run(backend, [pub_of(compiled, values)])
    run(backend, [pub_of(compiled, values)]).result(timeout=PATIENCE_S, poll_interval=0.1)
    sent = backend.service._active_api_client._session.auth.get_headers()["Authorization"]
    said = caplog.text + json.dumps(server.ledger.as_dict()) + server.ledger.summary()
    assert "answered" in caplog.text or caplog.records
    for secret in (server.token, server.instance, sent.removeprefix("Bearer ")):
        assert len(secret) > 20
        assert secret not in said


def test_the_command_serves_until_it_is_interrupted(problem, monkeypatch, tmp_path):
    _, compiled, values = problem("fake_manila")
    ledger = tmp_path / "ledger.json"
    words = ["targets", "rehearse", "fake_manila", "--fault", "job:500", "--ledger", str(ledger)]
    process = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, qkd_qiskit.cli; sys.exit(qkd_qiskit.cli.main())",
            *words,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        shown = ""
        while "Ctrl-C" not in shown:
            line = process.stdout.readline()
            assert line, process.stderr.read()
            shown += line
        variables = dict(re.findall(r"export (\w+)=(\S+)", shown))
        assert "qkd submit RUN --backend ibm_manila" in shown
        for name, value in variables.items():
            monkeypatch.setenv(name, value.strip("'"))
        service = QiskitRuntimeService(
            channel="ibm_quantum_platform",
            token=os.environ["QISKIT_IBM_TOKEN"],
            instance=os.environ["QISKIT_IBM_INSTANCE"],
            url=os.environ["QKD_RUNTIME_URL"],
            url_resolver=lambda url, instance, private, channel: url,
        )
        job = run(service.backend("ibm_manila"), [pub_of(compiled, values)])
        assert len(job.result(timeout=PATIENCE_S, poll_interval=0.1)) == 1
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=PATIENCE_S)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 0
    assert errors == ""
    assert "jobs: 1 (1 completed)" in rest
    assert "fault, 1 times: job job:500" in rest
    assert json.loads(ledger.read_text())["totals"]["executed_jobs"] == 1
    assert os.environ["QISKIT_IBM_TOKEN"] not in ledger.read_text()
