"""The compiled CPU kernel: forward and adjoint sweep over tiles of samples, in cache.

A tile is 64 bytes of samples; its state (and costate, in the sweep back) stays in L1/L2 while every
step is applied, rows of real parts first, then rows of imaginary parts. The sweep back undoes the
steps on the final state instead of storing intermediate ones, so memory does not grow with depth.

Rotations by a shared angle use the tangent form, which is one multiply-add per row; what it leaves
out, the product of their cosines, is carried in a scalar (`scale`) and multiplied into the next
phase table. Angles near pi, whose tangent is large, use the usual form.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkd_qiskit.simulator.kernel import rotations, row_ops
from qkd_qiskit.simulator.kernel.compilation import compiled, inner
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.kernel.plan import MIX, ROTATE

_MAX_TANGENT = 32.0
_MIN_SCALE = 1e-5


@inner
def set_row(rows: Any, at: int, lanes: int, value: float) -> None:
    """Write one value into every lane of a row."""
    for lane in range(lanes):
        rows[at + lane] = value


@inner
def copy_rows(target: Any, source: Any, rows: int, lanes: int) -> None:
    """Copy the first so many rows."""
    for row in range(rows):
        row_ops.copy_row(target, row * lanes, source, row * lanes)


@inner
def row_sum(rows: Any, at: int, lanes: int) -> float:
    """Return the sum over a row's lanes."""
    total = 0.0
    for lane in range(lanes):
        total += rows[at + lane]
    return total


@inner
def shared_rows(slots: Any, shared_slots: int, angles: Any, rows: Any, lanes: int) -> None:
    """Fill the rows of every slot with a shared angle."""
    for slot in range(shared_slots):
        half = 0.5 * float(angles[slots[slot]])
        cosine, sine = math.cos(half), math.sin(half)
        at = 3 * slot * lanes
        set_row(rows, at, lanes, cosine)
        set_row(rows, at + lanes, lanes, sine)
        set_row(rows, at + 2 * lanes, lanes, sine / cosine if cosine != 0.0 else 1e30)


@inner
def sample_rows(
    slots: Any, shared_slots: int, cosines: Any, sines: Any, first: int, rows: Any, lanes: int
) -> None:
    """Fill the rows of every slot with an angle per sample of a tile."""
    for slot in range(shared_slots, slots.size):
        at = 3 * slot * lanes
        angle = slots[slot]
        for lane in range(lanes):
            cosine, sine = 1.0, 0.0
            if first + lane < cosines.shape[0]:
                cosine, sine = cosines[first + lane, angle], sines[first + lane, angle]
            rows[at + lane] = cosine
            rows[at + lanes + lane] = sine


@inner
def plan_scales(
    steps: Any, rows: Any, lanes: int, scale: float, backwards: bool, by_tangent: Any,
    scales: Any, slot_scales: Any,
) -> float:  # fmt: skip
    """Choose the form of every shared rotation block, and where the scale is multiplied in.

    Scales are per step what a phase table is multiplied by, and per slot the scale of the state
    where its gradient is taken.
    """
    count = steps.shape[0]
    for number in range(count):
        step = count - 1 - number if backwards else number
        kind = steps[step, 0]
        if kind == ROTATE:
            qubits, slot = steps[step, 1], steps[step, 5]
            product = scale
            good = steps[step, 7] == 1
            for position in range(qubits):
                at = 3 * (slot + position) * lanes
                good = good and abs(rows[at + 2 * lanes]) <= _MAX_TANGENT
                product *= float(rows[at])
            good = good and abs(product) >= _MIN_SCALE
            by_tangent[step] = good
            for position in range(qubits):
                here = slot + qubits - 1 - position
                slot_scales[here] = scale
                if good:
                    scale *= float(rows[3 * here * lanes])
                elif steps[step, 7] == 1 and scale != 1.0:
                    for lane in range(2 * lanes):
                        rows[3 * here * lanes + lane] *= scale
                    scale = 1.0
        elif kind == MIX:
            scales[step] = scale
            if steps[step, 1] >= 0:
                scale = 1.0
        else:
            slot_scales[steps[step, 5]] = scale
    return scale


