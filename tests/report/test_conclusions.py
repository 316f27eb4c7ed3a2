"""What a run concludes, and that it concludes nothing without the evidence for it."""

import math
import shutil

import pytest
from result_builder import make_result
from statsmodels.stats.power import TTestPower

from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.report.conclusions import conclusions, verdict
from qkd_qiskit.report.report import write_report

SPREAD = [0.05, 0.06, 0.04, 0.05, 0.055, 0.045]


def result_of(gains, **others):
    """A result whose distilled students gain so much over label only, as shares."""
    gains = {"distilled": gains, **others}
    accuracies = {arm: {"exact": [0.7 + gain for gain in values]} for arm, values in gains.items()}
    return make_result({"label_only": {"exact": [0.7] * len(gains["distilled"])}, **accuracies})


def answer(result):
    return conclusions(result, "exact")[0]


def test_a_clear_gain_helped_and_a_clear_loss_harmed():
    helped = answer(result_of(SPREAD))
    assert helped.verdict == "up"
    assert helped.sentence == (
        "Distillation gained +5.0 points of test accuracy (95\u202f% interval +4.3 to +5.7, "
        "6 paired seeds): it helped."
    )
    harmed = answer(result_of([-gain for gain in SPREAD]))
    assert harmed.verdict == "down"
    assert harmed.sentence.startswith("Distillation changed test accuracy by −5.0 points (95")
    assert harmed.sentence.endswith("it harmed.")


def test_few_pairs_conclude_nothing_however_clear():
    few = answer(result_of(SPREAD[:4]))
    assert few.verdict == "open"
    assert few.sentence.endswith(
        "4 paired seeds): open, as 4 pairs are fewer than the 5 that a conclusion takes."
    )
    assert answer(result_of(SPREAD[:5])).verdict == "up"


def test_an_interval_of_no_width_concludes_nothing():
    same = answer(result_of([0.25] * 8))
    assert same.verdict == "open"
    assert "+25.0 to +25.0" in same.sentence
    assert same.sentence.endswith(
        "all pairs differ by the same, and without a spread there is no test."
    )
    assert answer(result_of([0.0] * 8)).verdict == "open"


def test_what_other_comparisons_take_away_is_said():
    """The interval is above zero, and Holm's correction over what is shown leaves nothing."""
    gains = [0.08, 0.01, 0.05, 0.06, -0.01, 0.09]
    alone = result_of(gains)
    assert alone.comparisons[0].p < 0.05
    assert answer(alone).verdict == "up"
    noise = [0.02, -0.02, 0.01, -0.01, 0.015, -0.012]
    result = result_of(gains, classical_twin=noise, shuffled_teacher=noise[::-1], replicate=noise)
    comparison = result.comparison("distilled", "label_only", "exact")
    assert comparison.ci95[0] > 0
    assert comparison.p < 0.05 < comparison.p_holm
    found = answer(result)
    assert found.verdict == "open"
    tests = len(result.comparisons)
    assert f"Holm's p over the {tests} comparisons is {comparison.p_holm:.2g}" in found.sentence
    needed = TTestPower().solve_power(effect_size=comparison.effect, power=0.8, alpha=0.05)
    assert f"a single test would take about {math.ceil(needed)} seeds" in found.sentence


def test_the_tuned_baseline_counts_where_there_is_one():
    result = result_of(SPREAD, label_only_tuned=[0.05, 0.04, 0.06, 0.05, 0.05, 0.05])
    found = answer(result)
    assert found.verdict == "open"
    assert "over label-only students with settings of their own" in found.sentence


def test_twins_are_answered_too():
    result = result_of(SPREAD, classical_twin=[0.0, 0.01, 0.0, 0.005, 0.01, 0.0])
    assert [found.verdict for found in conclusions(result, "exact")] == ["up", "up"]
    assert conclusions(result, "exact")[1].sentence.endswith("the student is ahead.")


@pytest.mark.parametrize("baseline", ["label_only", "label_only_tuned"])
def test_what_the_teacher_saw_stands_beside_the_gain(baseline):
    arms = {"label_only": [0.5] * 6, baseline: [0.51, 0.49, 0.5] * 2}
    arms["distilled"] = [0.6, 0.61, 0.62, 0.6, 0.61, 0.63]
    arms["distilled_same_draw"] = [0.45, 0.46, 0.46, 0.44, 0.46, 0.45]
    result = make_result({arm: {"exact": values} for arm, values in arms.items()})
    gain, same_draw = conclusions(result, "exact")
    assert (gain.verdict, same_draw.verdict) == ("up", "down")
    start = "With a teacher of the student's own images alone: −4.7 points"
    assert same_draw.sentence.startswith(start)
    assert same_draw.sentence.endswith("6 paired seeds): it harmed.")


def test_a_gain_without_a_test_is_open():
    assert verdict(Gain(mean=2.0, ci95=(1.0, 3.0), seeds=12)) == "open"
    without = make_result(
        {"label_only": {"exact": [0.5] * 6}, "distilled": {"exact": [0.6, 0.61] * 3}},
        compared=False,
    )
    assert "open, as this result holds no test of it" in answer(without).sentence


@pytest.mark.parametrize(("seeds", "kind"), [(6, "answer up"), (4, "answer open")])
def test_the_page_shows_a_conclusion_as_one_only_where_it_is(seeds, kind, finished, tmp_path):
    folder = RunFolder.open(shutil.copytree(finished.path, tmp_path / "run"))
    folder.end(result_of(SPREAD[:seeds]))
    page = write_report(folder).read_text()
    assert f'class="{kind}"' in page
    assert ".answer p:first-child { font-size: 1.2rem; line-height: 1.4; }" in page
    assert ".answer.up p:first-child, .answer.down p:first-child { font-weight: 600; }" in page
