"""What do more inputs bring, and what did the teacher see? Six recipes, with controls.

    QKD_DATA=ROOT python benchmarks/inputs.py [--cases digits,mnist] [--seeds 20]

Every case is a study with a tuned label-only baseline; its other arms are distilled, distilled by a
teacher that has seen the student's images alone, on jittered copies, on nine times as many
unlabelled images, on both, and the controls: labels alone on the same copies, and self-training
without a teacher. All arms take as many steps. A study goes on where it was stopped; what is
finished is not done again. Seeds begin at 200, which chose nothing. Writes results/inputs.csv, and
prints a table for each case: accuracy, and the gain over the tuned label-only arm with its 95 %
interval and Holm's p over all gains of all cases.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from calibration import EARLIER
from helps import open_study

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p
from qkd_qiskit.recipe.parsing import load_recipe

RESULTS = Path(__file__).parent / "results" / "inputs.csv"
COLUMNS = ("case", "arm", "seed", "accuracy")
BASELINE = "label_only_tuned"
ARMS = (
    "label_only",
    BASELINE,
    "label_only_augmented",
    "self_training",
    "distilled_same_draw",
    "distilled",
    "augmented",
    "transfer",
    "transfer_augmented",
    "classical_twin",
)
FIRST_SEED = 200
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits, 10 per class": ("digits", {}),
    "digits_quantum, 10 per class": ("digits_quantum", {}),
    "mnist, 50 per class": ("mnist", {"data.train_per_class": 50}),
    "fashion_mnist, 50 per class": ("fashion_mnist", {"data.train_per_class": 50}),
    "mnist_quantum, 10 per class": ("mnist_quantum", {"data.train_per_class": 10}),
    "fashion_mnist_quantum, 10 per class": ("fashion_mnist_quantum", {"data.train_per_class": 10}),
}
Accuracies = dict[str, list[float]]


def accuracies(case: str, *, seeds: int, out: Path) -> Accuracies:
    """Return the test accuracies of each seed by arm; what is not there is trained."""
    recipe, own = CASES[case]
    changes = {
        **EARLIER.get(recipe, {}),
        **own,
        "targets": ["exact"],
        "arms": list(ARMS),
        "seeds": list(range(FIRST_SEED, FIRST_SEED + seeds)),
    }
    study = open_study(
        load_recipe(recipe, changes),
        out / f"{recipe}-{seeds}",
        command="python benchmarks/inputs.py",
    )
    return {arm: list(by_target["exact"].accuracy) for arm, by_target in study.result.arms.items()}


def write(table: Mapping[str, Accuracies], path: Path) -> None:
    """Write one line for each case, arm and seed; cases that were not run keep theirs."""
    kept = [] if not path.exists() else [line for line in read(path) if line["case"] not in table]
    rows = [
        dict(zip(COLUMNS, (case, arm, FIRST_SEED + place, f"{accuracy:.6f}"), strict=True))
        for case, arms in table.items()
        for arm, values in arms.items()
        for place, accuracy in enumerate(values)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def read(path: Path) -> list[dict[str, str]]:
    """Return the lines of the table that was written."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def tables(lines: list[dict[str, str]]) -> str:
    """Return a table for each case, as Markdown."""
    cases: dict[str, Accuracies] = {}
    for line in lines:
        by_arm = cases.setdefault(line["case"], {})
        by_arm.setdefault(line["arm"], []).append(float(line["accuracy"]))
    gains = {
        (case, arm): differences(values, by_arm[BASELINE])
        for case, by_arm in cases.items()
        for arm, values in by_arm.items()
        if arm != BASELINE
    }
    p_values = [paired_p(points) for points in gains.values()]
    corrected = dict(zip(gains, holm([1.0 if p is None else p for p in p_values]), strict=True))
    text = []
    for case, by_arm in cases.items():
        text.append(
            f"\n{case}\n\n| arm | accuracy | over the tuned baseline | p, Holm |\n|---|---|---|---|"
        )
        for arm in ARMS:
            mean = f"{100 * sum(by_arm[arm]) / len(by_arm[arm]):.1f}"
            if arm == BASELINE:
                text.append(f"| `{arm}` | {mean} | | |")
                continue
            middle, half = mean_interval(gains[case, arm])
            gain = f"{middle:+.1f}" + (
                "" if half is None else f" [{middle - half:+.1f}, {middle + half:+.1f}]"
            )
            p = corrected[case, arm]
            text.append(f"| `{arm}` | {mean} | {f'**{gain}**' if p < 0.05 else gain} | {p:.1g} |")
    return "\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {name: case for case, (name, _) in CASES.items()}
    parser.add_argument("--cases", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("runs/inputs"))
    parser.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.cases.split(","):
        case = names[name]
        write({case: accuracies(case, seeds=options.seeds, out=options.out)}, options.csv)
    print(tables(read(options.csv)))


if __name__ == "__main__":
    main()
