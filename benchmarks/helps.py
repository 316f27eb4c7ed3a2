"""Where does distillation help, by what, and does the circuit? Recipes against strong opponents.

    QKD_DATA=ROOT python benchmarks/helps.py [--cells mnist_50,digits_10] [--seeds 10]
    QKD_DATA=ROOT python benchmarks/helps.py --splits mnist_50,digits_10

Each cell is a built-in recipe at a number of labelled images per class. Label-only students, with
and without jittered copies of their images, and distilled ones have a learning rate, weight decay
and number of epochs of their own, from grids of one size, by validation; beside them are students
taught with the recipe's settings: by a teacher of all labels, by one of the student's own images,
on jittered copies, on nine times as many unlabelled images. A twin is the best on validation
images of four classical models of at most as many trained numbers, with the recipe's settings, and
(without --untuned-twins) tuned as the students are, from labels alone and distilled. Seeds begin at
300, which chose nothing.

With --splits the cells are repeated with other validation splits and teachers (and, on digits,
other test images): what seeds alone do not cover.

Every study is a run folder under --runs and goes on where it was stopped. Writes
helps_accuracy.csv (a row for each student) or helps_splits.csv, helps.csv (a row for each
comparison, p values corrected by Holm over all of them) and helps.png under benchmarks/results/;
cells that are not run keep their rows. Prints the tables of HELPS.md.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import itertools
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RECIPE
from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import Run, resume_experiment, run_experiment
from qkd_qiskit.storage import write_text

RESULTS = Path(__file__).parent / "results"
FIRST_SEED, SPLITS, SEEDS_PER_SPLIT = 300, 8, 5
ARMS = (
    "label_only",
    "label_only_tuned",
    "label_only_augmented_tuned",
    "distilled",
    "distilled_tuned",
    "distilled_same_draw",
    "augmented",
    "transfer",
    "twin_pca",
    "twin_pooled",
    "twin_bilinear",
    "classical_twin",
)
BEST = "best_twin"  # with the recipe's settings, distilled
TWIN_ARMS = {"twin_labels": "label_only_tuned", "twin_taught": "distilled_tuned"}
SPLIT_ARMS = ("label_only_tuned", "distilled", "transfer")
GAINS = {
    "label_only_tuned": (
        "label_only_augmented_tuned",
        "distilled_same_draw",
        "distilled",
        "distilled_tuned",
        "augmented",
        "transfer",
    ),
    "label_only_augmented_tuned": ("distilled", "augmented", "transfer"),
}
OVER_TWIN = {BEST: "distilled", "twin_labels": "label_only_tuned", "twin_taught": "distilled_tuned"}
PAIRS = [(arm, baseline) for baseline, arms in GAINS.items() for arm in arms]
PAIRS += [(arm, twin) for twin, arm in OVER_TWIN.items()]
ACCURACY_COLUMNS = ("cell", "arm", "kind", "seed", "accuracy")
SPLIT_COLUMNS = ("cell", "split", "arm", "seed", "accuracy")
COLUMNS = ("cell", "arm", "baseline", "seeds", "mean", "low", "high", "p", "p_holm")
Row = Mapping[str, str]
Accuracies = dict[str, dict[int, float]]


@dataclass(frozen=True)
class Cell:
    """A recipe at a number of labelled images per class.

    Attributes:
        recipe: Built-in recipe.
        labels: Labelled images per class.
    """

    recipe: str
    labels: int

    @property
    def name(self) -> str:
        """Name of its folder, and in the tables."""
        return f"{self.recipe}_{self.labels}"


CELLS = {
    cell.name: cell
    for cell in (
        Cell("digits", 10),
        Cell("digits_quantum", 10),
        Cell("mnist", 50),
        Cell("mnist", 150),
        Cell("fashion_mnist", 50),
        Cell("mnist_quantum", 10),
        Cell("fashion_mnist_quantum", 10),
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
    """Return the run of a recipe in a folder, doing what of it is not there yet."""
    if not (path / RECIPE).exists():
        return run_experiment(recipe, out=path, workers=workers, callback=callback, command=command)
    study = Run.open(path)
    data = replace(study.recipe.data, root=recipe.data.root)  # which may have moved
    if replace(study.recipe, data=data) != recipe:
        sys.exit(f"{path} holds a study of another recipe; move it away, or give another folder")
    if study.folder.result is None:
        return resume_experiment(path, workers=workers, callback=callback, command=command)
    return study


def recipe_of(cell: Cell, arms: Sequence[str], **changes: Any) -> Recipe:
    """Return the recipe of a cell with some arms, on exact targets."""
    given = {"data.train_per_class": cell.labels, "targets": ["exact"], "arms": list(arms)}
    return load_recipe(cell.recipe, given | changes)


def run_cell(
    cell: Cell, *, parent: Path, seeds: int, tuned_twins: bool = True
) -> list[dict[str, Any]]:
    """Return a row for each student of a cell, running what of it is not there yet."""
    own_seeds = list(range(FIRST_SEED, FIRST_SEED + seeds))
    study = _open(recipe_of(cell, ARMS, seeds=own_seeds), parent / cell.name)
    assert study.result.twins is not None
    best = study.result.twins.best
    kind = study.recipe.student_of(best).kind
    rows = _rows(study.result, cell=cell.name, kind="")
    rows += [row | {"arm": BEST, "kind": kind} for row in rows if row["arm"] == best]
    if not tuned_twins:
        return rows
    own = {arm: {"base": base, "student.kind": kind} for arm, base in TWIN_ARMS.items()}
    twins = recipe_of(cell, list(own), own_arms=own, seeds=own_seeds)
    result = _open(twins, parent / f"{cell.name}-twin").result
    return rows + _rows(result, cell=cell.name, kind=kind)


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
    return open_study(recipe, path, command="python benchmarks/helps.py")


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


def by_arm(rows: Sequence[Row], cell: str) -> Accuracies:
    """Return the accuracies of a cell by arm and seed."""
    found: Accuracies = {}
    for row in rows:
        if row["cell"] == cell:
            found.setdefault(row["arm"], {})[int(row["seed"])] = float(row["accuracy"])
    return found


def compare(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each comparison, p values corrected over all of them."""
    table = []
    for cell in dict.fromkeys(row["cell"] for row in rows):
        accuracies = by_arm(rows, cell)
        for arm, baseline in PAIRS:
            if baseline not in accuracies:
                continue  # without tuned twins
            treated, base = accuracies[arm], accuracies[baseline]
            seeds = sorted(treated.keys() & base.keys())
            gain = differences([treated[s] for s in seeds], [base[s] for s in seeds])
            mean, half = mean_interval(gain) if gain else (math.nan, None)
            ends = (math.nan, math.nan) if half is None else (mean - half, mean + half)
            row = {"cell": cell, "arm": arm, "baseline": baseline, "seeds": len(gain)}
            table.append(row | {"mean": mean, "low": ends[0], "high": ends[1], "p": paired_p(gain)})
    corrected = iter(holm([row["p"] for row in table if row["p"] is not None]))
    return [row | {"p_holm": None if row["p"] is None else next(corrected)} for row in table]


