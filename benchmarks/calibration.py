"""Which loss makes students that are calibrated and stand noise? The search behind the recipes.

    QKD_DATA=ROOT python benchmarks/calibration.py [--recipes mnist,fashion_mnist,digits]
    QKD_DATA=ROOT python benchmarks/calibration.py --test [--recipes mnist,fashion_mnist]

Temperatures, weights of the loss, learning rate and number of epochs are changed in a built-in
recipe as it was before. Students of five seeds from 100 on, of which no published figure is, are
evaluated on validation images alone (at most 2,000, and at most 500 under noise): accuracy,
expected calibration error (15 bins) and, of circuits of up to four qubits, accuracy under the exact
noise of fake_lima and fake_melbourne. What is in calibration.csv is not done again.

With --test students of ten seeds from 300 on, which chose nothing, with the losses of before and of
today, on test images (all; a fixed 500 under noise): a table and calibration_test.csv.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch
from helps import open_study, write_csv

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.experiments.evaluation import evaluate, subset
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets import Target
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

RESULTS = Path(__file__).parent / "results" / "calibration.csv"
NOISY = ("fake_lima:exact", "fake_melbourne:exact")
FIGURES = ("exact", "calibration_error", "lima", "melbourne")
COLUMNS = ("recipe", "changes", "loss", "seeds", *FIGURES)
TEST_COLUMNS = ("recipe", "losses", "arm", "target", "accuracy", "calibration_error")
TEST_COLUMNS += ("gain", "low", "high")
LOSSES = {"labels": (1.0, 0.0), "half": (0.5, 0.5), "teacher": (0.0, 1.0)}
SEEDS, TEST_SEEDS = range(100, 105), range(300, 310)
IMAGES, NOISY_IMAGES = 2000, 500
NOISY_QUBITS = 4
EARLIER: dict[str, dict[str, Any]] = {
    "mnist": {"distill.temperature": 4.0, "distill.student_temperature": 1.0, "distill.lr": 0.01},
    "fashion_mnist": {"distill.student_temperature": 1.0},
}
"""What two recipes had before: figures of docs/losses.md are of these."""


def settings(recipe: Recipe) -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield changes of a recipe, and the losses that are tried with them."""
    lr, epochs = recipe.distill.lr, recipe.distill.epochs
    yield {}, ("labels",)
    grid = [
        (factor, passes, temperature, student)
        for factor, passes in ((1, 1), (3, 1), (1, 2))
        for student in (None, 1.0)
        for temperature in (1.0, 2.0, 4.0, 8.0)
        if (temperature, student) != (1.0, 1.0)  # what null says already
    ]
    grid += [(*pair, softened, None) for pair in ((2, 1), (2, 2)) for softened in (2.0, 3.0)]
    for factor, passes, temperature, student in grid:
        yield (
            {
                "distill.temperature": temperature,
                "distill.student_temperature": student,
                "distill.lr": factor * lr,
                "distill.epochs": passes * epochs,
            },
            ("half", "teacher"),
        )


