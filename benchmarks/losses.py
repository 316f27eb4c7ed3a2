"""Do other losses teach better? Published losses on three recipes, the same seeds for all.

    QKD_DATA=ROOT python benchmarks/losses.py [--recipes digits,digits_quantum,mnist] [--seeds 10]

Each loss is the list of terms below in the place of the recipe's own, with usual weights of the
literature where there are some; nothing is tuned, and the temperature is the recipe's. Every pair
of recipe and loss is a run of `--out` that goes on where it was stopped; what is finished is not
done again. Writes results/losses.csv, and prints test accuracies with the gains over labels alone
and over the recipe's own loss: 95 % t intervals of paired seeds, p values of the latter by Holm
over the recipe.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import os
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from calibration import EARLIER
from helps import open_study

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p
from qkd_qiskit.recipe.parsing import load_recipe

RESULTS = Path(__file__).parent / "results" / "losses.csv"
COLUMNS = ("recipe", "loss", "seed", "accuracy")
LABELS, OWN = "label_only", "recipe"
RECIPES = ("digits", "digits_quantum", "mnist")


def _with_labels(weight: float, *terms: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"loss": "ce", "weight": weight}, *terms]


LOSSES: dict[str, list[dict[str, Any]]] = {
    "label_smoothing": [{"loss": "label_smoothing", "smoothing": 0.1}],  # without a teacher
    "kd": _with_labels(0.5, {"loss": "kd", "weight": 0.5}),
    "standardized_kd": _with_labels(
        0.1, {"loss": "standardized_kd", "weight": 9.0, "temperature": 2.0}
    ),
    "dkd": _with_labels(1.0, {"loss": "dkd", "alpha": 1.0, "beta": 8.0}),
    "dist": _with_labels(1.0, {"loss": "dist", "weight": 2.0, "temperature": 1.0}),
    "jensen_shannon": _with_labels(0.5, {"loss": "jensen_shannon", "weight": 0.5}),
    "rkd": _with_labels(
        1.0, {"loss": "rkd_distance", "weight": 25.0}, {"loss": "rkd_angle", "weight": 50.0}
    ),
    "similarity": _with_labels(1.0, {"loss": "similarity", "weight": 3000.0}),
    "pkt": _with_labels(1.0, {"loss": "pkt", "weight": 1.0}),
    # A mean square of numbers up to 1: with 10 it is of the order of the cross-entropy.
    "fidelity": _with_labels(1.0, {"loss": "fidelity", "weight": 10.0}),
}
REFUSED = {"digits_quantum": "fidelity"}  # its encoding is fixed: such a loss has no gradient


def accuracies(recipe: str, loss: str, *, seeds: int, out: Path) -> dict[str, list[float]]:
    """Return the test accuracies of each seed by arm; what is not there is trained."""
    changes: dict[str, Any] = {"targets": ["exact"], "seeds": seeds, "arms": ["distilled"]}
    if loss == OWN:
        changes["arms"] = [LABELS, "distilled"]
    else:
        changes |= {"distill.terms": LOSSES[loss], "distill.student_temperature": None}
    path = out / f"{recipe}-{loss}-{seeds}"
    changes = EARLIER.get(recipe, {}) | changes
    study = open_study(load_recipe(recipe, changes), path, command="python benchmarks/losses.py")
    return {arm: list(by_target["exact"].accuracy) for arm, by_target in study.result.arms.items()}


def write(table: dict[str, dict[str, list[float]]], path: Path) -> None:
    """Write one line for each recipe, loss and seed; recipes that were not run keep theirs."""
    kept: list[dict[str, Any]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [line for line in csv.DictReader(file) if line["recipe"] not in table]
    rows = [
        dict(zip(COLUMNS, (recipe, loss, seed, f"{accuracy:.6f}"), strict=True))
        for recipe, losses in table.items()
        for loss, values in losses.items()
        for seed, accuracy in enumerate(values)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)


def show(recipe: str, losses: dict[str, list[float]]) -> None:
    """Print the table of one recipe."""
    gains = {loss: differences(values, losses[OWN]) for loss, values in losses.items()}
    others = [loss for loss in losses if loss not in (LABELS, OWN)]
    p_values = [paired_p(gains[loss]) for loss in others]
    corrected = dict(zip(others, holm([1.0 if p is None else p for p in p_values]), strict=True))
    print(f"\n{recipe}\n| loss | accuracy | over labels alone | over the recipe's loss | p, Holm |")
    print("|---|---|---|---|---|")
    for loss, values in losses.items():
        print(
            f"| {loss} | {100 * sum(values) / len(values):.1f} "
            f"| {_gain(differences(values, losses[LABELS]))} | {_gain(gains[loss])} "
            f"| {f'{corrected[loss]:.2g}' if loss in corrected else '-'} |"
        )


def _gain(points: list[float]) -> str:
    if not any(points):
        return "-"
    mean, half = mean_interval(points)
    return f"{mean:+.1f}" if half is None else f"{mean:+.1f} [{mean - half:.1f}, {mean + half:.1f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--out", type=Path, default=Path("runs/losses"))
    parser.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    table: dict[str, dict[str, list[float]]] = {}
    for recipe in options.recipes.split(","):
        both = accuracies(recipe, OWN, seeds=options.seeds, out=options.out)
        table[recipe] = {LABELS: both[LABELS], OWN: both["distilled"]}
        for loss in options.losses.split(","):
            if loss == REFUSED.get(recipe):
                continue
            by_arm = accuracies(recipe, loss, seeds=options.seeds, out=options.out)
            table[recipe][loss] = by_arm["distilled"]
            write(table, options.csv)
        show(recipe, table[recipe])


if __name__ == "__main__":
    main()
