"""Fully quantum students of at most 50 two-qubit gates: how good are they, on a device's noise?

    QKD_DATA=ROOT python benchmarks/device_students.py [--cases digits_few,mnist_all] [--seeds 20]

Three recipes (`digits_device`, `mnist_device`, `fashion_mnist_device`), each with few labels, as it
stands, and with all. Their only trained numbers are a circuit's weights; the reduction before it
is fixed. Beside the distilled student stand the one of as many gates that learned from the labels
alone, the one that the teacher also taught on nine times as many unlabelled images (`transfer`),
the best-known twin of at most as many trained numbers (principal components and a linear layer,
distilled alike), and the teacher. Test accuracy on the whole test set, exact and under
fake_torino's exact noise. A study goes on where it was stopped; what is finished is not done
again. Seeds begin at 300, which chose nothing. Writes results/device_students.csv and prints the
tables of DEVICE.md.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from helps import open_study

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import Run

RESULTS = Path(__file__).parent / "results" / "device_students.csv"
COLUMNS = ("case", "arm", "target", "seed", "accuracy")
FIRST_SEED = 300
DEVICE = "fake_torino:exact"
BASELINE = "label_only"
TWIN_TRANSFER = "twin_pca_transfer"
FEW: dict[str, Any] = {
    "arms": [BASELINE, "distilled", "transfer", "twin_pca", TWIN_TRANSFER],
    "own_arms": {TWIN_TRANSFER: {"base": "transfer", "student.kind": "pca_linear"}},
}
ALL: dict[str, Any] = {
    "arms": [BASELINE, "distilled", "twin_pca"],
    "data.train_per_class": None,
}
LARGE = {"distill.epochs": 10, "distill.batch_size": 128}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits_few": ("digits_device", FEW),
    "digits_all": ("digits_device", ALL | {"distill.epochs": 60}),
    "mnist_few": ("mnist_device", FEW),
    "mnist_all": ("mnist_device", ALL | LARGE),
    "fashion_few": ("fashion_mnist_device", FEW),
    "fashion_all": ("fashion_mnist_device", ALL | LARGE),
}
Rows = list[dict[str, str]]


def rows_of(case: str, *, seeds: int, out: Path) -> Rows:
    """Return a row for each arm, target and seed of a case; what is not there is trained."""
    recipe, changes = CASES[case]
    numbers = list(range(FIRST_SEED, FIRST_SEED + seeds))
    study = open_study(
        load_recipe(recipe, changes | {"seeds": numbers}),
        out / f"{case}-{seeds}",
        command="python benchmarks/device_students.py",
    )
    rows = [
        _row(case, arm, target, seed, accuracy)
        for arm, by_target in study.result.arms.items()
        for target, measured in by_target.items()
        for seed, accuracy in zip(numbers, measured.accuracy, strict=True)
    ]
    return [*rows, _row(case, "teacher", "exact", study.recipe.seed, teacher_accuracy(study))]


def teacher_accuracy(study: Run) -> float:
    """Return the test accuracy of a study's teacher."""
    return float(study.result.teacher.accuracy)


def _row(case: str, arm: str, target: str, seed: int, accuracy: float) -> dict[str, str]:
    values = (case, arm, target, str(seed), f"{accuracy:.6f}")
    return dict(zip(COLUMNS, values, strict=True))


def write(rows: Rows, path: Path) -> None:
    """Write a case's rows; other cases keep theirs."""
    kept = [line for line in read(path) if line["case"] != rows[0]["case"]] if path.exists() else []
    order = list(CASES)
    whole = sorted(kept + rows, key=lambda line: order.index(line["case"]))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(whole)


def read(path: Path) -> Rows:
    """Return the lines of the table that was written."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def values_of(rows: Rows, case: str, arm: str, target: str) -> list[float]:
    """Return the accuracies of an arm on a target, seed by seed; empty where it has none there."""
    wanted = (case, arm, target)
    return [
        float(row["accuracy"]) for row in rows if (row["case"], row["arm"], row["target"]) == wanted
    ]


def tables(rows: Rows) -> str:
    """Return a table for each case, and the gains, as Markdown."""
    text = []
    for case in dict.fromkeys(row["case"] for row in rows):
        arms = list(dict.fromkeys(row["arm"] for row in rows if row["case"] == case))
        text.append(f"\n{case}, {len(values_of(rows, case, BASELINE, 'exact'))} seeds\n")
        text.append("| arm | exact | fake_torino, exact noise | lowest seed there |")
        text.append("|---|---|---|---|")
        for arm in arms:
            exact, noisy = (values_of(rows, case, arm, name) for name in ("exact", DEVICE))
            lowest = f"{100 * min(noisy):.1f}" if noisy else "-"
            text.append(f"| `{arm}` | {_mean(exact)} | {_mean(noisy)} | {lowest} |")
    return "\n".join(text + _gains(rows))


def _gains(rows: Rows) -> list[str]:
    """Return the paired differences on the device, corrected over all of them."""
    pairs = (
        ("distilled", BASELINE),
        ("transfer", BASELINE),
        ("transfer", "distilled"),
        ("distilled", "twin_pca"),
        ("transfer", TWIN_TRANSFER),
    )
    points: dict[tuple[str, str, str], list[float]] = {}
    for case in dict.fromkeys(row["case"] for row in rows):
        for first, second in pairs:
            # A twin has no circuit that noise could act on.
            twin = values_of(rows, case, second, DEVICE) or values_of(rows, case, second, "exact")
            mine = values_of(rows, case, first, DEVICE)
            if mine and twin:
                points[case, first, second] = differences(mine, twin)
    raw = [paired_p(values) for values in points.values()]
    corrected = holm([1.0 if p is None else p for p in raw])
    text = [
        "\n| case | difference under fake_torino's noise | points | p, Holm |",
        "|---|---|---|---|",
    ]
    for (case, first, second), p in zip(points, corrected, strict=True):
        middle, half = mean_interval(points[case, first, second])
        interval = "" if half is None else f" [{middle - half:+.1f}, {middle + half:+.1f}]"
        text.append(f"| {case} | `{first}` - `{second}` | {middle:+.1f}{interval} | {p:.1g} |")
    return text


def _mean(values: Sequence[float]) -> str:
    """Return a mean with its 95 % interval in %, or a dash."""
    if not values:
        return "-"
    middle, half = mean_interval([100 * value for value in values])
    return f"{middle:.1f}" + ("" if half is None else f" ± {half:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/device_students"))
    parser.add_argument("--csv", type=Path, default=RESULTS)
    parser.add_argument("--tables", action="store_true", help="only print the tables of the CSV")
    options = parser.parse_args()
    for case in [] if options.tables else options.cases.split(","):
        write(rows_of(case, seeds=options.seeds, out=options.out), options.csv)
    print(tables(read(options.csv)))


if __name__ == "__main__":
    main()