@inner
def phase_table(
    table: Any, fixed: Any, has_fixed: bool, masks: Any, numbers: Any, angles: Any, num_qubits: int
) -> None:
    """Fill a phase table ``(2, 2**num_qubits)``."""
    states = 1 << num_qubits
    table[0, 0], table[1, 0] = 1.0, 0.0
    for qubit in range(num_qubits):
        half = 0.0
        for term in range(masks.size):
            if masks[term] == 1 << qubit:
                half += 0.5 * float(angles[numbers[term]])
        cosine, sine = math.cos(half), math.sin(half)
        for low in range(1 << qubit):
            real, imag = table[0, low], table[1, low]
            table[0, low | 1 << qubit] = real * cosine - imag * sine
            table[1, low | 1 << qubit] = imag * cosine + real * sine
            table[0, low] = real * cosine + imag * sine
            table[1, low] = imag * cosine - real * sine
    for term in range(masks.size):
        if masks[term] & (masks[term] - 1):
            half = 0.5 * float(angles[numbers[term]])
            cosine, sine = math.cos(half), math.sin(half)
            for state in range(states):
                signed = sine * sign(masks[term] & state)
                real, imag = table[0, state], table[1, state]
                table[0, state] = real * cosine + imag * signed
                table[1, state] = imag * cosine - real * signed
    if has_fixed:
        for state in range(states):
            real, imag = table[0, state], table[1, state]
            table[0, state] = real * fixed[0, state] - imag * fixed[1, state]
            table[1, state] = imag * fixed[0, state] + real * fixed[1, state]


@inner
def sign(bits: int) -> float:
    """Return 1.0 where the number of ones is even, else -1.0."""
    for shift in (32, 16, 8, 4, 2, 1):
        bits ^= bits >> shift
    return 1.0 - 2.0 * (bits & 1)


@inner
def gather_rows(samples: Any, first: int, rows: Any, at: int, lanes: int) -> None:
    """Write a tile of samples ``(batch, length)`` as rows, zeros past the batch."""
    batch, length = samples.shape
    begin = 0
    if first + lanes <= batch:
        begin = length - length % lanes
        for index in range(0, begin, lanes):
            row_ops.transpose(
                rows, at + index * lanes, lanes, samples, first * length + index, length
            )
    for index in range(begin, length):
        for lane in range(lanes):
            value = samples[first + lane, index] if first + lane < batch else 0.0
            rows[at + index * lanes + lane] = value


@inner
def scatter_rows(rows: Any, samples: Any, first: int, lanes: int) -> float:
    """Write rows as a tile of samples ``(batch, length)``; return a sum that shows NaN."""
    batch, length = samples.shape
    begin = 0
    if first + lanes <= batch:
        begin = length - length % lanes
        for index in range(0, begin, lanes):
            row_ops.transpose(samples, first * length + index, length, rows, index * lanes, lanes)
    for lane in range(min(lanes, batch - first)):
        for index in range(begin, length):
            samples[first + lane, index] = rows[index * lanes + lane]
    spare = length * lanes
    set_row(rows, spare, lanes, 0.0)
    for index in range(length):
        row_ops.add_scaled(rows, spare, rows, index * lanes, 1.0)
    return row_sum(rows, spare, lanes)


@inner
def _product_state(product: Any, rows: Any, state: Any, lanes: int) -> None:
    set_row(state, 0, lanes, 1.0)
    for qubit in range(product.size):
        for low in range(1 << qubit):
            high = (low | 1 << qubit) * lanes
            if product[qubit] >= 0:
                row_ops.split(state, low * lanes, high, rows, 3 * product[qubit] * lanes)
            else:
                set_row(state, high, lanes, 0.0)


@inner
def rotate(
    step: Any, by_tangent: bool, state: Any, plane: int, rows: Any, num_qubits: int, lanes: int
) -> None:
    """Rotate up to three qubits of one part of a state."""
    count, at = step[1], 3 * step[5] * lanes
    q0, q1, q2 = step[2], step[3], step[4]
    stride0, stride1, stride2 = lanes << q0, lanes << q1, lanes << q2
    c0, c1, c2 = at, at + 3 * lanes, at + 6 * lanes
    for block in range(1 << (num_qubits - count)):
        base = (block >> q0) << (q0 + 1) | block & ((1 << q0) - 1)
        if count > 1:
            base = (base >> q1) << (q1 + 1) | base & ((1 << q1) - 1)
        if count > 2:
            base = (base >> q2) << (q2 + 1) | base & ((1 << q2) - 1)
        base = base * lanes + plane
        if by_tangent:
            if count == 3:
                rotations.tangent3(state, base, stride0, stride1, stride2, rows, c0, c1, c2)
            elif count == 2:
                rotations.tangent2(state, base, stride0, stride1, 0, rows, c0, c1, 0)
            else:
                rotations.tangent1(state, base, stride0, 0, 0, rows, c0, 0, 0)
        elif count == 3:
            rotations.rotate3(state, base, stride0, stride1, stride2, rows, c0, c1, c2)
        elif count == 2:
            rotations.rotate2(state, base, stride0, stride1, 0, rows, c0, c1, 0)
        else:
            rotations.rotate1(state, base, stride0, 0, 0, rows, c0, 0, 0)


