"""The search for a small circuit: what it tries, that it fits, and which images choose."""

from dataclasses import replace

import pytest
import torch

from qkd_qiskit import Run, StudentSpec, Target, make_student
from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.compression import COMPRESSION, read_compression
from qkd_qiskit.experiments.compression_plan import plan_compression
from qkd_qiskit.experiments.compression_search import (
    SPACE,
    _candidates,
    _Fitting,
    _while_there_is_time,
    parse_budget,
)
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.report.report import write_report
from qkd_qiskit.run import compress

SPEC = StudentSpec(
    kind="quantum",
    qubits=4,
    encoding="trained_reuploading",
    ansatz="ry_cz_line",
    layers=6,
    features=8,
    reduction="pca",
    readout="bins",
    head="none",
)
ASKED = {"target": "fake_manila", "max_two_qubit_gates": 4}


def candidates(fixed=()):
    stream = torch.Generator().manual_seed(0)
    return list(_candidates(SPEC, dict.fromkeys(fixed), stream))


def test_every_combination_is_a_candidate_once():
    found = candidates()
    assert len(found) == len(set(found)) == 3 * 6 * 3 * 3
    assert {spec.ansatz for spec in found} == set(SPACE["ansatz"])
    for spec in found:
        assert spec.features in [per * spec.qubits for per in SPACE["features_per_qubit"]]


def test_what_was_given_is_not_searched():
    found = candidates(fixed=("qubits", "features"))
    assert {(spec.qubits, spec.features) for spec in found} == {(4, 8)}
    assert len(found) == 6 * 3


def test_a_candidate_is_as_deep_as_the_gates_allow(finished):
    device = Target.parse("fake_manila")
    fitting = _Fitting(SPEC, device=device, data=Run(finished).data, limit=13)
    for ansatz, layers in (("ry_cz_line", 4), ("ry_cz_brick", 6), ("ry_rzz_line", 2)):
        candidate = fitting.deepest(replace(SPEC, ansatz=ansatz))
        assert candidate.spec.layers == layers
        student = make_student(candidate.spec, image_shape=(1, 28, 28), num_classes=2)
        assert device.compile(student.circuit).two_qubit_gates == candidate.gates <= 13
    assert fitting.deepest(replace(SPEC, ansatz="ry_rzz_line", layers=6)) is not None
    narrow = _Fitting(SPEC, device=device, data=Run(finished).data, limit=2)
    assert narrow.deepest(SPEC) is None


def test_candidates_end_with_the_time(monkeypatch):
    clock = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    # After two candidates 3 s are spent: a third would end at 4.5 s.
    assert list(_while_there_is_time(iter("abcd"), 0.0, 4.0)) == ["a", "b"]


def test_the_best_of_the_half_that_chose_is_compressed_into(finished, tmp_path):
    changes = {"student.layers": 2, "distill.epochs": 2, "shots": 20}
    run = compress(
        Run(finished), **ASKED, changes=changes, search_seconds=1.0, out=tmp_path / "run"
    )
    record = read_compression(run.folder)
    search = record.search
    assert [entry.method for entry in search.best] == ["default", "halving", "random"]
    assert (search.target, search.seeds, search.seconds) == ("fake_manila:exact", 2, 0.5)
    chosen = next(entry for entry in search.best if entry.method == search.chosen)
    assert chosen.selection == max(entry.selection for entry in search.best)
    student = run.recipe.student
    assert (student.qubits, student.ansatz) == (chosen.qubits, chosen.ansatz)
    assert record.depths[-1].two_qubit_gates <= 4
    assert all(entry.two_qubit_gates <= 4 for entry in search.best)
    assert all(0 <= entry.confirmation <= 1 for entry in search.best)
    page = write_report(RunFolder.open(run.path)).read_text(encoding="utf-8")
    assert "0.5 s of search and as many of random search" in page
    assert (run.path / COMPRESSION).exists()


def test_both_teachers_search(finished):
    changes = {"student.layers": 1, "distill.epochs": 1, "student.qubits": 3}
    for teacher in ("ensemble", "classical"):
        _, record = plan_compression(
            finished, **ASKED, changes=changes, teacher=teacher, search_seconds=0.1
        )
        assert {entry.qubits for entry in record.search.best} == {3}


@pytest.mark.parametrize(
    ("text", "seconds"), [("60s", 60), ("2m", 120), ("90", 90), ("0.5h", 1800)]
)
def test_a_budget_is_a_time(text, seconds):
    assert parse_budget(text) == seconds


@pytest.mark.parametrize("text", ["", "s", "soon", "-3s", "0", "nan", "inf", "0.2s"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(InputError, match=r"--budget: .* give a time such as 60s or 5m"):
        parse_budget(text)


def test_a_budget_without_a_search_is_refused(finished, capsys):
    words = ["compress", str(finished.path), "--target", "fake_manila", "--budget", "5s"]
    assert main([*words, "--max-two-qubit-gates", "4"]) == 2
    assert "--budget is for --search" in capsys.readouterr().err
