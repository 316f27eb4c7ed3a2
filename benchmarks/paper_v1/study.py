"""Version 1 of arXiv:2311.13810 under control: its eighteen published gains beside paired seeds.

Called by paper.py. A run is one student of one arm and seed; it takes about two seconds, does not
depend on others, and is kept in a file of its own, so a stopped study goes on where it was.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

import torch

from paper_v1 import (
    CELLS,
    Cell,
    Figures,
    PublishedData,
    Setting,
    published_data,
    train,
)
from paper_v1.cells import TEACHER_ACCURACIES
from qkd_qiskit.experiments.run_folder import write_json
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

ORDER_OFFSET = 1000  # order seeds of the replicate arm, apart from all others
ALPHAS = (0.9, 0.1)
CONTROLS: dict[str, dict[str, object]] = {
    "exact": {"shots": 0},
    "true_gradient": {"gradient": "true"},
    "lr_3e-4": {"lr": 3e-4},
}
STEADIEST = "lr_3e-4"
SEEDS_AT_A_TIME = 10
# Published: 10 epochs each. One of AlexNet's 94 million parameters takes ten minutes of one core;
# two, with a learning rate that falls at the end, reach the published accuracy on MNIST.
EPOCHS = {"lenet5": 10, "alexnet": 2, "ensemble": 2}


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A change of a cell's label-only run.

    Attributes:
        name: Of its folder.
        baseline: The arm it is paired with; empty for a baseline.
        teacher: Architecture of its teacher, or None.
        changes: Fields of `Setting` that differ from the cell's.
        reordered: Whether order, dropout and shots have a seed of their own.
        turn: Arms of a lower one are run first, over all cells.
    """

    name: str
    baseline: str = ""
    teacher: str | None = None
    changes: dict[str, object]
    reordered: bool = False
    turn: int = 0


def arms_of(cell: Cell, *, teachers: Sequence[str], controls: bool) -> list[Arm]:
    """The arms of a cell."""
    arms = [
        Arm(name="label_only", changes={}),
        Arm(name="replicate", baseline="label_only", changes={}, reordered=True),
    ]
    softmax = cell.baseline_head == "softmax"
    if softmax:
        head: dict[str, object] = {"head": "softmax"}
        arms.append(Arm(name="label_only_softmax", changes=head))
    for teacher in teachers:
        for alpha in ALPHAS:
            arms.append(
                _distilled(
                    f"distilled_{teacher}_{alpha}",
                    teacher,
                    {"alpha": alpha},
                    turn=ALPHAS.index(alpha),
                )
            )
        if softmax:
            arms.append(
                _distilled(
                    f"distilled_{teacher}_0.9_softmax",
                    teacher,
                    {"alpha": 0.9, "head": "softmax"},
                    baseline="label_only_softmax",
                )
            )
    if controls:
        for word, change in CONTROLS.items():
            plain = Arm(name=f"label_only_{word}", changes=change, turn=2)
            # All teachers where most runs train; elsewhere one shows what the change does.
            taught = teachers if word == STEADIEST else teachers[:1]
            arms += [
                plain,
                *(
                    _distilled(
                        f"distilled_{teacher}_0.9_{word}",
                        teacher,
                        {"alpha": 0.9} | change,
                        baseline=plain.name,
                        turn=plain.turn,
                    )
                    for teacher in taught
                ),
            ]
    return arms


