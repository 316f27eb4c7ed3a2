"""What draws the shots of evaluations under noise, what Aer says of it, and runs of before."""

import json
import shutil

import numpy as np
import pytest
import torch

from qkd_qiskit import evaluate, make_student
from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.cli import main
from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import TargetError
from qkd_qiskit.experiments import evaluation, quanvolution_evaluation
from qkd_qiskit.experiments.sweeps import sweep_shots
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.report.report import write_report
from qkd_qiskit.targets import Target, aer_check


def circuit_student(seed=0):
    spec = StudentSpec(qubits=2, layers=1)
    return make_student(spec, image_shape=(1, 4, 4), num_classes=3, seed=seed)


@pytest.fixture(scope="module")
def split():
    generator = torch.Generator().manual_seed(0)
    return Split(torch.rand(60, 1, 4, 4, generator=generator), torch.arange(60) % 3)


@pytest.fixture
def broken(monkeypatch):
    """Probabilities that are not Aer's."""
    exact_rows = aer_check.exact_rows
    monkeypatch.setattr(aer_check, "exact_rows", lambda *given: exact_rows(*given) * 1.001)


@pytest.fixture
def run(finished, tmp_path):
    return TrainedRun.open(shutil.copytree(finished.path, tmp_path / "run"))


def as_before(run, *, lost=()):
    """The run as an earlier version left it: Aer drew the shots, and nothing says so."""
    for arm, seed in run.folder.members:
        path = run.folder.member(arm, seed) / "evaluations.json"
        content = json.loads(path.read_text())
        for figures in content.values():
            figures.pop("simulator", None)
            figures.pop("check", None)
        if (arm, seed) in lost:
            del content["fake_manila"]
        path.write_text(json.dumps(content))
    path = run.path / "result.json"
    content = json.loads(path.read_text())
    for target in content["targets"].values():
        target.pop("simulators", None)
        target.pop("check", None)
    path.write_text(json.dumps(content))
    return TrainedRun.open(run.path)


class TestOneStudent:
    def test_an_evaluation_says_what_drew_and_that_aer_agrees(self, split):
        found = evaluate(circuit_student(), split, target="fake_manila", shots=50)
        assert found.simulator == "density"
        assert found.check.circuits == 2
        assert 1e-12 <= found.check.within <= 1e-8

    @pytest.mark.parametrize(
        ("target", "simulator"),
        [("exact", None), ("aer", None), ("fake_manila:exact", None), ("fake_manila:aer", "aer")],
    )
    def test_where_nothing_is_drawn_by_us_there_is_no_check(self, split, target, simulator):
        found = evaluate(circuit_student(), split, target=target)
        assert (found.simulator, found.check) == (simulator, None)

    def test_a_student_without_a_circuit_has_none(self, split):
        spec = StudentSpec(kind="classical", qubits=2)
        twin = make_student(spec, image_shape=(1, 4, 4), num_classes=3)
        found = evaluate(twin, split, target="fake_manila")
        assert (found.simulator, found.check, found.shots) == (None, None, None)

    def test_a_disagreement_ends_the_evaluation(self, split, broken):
        with pytest.raises(TargetError, match="our noisy simulation of fake_manila and Aer's"):
            evaluate(circuit_student(), split, target="fake_manila")

    def test_shots_do_not_depend_on_the_batches(self, split, monkeypatch):
        def logits(size):
            monkeypatch.setattr(evaluation, "_SAMPLED_BATCH", size)
            return evaluation.target_logits(circuit_student(), split.images, target=target, seed=4)

        target = Target.parse("fake_manila", shots=64)
        # Encoded in other batches, angles differ in their last digit.
        torch.testing.assert_close(logits(50), logits(7), atol=1e-4, rtol=0)

    def test_arms_of_a_seed_have_shots_of_their_own(self, split):
        student, target = circuit_student(), Target.parse("fake_manila", shots=64)
        first, same, other = (
            evaluation.target_logits(student, split.images, target=target, seed=4, stream=arm)
            for arm in ("label_only", "label_only", "distilled")
        )
        assert torch.equal(first, same)
        assert not torch.equal(first, other)

    def test_patches_do_not_depend_on_the_batches(self, monkeypatch):
        layer, target = Quanvolution(2, seed=1), Target.parse("fake_manila", shots=20)
        images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))

        def maps(size):
            monkeypatch.setattr(quanvolution_evaluation, "_CHUNK", size)
            return quanvolution_evaluation.maps_on_target(layer, images, target=target, seed=2)

        torch.testing.assert_close(maps(10_000), maps(1), atol=1e-6, rtol=0)


