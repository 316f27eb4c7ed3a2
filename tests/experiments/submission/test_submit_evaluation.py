"""TrainingResult students on a device: what is sent is what was said, and nothing is sent twice."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit.cli import main
from qkd_qiskit.errors import BudgetError, CheckpointError, InputError, TargetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import target_logits
from qkd_qiskit.experiments.recalibration import SUFFIX, recalibrations
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, collect_run, plan_dry_run, submit_run
from qkd_qiskit.experiments.submission.batching import (
    LONGEST_JOB_S,
    chunks,
    group_students,
    images_per_job,
)
from qkd_qiskit.experiments.submission.students import load_submitted
from qkd_qiskit.experiments.submission.submission import find_submissions
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.report.report import write_report
from qkd_qiskit.storage import write_text
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.emulator import Fault
from qkd_qiskit.targets.ibm.job_plan import Limits
from qkd_qiskit.targets.ibm.usage_model import seconds_per_execution
from qkd_qiskit.targets.sampling import sample_probabilities

NAME = "ibm_manila:rehearsal"


class Stopping(Callback):
    """Interrupts after so many jobs are done."""

    def __init__(self, done):
        self.done = done

    def jobs(self, totals):
        if totals.finished >= self.done:
            raise KeyboardInterrupt


class StoppingOnceSent(Callback):
    """Interrupts after a job is sent."""

    def jobs(self, totals):
        if totals.pending:
            raise KeyboardInterrupt


def with_runtime(run, **changes):
    """The run with other limits of its jobs."""
    recipe = replace(run.recipe, runtime=replace(run.recipe.runtime, **changes))
    write_text(run.path / "recipe.yaml", dump_recipe(recipe))
    return RunFolder.open(run.path)


def measured(result, name=NAME):
    return {arm: by_target[name].accuracy for arm, by_target in result.arms.items()}


class TestWhatIsSent:
    def test_students_of_one_image_lie_side_by_side(self, run_copy):
        evaluation_set = load_submitted(run_copy, seeds=(0, 1), limit=10)
        target = Target.parse("exact")
        (group,) = group_students(evaluation_set.quantum, target)
        assert group.members == tuple(
            (arm, seed) for seed in (0, 1) for arm in ("label_only", "distilled")
        )
        (pub,), (compiled,) = group.pubs(evaluation_set.split.images[:3], shots=50), group.compiled
        assert pub.values.shape == (3 * 4, len(compiled.parameters))
        weights = [name.startswith("w_") for name in compiled.parameters]
        for place, student in enumerate(group.students):
            own = pub.values[place::4, weights]
            expected = student.weights.detach().double().numpy()
            assert np.array_equal(own, np.tile(expected, (3, 1)))

    def test_counts_become_the_logits_of_their_students(self, run_copy):
        evaluation_set = load_submitted(run_copy, seeds=(0, 1), limit=10)
        target = Target.parse("exact")
        (group,) = group_students(evaluation_set.quantum, target)
        images = evaluation_set.split.images
        (pub,) = group.pubs(images, shots=1)
        rows = target.probabilities(group.compiled[0], pub.values)
        found = group.logits([np.round(rows * 2**40).astype(np.int64)], images)
        for member, student in evaluation_set.quantum:
            expected = target_logits(student, images, target=target)
            torch.testing.assert_close(found[member], expected, rtol=0, atol=1e-5)

    def test_a_job_holds_whole_images_within_its_limits(self, run_copy):
        evaluation_set = load_submitted(run_copy, seeds=(0, 1), limit=10)
        groups = group_students(evaluation_set.quantum, Target.parse("fake_manila"))
        executions = 4 * 50
        for most, expected in ((executions * 3 + 199, 3), (executions, 1)):
            limits = Limits(max_executions=most)
            assert images_per_job(groups, shots=50, limits=limits) == expected
        found = images_per_job(groups, shots=50, limits=Limits())
        each = executions * seconds_per_execution(groups[0].compiled[0].duration_s)
        assert found * each <= LONGEST_JOB_S < (found + 1) * each
        assert list(chunks(5, per_job=2)) == [
            ("evaluate/0000", slice(0, 2)),
            ("evaluate/0001", slice(2, 4)),
            ("evaluate/0002", slice(4, 5)),
        ]


@pytest.mark.parametrize("mode", ["session", "batch", "job"])
def test_what_is_sent_and_charged_is_what_was_said(mode, run_copy, rehearsal):
    run = with_runtime(run_copy, max_executions=700)  # 3 images of 4 students, 50 shots
    server = rehearsal()
    request = Request(backend="ibm_manila", mode=mode)
    said = plan_dry_run(run, request).chosen
    assert not server.ledger.jobs
    assert not (run.path / "devices").exists()
    outcome = submit_run(run, request)
    totals = server.ledger.totals()
    for name in ("jobs", "pubs", "circuits", "executions", "two_qubit_gates"):
        assert getattr(said, name) == totals[name]
    assert (said.jobs, said.circuits) == (4, 40)
    assert said.seconds - said.wait_seconds == pytest.approx(totals["quantum_seconds"], rel=0.01)
    modes = {"session": ["dedicated"], "batch": ["batch"], "job": []}[mode]
    assert [session.mode for session in server.ledger.sessions.values()] == modes
    device = outcome.result.targets[NAME].device
    assert device.qpu_seconds == pytest.approx(totals["quantum_seconds"])
    assert list(device.jobs) == list(server.ledger.jobs)
    assert (device.place, device.mode) == ("rehearsal", mode)


def test_figures_are_those_of_the_local_simulator(run_copy, rehearsal):
    """What the true client brings back equals the same seed's shots on the simulated device."""
    rehearsal()
    outcome = submit_run(run_copy, Request(backend="ibm_manila", shots=400, mode="job"))
    name = f"{NAME}@400"
    evaluation_set = load_submitted(run_copy, seeds=(0, 1), limit=10)
    target = Target.parse("fake_manila", shots=400, seed=run_copy.recipe.seed)
    (group,) = group_students(evaluation_set.quantum, target)
    (pub,) = group.pubs(evaluation_set.split.images, shots=400)
    program = group.compiled[0].program
    rows = sample_probabilities(
        program.noisy.circuit,
        pub.values,
        parameters=pub.parameters,
        simulator=program.simulator,
        shots=400,
        seed=derive_seed(run_copy.recipe.seed, name, "evaluate/0000") >> 33,
    )
    logits = group.logits([np.round(rows * 400).astype(np.int64)], evaluation_set.split.images)
    for (arm, seed), found in logits.items():
        hits = found.argmax(dim=1) == evaluation_set.split.labels
        place = outcome.result.seeds.index(seed)
        assert outcome.result.arms[arm][name].accuracy[place] == pytest.approx(
            float(hits.double().mean())
        )
    assert outcome.result.targets[name].shots == 400


