"""Gains and their intervals, failed students, and the shape of result.json."""

import json
import math
import shutil

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.results import failures
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import paired_gain
from qkd_qiskit.recipe import DistillSpec, Recipe


@pytest.mark.parametrize("count", [2, 3, 10])
def test_the_interval_is_that_of_a_paired_t_test(count):
    treated, baseline = np.random.default_rng(count).uniform(size=(2, count))
    gain = paired_gain(treated.tolist(), baseline.tolist())
    expected = ttest_1samp(100 * (treated - baseline), 0).confidence_interval(0.95)
    assert gain["ci95"] == pytest.approx([expected.low, expected.high])
    assert gain["mean"] == pytest.approx(100 * (treated - baseline).mean())
    assert gain["seeds"] == count


def test_few_pairs_have_no_interval():
    assert paired_gain([], []) == {"mean": None, "ci95": None, "seeds": 0}
    assert paired_gain([0.5], [0.25]) == {"mean": 25.0, "ci95": None, "seeds": 1}
    assert paired_gain([0.5, 0.6], [0.4, 0.5])["ci95"] == pytest.approx([10, 10])
    with pytest.raises(ValueError, match="zip"):
        paired_gain([0.5], [])


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


def test_result_json_has_what_readers_rely_on(finished):
    result = json.loads((finished.path / "result.json").read_text(), parse_constant=pytest.fail)
    assert result == finished.result
    assert result["classes"] == ["3", "5"]
    assert 0.5 < result["teacher"]["accuracy"] <= 1
    student = result["student"]
    assert student["qubits"] == 2
    assert student["weights"] == 4
    assert student["parameters"] == 64 * 2 + 2 + 4 + 4 * 2 + 2
    assert student["two_qubit_gates"] == 1
    assert student["depth"] > 0
    assert result["seeds"] == [0, 1]
    for arm in ("label_only", "distilled", "classical_twin"):
        for target, images in (("exact", 40), ("fake_manila", 10)):
            figures = result["arms"][arm][target]
            assert len(figures["accuracy"]) == 2
            assert figures["images"] == [images] * 2
            assert all(0 <= value <= 1 for value in figures["accuracy"])
            assert [sum(map(sum, counts)) for counts in figures["confusion"]] == [images] * 2
    for key in ("gain", "gain_over_twin"):
        for target in ("exact", "fake_manila"):
            assert set(result[key][target]) == {"mean", "ci95", "seeds", "left_out"}
    assert result["targets"]["exact"] == {"shots": None}
    device = result["targets"]["fake_manila"]
    assert device["shots"] == 50
    assert device["calibration_date"]
    assert device["circuit"]["two_qubit_gates"] >= 1
    assert {"data_s", "teacher_s", "students_s", "exact_s"} <= set(result["timing"])
    assert {"qiskit", "torch", "qkd-qiskit"} <= set(result["versions"])
    assert result["command"] == "qkd distill tiny.yaml"


def test_gains_are_those_of_the_listed_accuracies(finished):
    result = finished.result
    for target in ("exact", "fake_manila"):
        for key, baseline in (("gain", "label_only"), ("gain_over_twin", "classical_twin")):
            arms = {arm: result["arms"][arm][target]["accuracy"] for arm in result["arms"]}
            out = set(result["failed"]["distilled"]) | set(result["failed"][baseline])
            kept = [i for i, seed in enumerate(result["seeds"]) if str(seed) not in out]
            expected = paired_gain(
                [arms["distilled"][i] for i in kept], [arms[baseline][i] for i in kept]
            )
            assert result[key][target] == expected | {"left_out": sorted(out, key=int)}


def test_a_failed_pair_is_left_out_of_the_gain_and_counted(finished, tmp_path):
    from qkd_qiskit.experiments.experiment import run

    copy = tmp_path / "copy"
    shutil.copytree(finished.path, copy)
    folder = RunFolder.open(copy)
    folder.write_metrics("label_only", 1, history(0.5, 0.5, 0.5))
    result = run(folder)
    assert set(result["failed"]["label_only"]) >= {"1"}
    for target in ("exact", "fake_manila"):
        assert "1" in result["gain"][target]["left_out"]
        assert result["gain"][target]["seeds"] < 2
        assert len(result["arms"]["label_only"][target]["accuracy"]) == 2
