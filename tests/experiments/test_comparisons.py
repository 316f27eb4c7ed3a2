"""Which arms are compared, and how the tests are corrected together."""

import pytest
from result_builder import make_result

from qkd_qiskit.experiments.comparisons import baseline_of, compare_arms, compared_pairs
from qkd_qiskit.experiments.statistics import holm, paired_gain

ACCURACIES = {
    "label_only": [0.80, 0.81, 0.79, 0.82],
    "label_only_tuned": [0.82, 0.81, 0.83, 0.82],
    "distilled": [0.86, 0.84, 0.85, 0.88],
    "class_mean_labels": [0.81, 0.82, 0.80, 0.83],
    "replicate": [0.81, 0.80, 0.79, 0.83],
}


@pytest.fixture
def result():
    accuracies = {arm: {"exact": values} for arm, values in ACCURACIES.items()}
    return make_result(accuracies, failed={"distilled": {"2": "chance"}}, compared=False)


def test_the_baseline_that_counts_is_the_tuned_one():
    assert baseline_of(["label_only", "label_only_tuned"]) == "label_only_tuned"
    assert baseline_of(["label_only", "distilled"]) == "label_only"
    assert baseline_of(["distilled"]) is None


def test_pairs():
    assert compared_pairs(list(ACCURACIES)) == [
        ("label_only", "label_only_tuned"),
        ("distilled", "label_only_tuned"),
        ("class_mean_labels", "label_only_tuned"),
        ("distilled", "label_only"),
        ("distilled", "class_mean_labels"),
        ("replicate", "label_only"),
    ]
    assert compared_pairs(["label_only", "distilled"]) == [("distilled", "label_only")]
    assert compared_pairs(["distilled"]) == []


def test_a_failed_student_leaves_its_pairs_and_no_others(result):
    found = {(entry.arm, entry.baseline): entry for entry in compare_arms(result)}
    gain = found["distilled", "label_only_tuned"]
    kept = [
        [ACCURACIES[arm][row] for row in (0, 1, 3)] for arm in ("distilled", "label_only_tuned")
    ]
    assert gain.mean == pytest.approx(paired_gain(*kept).mean)
    assert (gain.seeds, gain.left_out) == (3, ("2",))
    assert found["replicate", "label_only"].seeds == 4


def test_all_tests_of_a_run_are_corrected_together():
    accuracies = {
        arm: {"exact": values, "aer": [value - 0.01 * row for row, value in enumerate(values)]}
        for arm, values in ACCURACIES.items()
    }
    failed = {"distilled": {"2": "chance"}}
    found = compare_arms(make_result(accuracies, failed=failed, compared=False))
    assert len(found) == 12
    assert [entry.p_holm for entry in found] == pytest.approx(holm([entry.p for entry in found]))


def test_one_seed_has_no_test():
    accuracies = {arm: {"exact": values[:1]} for arm, values in ACCURACIES.items()}
    found = make_result(accuracies).comparisons
    assert {entry.p_holm for entry in found} == {None}
    assert found[0].mean == pytest.approx(-2)
