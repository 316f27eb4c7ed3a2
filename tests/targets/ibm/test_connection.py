"""The true client against a rehearsal: modes, training, and what is said when it goes wrong."""

import logging
import time

import numpy as np
import pytest
import soak_training as soak
import torch
from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.errors import (
    BudgetError,
    CheckpointError,
    InputError,
    QKDError,
    SubmissionError,
    TargetError,
)
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.targets import DeviceTarget
from qkd_qiskit.targets.gradients import ParameterShiftExecutor
from qkd_qiskit.targets.ibm.connection import connect
from qkd_qiskit.targets.ibm.emulator import Faults
from qkd_qiskit.targets.ibm.job_runner import Runner
from qkd_qiskit.targets.ibm.journal import Journal, read_journal
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.targets.snapshots import fake_backend

MODES = ("job", "batch", "session")


def plus(qubits=2):
    circuit = QuantumCircuit(qubits)
    for qubit in range(qubits):
        circuit.ry(Parameter(f"x_{qubit:03d}"), qubit)
    for qubit in range(qubits - 1):
        circuit.cx(qubit, qubit + 1)
    return circuit


VALUES = np.linspace(-2, 2, 8).reshape(4, 2)


def run(
    folder, *, device="ibm_manila", calls=2, shots=200, circuit=None, values=VALUES, **settings
):
    """Call a target of a device a few times; returns what it measured, and the mode used."""
    options = RuntimeSpec(**settings)
    connection = connect(device, options=options, policy=soak.IMPATIENT)
    with (
        Journal(folder) as journal,
        Runner(connection, journal=journal, options=options, policy=soak.IMPATIENT) as runner,
    ):
        target = RuntimeTarget(
            connection.backend,
            runner=runner,
            prefix="t/",
            shots=shots,
            seed=3,
            num_transpilations=2,
        )
        compiled = target.compile(plus() if circuit is None else circuit)
        found = [target.probabilities(compiled, values, seed=call) for call in range(calls)]
        return found, runner.mode


def simulated(calls=2, shots=200, values=VALUES):
    """The same calls on this machine's own simulator."""
    target = DeviceTarget(
        fake_backend("fake_manila"), shots=shots, seed=3, num_transpilations=2, simulator="aer"
    )
    compiled = target.compile(plus())
    return [target.probabilities(compiled, values, seed=call) for call in range(calls)]


