"""Statistics of paired seeds: intervals, tests, effect sizes and how many seeds a gain needs.

Values are one per seed; accuracies are fractions, gains are points (100 x a difference).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy import special

from qkd_qiskit.recipe.seeds import derive_seed

LEVEL = 0.05  # of Holm's p, below which a conclusion is drawn
LEAST_PAIRS = 5  # with fewer, the spread itself is hardly known
CONFIDENCE = 0.95
POWER = 0.8
PLANNED_GAINS = (0.5, 1.0, 2.0)  # points
_RESAMPLES = 9999
_LEAST_FOR_BOOTSTRAP = 3  # resamples of two pairs are three values
_MOST_SEEDS = 100_000
_ROUNDING = 1e-9
_NODES = 400


@dataclass(frozen=True, kw_only=True)
class Gain:
    """What one arm gains over another, from pairs of students with the same seed.

    Attributes:
        mean: Mean difference of accuracy in points; None without pairs.
        ci95: Ends of its 95 % t interval in points; None below two pairs.
        seeds: Number of pairs.
        left_out: Seeds at which a student of the pair failed to train.
    """

    mean: float | None
    ci95: tuple[float, float] | None
    seeds: int
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairedTest:
    """What paired accuracies show; each is None where there are too few pairs or no spread for it.

    Attributes:
        mean: Mean difference in points.
        ci95: Ends of its 95 % t interval in points.
        seeds: Number of pairs.
        bootstrap95: Ends of its bias-corrected and accelerated bootstrap interval in points.
        p: Of the paired t test, two-sided.
        effect: Cohen's d_z.
        detectable: Gain in points that these pairs tell from zero with a power of 0.8.
        seeds_needed: Number of seeds by planned gain in points.
    """

    mean: float | None
    ci95: tuple[float, float] | None
    seeds: int
    bootstrap95: tuple[float, float] | None
    p: float | None
    effect: float | None
    detectable: float | None
    seeds_needed: Mapping[str, int | None]


def mean_interval(values: Sequence[float]) -> tuple[float, float | None]:
    """Return the mean of the seeds' values, and half of its 95 % t interval (None below two)."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, None
    quantile = _critical_t(count)
    return mean, quantile * _spread(values) / math.sqrt(count)


def paired_gain(
    treated: Sequence[float], baseline: Sequence[float], *, left_out: Sequence[str] = ()
) -> Gain:
    """Return the mean difference of paired accuracies, in points, with a 95 % t interval.

    Args:
        treated: Accuracies as fractions, one for each seed.
        baseline: Accuracies of the same seeds.
        left_out: Seeds that have no pair.

    Example:
        >>> gain = paired_gain([0.92, 0.94, 0.93], [0.88, 0.91, 0.88])
        >>> round(gain.mean, 2), [round(end, 2) for end in gain.ci95]
        (4.0, [1.52, 6.48])
    """
    points = differences(treated, baseline)
    if not points:
        return Gain(mean=None, ci95=None, seeds=0, left_out=tuple(left_out))
    mean, half = mean_interval(points)
    interval = None if half is None else (mean - half, mean + half)
    return Gain(mean=mean, ci95=interval, seeds=len(points), left_out=tuple(left_out))


def compare(treated: Sequence[float], baseline: Sequence[float]) -> PairedTest:
    """Return the gain of paired accuracies with its tests; arguments as for `paired_gain`.

    Example:
        >>> test = compare([0.92, 0.94, 0.93, 0.93], [0.88, 0.91, 0.88, 0.90])
        >>> round(test.p, 4), test.seeds_needed["2"]
        (0.0043, 5)
    """
    points, gain = differences(treated, baseline), paired_gain(treated, baseline)
    return PairedTest(
        mean=gain.mean,
        ci95=gain.ci95,
        seeds=gain.seeds,
        bootstrap95=bootstrap_interval(points),
        p=paired_p(points),
        effect=effect_size(points),
        detectable=detectable_gain(points),
        seeds_needed={
            f"{planned:g}": seeds_needed(points, gain=planned) for planned in PLANNED_GAINS
        },
    )


