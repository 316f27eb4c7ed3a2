"""Where does distillation help? The recipes' students against label-only ones with own settings.

    python benchmarks/helps.py [--data-root ROOT] [--runs runs/helps] [--seeds 20] [--jobs N]

Eight studies: the hybrid student of `mnist` and `fashion_mnist` at 50 and 150 labels per class, the
fully quantum one of `mnist_quantum` and `fashion_mnist_quantum` at 10, and both on digits. Each is
what `qkd study RECIPE --seeds 20` does: validation images of other seeds chose the recipe, the
label-only baseline has a learning rate, weight decay and number of epochs of its own, and the
figures are of the whole test set.

Every cell is a run folder under --runs and goes on where it was stopped. Writes helps.csv (a row
for each comparison of each cell, p values corrected by Holm over all of them), helps_accuracy.csv
(a row for each student) and helps.png under benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import csv
import io
import os
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RECIPE, REPORT
from qkd_qiskit.experiments.statistics import holm
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.run import Run, resume_experiment, run_experiment
from qkd_qiskit.storage import write_text

RESULTS = Path(__file__).parent / "results"
PAIR = ["label_only", "label_only_tuned", "distilled", "classical_twin"]
CONTROLS = ["class_mean_labels", "shuffled_teacher", "replicate"]
COLUMNS = ("cell", "arm", "baseline", "seeds", "failed", "mean", "low", "high")
COLUMNS += ("bootstrap_low", "bootstrap_high", "effect", "p", "p_holm")
TITLES = {"mnist": "MNIST", "fashion_mnist": "Fashion-MNIST", "digits": "digits"}


@dataclass(frozen=True)
class Study:
    """One study.

    Attributes:
        recipe: Built-in recipe.
        labels: Labelled images per class.
        arms: What is compared.
    """

    recipe: str
    labels: int
    arms: list[str]

    @property
    def name(self) -> str:
        """Name of its folder, and in the tables."""
        return f"{self.recipe}_{self.labels}"

    @property
    def title(self) -> str:
        """What a figure calls it."""
        data = TITLES[self.recipe.removesuffix("_quantum")]
        qubits = load_recipe(self.recipe).student.qubits
        kind = "fully quantum" if self.recipe.endswith("_quantum") else "hybrid"
        return f"{data}, {self.labels} per class\n{kind}, {qubits} qubits"


CELLS = [
    Study("mnist", 50, PAIR + CONTROLS),
    Study("mnist", 150, PAIR),
    Study("fashion_mnist", 50, PAIR + CONTROLS),
    Study("fashion_mnist", 150, PAIR),
    Study("mnist_quantum", 10, PAIR + CONTROLS),
    Study("fashion_mnist_quantum", 10, PAIR + CONTROLS),
    Study("digits", 10, PAIR + CONTROLS),
    Study("digits_quantum", 10, PAIR + CONTROLS),
]


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


def run_study(
    cell: Study, *, parent: Path, root: str | None, seeds: int, workers: Workers
) -> Result:
    """Return the result of a study, running what of it is not there yet."""
    changes = {"data.train_per_class": cell.labels, "data.root": root, "seeds": seeds}
    changes |= {"arms": cell.arms, "targets": ["exact"]}
    command = f"qkd study {cell.recipe} --seeds {seeds} --arms {','.join(cell.arms)} "
    command += f"--data.train_per_class {cell.labels}"
    recipe = load_recipe(cell.recipe, changes)
    study = open_study(recipe, parent / cell.name, workers=workers, command=command)
    if not (study.path / REPORT).exists():
        study.report()
    return study.result


def comparison_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Return a row for each comparison, p values corrected over all of them."""
    rows = []
    for name, result in results.items():
        for entry in result.comparisons:
            low, high = entry.ci95 or ("", "")
            bootstrap = entry.bootstrap95 or ("", "")
            row = {"cell": name, "failed": len(entry.left_out), "low": low, "high": high}
            row |= {"bootstrap_low": bootstrap[0], "bootstrap_high": bootstrap[1]}
            names = ("arm", "baseline", "seeds", "mean", "effect", "p")
            rows.append(row | {key: getattr(entry, key) for key in names})
            rows[-1]["p_holm"] = None
    tested = [row for row in rows if row["p"] is not None]
    for row, corrected in zip(tested, holm([row["p"] for row in tested]), strict=True):
        row["p_holm"] = corrected
    return rows


def accuracy_rows(results: Mapping[str, Result]) -> list[dict[str, Any]]:
    """Return a row for each student."""
    return [
        {"cell": name, "arm": arm, "seed": seed, "accuracy": accuracy}
        for name, result in results.items()
        for arm, by_target in result.arms.items()
        for seed, accuracy in zip(result.seeds, by_target["exact"].accuracy, strict=True)
    ]


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