class TestModes:
    @pytest.mark.parametrize("mode", MODES)
    def test_what_is_measured_is_what_the_simulator_measures(self, tmp_path, rehearsal, mode):
        server = rehearsal()
        found, used = run(tmp_path, mode=mode)
        np.testing.assert_array_equal(found, simulated())
        assert used == mode
        jobs = list(server.ledger.jobs.values())
        assert [job.mode for job in jobs] == [mode.replace("session", "dedicated")] * 2
        assert all(not session.accepting_jobs for session in server.ledger.sessions.values())
        assert len(server.ledger.sessions) == (mode != "job")
        records = list(read_journal(tmp_path).records.values())
        for job, record in zip(jobs, records, strict=True):
            assert (record.job, record.executions) == (job.id, job.executions)
            assert record.usage_s == pytest.approx(job.quantum_seconds, rel=1e-12)
            assert record.estimate_s == pytest.approx(job.quantum_seconds, rel=1e-9)
        totals, ledger = read_journal(tmp_path).totals(), server.ledger.totals()
        held = ledger["session_seconds"] or ledger["quantum_seconds"]
        assert totals.usage_s + totals.waiting_s == pytest.approx(held, rel=1e-12)

    @pytest.mark.parametrize("mode", MODES)
    def test_without_an_account_the_client_simulates(self, tmp_path, mode):
        found, _ = run(tmp_path, device="fake_manila", mode=mode, shots=4000)
        again, _ = run(tmp_path, device="fake_manila", mode=mode, shots=4000)
        np.testing.assert_array_equal(found, again)
        target = DeviceTarget(fake_backend("fake_manila"), shots=None, num_transpilations=2)
        exact = target.probabilities(target.compile(plus()), VALUES)
        assert np.abs(np.array(found) - exact).max() < 0.05

    def test_the_open_plan_has_no_sessions(self, tmp_path, rehearsal, caplog):
        server = rehearsal(plan="open")
        with caplog.at_level(logging.WARNING):
            found, used = run(tmp_path, mode="session")
        assert used == "batch"
        assert "this plan has no sessions, so jobs go in a batch" in caplog.text
        assert [s.mode for s in server.ledger.sessions.values()] == ["batch"]
        np.testing.assert_array_equal(found, simulated())

    def test_twirling_and_decoupling_are_sent_and_counted(self, tmp_path, rehearsal):
        server = rehearsal()
        found, _ = run(
            tmp_path,
            shots=100,
            calls=1,
            twirl_gates=True,
            twirl_measure=True,
            dynamical_decoupling="XY4",
            max_execution_time=100,
        )
        (job,) = server.ledger.jobs.values()
        (record,) = read_journal(tmp_path).records.values()
        assert job.executions == record.executions == 4 * 128
        assert job.max_seconds == 100
        assert np.abs(found[0] - simulated(calls=1, shots=100_000)[0]).max() < 0.25

    def test_large_jobs_are_split(self, tmp_path, rehearsal):
        server = rehearsal()
        found, _ = run(tmp_path, max_executions=200 * 3, calls=1)
        assert [job.circuits for job in server.ledger.jobs.values()] == [3, 1]
        np.testing.assert_array_equal(found[0][:3], simulated(calls=1)[0][:3])
        assert found[0].shape == (4, 4)

    def test_a_circuit_whose_angles_a_measurement_does_not_see(self, tmp_path, rehearsal):
        rehearsal()
        circuit = QuantumCircuit(2)
        circuit.x(1)
        circuit.rz(Parameter("x_000"), 0)
        found, _ = run(tmp_path, circuit=circuit, values=np.zeros((3, 1)), calls=1)
        assert found[0].shape == (3, 4)
        assert (found[0][:, 2] > 0.9).all()


@pytest.fixture(scope="module")
def simulated_training():
    """A distillation on this machine's own simulator."""
    target = DeviceTarget(
        fake_backend(soak.DEVICE),
        shots=soak.SHOTS,
        seed=3,
        num_transpilations=2,
        simulator="aer",
    )
    trained, _ = soak.train(*soak.examples(), target=target)
    return trained


def assert_same(trained, folder):
    tensors, _ = load_tensors(folder / soak.RESULT)
    for place, one in enumerate(trained):
        for name, value in one.state.items():
            assert torch.equal(value, tensors[f"{place}/{name}"])


class TestTraining:
    @pytest.mark.parametrize("mode", MODES)
    def test_distillation_by_spsa(self, tmp_path, rehearsal, simulated_training, mode):
        server = rehearsal()
        data, teacher = soak.examples()
        soak.train_on_device(tmp_path, data, teacher, mode=mode, device="ibm_manila")
        # One job a step, with both evaluations of all members: 2 members, 8 images, 2 points.
        assert len(server.ledger.jobs) == soak.STEPS >= 20
        assert {job.circuits for job in server.ledger.jobs.values()} == {32}
        tensors, _ = load_tensors(tmp_path / soak.RESULT)
        losses = tensors["losses"]
        assert (losses[:, -3:].mean(dim=1) < 0.9 * losses[:, :3].mean(dim=1)).all()
        # The same training on the simulator, to the bit.
        assert_same(simulated_training, tmp_path)

    def test_it_stops_before_a_limit_and_goes_on(self, tmp_path, rehearsal, simulated_training):
        server = rehearsal()
        data, teacher = soak.examples()
        settings = {"mode": "batch", "device": "ibm_manila"}
        for limit in (15, 40):
            with pytest.raises(BudgetError, match=f"the {limit} that are allowed would be passed"):
                soak.train_on_device(tmp_path, data, teacher, max_qpu_seconds=limit, **settings)
            used = server.ledger.totals()["quantum_seconds"]
            one = used / len(server.ledger.jobs)
            assert limit - one < used <= limit
        soak.train_on_device(tmp_path, data, teacher, **settings)
        assert len(server.ledger.jobs) == soak.STEPS
        assert_same(simulated_training, tmp_path)

    def test_parameter_shift_gives_the_simulators_gradient(self, tmp_path, rehearsal):
        rehearsal()
        connection = connect("ibm_manila", policy=soak.IMPATIENT)
        found = []
        with (
            Journal(tmp_path) as journal,
            Runner(connection, journal=journal, policy=soak.IMPATIENT) as runner,
        ):
            for target in (
                soak.target_of(connection, runner),
                DeviceTarget(
                    fake_backend(soak.DEVICE),
                    shots=soak.SHOTS,
                    seed=3,
                    num_transpilations=2,
                    simulator="aer",
                ),
            ):
                compiled = target.compile(plus())
                inputs = torch.tensor(VALUES, requires_grad=True)
                outcomes = ParameterShiftExecutor(target, compiled)
                outcomes(inputs, torch.empty(0, dtype=torch.float64))[:, 0].sum().backward()
                found.append(inputs.grad)
            assert journal.keys() == ["train/000000", "train/000001"]
        assert torch.equal(*found)
        assert (found[0] != 0).any()