def differences(treated: Sequence[float], baseline: Sequence[float]) -> list[float]:
    """Return the differences of paired accuracies in points; a pair without both has none.

    Raises:
        ValueError: They are not as many.
    """
    pairs = zip(treated, baseline, strict=True)
    return [100 * (a - b) for a, b in pairs if math.isfinite(a) and math.isfinite(b)]


def bootstrap_interval(points: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval of the mean (bias-corrected, accelerated), reproducible.

    Efron, "Better bootstrap confidence intervals", JASA 82 (1987) 171. None below three values.
    """
    if len(points) < _LEAST_FOR_BOOTSTRAP:
        return None
    if _spread(points) == 0:
        return points[0], points[0]
    values = np.asarray(points, dtype=np.float64)
    count, rng = len(values), np.random.default_rng(derive_seed(0, "bootstrap"))
    means = values[rng.integers(0, count, (_RESAMPLES, count))].mean(axis=1)
    centre = values.mean()
    below = (np.count_nonzero(means < centre) + np.count_nonzero(means <= centre)) / 2
    bias = special.ndtri(below / _RESAMPLES)
    without = values[[[k for k in range(count) if k != left] for left in range(count)]].mean(axis=1)
    pulls = without.mean() - without
    acceleration = (pulls**3).sum() / (pulls**2).sum() ** 1.5 / 6
    reach = special.ndtri([0.5 - CONFIDENCE / 2, 0.5 + CONFIDENCE / 2]) + bias
    low, high = np.quantile(means, special.ndtr(bias + reach / (1 - acceleration * reach)))
    return float(low), float(high)


def paired_p(points: Sequence[float]) -> float | None:
    """Return the two-sided p value of the paired t test; 1 where all differences are 0.

    None below two pairs, and where all differences are the same but not 0: there is no spread to
    hold them against.
    """
    if len(points) < 2:
        return None
    if _spread(points) == 0:
        return 1.0 if abs(points[0]) < _ROUNDING else None
    mean, error = math.fsum(points) / len(points), _spread(points) / math.sqrt(len(points))
    return _two_sided_p(mean / error, len(points) - 1)


def welch(
    treated: Sequence[float], baseline: Sequence[float]
) -> tuple[float | None, tuple[float, float] | None, float | None]:
    """Return the difference of unpaired accuracies in points: mean, 95 % interval and p.

    Welch, "The generalization of Student's problem when several different population variances are
    involved", Biometrika 34 (1947) 28. The mean is None without accuracies on one side, interval
    and p below two on one side, and where neither side has a spread.
    """
    if not treated or not baseline:
        return None, None, None
    sides = [[100 * value for value in values] for values in (treated, baseline)]
    mean = math.fsum(sides[0]) / len(sides[0]) - math.fsum(sides[1]) / len(sides[1])
    if min(map(len, sides)) < 2 or not any(_spread(values) for values in sides):
        return mean, None, None
    variances = [_spread(values) ** 2 / len(values) for values in sides]
    freedom = sum(variances) ** 2 / sum(
        variance**2 / (len(values) - 1) for variance, values in zip(variances, sides, strict=True)
    )
    error = math.sqrt(sum(variances))
    half = error * float(special.stdtrit(freedom, 0.5 + CONFIDENCE / 2))
    return mean, (mean - half, mean + half), _two_sided_p(mean / error, freedom)


def effect_size(points: Sequence[float]) -> float | None:
    """Return Cohen's d_z: the mean difference over the standard deviation of the differences.

    Cohen, "Statistical power analysis for the behavioral sciences" (1988), section 2.3.5.
    """
    if len(points) < 2 or _spread(points) == 0:
        return None
    return math.fsum(points) / len(points) / _spread(points)


def seeds_needed(points: Sequence[float], *, gain: float) -> int | None:
    """Return how many paired seeds tell a gain (points) from zero, with the spread of these pairs.

    For a two-sided paired t test at 5 % with a power of 0.8; None without a spread, and above
    100,000.

    Example:
        >>> seeds_needed([4.0, 3.0, 5.0, 3.0], gain=2.0)
        5
    """
    if len(points) < 2 or _spread(points) == 0:
        return None
    return seeds_for_effect(gain / _spread(points))


def seeds_for_effect(effect: float) -> int | None:
    """Return how many paired seeds tell an effect (Cohen's d_z) from zero, as `seeds_needed`."""
    low, high = 1, 2
    while _power(abs(effect), high) < POWER:
        low, high = high, 2 * high
        if high > _MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        enough = _power(abs(effect), middle) >= POWER
        low, high = (low, middle) if enough else (middle, high)
    return high


def detectable_gain(points: Sequence[float]) -> float | None:
    """Return the gain (points) that as many pairs of this spread tell from zero at power 0.8."""
    if len(points) < 2 or _spread(points) == 0:
        return None
    low, high = 0.0, 1.0
    while _power(high, len(points)) < POWER:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if _power(middle, len(points)) >= POWER else (middle, high)
    return high * _spread(points)


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method.

    Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6 (1979) 65.

    Example:
        >>> [round(p, 3) for p in holm([0.01, 0.04, 0.03])]
        [0.03, 0.06, 0.06]
    """
    given = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(given)
    # The smallest times their number, the next times one less, ...; none below one before it.
    steps = np.maximum.accumulate(given[order] * np.arange(len(given), 0, -1))
    corrected = np.empty_like(given)
    corrected[order] = np.minimum(steps, 1.0)
    return [float(value) for value in corrected]


def _power(effect: float, seeds: int) -> float:
    """Return the power of the two-sided paired t test at 5 %, to 1e-6.

    Summed over what the spread may come out as. The same from scipy's noncentral t distribution is
    NaN at many places, among them 2 pairs at an effect of 6.
    """
    critical, weights = _critical_effects(seeds)
    centre = effect * math.sqrt(seeds)
    return float(weights @ (special.ndtr(centre - critical) + special.ndtr(-centre - critical)))


def _two_sided_p(t: float, freedom: float) -> float:
    """Return the probability of a t at least so far from zero."""
    return 2 * float(special.stdtr(freedom, -abs(t)))


def _critical_t(count: int) -> float:
    """Return the quantile of a 95 % t interval from so many values."""
    return float(special.stdtrit(count - 1, 0.5 + CONFIDENCE / 2))


@cache
def _legendre() -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return Gauss-Legendre nodes and weights on 0 to 1, ascending, to 1e-15.

    By Newton's method from Tricomi's approximation of the roots: as eigenvalues, where numpy finds
    them, they take half a second.
    """
    angles = math.pi * (np.arange(_NODES, 0, -1) - 0.25) / (_NODES + 0.5)
    nodes = (1 - (_NODES - 1) / (8 * _NODES**3)) * np.cos(angles)
    for _ in range(3):
        below, value = np.ones(_NODES), nodes
        for degree in range(2, _NODES + 1):
            below, value = value, ((2 * degree - 1) * nodes * value - (degree - 1) * below) / degree
        slope = _NODES * (nodes * value - below) / (nodes**2 - 1)
        nodes = nodes - value / slope
    weights = 2 / ((1 - nodes**2) * slope**2)
    return (nodes + 1) / 2, weights / 2


@cache
def _critical_effects(seeds: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the mean over its true standard error from which p is below 5 %, and weights.

    Both at `_NODES` spreads.
    """
    nodes, weights = _legendre()
    chi_squared = 2 * special.gammaincinv((seeds - 1) / 2, nodes)
    return _critical_t(seeds) * np.sqrt(chi_squared / (seeds - 1)), weights


def _spread(values: Sequence[float]) -> float:
    """Return the standard deviation with n - 1; exactly 0 where values differ by rounding alone."""
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    return 0.0 if spread < _ROUNDING else spread
