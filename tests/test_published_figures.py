"""The figures under "What it found" in the README follow from the committed rows."""

import csv
import re
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p

ROOT = Path(__file__).parents[1]
README = " ".join((ROOT / "README.md").read_text().split())
NUMBERS = {"none": 0, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "ten": 10}


def rows(name):
    with (ROOT / "benchmarks" / "results" / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def said(pattern):
    """Return the groups of the one place of the README that a pattern is in, as numbers."""
    found = re.findall(pattern, README)
    assert len(found) == 1, f"{pattern} is {len(found)} times in the README"
    groups = found[0] if isinstance(found[0], tuple) else (found[0],)
    return [NUMBERS[it] if it in NUMBERS else float(it) for it in groups]


def gains(table, *, key, arm, baseline):
    """Return the mean paired gains in points by case."""
    by_case = defaultdict(lambda: defaultdict(dict))
    for row in table:
        by_case[row[key]][row.get("arm") or row["loss"]][row["seed"]] = float(row["accuracy"])
    return {
        case: 100 * fmean(arms[arm][seed] - arms[baseline][seed] for seed in arms[arm])
        for case, arms in by_case.items()
    }


def rounded(values, digits=1):
    return [round(value, digits) for value in values]


def test_the_figures_of_the_first_command():
    """Rows of `Run.result.to_csv()` of the command that the README gives, all five arms."""
    accuracy = defaultdict(list)
    for row in rows("quickstart"):
        accuracy[row["arm"], row["target"]].append(float(row["accuracy"]))
    pairs = [("distilled", "label_only"), ("classical_twin", "label_only")]
    pairs += [("distilled", "classical_twin")]
    targets = ("exact", "fake_torino")
    gains = {
        (pair, target): differences(*(accuracy[arm, target] for arm in pair))
        for target in targets
        for pair in pairs
    }
    corrected = dict(zip(gains, holm([paired_p(gain) for gain in gains.values()]), strict=True))
    for arm, name in (
        ("label_only", "label only"),
        ("distilled", "distilled"),
        ("classical_twin", "classical twin, distilled"),
    ):
        means = [round(100 * fmean(accuracy[arm, target]), 1) for target in targets]
        assert said(rf"\| {name} \| ([\d.]+) % \| ([\d.]+) % \|") == means
    shown = []
    for target in targets:
        mean, half = mean_interval(gains[pairs[0], target])
        shown += rounded([mean, mean - half, mean + half])
    interval = r"\*\*\+([\d.]+)\*\* \[\+([\d.]+), \+([\d.]+)\]"
    assert said(rf"{interval} \| {interval}") == shown
    p_values = [float(f"{corrected[pairs[0], target]:.2g}") for target in targets]
    assert said(r"p over the run's (\w+) comparisons is ([\d.]+) and ([\d.]+)\.") == [6, *p_values]
    alike = differences(accuracy["distilled_same_draw", "exact"], accuracy["label_only", "exact"])
    mean, half = mean_interval(alike)
    assert said(r"alone brings \+([\d.]+) \[(-[\d.]+), \+([\d.]+)\]") == rounded(
        [mean, mean - half, mean + half]
    )
    ahead = fmean(differences(accuracy["twin_pca", "exact"], accuracy["distilled", "exact"]))
    assert said(r"PCA and a linear layer, is ([\d.]+) points ahead") == rounded([ahead])


def comparisons(arm, baseline, cells=None):
    """Return the gains in points by cell, and whether Holm's p is below 0.05."""
    return {
        row["cell"]: (float(row["mean"]), float(row["p_holm"]) < 0.05)
        for row in rows("helps")
        if (row["arm"], row["baseline"]) == (arm, baseline)
        and (cells is None or row["cell"] in cells)
    }


@pytest.mark.parametrize(
    ("arm", "baseline", "sign", "pattern"),
    [
        (
            "distilled",
            "label_only_tuned",
            1,
            r"\+([\d.]+) to \+([\d.]+) points over tuned label-only students",
        ),
        ("taught_more", "labels_more", 1, r"by ([\d.]+) to ([\d.]+) points, are students"),
        ("distilled", "best_twin", -1, r"([\d.]+) to ([\d.]+) points ahead of the circuits"),
    ],
)
def test_what_distillation_gains(arm, baseline, sign, pattern):
    found = comparisons(arm, baseline)
    assert len(found) >= 4
    means = {cell: sign * mean for cell, (mean, _) in found.items()}
    assert rounded([min(means.values()), max(means.values())]) == said(pattern)
    open_yet = [cell for cell, (_, told) in found.items() if not told]
    assert not open_yet


def test_what_the_teacher_s_other_labels_are_worth():
    same = comparisons("distilled_same_draw", "label_only_tuned")
    assert all(told for _, told in same.values())
    ahead = [mean for mean, _ in same.values() if mean > 0]
    behind = [-mean for mean, _ in same.values() if mean < 0]
    count, cases, gain, losing, least, most = said(
        r"(\w+) of (\w+) cases gains \(digits, \+([\d.]+) points\) and (\w+) lose (\d+) to (\d+)"
    )
    assert (len(ahead), len(same), len(behind)) == (count, cases, losing)
    assert rounded(ahead) == [gain]
    assert rounded([min(behind), max(behind)], 0) == [least, most]


def test_what_many_unlabelled_images_reach():
    means = defaultdict(list)
    for row in rows("helps_accuracy"):
        if row["arm"] == "taught_more":
            means[row["cell"]].append(100 * float(row["accuracy"]))
    cells = ("mnist_50", "fashion_mnist_50")
    assert rounded([fmean(means[cell]) for cell in cells]) == said(
        r"MNIST ([\d.]+) and Fashion-MNIST ([\d.]+) % from 50 labels per class"
    )


def test_the_gains_of_the_paper_are_not_there():
    table = [row for row in rows("paper_v1_cells") if row["published_gain"]]
    told = [row for row in table if float(row["p_holm"]) < 0.05 and float(row["gain"]) > 0]
    assert [len(told), len(table)] == said(r"not there under control: (\w+) of (\d+) cells")


def test_which_losses_beat_the_recipe_s():
    table = rows("losses")
    losses = {row["loss"] for row in table} - {"label_only", "recipe", "label_smoothing", "kd"}
    ahead = {}
    for loss in losses:
        own = [row for row in table if row["loss"] in (loss, "recipe")]
        having = {row["recipe"] for row in own if row["loss"] == loss}
        own = [row for row in own if row["recipe"] in having]
        found = gains(own, key="recipe", arm=loss, baseline="recipe")
        ahead |= {(loss, case): gain for case, gain in found.items() if gain > 0.5}
    count, recipes, cases, gain = said(
        r"published losses (\w+) beats the recipe's own, on (\w+) of (\w+) recipes, by ([\d.]+)"
    )
    assert len(ahead) == count == recipes
    assert len({row["recipe"] for row in table}) == cases
    assert rounded(ahead.values()) == [gain]


def test_the_gain_of_the_slides():
    (row,) = [
        row
        for row in rows("slides_c2q_summary")
        if (row["data"], row["difficulty"], row["labels"], row["student"])
        == ("generated", "0.25", "all", "hybrid")
    ]
    shown = [float(row[key]) for key in ("gain", "gain_low", "gain_high")]
    assert said(r"for long \(hybrid: \+([\d.]+) \[(-[\d.]+), \+([\d.]+)\] points\)") == shown


def test_how_fast_a_step_is():
    table = rows("peers_hybrid")
    for column, pattern in (
        ("tensorcircuit_ratio", r"([\d.]+) to ([\d.]+) times as fast as in TensorCircuit-NG"),
        ("structured_jax_scan_ratio", r"([\d.]+) to ([\d.]+) times as fast as JAX"),
    ):
        ratios = [float(row[column]) for row in table if row[column]]
        assert rounded([min(ratios), max(ratios)]) == said(pattern)
    (wide,) = [row for row in rows("peers_wide") if (row["qubits"], row["batch"]) == ("20", "1")]
    assert rounded([float(wide["against_lightning"])], 0) == said(
        r"on 20 qubits (\d+) times as fast as lightning"
    )


@pytest.mark.parametrize("recipe", ["digits", "digits_quantum", "mnist"])
def test_the_tables_of_losses_follow_from_the_rows(recipe):
    page = (ROOT / "docs" / "losses.md").read_text()
    section = page.split(f"`{recipe}` (", 2)[1].split("\n\n", 2)[1]
    shown = dict(re.findall(r"^\| (\w+) \| ([\d.]+) \|", section, flags=re.M))
    found = defaultdict(list)
    for row in rows("losses"):
        if row["recipe"] == recipe:
            found[row["loss"]].append(100 * float(row["accuracy"]))
    assert shown == {loss: f"{fmean(values):.1f}" for loss, values in found.items()}
