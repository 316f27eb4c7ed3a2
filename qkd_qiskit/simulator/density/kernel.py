"""The compiled CPU kernel for circuits with noise: real Pauli vectors, in rows of lanes.

Two kinds of vectors move through the operations, in tiles of 64 bytes per component: states forward
(a lane per sample) through what differs between samples, and outputs backward (a lane per output)
through what all samples share. Where they meet, their products are the output values. An operation
is the chain of one qubit, a 4x4 matrix with its own entries per lane, or a constant on two qubits,
kept as its nonzero entries. Noise cannot be undone, so a sweep that will be taken back keeps the
vectors before every chain.
"""

from __future__ import annotations

from typing import Any

from qkd_qiskit.simulator.density import row_ops as noisy_simd
from qkd_qiskit.simulator.kernel import row_ops
from qkd_qiskit.simulator.kernel.compilation import compiled, inner
from qkd_qiskit.simulator.kernel.forward import copy_rows, row_sum, set_row
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES

CHAIN, PAIR = 0, 1  # kinds of operations


@inner
def fill_turns(
    angle_of: Any, first: int, last: int, shared_cos: Any, shared_sin: Any,
    cosines: Any, sines: Any, sample: int, turns: Any, lanes: int,
) -> None:  # fmt: skip
    """Write the cosine and the sine row of some rotations.

    An angle counts per-sample angles from 0, and shared angles from -1 downwards.
    """
    for rotation in range(first, last):
        angle, at = angle_of[rotation], 2 * rotation * lanes
        if angle < 0:
            set_row(turns, at, lanes, shared_cos[-1 - angle])
            set_row(turns, at + lanes, lanes, shared_sin[-1 - angle])
            continue
        for lane in range(lanes):
            inside = sample + lane < cosines.shape[0]
            turns[at + lane] = cosines[sample + lane, angle] if inside else 1.0
            turns[at + lanes + lane] = sines[sample + lane, angle] if inside else 0.0


@inner
def chains_forward(
    chains: Any, first: int, last: int, starts: Any, constants: Any,
    turns: Any, prefixes: Any, rows: Any, lanes: int,
) -> None:  # fmt: skip
    """Multiply chains: `rows` gets their matrices, `prefixes` what they are after each rotation."""
    for chain in range(first, last):
        rotation, count, constant, width = chains[chain]
        here = 16 * chain * lanes
        into, to = (prefixes, 16 * rotation * lanes) if count else (rows, here)
        for entry in range(4 * width):
            set_row(into, to + entry * lanes, lanes, starts[16 * chain + entry])
        for number in range(count):
            at = 16 * (rotation + number) * lanes
            for column in range(width):
                x, y = at + (width + column) * lanes, at + (2 * width + column) * lanes
                noisy_simd.turn_rows(prefixes, x, y, turns, 2 * (rotation + number) * lanes)
            into, to = (prefixes, at + 16 * lanes) if number + 1 < count else (rows, here)
            matrix = 16 * (constant + number)
            for row in range(4):
                for column in range(width):
                    noisy_simd.combine_four(
                        into, to + (row * width + column) * lanes,
                        prefixes, at + column * lanes, width * lanes,
                        constants, matrix + 4 * row, 1,
                    )  # fmt: skip


@inner
def chains_backward(
    chains: Any, first: int, last: int, constants: Any, turns: Any, prefixes: Any,
    sums: Any, spare: Any, lanes: int, angle_of: Any, sample: int,
    of_shared: Any, of_samples: Any,
) -> None:  # fmt: skip
    """Add the angles' gradients, given the gradients `sums` of chains' matrices."""
    for chain in range(first, last):
        rotation, count, constant, width = chains[chain]
        source, at = sums, 16 * chain * lanes
        for place in range(count):
            number = count - 1 - place
            matrix, turned = 16 * (constant + number), 16 * (rotation + number) * lanes
            to, total = (place & 1) * 16 * lanes, 32 * lanes
            for row in range(4):
                for column in range(width):
                    noisy_simd.combine_four(
                        spare, to + (row * width + column) * lanes,
                        source, at + column * lanes, width * lanes,
                        constants, matrix + row, 4,
                    )  # fmt: skip
            set_row(spare, total, lanes, 0.0)
            for column in range(width):
                x, y = (width + column) * lanes, (2 * width + column) * lanes
                noisy_simd.turn_rows_back(
                    spare, to + x, to + y, prefixes, turned + x, turned + y,
                    turns, 2 * (rotation + number) * lanes, spare, total,
                )  # fmt: skip
            source, at = spare, to
            angle = angle_of[rotation + number]
            if angle < 0:
                of_shared[-1 - angle] += row_sum(spare, total, lanes)
            else:
                for lane in range(min(lanes, of_samples.shape[0] - sample)):
                    of_samples[sample + lane, angle] += spare[total + lane]


