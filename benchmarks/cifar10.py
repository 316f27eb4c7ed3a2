"""Students of 4 and 8 qubits on CIFAR-10 with the frozen features of a small ResNet, and without.

    QKD_DATA=ROOT python benchmarks/cifar10.py [--cases "trained, 4 qubits"] [--out runs/cifar10]

The network is that of backbone.py, its weights results/backbone.safetensors; the control has random
weights. Every case is a run of five seeds: students from the labels and distilled from a linear
layer on all features (the teacher), the linear probe (the same layer from the student's labels), a
twin without a circuit at the rate that is best for it on validation images, and principal
components with a linear layer. A run goes on where it was stopped. Writes results/cifar10.csv, and
puts the table into CIFAR10.md.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from helps import open_study

from qkd_qiskit.experiments.statistics import differences, mean_interval
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import Run
from qkd_qiskit.storage import write_text

HERE = Path(__file__).parent
RESULTS, PAGE = HERE / "results" / "cifar10.csv", HERE / "CIFAR10.md"
WEIGHTS = HERE / "results" / "backbone.safetensors"
COLUMNS = ("case", "arm", "seed", "parameters", "accuracy", "teacher")
TWINS = {
    "fast_twin": {"base": "classical_twin", "distill.lr": 0.01},  # the recipe's is 0.003
    "slow_twin": {"base": "classical_twin", "distill.lr": 0.001},
}
COMMON: dict[str, Any] = {
    "data.backbone": "module:backbone:resnet8",
    "data.backbone_layer": "pool",
    "teacher.kind": "softmax",
    "teacher.epochs": 10,
    "teacher.lr": 0.003,
    "distill.epochs": 15,
    "seeds": 5,
    "own_arms": TWINS,
    "arms": ["label_only", "distilled", "classical_twin", *TWINS, "twin_pca", "feature_probe"],
}
TRAINED = {"data.backbone_weights": str(WEIGHTS)}
RANDOM = {"data.backbone_weights": "random"}
EIGHT = {"student.qubits": 8}
FEW = {"data.train_per_class": 50, "distill.batch_size": 32, "distill.epochs": 40}
CASES: dict[str, dict[str, Any]] = {
    "trained, 4 qubits": TRAINED,
    "trained, 8 qubits": TRAINED | EIGHT,
    "trained, 4 qubits, PCA": TRAINED | {"student.reduction": "pca"},
    "trained, 4 qubits, 50 labels per class": TRAINED | FEW,
    "trained, 8 qubits, 50 labels per class": TRAINED | EIGHT | FEW,
    "random, 4 qubits": RANDOM,
    "random, 8 qubits": RANDOM | EIGHT,
}
CLASSICAL_TWINS = ("classical_twin", *TWINS)


def rows_of(case: str, *, out: Path) -> list[dict[str, Any]]:
    """Return the accuracies of a case by arm and seed; what is not there is trained."""
    recipe = load_recipe("cifar10", {**COMMON, **CASES[case]})
    run = open_study(recipe, out / case.replace(", ", "_").replace(" ", "_"))
    result, twin = run.result, _best_twin(run)
    return [
        {
            "case": case,
            "arm": "tuned twin" if arm == twin else arm,
            "seed": seed,
            "parameters": run.student(arm, seed=seed).num_parameters,
            "accuracy": f"{accuracy:.6g}",
            "teacher": f"{result.teacher.accuracy:.6g}",
        }
        for arm, by_target in result.arms.items()
        if arm not in CLASSICAL_TWINS or arm == twin
        for seed, accuracy in zip(result.seeds, by_target["exact"].accuracy, strict=True)
    ]


def _best_twin(run: Run) -> str:
    """Return the twin whose learning rate is best on validation images, over the seeds."""
    choice = run.result.twins
    assert choice is not None  # there are several
    return max(CLASSICAL_TWINS, key=lambda arm: choice.validation_accuracy[arm] or 0.0)


def table(rows: list[Mapping[str, str]]) -> str:
    """Return mean accuracies, and the student's distance to what has no circuit, as Markdown."""
    arms = ("label_only", "distilled", "tuned twin", "twin_pca", "feature_probe")
    titles = ("labels", "distilled", "tuned twin", "PCA twin", "linear probe")
    lines = [
        "| features, student | teacher | " + " | ".join(titles) + " | distilled - labels | "
        "distilled - tuned twin | distilled - linear probe |",
        "|---|--:|" + "--:|" * (len(titles) + 3),
    ]
    for case in CASES:
        found = {
            arm: [float(it["accuracy"]) for it in rows if (it["case"], it["arm"]) == (case, arm)]
            for arm in arms
        }
        if not found["distilled"]:
            continue
        teacher = 100 * float(next(it["teacher"] for it in rows if it["case"] == case))
        means = [f"{100 * fmean(found[arm]):.1f}" for arm in arms]
        gaps = []
        for arm in ("label_only", "tuned twin", "feature_probe"):
            mean, half = mean_interval(differences(found["distilled"], found[arm]))
            assert half is not None  # five seeds
            gaps.append(f"{mean:+.1f} [{mean - half:+.1f}, {mean + half:+.1f}]")
        lines.append(" | ".join([f"| {case}", f"{teacher:.1f}", *means, *gaps]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Make the cases, and write file and table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", help=f"some of {'; '.join(CASES)}, separated by semicolons")
    parser.add_argument("--out", type=Path, default=Path("runs/cifar10"))
    given = parser.parse_args()
    sys.path.insert(0, str(HERE))  # of backbone.py
    wanted = [case.strip() for case in given.cases.split(";")] if given.cases else list(CASES)
    rows: list[Mapping[str, Any]] = []
    if RESULTS.exists():
        with RESULTS.open(newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["case"] not in wanted]
    for case in wanted:
        rows += rows_of(case, out=given.out)
        print(f"{case}: done", flush=True)
        ordered = sorted(rows, key=lambda row: list(CASES).index(row["case"]))
        with RESULTS.open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(ordered)
    text = table(rows)
    print(text)
    if PAGE.exists():
        mark = re.compile(r"(<!-- table -->\n).*?(<!-- end -->)", re.DOTALL)
        page = PAGE.read_text(encoding="utf-8")
        write_text(PAGE, mark.sub(lambda found: f"{found[1]}{text}\n{found[2]}", page))


if __name__ == "__main__":
    main()
