"""How circuits run on a device: in the count, the record, the journal and the report."""

import json

import numpy as np
import pytest
import torch
from test_submit_evaluation import NAME, Stopping, measured, with_runtime

from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError, TargetError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, collect_run, plan_dry_run, submit_run
from qkd_qiskit.experiments.submission.batching import CircuitGroup, group_students
from qkd_qiskit.experiments.submission.students import load_submitted
from qkd_qiskit.experiments.submission.submission import find_submissions
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.report.report import write_report
from qkd_qiskit.targets import Target

PLAIN = Request(backend="ibm_manila", mode="batch")


def asked(**options):
    return Request(backend="ibm_manila", mode="batch", options=options)


def journal_of(run, name=NAME):
    path = run.path / "devices" / name.replace(":", "-") / "journal.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()]


class TestReadout:
    def test_its_circuits_are_in_the_count_and_in_every_job(self, run_copy, rehearsal):
        run = with_runtime(run_copy, max_executions=900)
        server = rehearsal()
        plan = plan_dry_run(run, asked(readout_mitigation=True))
        before = plan_dry_run(run, PLAIN)
        assert plan.options == "readout errors mitigated"
        assert not server.ledger.jobs
        submit_run(run, asked(readout_mitigation=True))
        totals = server.ledger.totals()
        for name in ("jobs", "pubs", "circuits", "executions", "two_qubit_gates"):
            assert getattr(plan.chosen, name) == totals[name]
        assert plan.chosen.seconds == pytest.approx(totals["quantum_seconds"])
        assert totals["jobs"] == 3
        assert plan.chosen.circuits == before.chosen.circuits + 2 * 3
        assert plan.chosen.pubs == 2 * 3

    def test_known_errors_are_taken_back(self, run_copy):
        students = load_submitted(run_copy, seeds=(0, 1), limit=10)
        (plain,) = group_students(students.quantum, Target.parse("exact"))
        group = CircuitGroup(
            compiled=plain.compiled,
            members=plain.members,
            students=plain.students,
            calibrations=plain.compiled,
        )
        rng = np.random.default_rng(0)
        true = rng.dirichlet(np.ones(4), size=4 * 3)
        read = np.kron([[0.9, 0.1], [0.2, 0.8]], [[0.97, 0.03], [0.06, 0.94]])
        images = students.split.images[:3]
        expected = plain.logits([true], images)
        found = group.logits([true @ read, read[[0, 3]]], images)
        for member, logits in expected.items():
            torch.testing.assert_close(found[member], logits, atol=1e-6, rtol=1e-5)


