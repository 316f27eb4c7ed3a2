"""Which teacher, on how many unlabelled images, for how long? The search behind `taught_more`.

    QKD_DATA=ROOT python benchmarks/helps_teachers.py [--recipes mnist,fashion_mnist]

Teachers of all labels teach the students of a built-in recipe on the labelled images, in the
recipe's number of steps, and on unlabelled ones in four times as many. Students of five seeds from
100 on, of which no published figure is; accuracies are of the validation images, and no test figure
is read. Studies are run folders that go on where they were stopped. Writes helps_teachers.csv, and
prints it.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from helps import open_study, read, write_csv

from qkd_qiskit.experiments.twin_choice import mean_validation_accuracy
from qkd_qiskit.recipe.parsing import load_recipe

RESULTS = Path(__file__).parent / "results" / "helps_teachers.csv"
COLUMNS = ("recipe", "teacher", "unlabelled", "times_steps", "seeds", "validation_accuracy")
RECIPES = ("mnist", "fashion_mnist", "digits", "digits_quantum", "mnist_quantum")
RECIPES += ("fashion_mnist_quantum",)
TEACHERS = {
    "mnist": ("softmax", "mlp", "small_cnn"),
    "fashion_mnist": ("softmax", "mlp", "small_cnn"),
}
SEEDS = tuple(range(100, 105))
GRID = ((9, 4), (99, 4))  # unlabelled images for each labelled one; times the recipe's steps


def search(name: str, teacher: str, *, parent: Path) -> list[dict[str, Any]]:
    """Return a row for each setting of a teacher, the first without unlabelled images."""
    epochs = load_recipe(name).distill.epochs
    own: dict[str, dict[str, Any]] = {
        f"more_{unlabelled}_{times}": {
            "base": "transfer",
            "distill.unlabelled": unlabelled,
            "distill.epochs": times * epochs,
        }
        for unlabelled, times in GRID
    }
    changes = {"teacher.kind": teacher, "targets": ["exact"], "seeds": list(SEEDS)}
    recipe = load_recipe(name, changes | {"arms": ["distilled", *own], "own_arms": own})
    study = open_study(recipe, parent / f"{name}-{teacher}")
    rows = []
    for arm, (unlabelled, times) in zip(recipe.arms, ((0, 1), *GRID), strict=True):
        accuracy = mean_validation_accuracy(study.folder, arm)
        row = (name, teacher, unlabelled, times, len(SEEDS), f"{accuracy:.5f}")
        rows.append(dict(zip(COLUMNS, row, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--runs", type=Path, default=Path("runs/helps_teachers"))
    parser.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    for name in options.recipes.split(","):
        rows: list[dict[str, Any]] = []
        for teacher in TEACHERS.get(name, ("softmax", "mlp")):
            rows += search(name, teacher, parent=options.runs)
            print(*(" ".join(map(str, row.values())) for row in rows[-1 - len(GRID) :]), sep="\n")
        kept = [row for row in read(options.csv) if row["recipe"] != name]
        write_csv(options.csv, COLUMNS, [*kept, *rows])


if __name__ == "__main__":
    main()
