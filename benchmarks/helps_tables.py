"""Tables and figure of HELPS.md from the rows that helps.py writes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from helps import (
    BEST,
    CELLS,
    LABELS_MORE,
    SEEDS_PER_SPLIT,
    SELF_TAUGHT_MORE,
    SPLIT_ARMS,
    STUDENT_ARMS,
    TAUGHT_MORE,
    TUNED_TWINS,
    TWIN_MORE,
    TWINS,
    read,
    write_csv,
)

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p

COLUMNS = ("cell", "arm", "baseline", "seeds", "mean", "low", "high", "p", "p_holm")
GAINS = {
    "label_only_tuned": (
        "label_only_augmented_tuned",
        "self_training",
        "distilled_same_draw",
        "distilled",
        "distilled_tuned",
        "augmented",
        "transfer",
        "transfer_augmented",
    ),
    "label_only_augmented_tuned": ("distilled", "augmented", "transfer"),
    LABELS_MORE: (SELF_TAUGHT_MORE, TAUGHT_MORE),
}
OVER_TWIN = {BEST: "distilled"} | TUNED_TWINS | {TWIN_MORE: TAUGHT_MORE}
MORE = (LABELS_MORE, SELF_TAUGHT_MORE, TAUGHT_MORE)
PAIRS = [(arm, baseline) for baseline, arms in GAINS.items() for arm in arms]
PAIRS += [(arm, twin) for twin, arm in OVER_TWIN.items()]
Row = Mapping[str, str]
Comparison = Mapping[str, Any]
Accuracies = dict[str, dict[int, float]]


def write_tables(out: Path) -> str:
    """Write helps.csv and helps.png from the rows in a folder, and return the page's tables."""
    rows = read(out / "helps_accuracy.csv")
    comparisons = compare(rows)
    write_csv(out / "helps.csv", COLUMNS, comparisons)
    draw(comparisons, out / "helps.png")
    tables = [accuracy_table(rows), *gain_tables(comparisons), twin_table(rows)]
    splits = read(out / "helps_splits.csv")
    return "\n\n".join(tables + ([split_table(splits)] if splits else []))


def by_arm(rows: Sequence[Row], cell: str) -> Accuracies:
    """Return the accuracies of a cell by arm and seed."""
    accuracies: Accuracies = {}
    for row in rows:
        if row["cell"] == cell:
            accuracies.setdefault(row["arm"], {})[int(row["seed"])] = float(row["accuracy"])
    return accuracies


