"""Where does distillation help, by what, and does the circuit? Recipes against strong opponents.

    QKD_DATA=ROOT python benchmarks/helps.py [--cells mnist_50,digits_10] [--seeds 20]
    QKD_DATA=ROOT python benchmarks/helps.py --splits mnist_50,digits_10

Each cell is a built-in recipe at a number of labelled images per class. Label-only students, with
and without jittered copies of their images, and distilled ones have a learning rate, weight decay
and number of epochs of their own, from grids of one size, by validation; beside them are students
taught with the recipe's settings: by a teacher of all labels, by one of the student's own images,
on jittered copies, on nine times as many unlabelled images, on both, and by the label-only student
in place of a teacher. A twin is the best on validation images of six classical models (four on
images of 28x28) of at most as many trained numbers: distilled with the recipe's settings, and
(without --untuned-twins) from labels alone and distilled, each tuned as the students are. Last come
students on 99 unlabelled images for each labelled one and in four times as many steps, hybrid ones
by a dense network in place of softmax regression; beside them twins, students without a teacher and
tuned label-only ones that train as long. Seeds begin at 300, which chose nothing.

With --splits the cells are repeated with other validation splits and teachers (and, on digits,
other test images): what seeds alone do not cover.

Every study is a run folder under --runs and goes on where it was stopped; more seeds are added to
those that are there. Writes helps_accuracy.csv (a row for each student) or helps_splits.csv,
helps.csv (a row for each comparison, p values corrected by Holm over all of them) and helps.png
under benchmarks/results/; cells that are not run keep their rows. Prints the tables of HELPS.md.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RECIPE
from qkd_qiskit.experiments.twin_choice import mean_validation_accuracy
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import Run, resume_experiment, run_experiment
from qkd_qiskit.storage import write_text

RESULTS = Path(__file__).parent / "results"
FIRST_SEED, SPLITS, SEEDS_PER_SPLIT = 300, 8, 5
STUDENT_ARMS = (
    "label_only",
    "label_only_tuned",
    "label_only_augmented_tuned",
    "self_training",
    "distilled",
    "distilled_tuned",
    "distilled_same_draw",
    "augmented",
    "transfer",
    "transfer_augmented",
)
TWINS = {
    "twin_pca": "pca_linear",
    "twin_pooled": "pooled_linear",
    "twin_bilinear": "bilinear",
    "twin_random": "random_features",
    "twin_conv": "small_convolution",
    "classical_twin": "classical",
}
COSTLY = ("twin_random", "twin_conv")  # on images of 28x28; HELPS.md has them for two cells
BEST = "best_twin"  # with the recipe's settings, distilled
TUNED_TWINS = {"twin_labels": "label_only_tuned", "twin_taught": "distilled_tuned"}
UNLABELLED, LONGER = 99, 4  # images for each labelled one, times as many steps: helps_teachers.py
TAUGHT_MORE, LABELS_MORE, SELF_TAUGHT_MORE = "taught_more", "labels_more", "self_taught_more"
TWIN_MORE = "twin_more"
SPLIT_ARMS = ("label_only_tuned", "distilled", "transfer")
ACCURACY_COLUMNS = ("cell", "arm", "kind", "seed", "accuracy")
SPLIT_COLUMNS = ("cell", "split", "arm", "seed", "accuracy")
COMMAND = "python benchmarks/helps.py"


@dataclass(frozen=True)
class Cell:
    """A recipe at a number of labelled images per class.

    Attributes:
        recipe: Built-in recipe.
        labels: Labelled images per class.
        teacher: Kind of the teacher of `taught_more`, by validation: helps_teachers.py.
    """

    recipe: str
    labels: int
    teacher: str = "mlp"

    @property
    def name(self) -> str:
        """Name of its folder, and in the tables."""
        return f"{self.recipe}_{self.labels}"

    @property
    def twins(self) -> dict[str, str]:
        """Kinds of its twins by arm."""
        small = self.recipe.startswith("digits")
        return {arm: kind for arm, kind in TWINS.items() if small or arm not in COSTLY}


CELLS = {
    cell.name: cell
    for cell in (
        Cell("digits", 10),
        Cell("mnist", 50),
        Cell("fashion_mnist", 50),
        Cell("digits_quantum", 10, teacher="softmax"),
        Cell("mnist_quantum", 10, teacher="softmax"),
        Cell("fashion_mnist_quantum", 10, teacher="softmax"),
    )
}


def open_study(
    recipe: Recipe,
    path: Path,
    *,
    workers: Workers | None = None,
    callback: Callback | None = None,
    command: str = "",
) -> Run:
    """Return the run of a recipe in a folder, doing what of it is not there yet.

    A study of the same recipe with fewer seeds or arms is extended by those that it lacks.
    """
    doing: dict[str, Any] = {"workers": workers, "callback": callback, "command": command}
    if not (path / RECIPE).exists():
        return run_experiment(recipe, out=path, **doing)
    study = Run.open(path)
    if not _is_part(study.recipe, recipe):
        sys.exit(f"{path} holds a study of another recipe; move it away, or give another folder")
    if study.folder.result is None:
        study = resume_experiment(path, **doing)
    seeds, arms = recipe.member_seeds, recipe.arms
    if (study.recipe.member_seeds, study.recipe.arms) != (seeds, arms):
        study.extend(seeds=seeds, arms=arms, own_arms=dict(recipe.own_arms), **doing)
    return study


def _is_part(old: Recipe, recipe: Recipe) -> bool:
    """Return whether a recipe is another one with as many or fewer seeds and arms."""
    shared = replace(
        old,
        data=replace(old.data, root=recipe.data.root),  # which may have moved
        seeds=recipe.seeds,
        arms=recipe.arms,
        own_arms=recipe.own_arms,
    )
    return (
        shared == recipe
        and set(old.member_seeds) <= set(recipe.member_seeds)
        and set(old.arms) <= set(recipe.arms)
        and old.own_arms.items() <= recipe.own_arms.items()
    )


def recipe_of(cell: Cell, arms: Sequence[str], **changes: Any) -> Recipe:
    """Return the recipe of a cell with some arms, on exact targets."""
    given = {"data.train_per_class": cell.labels, "targets": ["exact"], "arms": list(arms)}
    return load_recipe(cell.recipe, given | changes)


def run_cell(
    cell: Cell, *, parent: Path, seeds: int, tuned_twins: bool = True
) -> list[dict[str, Any]]:
    """Return a row for each student of a cell, running what of it is not there yet."""
    own_seeds = list(range(FIRST_SEED, FIRST_SEED + seeds))
    study = _open(
        recipe_of(cell, (*STUDENT_ARMS, *cell.twins), seeds=own_seeds), parent / cell.name
    )
    assert study.result.twins is not None
    best = study.result.twins.best
    rows = _rows(study.result, cell=cell.name, kind="")
    rows += _chosen(rows, best, BEST, study.recipe.student_of(best).kind)
    rows += _taught_more(cell, parent=parent, seeds=own_seeds)
    if tuned_twins:
        rows += _tuned_twins(cell, parent=parent, seeds=own_seeds)
    return rows


def _taught_more(cell: Cell, *, parent: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Return a row for each student of more images and steps, its controls and twins."""
    longer = {"distill.epochs": LONGER * load_recipe(cell.recipe).distill.epochs}
    more = longer | {"distill.unlabelled": UNLABELLED}
    own = {
        TAUGHT_MORE: {"base": "transfer", **more},
        SELF_TAUGHT_MORE: {"base": "self_training", **more},
        LABELS_MORE: {"base": "label_only_augmented_tuned", **longer},
    }
    own |= {
        f"{TWIN_MORE}_{kind}": {"base": "transfer", "student.kind": kind, **more}
        for kind in cell.twins.values()
    }
    changes: dict[str, Any] = {"own_arms": own, "seeds": seeds, "teacher.kind": cell.teacher}
    recipe = recipe_of(cell, ("label_only", *own), **changes)
    study = _open(recipe, parent / f"{cell.name}-more")
    rows = [row for row in _rows(study.result, cell=cell.name, kind="") if row["arm"] in own]
    return rows + _best_of(rows, TWIN_MORE, study, kinds=cell.twins.values())