def test_a_finished_one_is_not_paid_twice(run_copy, rehearsal):
    server = rehearsal()
    request = Request(backend="ibm_manila")
    first = submit_run(run_copy, request)
    second = submit_run(RunFolder.open(run_copy.path), request)
    assert (first.already, second.already) == (False, True)
    assert second.result == first.result
    assert collect_run(run_copy)[0].already
    assert len(server.ledger.jobs) == 1
    again = submit_run(run_copy, replace(request, again=True))
    assert again.submission.name == f"{NAME}#2"
    assert len(server.ledger.jobs) == 2
    assert set(again.result.targets) == {"exact", "fake_manila", NAME, f"{NAME}#2"}


@pytest.mark.parametrize("resume_hint", ["collect", "submit"])
@pytest.mark.parametrize("done", [1, 3])
def test_one_that_was_stopped_ends_alike(
    done, resume_hint, run_copy, rehearsal, tmp_path, finished
):
    run = with_runtime(run_copy, max_executions=700)
    server, request = rehearsal(), Request(backend="ibm_manila")
    with pytest.raises(KeyboardInterrupt):
        submit_run(run, request, callback=Stopping(done))
    assert not find_submissions(run)[0].finished
    run = RunFolder.open(run.path)
    if resume_hint == "collect":
        (outcome,) = collect_run(run)
    else:
        outcome = submit_run(run, request)
    assert len(server.ledger.jobs) == 4
    assert all(job.results_read >= 1 for job in server.ledger.jobs.values())
    whole = tmp_path / "whole"
    shutil.copytree(finished.path, whole)
    other = submit_run(with_runtime(RunFolder.open(whole), max_executions=700), request)
    assert measured(other.result) == measured(outcome.result)


