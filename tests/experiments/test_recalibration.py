"""Maps beside students: fitted without labels, kept, applied, shown."""

import json
import shutil

import numpy as np
import pytest
import torch

from qkd_qiskit import Run, make_student
from qkd_qiskit.cli import main
from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.experiments.recalibration import (
    FILE,
    SUFFIX,
    logits_of,
    outputs_of,
    recalibrations,
    summarize_recalibrations,
)
from qkd_qiskit.experiments.recalibration_fit import unlabelled_images
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.targets import Target

NOISY = "fake_melbourne:exact"


@pytest.fixture
def run(finished, tmp_path):
    return Run.open(shutil.copytree(finished.path, tmp_path / "run"))


def test_class_bins_are_corrected_as_probabilities():
    fixed = {"reduction": "none", "encoding": "amplitude", "readout": "bins", "head": "none"}
    spec = StudentSpec(kind="quantum", qubits=2, layers=1, sharpness=3.0, **fixed)
    student = make_student(spec, image_shape=(1, 2, 2), num_classes=2)
    logits = exact_logits(student, torch.rand(5, 1, 2, 2))
    outputs = outputs_of(student, logits)
    assert outputs.sum(axis=1) == pytest.approx(np.ones(5), abs=1e-5)
    assert logits_of(student, outputs).numpy() == pytest.approx(logits.numpy(), abs=1e-5)
    below = logits_of(student, np.array([[-0.1, 1.1]]))
    assert torch.isfinite(below).all()


def test_exact_noise_is_taken_back(run):
    result = run.recalibrate(NOISY, images=30)
    key = NOISY + SUFFIX
    for arm in ("label_only", "distilled"):
        before, after = result.arms[arm][NOISY], result.arms[arm][key]
        assert before.exact_accuracy == after.exact_accuracy
        for row, seed in enumerate(result.seeds):
            known = recalibrations(run.folder, arm, seed)[NOISY]
            student, images = run.student(arm, seed=seed), run.data.test.images
            measured = target_logits(student, images, target=Target.parse(NOISY))
            exact = exact_logits(student, images)
            corrected = known.corrected(student, measured)
            assert (corrected - exact).abs().mean() < 0.2 * (measured - exact).abs().mean()
            hits = (corrected.argmax(dim=1) == run.data.test.labels).double().mean().item()
            assert after.accuracy[row] == pytest.approx(hits)
    twin = result.arms["classical_twin"]
    assert twin[NOISY].accuracy == twin[key].accuracy == twin["exact"].accuracy
    assert not (run.folder.member("classical_twin", 0) / FILE).exists()
    summary = result.targets[key].recalibration
    assert (summary.images, summary.shots, summary.qpu_seconds) == (30, None, None)
    assert summary.agreement >= summary.agreement_before
    assert summary.correction > 0.05
    assert result.targets[NOISY].recalibration is None
    assert Run.open(run.path).result == result


def test_no_label_and_no_test_image_is_read(run):
    run.recalibrate(NOISY, images=10)
    known = recalibrations(run.folder, "distilled", 0)[NOISY].map.matrix
    data, other = run.data, Run.open(run.path)
    other.data = data.__class__(
        **{
            **{name: getattr(data, name) for name in ("name", "num_classes", "class_names")},
            "pool": Split(data.pool.images, 1 - data.pool.labels),
            "validation": data.validation,
            "test": Split(data.test.images.flip(0), data.test.labels),
            "spec": data.spec,
        }
    )
    other.recalibrate(NOISY, images=10)
    assert (recalibrations(run.folder, "distilled", 0)[NOISY].map.matrix == known).all()
    few, many = (unlabelled_images(data, count=count, seed=0) for count in (5, 9))
    assert torch.equal(few, many[:5])


def test_a_map_is_applied_later_and_can_be_left_out(run, monkeypatch):
    run.recalibrate(NOISY, images=10)
    result = run.evaluate(NOISY)
    assert NOISY + SUFFIX in result.targets
    plain = Run.open(shutil.copytree(run.path, run.path.with_name("plain")))
    content = json.loads((plain.path / "result.json").read_text())
    del content["targets"][NOISY + SUFFIX]
    for metrics in content["arms"].values():
        del metrics[NOISY + SUFFIX]
    (plain.path / "result.json").write_text(json.dumps(content))
    assert NOISY + SUFFIX not in plain.evaluate(NOISY, recalibrated=False).targets
    assert NOISY + SUFFIX in plain.evaluate(NOISY).targets


def test_a_new_map_takes_the_place_of_the_old_one_and_its_figures(run):
    first = run.recalibrate("fake_melbourne", images=10, shots=20)
    key = "fake_melbourne@20" + SUFFIX
    assert key in first.targets
    second = run.recalibrate("fake_melbourne", images=12, kind="diagonal", shots=30)
    assert key not in second.targets
    assert key not in run.folder.evaluations("distilled", 0)
    assert "fake_melbourne@20" in second.targets
    summary = second.targets["fake_melbourne@30" + SUFFIX].recalibration
    assert (summary.kind, summary.images, summary.shots) == ("diagonal", 12, 30)
    # 2 s for the job, then 360 executions of 250 us and the circuit.
    duration = second.targets["fake_melbourne@30"].circuit.duration_s
    assert summary.qpu_seconds == pytest.approx(2 + 360 * (250e-6 + duration), rel=0.01)
    assert summarize_recalibrations(run.folder, "fake_melbourne", seeds=(0, 1)).age_days < 0.1


def test_the_head_can_be_fitted_again(run):
    result = run.recalibrate(NOISY, images=30, kind="head")
    known = recalibrations(run.folder, "distilled", 1)[NOISY]
    assert np.shape(known.matrix) == (4, 2)
    student, images = run.student("distilled", seed=1), run.data.test.images
    row = result.seeds.index(1)
    exact = result.arms["distilled"]["exact"].accuracy[row]
    assert result.arms["distilled"][NOISY + SUFFIX].accuracy[row] == pytest.approx(exact, abs=0.1)
    with pytest.raises(InputError, match="needs the probabilities"):
        known.corrected(student, exact_logits(student, images))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--target", "exact"], "neither noise nor shots"),
        (["--target", "aer", "--images", "2"], "2 unlabelled images are not accepted; give 3 to"),
        (["--target", "aer", "--images", "5000"], "5000 unlabelled images are not accepted"),
        (["--target", "aer", "--kind", "cubic"], "--kind: 'cubic' is not accepted; give affine"),
        (["--target", "fake_nowhere"], "unknown target"),
    ],
)
def test_bad_input_is_one_line(words, message, run, capsys):
    before = (run.path / "result.json").read_bytes()
    assert main(["recalibrate", str(run.path), "--quiet", *words]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert message in lines[0]
    assert (run.path / "result.json").read_bytes() == before


def test_command_result_and_report_show_both(run, capsys):
    assert main(["recalibrate", str(run.path), "--target", NOISY, "--images", "10"]) == 0
    out = capsys.readouterr().out
    assert "Corrected by an affine map of the outputs, fitted" in out
    assert "to 10 unlabelled images, exact probabilities, calibration of 2021-03-15" in out
    assert main(["evaluate", str(run.path), "--target", NOISY]) == 0
    assert "(less than a day before)" in capsys.readouterr().out
    assert main(["evaluate", str(run.path), "--target", NOISY, "--no-recalibration"]) == 0
    assert "Corrected" not in capsys.readouterr().out
    report = (run.path / "report.html").read_text()
    assert "<h2>Recalibration</h2>" in report
    assert "recalibrated with 10 unlabelled images" in report.replace("\u202f", " ")
