"""The variance of a gain, its parts, and the coverage of the intervals that follow from it."""

import numpy as np
import pytest
from scipy import stats

from qkd_qiskit.experiments.gain_variance import GainVariance, gain_variance
from qkd_qiskit.experiments.statistics import paired_gain


def made(*, seeds=400, images=300, of_seeds=0.02, of_images=0.06, both=0.05, gain=0.04, rng=0):
    """Probabilities of both arms whose gain has known parts."""
    rng = np.random.default_rng(rng)
    scatter = (
        gain
        + of_seeds * rng.standard_normal((seeds, 1))
        + of_images * rng.standard_normal((1, images))
        + both * rng.standard_normal((seeds, images))
    )
    baseline = np.full((seeds, images), 0.5)
    return (baseline + scatter).clip(0, 1), baseline


def test_known_parts_are_found():
    found = gain_variance(*made())
    assert found.mean == pytest.approx(0.04, abs=0.01)
    assert found.both == pytest.approx(0.05**2, rel=0.05)
    assert found.images == pytest.approx(0.06**2, rel=0.25)
    # That of a seed over the images that there are.
    assert found.seeds == pytest.approx(0.02**2 + 0.05**2 / 300, rel=0.2)
    assert found.shots == pytest.approx(0.5, rel=0.05)
    assert found.pool == 300


def test_half_width_by_hand():
    variance = GainVariance(mean=0.05, seeds=1e-4, images=4e-3, both=9e-3, shots=0.2, pool=600)
    of_seeds = (1e-4 + 9e-3 * (1 / 200 - 1 / 600) + 0.2 / 200) / 5
    images = 4e-3 * (1 / 200 - 1 / 600)
    expected = np.sqrt(stats.t.ppf(0.975, 4) ** 2 * of_seeds + 1.959964**2 * images)
    assert variance.half_width(seeds=5, images=200) == pytest.approx(expected)
    whole = stats.t.ppf(0.975, 4) * np.sqrt((1e-4 + 0.2 / 600) / 5)
    assert variance.half_width(seeds=5, images=600) == pytest.approx(whole)


def test_what_a_few_seeds_leave_open():
    variance = GainVariance(mean=0.05, seeds=1e-4, images=0.0, both=0.0, shots=0.2, pool=600)
    low, high = variance.seeds_spread(3)
    ends = [0.01 * np.sqrt(2 / stats.chi2.ppf(level, 2)) for level in (0.975, 0.025)]
    assert (low, high) == (pytest.approx(ends[0]), pytest.approx(ends[1]))


@pytest.mark.parametrize("change", [{"seeds": 6}, {"images": 250}])
def test_more_of_anything_is_narrower(change):
    variance = GainVariance(mean=0.05, seeds=1e-4, images=4e-3, both=9e-3, shots=0.2, pool=600)
    less = {"seeds": 5, "images": 200}
    assert variance.half_width(**less | change) < variance.half_width(**less)


def test_without_scatter_there_is_none():
    right = np.ones((3, 7))
    variance = gain_variance(right, 0 * right)
    assert variance.mean == 1.0
    assert variance.half_width(seeds=3, images=7) == 0.0


@pytest.mark.parametrize(("seeds", "images"), [(3, 300), (8, 300), (8, 120)])
def test_reported_intervals_cover_and_are_as_wide_as_planned(seeds, images):
    """500 measurements of seeds drawn from many: hits of both arms on images, then the t interval.

    What is planned for a part of the images is wider than what is reported: of other images.
    """
    treated, baseline = made(of_images=0.03, rng=1)
    pool = (treated - baseline).mean()
    rng, covered, widths, planned = np.random.default_rng(2), [], [], []
    for _ in range(500):
        chosen = rng.integers(len(treated), size=seeds)
        part = rng.choice(treated.shape[1], size=images, replace=False)
        hits = [
            rng.random((seeds, images)) < arm[np.ix_(chosen, part)] for arm in (treated, baseline)
        ]
        gain = paired_gain(*(it.mean(axis=1).tolist() for it in hits))
        low, high = gain.ci95
        covered.append(low <= 100 * pool <= high)
        widths.append(((high - low) / 2) ** 2)
    planned = 100 * gain_variance(treated, baseline).half_width(seeds=seeds, images=images)
    assert 0.92 <= np.mean(covered) <= 0.98
    assert np.sqrt(np.mean(widths)) == pytest.approx(planned, rel=0.1)