class TestRuns:
    def test_a_run_keeps_what_drew_and_the_check(self, run):
        members = [
            run.folder.evaluations(arm, seed)["fake_manila"] for arm, seed in run.folder.members
        ]
        members = [figures for figures in members if figures.shots is not None]
        assert len(members) == 2 * 2  # the classical twins have no shots
        assert {figures.simulator for figures in members} == {"density"}
        summary = run.result.targets["fake_manila"]
        assert summary.simulators == ("density",)
        assert summary.check.circuits == sum(figures.check.circuits for figures in members)
        assert summary.check.within == max(figures.check.within for figures in members)
        assert summary.check.within <= 1e-8
        assert run.result.targets["exact"].check is None

    def test_the_report_says_so_in_a_line(self, run):
        write_report(run.folder)
        page = (run.path / "report.html").read_text()
        assert "Shots on fake_manila are drawn from exact noisy probabilities; Aer" in page
        assert "shots by Aer" not in page

    def test_figures_by_aer_stand_beside_under_their_own_name(self, run):
        before = run.folder.evaluations("distilled", 0)["fake_manila"]
        result = run.evaluate("fake_manila:aer")
        assert list(result.targets) == ["exact", "fake_manila", "fake_manila:aer"]
        assert result.targets["fake_manila:aer"].simulators == ("aer",)
        assert result.targets["fake_manila:aer"].check is None
        assert run.folder.evaluations("distilled", 0)["fake_manila"] == before
        write_report(run.folder)
        assert "shots by Aer" in (run.path / "report.html").read_text()
        assert "shots by Aer" in result.to_latex()

    def test_a_disagreement_ends_a_run(self, run, broken, capsys):
        assert main(["evaluate", str(run.path), "--target", "fake_manila:scale=2"]) == 2
        assert "differ by" in capsys.readouterr().err
        assert "fake_manila:scale=2" not in run.folder.evaluations("distilled", 0)


class TestRunsOfEarlierVersions:
    def test_their_figures_stay_and_it_is_said(self, run, caplog):
        run = as_before(run)
        before = {it: run.folder.evaluations(*it) for it in run.folder.members}
        with caplog.at_level("WARNING"):
            result = run.evaluate("fake_manila")
        assert "this run has figures of an earlier version there" in caplog.text
        assert {it: run.folder.evaluations(*it) for it in run.folder.members} == before
        assert result.targets["fake_manila"].simulators == ("aer",)
        assert result.targets["fake_manila"].by_aer

    def test_what_is_missing_beside_them_is_drawn_by_aer_as_it_was(self, run):
        member = ("distilled", 1)
        expected = run.evaluate("fake_manila:aer")
        own = run.folder.evaluations(*member)["fake_manila:aer"]
        run = as_before(run, lost=[member])
        result = run.evaluate("fake_manila")
        found = run.folder.evaluations(*member)["fake_manila"]
        assert found.simulator == "aer"
        assert found.check is None
        assert (found.confusion, found.divergence) == (own.confusion, own.divergence)
        assert result.targets["fake_manila"].simulators == ("aer",)
        assert expected.targets["fake_manila:aer"].simulators == ("aer",)

    def test_other_targets_of_such_a_run_are_drawn_by_us(self, run):
        result = as_before(run).evaluate("fake_manila:scale=2")
        assert result.targets["fake_manila:scale=2"].simulators == ("density",)
        assert result.targets["fake_manila"].simulators is None
        assert result.targets["fake_manila"].by_aer


def test_a_sweep_says_what_drew_each_row(run):
    rows = sweep_shots(run, target="fake_manila", shots=[16, None], limit=4)
    rows = [row for row in rows if row.arm != "classical_twin"]
    assert {(row.shots, row.simulator) for row in rows} == {(16, "density"), (None, "")}
    rows = sweep_shots(run, target="fake_manila:aer", shots=[16, None], limit=4)
    rows = [row for row in rows if row.arm != "classical_twin"]
    assert {(row.shots, row.simulator) for row in rows} == {(16, "aer"), (None, "")}
    assert np.isfinite([row.accuracy for row in rows]).all()
