"""Readout-error mitigation: undo the confusion of each measured qubit, and stay a probability.

Measured frequencies are the true probabilities times one matrix A[true, measured] per qubit. The
inverse is applied qubit by qubit; it can leave slightly negative numbers, so the nearest point with
non-negative entries that sum to 1 is taken (least squares; Smolin, Gambetta and Smith, arXiv
1106.5458, whose algorithm this is).
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import TargetError

_SMALLEST_DETERMINANT = 0.02


def mitigate_readout(
    frequencies: NDArray[np.float64], confusion: Sequence[NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Return probabilities (batch, 2**n) without readout errors, never negative.

    Args:
        frequencies: (batch, 2**n), little-endian: bit i of an outcome is measured qubit i.
        confusion: Matrix A[true, measured] of each of the n qubits, rows summing to 1.

    Raises:
        TargetError: A qubit's readout says nothing about its state.
    """
    count = len(confusion)
    rows = frequencies.reshape(-1, *[2] * count)
    for qubit, matrix in enumerate(confusion):
        if abs(np.linalg.det(matrix)) < _SMALLEST_DETERMINANT:
            raise TargetError(
                f"readout of logical qubit {qubit} tells 0 from 1 no better than chance "
                f"({np.round(matrix, 3).tolist()}): its errors cannot be taken back; use a weaker "
                "scale or no mitigation"
            )
        axis = count - qubit  # the highest qubit comes first
        rows = np.moveaxis(np.moveaxis(rows, axis, -1) @ np.linalg.inv(matrix), -1, axis)
    return nearest_probabilities(rows.reshape(len(frequencies), -1))


def nearest_probabilities(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the nearest points (batch, k) with entries from 0 that sum to 1.

    Args:
        rows: (batch, k).
    """
    # The smallest entries become 0 and what they lacked is taken from the others in equal parts.
    descending = -np.sort(-rows, axis=1)
    excess = (np.cumsum(descending, axis=1) - 1) / np.arange(1, rows.shape[1] + 1)
    kept = (descending > excess).sum(axis=1)
    shift = np.take_along_axis(excess, kept[:, None] - 1, axis=1)
    nearest: NDArray[np.float64] = np.maximum(rows - shift, 0.0)
    return nearest


def confusion_from_counts(
    zeros: NDArray[np.float64], ones: NDArray[np.float64]
) -> list[NDArray[np.float64]]:
    """Return the matrix A[true, measured] of each qubit from two calibration circuits.

    Args:
        zeros: Frequencies (2**n,) with all qubits prepared in 0, little-endian.
        ones: The same with all qubits prepared in 1.
    """
    count = int(np.log2(len(zeros)))
    outcomes = np.arange(len(zeros))
    matrices = []
    for qubit in range(count):
        is_one = (outcomes >> qubit & 1).astype(bool)
        matrices.append(
            np.array([[row[~is_one].sum(), row[is_one].sum()] for row in (zeros, ones)])
        )
    return matrices
