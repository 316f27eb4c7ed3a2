"""From a run folder to its result: failed students, gains, targets that are added."""

import math
import shutil

import pytest

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.collect import failures
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import paired_gain
from qkd_qiskit.recipe import DistillSpec, Recipe


def recipe(selection, *, seeds):
    return Recipe(distill=DistillSpec(selection=selection), seeds=seeds)


def history(*accuracies, loss=0.1):
    return [
        EpochMetrics(number, loss=loss, ce=loss, kd=loss, validation_accuracy=accuracy, lr=0.01)
        for number, accuracy in enumerate(accuracies, start=1)
    ]


def test_students_that_were_not_trained_are_named(tmp_path):
    folder = RunFolder.create(tmp_path / "run", recipe("validation", seeds=(3, 5, 7, 9)))
    for seed, figures in {
        3: history(0.1, 0.9, 0.1),
        5: history(0.10, 0.14),
        7: history(0.5, 0.8, loss=math.nan),
        9: history(0.2),
    }.items():
        folder.write_metrics("distilled", seed, figures)
    found = failures(folder, "distilled", num_classes=10)
    assert set(found) == {"5", "7"}
    assert "0.140 is not above 0.150" in found["5"]
    assert "not finite" in found["7"]
    assert set(failures(folder, "distilled", num_classes=2)) == {"5", "7", "9"}
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl"):
        failures(folder, "label_only", num_classes=10)


def test_a_weak_student_of_two_classes_has_not_failed(tmp_path):
    folder = RunFolder.create(tmp_path / "run", recipe("validation", seeds=1))
    folder.write_metrics("distilled", 0, history(0.6))
    assert failures(folder, "distilled", num_classes=2) == {}


def test_with_the_last_weights_the_last_accuracy_counts(tmp_path):
    folder = RunFolder.create(tmp_path / "run", recipe("last", seeds=1))
    folder.write_metrics("distilled", 0, history(0.9, 0.1))
    assert set(failures(folder, "distilled", num_classes=10)) == {"0"}


def test_gains_are_those_of_the_listed_accuracies(finished):
    result = finished.result
    for target in ("exact", "fake_manila"):
        for key, baseline in (("gain", "label_only"), ("gain_over_twin", "classical_twin")):
            accuracies = {arm: result.arms[arm][target].accuracy for arm in result.arms}
            out = set(result.failed["distilled"]) | set(result.failed[baseline])
            kept = [i for i, seed in enumerate(result.seeds) if str(seed) not in out]
            expected = paired_gain(
                *([accuracies[arm][i] for i in kept] for arm in ("distilled", baseline)),
                left_out=sorted(out, key=int),
            )
            assert result.gains(key)[target] == expected


def test_a_failed_pair_is_left_out_of_the_gain_and_counted(finished, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    folder = RunFolder.open(copy)
    folder.write_metrics("label_only", 1, history(0.5, 0.5, 0.5))
    result = run(folder)
    assert set(result.failed["label_only"]) >= {"1"}
    for target in ("exact", "fake_manila"):
        assert "1" in result.gain[target].left_out
        assert result.gain[target].seeds < 2
        assert len(result.arms["label_only"][target].accuracy) == 2