class TestRecord:
    WORDS = (
        *("--twirling", "all", "--dynamical-decoupling", "xy4", "--layout", "2,3"),
        *("--optimization-level", "1", "--mode", "batch"),
    )

    def test_everything_is_told(self, run_copy, rehearsal, capsys):
        server = rehearsal()
        words = ["submit", str(run_copy.path), "--backend", "ibm_manila", *self.WORDS]
        assert main([*words, "--dry-run", "--json"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert main(words) == 0
        told = "gates twirled, measurements twirled, decoupling XY4, on qubits 2, 3, "
        told += "optimisation level 1"
        assert plan["options"] == told
        (submission,) = find_submissions(run_copy)
        options = {"twirl_gates": True, "twirl_measure": True, "dynamical_decoupling": "XY4"}
        options |= {"layout": [2, 3], "optimization_level": 1}
        assert submission.options == options
        assert {it["options"] for it in journal_of(run_copy) if it["event"] == "intent"} == {told}
        summary = RunFolder.open(run_copy.path).result.targets[NAME]
        assert summary.device.options == options
        assert summary.circuit.layout == (2, 3)
        assert told in (run_copy.path / "report.html").read_text()
        (job,) = server.ledger.jobs.values()
        assert (plan["chosen"]["circuits"] * 64, plan["chosen"]["shots"]) == (job.executions, 64)

    def test_without_options_nothing_is_written(self, run_copy, rehearsal):
        rehearsal()
        submit_run(run_copy, PLAIN)
        path = run_copy.path / "devices" / NAME.replace(":", "-") / "submission.json"
        assert "options" not in json.loads(path.read_text())
        assert not any("options" in it for it in journal_of(run_copy))
        assert RunFolder.open(run_copy.path).result.targets[NAME].device.options is None


class TestNeverMixed:
    def test_another_option_does_not_go_on_with_what_was_begun(self, run_copy, rehearsal):
        run = with_runtime(run_copy, max_executions=700)
        server = rehearsal()
        with pytest.raises(KeyboardInterrupt):
            submit_run(run, asked(dynamical_decoupling="XX"), callback=Stopping(1))
        with pytest.raises(InputError, match=r"options .*XX.*; finish it first: qkd collect"):
            submit_run(run, PLAIN)
        (outcome,) = collect_run(run)
        assert outcome.submission.options == {"dynamical_decoupling": "XX"}
        intents = [it for it in journal_of(run) if it["event"] == "intent"]
        assert {it["options"] for it in intents} == {"decoupling XX"}
        assert server.ledger.totals()["executed_jobs"] == len(intents)

    def test_finished_figures_stand_beside_each_other(self, run_copy, rehearsal):
        server = rehearsal()
        plain = submit_run(run_copy, PLAIN).result
        both = submit_run(run_copy, asked(layout=(3, 2))).result
        assert len(server.ledger.jobs) == 2
        assert measured(both) == measured(plain)
        assert both.targets[f"{NAME}#2"].circuit.layout == (3, 2)
        again = submit_run(run_copy, asked(layout=(3, 2)))
        assert again.already
        assert len(server.ledger.jobs) == 2
        write_report(run_copy)
        assert "on qubits 3, 2" in (run_copy.path / "report.html").read_text()

    def test_what_the_recipe_says_anyway_is_no_change(self, run_copy, rehearsal):
        run = with_runtime(run_copy, twirl_measure=True)
        rehearsal()
        result = submit_run(run, asked(twirl_measure=True)).result
        assert find_submissions(run)[0].options == {}
        assert result.targets[NAME].device.options == {"twirl_measure": True}


class TestRefused:
    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("--twirling some", "--twirling: 'some' is not accepted; give none, gates"),
            ("--dynamical-decoupling XY", "--dynamical-decoupling: 'XY' is not accepted"),
            ("--layout 1,1", "--layout: '1,1' is not accepted"),
            ("--layout one", "--layout: 'one' is not accepted"),
            ("--layout 1,2,3", "layout 1, 2, 3 is not accepted for a circuit of 2 qubits"),
            ("--layout 0,77", "77 is not calibrated"),
            ("--optimization-level 4", "--optimization-level: 4 is not accepted"),
            ("--fractional", "fake_manila has no fractional gates"),
            ("--fractional --twirling gates", "false where runtime.fractional is true"),
            ("--mitigate-readout --train spsa", "--mitigate-readout is for an evaluation"),
        ],
    )
    def test_in_one_line_before_anything_is_sent(self, run_copy, capsys, words, message):
        command = ["submit", str(run_copy.path), "--backend", "fake_manila", *words.split()]
        assert main(command) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
        assert not (run_copy.path / "devices").exists()

    def test_a_record_with_options_that_are_none(self, run_copy, rehearsal):
        rehearsal()
        submit_run(run_copy, asked(layout=(3, 2)))
        path = run_copy.path / "devices" / NAME.replace(":", "-") / "submission.json"
        for wrong in ({"speed": 3}, {"optimization_level": 9}):
            path.write_text(json.dumps(json.loads(path.read_text()) | {"options": wrong}))
            with pytest.raises(Exception, match="bring back a copy"):
                find_submissions(run_copy)


class TestFractional:
    def test_a_student_on_gates_of_any_angle(self, run_copy, rehearsal):
        rehearsal("fake_fractional")
        request = Request(backend="ibm_fractional", mode="batch", options={"fractional": True})
        result = submit_run(run_copy, request).result
        device = result.targets["ibm_fractional:rehearsal"].device
        assert device.options == {"fractional": True}
        assert device.qpu_seconds > 0

    def test_without_being_asked_for_they_are_not_there(self, run_copy, rehearsal):
        rehearsal("fake_fractional")
        plain = plan_dry_run(run_copy, Request(backend="ibm_fractional"))
        request = Request(backend="ibm_fractional", options={"fractional": True})
        fractional = plan_dry_run(run_copy, request)
        assert fractional.options == "fractional gates"
        assert fractional.depth < plain.depth

    def test_a_device_that_has_none(self, run_copy, rehearsal):
        rehearsal()
        with pytest.raises(TargetError, match="ibm_manila has no fractional gates"):
            plan_dry_run(run_copy, asked(fractional=True))


def test_words_of_every_option():
    spec = RuntimeSpec(twirl_gates=True, layout=(1, 2), readout_mitigation=True)
    assert spec.describe() == "gates twirled, on qubits 1, 2, readout errors mitigated"
    assert RuntimeSpec(mode="session").describe() == ""
