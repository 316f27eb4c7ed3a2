"""`qkd plan`: what fits into QPU seconds, told with the command that does it."""

import json
import shlex
from dataclasses import replace

import pytest

from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.submission import Request, plan_dry_run
from qkd_qiskit.experiments.submission.plan import plan_evaluation, submit_words

MANILA = Request(backend="ibm_manila")


@pytest.fixture(scope="module")
def plan(finished):
    return plan_evaluation(finished, MANILA, qpu_seconds=30.0, most_seeds=4)


def test_every_plan_fits_and_the_best_comes_first(plan):
    assert [it.seeds for it in sorted(plan.best, key=lambda it: it.seeds)] == [2, 3, 4]
    assert all(it.qpu_seconds <= 30.0 for it in plan.best)
    errors = [it.error for it in plan.best]
    assert errors == sorted(errors)
    assert plan.trained.seeds == 2
    assert all(20 <= it.images <= plan.pool for it in plan.best)


def test_more_seconds_never_tell_less(finished, plan):
    more = plan_evaluation(finished, MANILA, qpu_seconds=120.0, most_seeds=4)
    assert more.best[0].error <= plan.best[0].error + 1e-9


def test_the_cost_is_that_of_the_dry_run(finished, plan):
    chosen = plan.trained
    request = replace(
        MANILA, shots=chosen.shots, limit=chosen.images, recalibrate=chosen.recalibrate
    )
    dry = plan_dry_run(finished, request)
    assert (dry.chosen.jobs, dry.chosen.seconds) == (chosen.jobs, pytest.approx(chosen.qpu_seconds))
    usual = plan_dry_run(finished, MANILA)
    assert usual.chosen.seconds == pytest.approx(plan.usual.qpu_seconds)


def test_its_command_does_it_on_a_rehearsal(run_copy, plan, rehearsal):
    server = rehearsal()
    chosen = replace(plan.trained, images=12, shots=32)
    words = submit_words(replace(plan, run=str(run_copy.path)), chosen)
    assert main([*words[1:], "--quiet"]) == 0
    assert server.ledger.totals()["quantum_seconds"] <= 30.0
    targets = RunFolder.open(run_copy.path).result.targets
    assert targets["ibm_manila:rehearsal@32"].shots == 32


def test_options_count(finished, plan):
    mitigated = plan_evaluation(
        finished,
        replace(MANILA, options={"readout_mitigation": True}),
        qpu_seconds=30.0,
        most_seeds=2,
    )
    assert mitigated.usual.qpu_seconds > plan.usual.qpu_seconds


def test_what_is_left_of_the_month(finished, rehearsal):
    rehearsal(plan="open", allowance_s=20.0)
    left = plan_evaluation(finished, MANILA, qpu_seconds=30.0, most_seeds=2).allowance
    assert left.describe(30.0).startswith("the instance has 20 of 20 QPU seconds left")


class TestCommand:
    def test_a_table_and_the_commands(self, run_copy, capsys):
        words = ["plan", str(run_copy.path), "--qpu-seconds", "30", "--target", "fake_manila"]
        assert main([*words, "--most-seeds", "3", "--twirling", "none"]) == 0
        shown = capsys.readouterr().out
        assert "30 QPU seconds on ibm_manila: nothing is sent" in shown
        commands = [line.strip() for line in shown.splitlines() if line.startswith("  qkd submit")]
        assert commands
        said = shlex.split(commands[-1])
        assert said[:5] == ["qkd", "submit", str(run_copy.path), "--backend", "ibm_manila"]
        assert said[-4:] == ["--twirling", "none", "--max-qpu-seconds", "30"]
        assert not (run_copy.path / "devices").exists()

    def test_as_json(self, run_copy, capsys):
        words = ["plan", str(run_copy.path), "--qpu-seconds", "30", "--backend", "fake_manila"]
        assert main([*words, "--most-seeds", "2", "--json"]) == 0
        content = json.loads(capsys.readouterr().out)
        assert content["best"][0]["qpu_seconds"] <= 30
        assert content["target"] == "fake_manila"

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            ("plan RUN", "qpu_seconds missing"),
            ("plan RUN --qpu-seconds 0", "--qpu-seconds: 0 is not accepted"),
            ("plan RUN --qpu-seconds 2 --backend ibm_manila", "are too few for two seeds"),
            ("plan RUN --qpu-seconds 60 --most-seeds 1", "--most-seeds: 1 is not accepted"),
            ("plan RUN --qpu-seconds 60 --seeds 0 --backend ibm_manila", "one seed alone"),
            ("plan RUN --qpu-seconds 60 --backend ibm_nowhere", "needs an IBM Quantum account"),
            ("plan RUN --qpu-seconds 60 --target fake_x --backend ibm_manila", "fake_x"),
            ("plan nowhere --qpu-seconds 60", "nowhere holds no run"),
        ],
    )
    def test_bad_input_is_one_line(self, run_copy, capsys, words, message):
        assert main(words.replace("RUN", str(run_copy.path)).split()) != 0
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1


def test_a_run_without_a_pair(finished):
    lonely = RunFolder(finished.path, replace(finished.recipe, arms=("distilled",)))
    with pytest.raises(InputError, match="has no arm label_only"):
        plan_evaluation(lonely, MANILA, qpu_seconds=60.0)
