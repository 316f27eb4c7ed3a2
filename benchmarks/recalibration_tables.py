"""The tables of NOISE.md that follow from the rows of recalibration.py, word for word.

python benchmarks/recalibration_tables.py      # prints them from the committed CSV files
"""

# ruff: noqa: E402  (the number of threads is set before torch is imported)
from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")

from recalibration import ARMS, BUDGET, BUDGET_S, IMAGES, RESULTS, TABLE, USUAL, Row, read_rows

from qkd_qiskit.experiments.drift_sweep import DriftRow, read_drift
from qkd_qiskit.experiments.statistics import Gain, differences, holm, paired_gain, paired_p
from qkd_qiskit.report.drift_table import drift_summary

DRIFT = "recalibration_drift.csv"
Key = tuple[str | int, ...]


def by_key(rows: Sequence[Row]) -> dict[Key, Row]:
    """Return rows by what they are of."""
    return {row.key: row for row in rows}


def gain(row: Row, baseline: Row) -> Gain:
    """Return the paired gain of a row over another in points, at the seeds that both have."""
    both = min(len(_shares(row)), len(_shares(baseline)))
    return paired_gain(_shares(row)[:both], _shares(baseline)[:both])


def shown_gain(row: Row, baseline: Row) -> str:
    """Return a paired gain in points with its interval: `-0.40 [-0.76, -0.04]`."""
    of = gain(row, baseline)
    low, high = of.ci95 or (float("nan"), float("nan"))
    return f"{of.mean:+.2f} [{low:+.2f}, {high:+.2f}]"


def places(rows: Sequence[Row], *, trained: str = "clean") -> Iterator[tuple[str, str]]:
    """Yield each recipe and device of a training."""
    yield from dict.fromkeys((row.recipe, row.device) for row in rows if row.trained == trained)


def grid_table(rows: Sequence[Row], *, shots: int, quantum: bool) -> str:
    """Return what every way to correct a clean student gives: a recipe and device a row.

    Args:
        rows: The grid.
        shots: Shots per image, of fit and test; 0 = exact probabilities.
        quantum: Whether of the fully quantum students, or of the hybrid ones.
    """
    table = by_key(rows)
    heads = ["exact", "as measured", f"**affine, {USUAL} images**", "affine - exact (points)"]
    heads += ["affine, 10", "30", "100", "400", "diagonal, 50", "head, 50", "head, 400"]
    heads += ["a month old", "readout mitigation", "50 labels", "shuffled", "ECE"]
    heads += ["QPU s"] if shots else []
    text = [f"| data | device | {' | '.join(heads)} |", "|---|---" + "|--:" * len(heads) + "|"]
    for recipe, device in places(rows):
        if recipe.endswith("_quantum") != quantum:
            continue
        of = partial(_clean_row, table, recipe, device, shots)
        usual, exact = of("affine", USUAL), of("exact")
        cells = [_mean(exact), _mean(of("none")), f"**{_mean(usual)}**", shown_gain(usual, exact)]
        cells += [_mean(of("affine", images)) for images in IMAGES if images != USUAL]
        cells += [_mean(of("diagonal", USUAL)), _mean(of("head", USUAL)), _mean(of("head", 400))]
        old = table.get((recipe, "clean", device, shots, "stale", USUAL, shots))
        cells += ["-" if old is None else _mean(old)]
        cells += [_mean(of("readout")), _mean(of("labels", USUAL)), _mean(of("shuffled", USUAL))]
        cells += [f"{of('none').calibration_error:.3f} → {usual.calibration_error:.3f}"]
        cells += [f"{usual.qpu_seconds:.1f}"] if shots else []
        text.append(f"| {recipe} | {device} | {' | '.join(cells)} |")
    return "\n".join(text)


def better_table(rows: Sequence[Row]) -> str:
    """Return where another map beats the affine one of as many images, after Holm's correction."""
    table = by_key(rows)
    tried = [
        (row, table[(*row.key[:4], "affine", row.images, row.fit_shots)])
        for row in rows
        if row.trained == "clean" and row.method in ("diagonal", "head") and row.images == USUAL
    ]
    p = [paired_p(differences(_shares(row), _shares(affine))) for row, affine in tried]
    corrected = holm([1.0 if it is None else it for it in p])
    text = ["| data | device | shots | better | points over affine | p (Holm) |"]
    text.append("|---|---|--:|---|--:|--:|")
    for (row, affine), value in zip(tried, corrected, strict=True):
        if value < 0.05 and (gain(row, affine).mean or 0) > 0:
            where = f"{row.recipe} | {row.device} | {row.shots or 'exact'} | {row.method}"
            text.append(f"| {where} | {shown_gain(row, affine)} | {value:.3f} |")
    return "\n".join(text)


