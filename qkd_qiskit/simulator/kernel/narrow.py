"""The compiled kernel for a few samples of many qubits: lanes over amplitudes, not over samples.

A row holds 16 amplitudes of one sample (8 in float64), so that one sample costs what it needs and
not what a tile does. Its angles, per sample or not, are all treated as shared. The lowest qubits
lie within rows; before they are rotated they change places with the next ones (rows and lanes of
square blocks are transposed), and back before anything else. Names are those of forward.py.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkd_qiskit.simulator.kernel import row_ops
from qkd_qiskit.simulator.kernel.backward import rotate_back
from qkd_qiskit.simulator.kernel.compilation import compiled, inner
from qkd_qiskit.simulator.kernel.forward import (
    phase_table,
    plan_scales,
    rotate,
    row_sum,
    shared_rows,
    sign,
)
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.kernel.plan import MIX


@inner
def _exchange(state: Any, parts: int, states: int, lanes: int) -> None:
    """Let the qubits within rows and the next ones change places."""
    for at in range(0, parts * states, lanes * lanes):
        row_ops.transpose(state, at, lanes, state, at, lanes)


@inner
def _prepare(
    plan: Any, angles: Any, tables: Any, rows: Any, by_tangent: Any, scales: Any,
    slot_scales: Any, scale: float, backwards: bool, lanes: int,
) -> float:  # fmt: skip
    """Fill coefficient rows, and phase tables unless they are there; return the scale left."""
    (num_qubits, steps, slots, shared_slots, _, fixed, has_fixed, term_start, term_mask,
     term_angle, _, _, _, _) = plan  # fmt: skip
    shared_rows(slots, shared_slots, angles, rows, lanes)
    if not backwards:
        for number in range(fixed.shape[0]):
            first, last = term_start[number], term_start[number + 1]
            phase_table(
                tables[number], fixed[number], has_fixed[number], term_mask[first:last],
                term_angle[first:last], angles, num_qubits,
            )  # fmt: skip
    return plan_scales(steps, rows, lanes, scale, backwards, by_tangent, scales, slot_scales)


@inner
def _product(product: Any, rows: Any, state: Any, lanes: int) -> None:
    state[0] = 1.0
    for qubit in range(product.size):
        cosine, sine = 1.0, 0.0
        if product[qubit] >= 0:
            at = 3 * product[qubit] * lanes
            cosine, sine = float(rows[at]), float(rows[at + lanes])
        for low in range(1 << qubit):
            value = state[low]
            state[low | 1 << qubit] = sine * value
            state[low] = cosine * value


@inner
def _mix(
    state: Any, other: Any, table: Any, phased: bool, target: Any, moved: bool, was_complex: bool,
    scale: float,
) -> None:  # fmt: skip
    states = table.shape[1]
    into = other if moved else state
    for row in range(states):
        to = target[row] if moved else row
        real, imag = state[row], state[states + row] if was_complex else 0.0
        if phased:
            factor, factor_imag = table[0, row] * scale, table[1, row] * scale
            into[to] = factor * real - factor_imag * imag
            into[states + to] = factor * imag + factor_imag * real
        else:
            into[to] = real
            if was_complex:
                into[states + to] = imag


@compiled
def forward(
    plan: Any, angles: Any, given: Any, given_imag: Any, tables: Any, rows: Any, work: Any,
    values: Any, saved: Any, keep: bool, sample: int,
) -> bool:  # fmt: skip
    """Fill the values of one sample, and keep its final state; return whether all are finite.

    Args:
        plan: As in `kernel.forward.forward`, with all angles shared.
        angles: Of every sample ``(samples, angles)``.
        given: Real parts of given states ``(samples, 2**num_qubits)``, or empty.
        given_imag: Imaginary parts, or empty.
        tables: Room for phase tables.
        rows: Room for coefficients.
        work: Room for states ``(4, 2 * 2**num_qubits)``.
        values: ``(samples, outputs)``.
        saved: Final states ``(samples, 2 * 2**num_qubits)`` if they are kept.
        keep: Whether they are.
        sample: Which.
    """
    (num_qubits, steps, slots, _, product, _, _, _, _, _, targets, final_complex, index,
     matrix) = plan  # fmt: skip
    lanes = ROW_BYTES // rows.itemsize
    bits = 3 if lanes == 8 else 4
    states = 1 << num_qubits
    by_tangent = np.empty(steps.shape[0], dtype=np.bool_)
    scales, slot_scales = np.empty(steps.shape[0]), np.empty(slots.size)
    scale = _prepare(
        plan, angles[sample], tables, rows, by_tangent, scales, slot_scales, 1.0, False, lanes
    )
    state, other = work[0], work[1]
    if given.shape[1] > 0:
        for row in range(states):
            state[row] = given[sample, row]
        for row in range(given_imag.shape[1]):
            state[states + row] = given_imag[sample, row]
    else:
        _product(product, rows, state, lanes)
    exchanged = False
    for number in range(steps.shape[0]):
        step = steps[number]
        within = step[0] != MIX and step[8] == 1
        if within != exchanged:
            _exchange(state, 1 + step[6], states, lanes)
            exchanged = within
        if step[0] == MIX:
            moved = step[2] >= 0
            _mix(
                state, other, tables[max(step[1], 0)], step[1] >= 0, targets[max(step[2], 0)],
                moved, step[6] == 1, scales[number],
            )  # fmt: skip
            if moved:
                state, other = other, state
        else:
            for part in range(1 + step[6]):
                rotate(
                    step, by_tangent[number], state, part * states, rows, num_qubits - bits, lanes
                )
    if exchanged:
        _exchange(state, 1 + final_complex, states, lanes)
    return _read(
        state, states, final_complex, scale * scale, index, matrix, values[sample],
        saved[sample if keep else 0], keep,
    )  # fmt: skip


@inner
def _read(
    state: Any, states: int, is_complex: bool, factor: float, index: Any, matrix: Any,
    values: Any, saved: Any, keep: bool,
) -> bool:  # fmt: skip
    totals = np.empty(values.size)
    totals[:] = 0.0
    for row in range(states):
        real, imag = float(state[row]), float(state[states + row]) if is_complex else 0.0
        probability = factor * (real * real + imag * imag)
        if index.size:
            totals[index[row]] += probability
        else:
            for output in range(values.size):
                totals[output] += probability * matrix[row, output]
    if keep:
        for row in range(states * (1 + is_complex)):
            saved[row] = state[row]
    finite = True
    for output in range(values.size):
        values[output] = totals[output]
        finite = finite and math.isfinite(totals[output])
    return finite


@inner
def _mix_back(
    state: Any, costate: Any, old_state: Any, old_costate: Any, table: Any, phased: bool,
    target: Any, moved: bool, was_complex: bool, scale: float, sums: Any,
) -> None:  # fmt: skip
    """Undo phases and permutation; `sums` becomes Im(conj(costate) state) per basis state."""
    states = table.shape[1]
    for row in range(states):
        at = target[row] if moved else row
        real, back = state[at], costate[at]
        if not phased:
            old_state[row], old_costate[row] = real, back
            if was_complex:
                old_state[states + row] = state[states + at]
                old_costate[states + row] = costate[states + at]
            continue
        imag, back_imag = state[states + at], costate[states + at]
        sums[row] = back * imag - back_imag * real
        factor, factor_imag = table[0, row] * scale, -table[1, row] * scale
        old_state[row] = factor * real - factor_imag * imag
        old_costate[row] = factor * back - factor_imag * back_imag
        if was_complex:
            old_state[states + row] = factor * imag + factor_imag * real
            old_costate[states + row] = factor * back_imag + factor_imag * back


@inner
def _phase_gradients(
    sums: Any, num_qubits: int, masks: Any, numbers: Any, factor: float, gradient: Any
) -> None:
    """Add the gradients of a phase table's terms; those of single qubits by halving `sums`."""
    for term in range(masks.size):
        if masks[term] & (masks[term] - 1):
            total = 0.0
            for row in range(1 << num_qubits):
                total += sums[row] * sign(masks[term] & row)
            gradient[numbers[term]] += factor * total
    for place in range(num_qubits):
        qubit = num_qubits - 1 - place
        half, total = 1 << qubit, 0.0
        for row in range(half):
            total += sums[row] - sums[half + row]
            sums[row] += sums[half + row]
        for term in range(masks.size):
            if masks[term] == half:
                gradient[numbers[term]] += factor * total