class Search:
    """One recipe: its data and teacher, which every setting shares."""

    def __init__(self, name: str) -> None:
        self.name, self.recipe = name, load_recipe(name, EARLIER.get(name))
        self.data: Data = load_data(self.recipe.data, seed=self.recipe.seed)
        self.teacher: Teacher = make_teacher(self.recipe.teacher, self.data, seed=self.recipe.seed)
        self.images, _ = subset(self.data.validation, limit=IMAGES)
        self.noisy_images, _ = subset(self.data.validation, limit=NOISY_IMAGES)
        shape = {"image_shape": self.data.image_shape, "num_classes": self.data.num_classes}
        self.students = {
            seed: make_student(self.recipe.student, **shape, seed=seed) for seed in SEEDS
        }
        for student in self.students.values():
            student.fit(self.data.pool.images)
        self.starts = {
            seed: {
                key: value.detach().clone() for key, value in student.member_parameters().items()
            }
            for seed, student in self.students.items()
        }
        self.targets = [Target.parse(name) for name in NOISY]

    def figures(
        self, changes: Mapping[str, Any], losses: tuple[str, ...]
    ) -> dict[str, dict[str, float]]:
        """Return mean figures over the seeds by loss."""
        recipe = load_recipe(self.name, EARLIER.get(self.name, {}) | dict(changes))
        weights = {loss: LOSSES[loss] for loss in losses}
        members = [
            Member(arm=loss, seed=seed, ce_weight=ce, kd_weight=kd)
            for loss, (ce, kd) in weights.items()
            for seed in SEEDS
        ]
        student = self.students[SEEDS[0]]
        draws = [self.data.draw_for(recipe.data, seed=member.seed) for member in members]
        trained = train_population(
            student,
            members,
            starts=[self.starts[member.seed] for member in members],
            examples=make_distillation_data(
                student, self.teacher, self.data, draws=torch.stack(draws)
            ),
            spec=replace(recipe.distill, selection="last"),
        )
        found: dict[str, list[dict[str, float]]] = {loss: [] for loss in losses}
        for one in trained:
            student.load_parameters(one.state)
            found[one.member.arm].append(self._figures_of(student))
        return {
            loss: {name: fmean(row[name] for row in rows) for name in rows[0]}
            for loss, rows in found.items()
        }

    def _figures_of(self, student: Student) -> dict[str, float]:
        exact = evaluate(student, self.images)
        figures = {"exact": exact.accuracy, "calibration_error": exact.calibration_error}
        if self.recipe.student.qubits > NOISY_QUBITS:
            return figures
        for name, target in zip(FIGURES[2:], self.targets, strict=True):
            figures[name] = evaluate(student, self.noisy_images, target=target).accuracy
        return figures


def test_rows(name: str, *, parent: Path) -> list[dict[str, str]]:
    """Return mean test figures of a recipe by losses, arm and target; train what is not there."""
    rows = []
    changes = {"arms": ["label_only", "distilled"], "targets": ["exact", *NOISY]}
    changes["seeds"] = list(TEST_SEEDS)
    for when, own in (("before", EARLIER.get(name, {})), ("today", {})):
        result = open_study(load_recipe(name, changes | own), parent / f"{name}-{when}").result
        for arm in changes["arms"]:
            for target, metrics in result.arms[arm].items():
                gain = result.comparison(arm, "label_only", target)
                figures = fmean(metrics.accuracy), fmean(metrics.calibration_error)
                shown = [f"{100 * figures[0]:.1f}", f"{figures[1]:.3f}", "", "", ""]
                if gain is not None and gain.mean is not None and gain.ci95 is not None:
                    shown[2:] = [f"{value:+.1f}" for value in (gain.mean, *gain.ci95)]
                row = (name, when, arm, target, *shown)
                rows.append(dict(zip(TEST_COLUMNS, row, strict=True)))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--recipes", default="mnist,fashion_mnist,digits")
    parser.add_argument("--csv", type=Path, default=RESULTS)
    parser.add_argument("--test", action="store_true")
    parser.add_argument("--runs", type=Path, default=Path("runs/calibration"))
    options = parser.parse_args()
    if options.test:
        tested = []
        for name in options.recipes.split(","):
            tested += test_rows(name, parent=options.runs)
        write_csv(options.csv.with_name("calibration_test.csv"), TEST_COLUMNS, tested)
        print(f"| {' | '.join(TEST_COLUMNS)} |\n{'|---' * len(TEST_COLUMNS)}|")
        for row in tested:
            print(f"| {' | '.join(row.values())} |")
        return
    rows = list(csv.DictReader(options.csv.open())) if options.csv.exists() else []
    done = {(row["recipe"], row["changes"], row["loss"]) for row in rows}
    for name in options.recipes.split(","):
        search = Search(name)
        for changes, losses in settings(search.recipe):
            key = json.dumps(changes, sort_keys=True)
            if all((name, key, loss) in done for loss in losses):
                continue
            for loss, figures in search.figures(changes, losses).items():
                shown = {key: f"{value:.5f}" for key, value in figures.items()}
                rows.append(
                    {"recipe": name, "changes": key, "loss": loss, "seeds": str(len(SEEDS))} | shown
                )
                print(*rows[-1].values(), flush=True)
            with options.csv.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