def trained_table(rows: Sequence[Row], *, shots: int) -> str:
    """Return what training through the noise gives beside the affine map of the clean student."""
    table = by_key(rows)
    heads = "| data | device | trained | as measured | affine, to its own exact | "
    heads += "affine, to the clean student's | best - affine of the clean student (points) |"
    text = [heads]
    text.append("|---|---|---|--:|--:|--:|--:|")
    for trained in list(ARMS)[1:]:
        for recipe, device in places(rows, trained=trained):
            clean = table[recipe, "clean", device, shots, "affine", USUAL, shots]
            names = (("none", 0, 0), ("affine", USUAL, shots), ("to_clean", USUAL, shots))
            three = [table[(recipe, trained, device, shots, *name)] for name in names]
            best = max(three, key=lambda row: float(row.accuracies.mean()))
            cells = [_mean(row) for row in three] + [shown_gain(best, clean)]
            name = trained.replace("_", "-")
            text.append(f"| {recipe} | {device} | {name} | {' | '.join(cells)} |")
    return "\n".join(text)


def budget_table(rows: Sequence[Row]) -> str:
    """Return accuracy by how `BUDGET_S` are shared out between images and their shots."""
    counts = sorted({row.images for row in rows})
    text = [f"| data | device | {' | '.join(f'{count} images' for count in counts)} |"]
    text.append("|---|---" + "|--:" * len(counts) + "|")
    for recipe, device in places(rows):
        of = {
            row.images: row
            for row in rows
            if (row.recipe, row.device, row.trained, row.method)
            == (recipe, device, "clean", "affine")
        }
        best = max(of.values(), key=lambda row: float(row.accuracies.mean()))
        cells = [
            f"{'**' * (of[count] is best)}{_mean(of[count])}{'**' * (of[count] is best)} "
            f"({of[count].fit_shots:,})"
            for count in counts
        ]
        text.append(f"| {recipe} | {device} | {' | '.join(cells)} |")
    return "\n".join(text)


def drift_text(rows: Sequence[DriftRow]) -> str:
    """Return what an old map brings: a device and day a row."""
    heads = "| device | day | exact | as measured | map of day 0 | map of the day | agreement | "
    text = [heads + "measure again | moved |", "|---|--:|--:|--:|--:|--:|--:|--:|--:|"]
    for device in dict.fromkeys(row.device for row in rows):
        for line in drift_summary([row for row in rows if row.device == device]):
            text.append(f"| {device} | {line['day']} | {_percents(line)} |")
    return "\n".join(text)


def short_table(rows: Sequence[Row]) -> str:
    """Return the short table of docs/noise.md: a device a row, a recipe a column."""
    table, text = by_key(rows), []
    recipes = [name for name in dict.fromkeys(row.recipe for row in rows) if "quantum" not in name]
    for device in dict.fromkeys(device for recipe, device in places(rows) if recipe in recipes):
        cells = []
        for recipe in recipes:
            of = partial(_clean_row, table, recipe, device, 0)
            usual, exact = of("affine", USUAL), of("exact")
            cells.append(f"{_mean(of('none'))} → **{_mean(usual)}** of {_mean(exact)}")
        text.append(f"| `{device}` | {' | '.join(cells)} |")
    return "\n".join(text)


def _percents(line: Mapping[str, object]) -> str:
    names = ("exact", "measured", "stale", "fresh", "agreement", "again", "moved")
    return " | ".join(f"{100 * float(str(line[name])):.1f}" for name in names)


def _mean(row: Row) -> str:
    return f"{row.accuracies.mean():.1f}"


def _clean_row(
    table: Mapping[Key, Row], recipe: str, device: str, shots: int, method: str, images: int = 0
) -> Row:
    return table[recipe, "clean", device, shots, method, images, shots if images else 0]


def _shares(row: Row) -> list[float]:
    shares: list[float] = (row.accuracies / 100).tolist()
    return shares


def main() -> None:
    argparse.ArgumentParser(description=__doc__.splitlines()[0]).parse_args()
    rows, budget = (read_rows(RESULTS / name) for name in (TABLE, BUDGET))
    for shots in (0, 1024):
        taken = f"{shots or 'no'} shots"
        print(f"\nhybrid, {taken}\n\n{grid_table(rows, shots=shots, quantum=False)}")
        print(f"\nfully quantum, {taken}\n\n{grid_table(rows, shots=shots, quantum=True)}")
        print(f"\ntrained through the noise, {taken}\n\n{trained_table(rows, shots=shots)}")
    print(f"\nbetter than affine\n\n{better_table(rows)}")
    print(f"\n{BUDGET_S:g} QPU seconds\n\n{budget_table(budget)}")
    print(f"\ndrift\n\n{drift_text(read_drift(RESULTS / DRIFT))}")
    print(f"\ndocs/noise.md\n\n{short_table(rows)}")


if __name__ == "__main__":
    main()