class TestResuming:
    def test_a_later_process_keeps_the_circuit_and_its_calibration(self, tmp_path, rehearsal):
        server = rehearsal()
        found, _ = run(tmp_path)
        (path,) = (tmp_path / "jobs").glob("circuit-*.qpy")
        written = path.stat().st_mtime_ns
        again, _ = run(tmp_path, calls=3)
        np.testing.assert_array_equal(found, again[:2])
        assert len(server.ledger.jobs) == 3
        assert path.stat().st_mtime_ns == written
        path.write_bytes(b"QISKIT damaged")
        with pytest.raises(CheckpointError, match="bring back a copy"):
            run(tmp_path)

    def test_other_values_in_the_same_call_are_refused(self, tmp_path, rehearsal):
        rehearsal()
        run(tmp_path)
        with pytest.raises(CheckpointError, match=r"holds other circuits, .* under 't/000000'"):
            run(tmp_path, values=VALUES + 1e-9)

    def test_a_rehearsal_is_not_gone_on_with_elsewhere(self, tmp_path, rehearsal):
        rehearsal()
        run(tmp_path)
        for changed in ({"device": "fake_manila"}, {"twirl_gates": True}):
            with pytest.raises(CheckpointError, match="or another device"):
                run(tmp_path, **changed)


class TestFaults:
    def test_a_busy_service_is_left_alone_for_as_long_as_it_asks(self, tmp_path, rehearsal):
        server = rehearsal(faults=Faults(["submit:429:retry_after=1", "submit:429"]))
        begun = time.monotonic()
        found, _ = run(tmp_path, calls=1)
        assert time.monotonic() - begun > 1.0
        assert server.ledger.requests["submit"] == 3
        np.testing.assert_array_equal(found, simulated(calls=1))

    @pytest.mark.parametrize("fault", ["500", "503", "cut"])
    def test_the_client_itself_sends_no_job_twice(self, tmp_path, rehearsal, fault):
        server = rehearsal(faults=Faults([f"submit:{fault}:accepted"]))
        run(tmp_path, calls=1)
        assert server.ledger.requests["submit"] == len(server.ledger.jobs) == 1

    def test_a_job_that_takes_too_long_is_not_sent_again(self, tmp_path, rehearsal):
        server = rehearsal(faults=Faults(["run:max_time"]))
        with pytest.raises(SubmissionError, match=r"ran longer than runtime\.max_execution_time"):
            run(tmp_path, max_execution_time=3)
        assert len(server.ledger.jobs) == 1
        (record,) = read_journal(tmp_path).records.values()
        assert record.usage_s == sum(j.quantum_seconds for j in server.ledger.jobs.values()) > 0

    def test_a_failed_job_says_why(self, tmp_path, rehearsal, caplog):
        rehearsal(faults=Faults(["run:fail"]))
        found, _ = run(tmp_path)
        assert "Error code 1010; Error returned at backend level." in caplog.text
        np.testing.assert_array_equal(found, simulated())

    def test_an_expired_session_is_followed_by_another(self, tmp_path, rehearsal):
        server = rehearsal(faults=Faults(["run:expire_session:after=1"]))
        found, _ = run(tmp_path, mode="session", calls=3)
        np.testing.assert_array_equal(found, simulated(calls=3))
        assert len(server.ledger.sessions) == 2

    def test_faults_while_the_device_is_read(self, tmp_path, rehearsal):
        rehearsal(
            faults=Faults(["configuration:500", "properties:cut", "status:503", "backends:cut"])
        )
        found, _ = run(tmp_path)
        np.testing.assert_array_equal(found, simulated())

    def test_without_access_tokens_nothing_else_is_asked(self, tmp_path, rehearsal):
        server = rehearsal(faults=Faults(["token:500:rate=1"]))
        with pytest.raises(SubmissionError, match="the API key itself is never sent"):
            run(tmp_path)
        assert set(server.ledger.requests) == {"token"}

    def test_tokens_that_are_withdrawn_stop_the_run_at_once(self, tmp_path, rehearsal):
        server = rehearsal(faults=Faults(["submit:expire_token:after=1"]))
        with pytest.raises(SubmissionError, match=r"answered 401 .* again to go on"):
            run(tmp_path)
        found, _ = run(tmp_path)
        np.testing.assert_array_equal(found, simulated())
        assert len(server.ledger.jobs) == 2


