"""The map from measured to exact outputs: what it must give back, and what it says of itself."""

import numpy as np
import pytest

from qkd_qiskit.errors import InputError
from qkd_qiskit.targets.recalibration import FEWEST, fit_map


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def affine_data(rng, *, images=40, outputs=5, noise=0.0):
    exact = rng.normal(size=(images, outputs))
    mixing = np.eye(outputs) * 0.3 + 0.05 * rng.normal(size=(outputs, outputs))
    measured = exact @ mixing + rng.normal(size=outputs)
    return measured + noise * rng.normal(size=measured.shape), exact


def test_what_an_affine_map_did_is_undone(rng):
    measured, exact = affine_data(rng)
    fit = fit_map(measured[:12], exact[:12])
    assert fit.map(measured) == pytest.approx(exact, abs=1e-8)
    assert fit.held_out == pytest.approx(exact[:12], abs=1e-8)


def test_without_noise_the_map_is_the_identity(rng):
    exact = rng.normal(size=(20, 4))
    fit = fit_map(exact, exact)
    assert fit.map.scale == pytest.approx(1)
    assert fit.map.matrix == pytest.approx(np.zeros((4, 4)), abs=1e-12)
    assert fit.map.offset == pytest.approx(np.zeros(4), abs=1e-12)


def test_a_common_scale_needs_few_images(rng):
    """Three images cannot fix an affine map of ten outputs; depolarising noise is undone by one."""
    exact = rng.normal(size=(50, 10))
    measured = 0.2 * exact + 0.7
    fit = fit_map(measured[:FEWEST], exact[:FEWEST])
    assert fit.map(measured) == pytest.approx(exact, abs=1e-6)


def test_a_diagonal_map_is_the_straight_line_of_each_output(rng):
    measured, exact = affine_data(rng, noise=0.1)
    fit = fit_map(measured, exact, kind="diagonal")
    lines = [np.polyfit(measured[:, k], exact[:, k], 1) for k in range(5)]
    ridge = [fit.map.matrix[k, k] / line[0] for k, line in enumerate(lines)]
    assert all(0.9 < share <= 1 + 1e-9 for share in ridge)
    assert np.count_nonzero(fit.map.matrix) == 5
    assert fit.map.scale == 0


@pytest.mark.parametrize("noise", [0.05, 0.5])
def test_left_out_outputs_are_those_of_fits_without_the_image(noise, rng):
    """The closed form equals the fit of the same strength on all other images."""
    measured, exact = affine_data(rng, noise=noise)
    fit = fit_map(measured, exact)
    residual, strength = exact - fit.map.scale * measured, fit.map.strength
    centred = measured - measured.mean(axis=0)
    penalty = strength * (centred**2).sum() / 5
    for image in (0, 17):
        others = np.delete(np.arange(40), image)
        x, y = measured[others], residual[others]
        centre = x - x.mean(axis=0)
        slope = np.linalg.solve(
            centre.T @ centre + penalty * np.eye(5), centre.T @ (y - y.mean(axis=0))
        )
        expected = y.mean(axis=0) + (measured[image] - x.mean(axis=0)) @ slope
        found = fit.held_out[image] - fit.map.scale * measured[image]
        assert found == pytest.approx(expected, abs=1e-9)


def test_more_noise_asks_for_a_stronger_ridge(rng):
    strengths = [fit_map(*affine_data(rng, images=15, noise=n)).map.strength for n in (0.01, 2.0)]
    assert strengths[0] < strengths[1]


def test_the_head_is_fitted_from_all_outcomes(rng):
    outcomes = rng.dirichlet(np.ones(8), size=60)
    exact = outcomes @ rng.normal(size=(8, 3))
    measured = exact + rng.normal(size=(60, 3))  # what the old head made of them: useless
    fit = fit_map(measured, exact, kind="head", outcomes=outcomes)
    found = fit.map(measured, outcomes=outcomes)
    assert np.abs(found - exact).mean() < np.abs(exact - exact.mean(axis=0)).mean()
    with pytest.raises(InputError, match="needs the probabilities of all outcomes"):
        fit.map(measured)


def test_outputs_that_do_not_differ_give_their_mean():
    measured, exact = np.ones((6, 2)), np.arange(12.0).reshape(6, 2)
    assert fit_map(measured, exact).map(measured[:1])[0] == pytest.approx(exact.mean(axis=0))


@pytest.mark.parametrize(
    ("measured", "exact", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 2)), "2 images are too few"),
        (np.ones((5, 2)), np.ones((5, 3)), "one row for each image in both"),
        (np.full((5, 2), np.nan), np.ones((5, 2)), "not finite"),
    ],
)
def test_what_cannot_be_fitted_is_refused(measured, exact, message):
    with pytest.raises(InputError, match=message):
        fit_map(measured, exact)
