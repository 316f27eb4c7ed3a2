"""Which settings help on validation images: the search that chose the recipes of helps.py.

    python benchmarks/helps_search.py [--data-root ROOT] [--data mnist,fashion_mnist]

One setting after another is changed in the recipe that was there before (lr 0.01, half
cross-entropy, half divergence, both softened by 4), for the hybrid student at 50 labels per class
and the fully quantum one at 10 and 50. Five or six seeds from 100 on, which no other figure uses;
accuracies are of all validation images, and the test images are not looked at. What is in
helps_search.csv already is not done again.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import itertools
import json
import os
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.population import Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.teacher import make_teacher

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("data", "changes", "loss", "seeds", "validation_accuracy", "deviation")
LOSSES = {"labels": (1.0, 0.0), "half": (0.5, 0.5), "teacher": (0.0, 1.0)}
TAUGHT = ("half", "teacher")
START = {
    "distill.temperature": 4.0,
    "distill.student_temperature": None,
    "distill.ce_weight": 0.5,
    "distill.kd_weight": 0.5,
}
QUANTUM = {
    "student.kind": "quantum",
    "student.qubits": 6,
    "student.reduction": "avg_pool",
    "student.ansatz": "ry_rz_ring",
    "student.layers": 20,
    "student.readout": "bins",
    "student.head": "none",
    "student.sharpness": 8.0,
    "distill.lr": 0.1,
    "distill.epochs": 60,
}


def settings() -> Iterator[tuple[dict[str, Any], tuple[str, ...]]]:
    """Yield changes of the recipe and the losses that are tried with them."""
    for lr, decay, epochs in itertools.product((0.003, 0.01, 0.03), (0, 0.1, 1.0), (40, 100)):
        yield (
            {"distill.lr": lr, "distill.weight_decay": decay, "distill.epochs": epochs},
            ("labels",),
        )
    for temperature, student in itertools.product((2, 4, 8), (None, 1.0)):
        yield _softened(temperature, student), TAUGHT
    yield {"teacher.kind": "mlp"}, TAUGHT
    for labels in (10, 50):
        quantum = QUANTUM | {"data.train_per_class": labels}
        for lr, epochs in ((0.03, 60), (0.1, 60), (0.1, 20)):
            yield quantum | {"distill.lr": lr, "distill.epochs": epochs}, ("labels",)
        for temperature, student in ((1, 1.0), (2, 1.0), (4, 1.0), (2, None)):
            yield quantum | _softened(temperature, student), TAUGHT
        for change in ({"student.sharpness": 16.0}, {"student.layers": 40}, {"student.qubits": 8}):
            yield quantum | _softened(2, 1.0) | change, tuple(LOSSES)


def _softened(temperature: float, student: float | None) -> dict[str, Any]:
    return {"distill.temperature": temperature, "distill.student_temperature": student}


def accuracies(
    name: str, changes: Mapping[str, Any], losses: tuple[str, ...], *, seeds: list[int]
) -> dict[str, list[float]]:
    """Return validation accuracies by loss, one for each seed."""
    recipe = load_recipe(name, START | dict(changes))
    data = load_data(recipe.data, seed=recipe.seed)
    teacher = make_teacher(recipe.teacher, data, seed=recipe.seed)
    shape = {"image_shape": data.image_shape, "num_classes": data.num_classes}
    students = {seed: make_student(recipe.student, **shape, seed=seed) for seed in seeds}
    members = [
        Member(arm=loss, seed=seed, ce_weight=LOSSES[loss][0], kd_weight=LOSSES[loss][1])
        for loss in losses
        for seed in seeds
    ]
    student = students[seeds[0]]
    draws = torch.stack([data.draw_for(recipe.data, seed=member.seed) for member in members])
    trained = train_population(
        student,
        members,
        starts=[dict(students[member.seed].named_parameters()) for member in members],
        examples=make_distillation_data(student, teacher, data, draws=draws),
        spec=replace(recipe.distill, selection="last"),
    )
    found: dict[str, list[float]] = {loss: [] for loss in losses}
    for one in trained:
        student.load_parameters(one.state)
        right = exact_logits(student, data.validation.images).argmax(dim=1)
        found[one.member.arm].append((right == data.validation.labels).double().mean().item())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", help="folder of MNIST and FashionMNIST; default: $QKD_DATA")
    parser.add_argument("--data", default="mnist,fashion_mnist")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    path, seeds = options.out / "helps_search.csv", list(range(100, 100 + options.seeds))
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    done = {(row["data"], row["changes"], row["loss"]) for row in rows}
    root = {} if options.data_root is None else {"data.root": options.data_root}
    for name in options.data.split(","):
        for changes, losses in settings():
            key = json.dumps(changes, sort_keys=True)
            if all((name, key, loss) in done for loss in losses):
                continue
            for loss, values in accuracies(name, changes | root, losses, seeds=seeds).items():
                mean, spread = statistics.fmean(values), statistics.stdev(values)
                row = (name, key, loss, len(values), f"{mean:.5f}", f"{spread:.5f}")
                rows.append(dict(zip(COLUMNS, map(str, row), strict=True)))
                print(*row, flush=True)
            with path.open("w", newline="") as file:
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                writer.writeheader()
                writer.writerows(rows)


if __name__ == "__main__":
    main()