def test_the_allowed_seconds_are_not_passed_and_the_rest_can_follow(run_copy, rehearsal):
    run = with_runtime(run_copy, max_executions=700)
    server, request = rehearsal(), Request(backend="ibm_manila", max_qpu_seconds=5.0)
    with pytest.raises(BudgetError, match=r"; \d+ are needed; to go on: qkd collect \S+ --max-"):
        submit_run(run, request)
    assert 0 < server.ledger.totals()["quantum_seconds"] <= 5
    assert len(server.ledger.jobs) == 2
    with pytest.raises(BudgetError):
        collect_run(run)  # keeps to what was allowed
    assert len(server.ledger.jobs) == 2
    assert main(["collect", str(run.path), "--max-qpu-seconds", "100", "--quiet"]) == 0
    outcome = submit_run(run, request)
    assert len(server.ledger.jobs) == 4
    assert outcome.submission.finished


@pytest.mark.parametrize("resume_hint", ["collect", "submit"])
def test_what_is_billed_after_the_end_is_asked_for_later(
    resume_hint, run_copy, rehearsal, monkeypatch
):
    monkeypatch.setattr("qkd_qiskit.targets.ibm.usage._ROUNDS", 1)
    server, request = rehearsal(), Request(backend="ibm_manila", mode="job")
    server.faults.add(Fault.parse("metrics:pending:times=9"))
    outcome = submit_run(run_copy, request)
    assert outcome.result.targets[NAME].device.qpu_seconds is None
    run = RunFolder.open(run_copy.path)
    for told in (None, server.ledger.totals()["quantum_seconds"]):
        if told is not None:
            server.faults.clear()
        again = collect_run(run)[0] if resume_hint == "collect" else submit_run(run, request)
        assert again.already
        assert again.result.targets[NAME].device.qpu_seconds == told
        assert RunFolder.open(run.path).result == again.result
    assert len(server.ledger.jobs) == 1


def test_the_bill_of_a_service_that_is_gone_stays_unknown(run_copy, rehearsal, monkeypatch, caplog):
    monkeypatch.setattr("qkd_qiskit.targets.ibm.usage._ROUNDS", 1)
    server = rehearsal()
    server.faults.add(Fault.parse("metrics:pending:times=9"))
    finished = submit_run(run_copy, Request(backend="ibm_manila", mode="job"))
    monkeypatch.setenv("QISKIT_IBM_TOKEN", "another-token")
    (outcome,) = collect_run(run_copy)
    assert (outcome.already, outcome.result) == (True, finished.result)
    assert f"{NAME}: what it used stays unknown" in caplog.text


def test_some_seeds_alone(run_copy, rehearsal):
    rehearsal()
    outcome = submit_run(run_copy, Request(backend="ibm_manila", seeds=(1,)))
    for by_target in outcome.result.arms.values():
        assert by_target[NAME].accuracy[0] is None
        assert by_target[NAME].accuracy[1] is not None
    assert outcome.result.gain[NAME].seeds <= 1
    assert "rehearsal" in write_report(run_copy).read_text()
    with pytest.raises(InputError, match="has the seeds 0, 1"):
        submit_run(run_copy, Request(backend="ibm_manila", seeds=(1, 7)))


def test_what_was_begun_with_other_numbers_is_finished_first(run_copy, rehearsal):
    run = with_runtime(run_copy, max_executions=700)
    rehearsal()
    with pytest.raises(KeyboardInterrupt):
        submit_run(run, Request(backend="ibm_manila"), callback=Stopping(1))
    with pytest.raises(InputError, match="finish it first: qkd collect"):
        submit_run(run, Request(backend="ibm_manila", limit=5))


