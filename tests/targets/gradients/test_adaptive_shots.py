import math

import numpy as np
import pytest

from qkd_qiskit.targets.gradients.adaptive_shots import (
    FEWEST,
    best_shots,
    next_shots,
    noise_shots,
    shot_variance,
)


def test_the_variance_of_a_shot_is_that_of_draws():
    rng = np.random.default_rng(0)
    gradient, probabilities = rng.standard_normal((2, 4)), rng.dirichlet(np.ones(4), size=2)
    found = shot_variance(gradient, probabilities)
    for row in range(2):
        draws = gradient[row][rng.choice(4, p=probabilities[row], size=200_000)]
        assert found[row] == pytest.approx(draws.var(), rel=0.02)


def test_kappa_is_where_shots_add_as_much_as_there_is():
    rest, one_shot = 0.7, 35.0
    for shots in (100, 1000):
        moment = rest + one_shot / shots
        assert noise_shots(moment=moment, one_shot=one_shot, shots=shots) == pytest.approx(50.0)
    assert noise_shots(moment=0.0, one_shot=0.0, shots=10) == 0.0
    assert noise_shots(moment=1.0, one_shot=200.0, shots=100) == pytest.approx(2000.0)


@pytest.mark.parametrize("rows", [16, 200])
def test_no_other_number_makes_more_progress_per_second(rows):
    kappa, duration_s, each = 3000.0, 2e-6, 250e-6 + 2e-6

    def progress(shots):
        return 1 / (1 + kappa / shots) / (2.0 + shots * rows * each)

    best = best_shots(kappa, rows=rows, duration_s=duration_s, most=100_000)
    assert best == round(math.sqrt(kappa * 2.0 / (rows * each)))
    assert all(
        progress(best) >= progress(other) for other in (best // 2, best - 9, best + 9, 2 * best)
    )


def test_bounds_and_half_the_way():
    assert best_shots(1e-9, rows=1000, duration_s=0.0, most=4096) == FEWEST
    assert best_shots(1e9, rows=1, duration_s=0.0, most=4096) == 4096
    assert next_shots(4096, 1e-9, rows=1000, duration_s=0.0, most=4096) == 256  # of 4096 and 16
