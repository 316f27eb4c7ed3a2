"""The shape of result.json, and results as tables."""

import csv
import io
import json
import sys
from dataclasses import fields, is_dataclass, replace
from typing import get_type_hints

import pytest
from result_builder import make_result

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.result_tables import gain_text
from qkd_qiskit.experiments.results import Result, TeacherSummary
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.experiments.target_summary import DeviceJobs, TrainingCost

ACCURACIES = {
    "label_only": {"exact": [0.5, 0.6], "fake_torino": [0.4, None]},
    "distilled": {"exact": [0.7, 0.8], "fake_torino": [0.6, None]},
}


def test_result_json_has_what_readers_rely_on(finished):
    result = json.loads((finished.path / "result.json").read_text(), parse_constant=pytest.fail)
    assert result == finished.result.to_json()
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


JOBS = DeviceJobs(
    place="device",
    backend="ibm_torino",
    mode="batch",
    submitted=("2026-01-01", "2026-01-02"),
    jobs=("a", "b"),
    pubs=2,
    circuits=20,
    executions=2000,
    qpu_seconds=None,
    expected_qpu_seconds=3.5,
    wait_seconds=0.0,
)


def test_what_is_written_is_read_back():
    result = make_result(
        ACCURACIES,
        trained_on=replace(JOBS, calibration_date="2026-01-01"),
        training_cost={"students": TrainingCost(calls=1, steps=2, circuits=3, executions=4)},
    )
    target = replace(result.targets["fake_torino"], device=JOBS, seeds=(0,))
    result = replace(result, targets={**result.targets, "fake_torino": target})
    content = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert Result.from_json(content) == result
    assert "tuning" not in content
    assert "calibration_date" not in content["targets"]["fake_torino"]["device"]
    assert list(content)[-2:] == ["comparisons", "trained_on"]


def test_a_file_of_the_first_version_loads():
    content = make_result(ACCURACIES).to_json()
    for name in ("classes", "sample", "gain_of_noise", "comparisons", "training_cost", "failed"):
        del content[name]
    del content["teacher"]["confusion"]
    result = Result.from_json(content)
    assert (result.classes, result.sample, result.comparisons) == ((), "image", ())
    assert result.teacher == TeacherSummary(kind="mlp", accuracy=0.9)
    assert result.gain == make_result(ACCURACIES).gain


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.pop("teacher"), "teacher is missing"),
        (lambda content: content["teacher"].pop("kind"), "teacher.kind is missing"),
        (lambda content: content.update(seeds=3), "seeds is int, not a list"),
        (lambda content: content["teacher"].update(accuracy="high"), "'high', not a number"),
        (lambda content: content["gain"]["exact"].update(ci95=[1.0]), "1 entries, not 2"),
        (lambda content: content["student"].update(parameters=True), "True, not a whole number"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(change, message):
    content = make_result(ACCURACIES).to_json()
    change(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        Result.from_json(content, where="runs/a/result.json")
    assert str(caught.value).startswith("runs/a/result.json cannot be read: ")
    assert "\n" not in str(caught.value)


def test_every_field_has_a_line_of_its_own():
    kinds = [Result, *(kind for kind in vars(sys.modules[Result.__module__]).values())]
    for kind in filter(is_dataclass, kinds):
        get_type_hints(kind)
        for item in fields(kind):
            assert f"    {item.name}: " in kind.__doc__, (kind, item.name)


def test_rows_leave_out_what_was_not_evaluated():
    result = make_result(ACCURACIES, failed={"distilled": {"1": "no"}})
    rows = result.rows()
    assert len(rows) == 6
    assert rows[0]["accuracy"] == 0.5
    assert [row["failed"] for row in rows if row["arm"] == "distilled"] == [None, "no", None]
    read = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert [float(row["accuracy"]) for row in read] == [row["accuracy"] for row in rows]
    assert read[0].keys() == rows[0].keys()


def test_a_frame_has_the_rows(monkeypatch):
    pandas = pytest.importorskip("pandas")
    result = make_result(ACCURACIES)
    assert result.to_frame().equals(pandas.DataFrame(result.rows()))
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas") as caught:
        result.to_frame()
    assert "\n" not in str(caught.value)


def test_tables_say_means_intervals_and_conditions():
    result = make_result(ACCURACIES)
    latex, html = result.to_latex(), result._repr_html_()
    # 0.55 and half of the t interval of two values: 12.706 x 0.0707 / sqrt(2).
    assert r"label only & 55.0 $\pm$ 63.5 & 40.0 \\" in latex
    assert r"distilled & 75.0 $\pm$ 63.5 & 60.0 \\" in latex
    assert r"fake\_torino" in latex
    assert ">75.0 ± 63.5</td>" in html
    for text in (latex, html):
        assert "mean of 2 seeds" in text
        assert "4096 shots, calibrated 2025-02-26, a noise model: a best case" in text


def test_html_is_escaped():
    assert "<b>" not in make_result({"<b>": {"exact": [0.5]}}, compared=False)._repr_html_()


def test_gains_are_written_with_sign_and_interval():
    assert gain_text(Gain(mean=1.25, ci95=(-0.5, 3.0), seeds=3)) == "+1.2 [-0.5, +3.0]"
    assert gain_text(Gain(mean=-1.0, ci95=None, seeds=1)) == "-1.0 (one seed)"
    assert gain_text(Gain(mean=None, ci95=None, seeds=0)) == "no pair"
