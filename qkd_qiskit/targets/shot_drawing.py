"""Shots from probabilities that are known: multinomial counts, each row on its own.

Rows take their numbers from one stream, one row after the other: a batch that is cut into parts
gives the same counts as the whole.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import TargetError

MOST_SHOTS = 2**53
"""Up to here a count is a float64 too."""


def clean_probabilities(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return rows (batch, outcomes) without negative rounding errors, each with the sum 1."""
    clipped = np.clip(np.asarray(rows, dtype=np.float64), 0.0, None)
    cleaned: NDArray[np.float64] = clipped / clipped.sum(axis=1, keepdims=True)
    return cleaned


def draw_counts(
    rows: NDArray[np.float64], shots: int, *, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Return how often each outcome comes in `shots` shots (batch, outcomes).

    Args:
        rows: Probabilities (batch, outcomes) from `clean_probabilities`.
        shots: Shots per row.
        rng: The stream; it moves on.

    Raises:
        TargetError: The shots are too many to count.
    """
    if shots > MOST_SHOTS:
        raise TargetError(
            f"shots is {min(shots, 2**999):.3g}; accepted are whole numbers up to 2**53"
        )
    counts: NDArray[np.int64] = rng.multinomial(shots, rows)
    return counts


def draw_outcomes(
    rows: NDArray[np.float64], shots: int, *, rng: np.random.Generator
) -> NDArray[np.unsignedinteger[Any]]:
    """Return outcomes (batch, shots), in random order; arguments are those of `draw_counts`."""
    batch, size = rows.shape
    kind = np.min_scalar_type(size - 1)
    counts = draw_counts(rows, shots, rng=rng)
    ordered = np.repeat(np.tile(np.arange(size, dtype=kind), batch), counts.ravel())
    outcomes = ordered.reshape(batch, shots)
    # A user may take the first shots only, or compare registers shot by shot.
    rng.permuted(outcomes, axis=1, out=outcomes)
    return outcomes
