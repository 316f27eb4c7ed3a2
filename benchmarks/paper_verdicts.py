"""What the runs of version 1 say: a verdict for every published cell, and the controls."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from paper_v1 import CELLS, Cell
from paper_v1.study import STEADIEST, Row

from qkd_qiskit.experiments.statistics import compare, holm

ALPHA = 0.9  # of the published runs, as far as is known


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two arms of a cell, in points with 95 % t intervals over paired seeds.

    Attributes:
        cell: Name of the cell.
        arm: What is compared.
        baseline: With what.
        published_gain: The published gain of this cell, None where the comparison is ours alone.
        flaw: What is wrong with the published gain: no-op, head or nothing.
        seeds: Paired seeds.
        pairs: Those of them in which neither run failed.
        failed: Failed runs of the arm, and of its baseline.
        arm_accuracy: Mean test accuracy of the sound protocol, in percent.
        baseline_accuracy: The baseline's.
        gain: All test images, epoch chosen on validation: the sound protocol.
        low: Lower end of its interval.
        high: Upper end.
        all_gain: The same over all pairs, failed runs included.
        all_low: Lower end of its interval.
        all_high: Upper end.
        effect: Cohen's d_z.
        p: Two-sided, of the paired t test.
        p_holm: The same after Holm's correction over the comparisons of the table.
        detectable: The gain that so many pairs would have told from zero with a power of 0.8.
        subset_gain: The published protocol: best epoch on the test subset itself, failed runs too.
        subset_low: Lower end of its interval.
        subset_high: Upper end.
        chance: Share of all ordered pairs of label-only runs of which one is better than the other
            by at least the published gain (worse, where that is negative).
        chance_trained: The same of the runs that did not fail.
    """

    cell: str
    arm: str
    baseline: str
    published_gain: float | None
    flaw: str
    seeds: int
    pairs: int
    failed: tuple[int, int]
    arm_accuracy: float
    baseline_accuracy: float
    gain: float
    low: float
    high: float
    all_gain: float
    all_low: float
    all_high: float
    effect: float
    p: float
    p_holm: float
    detectable: float
    subset_gain: float
    subset_low: float
    subset_high: float
    chance: float | None
    chance_trained: float | None

    @property
    def verdict(self) -> str:
        """What the sound protocol says, after Holm's correction."""
        if self.p_holm < 0.05:
            return "gain" if self.gain > 0 else "harm"
        return "none seen"


def comparisons(rows: Sequence[Row]) -> list[Comparison]:
    """Every published cell that was run, corrected together, then the controls, likewise."""
    published, controls = [], []
    for cell in CELLS:
        arms = {row.arm for row in rows if row.cell == cell.name}
        for teacher, gain in cell.gains.items():
            arm = f"distilled_{teacher}_{ALPHA}"
            if arm in arms:
                found = _compare(rows, cell, arm, "label_only")
                published.append(
                    replace(
                        found,
                        published_gain=cell.gain(teacher),
                        flaw=gain.flaw,
                        chance=_chance(rows, cell, cell.gain(teacher)),
                        chance_trained=_chance(
                            [row for row in rows if not row.failed], cell, cell.gain(teacher)
                        ),
                    )
                )
        for arm, baseline in _control_pairs(arms):
            controls.append(_compare(rows, cell, arm, baseline))
    return _corrected(published) + _corrected(controls)


@dataclass(frozen=True, kw_only=True)
class Mean:
    """What the paper claims: the mean gain over the nine cells of a data set, in points.

    Attributes:
        dataset: mnist or fashion_mnist.
        arms: What is compared, with * for the teacher.
        baseline: With what.
        cells: Cells that were run; of an arm without a teacher one for each student.
        seeds: Paired seeds; a seed's gain is its mean over the cells, failed runs included.
        published: The published mean over these cells; NaN for an arm that is ours alone.
        subset_gain: Ours, published protocol.
        subset_low: Lower end of its 95 % t interval.
        subset_high: Upper end.
        gain: Ours, sound protocol.
        low: Lower end of its interval.
        high: Upper end.
        p: Two-sided, of the paired t test of `gain`.
    """

    dataset: str
    arms: str
    baseline: str
    cells: int
    seeds: int
    published: float
    subset_gain: float
    subset_low: float
    subset_high: float
    gain: float
    low: float
    high: float
    p: float


def means(rows: Sequence[Row]) -> list[Mean]:
    """The mean gains of each data set: as published, of no change, where most runs train."""
    return [
        found
        for arm, baseline in (
            (f"distilled_{{}}_{ALPHA}", "label_only"),
            ("replicate", "label_only"),
            (f"distilled_{{}}_{ALPHA}_{STEADIEST}", f"label_only_{STEADIEST}"),
        )
        for dataset in dict.fromkeys(cell.dataset for cell in CELLS)
        if (found := _mean_gain(rows, dataset, arms=arm, plain=baseline)) is not None
    ]