def draw(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Result], path: Path) -> None:
    """Draw the gains over the tuned baseline and over the recipe's own label-only student."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    tasks = [cell for cell in CELLS if cell.name in results]
    styles = {
        ("distilled", "label_only_tuned"): ("#0072b2", "D", "distilled − label only, tuned"),
        ("distilled", "label_only"): ("#d55e00", "s", "distilled − label only, same settings"),
        ("class_mean_labels", "label_only_tuned"): ("#7c7f83", "o", "class means − tuned"),
    }
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.4, 0.9 + 0.8 * len(tasks)), layout="constrained", dpi=150)
        axes = figure.subplots()
        axes.axvline(0, color="#1d1f21", linewidth=0.9)
        for number, (pair, (colour, marker, label)) in enumerate(styles.items()):
            for height, cell in enumerate(reversed(tasks)):
                for row in rows:
                    found = (row["cell"], row["arm"], row["baseline"]) == (cell.name, *pair)
                    if found and row["p_holm"] is not None:
                        place = height + 0.22 - 0.22 * number
                        axes.plot([row["low"], row["high"]], [place] * 2, color=colour, linewidth=2)
                        fill = colour if row["p_holm"] < 0.05 else "white"
                        axes.plot(
                            row["mean"],
                            place,
                            marker,
                            color=colour,
                            markerfacecolor=fill,
                            markersize=6,
                        )
            axes.plot([], [], color=colour, marker=marker, label=label)
        axes.set_yticks(range(len(tasks)), [cell.title for cell in reversed(tasks)])
        axes.set_xlabel("paired gain in points of test accuracy, 95 % interval")
        axes.grid(axis="x", color="#dddfe1", linewidth=0.7)
        axes.set_axisbelow(True)
        figure.legend(loc="outside lower center", ncols=3, frameon=False)
        axes.set_title(
            "Filled: above or below zero after Holm's correction", loc="left", fontsize=9
        )
        figure.savefig(path)


def markdown(rows: Sequence[Mapping[str, Any]], results: Mapping[str, Result]) -> str:
    """Return accuracies and what distillation gains, a cell a line; bold: below 0.05 after Holm."""
    gains = {(row["cell"], row["arm"], row["baseline"]): row for row in rows}
    columns = "recipe", "labels per class", "teacher", "label only", "tuned", "distilled"
    columns += "gain over tuned", "over the distilled twin"
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for cell in CELLS:
        if cell.name in results:
            result = results[cell.name]
            tasks = [
                f"`{cell.recipe}`",
                str(cell.labels),
                f"{100 * result.teacher.accuracy:.1f}",
            ]
            for arm in PAIR[:3]:
                values = result.arms[arm]["exact"].accuracy
                tasks.append(f"{100 * statistics.fmean(values):.1f}")
            for baseline in ("label_only_tuned", "classical_twin"):
                tasks.append(_gain(gains[cell.name, "distilled", baseline]))
            lines.append(f"| {' | '.join(tasks)} |")
    return "\n".join(lines)


def _gain(row: Mapping[str, Any]) -> str:
    mean = f"{row['mean']:+.1f}"
    shown = f"**{mean}**" if row["p_holm"] is not None and row["p_holm"] < 0.05 else mean
    pairs = f", {row['seeds']} pairs" if row["failed"] else ""
    return f"{shown} [{row['low']:+.1f}, {row['high']:+.1f}]{pairs}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-root", help="folder of MNIST and FashionMNIST; default: $QKD_DATA")
    parser.add_argument("--runs", type=Path, default=Path("runs/helps"))
    parser.add_argument("--cells", default=",".join(cell.name for cell in CELLS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--cluster", help="tcp://HOST:PORT of a Dask scheduler")
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    workers = Workers(jobs=options.jobs, cluster=options.cluster)
    results = {}
    for cell in CELLS:
        if cell.name in options.cells.split(","):
            print(cell.name, flush=True)
            results[cell.name] = run_study(
                cell,
                parent=options.runs,
                root=options.data_root,
                seeds=options.seeds,
                workers=workers,
            )
    rows = comparison_rows(results)
    write_csv(options.out / "helps.csv", COLUMNS, rows)
    columns = ("cell", "arm", "seed", "accuracy")
    write_csv(options.out / "helps_accuracy.csv", columns, accuracy_rows(results))
    draw(rows, results, options.out / "helps.png")
    print(markdown(rows, results))


if __name__ == "__main__":
    main()
