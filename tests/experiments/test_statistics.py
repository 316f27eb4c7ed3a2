"""Statistics of paired seeds, against hand figures, tables and scipy."""

import math

import numpy as np
import pytest
from scipy import stats

from qkd_qiskit.experiments import statistics
from qkd_qiskit.experiments.statistics import (
    Gain,
    _power,
    bootstrap_interval,
    compare,
    detectable_gain,
    differences,
    effect_size,
    holm,
    mean_interval,
    paired_gain,
    paired_p,
    seeds_needed,
    welch,
)
from qkd_qiskit.recipe.seeds import derive_seed


@pytest.fixture
def pairs():
    random = np.random.default_rng(3)
    baseline = 0.8 + 0.02 * random.standard_normal(20)
    return baseline + 0.01 + 0.01 * random.standard_normal(20), baseline


def test_interval_and_p_are_those_of_the_paired_t_test(pairs):
    treated, baseline = pairs
    expected = stats.ttest_rel(treated, baseline)
    low, high = expected.confidence_interval(0.95)
    gain = paired_gain(treated.tolist(), baseline.tolist())
    assert gain.ci95 == pytest.approx([100 * low, 100 * high])
    assert gain.mean == pytest.approx(100 * np.mean(treated - baseline))
    found = paired_p(differences(treated.tolist(), baseline.tolist()))
    assert found == pytest.approx(expected.pvalue)


def test_swapping_the_arms_changes_the_sign_alone(pairs):
    one, other = (compare(*arms) for arms in ([*pairs], [*pairs][::-1]))
    assert other.mean == pytest.approx(-one.mean)
    assert other.ci95 == pytest.approx([-end for end in one.ci95[::-1]])
    assert other.effect == pytest.approx(-one.effect)
    for key in ("p", "detectable", "seeds_needed"):
        assert getattr(other, key) == pytest.approx(getattr(one, key))


def test_holm_by_hand():
    # Holm's own procedure: 0.01 x 4, then the running largest of 0.02 x 3, 0.03 x 2, 0.04 x 1.
    assert holm([0.03, 0.01, 0.04, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_effect_size_by_hand():
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2.0)  # mean 2, standard deviation 1


@pytest.mark.parametrize(("effect", "seeds"), [(0.2, 199), (0.5, 34), (0.8, 15)])
def test_seeds_needed_are_those_of_the_tables(effect, seeds):
    """Two-sided paired t test at 5 % and a power of 0.8, as G*Power gives them."""
    points = [-1.0, 0.0, 1.0]  # a standard deviation of 1
    assert seeds_needed(points, gain=effect) == seeds
    assert seeds_needed(points, gain=-effect) == seeds
    many = [math.sqrt((seeds - 1) / seeds) * sign for sign in (1, -1) * (seeds // 2)]
    if len(many) == seeds:
        assert detectable_gain(many) == pytest.approx(effect, rel=0.02)


@pytest.mark.parametrize("seeds", [2, 3, 4, 8, 20])
@pytest.mark.parametrize("effect", [0.1, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0])
def test_power_is_that_of_the_noncentral_t_where_it_is_known(effect, seeds):
    degrees, centre = seeds - 1, effect * math.sqrt(seeds)
    edge = stats.t.ppf(0.975, degrees)
    with np.errstate(all="ignore"):
        known = stats.nct.sf(edge, degrees, centre) + stats.nct.cdf(-edge, degrees, centre)
    found = _power(effect, seeds)
    assert 0 <= found <= 1 + 1e-12
    if not math.isnan(known):
        assert found == pytest.approx(known, abs=1e-5)


def test_few_pairs_need_large_gains():
    """With one degree of freedom |T| > 12.7 in 80 % of cases: numbers of a direct integral."""
    points = [-1.0, 1.0]
    spread = math.sqrt(2)
    assert detectable_gain(points) == pytest.approx(11.547 * spread, rel=1e-3)
    assert seeds_needed(points, gain=8 * spread) == 3  # two have a power of 0.63
    assert seeds_needed(points, gain=10 * spread) == 3
    assert seeds_needed(points, gain=12 * spread) == 2


def test_the_bootstrap_agrees_with_t_on_normal_values_and_repeats(pairs):
    points = differences(*(arm.tolist() for arm in pairs))
    low, high = bootstrap_interval(points)
    mean, half = mean_interval(points)
    assert [low, high] == pytest.approx([mean - half, mean + half], abs=0.25 * half)
    assert bootstrap_interval(points) == (low, high)


def test_what_cannot_be_said_is_none():
    assert compare([], []).mean is None
    alone = compare([0.5], [0.25])
    for key in ("ci95", "bootstrap95", "p", "effect", "detectable"):
        assert getattr(alone, key) is None
    equal = compare([0.5, 0.25, 0.75], [0.5, 0.25, 0.75])
    assert (equal.mean, equal.p, equal.effect) == (0, 1.0, None)
    assert equal.bootstrap95 == (0, 0)
    # All gain the same: no spread to hold it against, whatever rounding leaves.
    same = compare([0.5, 0.6, 0.7], [0.4, 0.5, 0.6])
    assert (same.p, same.effect) == (None, None)
    assert seeds_needed([-1.0, 1.0], gain=1e-6) is None
    with pytest.raises(ValueError, match="shorter"):
        differences([0.5], [])


def test_few_pairs_have_no_interval():
    assert paired_gain([], []) == Gain(mean=None, ci95=None, seeds=0)
    assert paired_gain([0.5], [0.25]) == Gain(mean=25.0, ci95=None, seeds=1)
    assert paired_gain([0.5, 0.6], [0.4, 0.5]).ci95 == pytest.approx((10, 10))
    with pytest.raises(ValueError, match="zip"):
        paired_gain([0.5], [])


def test_accuracies_that_are_no_numbers_are_no_pair():
    gain = paired_gain([0.6, math.nan, 0.7], [0.5, 0.5, 0.5])
    assert gain.seeds == 2
    assert gain.mean == pytest.approx(15)
    assert paired_gain([math.nan], [0.5]).mean is None


@pytest.mark.parametrize("count", [3, 5, 12])
def test_intervals_and_tests_are_those_of_scipy(count):
    rng = np.random.default_rng(count)
    points = (rng.normal(1, 2, count)).tolist()
    resampled = stats.bootstrap(
        (np.asarray(points),),
        np.mean,
        n_resamples=9999,
        method="BCa",
        rng=np.random.default_rng(derive_seed(0, "bootstrap")),
    )
    assert bootstrap_interval(points) == pytest.approx(tuple(resampled.confidence_interval))
    assert paired_p(points) == pytest.approx(stats.ttest_1samp(points, 0.0).pvalue, rel=1e-12)
    others = rng.normal(0, 1, count + 2).tolist()
    test = stats.ttest_ind(points, others, equal_var=False)
    mean, interval, p = welch([v / 100 for v in points], [v / 100 for v in others])
    assert mean == pytest.approx(np.mean(points) - np.mean(others))
    assert interval == pytest.approx(tuple(test.confidence_interval()), rel=1e-12)
    assert p == pytest.approx(test.pvalue, rel=1e-12)


def test_the_nodes_are_those_of_numpy():
    nodes, weights = statistics._legendre()
    expected, their_weights = np.polynomial.legendre.leggauss(len(nodes))
    np.testing.assert_allclose(2 * nodes - 1, expected, atol=1e-15)
    np.testing.assert_allclose(2 * weights, their_weights, rtol=1e-9)  # theirs err by so much
    assert weights.sum() == pytest.approx(1, abs=1e-14)