def test_a_rehearsal_is_not_gone_on_with_elsewhere(run_copy, rehearsal, monkeypatch):
    run = with_runtime(run_copy, max_executions=700)
    rehearsal()
    with pytest.raises(KeyboardInterrupt):
        submit_run(run, Request(backend="ibm_manila"), callback=Stopping(1))
    monkeypatch.setattr("qkd_qiskit.experiments.submission.device.is_emulator", lambda: False)
    with pytest.raises(CheckpointError, match="begun on a rehearsal and this would be a device"):
        collect_run(run)


def test_local_testing_mode_is_a_simulation(run_copy):
    outcome = submit_run(run_copy, Request(backend="fake_manila"))
    device = outcome.result.targets["fake_manila:submitted"].device
    assert device.place == "simulation"
    assert device.qpu_seconds == 0
    text = write_report(run_copy).read_text()
    assert "fake_manila:submitted is a simulation" in text
    assert "measured on fake_manila" not in text


class TestBadInput:
    def test_without_an_account(self, run_copy):
        with pytest.raises(TargetError, match="needs an IBM Quantum account"):
            plan_dry_run(run_copy, Request(backend="ibm_nowhere"))
        assert "snapshot fake_manila" in plan_dry_run(run_copy, Request(backend="ibm_manila")).note
        with pytest.raises(TargetError, match="needs an IBM Quantum account"):
            submit_run(run_copy, Request(backend="ibm_manila"))
        plan = plan_dry_run(run_copy, Request(backend="ibm_manila"))
        assert plan.note == "no account is saved: compiled for the snapshot fake_manila"
        assert plan.device == "fake_manila"

    def test_unknown_devices_and_simulators(self, run_copy, rehearsal):
        rehearsal()
        with pytest.raises(TargetError, match="no device 'ibm_manilla'; it has ibm_manila"):
            submit_run(run_copy, Request(backend="ibm_manilla"))
        with pytest.raises(TargetError, match="did you mean fake_manila"):
            submit_run(run_copy, Request(backend="fake_manilla"))
        with pytest.raises(InputError, match="takes no jobs"):
            submit_run(run_copy, Request(backend="aer"))

    def test_a_device_that_is_down(self, run_copy, rehearsal):
        server = rehearsal()
        server.backends["ibm_manila"].status = "offline"
        with pytest.raises(TargetError, match="takes no jobs now"):
            submit_run(run_copy, Request(backend="ibm_manila"))

    def test_a_device_that_went_down_still_gives_what_it_has_run(self, run_copy, rehearsal):
        server, request = rehearsal(), Request(backend="ibm_manila", mode="job")
        with pytest.raises(KeyboardInterrupt):
            submit_run(run_copy, request, callback=StoppingOnceSent())
        server.backends["ibm_manila"].status = "offline"
        assert plan_dry_run(run_copy, request).chosen.jobs == 1
        (outcome,) = collect_run(run_copy)
        assert outcome.submission.finished
        assert len(server.ledger.jobs) == 1

    def test_more_executions_than_a_job_may_have(self, run_copy, rehearsal):
        rehearsal()
        run = with_runtime(run_copy, max_executions=40)
        with pytest.raises(InputError, match="give fewer shots"):
            submit_run(run, Request(backend="ibm_manila"))

    def test_an_open_plan_has_no_sessions(self, run_copy, rehearsal, caplog):
        server = rehearsal(plan="open")
        outcome = submit_run(run_copy, Request(backend="ibm_manila", mode="session"))
        assert outcome.result.targets[NAME].device.mode == "batch"
        assert [one.mode for one in server.ledger.sessions.values()] == ["batch"]
        assert "no sessions" in caplog.text

    def test_an_open_plan_is_counted_without_sessions(self, run_copy, rehearsal, monkeypatch):
        rehearsal()  # whose account tells the client no plan
        monkeypatch.setattr("qkd_qiskit.targets.ibm.connection.plan_of", lambda *_: "open")
        request = Request(backend="ibm_manila", mode="session")
        said = plan_dry_run(run_copy, request)
        assert said.note == "its plan has no sessions: one batch"
        assert said.chosen == plan_dry_run(run_copy, replace(request, mode="batch")).chosen

    def test_a_run_without_circuits_or_end(self, run_copy, tmp_path, tiny):
        begun = RunFolder.create(tmp_path / "begun", load_recipe(tiny))
        with pytest.raises(CheckpointError, match="has not ended"):
            submit_run(begun, Request(backend="fake_manila"))
        with pytest.raises(CheckpointError, match="has no submission"):
            collect_run(run_copy)


