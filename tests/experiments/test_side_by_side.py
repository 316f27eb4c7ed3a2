"""Runs side by side: what differs in them, pairs where there are pairs, and Holm over all."""

import json
import shutil

import pytest
from scipy import stats

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.side_by_side import compare_runs, named_rows, run_names
from qkd_qiskit.experiments.statistics import compare, welch

FIRST = {"label_only": [0.50, 0.54, 0.49, 0.52], "distilled": [0.60, 0.61, 0.57, 0.63]}
SECOND = {"label_only": [0.51, 0.56, 0.50, 0.55], "distilled": [0.58, 0.60, 0.57, 0.60]}


@pytest.fixture
def make(finished, tmp_path):
    """Makes a finished run of these accuracies, of four seeds, on the target exact."""

    def run(name, accuracies, *, recipe="", test="a" * 64, images=40, seeds=(0, 1, 2, 3)):
        path = tmp_path / name
        path.mkdir()
        text = (finished.path / "recipe.yaml").read_text()
        text = text.replace("seeds: 2", f"seeds: [{', '.join(map(str, seeds))}]")
        text = text.replace("[label_only, distilled, classical_twin]", "[label_only, distilled]")
        (path / "recipe.yaml").write_text(
            text.replace("temperature: 4.0", recipe or "temperature: 4.0")
        )
        content = json.loads((finished.path / "result.json").read_text())
        content |= {"seeds": seeds, "failed": {}, "comparisons": [], "gain_over_twin": {}}
        content["targets"] = {"exact": content["targets"]["exact"]}
        content["gain"] = {}
        content["arms"] = {
            arm: {
                "exact": {key: [None] * 4 for key in content["arms"][arm]["exact"]}
                | {"accuracy": values, "images": [images] * 4}
            }
            for arm, values in accuracies.items()
        }
        (path / "result.json").write_text(json.dumps(content))
        if test:
            digests = {"data": {"test": test}, "sessions": []}
            (path / "provenance.json").write_text(json.dumps(digests))
        return RunFolder.open(path)

    return run


def test_equal_seeds_and_test_images_are_pairs(make):
    found = compare_runs([make("one", FIRST), make("two", SECOND, recipe="temperature: 2.0")])
    assert found.runs == ("one", "two")
    assert found.recipes == {"distill.temperature": (4.0, 2.0)}
    assert found.same_test_set == (True, True)
    gain, other, labels, distilled = (*found.gains, *found.differences)
    assert (gain.run, gain.arm, gain.over_arm) == ("one", "distilled", "label_only")
    assert other.mean == pytest.approx(100 * (0.5875 - 0.53))
    assert labels.paired
    assert labels.seeds == 4
    assert labels.mean == pytest.approx(1.75)
    test = compare(SECOND["distilled"], FIRST["distilled"])
    assert (distilled.mean, distilled.ci95, distilled.p) == (test.mean, test.ci95, test.p)
    assert distilled.p == pytest.approx(
        stats.ttest_rel(SECOND["distilled"], FIRST["distilled"]).pvalue
    )


def test_p_is_corrected_for_all_that_is_shown(make):
    found = compare_runs([make("one", FIRST), make("two", SECOND)])
    entries = (*found.gains, *found.differences)
    assert len(entries) == 4
    largest = 0.0
    for rank, entry in enumerate(sorted(entries, key=lambda entry: entry.p)):
        largest = max(largest, min(1.0, (4 - rank) * entry.p))  # Holm's step-down
        assert entry.p_holm == pytest.approx(largest)


@pytest.mark.parametrize(
    "changes",
    [{"test": "b" * 64}, {"images": 39}, {"seeds": (4, 5, 6, 7)}],
    ids=["other images", "fewer images", "other seeds"],
)
def test_what_are_no_pairs_is_not_paired(make, changes):
    found = compare_runs([make("one", FIRST), make("two", SECOND, **changes)])
    assert found.same_test_set == (True, "seeds" in changes)
    for entry in found.differences:
        assert not entry.paired
        expected = stats.ttest_ind(SECOND[entry.arm], FIRST[entry.arm], equal_var=False)
        assert entry.p == pytest.approx(expected.pvalue)
        low, high = expected.confidence_interval(0.95)
        assert entry.ci95 == pytest.approx((100 * low, 100 * high))
    assert all(entry.paired for entry in found.gains)


def test_only_common_seeds_are_pairs(make):
    found = compare_runs([make("one", FIRST), make("two", SECOND, seeds=(1, 2, 9, 8))])
    entry = found.differences[1]
    assert (entry.arm, entry.paired, entry.seeds) == ("distilled", True, 2)
    assert entry.mean == pytest.approx(100 * ((0.58 - 0.61) + (0.60 - 0.57)) / 2)


def test_without_digests_the_recipes_say_which_images(make):
    first, second = (make(name, FIRST, test=None) for name in ("one", "two"))
    assert compare_runs([first, second]).same_test_set == (True, True)
    path = second.path / "recipe.yaml"
    path.write_text(path.read_text().replace("train_per_class: 12", "train_per_class: 10"))
    assert compare_runs([first, RunFolder.open(path.parent)]).same_test_set == (True, True)
    path.write_text(path.read_text().replace("test_per_class: 20", "test_per_class: 21"))
    assert compare_runs([first, RunFolder.open(path.parent)]).same_test_set == (True, False)


def test_failed_students_have_no_pair(make):
    run = make("two", SECOND)
    path = run.path / "result.json"
    content = json.loads(path.read_text())
    content["failed"] = {"distilled": {"1": "the loss is not finite"}}
    path.write_text(json.dumps(content))
    found = compare_runs([make("one", FIRST), run])
    assert [entry.seeds for entry in found.differences] == [4, 3]
    assert found.accuracies["two"]["distilled"] == (0.58, 0.57, 0.60)


def test_what_cannot_be_compared_is_refused(make, tmp_path):
    one, two = make("one", FIRST), make("two", SECOND)
    for folders in ([one], [one, one]):
        with pytest.raises(InputError, match="1 run cannot be compared; give two or more"):
            compare_runs(folders)
    with pytest.raises(InputError, match="the target 'aer' is in all of these runs; give one of"):
        compare_runs([one, two], target="aer")
    (two.path / "result.json").unlink()
    with pytest.raises(CheckpointError, match="has not ended"):
        compare_runs([one, two])


def test_runs_of_one_name_are_told_apart(make, tmp_path):
    paths = [tmp_path / "a" / "run", tmp_path / "b" / "run"]
    assert run_names(paths) == [str(path) for path in paths]
    assert run_names([paths[0]]) == ["run"]
    rows = named_rows([make("one", FIRST), make("two", SECOND)])
    assert [row["accuracy"] for row in rows if row["run"] == "two"] == [
        *SECOND["label_only"],
        *SECOND["distilled"],
    ]


def test_welch_with_few_values_says_less():
    assert welch([], [0.5]) == (None, None, None)
    mean, interval, p = welch([0.6], [0.5, 0.7])
    assert mean == pytest.approx(0)
    assert (interval, p) == (None, None)
    mean, interval, p = welch([0.6, 0.6], [0.5, 0.5])
    assert mean == pytest.approx(10)
    assert (interval, p) == (None, None)


def test_a_copy_of_a_run_is_equal_to_it(finished, tmp_path):
    copy = RunFolder.open(shutil.copytree(finished.path, tmp_path / "copy"))
    found = compare_runs([finished, copy], target="fake_manila")
    assert found.recipes == {}
    assert found.same_test_set == (True, True)
    assert [entry.mean for entry in found.differences] == [0.0, 0.0, 0.0]