class TestWrong:
    """One line, before anything is paid, without secrets."""

    @pytest.mark.parametrize(
        ("change", "settings", "said"),
        [
            ({"QISKIT_IBM_TOKEN": "another-token"}, {}, r"token .* is not accepted; check the one"),
            ({"QISKIT_IBM_INSTANCE": "crn:v1:a:b:c:d:e/f:0::"}, {}, "may not use its instance"),
            ({}, {"device": "ibm_manilla"}, r"no device 'ibm_manilla'; it has ibm_manila"),
            ({}, {"device": "ibm_torino"}, r"no device 'ibm_torino'; it has ibm_manila"),
            ({}, {"circuit": plus(6), "values": np.zeros((1, 6))}, "has 6 qubits, ibm_manila has"),
            ({}, {"max_executions": 199}, "200 shots are more than the 199 executions"),
        ],
    )
    def test_input(self, tmp_path, rehearsal, monkeypatch, caplog, capfd, change, settings, said):
        server = rehearsal()
        for name, value in change.items():
            monkeypatch.setenv(name, value)
        with (
            caplog.at_level(logging.DEBUG, logger="qkd_qiskit"),
            pytest.raises(QKDError, match=said) as caught,
        ):
            run(tmp_path, **settings)
        assert isinstance(caught.value, InputError)
        assert "\n" not in str(caught.value)
        assert not server.ledger.jobs
        texts = [str(caught.value), caplog.text, *capfd.readouterr()]
        for secret in (server.token, server.instance, "another-token", "crn:v1"):
            assert not any(secret in text for text in texts)

    @pytest.mark.parametrize("status", ["maintenance", "offline"])
    def test_a_device_that_is_down(self, tmp_path, rehearsal, status):
        server = rehearsal()
        server.backends["ibm_manila"].status = status
        if server.backends["ibm_manila"].down:
            with pytest.raises(TargetError, match=f"takes no jobs now .status '{status}'.*later"):
                run(tmp_path)
            assert not server.ledger.jobs
        server.backends["ibm_manila"].status = "active"
        found, _ = run(tmp_path)
        np.testing.assert_array_equal(found, simulated())

    def test_an_instance_without_time_is_told_before_a_job_waits(self, rehearsal, caplog):
        rehearsal(allowance_s=0.0)
        connect("ibm_manila").check_status()
        assert "ibm_manila: the instance has used up its QPU time" in caplog.text

    def test_exact_probabilities_of_a_device(self, tmp_path):
        connection = connect("fake_manila")
        with Journal(tmp_path) as journal, Runner(connection, journal=journal) as runner:
            target = RuntimeTarget(connection.backend, runner=runner, prefix="t/")
            compiled = target.compile(plus())
            with pytest.raises(TargetError, match="exact probabilities nobody knows"):
                target.exact_probabilities(compiled, VALUES)
            with pytest.raises(TargetError, match="shots is 0"):
                target.probabilities(compiled, VALUES, shots=0)
            assert target.probabilities(compiled, VALUES[:0]).shape == (0, 4)
