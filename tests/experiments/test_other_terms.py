"""A run with other loss terms: its recipe, metrics, report, arms, and one that goes on."""

import json
import re

import pytest

from qkd_qiskit.cli import main
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.storage import load_tensors

TERMS = "[{loss: ce, weight: 0.5}, {loss: dkd, beta: 2}, {loss: rkd_distance, weight: 0.2}]"
OWN = {"dkd", "rkd_distance"}


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("terms") / "run"
    words = ["--distill.terms", TERMS, "--targets", "exact", "--out", str(path)]
    assert main(["distill", str(tiny), *words]) == 0
    return RunFolder.open(path)


def lines(folder, arm):
    text = (folder.member(arm, 0) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_metrics_have_each_terms_mean(folder, finished):
    for arm in folder.recipe.arms:
        for line in lines(folder, arm):
            assert set(line) - set(lines(finished, arm)[0]) == OWN
            assert all(line[name] > 0 for name in OWN)
    for line in lines(folder, "distilled"):
        total = 0.5 * line["ce"] + line["dkd"] + 0.2 * line["rkd_distance"]
        assert line["loss"] == pytest.approx(total, rel=1e-5)
    for line in lines(folder, "label_only"):
        assert line["loss"] == pytest.approx(line["ce"])
    assert [epoch.to_json() for epoch in folder.metrics("distilled", 0)] == lines(
        folder, "distilled"
    )


def test_label_only_is_trained_as_without_terms_and_distilled_is_not(folder, finished):
    def weights(run, arm):
        return load_tensors(run.member(arm, 1) / "weights.safetensors")[0]

    def apart(arm):
        there = weights(finished, arm)
        pairs = [(value, there[name]) for name, value in weights(folder, arm).items()]
        return max(float((one - other).abs().max()) for one, other in pairs)

    assert apart("label_only") < 1e-5
    assert apart("distilled") > 1e-3
    assert apart("classical_twin") > 1e-3


def test_runs_without_terms_have_no_word_of_them(finished):
    assert "terms" not in (finished.path / "recipe.yaml").read_text()
    keys = ["epoch", "loss", "ce", "kd", "validation_accuracy", "lr", "feature"]
    assert list(lines(finished, "distilled")[0]) == keys


def test_the_report_says_what_was_minimised(folder):
    text = (folder.path / "report.html").read_text()
    assert "0.5 × cross-entropy + 0 × divergence + 1 × dkd + 0.2 × rkd_distance" in text
    assert "Loss rkd_distance" in text


def test_a_run_with_terms_is_found_finished(folder, capsys):
    before = {arm: lines(folder, arm) for arm in folder.recipe.arms}
    assert main(["distill", "--resume", str(folder.path)]) == 0
    assert {arm: lines(folder, arm) for arm in folder.recipe.arms} == before


FIDELITY = ["--distill.terms", "[{loss: ce}, {loss: fidelity, weight: 2}]", "--targets", "exact"]


def test_fidelities_are_trained_where_there_are_states(tiny, tmp_path):
    path = tmp_path / "run"
    own = "{labels_alone: {base: label_only, student.kind: classical}}"
    words = ["--arms", "label_only,distilled,labels_alone", "--own_arms", own, "--seeds", "1"]
    assert main(["distill", str(tiny), *FIDELITY, *words, "--out", str(path)]) == 0
    run = RunFolder.open(path)
    assert all(line["fidelity"] > 0 for line in lines(run, "distilled"))
    assert all(line["fidelity"] == 0 for line in lines(run, "labels_alone"))
    for line in lines(run, "distilled"):
        assert line["loss"] == pytest.approx(line["ce"] + 2 * line["fidelity"], rel=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--arms", "label_only,distilled,classical_twin"], "'classical_twin' .* no circuit"),
        (
            ["--arms", "distilled", "--student.encoding", "angle", "--student.reduction", "pca"],
            "'distilled' .*nothing that encodes an image is trained",
        ),
    ],
)
def test_fidelities_that_train_nothing_are_refused_before_anything_is(
    words, message, tiny, tmp_path, capsys
):
    path = tmp_path / "run"
    assert main(["distill", str(tiny), *FIDELITY, *words, "--out", str(path)]) == 2
    printed = capsys.readouterr().err
    assert re.search(f"loss term 'fidelity' of arm {message}", printed)
    assert printed.count("\n") == 1
    assert not path.exists()