@inner
def base_of(group: int, first: int, second: int) -> int:
    """Return a group's component whose digits of two qubits are 0; `first` is the lower qubit."""
    base = (group >> 2 * first) << (2 * first + 2) | group & ((1 << 2 * first) - 1)
    return (base >> 2 * second) << (2 * second + 2) | base & ((1 << 2 * second) - 1)


@inner
def _pair(
    operation: Any, back: int, vectors: Any, tables: Any, spare: Any, num_qubits: int, lanes: int
) -> None:
    """Apply a constant on two qubits, or its transpose, in place."""
    spots, starts, offsets, weights = tables
    low, high = operation[1], operation[2]
    first, second, table = min(low, high), max(low, high), operation[3]
    begin = 16 * (2 * table + back)
    for group in range(1 << (2 * num_qubits - 4)):
        at = base_of(group, first, second) * lanes
        for row in range(16):
            noisy_simd.combine_sparse(
                spare, row * lanes, vectors, at, offsets, weights,
                starts[begin + row], starts[begin + row + 1],
            )  # fmt: skip
        for row in range(16):
            row_ops.copy_row(vectors, at + spots[table, row], spare, row * lanes)


@inner
def sweep(
    operations: Any, history: Any, keep: bool, tables: Any, rows: Any, spare: Any,
    num_qubits: int, lanes: int,
) -> None:  # fmt: skip
    """Apply operations to ``history[0]``.

    With `keep`, every chain's result is a new row of `history`; otherwise all is in place.
    """
    now = 0
    for number in range(operations.shape[0]):
        operation = operations[number]
        if operation[0] == PAIR:
            _pair(operation, 0, history[now], tables, spare, num_qubits, lanes)
            continue
        qubit, matrix = operation[1], 16 * operation[3] * lanes
        step, turn = (lanes, 4 * lanes) if operation[4] else (4 * lanes, lanes)
        after = now + 1 if keep else now
        source, target = history[now], history[after]
        for group in range(1 << (2 * num_qubits - 2)):
            at = ((group >> 2 * qubit) << (2 * qubit + 2) | group & ((1 << 2 * qubit) - 1)) * lanes
            noisy_simd.mix_four(target, source, at, lanes << 2 * qubit, rows, matrix, step, turn)
        now = after


@inner
def sweep_back(
    operations: Any, history: Any, gradient: Any, tables: Any, rows: Any, sums: Any, spare: Any,
    num_qubits: int, lanes: int,
) -> None:  # fmt: skip
    """Take a gradient back through `sweep`, and add the gradients of chains' matrices to `sums`."""
    now = history.shape[0] - 1
    for place in range(operations.shape[0]):
        operation = operations[operations.shape[0] - 1 - place]
        if operation[0] == PAIR:
            _pair(operation, 1, gradient, tables, spare, num_qubits, lanes)
            continue
        now -= 1
        qubit, matrix = operation[1], 16 * operation[3] * lanes
        step, turn = (4 * lanes, lanes) if operation[4] else (lanes, 4 * lanes)
        before, stride = history[now], lanes << 2 * qubit
        for group in range(1 << (2 * num_qubits - 2)):
            at = ((group >> 2 * qubit) << (2 * qubit + 2) | group & ((1 << 2 * qubit) - 1)) * lanes
            if operation[4]:
                noisy_simd.add_products(sums, matrix, before, gradient, at, stride)
            else:
                noisy_simd.add_products(sums, matrix, gradient, before, at, stride)
            noisy_simd.mix_four(gradient, gradient, at, stride, rows, matrix, step, turn)