@inner
def _mix(
    state: Any, other: Any, table: Any, phased: bool, target: Any, moved: bool, was_complex: bool,
    scale: float, lanes: int,
) -> None:  # fmt: skip
    """Multiply phases and write each row where it goes (into `other` if rows move)."""
    states = table.shape[1]
    plane = states * lanes
    into = other if moved else state
    for row in range(states):
        at = row * lanes
        to = target[row] * lanes if moved else at
        if phased:
            real, imag = table[0, row] * scale, table[1, row] * scale
            if was_complex:
                row_ops.phase_row(into, to, to + plane, state, at, at + plane, real, imag)
            else:
                row_ops.phase_row_of_real(into, to, to + plane, state, at, real, imag)
        else:
            row_ops.copy_row(into, to, state, at)
            if was_complex:
                row_ops.copy_row(into, to + plane, state, at + plane)


@inner
def _lane_phase(
    state: Any, mask: int, rows: Any, at: int, direction: float, states: int, lanes: int
) -> None:
    for row in range(states):
        signed = direction * sign(mask & row)
        row_ops.lane_phase_row(state, row * lanes, (states + row) * lanes, rows, at, signed)


@compiled
def forward(
    plan: Any, shared: Any, cosines: Any, sines: Any, given: Any, given_imag: Any,
    tables: Any, rows: Any, state: Any, other: Any, sums: Any,
    values: Any, saved: Any, keep: bool, members: Any, tiles: Any,
) -> bool:  # fmt: skip
    """Fill `values` (members, batch, outputs), and `saved` with final states if they are kept.

    Returns whether every value is finite.
    """
    (num_qubits, steps, slots, shared_slots, product, fixed, has_fixed, term_start, term_mask,
     term_angle, targets, final_complex, index, matrix) = plan  # fmt: skip
    lanes = ROW_BYTES // state.itemsize
    states = 1 << num_qubits
    plane = states * lanes
    by_tangent = np.empty(steps.shape[0], dtype=np.bool_)
    scales, slot_scales = np.empty(steps.shape[0]), np.empty(slots.size)
    outputs = values.shape[2]
    finite = True
    for member in range(members[0], members[1]):
        angles = shared[member if shared.shape[0] > 1 else 0]
        shared_rows(slots, shared_slots, angles, rows, lanes)
        scale = plan_scales(steps, rows, lanes, 1.0, False, by_tangent, scales, slot_scales)
        for number in range(fixed.shape[0]):
            first, last = term_start[number], term_start[number + 1]
            phase_table(
                tables[number], fixed[number], has_fixed[number], term_mask[first:last],
                term_angle[first:last], angles, num_qubits,
            )  # fmt: skip
        here = member if cosines.shape[0] > 1 else 0
        start = member if given.shape[0] > 1 else 0
        for tile in range(tiles[0], tiles[1]):
            sample = tile * lanes
            sample_rows(slots, shared_slots, cosines[here], sines[here], sample, rows, lanes)
            if given.shape[2] > 0:
                gather_rows(given[start], sample, state, 0, lanes)
                if given_imag.shape[2] > 0:
                    gather_rows(given_imag[start], sample, state, plane, lanes)
            else:
                _product_state(product, rows, state, lanes)
            for number in range(steps.shape[0]):
                step = steps[number]
                if step[0] == ROTATE:
                    for part in range(1 + step[6]):
                        rotate(
                            step, by_tangent[number], state, part * plane, rows, num_qubits, lanes
                        )
                elif step[0] == MIX:
                    phased, moved = step[1] >= 0, step[2] >= 0
                    _mix(
                        state, other, tables[max(step[1], 0)], phased, targets[max(step[2], 0)],
                        moved, step[6] == 1, scales[number], lanes,
                    )  # fmt: skip
                    if moved:
                        state, other = other, state
                else:
                    if step[6] == 0:
                        state[plane : 2 * plane] = 0.0
                    _lane_phase(state, step[1], rows, 3 * step[5] * lanes, 1.0, states, lanes)
            _read(
                state, plane, final_complex, scale * scale, index, matrix, sums,
                outputs, lanes,
            )  # fmt: skip
            check = scatter_rows(sums, values[member], sample, lanes)
            finite = finite and math.isfinite(check)
            if keep:
                copy_rows(saved[member, tile], state, (1 + final_complex) * states, lanes)
    return finite


@inner
def _read(
    state: Any, plane: int, is_complex: bool, factor: float, index: Any, matrix: Any,
    sums: Any, outputs: int, lanes: int,
) -> None:  # fmt: skip
    """Sum probabilities into rows of outputs."""
    states = plane // lanes
    sums[: outputs * lanes] = 0.0
    spare = outputs * lanes
    for row in range(states):
        to = index[row] * lanes if index.size else spare
        if not index.size:
            set_row(sums, spare, lanes, 0.0)
        at = row * lanes
        if is_complex:
            row_ops.add_probability(sums, to, state, at, at + plane, factor)
        else:
            row_ops.add_square(sums, to, state, at, factor)
        if not index.size:
            row_ops.spread_row(sums, sums, spare, matrix, row * outputs, outputs)
