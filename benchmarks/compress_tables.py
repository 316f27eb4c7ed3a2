"""The tables and the figure of COMPRESS.md, from the rows of compress.py.

    python benchmarks/compress_tables.py [--write]

Prints the tables; --write puts them into COMPRESS.md below its mark, and draws compress.png.
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from compress import ARMS, DEEP, LABELS, RESULTS
from helps import read

from qkd_qiskit.experiments.statistics import differences, holm, mean_interval, paired_p

PAGE = RESULTS.parents[1] / "COMPRESS.md"
FIGURE = RESULTS.with_suffix(".png")
MARK = "<!-- tables: python benchmarks/compress_tables.py --write -->\n"
LEVELS = (0.6, 0.7, 0.8, 0.85, 0.9)
OVER = (("circuit", "classical"), ("ensemble", "circuit"), ("circuit", "born"))
COLOURS = {
    LABELS: "#d55e00",
    "born": "#cc79a7",
    "classical": "#0072b2",
    "circuit": "#009e73",
    "ensemble": "#5b4b9a",
}
Key = tuple[str, str, int]
"""Target, arm and two-qubit gates."""
Table = Mapping[Key, Sequence[float]]


def by_case(rows: Sequence[Mapping[str, str]]) -> dict[str, dict[Key, list[float]]]:
    """Return accuracies by case and key, seed by seed."""
    cases: dict[str, dict[Key, list[float]]] = {}
    for row in sorted(rows, key=lambda it: int(it["seed"])):
        key = (row["target"], row["arm"], int(row["gates"]))
        cases.setdefault(row["case"], {}).setdefault(key, []).append(float(row["accuracy"]))
    return cases


def gates_of(table: Table, target: str) -> list[int]:
    """Return the numbers of gates that were tested on a target."""
    return sorted({gates for place, arm, gates in table if place == target and arm != DEEP})


def pairs(table: Table) -> Iterator[tuple[Key, Key]]:
    """Yield what is compared: every arm with labels alone, and some arms with another one."""
    for target in dict.fromkeys(target for target, _, _ in table):
        for gates in gates_of(table, target):
            for arm in ARMS:
                if arm != LABELS:
                    yield (target, arm, gates), (target, LABELS, gates)
            for arm, other in OVER if target == "exact" else ():
                yield (target, arm, gates), (target, other, gates)


def corrected(cases: Mapping[str, Table]) -> dict[tuple[str, Key, Key], float]:
    """Return Holm's p over all comparisons of the page."""
    every = [(case, *both) for case, table in cases.items() for both in pairs(table)]
    raw = [paired_p(differences(cases[case][a], cases[case][b])) for case, a, b in every]
    return dict(zip(every, holm([1.0 if p is None else p for p in raw]), strict=True))


def gates_needed(curve: Sequence[tuple[int, float]], level: float) -> float | None:
    """Return the gates at which an accuracy is reached, between depths on a line.

    What more gates lose again does not count; None where it is never reached.

    Args:
        curve: Gates and accuracy, by gates.
        level: The accuracy.
    """
    best = [
        (gates, max(value for _, value in curve[: n + 1])) for n, (gates, _) in enumerate(curve)
    ]
    if best[0][1] >= level:
        return float(best[0][0])
    for (low, before), (high, after) in pairwise(best):
        if after >= level:
            return low + (high - low) * (level - before) / (after - before)
    return None


def curve_of(table: Table, arm: str, seed: int) -> list[tuple[int, float]]:
    """Return gates and accuracies without noise of one seed, counted from 0."""
    return [(gates, table["exact", arm, gates][seed]) for gates in gates_of(table, "exact")]


def accuracy_table(table: Table, case: str, p: Mapping[tuple[str, Key, Key], float]) -> str:
    """Return accuracies in % by gates; bold where an arm is told from labels alone."""
    gates = gates_of(table, "exact")
    text = [
        f"| taught by, {case} | {' | '.join(map(str, gates))} |",
        "|---" * (len(gates) + 1) + "|",
    ]
    for arm, name in ARMS.items():
        cells = []
        for number in gates:
            key, base = ("exact", arm, number), ("exact", LABELS, number)
            mean, half = mean_interval(table[key])
            cell = f"{100 * mean:.1f}" + ("" if half is None else f" ± {100 * half:.1f}")
            cells.append(f"**{cell}**" if arm != LABELS and p[case, key, base] < 0.05 else cell)
        text.append(f"| {name} | {' | '.join(cells)} |")
    deep = next(key for key in table if key[1] == DEEP)
    mean, half = mean_interval(table[deep])
    shown = "" if half is None else f" ± {100 * half:.1f}"
    text.append(f"\nThe deep circuits, which taught: {100 * mean:.1f}{shown}.")
    return "\n".join(text)


def noise_table(table: Table, case: str, p: Mapping[tuple[str, Key, Key], float]) -> str:
    """Return accuracies in % under noise, a column for each device and number of gates."""
    devices = [name for name in dict.fromkeys(target for target, _, _ in table) if name != "exact"]
    if not devices:
        return ""
    columns = [(name, gates) for name in devices for gates in gates_of(table, name)]
    heads = " | ".join(f"{name.removesuffix(':exact')}, {gates}" for name, gates in columns)
    text = [f"| taught by, {case} | {heads} |", "|---" * (len(columns) + 1) + "|"]
    for arm, label in ARMS.items():
        cells = []
        for name, gates in columns:
            key, base = (name, arm, gates), (name, LABELS, gates)
            cell = f"{100 * mean_interval(table[key])[0]:.1f}"
            cells.append(f"**{cell}**" if arm != LABELS and p[case, key, base] < 0.05 else cell)
        text.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(text)


