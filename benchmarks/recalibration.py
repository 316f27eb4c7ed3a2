"""What takes a device's noise back: a map fitted without labels, or training through the noise?

    python benchmarks/recalibration.py --data-root ROOT [--recipes digits,...] [--trained clean,...]
        [--seeds 20] [--limit 1000] [--runs runs/recalibration] [--jobs 1]

Students of the built-in recipes are distilled on an ideal simulator (*clean*), through the noise of
a device from the first step (*noise-aware*), or clean and then through the noise, on unlabelled
images, taught by themselves (*self-distilled*) or by the teacher (*taught noisy*; *taught*: without
the noise, the control of what the images alone bring). Each is measured under each device's noise
model: the exact probabilities of 400 images of the training pool and of the test images, of which
shots are drawn as multinomial counts. From the same measurements every way to correct them is
fitted: none, readout mitigation, a diagonal, an affine or a head's map on 10 to 400 unlabelled
images; and the controls: a map whose images were shuffled, one fitted to labels, and one that was
fitted a month away on a synthetic drift of the same snapshot. Seeds are paired; each has pool
images of its own. Test images: all of digits, --limit of the others.

Probabilities are kept under --runs, a file for each recipe, training and device; the grid goes on
where it was stopped. Writes recalibration.csv (a row for each setting, with the accuracy of every
seed) and recalibration_budget.csv under benchmarks/results/, and prints the tables of NOISE.md.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import itertools
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

import numpy as np
import torch
from helps import open_study, write_csv
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.experiments.evaluation import exact_logits, target_outcomes
from qkd_qiskit.experiments.evaluation import subset as part_of
from qkd_qiskit.experiments.recalibration import logits_of, outputs_of
from qkd_qiskit.experiments.recalibration_fit import unlabelled_rows
from qkd_qiskit.experiments.scores import calibration_error
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.run import Run
from qkd_qiskit.storage import load_tensors, save_tensors
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.ibm.usage_model import quantum_seconds
from qkd_qiskit.targets.mitigation import mitigate_readout
from qkd_qiskit.targets.recalibration import Kind, fit_map

RESULTS = Path(__file__).parent / "results"
HYBRID = ("digits", "mnist", "fashion_mnist")
RECIPES = (*HYBRID, "digits_quantum")
SMALL = ("fake_melbourne", "fake_manila", "fake_lima")
NEW = ("fake_sherbrooke", "fake_torino", "fake_fez")
LARGE = ("fake_melbourne", "fake_guadalupe", "fake_nairobi", *NEW)
"""Devices of the fully quantum student, which has six qubits: lima and manila have five."""
ARMS = {
    "clean": "distilled",
    "noise_aware": "distilled_noisy",
    "self_distilled": "self_distilled_noisy",
    "taught_noisy": "distilled_then_noisy",
    "taught": "transfer",
}
"""How students are trained, and the arm that does it."""
THROUGH_NOISE = ("noise_aware", "self_distilled", "taught_noisy")
IMAGES = (10, 30, 50, 100, 400)
SHOTS = (256, 1024, 4096, None)
KINDS: tuple[Kind, ...] = ("diagonal", "affine", "head")
USUAL, STALE_DAYS = 50, 30
BUDGET_S = 20.0
"""QPU seconds that are shared out between images and shots."""


@dataclass(frozen=True)
class Row:
    """One way to correct what was measured, over all seeds.

    Attributes:
        recipe: Whose student.
        trained: How it was trained, of `ARMS`.
        device: Under whose noise.
        shots: Shots per test image; 0 = exact probabilities.
        method: exact (no noise, no shots), none, readout, diagonal, affine, head, to_clean (affine,
            to the exact outputs of the clean student in place of the student's own), shuffled,
            labels or stale.
        images: Images of the fit; 0 where nothing is fitted.
        fit_shots: Shots of each of these.
        qpu_seconds: What they take of the device, by IBM's formula; 0 without shots.
        calibration_error: Mean over the seeds.
        held_out: Mean share of the images of the fit whose choice is the exact one by a map that
            was fitted without them; 0 where nothing is fitted.
        test_images: Test images of each seed.
        hits: Of them, those whose class was chosen, seed by seed.
    """

    recipe: str
    trained: str
    device: str
    shots: int
    method: str
    images: int
    fit_shots: int
    qpu_seconds: float
    calibration_error: float
    held_out: float
    test_images: int
    hits: str

    @property
    def key(self) -> tuple[str | int, ...]:
        """What its figures are of."""
        where = self.recipe, self.trained, self.device, self.shots
        return *where, self.method, self.images, self.fit_shots

    @property
    def accuracies(self) -> NDArray[np.float64]:
        """Return the accuracy of each seed in percent."""
        return 100 * np.array([int(hit) for hit in self.hits.split()]) / self.test_images


TABLE, BUDGET = "recalibration.csv", "recalibration_budget.csv"
COLUMNS = [field.name for field in fields(Row)]


def read_rows(path: Path) -> list[Row]:
    """Return the rows that a file holds already."""
    if not path.exists():
        return []
    kinds = {"str": str, "int": int, "float": float}
    of = {field.name: kinds[str(field.type)] for field in fields(Row)}
    with path.open(newline="", encoding="utf-8") as file:
        return [Row(**{key: of[key](row[key]) for key in of}) for row in csv.DictReader(file)]


def devices_of(recipe: str) -> tuple[str, ...]:
    """Return the devices on which a recipe's student is measured."""
    return LARGE if recipe.endswith("_quantum") else (*SMALL, *NEW)


# What is measured: exact probabilities under the noise, of images of the pool and of the test set.


@dataclass(frozen=True, eq=False)
class Measured:
    """Students of one training on one device.

    Attributes:
        students: Of each seed.
        pool: Outcome probabilities `(seeds, 400, 2^n)` under the noise.
        test: The same `(seeds, images, 2^n)`.
        exact_pool: Exact logits `(seeds, 400, classes)` of each student.
        exact_test: The same of the test images.
        clean_pool: Exact logits `(seeds, 400, classes)` of the clean student of the same seed.
        pool_labels: `(seeds, 400)`; only a control reads them.
        labels: Of the test images.
        confusion: Readout matrices of the measured qubits.
        duration_s: Of the circuit.
        stale: Outcome probabilities `(seeds, 50, 2^n)` of the pool's first images at the other end
            of a month of drift, a walk for each seed; of clean students alone.
    """

    students: Sequence[QuantumStudent]
    pool: Tensor
    test: Tensor
    exact_pool: Tensor
    exact_test: Tensor
    clean_pool: Tensor
    pool_labels: Tensor
    labels: Tensor
    confusion: Sequence[NDArray[np.float64]]
    duration_s: float
    stale: Tensor | None

    @property
    def second(self) -> float:
        """QPU seconds of one execution."""
        return quantum_seconds(executions=1, circuit_duration_s=self.duration_s, jobs=0)

    def cost(self, images: int, shots: int | None) -> float:
        """Return the QPU seconds of one job with so many images; 0 without shots."""
        executions = images * (shots or 0)
        if shots is None:
            return 0.0
        return quantum_seconds(executions=executions, circuit_duration_s=self.duration_s)


def outcomes_on(
    target: Callable[[int], Target],
    students: Mapping[int, QuantumStudent],
    images: Mapping[int, Tensor],
    path: Path,
) -> Tensor:
    """Return outcome probabilities `(seeds, images, 2^n)`, from a file as far as they are there."""
    known = load_tensors(path)[0] if path.exists() else {}
    for seed, student in students.items():
        if str(seed) not in known:
            known[str(seed)] = target_outcomes(student, images[seed], target=target(seed)).float()
            save_tensors(path, known)
    return torch.stack([known[str(seed)] for seed in students]).double()


def measure(
    run: Run, arm: str, device: str, *, path: Path, limit: int | None, first: int | None
) -> Measured:
    """Return what the students of an arm give on a device.

    Args:
        run: A finished run.
        arm: Whose students.
        device: The device.
        path: File of the probabilities.
        limit: Test images; None = all.
        first: Students, of the first seeds; None = all.
    """
    data, recipe = run.data, run.recipe
    test = data.test if limit is None else part_of(data.test, limit=limit, seed=recipe.seed)[0]
    students = {seed: _quantum(run, arm, seed) for seed in recipe.member_seeds[:first]}
    pools = {seed: data.pool[_rows(run, seed)] for seed in students}
    both = {seed: torch.cat([pools[seed].images, test.images]) for seed in students}
    target = Target.parse(f"{device}:mitigated:exact", seed=recipe.seed)
    compiled = target.compile(students[recipe.member_seeds[0]].circuit)
    plain = Target.parse(f"{device}:exact", seed=recipe.seed)
    outcomes, images = outcomes_on(lambda _: plain, students, both, path), max(IMAGES)
    stale = None
    if arm == ARMS["clean"]:
        stale = outcomes_on(
            lambda seed: Target.parse(f"{device}:day={STALE_DAYS}:walk={seed}:exact"),
            students,
            {seed: pool.images[:USUAL] for seed, pool in pools.items()},
            path.with_name(f"{path.stem}-stale{path.suffix}"),
        )
    return Measured(
        students=list(students.values()),
        pool=outcomes[:, :images],
        test=outcomes[:, images:],
        exact_pool=torch.stack([exact_logits(s, pools[k].images) for k, s in students.items()]),
        exact_test=torch.stack([exact_logits(s, test.images) for s in students.values()]),
        clean_pool=torch.stack(
            [exact_logits(_quantum(run, "distilled", k), pools[k].images) for k in students]
        ),
        pool_labels=torch.stack([pools[seed].labels for seed in students]),
        labels=test.labels,
        confusion=compiled.program.confusion,
        duration_s=compiled.duration_s or 0.0,
        stale=stale,
    )


def _quantum(run: Run, arm: str, seed: int) -> QuantumStudent:
    student = run.student(arm, seed=seed)
    assert isinstance(student, QuantumStudent)
    return student


def _rows(run: Run, seed: int) -> Tensor:
    """Return the pool's images of a seed: seeds have other ones, as other days would."""
    return unlabelled_rows(
        run.data, count=max(IMAGES), seed=derive_seed(run.recipe.seed, "benchmark images", seed)
    )


# How it is corrected.


def sampled(outcomes: Tensor, *, shots: int | None, seed: int) -> Tensor:
    """Return frequencies of so many shots, or the probabilities themselves."""
    if shots is None:
        return outcomes
    rng = np.random.default_rng(seed)
    rows = outcomes.clamp_min(0).numpy()
    counts = rng.multinomial(shots, rows / rows.sum(axis=-1, keepdims=True))
    return torch.from_numpy(counts / shots)


class Correction:
    """The ways to correct one student on one device, from one draw of shots for the test images."""

    def __init__(self, measured: Measured, index: int, *, shots: int | None) -> None:
        self.measured, self.index, self.shots = measured, index, shots
        self.student = measured.students[index]
        self.seed = 1000 * index + (shots or 0)
        self.exact = outputs_of(self.student, measured.exact_pool[index])
        self.test = sampled(measured.test[index], shots=shots, seed=self.seed)
        self.outputs = self._outputs(self.test)

    def _outputs(self, outcomes: Tensor) -> NDArray[np.float64]:
        with torch.no_grad():
            return outputs_of(self.student, self.student.decode(outcomes))

    def figures(self, outputs: NDArray[np.float64]) -> tuple[int, float]:
        """Return the hits and the calibration error of corrected outputs of the test images."""
        logits, labels = logits_of(self.student, outputs), self.measured.labels
        hits = int((logits.argmax(dim=1) == labels).sum())
        return hits, calibration_error(logits.softmax(dim=1), labels)

    def plain(self, method: str) -> tuple[int, float]:
        """Return the figures without a fit: exact, none or readout."""
        if method == "exact":
            return self.figures(outputs_of(self.student, self.measured.exact_test[self.index]))
        if method == "readout":
            undone = mitigate_readout(self.test.numpy(), self.measured.confusion)
            return self.figures(self._outputs(torch.from_numpy(undone)))
        return self.figures(self.outputs)

    def fitted(
        self,
        method: str,
        images: int,
        *,
        fit_shots: int | None,
        pool: Tensor | None = None,
    ) -> tuple[int, float, float]:
        """Return the figures of a map, and its agreement on images that were left out of the fit.

        Args:
            method: Kind of the map, shuffled or labels.
            images: Images of the fit.
            fit_shots: Shots of each; None = exact probabilities.
            pool: What the images gave where the map was fitted; default: what they give here.
        """
        pool = self.measured.pool[self.index] if pool is None else pool
        seed = 7 * self.seed + 13 * (fit_shots or 0)
        outcomes = sampled(pool[:images], shots=fit_shots, seed=seed)
        exact = self.exact[:images]
        if method == "to_clean":
            exact = outputs_of(self.student, self.measured.clean_pool[self.index])[:images]
        if method == "shuffled":
            exact = exact[np.random.default_rng(self.seed).permutation(images)]
        if method == "labels":
            labels = self.measured.pool_labels[self.index, :images]
            exact = np.eye(exact.shape[1])[labels.numpy()] * (exact.max(axis=1).mean())
        kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
        kind = kinds.get(method, "affine")
        fit = fit_map(self._outputs(outcomes), exact, kind=kind, outcomes=outcomes.numpy())
        hits, error = self.figures(fit.map(self.outputs, outcomes=self.test.numpy()))
        agreed = (fit.held_out.argmax(axis=1) == exact.argmax(axis=1)).mean()
        return hits, error, float(agreed)


def grid_rows(measured: Measured, *, recipe: str, trained: str, device: str) -> Iterator[Row]:
    """Yield a row for every way to correct the students of one training on one device.

    Args:
        measured: The students.
        recipe: Whose students.
        trained: How they were trained.
        device: Where.
    """
    for shots in SHOTS:
        ways = [Correction(measured, index, shots=shots) for index in range(len(measured.students))]
        labels = {"recipe": recipe, "trained": trained, "device": device, "shots": shots or 0}
        labels |= {"test_images": len(measured.labels)}
        for method in ("exact", "none", "readout"):
            yield _row([way.plain(method) for way in ways], labels, method=method)
        others = ("shuffled", "labels") if trained == "clean" else ("to_clean",)
        for images in IMAGES:
            for method in (*KINDS, *(others if images == USUAL else ())):
                found = [way.fitted(method, images, fit_shots=shots) for way in ways]
                cost = measured.cost(images, shots)
                yield _row(found, labels, method=method, images=images, shots=shots, cost=cost)
        if (stale := measured.stale) is not None:
            found = [
                way.fitted("affine", USUAL, fit_shots=shots, pool=stale[way.index]) for way in ways
            ]
            cost = measured.cost(USUAL, shots)
            yield _row(found, labels, method="stale", images=USUAL, shots=shots, cost=cost)


def budget_rows(
    measured: Measured, *, recipe: str, trained: str, device: str, shots: int = 1024
) -> Iterator[Row]:
    """Yield a row for every way to share `BUDGET_S` out between images and their shots."""
    labels = {"recipe": recipe, "trained": trained, "device": device, "shots": shots}
    labels |= {"test_images": len(measured.labels)}
    ways = [Correction(measured, index, shots=shots) for index in range(len(measured.students))]
    for images in (5, *IMAGES[:4], 200, 400):
        each = int((BUDGET_S - measured.cost(0, 1)) / measured.second / images)
        for method in KINDS:
            found = [way.fitted(method, images, fit_shots=each) for way in ways]
            cost = measured.cost(images, each)
            yield _row(found, labels, method=method, images=images, shots=each, cost=cost)


def _row(
    found: Sequence[tuple[float, ...]],
    labels: Mapping[str, Any],
    *,
    method: str,
    images: int = 0,
    shots: int | None = None,
    cost: float = 0.0,
) -> Row:
    hits, errors, *agreed = zip(*found, strict=True)
    return Row(
        **labels,
        method=method,
        images=images,
        fit_shots=shots or 0,
        qpu_seconds=round(cost, 2),
        calibration_error=round(float(np.mean(errors)), 4),
        held_out=round(float(np.mean(agreed[0])), 4) if agreed else 0.0,
        hits=" ".join(str(hit) for hit in hits),
    )


def main() -> None:
    """Run the grid, as far as it is not there."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", help="folder of MNIST and FashionMNIST; default: $QKD_DATA")
    parser.add_argument("--recipes", default=",".join(RECIPES))
    parser.add_argument("--trained", default="clean")
    parser.add_argument("--devices", help="default: six for each recipe")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--first", type=int, help="students that are measured; default: all seeds")
    parser.add_argument("--limit", type=int, default=1000, help="test images, digits: all")
    parser.add_argument("--runs", type=Path, default=Path("runs/recalibration"))
    parser.add_argument("--jobs", type=int, default=1, help="processes that train")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    rows, budget = (
        {row.key: row for row in read_rows(options.out / name)} for name in (TABLE, BUDGET)
    )
    for recipe, trained in itertools.product(
        options.recipes.split(","), options.trained.split(",")
    ):
        devices = options.devices.split(",") if options.devices else devices_of(recipe)
        limit = None if recipe == "digits" else options.limit
        for device in devices:
            started = time.process_time()
            run, arm = trained_run(recipe, trained, device, options)
            path = options.runs / "outcomes" / f"{recipe}-{trained}-{device}.safetensors"
            measured = measure(run, arm, device, path=path, limit=limit, first=options.first)
            where = {"recipe": recipe, "trained": trained, "device": device}
            rows |= {row.key: row for row in grid_rows(measured, **where)}
            budget |= {row.key: row for row in budget_rows(measured, **where)}
            for name, of in ((TABLE, rows), (BUDGET, budget)):
                write_csv(options.out / name, COLUMNS, [asdict(row) for row in of.values()])
            print(recipe, trained, device, f"{time.process_time() - started:.0f} s", flush=True)


def trained_run(
    recipe: str, trained: str, device: str, options: argparse.Namespace
) -> tuple[Run, str]:
    """Return the run with the students of one training, doing what is not done, and their arm.

    Students of an ideal simulator are in one run for each training; what is trained through a
    device's noise is in one for each device, all trainings together.
    """
    arms, targets, name = ["distilled"], ["exact"], f"{recipe}-{trained}"
    if trained in THROUGH_NOISE:
        arms, name = [*arms, *(ARMS[way] for way in THROUGH_NOISE)], f"{recipe}-{device}"
        targets = [*targets, f"{device}:exact"]
    elif trained != "clean":
        arms.append(ARMS[trained])
    changes = {"arms": arms, "targets": targets, "seeds": options.seeds}
    changes |= {"data.root": options.data_root}
    wanted = load_recipe(recipe, changes)
    workers = Workers(jobs=options.jobs)
    return open_study(wanted, options.runs / name, workers=workers), ARMS[trained]


if __name__ == "__main__":
    main()
