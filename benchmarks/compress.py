"""What does distillation save in two-qubit gates? Students of equal gates, five ways to teach them.

    QKD_DATA=ROOT python benchmarks/compress.py [--cases digits,mnist] [--seeds 10] [--devices ...]

Circuits that fit a device (6 qubits, trained re-uploading of PCA features, CZ on a line, class
bins, no trained classical layer) grow from 5 to 30 two-qubit gates. At every depth they learn from
the labels alone, or without labels on ten times as many images from the classical teacher, from a
deep ideal circuit (20 layers, about 500 gates) of the same seed, from all the deep circuits
together, or from the label-only circuit of their own depth (born again). They are tested exactly
and under the exact noise of devices. What is finished is not done again. Seeds begin at 300, which
chose nothing. Writes results/compress.csv and compress.png, and prints tables: accuracy by gates,
gains with 95 % intervals and Holm's p, and how many gates the same accuracy takes.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from helps import read, write_csv

from qkd_qiskit import Recipe, Run, Target, load_recipe, run_experiment
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation_set import evaluate_members
from qkd_qiskit.experiments.run_folder import RECIPE
from qkd_qiskit.run import resume_experiment
from qkd_qiskit.students.growth import spec_of_depth

RESULTS = Path(__file__).parent / "results" / "compress.csv"
COLUMNS = ("case", "arm", "gates", "target", "seed", "accuracy")
DEPTHS = (2, 4, 8, 12)  # layers of 3 and 2 CZ in turn
NOISY_DEPTHS = (4, 12)
GATES_PER_LAYER = 2.5
FIRST_SEED, IMAGES = 300, 200
DEVICES = ("fake_torino:exact", "fake_sherbrooke:exact", "fake_melbourne:exact")
LABELS, DEEP = "labels", "deep"
ARMS = {
    LABELS: "labels alone",
    "born": "born again",
    "classical": "classical teacher",
    "circuit": "deep circuit",
    "ensemble": "deep ensemble",
}
SMALL = {
    "student.qubits": 6,
    "student.encoding": "trained_reuploading",
    "student.ansatz": "ry_cz_brick",
    "student.layers": DEPTHS[-1],
    "student.features": 24,
    "student.reduction": "pca",
    "distill.ce_weight": 0.0,
    "distill.kd_weight": 1.0,
    "targets": ["exact"],
}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "digits, 10 per class": ("digits_quantum", {}),
    "mnist, 50 per class": ("mnist_quantum", {"data.train_per_class": 50, "distill.epochs": 25}),
}
Values = dict[tuple[str, int], list[float]]
"""Accuracy of each seed by arm and number of two-qubit gates."""


def grown(name: str, **own: Any) -> dict[str, dict[str, Any]]:
    """Return an arm for each depth, each begun as the one before."""
    spec = load_recipe("digits_quantum", SMALL).student
    arms = {
        f"{name}_{layers}": {
            "student.layers": layers,
            "student.features": spec_of_depth(spec, layers).features,
            **own,
        }
        for layers in DEPTHS
    }
    for before, after in pairwise(arms):
        arms[after]["grown_from"] = before
    return arms


def recipe_of(case: str, *, seeds: int) -> Recipe:
    """Return the run with all students but those of the ensemble."""
    name, changes = CASES[case]
    deep = load_recipe(name).student
    arms = {
        **grown(LABELS, base="label_only"),
        **grown("classical", base="transfer"),
        DEEP: {
            "base": "transfer",
            "student.encoding": deep.encoding,
            "student.ansatz": deep.ansatz,
            "student.layers": deep.layers,
            "student.features": None,
            "student.reduction": deep.reduction,
        },
        **grown("circuit", base="transfer", taught_by=DEEP),
        **grown("born", base="transfer"),
    }
    for layers in DEPTHS:
        arms[f"born_{layers}"]["taught_by"] = f"{LABELS}_{layers}"
    own = {"own_arms": arms, "arms": list(arms), "seeds": _seeds(seeds)}
    return load_recipe(name, {**SMALL, **changes, **own})


def ensemble_recipe(case: str, run: Path, *, seeds: int) -> Recipe:
    """Return the run whose students all deep circuits of another run teach together."""
    name, changes = CASES[case]
    arms = grown("ensemble", base="transfer")
    teacher = {"teacher.kind": "run", "teacher.run": str(run), "teacher.arm": DEEP}
    own = {"own_arms": arms, "arms": list(arms), "seeds": _seeds(seeds)}
    return load_recipe(name, {**SMALL, **changes, **teacher, **own})


def measure(case: str, *, seeds: int, devices: Sequence[str], out: Path) -> list[dict[str, Any]]:
    """Return a row for each student and target; what is not there is trained or tested."""
    name = case.partition(",")[0]
    runs = [open_run(recipe_of(case, seeds=seeds), out / f"{name}-{seeds}")]
    taught = ensemble_recipe(case, runs[0].path.absolute(), seeds=seeds)
    runs.append(open_run(taught, out / f"{name}-{seeds}-ensemble"))
    rows = []
    for run in runs:
        rows += _rows(case, run, target="exact", key="exact", depths=DEPTHS)
        for device in devices:
            key = _test(run, device)
            rows += _rows(case, run, target=device, key=key, depths=NOISY_DEPTHS)
    return rows


def open_run(recipe: Recipe, path: Path) -> Run:
    """Return the run of a recipe in a folder, doing what of it is not there yet."""
    if not (path / RECIPE).exists():
        return run_experiment(recipe, out=path, command=_COMMAND)
    run = Run.open(path)
    known = run.recipe
    data = replace(known.data, root=recipe.data.root)  # which may have moved
    teacher = replace(known.teacher, digest=recipe.teacher.digest)
    if replace(known, data=data, teacher=teacher) != recipe:
        sys.exit(f"{path} holds a run of another recipe; move it away, or give another --out")
    return run if run.folder.result is not None else resume_experiment(path, command=_COMMAND)


def _test(run: Run, device: str) -> str:
    """Test students under the noise of a device, and return the key of their figures."""
    target = Target.parse(device)
    members = [
        (arm, seed)
        for seed in run.recipe.member_seeds
        for arm in run.recipe.arms
        if arm != DEEP and int(arm.rpartition("_")[2]) in NOISY_DEPTHS
    ]
    return evaluate_members(
        run.folder,
        target,
        members,
        data=run.data,
        teachers_by_seed=run.teachers,
        limit=IMAGES,
        callback=Callback(),
    )


def _rows(
    case: str, run: Run, *, target: str, key: str, depths: Sequence[int]
) -> list[dict[str, Any]]:
    rows = []
    for arm, seed in run.folder.members:
        family, _, layers = arm.rpartition("_")
        deep = arm == DEEP
        if (deep and target != "exact") or (not deep and int(layers) not in depths):
            continue
        accuracy = run.folder.evaluations(arm, seed)[key].accuracy
        gates = 0 if deep else round(GATES_PER_LAYER * int(layers))
        values = (case, DEEP if deep else family, gates, target, seed, f"{accuracy:.6f}")
        rows.append(dict(zip(COLUMNS, values, strict=True)))
    return rows


_COMMAND = "python benchmarks/compress.py"


def _seeds(count: int) -> list[int]:
    return list(range(FIRST_SEED, FIRST_SEED + count))


def write(rows: list[dict[str, Any]], path: Path) -> None:
    """Write a line for each student and target; cases that were not run keep theirs."""
    cases = {row["case"] for row in rows}
    kept = [] if not path.exists() else [row for row in read(path) if row["case"] not in cases]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_csv(path, COLUMNS, kept + rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = {name: case for case in CASES for name in [case.partition(",")[0]]}
    parser.add_argument("--cases", default=",".join(names), help=f"of {', '.join(names)}")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--devices", default=",".join(DEVICES))
    parser.add_argument("--out", type=Path, default=Path("runs/compress"))
    parser.add_argument("--csv", type=Path, default=RESULTS)
    options = parser.parse_args()
    devices = [name for name in options.devices.split(",") if name]
    for name in options.cases.split(","):
        rows = measure(names[name], seeds=options.seeds, devices=devices, out=options.out)
        write(rows, options.csv)


if __name__ == "__main__":
    main()