def gain_table(table: Table, case: str, p: Mapping[tuple[str, Key, Key], float]) -> str:
    """Return paired gains in points without noise, at few, some and all gates."""
    every = gates_of(table, "exact")
    chosen = [gates for gates in (10, 20, 30, 50) if gates in every]
    text = [
        f"| gain, {case} | {' | '.join(f'{gates} gates' for gates in chosen)} |",
        "|---" * (len(chosen) + 1) + "|",
    ]
    both = [(arm, LABELS) for arm in ARMS if arm != LABELS] + list(OVER)
    for arm, other in both:
        cells = []
        for gates in chosen:
            key, base = ("exact", arm, gates), ("exact", other, gates)
            points = differences(table[key], table[base])
            mean, half = mean_interval(points)
            ends = "" if half is None else f" [{mean - half:+.1f}, {mean + half:+.1f}]"
            cell = f"{mean:+.1f}{ends}"
            cells.append(f"**{cell}**" if p[case, key, base] < 0.05 else cell)
        text.append(f"| {ARMS[arm]} over {ARMS[other]} | {' | '.join(cells)} |")
    return "\n".join(text)


def gates_table(table: Table, case: str) -> str:
    """Return how many two-qubit gates an accuracy takes, as means over the seeds that reach it."""
    seeds = range(len(next(iter(table.values()))))
    text = [
        f"| accuracy, {case} | {' | '.join(ARMS.values())} |",
        "|---" * (len(ARMS) + 1) + "|",
    ]
    for level in LEVELS:
        cells = [
            _gates([gates_needed(curve_of(table, arm, seed), level) for seed in seeds])
            for arm in ARMS
        ]
        text.append(f"| {100 * level:.0f} % | {' | '.join(cells)} |")
    reached = [max(value for _, value in curve_of(table, LABELS, seed)) for seed in seeds]
    own = [gates_needed(curve_of(table, LABELS, seed), reached[seed]) for seed in seeds]
    cells, shares = [], []
    for arm in ARMS:
        needed = [gates_needed(curve_of(table, arm, seed), reached[seed]) for seed in seeds]
        cells.append(_gates(needed))
        shares.append(_share(needed, own))
    text.append(f"| the best of labels alone | {' | '.join(cells)} |")
    text.append(f"| as a share of its gates | {' | '.join(shares)} |")
    return "\n".join(text)


def _gates(needed: Sequence[float | None]) -> str:
    known = [value for value in needed if value is not None]
    if not known:
        return "not reached"
    mean, half = mean_interval(known)
    text = f"{mean:.1f}" + ("" if half is None else f" ± {half:.1f}")
    return text if len(known) == len(needed) else f"{text} ({len(known)} of {len(needed)})"


def _share(needed: Sequence[float | None], own: Sequence[float | None]) -> str:
    shares = [
        value / base
        for value, base in zip(needed, own, strict=True)
        if value is not None and base is not None
    ]
    if not shares:
        return ""
    mean, half = mean_interval(shares)
    return f"{mean:.2f}" + ("" if half is None else f" [{mean - half:.2f}, {mean + half:.2f}]")


def tables(rows: Sequence[Mapping[str, str]]) -> str:
    """Return all tables as Markdown."""
    cases = by_case(rows)
    p = corrected(cases)
    parts = [f"{len(p)} comparisons.\n\n## Accuracy over two-qubit gates"]
    for make in (accuracy_table, gain_table):
        parts += [make(table, case, p) for case, table in cases.items()]
    parts.append("## Under the exact noise of devices")
    parts += [text for case, table in cases.items() if (text := noise_table(table, case, p))]
    parts.append("## How many gates an accuracy takes")
    parts += [gates_table(table, case) for case, table in cases.items()]
    return "\n\n".join(parts) + "\n"


def draw(rows: Sequence[Mapping[str, str]], path: Path) -> None:
    """Draw accuracy over gates, a panel for each case, intervals as bands."""
    from matplotlib.figure import Figure

    cases = by_case(rows)
    figure = Figure(figsize=(5.2 * len(cases), 3.9), layout="constrained", dpi=130)
    panels = figure.subplots(1, len(cases), squeeze=False)[0]
    for axes, (case, table) in zip(panels, cases.items(), strict=True):
        gates = gates_of(table, "exact")
        for arm, name in ARMS.items():
            means, halves = zip(
                *(mean_interval(table["exact", arm, it]) for it in gates), strict=True
            )
            middle = [100 * mean for mean in means]
            ends = [100 * (half or 0.0) for half in halves]
            axes.plot(gates, middle, color=COLOURS[arm], marker="o", markersize=4, label=name)
            low, high = (
                [m + sign * e for m, e in zip(middle, ends, strict=True)] for sign in (-1, 1)
            )
            axes.fill_between(gates, low, high, color=COLOURS[arm], alpha=0.15, linewidth=0)
        deep = next(values for key, values in table.items() if key[1] == DEEP)
        axes.axhline(100 * mean_interval(deep)[0], color="#62676c", linewidth=0.9, linestyle="--")
        axes.set(title=case, xlabel="two-qubit gates", ylabel="test accuracy, %")
        axes.grid(axis="y", color="#dddfe1")
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].legend(frameon=False, fontsize=8, title="dashed: the deep circuits")
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="into COMPRESS.md, with the figure")
    options = parser.parse_args()
    rows = read(RESULTS)
    text = tables(rows)
    if options.write:
        head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
        PAGE.write_text(f"{head}{MARK}\n{text}", encoding="utf-8")
        draw(rows, FIGURE)
    print(text)


if __name__ == "__main__":
    main()
