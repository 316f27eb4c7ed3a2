"""A run on generated data with learned bins, end to end: its result, its figure, its words."""

import pytest
from result_builder import make_result

from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.class_bin_section import class_bin_section
from qkd_qiskit.report.report import write_report
from qkd_qiskit.students.class_bins import bins_of
from qkd_qiskit.students.factory import load_student

RECIPE = """
data: {name: generated, points: 240, features: 16, train_points: 60}
teacher: {kind: mlp, epochs: 3, lr: 0.01}
student: {kind: quantum, qubits: 4, encoding: amplitude, ansatz: ry_rz_ring, layers: 1,
          reduction: none, readout: learned, head: none, sharpness: 4.0, full_width: 3}
distill: {epochs: 2, batch_size: 20, lr: 0.05, temperature: 1.0}
arms: [label_only, distilled, classical_full]
targets: [exact]
seeds: 2
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("outcomes")
    (path / "own.yaml").write_text(RECIPE)
    folder = RunFolder.create(path / "run", load_recipe(path / "own.yaml"))
    run(folder)
    return folder


def test_the_result_tells_the_distribution_before_and_after(folder):
    outcomes = folder.result.outcomes
    assert outcomes.seed == 0
    assert set(outcomes.distributions) == {"start", "label_only", "distilled"}
    assert sorted(map(outcomes.bins.count, (0, 1, 2))) == [5, 5, 6]
    for rows in outcomes.distributions.values():
        assert [len(row) for row in rows] == [16] * 3
        assert all(sum(row) == pytest.approx(1, abs=1e-3) for row in rows)
    start, after = (outcomes.distributions[name] for name in ("start", "distilled"))
    assert start != after


def test_both_arms_of_a_seed_have_its_bins_and_seeds_their_own(folder):
    bins = {
        (arm, seed): bins_of(load_student(folder.member(arm, seed)))
        for arm in ("label_only", "distilled")
        for seed in (0, 1)
    }
    assert bins["label_only", 0] == bins["distilled", 0] == list(folder.result.outcomes.bins)
    assert bins["label_only", 1] == bins["distilled", 1]
    assert bins["label_only", 0] != bins["label_only", 1]


def test_the_full_size_twin_is_compared(folder):
    assert folder.result.gain_over_full["exact"].seeds <= 2
    student = load_student(folder.member("classical_full", 0))
    assert student.num_parameters == 16 * 3 + 3 + 3 * 3 + 3


def test_the_report_shows_them_and_speaks_of_points(folder):
    page = write_report(folder).read_text()
    assert "What the outcomes stand for" in page
    assert "16 outcomes in bins of 6, 5, 5" in page
    assert page.count("outcome probabilities of each class") == 3
    assert "60 labelled points drawn over all classes" in page
    assert "full-size twin" in page
    assert "test images" not in page


def test_without_class_bins_there_is_no_such_part():
    assert class_bin_section(make_result({"label_only": {"exact": [0.5]}})) == ""
