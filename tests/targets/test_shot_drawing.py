"""Shots drawn from known probabilities: statistics of a multinomial, and nothing between rows."""

import numpy as np
import pytest
from scipy import stats

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.shot_drawing import (
    clean_probabilities,
    draw_counts,
    draw_outcomes,
)

ROW = np.array([0.5, 0.3, 0.15, 0.05])


def stream(seed=0):
    return np.random.default_rng(seed)


def test_rounding_errors_are_taken_out():
    rows = clean_probabilities(np.array([[0.5, 0.5 + 2e-9, -1e-9, 0.0], [0.2, 0.2, 0.2, 0.2]]))
    assert rows.dtype == np.float64
    assert (rows >= 0).all()
    np.testing.assert_allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-15)
    np.testing.assert_allclose(rows[1], 0.25)
    assert rows[0, 2] == 0


def test_a_batch_in_parts_gives_the_counts_of_the_whole():
    rows = clean_probabilities(stream(1).random((40, 8)))
    whole, rng = draw_counts(rows, 500, rng=stream()), stream()
    parts = [draw_counts(part, 500, rng=rng) for part in np.split(rows, [1, 7, 30])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert (whole.sum(axis=1) == 500).all()


def test_means_variances_and_covariances_are_those_of_a_multinomial():
    shots, batch = 200, 40_000
    counts = draw_counts(np.tile(ROW, (batch, 1)), shots, rng=stream(2))
    expected = shots * (np.diag(ROW) - np.outer(ROW, ROW))
    np.testing.assert_allclose(counts.mean(axis=0), shots * ROW, atol=5 * 7 / batch**0.5)
    np.testing.assert_allclose(np.cov(counts.T), expected, rtol=0.05, atol=0.4)
    assert stats.chisquare(counts.sum(axis=0), shots * batch * ROW).pvalue > 1e-3


def test_rows_have_no_correlation():
    counts = draw_counts(np.tile(ROW, (40_000, 1)), 200, rng=stream(3))
    for gap in (1, 2, 50):
        for column in range(4):
            first, later = counts[:-gap, column], counts[gap:, column]
            assert abs(stats.pearsonr(first, later).statistic) < 4.5 / len(first) ** 0.5


def test_outcomes_are_the_counts_in_random_order():
    rows = np.tile(ROW, (3, 1))
    outcomes = draw_outcomes(rows, 1000, rng=stream(4))
    counts = draw_counts(rows, 1000, rng=stream(4))
    for row, count in zip(outcomes, counts, strict=True):
        np.testing.assert_array_equal(np.bincount(row, minlength=4), count)
    # The halves of a row are alike: no outcome is gathered at its begin.
    halves = [np.bincount(half, minlength=4) for half in np.split(outcomes[0], 2)]
    assert stats.chi2_contingency(halves).pvalue > 1e-3


def test_more_shots_than_can_be_counted_are_refused():
    with pytest.raises(TargetError, match="accepted are whole numbers up to"):
        draw_counts(ROW[None], 2**53 + 1, rng=stream())