@inner
def product_state(rows: Any, products: Any, state: Any, num_qubits: int, lanes: int) -> None:
    """Fill the state, and the products over the qubits below each in `products`."""
    set_row(products, 0, lanes, 1.0)
    at = 0
    for qubit in range(num_qubits):
        size = lanes << 2 * qubit
        last = qubit == num_qubits - 1
        into, to = (state, 0) if last else (products, at + size)
        for digit in range(4):
            factor = (16 * qubit + digit) * lanes
            for low in range(0, size, lanes):
                row_ops.multiply_rows(
                    into, to + digit * size + low, rows, factor, products, at + low
                )
        at += size


@inner
def product_state_back(
    rows: Any, products: Any, gradient: Any, sums: Any, num_qubits: int, lanes: int
) -> None:
    """Add the gradients of the qubits' vectors to `sums`; overwrites `gradient`."""
    for place in range(num_qubits):
        qubit = num_qubits - 1 - place
        size = lanes << 2 * qubit
        at = ((1 << 2 * qubit) - 1) // 3 * lanes
        for digit in range(4):
            factor = (16 * qubit + digit) * lanes
            for low in range(0, size, lanes):
                noisy_simd.add_multiplied(
                    sums, factor, gradient, digit * size + low, products, at + low
                )
        for low in range(0, size, lanes):
            first = 16 * qubit * lanes
            row_ops.multiply_rows(gradient, low, gradient, low, rows, first)
            for digit in range(1, 4):
                noisy_simd.add_multiplied(
                    gradient, low, gradient, digit * size + low, rows, first + digit * lanes
                )


