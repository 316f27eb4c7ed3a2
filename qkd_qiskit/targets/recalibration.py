"""Recalibration: an affine map that takes measured outputs back to the exact ones, without labels.

Noise that does not depend on the angles acts on expectations almost as a scaling and a shift
(QuantumNAT, arXiv 2110.11331). So a student's own exact outputs on a few unlabelled images, which
any computer can calculate for a circuit of this size, and the measured ones of the same images give
the map back by least squares. Neither labels nor a teacher enter, and nothing is trained again.

The fit is a ridge regression around one common scale of all outputs, which is what depolarising
noise alone would need; the offset is not shrunk. The strength of the ridge is the one with the
smallest squared error of images that are left out one at a time. A linear smoother has that error
in closed form, the residual over 1 - leverage (Golub, Heath and Wahba, Technometrics 21, 1979); the
common scale, one number of all images, is not fitted again. The same left-out outputs say what is
to be expected of images that were not in the fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import InputError

Kind = Literal["affine", "diagonal", "head"]
"""affine: from all outputs to all; diagonal: a scale and a shift for each output; head: affine from
the probabilities of all outcomes, as if the student's last layer were fitted again."""

Real = NDArray[np.float64]
STRENGTHS = np.concatenate([[0.0], np.logspace(-7, 4, 45)])
"""Ridge strengths that are tried, as shares of the mean variance of the inputs."""
FEWEST = 3
"""Images that a fit needs: two for a scale and a shift, and one to be left out."""


@dataclass(frozen=True, eq=False)
class AffineMap:
    """outputs = scale * measured + inputs @ matrix + offset; the inputs are the measured outputs.

    Of the kind `head` the inputs are the probabilities of all outcomes.

    Attributes:
        kind: See `Kind`.
        scale: Common scale of all outputs.
        matrix: `(inputs, outputs)`.
        offset: `(outputs,)`.
        strength: Strength of the ridge that was chosen, of `STRENGTHS`.
    """

    kind: Kind
    scale: float
    matrix: Real
    offset: Real
    strength: float

    def __call__(self, measured: Real, *, outcomes: Real | None = None) -> Real:
        """Return corrected outputs `(rows, outputs)`.

        Args:
            measured: Measured outputs `(rows, outputs)`.
            outcomes: Probabilities of all outcomes `(rows, outcomes)`, for the kind `head`.

        Raises:
            InputError: The kind is `head` and the outcomes are not given.
        """
        inputs = self.inputs(measured, outcomes)
        corrected: Real = self.scale * measured + inputs @ self.matrix + self.offset
        return corrected

    def inputs(self, measured: Real, outcomes: Real | None) -> Real:
        """Return what the matrix multiplies."""
        return _inputs(self.kind, measured, outcomes)


@dataclass(frozen=True, eq=False)
class Fit:
    """A map, and what its fit says of images that were not in it.

    Attributes:
        map: The map.
        held_out: What it gives for each image when that image is left out of the fit
            `(images, outputs)`.
    """

    map: AffineMap
    held_out: Real


def fit_map(
    measured: Real, exact: Real, *, kind: Kind = "affine", outcomes: Real | None = None
) -> Fit:
    """Return the map from measured to exact outputs that least squares give.

    Args:
        measured: Measured outputs `(images, outputs)`.
        exact: The student's own exact outputs of the same images `(images, outputs)`.
        kind: See `Kind`.
        outcomes: Measured probabilities of all outcomes `(images, outcomes)`, for the kind `head`.

    Raises:
        InputError: Fewer than `FEWEST` images, shapes that do not belong together, or numbers that
            are not finite.
    """
    inputs = _inputs(kind, measured, outcomes)
    if measured.shape != exact.shape or measured.ndim != 2 or len(inputs) != len(measured):
        raise InputError(
            f"measured outputs have shape {measured.shape}, exact ones {exact.shape}; give one row "
            "for each image in both"
        )
    if len(measured) < FEWEST:
        raise InputError(
            f"{len(measured)} images are too few to fit a map; give at least {FEWEST}, better 50"
        )
    if not all(np.isfinite(given).all() for given in (measured, exact, inputs)):
        raise InputError("outputs that are not finite cannot be fitted; measure them again")
    if kind == "diagonal":
        return _diagonal(measured, exact)
    scale = _common_scale(measured, exact)
    matrix, offset, strength, held_out = _ridge(inputs, exact - scale * measured)
    fitted = AffineMap(kind=kind, scale=scale, matrix=matrix, offset=offset, strength=strength)
    return Fit(fitted, held_out + scale * measured)


def _inputs(kind: Kind, measured: Real, outcomes: Real | None) -> Real:
    if kind != "head":
        return measured
    if outcomes is None:
        raise InputError("a map of the kind head needs the probabilities of all outcomes")
    return outcomes


def _common_scale(measured: Real, exact: Real) -> float:
    """Return the one number that takes centred measured outputs nearest to the exact ones."""
    centred = measured - measured.mean(axis=0)
    spread = float((centred**2).sum())
    return float((centred * (exact - exact.mean(axis=0))).sum()) / spread if spread > 0 else 0.0


def _diagonal(measured: Real, exact: Real) -> Fit:
    parts = [_ridge(measured[:, [k]], exact[:, [k]]) for k in range(exact.shape[1])]
    matrices, offsets, strengths, held_out = zip(*parts, strict=True)
    fitted = AffineMap(
        kind="diagonal",
        scale=0.0,
        matrix=np.diag([matrix[0, 0] for matrix in matrices]),
        offset=np.concatenate(offsets),
        strength=float(np.median(strengths)),
    )
    return Fit(fitted, np.concatenate(held_out, axis=1))


def _ridge(inputs: Real, outputs: Real) -> tuple[Real, Real, float, Real]:
    """Return matrix, offset, strength and left-out outputs of the ridge of the best such error.

    With centred inputs U S V^T the fit of strength k is mean + U f U^T (Y - mean), where
    f = s^2 / (s^2 + k), and the leverage of image i is 1 / N + sum_j f_j U_ij^2.
    """
    count = len(inputs)
    centre, mean = inputs.mean(axis=0), outputs.mean(axis=0)
    left, values, right = np.linalg.svd(inputs - centre, full_matrices=False)
    squares = values**2
    # Directions in which inputs differ by rounding alone say nothing.
    rounding = max(inputs.shape) * np.finfo(float).eps
    seen = values > rounding * max(values.max(), np.abs(inputs).max())
    left, values, squares, right = left[:, seen], values[seen], squares[seen], right[seen]
    along = left.T @ (outputs - mean)
    unit = squares.sum() / inputs.shape[1]
    best, strength, held_out = np.inf, float(STRENGTHS[-1]), outputs
    for tried in STRENGTHS:
        kept = squares / (squares + tried * unit)
        leverage = 1 / count + left**2 @ kept
        if leverage.max() > 1 - 1e-9:
            continue  # an image with a direction of its own: without it nothing is known of that
        residual = (outputs - mean - left @ (kept[:, None] * along)) / (1 - leverage)[:, None]
        error = float((residual**2).mean())
        if error < best:
            best, strength, held_out = error, float(tried), outputs - residual
    matrix = right.T @ ((values / (squares + strength * unit))[:, None] * along)
    return matrix, mean - centre @ matrix, strength, held_out
