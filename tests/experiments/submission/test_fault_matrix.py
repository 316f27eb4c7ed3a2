"""Every fault of a server, one at a time, in an evaluation: nothing is lost or paid twice.

Kills in the midst of faults, by KILL, TERM, HUP and INT: tests/targets/ibm/test_soak.py; devices
that are retired or changed: test_nothing_is_lost.py.
"""

import shutil
import time
from collections import Counter
from types import SimpleNamespace

import pytest
from test_submit_evaluation import NAME, measured, with_runtime

from qkd_qiskit.errors import QKDError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, collect_run, submit_run
from qkd_qiskit.experiments.submission.submission import find_submissions
from qkd_qiskit.targets.ibm.emulator import Faults
from qkd_qiskit.targets.ibm.job_records import read_journal

ENDPOINTS = (
    *("configuration", "properties", "status", "usage", "submit", "jobs", "job", "results"),
    *("metrics", "open_session", "session", "close_session"),
)
KINDS = (
    *("401", "403", "404", "409", "429", "429:retry_after=0", "500", "503", "cut", "garbled"),
    *("empty", "delay:seconds=0.05", "drip:seconds=0.1"),
)
SPECIAL = (
    *(f"submit:{kind}:accepted" for kind in ("409", "429", "500", "503", "cut")),
    *(f"submit:{kind}:accepted:after=1:times=2" for kind in ("500", "503", "cut")),
    *("open_session:cut:accepted", "open_session:503:accepted", "close_session:503:accepted"),
    *("results:short", "results:lost", "results:short:times=3", "results:lost:after=1"),
    *("metrics:pending", "metrics:pending:times=9", "metrics:negative:times=2", "metrics:text"),
    *("run:fail", "run:fail:accepted", "run:fail:times=2", "run:cancel", "run:expire_session"),
    *("run:delay:seconds=0.3", "run:expire_session:after=1", "run:overrun:seconds=3"),
    *("job:expire_token", "submit:expire_token", "results:expire_token", "jobs:expire_token"),
    *("job:expire_session", "submit:expire_session", "submit:expire_session:after=1"),
)
MATRIX = [*(f"{endpoint}:{kind}" for endpoint in ENDPOINTS for kind in KINDS), *SPECIAL]
REQUEST = Request(backend="ibm_manila", mode="session")
MOST = 6
"""Commands that a fault may take until all is there."""


def test_there_are_enough():
    assert len(set(MATRIX)) == len(MATRIX) >= 150


@pytest.fixture
def impatient(monkeypatch):
    """Waits of the runner are cut short."""
    quick = SimpleNamespace(
        sleep=lambda seconds: time.sleep(min(seconds, 0.02)), monotonic=time.monotonic
    )
    for module in ("retry", "job_runner", "usage", "pacing"):
        monkeypatch.setattr(f"qkd_qiskit.targets.ibm.{module}.time", quick)


def evaluate(run):
    """Submit, and collect until nothing is left to do; what it gave, and why it stopped before."""
    stopped = []
    while True:
        folder = RunFolder.open(run.path)
        try:
            begun = find_submissions(folder)
            outcome = collect_run(folder)[-1] if begun else submit_run(folder, REQUEST)
        except QKDError as error:
            stopped.append(str(error))
            if len(stopped) >= MOST:
                raise
            continue
        return outcome, stopped


@pytest.fixture(scope="module")
def calm():
    return {}


@pytest.mark.slow
@pytest.mark.parametrize("fault", MATRIX)
def test_it_ends_as_without_faults(fault, run_copy, rehearsal, impatient, calm):
    run = with_runtime(run_copy, max_executions=700)  # 4 jobs
    if not calm:
        quiet = rehearsal()
        outcome, _ = evaluate(run)
        calm |= {"figures": measured(outcome.result), "jobs": len(quiet.ledger.jobs)}
        shutil.rmtree(run.path / "devices")
    server = rehearsal(faults=Faults([fault]))
    outcome, stopped = evaluate(run)
    assert not any("\n" in why for why in stopped)
    server.faults.clear()
    # The journal knows what is still to be asked for, and the next command does it.
    collect_run(RunFolder.open(run.path))
    assert measured(outcome.result) == calm["figures"]
    jobs = list(server.ledger.jobs.values())
    (folder,) = run.path.glob("devices/*")
    journal = read_journal(folder)
    finished = [it.job for it in journal.records.values() if it.state == "finished"]
    executed = [job.id for job in jobs if job.executed]
    assert len(finished) == len(set(finished)) == calm["jobs"]
    assert set(finished) <= set(executed)
    assert set(executed) - set(finished) <= set(journal.duplicates)
    tags = Counter(tag for job in jobs for tag in job.tags if tag.startswith("qkd:"))
    assert set(tags.values()) == {1} or journal.duplicates
    assert journal.totals().usage_s == pytest.approx(sum(job.quantum_seconds for job in jobs))
    device = RunFolder.open(run.path).result.targets[NAME].device
    of_finished = [job.quantum_seconds for job in jobs if job.id in finished]
    assert device.qpu_seconds == pytest.approx(sum(of_finished))
    open_ones = [it for it in server.ledger.sessions.values() if it.jobs and it.accepting_jobs]
    assert not open_ones