def compare(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Return a row for each comparison, p values corrected over all of them."""
    table = []
    for cell in _cells(rows):
        accuracies = by_arm(rows, cell)
        for arm, baseline in PAIRS:
            if not {arm, baseline} <= accuracies.keys():
                continue  # without tuned twins
            gain = _paired(accuracies, arm, baseline)
            mean, half = mean_interval(gain) if gain else (math.nan, None)
            ends = (math.nan, math.nan) if half is None else (mean - half, mean + half)
            row = {"cell": cell, "arm": arm, "baseline": baseline, "seeds": len(gain)}
            table.append(row | {"mean": mean, "low": ends[0], "high": ends[1], "p": paired_p(gain)})
    corrected = iter(holm([row["p"] for row in table if row["p"] is not None]))
    return [row | {"p_holm": None if row["p"] is None else next(corrected)} for row in table]


def accuracy_table(rows: Sequence[Row]) -> str:
    """Return the mean accuracy of each arm in percent, an arm a line."""
    cells = _cells(rows)
    accuracies = {cell: by_arm(rows, cell) for cell in cells}
    lines = [f"| accuracy, % | {' | '.join(f'`{cell}`' for cell in cells)} |"]
    lines.append("|---" * (len(cells) + 1) + "|")
    for arm in (*STUDENT_ARMS, *MORE, *OVER_TWIN):
        shown = [_percent(accuracies[cell].get(arm)) for cell in cells]
        if any(shown):
            lines.append(f"| `{arm}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def gain_tables(comparisons: Sequence[Comparison]) -> list[str]:
    """Return tables of gains, one for each opponent; bold: below 0.05 after Holm."""
    cells = _cells(comparisons)
    gains = {(row["cell"], row["arm"], row["baseline"]): row for row in comparisons}
    groups = {
        f"over `{base}`": {f"`{arm}`": (arm, base) for arm in arms} for base, arms in GAINS.items()
    }
    groups["the circuit over its best twin"] = {
        f"`{arm}` − `{twin}`": (arm, twin) for twin, arm in OVER_TWIN.items()
    }
    tables = []
    for title, pairs in groups.items():
        lines = [f"| {title} | {' | '.join(f'`{cell}`' for cell in cells)} |"]
        lines.append("|---" * (len(cells) + 1) + "|")
        for name, pair in pairs.items():
            shown = [_gain(gains.get((cell, *pair))) for cell in cells]
            if any(shown):
                lines.append(f"| {name} | {' | '.join(shown)} |")
        tables.append("\n".join(lines))
    return tables


def twin_table(rows: Sequence[Row]) -> str:
    """Return the mean accuracy of every twin in percent; bold: the best on validation images."""
    lines = [f"| twin, accuracy in % | {' | '.join(TWINS.values())} |"]
    lines.append("|---" * (1 + len(TWINS)) + "|")
    for cell in _cells(rows):
        accuracies = by_arm(rows, cell)
        best = {row["arm"]: row["kind"] for row in rows if row["cell"] == cell and row["kind"]}
        for name in OVER_TWIN:
            if name not in accuracies:
                continue
            shown = []
            for arm, kind in TWINS.items():
                own = arm if name == BEST else f"{name}_{kind}"
                mean = _percent(accuracies.get(own))
                shown.append(f"**{mean}**" if best[name] == kind else mean)
            lines.append(f"| `{cell}`, `{name}` | {' | '.join(shown)} |")
    return "\n".join(lines)


def split_table(rows: Sequence[Row]) -> str:
    """Return the gain over the tuned baseline: of one split's seeds, and over the splits."""
    lines = ["| cell | arm | seeds of one split | splits and teachers | lowest, highest split |"]
    lines.append("|---" * 5 + "|")
    for cell in _cells(rows):
        splits = list(dict.fromkeys(row["split"] for row in rows if row["cell"] == cell))
        for arm in SPLIT_ARMS[1:]:
            means, halves = [], []
            for split in splits:
                of_split = by_arm([row for row in rows if row["split"] == split], cell)
                mean, half = mean_interval(_paired(of_split, arm, SPLIT_ARMS[0]))
                means.append(mean)
                halves.append(math.nan if half is None else half)
            mean, half = mean_interval(means)
            lines.append(
                f"| `{cell}` | `{arm}` | ± {fmean(halves):.1f}, {SEEDS_PER_SPLIT} seeds | "
                f"{mean:+.1f} ± {half or math.nan:.1f}, {len(means)} splits | "
                f"{min(means):+.1f}, {max(means):+.1f} |"
            )
    return "\n".join(lines)


def _cells(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    there = {row["cell"] for row in rows}
    return [cell for cell in CELLS if cell in there]


def _paired(accuracies: Accuracies, arm: str, baseline: str) -> list[float]:
    treated, base = accuracies[arm], accuracies[baseline]
    seeds = sorted(treated.keys() & base.keys())
    return differences([treated[seed] for seed in seeds], [base[seed] for seed in seeds])


def _percent(by_seed: Mapping[int, float] | None) -> str:
    return "" if by_seed is None else f"{100 * fmean(by_seed.values()):.1f}"


def _gain(row: Comparison | None) -> str:
    if row is None:
        return ""
    mean = f"{row['mean']:+.1f} [{row['low']:+.1f}, {row['high']:+.1f}]"
    return f"**{mean}**" if row["p_holm"] is not None and row["p_holm"] < 0.05 else mean


def draw(comparisons: Sequence[Comparison], path: Path) -> None:
    """Draw what is gained over the tuned label-only student, and over the twins."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    cells = _cells(comparisons)
    styles = {
        ("distilled_same_draw", "label_only_tuned"): ("#7c7f83", "o", "same-draw teacher"),
        ("distilled", "label_only_tuned"): ("#0072b2", "D", "distilled"),
        ("transfer", "label_only_tuned"): ("#009e73", "^", "on unlabelled images"),
        ("label_only_augmented_tuned", "label_only_tuned"): ("#d55e00", "s", "labels, jittered"),
        (TAUGHT_MORE, LABELS_MORE): ("#0b5d3b", "*", "on 99 times as many, longer"),
        ("label_only_tuned", "twin_labels"): ("#56b4e9", "P", "circuit − best twin, labels"),
        ("distilled", BEST): ("#cc79a7", "v", "circuit − best twin, distilled"),
        (TAUGHT_MORE, TWIN_MORE): ("#7b2d8b", "X", "circuit − best twin, 99 times as many"),
    }
    with rc_context({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(7.4, 1.5 + 1.0 * len(cells)), layout="constrained", dpi=150)
        axes = figure.subplots()
        axes.axvline(0, color="#1d1f21", linewidth=0.9)
        for number, (pair, (colour, marker, label)) in enumerate(styles.items()):
            for row in comparisons:
                if (row["arm"], row["baseline"]) != pair:
                    continue
                height = len(cells) - 1 - cells.index(row["cell"])
                level = height + 0.35 - 0.1 * number
                axes.plot([row["low"], row["high"]], [level] * 2, color=colour, linewidth=2)
                fill = colour if row["p_holm"] is not None and row["p_holm"] < 0.05 else "white"
                axes.plot(row["mean"], level, marker, color=colour, markerfacecolor=fill)
            if any((row["arm"], row["baseline"]) == pair for row in comparisons):
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
            "Over the tuned label-only student, or the best twin. Filled: Holm's p below 0.05",
            loc="left",
            fontsize=9,
        )
        figure.savefig(path)