def markdown(rows: Sequence[Row], comparisons: Sequence[Mapping[str, Any]]) -> str:
    """Return mean accuracies and gains, a cell a line; bold: below 0.05 after Holm."""
    cells = [cell for cell in CELLS if any(row["cell"] == cell for row in rows)]
    gains = {(row["cell"], row["arm"], row["baseline"]): row for row in comparisons}
    means = {
        cell: {arm: fmean(values.values()) for arm, values in by_arm(rows, cell).items()}
        for cell in cells
    }
    kinds = {row["cell"]: row["kind"] for row in rows if row["arm"] == BEST}
    arms = [*ARMS[:8], *OVER_TWIN]
    lines = [f"| accuracy, % | {' | '.join(arms)} | best twin |"]
    lines.append("|---" * (len(arms) + 2) + "|")
    for cell in cells:
        shown = [f"{100 * means[cell][arm]:.1f}" if arm in means[cell] else "" for arm in arms]
        lines.append(f"| `{cell}` | {' | '.join(shown)} | {kinds[cell]} |")
    groups = {f"over {base}": [(arm, base) for arm in arms] for base, arms in GAINS.items()}
    groups["the circuit over a twin"] = [(arm, twin) for twin, arm in OVER_TWIN.items()]
    for title, pairs in groups.items():
        names = [" − ".join(pair) if title.startswith("the") else pair[0] for pair in pairs]
        lines += ["", f"| {title} | {' | '.join(names)} |"]
        lines.append("|---" * (len(pairs) + 1) + "|")
        for cell in cells:
            shown = [_gain(gains.get((cell, *pair))) for pair in pairs]
            lines.append(f"| `{cell}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def _gain(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    mean = f"{row['mean']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    return f"**{mean}**" if row["p_holm"] is not None and row["p_holm"] < 0.05 else mean


def splits_markdown(rows: Sequence[Row]) -> str:
    """Return the gain over the tuned baseline: of one split's seeds, and over the splits."""
    lines = ["| cell | arm | seeds of one split | splits and teachers | lowest, highest split |"]
    lines.append("|---" * 5 + "|")
    for cell in dict.fromkeys(row["cell"] for row in rows):
        splits = list(dict.fromkeys(row["split"] for row in rows if row["cell"] == cell))
        for arm in SPLIT_ARMS[1:]:
            means, halves = [], []
            for split in splits:
                of_split = by_arm([row for row in rows if row["split"] == split], cell)
                treated, base = of_split[arm], of_split[SPLIT_ARMS[0]]
                seeds = sorted(treated.keys() & base.keys())
                mean, half = mean_interval(
                    differences([treated[s] for s in seeds], [base[s] for s in seeds])
                )
                means.append(mean)
                halves.append(math.nan if half is None else half)
            mean, half = mean_interval(means)
            lines.append(
                f"| `{cell}` | `{arm}` | ± {fmean(halves):.1f}, {SEEDS_PER_SPLIT} seeds | "
                f"{mean:+.1f} ± {half or math.nan:.1f}, {len(means)} splits | "
                f"{min(means):+.1f}, {max(means):+.1f} |"
            )
    return "\n".join(lines)


def draw(comparisons: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw what is gained over the tuned label-only student, and over the twins."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cells = [cell for cell in CELLS if any(row["cell"] == cell for row in comparisons)]
    styles = {
        ("distilled_same_draw", "label_only_tuned"): ("#7c7f83", "o", "same-draw teacher"),
        ("distilled", "label_only_tuned"): ("#0072b2", "D", "distilled"),
        ("transfer", "label_only_tuned"): ("#009e73", "^", "on unlabelled images"),
        ("label_only_augmented_tuned", "label_only_tuned"): ("#d55e00", "s", "labels, jittered"),
        ("distilled", BEST): ("#cc79a7", "v", "circuit − best twin, distilled"),
    }
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.4, 1.3 + 0.8 * len(cells)), layout="constrained", dpi=150)
        axes = figure.subplots()
        axes.axvline(0, color="#1d1f21", linewidth=0.9)
        for number, (pair, (colour, marker, label)) in enumerate(styles.items()):
            for height, cell in enumerate(reversed(cells)):
                of_pair = (
                    (r["cell"], r["arm"], r["baseline"]) == (cell, *pair) for r in comparisons
                )
                row = next(itertools.compress(comparisons, of_pair), None)
                if row is None:
                    continue
                level = height + 0.3 - 0.15 * number
                axes.plot([row["low"], row["high"]], [level] * 2, color=colour, linewidth=2)
                fill = colour if row["p_holm"] is not None and row["p_holm"] < 0.05 else "white"
                axes.plot(row["mean"], level, marker, color=colour, markerfacecolor=fill)
            axes.plot([], [], color=colour, marker=marker, label=label)
        names = [
            f"{CELLS[cell].recipe}\n{CELLS[cell].labels} per class" for cell in reversed(cells)
        ]
        axes.set_yticks(range(len(cells)), names)
        axes.set_xlabel("paired gain in points of test accuracy, 95 % interval")
        axes.grid(axis="x", color="#dddfe1", linewidth=0.7)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        axes.set_title(
            "But for the last over the tuned label-only student. Filled: Holm's p below 0.05",
            loc="left",
            fontsize=9,
        )
        figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/helps"))
    parser.add_argument("--cells", default=None, help=f"of {', '.join(CELLS)}; default: all")
    parser.add_argument("--splits", default=None, help="cells to repeat at other splits")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--untuned-twins", action="store_true", help="leave tuned twins out")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    names = list(CELLS) if options.cells is None and options.splits is None else []
    path = options.out / "helps_accuracy.csv"
    for name in names if options.cells is None else filter(None, options.cells.split(",")):
        rows = run_cell(
            CELLS[name],
            parent=options.runs,
            seeds=options.seeds,
            tuned_twins=not options.untuned_twins,
        )
        kept = [row for row in read(path) if row["cell"] != name]
        write_csv(path, ACCURACY_COLUMNS, [*kept, *rows])
    splits = options.out / "helps_splits.csv"
    for name in (options.splits or "").split(",") if options.splits else ():
        rows = run_splits(CELLS[name], parent=options.runs)
        kept = [row for row in read(splits) if row["cell"] != name]
        write_csv(splits, SPLIT_COLUMNS, [*kept, *rows])
    rows = read(path)
    comparisons = compare(rows)
    write_csv(options.out / "helps.csv", COLUMNS, comparisons)
    draw(comparisons, options.out / "helps.png")
    print(markdown(rows, comparisons))
    if splits.exists():
        print(splits_markdown(read(splits)))


if __name__ == "__main__":
    main()
