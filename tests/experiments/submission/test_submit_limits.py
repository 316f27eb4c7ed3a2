"""What the service allows is kept, and said before."""

import logging
from dataclasses import replace

import pytest
from test_submit_evaluation import NAME, with_runtime

from qkd_qiskit.cli import main
from qkd_qiskit.errors import BudgetError
from qkd_qiskit.experiments.submission import Request, collect_run, plan_dry_run, submit_run
from qkd_qiskit.targets.ibm.emulator import Faults
from qkd_qiskit.targets.ibm.service_limits import ServiceLimits

REQUEST = Request(backend="ibm_manila", mode="batch")


@pytest.mark.parametrize("mode", ["batch", "session"])
def test_an_evaluation_stays_within_what_the_server_enforces(run_copy, rehearsal, mode):
    run = with_runtime(run_copy, max_executions=350)  # 10 jobs
    limits = ServiceLimits(jobs=4, window_s=1.0, pending=2)
    server = rehearsal(limits=limits)
    result = submit_run(run, Request(backend="ibm_manila", mode=mode)).result
    assert len(server.ledger.jobs) == 10
    assert server.limits.refused == 0  # it counts every request
    device = result.targets[NAME].device
    assert device.qpu_seconds == pytest.approx(server.ledger.totals()["quantum_seconds"])


def test_one_that_does_not_know_them_is_refused_and_goes_on(run_copy, rehearsal, monkeypatch):
    """Other programs of the account create jobs too: a refusal is waited out."""
    run = with_runtime(run_copy, max_executions=350)
    server = rehearsal(limits=ServiceLimits(jobs=3, window_s=1.5, pending=2))
    monkeypatch.setattr(
        "qkd_qiskit.targets.ibm.connection.RuntimeConnection.service_limits",
        lambda self: ServiceLimits(),
    )
    submit_run(run, REQUEST)
    assert server.limits.refused > 0
    assert server.ledger.totals()["executed_jobs"] == len(server.ledger.jobs) == 10


def test_a_dry_run_tells_limits_and_what_is_left(run_copy, rehearsal, capsys):
    rehearsal(plan="open", limits=True)
    plan = plan_dry_run(run_copy, REQUEST)
    assert (plan.limits.jobs, plan.limits.pending) == (5, 3)
    assert (plan.allowance.limit_s, plan.allowance.remaining_s) == (600.0, 600.0)
    assert main(["submit", str(run_copy.path), "--backend", "ibm_manila", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "limits of the service: 5 new jobs a minute, 3 that wait or run\n" in printed
    assert "the instance has 600 of 600 QPU seconds left" in printed
    assert "are needed" not in printed


def test_what_is_more_than_is_left_is_said_before_it_is_sent(run_copy, rehearsal, caplog):
    rehearsal(plan="open", allowance_s=1.0)
    plan = plan_dry_run(run_copy, REQUEST)
    assert "1 of 1 QPU seconds left" in plan.allowance.describe(plan.chosen.seconds)
    assert "are needed" in plan.allowance.describe(plan.chosen.seconds)
    with caplog.at_level(logging.WARNING):
        submit_run(run_copy, REQUEST)
    assert any("are needed: jobs that do not fit wait" in text for text in caplog.messages)


def test_a_snapshot_has_the_limits_of_the_open_plan(run_copy):
    plan = plan_dry_run(run_copy, Request(backend="fake_manila"))
    assert plan.limits == ServiceLimits.of_plan("open")
    assert plan.allowance.remaining_s is None


def test_a_job_that_takes_more_than_is_allowed_is_cancelled_while_it_runs(run_copy, rehearsal):
    server = rehearsal(faults=Faults(["run:overrun:seconds=500"]))
    with pytest.raises(BudgetError, match=r"has used 50\d so far: the 60 that are allowed"):
        submit_run(run_copy, replace(REQUEST, max_qpu_seconds=60.0))
    (job,) = server.ledger.jobs.values()
    assert (job.status, job.executed) == ("Cancelled", False)
    with pytest.raises(BudgetError, match="the 60 that are allowed would be passed"):
        collect_run(run_copy)
    assert len(server.ledger.jobs) == 1
    (outcome,) = collect_run(run_copy, max_qpu_seconds=700.0)
    assert outcome.submission.finished
    assert server.ledger.totals()["executed_jobs"] == 1