def _tuned_twins(cell: Cell, *, parent: Path, seeds: list[int]) -> list[dict[str, Any]]:
    """Return a row for each tuned twin, and for the best on validation of each loss."""
    own = {
        f"{name}_{kind}": {"base": base, "student.kind": kind}
        for name, base in TUNED_TWINS.items()
        for kind in cell.twins.values()
    }
    recipe = recipe_of(cell, list(own), own_arms=own, seeds=seeds)
    study = _open(recipe, parent / f"{cell.name}-twins")
    rows = _rows(study.result, cell=cell.name, kind="")
    return rows + [
        row
        for name in TUNED_TWINS
        for row in _best_of(rows, name, study, kinds=cell.twins.values())
    ]


def _best_of(
    rows: list[dict[str, Any]], name: str, study: Run, *, kinds: Iterable[str]
) -> list[dict[str, Any]]:
    """Return the rows of the twin that is best on validation images, under a name of its own."""
    validation = {
        kind: mean_validation_accuracy(study.folder, f"{name}_{kind}") or 0.0 for kind in kinds
    }
    best = max(validation, key=lambda kind: validation[kind])
    return _chosen(rows, f"{name}_{best}", name, best)


def _chosen(rows: Iterable[dict[str, Any]], arm: str, name: str, kind: str) -> list[dict[str, Any]]:
    return [row | {"arm": name, "kind": kind} for row in rows if row["arm"] == arm]