def test_nothing_secret_is_written_anywhere(run_copy, rehearsal, capfd, caplog):
    caplog.set_level("DEBUG", logger="qkd_qiskit")
    server = rehearsal(faults=None)
    submit_run(with_runtime(run_copy, max_executions=700), Request(backend="ibm_manila"))
    write_report(run_copy)
    texts = [path.read_bytes() for path in run_copy.path.rglob("*") if path.is_file()]
    seen = capfd.readouterr()
    texts += [seen.out.encode(), seen.err.encode(), caplog.text.encode()]
    assert any(NAME.encode() in text for text in texts)
    for text in texts:
        assert server.token.encode() not in text
        assert b"crn:v1" not in text


def test_the_journal_accounts_for_every_job(run_copy, rehearsal):
    server = rehearsal()
    submit_run(with_runtime(run_copy, max_executions=700), Request(backend="ibm_manila"))
    (path,) = run_copy.path.glob("devices/*/journal.jsonl")
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    ended = [entry for entry in entries if entry["event"] == "finished"]
    assert sum(entry["usage_s"] for entry in ended) == pytest.approx(
        server.ledger.totals()["quantum_seconds"]
    )


def test_a_run_whose_arms_are_not_trained_on_a_device_has_its_price(run_copy):
    (run_copy.path / "distilled").rename(run_copy.path / "replicate")
    path = run_copy.path / "recipe.yaml"
    arms = "arms: [label_only, distilled, classical_twin]"
    assert arms in path.read_text()
    path.write_text(path.read_text().replace(arms, "arms: [replicate, classical_twin]"))
    plan = plan_dry_run(RunFolder.open(run_copy.path), Request(backend="fake_manila"))
    assert plan.others == ()
    assert plan.chosen.circuits == 2 * 10  # seeds, images


def test_unlabelled_images_ride_in_the_same_jobs(run_copy, rehearsal):
    """As many circuits as were planned; the map is kept and corrects later submissions, too."""
    server = rehearsal()
    request = Request(backend="ibm_manila", mode="job", shots=200, recalibrate=12)
    plan = plan_dry_run(run_copy, request)
    assert (plan.images, plan.unlabelled, plan.chosen.circuits) == (10, 12, 4 * 22)
    result = submit_run(run_copy, request).result
    assert server.ledger.totals()["circuits"] == 4 * 22
    assert len(server.ledger.jobs) == plan.chosen.jobs
    key = f"{NAME}@200{SUFFIX}"
    summary = result.targets[key].recalibration
    assert (summary.images, summary.shots, summary.kind) == (12, 200, "affine")
    assert 0 < summary.qpu_seconds < plan.chosen.seconds / 4
    known = recalibrations(run_copy, "distilled", 0)[NAME]
    assert known.target == NAME
    assert result.arms["distilled"][key].images == (10, 10)
    twin = result.arms["classical_twin"]
    assert twin[key].accuracy == twin[f"{NAME}@200"].accuracy
    later = submit_run(run_copy, Request(backend="ibm_manila", mode="job", shots=100)).result
    assert f"{NAME}@100{SUFFIX}" in later.targets
    assert recalibrations(run_copy, "distilled", 0)[NAME] == known
    again = submit_run(run_copy, request)
    assert again.already
