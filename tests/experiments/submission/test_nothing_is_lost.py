"""What was paid for is read whatever happened since to the device, the journal or the run."""

import json
import shutil
from dataclasses import replace

import pytest
from test_submit_evaluation import NAME, Stopping, StoppingOnceSent, measured, with_runtime

from qkd_qiskit.cli import main
from qkd_qiskit.errors import CheckpointError, InputError, TargetError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, collect_run, submit_run
from qkd_qiskit.experiments.submission.submission import find_submissions
from qkd_qiskit.run import resume_experiment

REQUEST = Request(backend="ibm_manila", mode="job")


def record_of(run):
    (path,) = run.path.glob("devices/*/submission.json")
    return path


class TestDevices:
    def test_one_that_is_retired_still_gives_what_it_has_run(self, run_copy, rehearsal):
        server = rehearsal(["fake_manila", "fake_lima"])
        with pytest.raises(KeyboardInterrupt):
            submit_run(run_copy, REQUEST, callback=StoppingOnceSent())
        server.retire("ibm_manila")
        with pytest.raises(TargetError, match="ibm_manila no more: nothing can be sent"):
            submit_run(run_copy, replace(REQUEST, backend="ibm_manila", shots=51))
        (outcome,) = collect_run(RunFolder.open(run_copy.path))
        assert outcome.submission.finished
        assert len(server.ledger.jobs) == 1
        device = outcome.result.targets[NAME].device
        assert device.qpu_seconds == pytest.approx(server.ledger.totals()["quantum_seconds"])

    def test_one_that_is_retired_is_sent_nothing(self, run_copy, rehearsal):
        run = with_runtime(run_copy, max_executions=700)
        server = rehearsal(["fake_manila", "fake_lima"])
        with pytest.raises(KeyboardInterrupt):
            submit_run(run, REQUEST, callback=StoppingOnceSent())
        server.retire("ibm_manila")
        with pytest.raises(TargetError, match="ibm_manila no more: nothing can be sent"):
            collect_run(run)
        assert len(server.ledger.jobs) == 1

    def test_one_whose_coupler_is_gone(self, run_copy, rehearsal, monkeypatch):
        server = rehearsal()
        with pytest.raises(KeyboardInterrupt):
            submit_run(run_copy, REQUEST, callback=StoppingOnceSent())
        device = server.backends["ibm_manila"]
        gates = device.properties["gates"]
        device.properties["gates"] = [gate for gate in gates if gate["gate"] != "cx"]
        coupled = device.configuration["gates"]
        device.configuration["gates"] = [gate for gate in coupled if gate["name"] != "cx"]
        device.configuration["coupling_map"] = []
        (outcome,) = collect_run(run_copy)
        assert outcome.submission.finished
        assert outcome.result.targets[NAME].circuit.fidelity < 1
        assert len(server.ledger.jobs) == 1


class TestRunFolder:
    def test_a_result_that_is_gone_is_made_again_with_its_device(self, run_copy, rehearsal):
        rehearsal()
        before = submit_run(run_copy, REQUEST).result
        (run_copy.path / "result.json").unlink()
        after = resume_experiment(run_copy.path).result
        assert after.targets[NAME] == before.targets[NAME]
        assert measured(after) == measured(before)
        assert after.gain[NAME] == before.gain[NAME]

    def test_so_it_is_where_an_earlier_version_kept_no_record_of_the_device(
        self, run_copy, rehearsal
    ):
        server = rehearsal()
        before = submit_run(run_copy, REQUEST).result
        (record_of(run_copy).parent / "device.json").unlink()
        (run_copy.path / "result.json").write_text("{")
        assert NAME not in resume_experiment(run_copy.path).result.targets
        (outcome,) = collect_run(RunFolder.open(run_copy.path))
        assert outcome.result.targets[NAME] == before.targets[NAME]
        assert len(server.ledger.jobs) == 1

    @pytest.mark.parametrize("how", ["missing", "empty", "damaged"])
    def test_a_journal_that_is_lost_is_refused_and_then_rebuilt(self, run_copy, rehearsal, how):
        run = with_runtime(run_copy, max_executions=700)
        server = rehearsal()
        with pytest.raises(KeyboardInterrupt):
            submit_run(run, REQUEST, callback=Stopping(2))
        journal = record_of(run).parent / "journal.jsonl"
        if how == "missing":
            journal.unlink()
        elif how == "empty":
            journal.write_text("")
        else:
            journal.write_text(journal.read_text()[40:])
        with pytest.raises(CheckpointError, match=r"qkd collect \S+ --adopt") as caught:
            collect_run(run)
        assert str(caught.value).count("\n") == 0
        assert main(["collect", str(run.path), "--adopt", "--quiet"]) == 0
        totals = server.ledger.totals()
        assert (totals["jobs"], totals["executed_jobs"]) == (4, 4)
        device = RunFolder.open(run.path).result.targets[NAME].device
        assert device.qpu_seconds == pytest.approx(totals["quantum_seconds"])
        assert sorted(device.jobs) == sorted(server.ledger.jobs)

    def test_two_copies_of_a_run_do_not_pay_twice(self, run_copy, rehearsal, tmp_path):
        run = with_runtime(run_copy, max_executions=700)
        server = rehearsal()
        with pytest.raises(KeyboardInterrupt):
            submit_run(run, REQUEST, callback=StoppingOnceSent())
        shutil.copytree(run.path, tmp_path / "copy")
        collect_run(run)
        copy = RunFolder.open(tmp_path / "copy")
        with pytest.raises(CheckpointError, match="another copy of the run has sent them"):
            collect_run(copy)
        assert len(server.ledger.jobs) == 4
        collect_run(copy, adopt=True)
        assert len(server.ledger.jobs) == 4
        assert measured(copy.result) == measured(run.result)

    @pytest.mark.parametrize(
        ("key", "value", "message"),
        [
            ("mode", "fast", "mode is 'fast'"),
            ("place", "moon", "place is 'moon'"),
            ("name", "../../elsewhere", "its folder is"),
            ("backend", "../x", "is no name of a device"),
            ("shots", 0, "shots is 0"),
            ("shots", "many", "shots is 'many'"),
            ("limit", -1, "limit is -1"),
            ("seeds", [], "seeds is empty"),
            ("seeds", 3, "seeds"),
            ("max_qpu_seconds", -1, "max_qpu_seconds is -1"),
        ],
    )
    def test_a_record_that_says_what_cannot_be(self, run_copy, key, value, message):
        submit_run(run_copy, Request(backend="fake_manila"))
        path = record_of(run_copy)
        path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
        with pytest.raises(CheckpointError, match="bring back a copy") as caught:
            find_submissions(run_copy)
        assert message in str(caught.value)

    def test_what_is_refused_leaves_nothing_behind(self, run_copy, rehearsal):
        rehearsal()
        run = with_runtime(run_copy, max_executions=40)
        with pytest.raises(InputError, match="give fewer shots"):
            submit_run(run, Request(backend="ibm_manila"))
        assert not (run.path / "devices").exists()