@inner
def _product_back(product: Any, rows: Any, state: Any, costate: Any, sums: Any, lanes: int) -> None:
    for place in range(product.size):
        qubit = product.size - 1 - place
        slot = product[qubit]
        if slot < 0:
            continue
        cosine, sine = float(rows[3 * slot * lanes]), float(rows[3 * slot * lanes + lanes])
        total = 0.0
        for low in range(1 << qubit):
            high = low | 1 << qubit
            total += costate[high] * state[low] - costate[low] * state[high]
            state[low] = cosine * state[low] + sine * state[high]
            costate[low] = cosine * costate[low] + sine * costate[high]
        sums[slot * lanes] = total


@compiled
def backward(
    plan: Any, angles: Any, tables: Any, rows: Any, work: Any, sums: Any, by_row: Any,
    saved: Any, incoming: Any, gradient: Any, state_gradient: Any, sample: int,
) -> None:  # fmt: skip
    """Fill the gradient of the angles of one sample, or add that of its given state and theirs.

    Args:
        plan: As in `forward`.
        angles: As in `forward`.
        tables: As in `forward`.
        rows: As in `forward`.
        work: As in `forward`.
        sums: Room for a row per slot.
        by_row: Room for a number per basis state.
        saved: As `forward` left it.
        incoming: Gradients of the values ``(samples, outputs)``.
        gradient: ``(samples, angles)``, to add to.
        state_gradient: ``(samples, 2**num_qubits, parts)``; parts is 0 where it is not wanted.
        sample: Which.
    """
    (num_qubits, steps, slots, _, product, _, _, term_start, term_mask, term_angle, targets,
     final_complex, index, matrix) = plan  # fmt: skip
    lanes = ROW_BYTES // rows.itemsize
    bits = 3 if lanes == 8 else 4
    states = 1 << num_qubits
    by_tangent = np.empty(steps.shape[0], dtype=np.bool_)
    scales, slot_scales = np.empty(steps.shape[0]), np.empty(slots.size)
    last = _prepare(
        plan, angles[sample], tables, rows, by_tangent, scales, slot_scales, 1.0, False, lanes
    )
    first_scale = _prepare(
        plan, angles[sample], tables, rows, by_tangent, scales, slot_scales, last, True, lanes
    )
    for slot in product:
        if slot >= 0:
            slot_scales[slot] = first_scale
    sums[:] = 0.0
    state, costate, other, other_costate = work[0], work[1], work[2], work[3]
    for row in range(states):
        weight = 0.0
        if index.size:
            weight = float(incoming[sample, index[row]])
        else:
            for output in range(incoming.shape[1]):
                weight += matrix[row, output] * incoming[sample, output]
        for part in range(1 + final_complex):
            state[part * states + row] = saved[sample, part * states + row]
            costate[part * states + row] = weight * saved[sample, part * states + row]
    exchanged, parts = False, 1 + final_complex
    for place in range(steps.shape[0]):
        number = steps.shape[0] - 1 - place
        step = steps[number]
        within = step[0] != MIX and step[8] == 1
        if within != exchanged:
            _exchange(state, parts, states, lanes)
            _exchange(costate, parts, states, lanes)
            exchanged = within
        if step[0] == MIX:
            phased, moved, table = step[1] >= 0, step[2] >= 0, max(step[1], 0)
            _mix_back(
                state, costate, other if moved else state, other_costate if moved else costate,
                tables[table], phased, targets[max(step[2], 0)], moved, step[6] == 1,
                scales[number], by_row,
            )  # fmt: skip
            if phased:
                begin, end = term_start[table], term_start[table + 1]
                _phase_gradients(
                    by_row, num_qubits, term_mask[begin:end], term_angle[begin:end],
                    scales[number] * scales[number], gradient[sample],
                )  # fmt: skip
            if moved:
                state, other = other, state
                costate, other_costate = other_costate, costate
        else:
            for part in range(1 + step[6]):
                rotate_back(
                    step, by_tangent[number], state, costate, part * states, rows, sums,
                    num_qubits - bits, lanes,
                )  # fmt: skip
        parts = 1 + step[6]
    if exchanged:
        _exchange(state, parts, states, lanes)
        _exchange(costate, parts, states, lanes)
    if state_gradient.shape[2]:
        for row in range(states):
            for part in range(state_gradient.shape[2]):
                state_gradient[sample, row, part] = 2.0 * first_scale * costate[part * states + row]
    else:
        _product_back(product, rows, state, costate, sums, lanes)
    for slot in range(slots.size):
        factor = slot_scales[slot] * slot_scales[slot]
        gradient[sample, slots[slot]] += factor * row_sum(sums, slot * lanes, lanes)
