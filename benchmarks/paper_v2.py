"""Version 2 of arXiv:2311.13810: its bar chart beside paired runs of the same students.

Called by paper.py. The two students of the first row are whole runs of the recipe `paper_v2`, each
also one `qkd distill` command; the other rows are shorter. A finished task is kept in a file of its
own, so a stopped study goes on where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.distillation.population import EpochMetrics, Member
from qkd_qiskit.distillation.trainer import make_distillation_data, train_population
from qkd_qiskit.errors import DataError
from qkd_qiskit.experiments import experiment as study
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.run_folder import RESULT, RunFolder, read_json, write_json
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
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
# At the recipe's 0.01, which suits amplitudes, trained angles wrap around and little is learnt.
ANGLES, ANGLE_LR = ("angle", "qubit"), 1e-3
# Colours about their mean, rates for students and for the twin, chosen on validation images (one
# seed, 4 qubits, 0.01 to 0.0003), and as many seeds as a conclusion takes.
SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {
        "data.scale": "standard",
        "teacher.epochs": 2,
        "distill.epochs": 6,
        "distill.lr": 3e-3,
        "seeds": 5,
        "arms": ["label_only", "distilled", "classical_twin", "tuned_twin"],
        "own_arms": {"tuned_twin": {"base": "classical_twin", "distill.lr": 1e-3}},
    }
}
# A step of the FC layer to 256 amplitudes takes nine times as long as one to 16.
WIDE_SETTINGS: dict[str, dict[str, Any]] = {
    "cifar10": {"distill.epochs": 3, "arms": ["label_only", "distilled", "tuned_twin"]}
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
        changes = INPUTS[self.inputs] | CIRCUITS[self.circuit] | {"qubits": self.qubits}
        overrides = {f"student.{key}": value for key, value in changes.items()}
        overrides |= {"data.name": self.data, "data.root": root} | SETTINGS.get(self.data, {})
        overrides |= WIDE_SETTINGS.get(self.data, {}) if self.qubits == max(QUBITS) else {}
        if changes.get("encoding") in ANGLES:
            overrides |= {"distill.lr": ANGLE_LR}
        if not self.is_main:
            overrides |= {"distill.epochs": epochs, "seeds": seeds}
        return load_recipe("paper_v2", overrides)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One arm of a task.

    Attributes:
        data: Data set.
        qubits: Width of the circuit.
        inputs: How an image enters.
        circuit: entangled or local.
        arm: label_only, distilled, classical_twin or tuned_twin (at a rate of its own).
        seed: Seed of initialisation and order.
        epochs: Passes over the training images.
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
    parameters: int
    accuracy: float
    teacher: float


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
    twin = make_student(
        replace(kept.student, kind="classical"), image_shape=shape, num_classes=10
    ).num_parameters
    return [
        Row(
            **asdict(task),
            arm=arm,
            seed=seed,
            epochs=kept.distill.epochs,
            parameters=twin if arm.endswith("twin") else result.student.parameters,
            accuracy=accuracy,
            teacher=result.teacher.accuracy,
        )
        for arm, by_target in result.arms.items()
        for seed, accuracy in zip(result.seeds, by_target["exact"].accuracy, strict=True)
    ]


def _short_run(task: Study, recipe: Recipe, *, tell: Callable[[str], None]) -> list[Row]:
    data = _data(recipe.data.name, recipe.data.root)
    teacher = _teacher(recipe.data.name, recipe.data.root)
    spec, seeds = recipe.distill, recipe.member_seeds

    def student(seed: int) -> Any:
        made = make_student(
            recipe.student, image_shape=data.image_shape, num_classes=data.num_classes, seed=seed
        )
        made.fit(data.pool.images)
        return made

    shape = student(0)
    weights = {"label_only": (1.0, 0.0), "distilled": (spec.ce_weight, spec.kd_weight)}
    members = [
        Member(arm=arm, seed=seed, ce_weight=weights[arm][0], kd_weight=weights[arm][1])
        for arm in ARMS
        for seed in seeds
    ]
    starts = {seed: dict(student(seed).named_parameters()) for seed in seeds}
    draws = data.draw(None).expand(len(members), -1)

    def on_epoch(figures: list[EpochMetrics]) -> None:
        best = max(one.validation_accuracy for one in figures)
        tell(f"v2 {task.name}: epoch {figures[0].epoch}/{spec.epochs}, {100 * best:.1f} %")

    trained = train_population(
        shape,
        members,
        starts=[starts[member.seed] for member in members],
        examples=make_distillation_data(shape, teacher, data, draws=draws),
        spec=spec,
        on_epoch=on_epoch,
    )
    rows = []
    for one in trained:
        shape.load_parameters(one.state)
        right = exact_logits(shape, data.test.images).argmax(dim=1) == data.test.labels
        rows.append(
            Row(
                **asdict(task),
                arm=one.member.arm,
                seed=one.member.seed,
                epochs=spec.epochs,
                parameters=shape.num_parameters,
                accuracy=right.double().mean().item(),
                teacher=teacher.accuracy,
            )
        )
    return rows


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
