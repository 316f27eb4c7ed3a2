"""The circuit of a hybrid step: what the first layer gives as amplitudes or angles, and back.

The circuit itself is run by kernel/forward.py and kernel/backward.py. Features come and their
gradients go in panels ``(panels, rows, lanes)``, as fused/dense.py writes and reads them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit

from qkd_qiskit.simulator.fused.hybrid_buffers import AMPLITUDES, ANGLES
from qkd_qiskit.simulator.fused.kernel import _add_angle, _angle, _pick, _sample_angles
from qkd_qiskit.simulator.kernel.backward import backward
from qkd_qiskit.simulator.kernel.compilation import F, compiled, merged
from qkd_qiskit.simulator.kernel.forward import forward
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES


def _sums(function: F) -> F:
    """Return a function compiled on first use, whose sums are taken in vectors."""
    allowed = {"reassoc", "nsz", "contract"}
    made: F = njit(cache=True, nogil=True, error_model="numpy", fastmath=allowed)(function)
    return made


@merged
def run_circuit(
    plan: Any, maps: Any, design: Any, data: Any, batch: Any, weights: Any, features: Any,
    rows: int, values: Any, quantum: Any, slot: int,
) -> bool:  # fmt: skip
    """Fill a member's outputs on one batch; return whether they are finite.

    Args:
        plan: As in `kernel.forward.forward`.
        maps: As in `hybrid_kernel.train`, as the next two and `quantum`.
        design: What the circuit starts from, and what features are multiplied by.
        data: Prepared samples, used where it starts from them.
        batch: Which of them.
        weights: The member's.
        features: Of the first layer, flat panels.
        rows: Of a panel.
        values: Outputs, flat.
        quantum: The circuit's buffers.
        slot: Which of them is the member's.
    """
    (tables, row_buffer, states, _, _, outputs, all_saved, all_shared, _, all_cosines,
     all_sines, _, all_given, all_imag, _, all_norms) = quantum  # fmt: skip
    shared_map, sample_map, input_map, constants, sample_constants = maps
    whole, numbers = design
    size, angles, outs = batch.size, sample_map[0].size - 1, whole[4]
    cosines = all_cosines[slot][: size * angles].reshape(1, size, angles)
    sines = all_sines[slot][: size * angles].reshape(1, size, angles)
    shared = all_shared[slot].reshape(1, constants.size)
    for angle in range(constants.size):
        shared[0, angle] = constants[angle] + _angle(shared_map, angle, weights)
    given = all_given[slot][: size * whole[6]].reshape(1, size, whole[6])
    imag = all_imag[slot][: size * whole[7]].reshape(1, size, whole[7])
    if whole[0] == AMPLITUDES:
        _normalize(features, rows, given[0], all_norms[slot])
    elif whole[0] == ANGLES:
        _encode_angles(
            features, rows, input_map, sample_map, weights, sample_constants, numbers[2],
            cosines[0], sines[0],
        )  # fmt: skip
    else:
        _sample_angles(sample_map, weights, data[2][0], data[3][0], batch, cosines[0], sines[0])
        _pick(data[4][0], batch, size > 0, all_given[slot])
        _pick(data[5][0], batch, size > 0, all_imag[slot])
    lanes = ROW_BYTES // row_buffer.itemsize
    begin, keep = np.int64(0), size > 0
    one, tiles = (begin, begin + 1), (begin, begin + (size + lanes - 1) // lanes)
    saved = all_saved[slot]
    return forward(
        plan, shared, cosines, sines, given, imag, tables, row_buffer, states[0], states[1],
        outputs, values[: size * outs].reshape(1, size, outs),
        saved.reshape(1, saved.shape[0], saved.shape[1]), keep, one, tiles,
    )  # fmt: skip


@merged
def circuit_back(
    plan: Any, maps: Any, design: Any, size: int, incoming: Any, slopes: Any, rows: int,
    gradient: Any, quantum: Any, slot: int,
) -> None:  # fmt: skip
    """Fill the gradients of the weights, and of the features if they come from a layer.

    Args:
        plan: As in `kernel.forward.forward`.
        maps: As in `run_circuit`, as the next one.
        design: What the circuit starts from, and what features are multiplied by.
        size: Samples of the batch.
        incoming: Gradients of the outputs, flat.
        slopes: Gradients of the features, flat panels.
        rows: Of a panel.
        gradient: Of the weights.
        quantum: The circuit's buffers.
        slot: Which of them is the member's.
    """
    (tables, row_buffer, states, sums, phases, outputs, all_saved, all_shared, shared_gradient,
     all_cosines, all_sines, all_sampled, all_given, _, to_states, all_norms) = quantum  # fmt: skip
    shared_map, sample_map, input_map, constants, _ = maps
    whole, numbers = design
    angles, outs = sample_map[0].size - 1, whole[4]
    cosines = all_cosines[slot][: size * angles].reshape(1, size, angles)
    sines = all_sines[slot][: size * angles].reshape(1, size, angles)
    sampled = all_sampled[: size * angles].reshape(1, size, angles)
    shared = all_shared[slot].reshape(1, constants.size)
    lanes = ROW_BYTES // row_buffer.itemsize
    begin, of_states = np.int64(0), whole[0] == AMPLITUDES
    one, tiles = (begin, begin + 1), (begin, begin + (size + lanes - 1) // lanes)
    saved = all_saved[slot]
    shared_gradient[:] = 0.0
    sampled[:] = 0.0
    length = whole[6] if of_states else 0
    parts = 1 if of_states else 0
    state_gradient = to_states[: size * length].reshape(1, size, length, parts)
    state_gradient[:] = 0.0
    backward(
        plan, shared, cosines, sines, tables, row_buffer, states, sums, phases, outputs,
        saved.reshape(1, saved.shape[0], saved.shape[1]),
        incoming[: size * outs].reshape(1, size, outs), of_states, shared_gradient, sampled,
        state_gradient, one, tiles,
    )  # fmt: skip
    gradient[:] = 0.0
    for angle in range(constants.size):
        _add_angle(shared_map, angle, shared_gradient[0, angle], gradient)
    for angle in range(angles):
        total = 0.0
        for sample in range(size):
            total += sampled[0, sample, angle]
        _add_angle(sample_map, angle, total, gradient)
    if of_states:
        given = all_given[slot][: size * length].reshape(size, length)
        _normalize_back(
            given, all_norms[slot], to_states[: size * length].reshape(size, length), slopes, rows
        )
    elif whole[0] == ANGLES:
        _angles_back(input_map, sampled[0], numbers[2], slopes, rows)


@_sums
def _normalize(features: Any, rows: int, states: Any, norms: Any) -> None:
    """Fill states of length 1 and what the features were multiplied by.

    Features are first divided by the largest of an image, as their squares might vanish.
    """
    lanes = ROW_BYTES // features.itemsize
    kind = features.dtype.type
    size, length = states.shape
    width = min(lanes, length)
    panels = (length + lanes - 1) // lanes
    for row in range(size):
        largest = kind(0.0)
        for panel in range(panels):
            at = (panel * rows + row) * lanes
            for lane in range(width):
                largest = max(largest, abs(features[at + lane]))
        inverse = kind(1.0) / largest if largest > 0.0 else kind(1.0)
        # Nothing is stored beside a sum: whether arrays overlap is asked at run time, and where
        # they might the sum is taken in another order.
        total = kind(0.0)
        for panel in range(panels):
            at = (panel * rows + row) * lanes
            for lane in range(width):
                value = features[at + lane] * inverse
                total += value * value
        root = kind(1.0) / math.sqrt(total) if total > 0.0 else kind(1.0)
        for panel in range(panels):
            at = (panel * rows + row) * lanes
            for lane in range(width):
                states[row, panel * lanes + lane] = features[at + lane] * inverse * root
        norms[row] = inverse * root


@_sums
def _normalize_back(states: Any, norms: Any, incoming: Any, slopes: Any, rows: int) -> None:
    """Fill the features' gradients, given those of the states."""
    lanes = ROW_BYTES // slopes.itemsize
    kind = slopes.dtype.type
    size, length = states.shape
    width = min(lanes, length)
    for row in range(size):
        along = kind(0.0)
        for place in range(length):
            along += states[row, place] * incoming[row, place]
        for panel in range((length + lanes - 1) // lanes):
            at = (panel * rows + row) * lanes
            for lane in range(width):
                place = panel * lanes + lane
                across = incoming[row, place] - along * states[row, place]
                slopes[at + lane] = norms[row] * across


@compiled
def _encode_angles(
    features: Any, rows: int, input_map: Any, sample_map: Any, weights: Any, constants: Any,
    factor: float, cosines: Any, sines: Any,
) -> None:  # fmt: skip
    """Fill cosines and sines of half the per-sample angles."""
    lanes = ROW_BYTES // features.itemsize
    starts, columns, coefficients = input_map
    for angle in range(cosines.shape[1]):
        known = constants[angle] + _angle(sample_map, angle, weights)
        for row in range(cosines.shape[0]):
            total = known
            for term in range(starts[angle], starts[angle + 1]):
                column = columns[term]
                at = (column // lanes * rows + row) * lanes + column % lanes
                total += factor * coefficients[term] * features[at]
            cosines[row, angle] = math.cos(0.5 * total)
            sines[row, angle] = math.sin(0.5 * total)


@compiled
def _angles_back(input_map: Any, sampled: Any, factor: float, slopes: Any, rows: int) -> None:
    """Fill the features' gradients, given those of the per-sample angles."""
    lanes = ROW_BYTES // slopes.itemsize
    starts, columns, coefficients = input_map
    slopes[:] = 0.0
    for angle in range(sampled.shape[1]):
        for term in range(starts[angle], starts[angle + 1]):
            column = columns[term]
            for row in range(sampled.shape[0]):
                at = (column // lanes * rows + row) * lanes + column % lanes
                slopes[at] += factor * coefficients[term] * sampled[row, angle]