@inner
def _move_outputs(
    plan: Any, scratch: Any, shared_cos: Any, shared_sin: Any, cosines: Any, sines: Any,
    effects: Any, keep: bool, moved: bool, lanes: int,
) -> None:  # fmt: skip
    """Make the late chains, and move the outputs back through the late operations."""
    (num_qubits, _, late, chains, early_chains, starts, constants, angle_of, early_rotations,
     tables, readout, _, _) = plan  # fmt: skip
    turns, prefixes, rows, _, spare, _, _, _, _ = scratch
    fill_turns(
        angle_of, early_rotations, angle_of.size, shared_cos, shared_sin, cosines, sines, 0,
        turns, lanes,
    )  # fmt: skip
    chains_forward(
        chains, early_chains, chains.shape[0], starts, constants, turns, prefixes, rows, lanes
    )
    if not moved:
        for tile in range(readout.shape[0]):
            copy_rows(effects[tile, 0], readout[tile], readout.shape[1] // lanes, lanes)
            sweep(late, effects[tile], keep, tables, rows, spare, num_qubits, lanes)


@inner
def _move_states(
    plan: Any, scratch: Any, shared_cos: Any, shared_sin: Any, cosines: Any, sines: Any,
    sample: int, states: Any, keep: bool, lanes: int,
) -> None:  # fmt: skip
    """Make a tile's first state, and move it through the early operations."""
    (num_qubits, early, _, chains, early_chains, starts, constants, angle_of, early_rotations,
     tables, _, _, _) = plan  # fmt: skip
    turns, prefixes, rows, _, spare, products, _, _, _ = scratch
    fill_turns(
        angle_of, 0, early_rotations, shared_cos, shared_sin, cosines, sines, sample, turns, lanes
    )
    chains_forward(chains, 0, early_chains, starts, constants, turns, prefixes, rows, lanes)
    product_state(rows, products, states[0], num_qubits, lanes)
    sweep(early, states, keep, tables, rows, spare, num_qubits, lanes)


@compiled
def forward(
    plan: Any, scratch: Any, shared_cos: Any, shared_sin: Any, cosines: Any, sines: Any,
    effects: Any, keep: bool, values: Any,
) -> None:  # fmt: skip
    """Fill `values` ``(members, batch, outputs)``.

    Args:
        plan: What the sweep needs of the program, see plan.py.
        scratch: Memory to work in.
        shared_cos: Cosines of shared angles ``(members or 1, angles)``.
        shared_sin: Sines of the same.
        cosines: Of per-sample angles ``(members or 1, batch, angles)``.
        sines: Of the same.
        effects: Moved outputs ``(members or 1, tiles, steps or 1, components * lanes)``.
        keep: Whether the steps of `effects` are kept.
        values: What to fill.
    """
    places, outputs = plan[11], plan[12]
    states, block = scratch[6], scratch[8]
    lanes = ROW_BYTES // block.itemsize
    for member in range(values.shape[0]):
        one = member if shared_cos.shape[0] > 1 else 0
        each = member if cosines.shape[0] > 1 else 0
        here = effects[member if effects.shape[0] > 1 else 0]
        given = (shared_cos[one], shared_sin[one], cosines[each], sines[each])
        _move_outputs(
            plan, scratch, given[0], given[1], given[2], given[3], here, keep, False, lanes
        )
        last = here.shape[1] - 1 if keep else 0
        for sample in range(0, values.shape[1], lanes):
            _move_states(
                plan, scratch, given[0], given[1], given[2], given[3], sample, states, False, lanes
            )
            for tile in range(here.shape[0]):
                noisy_simd.contract(block, states[0], here[tile, last], places, places.size)
                first = tile * lanes
                for lane in range(min(lanes, values.shape[1] - sample)):
                    for output in range(min(lanes, outputs - first)):
                        value = block[lane * lanes + output]
                        values[member, sample + lane, first + output] = value


@compiled
def backward(
    plan: Any, scratch: Any, shared_cos: Any, shared_sin: Any, cosines: Any, sines: Any,
    effects: Any, moved: bool, incoming: Any, of_shared: Any, of_samples: Any,
) -> None:  # fmt: skip
    """Add the gradients of the angles, given that of the values.

    Args:
        plan: As in `forward`.
        scratch: As in `forward`.
        shared_cos: As in `forward`.
        shared_sin: As in `forward`.
        cosines: As in `forward`.
        sines: As in `forward`.
        effects: As in `forward`, with its steps.
        moved: Whether `effects` is as `forward` left it, for all members.
        incoming: Gradient of the values ``(members, batch, outputs)``.
        of_shared: Gradient of the shared angles.
        of_samples: Gradient of the per-sample angles.
    """
    (num_qubits, early, late, chains, early_chains, _, constants, angle_of, _, tables, _,
     places, outputs) = plan  # fmt: skip
    turns, prefixes, rows, sums, spare, products, states, gradients, block = scratch
    lanes = ROW_BYTES // block.itemsize
    last, final = effects.shape[2] - 1, states.shape[0] - 1
    of_state, square = gradients[0], lanes * lanes
    for member in range(incoming.shape[0]):
        one = member if shared_cos.shape[0] > 1 else 0
        each = member if cosines.shape[0] > 1 else 0
        here = effects[member if effects.shape[0] > 1 else 0]
        given = (shared_cos[one], shared_sin[one], cosines[each], sines[each])
        to_shared = of_shared[one]
        to_samples = of_samples[each]
        _move_outputs(
            plan, scratch, given[0], given[1], given[2], given[3], here, True, moved, lanes
        )
        gradients[1:] = 0.0
        sums[:] = 0.0
        for sample in range(0, incoming.shape[1], lanes):
            _move_states(
                plan, scratch, given[0], given[1], given[2], given[3], sample, states, True, lanes
            )
            of_state[:] = 0.0
            for tile in range(here.shape[0]):
                block[:] = 0.0
                for lane in range(min(lanes, incoming.shape[1] - sample)):
                    for output in range(min(lanes, outputs - tile * lanes)):
                        value = incoming[member, sample + lane, tile * lanes + output]
                        block[lane * lanes + output] = value
                        block[square + output * lanes + lane] = value
                effect = here[tile, last]
                if late.shape[0]:
                    noisy_simd.add_spread(
                        gradients[1 + tile], states[final], block, places, places.size
                    )
                noisy_simd.add_spread(of_state, effect, block[square:], places, places.size)
            sums[: 16 * early_chains * lanes] = 0.0
            sweep_back(early, states, of_state, tables, rows, sums, spare, num_qubits, lanes)
            product_state_back(rows, products, of_state, sums, num_qubits, lanes)
            chains_backward(
                chains, 0, early_chains, constants, turns, prefixes, sums, spare, lanes, angle_of,
                sample, to_shared, to_samples,
            )  # fmt: skip
        for tile in range(here.shape[0] if late.shape[0] else 0):
            sweep_back(
                late, here[tile], gradients[1 + tile], tables, rows, sums, spare, num_qubits, lanes
            )
        chains_backward(
            chains, early_chains, chains.shape[0], constants, turns, prefixes, sums, spare, lanes,
            angle_of, 0, to_shared, to_samples,
        )  # fmt: skip
