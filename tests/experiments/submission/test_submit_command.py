"""`qkd submit` and `qkd collect`: one line for what cannot be, a way on after every stop."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from qkd_qiskit.cli import main
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission.submission import find_submissions
from qkd_qiskit.targets.ibm.job_records import read_journal

SPSA = "submit RUN --backend fake_manila --train spsa"
SHIFT = "submit RUN --backend fake_manila --train parameter_shift"
# A test run in the background has SIGINT ignored, one under nohup SIGHUP, and hands that down.
CODE = (
    "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    "signal.signal(signal.SIGHUP, signal.SIG_DFL); "
    "from qkd_qiskit.cli import main; sys.exit(main())"
)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("submit", "run and backend missing"),
        ("submit RUN", "backend missing"),
        ("submit nowhere --backend ibm_manila", "nowhere holds no run"),
        ("submit RUN --backend ibm_manila", "needs an IBM Quantum account"),
        ("submit RUN --backend fake_manilla", "did you mean fake_manila"),
        ("submit RUN --backend exact", "takes no jobs"),
        ("submit RUN --backend fake_manila:scale=2", "takes no jobs"),
        ("submit RUN --backend fake_manila --mode fast", "give session, batch, job"),
        ("submit RUN --backend fake_manila --shots 0", "--shots: 0 is not accepted"),
        ("submit RUN --backend fake_manila --shots x", "whole number"),
        ("submit RUN --backend fake_manila --limit -3", "--limit: -3 is not accepted"),
        ("submit RUN --backend fake_manila --seeds a", "--seeds: 'a' is not accepted"),
        ("submit RUN --backend fake_manila --seeds 0,9", "has the seeds 0, 1"),
        ("submit RUN --backend fake_manila --max-qpu-seconds 0", "give a number above 0"),
        ("submit RUN --backend fake_manila --max-qpu-seconds nan", "give a number above 0"),
        ("submit RUN --backend fake_manila --max-qpu-seconds much", "--max-qpu-seconds: 'much' is"),
        ("submit RUN --backend fake_manila --dry-run --rate much", "--rate: 'much'"),
        ("submit RUN --backend fake_manila --train adam", "give spsa, forward, guided_spsa"),
        ("submit RUN --backend fake_manila --steps 3", "--steps is for training"),
        ("submit RUN --backend fake_manila --train spsa --steps 0", "--steps: 0 is not accepted"),
        ("submit RUN --backend fake_manila --train spsa --lr -1", "--lr: -1 is not accepted"),
        (
            "submit RUN --backend fake_manila --train spsa --shifted-weights 2",
            "for --train parameter_shift",
        ),
        ("submit RUN --backend fake_manila --train spsa --directions 2", "for --train forward"),
        (f"{SHIFT} --adaptive-shots", "--adaptive-shots is for --train spsa or forward"),
        ("submit RUN --backend fake_manila --directions 2", "--directions is for training"),
        (f"{SHIFT} --shifted-weights 99 --dry-run", "the circuit has 4 weights"),
        ("submit RUN --backend fake_lima_armonk", "unknown target"),
        ("collect", "run missing"),
        ("collect nowhere", "nowhere holds no run"),
        ("collect RUN", "has no submission"),
    ],
)
def test_bad_input_is_one_line(words, message, run_copy, capsys):
    assert main(words.replace("RUN", str(run_copy.path)).split()) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("qkd: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not (run_copy.path / "devices").exists()


def test_a_dry_run_is_a_table_or_json(run_copy, capsys):
    words = ["submit", str(run_copy.path), "--backend", "ibm_manila", "--dry-run"]
    assert main([*words, "--rate", "96/min"]) == 0
    shown = capsys.readouterr().out
    for text in ("QPU s", "money", "evaluate 4 students", "SPSA", "no account is saved", "2 s +"):
        assert text in shown
    assert main([*words, "--json", "--train", "spsa", "--steps", "7"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["chosen"]["jobs"] == 7
    assert {other["what"].partition(",")[0] for other in plan["others"]} == {
        "evaluate 4 students",
        "train 7 steps",
    }
    assert not (run_copy.path / "devices").exists()


def test_figures_come_as_table_json_and_report(run_copy, capsys):
    words = ["submit", str(run_copy.path), "--backend", "fake_manila"]
    assert main(words) == 0
    assert "fake_manila:submitted" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == RunFolder.open(run_copy.path).result.to_json()
    assert main(words) == 0
    assert "is finished: nothing was sent" in capsys.readouterr().out
    assert "fake_manila:submitted is a simulation" in (run_copy.path / "report.html").read_text()


def command(*words):
    return subprocess.Popen(
        [sys.executable, "-c", CODE, *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda how: how.name
)
def test_a_process_that_was_stopped_is_collected(how, run_copy, rehearsal):
    path = run_copy.path / "recipe.yaml"
    path.write_text(path.read_text().replace("max_executions: 10000000", "max_executions: 200"))
    server = rehearsal()
    process = command("submit", str(run_copy.path), "--backend", "ibm_manila", "--mode", "session")
    until = time.monotonic() + 120
    while len(server.ledger.jobs) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(how)
    _, error = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 128 + how)
    if how != signal.SIGKILL:
        assert not any(session.accepting_jobs for session in server.ledger.sessions.values())
        assert error.startswith("qkd: interrupted; ")
        assert f"to go on: qkd collect {run_copy.path}" in error
    assert not find_submissions(run_copy)[0].finished
    assert main(["collect", str(run_copy.path), "--quiet"]) == 0
    totals = server.ledger.totals()
    assert (totals["jobs"], totals["executed_jobs"]) == (10, 10)
    assert find_submissions(run_copy)[0].finished
    (folder,) = run_copy.path.glob("devices/*")
    assert read_journal(folder).totals().usage_s == pytest.approx(totals["quantum_seconds"])
    assert "is a rehearsal" in (run_copy.path / "report.html").read_text()
