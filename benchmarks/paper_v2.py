"""Version 2 of arXiv:2311.13810: its bar chart beside paired runs of the same students.

Called by paper.py. The two students of the first row are whole runs of the recipe `paper_v2`, each
also one `qkd distill` command; the other rows are shorter, each arm at a learning rate that its
validation images choose. A finished task is kept in a file of its own, so a stopped study goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from math import isnan
from pathlib import Path
from typing import Any

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.distillation.population import Member, TrainingResult
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.errors import DataError
from qkd_qiskit.experiments import experiment as study
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.run_folder import RESULT, RunFolder, read_json, write_json
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

DATA_SETS = ("mnist", "fashion_mnist", "cifar10")
QUBITS = (4, 8)
MAIN = "amplitude + FC"
# Published test errors in percent, read off a bar chart (+- 0.5 points): 4 qubits, 8 qubits.
PUBLISHED: dict[str, dict[str, tuple[float, float]]] = {
    MAIN: {"mnist": (22.1, 9.5), "fashion_mnist": (22.5, 16.4), "cifar10": (74.2, 68.4)},
    "qubit encoding": {
        "mnist": (24.7, 14.2), "fashion_mnist": (23.6, 18.6), "cifar10": (76.0, 72.1),
    },
    "angle encoding": {
        "mnist": (37.4, 21.1), "fashion_mnist": (31.2, 28.4), "cifar10": (87.6, 84.1),
    },
    "average pooling": {
        "mnist": (53.8, 47.7), "fashion_mnist": (51.3, 50.2), "cifar10": (85.5, 79.3),
    },
    "PCA": {"mnist": (68.4, 57.1), "fashion_mnist": (71.6, 68.0), "cifar10": (87.6, 87.7)},
    "centre crop": {
        "mnist": (80.4, 74.6), "fashion_mnist": (78.5, 81.5), "cifar10": (91.6, 90.2),
    },
    "max pooling": {
        "mnist": (84.7, 80.8), "fashion_mnist": (82.6, 81.9), "cifar10": (92.7, 92.1),
    },
}  # fmt: skip
INPUTS: dict[str, dict[str, str]] = {
    MAIN: {},
    "qubit encoding": {"encoding": "qubit"},
    "angle encoding": {"encoding": "angle"},
    "average pooling": {"reduction": "avg_pool"},
    "PCA": {"reduction": "pca"},
    "centre crop": {"reduction": "crop"},
    "max pooling": {"reduction": "max_pool"},
}
# Theirs: seven rotations per qubit and no entanglement, <Z> of each qubit into a linear layer.
CIRCUITS: dict[str, dict[str, object]] = {
    "entangled": {},
    "local": {"ansatz": "local_rotations", "layers": 1, "readout": "expectation"},
}
ARMS = ("label_only", "distilled")
# What suits amplitudes makes trained angles wrap around, the sooner the more pixels there are.
RATES = (0.1, 0.03, 0.01, 0.003, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
FIRST_RATES = {"angle": 3e-4, "qubit": 3e-4}
FIRST_RATE, SEARCH_SEED = 0.01, 100
SEEDS = 5  # of the whole runs
# Colours about their mean. The best of the rates 0.01, 0.003, 0.001 and 0.0003 on validation
# images, with the seed of the search. An epoch of the convolution takes as long as forty others.
SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "data.scale": "standard",
        "teacher.epochs": 2,
        "distill.lr": 1e-3,
        "arms": ["label_only", "distilled", "tuned_twin", "convolution_twin"],
        "own_arms": {
            "tuned_twin": {"base": "classical_twin", "distill.lr": 1e-3},
            "convolution_twin": {"base": "twin_conv", "distill.lr": 3e-3, "distill.epochs": 3},
        },
    }
}
# A step of the FC layer to 256 amplitudes takes nine times as long as one to 16.
WIDE_SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "distill.epochs": 10,
        "distill.lr": 3e-3,
        # Is it the teacher, where distillation gains?
        "arms": ["label_only", "distilled", "tuned_twin", "label_smoothing", "class_mean_labels"],
    }
}


@dataclass(frozen=True)
class Study:
    """A student on a data set.

    Attributes:
        data: Data set.
        qubits: Width of the circuit.
        inputs: How an image enters, a row of the published chart.
        circuit: entangled (the recipe's) or local (the published one).
    """

    data: str
    qubits: int
    inputs: str
    circuit: str

    @property
    def is_main(self) -> bool:
        """Whether it is a whole run of the recipe, with its twin."""
        return (self.inputs, self.circuit) == (MAIN, "entangled")

    @property
    def name(self) -> str:
        """For example mnist_4q_amplitude_FC_local."""
        inputs = "_".join(word for word in self.inputs.split() if word != "+")
        return f"{self.data}_{self.qubits}q_{inputs}_{self.circuit}"

    def recipe(self, *, root: str | None, epochs: int, seeds: int) -> Recipe:
        """Its recipe; epochs and seeds are those of a short run."""
        changes: dict[str, Any] = INPUTS[self.inputs] | CIRCUITS[self.circuit]
        changes |= {"qubits": self.qubits}
        overrides = {f"student.{key}": value for key, value in changes.items()}
        overrides |= {"data.name": self.data, "data.root": root, "seeds": SEEDS}
        overrides |= SETTINGS.get(self.data, {})
        overrides |= WIDE_SETTINGS.get(self.data, {}) if self.qubits == max(QUBITS) else {}
        if not self.is_main:
            rate = FIRST_RATES.get(changes.get("encoding", ""), FIRST_RATE)
            overrides |= {"distill.epochs": epochs, "seeds": seeds, "distill.lr": rate}
        return load_recipe("paper_v2", overrides)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm of a task.

    Attributes:
        data: Data set.
        qubits: Width of the circuit.
        inputs: How an image enters.
        circuit: entangled or local.
        arm: label_only, distilled, classical_twin, or tuned_twin and convolution_twin, which have
            a rate of their own.
        seed: Seed of initialisation and order.
        epochs: Passes over the training images.
        rate: Learning rate of the first epoch.
        parameters: Trained numbers, circuit weights included.
        accuracy: On all test images, epoch chosen on validation.
        teacher: Accuracy of the teacher on them.
    """

    data: str
    qubits: int
    inputs: str
    circuit: str
    arm: str
    seed: int
    epochs: int
    rate: float
    parameters: int
    accuracy: float
    teacher: float

    @property
    def task(self) -> Study:
        """What was run."""
        return Study(self.data, self.qubits, self.inputs, self.circuit)


def all_cells(data_sets: Sequence[str]) -> list[Study]:
    """Every task, the main ones first."""
    tasks = [
        Study(data, qubits, inputs, circuit)
        for inputs in INPUTS
        for circuit in CIRCUITS
        for qubits in QUBITS
        for data in data_sets
    ]
    return sorted(tasks, key=lambda task: not task.is_main)


def run(
    tasks: Sequence[Study],
    *,
    folder: Path,
    root: str | None,
    epochs: int,
    seeds: int,
    tell: Callable[[str], None],
    only_kept: bool = False,
) -> list[Row]:
    """Make the tasks that are not there yet, or none (`only_kept`); return the rows that are there.

    A data set whose files are not there is left out and told.
    """
    rows, left_out = [], set()
    for task in tasks:
        kept = (folder / "v2" / task.name / RESULT).exists()
        if task.data in left_out or (only_kept and not kept):
            continue
        recipe = task.recipe(root=root, epochs=epochs, seeds=seeds)
        try:
            rows += _rows(task, recipe, folder=folder / "v2" / task.name, tell=tell)
        except DataError as error:
            left_out.add(task.data)
            tell(f"v2 without {task.data}: {error}")
    return rows


def _rows(task: Study, recipe: Recipe, *, folder: Path, tell: Callable[[str], None]) -> list[Row]:
    if task.is_main:
        return _main_rows(task, recipe, folder=folder, tell=tell)
    path = folder / RESULT
    if not path.exists():
        figures = _short_run(task, recipe, tell=tell)
        write_json(path, {"rows": [asdict(row) for row in figures]})
    return [Row(**row) for row in read_json(path)["rows"]]


def _main_rows(
    task: Study, recipe: Recipe, *, folder: Path, tell: Callable[[str], None]
) -> list[Row]:
    if not (folder / RESULT).exists():
        tell(f"v2 {task.name}: a whole run")
        opened = RunFolder.open(folder) if folder.exists() else RunFolder.create(folder, recipe)
        study.run(opened)
    opened = RunFolder.open(folder)
    result, kept = opened.ended(), opened.recipe
    shape = (3, 32, 32) if task.data == "cifar10" else (1, 28, 28)
    parameters = {
        arm: make_student(kept.student_of(arm), image_shape=shape, num_classes=10).num_parameters
        for arm in result.arms
    }
    return [
        Row(
            **asdict(task),
            arm=arm,
            seed=seed,
            epochs=kept.distill_of(arm).epochs,
            rate=kept.distill_of(arm).lr,
            parameters=parameters[arm],
            accuracy=accuracy,
            teacher=result.teacher.accuracy,
        )
        for arm, by_target in result.arms.items()
        for seed, accuracy in zip(result.seeds, by_target["exact"].accuracy, strict=True)
    ]


def _short_run(task: Study, recipe: Recipe, *, tell: Callable[[str], None]) -> list[Row]:
    data = _data(recipe.data.name, recipe.data.root)
    teacher = _teacher(recipe.data.name, recipe.data.root)
    shape = _student(recipe, data, seed=0)
    shape.fit(data.pool.images)
    examples = make_distillation_data(shape, teacher, data, draws=data.draw(None)[None])

    def train(arms: Sequence[str], seeds: Sequence[int], *, rate: float) -> list[TrainingResult]:
        members = _members(recipe, arms, seeds)
        return train_population(
            shape,
            members,
            starts=[
                dict(_student(recipe, data, seed=it.seed).named_parameters()) for it in members
            ],
            examples=replace(
                examples,
                draws=examples.draws[:1].expand(len(members), -1),
                teachers=examples.teachers[:1].expand(len(members)),
            ),
            spec=replace(recipe.distill, lr=rate),
        )

    def accuracies(rate: float) -> dict[str, float]:
        trained = train(ARMS, [SEARCH_SEED], rate=rate)
        values = {it.member.arm: it.validation_accuracy for it in trained}
        values = {arm: 0.0 if isnan(value) else value for arm, value in values.items()}
        shown = ", ".join(f"{arm} {100 * value:.1f} %" for arm, value in values.items())
        tell(f"v2 {task.name}: rate {rate}: {shown} on validation")
        return values

    rates = best_rates(accuracies, first=recipe.distill.lr)
    results = [
        result
        for rate in sorted(set(rates.values()))
        for result in train(
            [arm for arm in ARMS if rates[arm] == rate], recipe.member_seeds, rate=rate
        )
    ]
    rows = []
    for result in sorted(results, key=lambda it: (it.member.seed, ARMS.index(it.member.arm))):
        shape.load_parameters(result.state)
        right = exact_logits(shape, data.test.images).argmax(dim=1) == data.test.labels
        rows.append(
            Row(
                **asdict(task),
                arm=result.member.arm,
                seed=result.member.seed,
                epochs=recipe.distill.epochs,
                rate=rates[result.member.arm],
                parameters=shape.num_parameters,
                accuracy=right.double().mean().item(),
                teacher=teacher.accuracy,
            )
        )
    errors = [f"{row.arm} {100 * (1 - row.accuracy):.1f}" for row in rows]
    tell(f"v2 {task.name}: test errors {', '.join(errors)}")
    return rows


def best_rates(
    accuracies: Callable[[float], Mapping[str, float]], *, first: float
) -> dict[str, float]:
    """Return each arm's best rate: from the first one on, until one on either side is worse.

    Args:
        accuracies: From a rate to validation accuracies by arm.
        first: Where to begin, one of `RATES`.
    """
    tried = {RATES.index(first): accuracies(first)}
    while True:
        best = {
            arm: max(tried, key=lambda at: tried[at][arm]) for arm in next(iter(tried.values()))
        }
        beside = {at + step for at in best.values() for step in (-1, 1)}
        wanted = sorted(beside & set(range(len(RATES))) - set(tried))
        if not wanted:
            return {arm: RATES[at] for arm, at in best.items()}
        tried |= {at: accuracies(RATES[at]) for at in wanted}


def _members(recipe: Recipe, arms: Sequence[str], seeds: Sequence[int]) -> list[Member]:
    spec = recipe.distill
    weights = {"label_only": (1.0, 0.0), "distilled": (spec.ce_weight, spec.kd_weight)}
    return [
        Member(arm=arm, seed=seed, ce_weight=weights[arm][0], kd_weight=weights[arm][1])
        for arm in arms
        for seed in seeds
    ]


def _student(recipe: Recipe, data: Data, *, seed: int) -> Student:
    return make_student(
        recipe.student, image_shape=data.image_shape, num_classes=data.num_classes, seed=seed
    )


@cache
def _data(name: str, root: str | None) -> Data:
    return load_data(_recipe_of(name, root).data)


@cache
def _teacher(name: str, root: str | None) -> Teacher:
    recipe = _recipe_of(name, root)
    return make_teacher(recipe.teacher, _data(name, root), seed=recipe.seed)


def _recipe_of(name: str, root: str | None) -> Recipe:
    own = SETTINGS.get(name, {})
    return load_recipe("paper_v2", {"data.name": name, "data.root": root} | own)