def run_splits(cell: Cell, *, parent: Path) -> list[dict[str, Any]]:
    """Return a row for each student of a cell at several splits, each with its teacher."""
    own_seeds = list(range(FIRST_SEED, FIRST_SEED + SEEDS_PER_SPLIT))
    rows = []
    for split in range(1, 1 + SPLITS):
        recipe = recipe_of(cell, SPLIT_ARMS, seeds=own_seeds, seed=split)
        study = _open(recipe, parent / f"{cell.name}-split-{split}")
        rows += _rows(study.result, cell=cell.name, split=split)
    return rows


def _open(recipe: Recipe, path: Path) -> Run:
    print(path, flush=True)
    return open_study(recipe, path, command=COMMAND)


def _rows(result: Result, **given: Any) -> list[dict[str, Any]]:
    """Return a row for each student that trained."""
    return [
        {**given, "arm": arm, "seed": seed, "accuracy": f"{accuracy:.6f}"}
        for arm, by_target in result.arms.items()
        for seed, accuracy in zip(result.seeds, by_target["exact"].accuracy, strict=True)
        if str(seed) not in result.failed[arm]
    ]


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none where it is not there."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table, whole or not at all; numbers with six digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        shown = {
            key: f"{row[key]:.6g}" if isinstance(row[key], float) else row[key] for key in columns
        }
        writer.writerow(shown)
    write_text(path, text.getvalue())


def keep(path: Path, columns: Sequence[str], cell: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the rows of a cell into a table, in place of those that it had."""
    kept = [row for row in read(path) if row["cell"] != cell]
    write_csv(path, columns, [*kept, *rows])


def main() -> None:
    from helps_tables import write_tables

    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/helps"))
    parser.add_argument("--cells", default=None, help=f"of {', '.join(CELLS)}; default: all")
    parser.add_argument("--splits", default=None, help="cells to repeat at other splits")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--untuned-twins", action="store_true", help="leave tuned twins out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    names = list(CELLS) if options.cells is None and options.splits is None else []
    for name in names if options.cells is None else filter(None, options.cells.split(",")):
        rows = run_cell(
            CELLS[name],
            parent=options.runs,
            seeds=options.seeds,
            tuned_twins=not options.untuned_twins,
        )
        keep(options.out / "helps_accuracy.csv", ACCURACY_COLUMNS, name, rows)
    for name in (options.splits or "").split(",") if options.splits else ():
        rows = run_splits(CELLS[name], parent=options.runs)
        keep(options.out / "helps_splits.csv", SPLIT_COLUMNS, name, rows)
    print(write_tables(options.out))


if __name__ == "__main__":
    main()
