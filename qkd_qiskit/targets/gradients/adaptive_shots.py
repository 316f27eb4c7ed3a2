"""How many shots a gradient is worth: as few as make the most progress per QPU second.

A gradient from random directions scatters although every circuit is known exactly: its second
moment R is larger than the squared gradient. Shots add kappa R / K to it, where kappa is the number
of shots K that add as much again. A step of length 1 / (1 + kappa / K) costs o + K b seconds: the
overhead o of its job, and b for one shot of all its circuits. Progress per second is largest at::

    K = sqrt(kappa o / b)

Such closed forms of the cheapest allocation are from QUIVER (arXiv 2606.09734, shots of each
direction by its share in the descent). Deviations: there the constants are the smoothness of the
loss and the learning rate of plain descent, which Adam has not; here they are what the last steps
have measured; and the overhead of jobs, which decides on devices of today, is counted.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.targets.ibm.usage_model import JOB_OVERHEAD_S, seconds_per_execution

FEWEST = 16
"""Shots below which no circuit is run."""
FIRST = 256
"""Shots of the first step, from which the next ones follow."""
Real = NDArray[np.float64]


def shot_variance(gradient: Real, probabilities: Real) -> Real:
    """Return the variance of gradient . outcome by one shot, of each row.

    Args:
        gradient: The loss's derivatives by the probabilities `(rows, outcomes)`.
        probabilities: As measured `(rows, outcomes)`.
    """
    mean = (gradient * probabilities).sum(axis=1)
    variance: Real = ((gradient**2 * probabilities).sum(axis=1) - mean**2).clip(0.0)
    return variance


def noise_shots(*, moment: float, one_shot: float, shots: int) -> float:
    """Return kappa, the shots that add as much scatter as there is without them.

    Args:
        moment: Second moment of the measured slopes, with their shots.
        one_shot: What one shot alone would add to it.
        shots: Shots that they were measured with.
    """
    rest = moment - one_shot / shots
    # Where shots are all that is seen, the rest is at most as large as its own uncertainty.
    return one_shot / max(rest, 0.1 * moment) if moment > 0 else 0.0


def best_shots(kappa: float, *, rows: int, duration_s: float, most: int) -> int:
    """Return the shots that make the most progress per QPU second.

    Args:
        kappa: See `noise_shots`.
        rows: Circuits of a step.
        duration_s: Of one circuit, in seconds.
        most: Shots that are not passed.
    """
    each = rows * seconds_per_execution(duration_s)
    best = math.sqrt(kappa * JOB_OVERHEAD_S / each) if rows else FIRST
    return int(min(most, max(FEWEST, round(best))))


def next_shots(now: int, kappa: float, *, rows: int, duration_s: float, most: int) -> int:
    """Return the shots of the next step: half the way, in logarithms, from `now` to the best."""
    best = best_shots(kappa, rows=rows, duration_s=duration_s, most=most)
    return int(min(most, max(FEWEST, round(math.sqrt(now * best)))))