def _distilled(
    name: str,
    teacher: str,
    changes: dict[str, object],
    *,
    baseline: str = "label_only",
    turn: int = 0,
) -> Arm:
    return Arm(name=name, baseline=baseline, teacher=teacher, changes=changes, turn=turn)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One run.

    Attributes:
        cell: Name of the cell.
        arm: Name of the arm.
        seed: Seed of the run.
        published: Accuracy of the best epoch on the published test subset.
        test: Accuracy on all test images, epoch chosen on validation.
        chosen_epoch: That epoch, from 1.
        validation: Validation accuracy of that epoch.
        lost_classes: Classes of which it recognises less than a tenth of the validation images.
        failed: Whether it is behind the best run of its cell by more than half a class on
            validation: two classes that share an outcome cost a whole one.
    """

    cell: str
    arm: str
    seed: int
    published: float
    test: float
    chosen_epoch: int
    validation: float
    lost_classes: int
    failed: bool = False


@dataclass(frozen=True, kw_only=True)
class TeacherRow:
    """One teacher.

    Attributes:
        dataset: mnist or fashion_mnist.
        num_classes: The classes are 0 to this minus 1.
        teacher: Its architecture.
        parameters: Their number.
        epochs: Of its training; published are 10 and the best of them on the test images.
        published: Published accuracy, in percent.
        test: Ours after the last epoch, on all test images of these classes, in percent.
    """

    dataset: str
    num_classes: int
    teacher: str
    parameters: int
    epochs: int
    published: float
    test: float


def run(
    cells: Sequence[Cell],
    *,
    folder: Path,
    teachers: Sequence[str],
    seeds: int,
    controls: bool,
    root: str | None,
    tell: Callable[[str], None],
    only_kept: bool = False,
) -> list[Row]:
    """Make the runs that are not there yet, or none (`only_kept`); return all that are there."""
    jobs = [
        (cell, arm, seed)
        for cell in cells
        for arm in arms_of(cell, teachers=teachers, controls=controls)
        for seed in range(seeds)
    ]
    # Ten seeds of every arm before the next ten: a stopped study is a smaller one, not half of one.
    jobs.sort(key=lambda job: (job[1].turn, job[2] // SEEDS_AT_A_TIME))
    missing = [job for job in jobs if not _path(folder, *job).exists() and not only_kept]
    started, live = time.monotonic(), sys.stdout.isatty()
    for number, (cell, arm, seed) in enumerate(missing):
        examples = _published_data(cell.dataset, cell.num_classes, root)
        logits = None
        if arm.teacher is not None:
            logits = _logits(cell.dataset, cell.num_classes, arm.teacher, root, tell)
        figures = train(
            setting(cell, arm),
            examples,
            teacher_logits=logits,
            seed=seed,
            order_seed=seed + ORDER_OFFSET if arm.reordered else None,
        )
        write_json(_path(folder, cell, arm, seed), asdict(figures))
        left = (time.monotonic() - started) / (number + 1) * (len(missing) - number - 1)
        if live or seed % SEEDS_AT_A_TIME == SEEDS_AT_A_TIME - 1:
            tell(f"v1 {cell.name} {arm.name} seed {seed}: {left / 60:.0f} min left")
    kept = [(job, _path(folder, *job)) for job in jobs]
    return _judged([_row(*job, _read(path)) for job, path in kept if path.exists()])


def _judged(rows: Sequence[Row]) -> list[Row]:
    """The rows with what failed marked."""
    least = {}
    for cell in CELLS:
        reached = [row.validation for row in rows if row.cell == cell.name]
        least[cell.name] = max(reached, default=0.0) - 0.5 / cell.num_classes
    return [replace(row, failed=row.validation < least[row.cell]) for row in rows]


def setting(cell: Cell, arm: Arm) -> Setting:
    """The setting of a cell's arm."""
    return replace(Setting(qubits=cell.qubits, shots=cell.shots), **arm.changes)


def teachers(
    cells: Sequence[Cell],
    *,
    folder: Path,
    kinds: Sequence[str],
    root: str | None,
    tell: Callable[[str], None],
    only_kept: bool = False,
) -> list[TeacherRow]:
    """The teachers of cells beside the published ones; with `only_kept` those that are known."""
    rows = []
    for dataset, num_classes in dict.fromkeys((cell.dataset, cell.num_classes) for cell in cells):
        for kind in kinds:
            path = folder / "v1" / "teachers" / f"{dataset}_{num_classes}_{kind}.json"
            if not path.exists():
                if only_kept:
                    continue
                teacher = teacher_of(dataset, num_classes, kind, root=root, tell=tell)
                found = TeacherRow(
                    dataset=dataset,
                    num_classes=num_classes,
                    teacher=kind,
                    parameters=teacher.parameters,
                    epochs=EPOCHS[kind],
                    published=TEACHER_ACCURACIES[dataset, num_classes][kind],
                    test=100 * teacher.accuracy,
                )
                write_json(path, asdict(found))
            rows.append(TeacherRow(**json.loads(path.read_text(encoding="utf-8"))))
    return rows


def teacher_of(
    dataset: str,
    num_classes: int,
    kind: str,
    *,
    root: str | None,
    tell: Callable[[str], None],
) -> Teacher:
    """The trained teacher of a data set's first classes, from the cache where there is one."""

    def on_epoch(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        figures = f"loss {loss:.4f}, validation {100 * accuracy:.2f} %"
        tell(f"v1 {kind} of {dataset}, {num_classes} classes: epoch {epoch}/{epochs}, {figures}")

    spec = TeacherSpec(kind=kind, epochs=EPOCHS[kind], lr=1e-3, batch_size=128)
    return make_teacher(spec, _published_data(dataset, num_classes, root).data, on_epoch=on_epoch)


@cache
def _logits(
    dataset: str,
    num_classes: int,
    kind: str,
    root: str | None,
    tell: Callable[[str], None],
) -> torch.Tensor:
    teacher = teacher_of(dataset, num_classes, kind, root=root, tell=tell)
    tell(f"v1 {kind} of {dataset}, {num_classes} classes: test {100 * teacher.accuracy:.2f} %")
    return teacher.logits(_published_data(dataset, num_classes, root).train_images)


@cache
def _published_data(dataset: str, num_classes: int, root: str | None) -> PublishedData:
    return published_data(dataset, num_classes=num_classes, root=root)


def _path(folder: Path, cell: Cell, arm: Arm, seed: int) -> Path:
    return folder / "v1" / cell.name / arm.name / f"seed_{seed}.json"


def _read(path: Path) -> Figures:
    values = json.loads(path.read_text(encoding="utf-8"))
    return Figures(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def _row(cell: Cell, arm: Arm, seed: int, figures: Figures) -> Row:
    return Row(
        cell=cell.name,
        arm=arm.name,
        seed=seed,
        published=figures.published,
        test=figures.test,
        chosen_epoch=figures.chosen_epoch,
        validation=figures.validation[figures.chosen_epoch - 1],
        lost_classes=figures.lost_classes,
    )
