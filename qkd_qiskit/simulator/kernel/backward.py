"""The compiled kernel's sweep back: gradients of every angle and of the given states.

With outputs' gradients ``g`` (per basis state), the costate starts as ``g * state``; undoing the
steps on state and costate, an angle's gradient is a sum over rows where its operation stood. The
other half of the kernel, and what its names mean, is in forward.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from qkd_qiskit.simulator.kernel import rotations, row_ops
from qkd_qiskit.simulator.kernel.compilation import compiled, inner
from qkd_qiskit.simulator.kernel.forward import (
    copy_rows,
    gather_rows,
    phase_table,
    plan_scales,
    row_sum,
    sample_rows,
    shared_rows,
    sign,
)
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.kernel.plan import MIX, ROTATE


@inner
def rotate_back(
    step: Any, by_tangent: bool, state: Any, costate: Any, plane: int, rows: Any, sums: Any,
    num_qubits: int, lanes: int,
) -> None:  # fmt: skip
    """Undo `rotate` on state and costate, and sum its gradients."""
    count, at, to = step[1], 3 * step[5] * lanes, step[5] * lanes
    q0, q1, q2 = step[2], step[3], step[4]
    s0, s1, s2 = lanes << q0, lanes << q1, lanes << q2
    c0, c1, c2 = at, at + 3 * lanes, at + 6 * lanes
    t0, t1, t2 = to, to + lanes, to + 2 * lanes
    for block in range(1 << (num_qubits - count)):
        base = (block >> q0) << (q0 + 1) | block & ((1 << q0) - 1)
        if count > 1:
            base = (base >> q1) << (q1 + 1) | base & ((1 << q1) - 1)
        if count > 2:
            base = (base >> q2) << (q2 + 1) | base & ((1 << q2) - 1)
        base = base * lanes + plane
        if by_tangent:
            if count == 3:
                rotations.tangent_back3(
                    state, costate, base, s0, s1, s2, rows, c0, c1, c2, sums, t0, t1, t2
                )
            elif count == 2:
                rotations.tangent_back2(
                    state, costate, base, s0, s1, 0, rows, c0, c1, 0, sums, t0, t1, 0
                )
            else:
                rotations.tangent_back1(
                    state, costate, base, s0, 0, 0, rows, c0, 0, 0, sums, t0, 0, 0
                )
        elif count == 3:
            rotations.rotate_back3(
                state, costate, base, s0, s1, s2, rows, c0, c1, c2, sums, t0, t1, t2
            )
        elif count == 2:
            rotations.rotate_back2(
                state, costate, base, s0, s1, 0, rows, c0, c1, 0, sums, t0, t1, 0
            )
        else:
            rotations.rotate_back1(state, costate, base, s0, 0, 0, rows, c0, 0, 0, sums, t0, 0, 0)


@inner
def _mix_back(
    state: Any, costate: Any, old_state: Any, old_costate: Any, table: Any, phased: bool,
    target: Any, moved: bool, was_complex: bool, scale: float, sums: Any, lanes: int,
) -> None:  # fmt: skip
    """Undo phases and permutation; `sums` gains Im(conj(costate) state) per row."""
    states = table.shape[1]
    plane = states * lanes
    for row in range(states):
        to = row * lanes
        at = target[row] * lanes if moved else to
        if not phased:
            row_ops.copy_row(old_state, to, state, at)
            row_ops.copy_row(old_costate, to, costate, at)
            if was_complex:
                row_ops.copy_row(old_state, to + plane, state, at + plane)
                row_ops.copy_row(old_costate, to + plane, costate, at + plane)
            continue
        real, imag = table[0, row] * scale, -table[1, row] * scale
        row_ops.phase_gradient_row(sums, to, state, costate, at, at + plane, 1.0)
        if was_complex:
            row_ops.phase_row(old_state, to, to + plane, state, at, at + plane, real, imag)
            row_ops.phase_row(old_costate, to, to + plane, costate, at, at + plane, real, imag)
        else:
            row_ops.real_of_phase_row(old_state, to, state, at, at + plane, real, imag)
            row_ops.real_of_phase_row(old_costate, to, costate, at, at + plane, real, imag)


@inner
def _costate(
    state: Any, costate: Any, plane: int, is_complex: bool, index: Any, matrix: Any,
    incoming: Any, outputs: int, lanes: int,
) -> None:  # fmt: skip
    """Write ``costate = g * state`` with ``g`` per row from the outputs' gradients."""
    spare = outputs * lanes
    for row in range(plane // lanes):
        at = spare
        if index.size:
            at = index[row] * lanes
        else:
            row_ops.combine_rows(incoming, spare, incoming, matrix, row * outputs, outputs)
        place = row * lanes
        row_ops.multiply_rows(costate, place, state, place, incoming, at)
        if is_complex:
            row_ops.multiply_rows(costate, place + plane, state, place + plane, incoming, at)


@inner
def _product_back(product: Any, rows: Any, state: Any, costate: Any, sums: Any, lanes: int) -> None:
    for place in range(product.size):
        qubit = product.size - 1 - place
        slot = product[qubit]
        if slot >= 0:
            for low in range(1 << qubit):
                high = (low | 1 << qubit) * lanes
                row_ops.split_back(
                    state, costate, low * lanes, high, rows, 3 * slot * lanes, sums, slot * lanes
                )


@inner
def _phase_gradients(
    sums: Any, at: int, masks: Any, numbers: Any, factor: float, gradient: Any, states: int,
    lanes: int,
) -> None:  # fmt: skip
    """Add the gradients of a phase table's terms from the sums per row."""
    by_row = np.empty(states)
    for row in range(states):
        by_row[row] = row_sum(sums, at + row * lanes, lanes)
    for term in range(masks.size):
        total = 0.0
        for row in range(states):
            total += by_row[row] * sign(masks[term] & row)
        gradient[numbers[term]] += factor * total


@compiled
def _add_states(
    costate: Any, factor: float, states: int, lanes: int, sample: int, inside: int, gradient: Any
) -> None:
    """Add a tile's costate to the gradient ``(samples, states, parts)`` of the given states."""
    parts = gradient.shape[2]
    factor = costate.dtype.type(factor)
    for part in range(parts):
        for first in range(0, states, lanes):  # blocks that stay in the nearest cache
            for lane in range(inside):
                at = (part * states + first) * lanes + lane
                for row in range(min(lanes, states - first)):
                    value = factor * costate[at + row * lanes]
                    gradient[sample + lane, first + row, part] += value


@compiled
def backward(
    plan: Any, shared: Any, cosines: Any, sines: Any, tables: Any, rows: Any,
    work: Any, sums: Any, phase_sums: Any, incoming: Any,
    saved: Any, gradients: Any, keep_states: bool,
    shared_gradient: Any, sample_gradient: Any, state_gradient: Any, members: Any, tiles: Any,
) -> None:  # fmt: skip
    """Add gradients to `shared_gradient`, `sample_gradient` and, if kept, `state_gradient`."""
    (num_qubits, steps, slots, shared_slots, product, fixed, has_fixed, term_start, term_mask,
     term_angle, targets, final_complex, index, matrix) = plan  # fmt: skip
    lanes = ROW_BYTES // rows.itemsize
    states = 1 << num_qubits
    plane = states * lanes
    state, costate, other, other_costate = work[0], work[1], work[2], work[3]
    by_tangent = np.empty(steps.shape[0], dtype=np.bool_)
    scales, slot_scales = np.empty(steps.shape[0]), np.empty(slots.size)
    outputs = gradients.shape[2]
    batch = gradients.shape[1]
    for member in range(members[0], members[1]):
        mine = member if shared.shape[0] > 1 else 0
        angles = shared[mine]
        shared_rows(slots, shared_slots, angles, rows, lanes)
        last = plan_scales(steps, rows, lanes, 1.0, False, by_tangent, scales, slot_scales)
        shared_rows(slots, shared_slots, angles, rows, lanes)
        first_scale = plan_scales(steps, rows, lanes, last, True, by_tangent, scales, slot_scales)
        for slot in product:
            if slot >= 0:
                slot_scales[slot] = first_scale
        for number in range(fixed.shape[0]):
            begin, end = term_start[number], term_start[number + 1]
            phase_table(
                tables[number], fixed[number], has_fixed[number], term_mask[begin:end],
                term_angle[begin:end], angles, num_qubits,
            )  # fmt: skip
        here = member if cosines.shape[0] > 1 else 0
        start = member if state_gradient.shape[0] > 1 else 0
        sums[: shared_slots * lanes] = 0.0
        phase_sums[:] = 0.0
        for tile in range(tiles[0], tiles[1]):
            sample = tile * lanes
            inside = min(lanes, batch - sample)
            sample_rows(slots, shared_slots, cosines[here], sines[here], sample, rows, lanes)
            sums[shared_slots * lanes :] = 0.0
            copy_rows(state, saved[member, tile], (1 + final_complex) * states, lanes)
            gather_rows(gradients[member], sample, incoming, 0, lanes)
            _costate(state, costate, plane, final_complex, index, matrix, incoming, outputs, lanes)
            for place in range(steps.shape[0]):
                number = steps.shape[0] - 1 - place
                step = steps[number]
                if step[0] == ROTATE:
                    for part in range(1 + step[6]):
                        rotate_back(
                            step, by_tangent[number], state, costate, part * plane, rows, sums,
                            num_qubits, lanes,
                        )  # fmt: skip
                elif step[0] == MIX:
                    phased, moved = step[1] >= 0, step[2] >= 0
                    into = other if moved else state
                    into_costate = other_costate if moved else costate
                    table = max(step[1], 0)
                    _mix_back(
                        state, costate, into, into_costate, tables[table], phased,
                        targets[max(step[2], 0)], moved, step[6] == 1, scales[number],
                        phase_sums[table * plane : (table + 1) * plane], lanes,
                    )  # fmt: skip
                    if moved:
                        state, other = other, state
                        costate, other_costate = other_costate, costate
                else:
                    _lane_phase_back(state, costate, step[1], rows, step[5], sums, states, lanes)
            if keep_states:
                _add_states(
                    costate, 2.0 * first_scale, states, lanes, sample, inside, state_gradient[start]
                )
            else:
                _product_back(product, rows, state, costate, sums, lanes)
            for slot in range(shared_slots, slots.size):
                factor = slot_scales[slot] * slot_scales[slot]
                for lane in range(inside):
                    value = factor * sums[slot * lanes + lane]
                    sample_gradient[here, sample + lane, slots[slot]] += value
        for slot in range(shared_slots):
            factor = slot_scales[slot] * slot_scales[slot]
            shared_gradient[mine, slots[slot]] += factor * row_sum(sums, slot * lanes, lanes)
        for number in range(steps.shape[0]):
            table = steps[number, 1]
            if steps[number, 0] == MIX and table >= 0:
                begin, end = term_start[table], term_start[table + 1]
                _phase_gradients(
                    phase_sums, table * plane, term_mask[begin:end], term_angle[begin:end],
                    scales[number] * scales[number], shared_gradient[mine], states, lanes,
                )  # fmt: skip


@inner
def _lane_phase_back(
    state: Any, costate: Any, mask: int, rows: Any, slot: int, sums: Any, states: int, lanes: int
) -> None:
    at = 3 * slot * lanes
    for row in range(states):
        signed = sign(mask & row)
        real, imag = row * lanes, (states + row) * lanes
        row_ops.phase_gradient_row(sums, slot * lanes, state, costate, real, imag, signed)
        row_ops.lane_phase_row(state, real, imag, rows, at, -signed)
        row_ops.lane_phase_row(costate, real, imag, rows, at, -signed)