def _mean_gain(rows: Sequence[Row], dataset: str, *, arms: str, plain: str) -> Mean | None:
    """Over the cells that were run; `arms` has {} where a name has its teacher."""
    runs = {(row.cell, row.arm, row.seed): row for row in rows}
    known = {(row.cell, row.arm) for row in rows}
    pairs = [
        (cell, arm)
        for cell in CELLS
        for arm in dict.fromkeys(arms.format(teacher) for teacher in cell.gains)
        if cell.dataset == dataset and (cell.name, arm) in known
    ]
    seeds = [
        seed
        for seed in sorted({row.seed for row in rows})
        if all({(c.name, arm, seed), (c.name, plain, seed)} <= runs.keys() for c, arm in pairs)
    ]
    if not pairs or len(seeds) < 2:
        return None

    def compared(figure: Callable[[Row], float]) -> dict[str, Any]:
        return compare(
            [_mean([figure(runs[cell.name, arm, s]) for cell, arm in pairs]) for s in seeds],
            [_mean([figure(runs[cell.name, plain, s]) for cell, _ in pairs]) for s in seeds],
        )

    subset, sound = compared(lambda row: row.published), compared(lambda row: row.test)
    return Mean(
        dataset=dataset,
        arms=arms.format("*"),
        baseline=plain,
        cells=len(pairs),
        seeds=len(seeds),
        published=_mean([gain for cell, arm in pairs for gain in _published(cell, arm)]),
        subset_gain=subset.mean,
        subset_low=subset.ci95[0],
        subset_high=subset.ci95[1],
        gain=sound.mean,
        low=sound.ci95[0],
        high=sound.ci95[1],
        p=sound.p,
    )


def _published(cell: Cell, arm: str) -> list[float]:
    return [cell.gain(teacher) for teacher in cell.gains if f"_{teacher}_" in arm]


def _control_pairs(arms: set[str]) -> list[tuple[str, str]]:
    pairs = [
        (arm, baseline_of(arm))
        for arm in sorted(arms)
        if arm != "label_only" and not (arm.startswith("distilled_") and arm.endswith(f"_{ALPHA}"))
    ]
    return [(arm, baseline) for arm, baseline in pairs if baseline in arms]


def _compare(rows: Sequence[Row], cell: Cell, arm: str, baseline: str) -> Comparison:
    treated, plain = (
        {row.seed: row for row in rows if (row.cell, row.arm) == (cell.name, name)}
        for name in (arm, baseline)
    )
    seeds = sorted(treated.keys() & plain.keys())
    kept = [seed for seed in seeds if not (treated[seed].failed or plain[seed].failed)]
    sound = compare([treated[s].test for s in kept], [plain[s].test for s in kept])
    subset = compare([treated[s].published for s in seeds], [plain[s].published for s in seeds])
    everyone = compare([treated[s].test for s in seeds], [plain[s].test for s in seeds])
    low, high = sound.ci95 or (math.nan, math.nan)
    all_low, all_high = everyone.ci95 or (math.nan, math.nan)
    subset_low, subset_high = subset.ci95 or (math.nan, math.nan)
    return Comparison(
        cell=cell.name,
        arm=arm,
        baseline=baseline,
        published_gain=None,
        flaw="",
        seeds=len(seeds),
        pairs=len(kept),
        failed=(
            sum(treated[s].failed for s in seeds),
            sum(plain[s].failed for s in seeds),
        ),
        arm_accuracy=_mean([100 * treated[s].test for s in kept]),
        baseline_accuracy=_mean([100 * plain[s].test for s in kept]),
        gain=sound.mean if kept else math.nan,
        low=low,
        high=high,
        all_gain=everyone.mean,
        all_low=all_low,
        all_high=all_high,
        effect=_number(sound.effect),
        p=_number(sound.p),
        p_holm=math.nan,
        detectable=_number(sound["detectable"]),
        subset_gain=subset.mean,
        subset_low=subset_low,
        subset_high=subset_high,
        chance=None,
        chance_trained=None,
    )


def _chance(rows: Sequence[Row], cell: Cell, gain: float) -> float:
    """How often two label-only runs differ by a published gain: all ordered pairs of seeds."""
    name = "label_only_softmax" if cell.baseline_head == "softmax" else "label_only"
    runs = np.array([100 * r.published for r in rows if (r.cell, r.arm) == (cell.name, name)])
    if len(runs) < 2:
        return math.nan
    apart = (runs[:, None] - runs[None, :])[~np.eye(len(runs), dtype=bool)]
    # Counts of right images: the published gain itself is one of the steps, to rounding.
    return float((apart >= gain - 0.01).mean() if gain >= 0 else (apart <= gain + 0.01).mean())


def baseline_of(arm: str) -> str:
    """The arm that a control is paired with."""
    if arm == "label_only_softmax" or arm.startswith("label_only_") or arm == "replicate":
        return "label_only"
    word = arm.split(f"_{ALPHA}_")[-1] if f"_{ALPHA}_" in arm else ""
    return f"label_only_{word}" if word else "label_only"


def _corrected(found: list[Comparison]) -> list[Comparison]:
    known = [one for one in found if not math.isnan(one.p)]
    corrected = dict(zip(map(id, known), holm([one.p for one in known]), strict=True))
    return [replace(one, p_holm=corrected.get(id(one), math.nan)) for one in found]


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _number(value: float | None) -> float:
    return math.nan if value is None else value
