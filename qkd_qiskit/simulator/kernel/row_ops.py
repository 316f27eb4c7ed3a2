"""One row of a tile at a time: vector instructions for the Numba kernel, as LLVM IR.

emitter.py tells what a row is. Loops over rows stay in Numba; the bodies are written here because
LLVM cannot prove that rows do not overlap and would not vectorise them.

All positions are offsets in elements into flat arrays. A rotation's coefficients are three rows:
cosine, sine and tangent of half the angle.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qkd_qiskit.simulator.kernel.llvm import Emitter, Row, body


@intrinsic  # type: ignore[untyped-decorator]
def split(_context: Any, state: Any, low: Any, high: Any, table: Any, at: Any) -> Any:
    """state[high] = sin * state[low]; state[low] *= cos."""

    def emit(e: Emitter) -> None:
        row = e.load(0, e[1])
        e.store(0, e[1], e.load(3, e[4]) * row)
        e.store(0, e[2], e.load(3, e[4], skip=1) * row)

    return types.void(state, low, high, table, at), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def split_back(
    _context: Any, state: Any, costate: Any, low: Any, high: Any,
    table: Any, at: Any, sums: Any, total: Any,
) -> Any:  # fmt: skip
    """Undo `split` on state and costate, and add to the rotation's gradient."""

    def emit(e: Emitter) -> None:
        cosine, sine = e.load(4, e[5]), e.load(4, e[5], skip=1)
        state0, state1 = e.load(0, e[2]), e.load(0, e[3])
        costate0, costate1 = e.load(1, e[2]), e.load(1, e[3])
        e.store(6, e[7], e.load(6, e[7]) + costate1 * state0 - costate0 * state1)
        e.store(0, e[2], cosine * state0 + sine * state1)
        e.store(1, e[2], cosine * costate0 + sine * costate1)

    return types.void(state, costate, low, high, table, at, sums, total), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def copy_row(_context: Any, target: Any, to: Any, source: Any, at: Any) -> Any:
    """target[to] = source[at]."""

    def emit(e: Emitter) -> None:
        e.store(0, e[1], e.load(2, e[3]))

    return types.void(target, to, source, at), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def phase_row(
    _context: Any, target: Any, to: Any, to_imag: Any, source: Any, at: Any, at_imag: Any,
    real: Any, imag: Any,
) -> Any:  # fmt: skip
    """target[to] = (real + i imag) * source[at] on complex rows."""

    def emit(e: Emitter) -> None:
        factor_real, factor_imag = e.splat(e[6]), e.splat(e[7])
        row_real, row_imag = e.load(3, e[4]), e.load(3, e[5])
        e.store(0, e[1], factor_real * row_real - factor_imag * row_imag)
        e.store(0, e[2], factor_real * row_imag + factor_imag * row_real)

    return types.void(target, to, to_imag, source, at, at_imag, real, imag), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def phase_row_of_real(
    _context: Any, target: Any, to: Any, to_imag: Any, source: Any, at: Any, real: Any, imag: Any
) -> Any:
    """target[to] = (real + i imag) * source[at], the source being real."""

    def emit(e: Emitter) -> None:
        row = e.load(3, e[4])
        e.store(0, e[1], e.splat(e[5]) * row)
        e.store(0, e[2], e.splat(e[6]) * row)

    return types.void(target, to, to_imag, source, at, real, imag), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def real_of_phase_row(
    _context: Any, target: Any, to: Any, source: Any, at: Any, at_imag: Any, real: Any, imag: Any
) -> Any:
    """target[to] = the real part of (real + i imag) * source[at]."""

    def emit(e: Emitter) -> None:
        row_real, row_imag = e.load(2, e[3]), e.load(2, e[4])
        e.store(0, e[1], e.splat(e[5]) * row_real - e.splat(e[6]) * row_imag)

    return types.void(target, to, source, at, at_imag, real, imag), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def lane_phase_row(
    _context: Any, state: Any, at: Any, at_imag: Any, table: Any, row: Any, sign: Any
) -> Any:
    """state[at] *= cos - i sign sin, with one angle per lane."""

    def emit(e: Emitter) -> None:
        cosine, sine = e.load(3, e[4]), e.splat(e[5]) * e.load(3, e[4], skip=1)
        real, imag = e.load(0, e[1]), e.load(0, e[2])
        e.store(0, e[1], cosine * real + sine * imag)
        e.store(0, e[2], cosine * imag - sine * real)

    return types.void(state, at, at_imag, table, row, sign), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def phase_gradient_row(
    _context: Any, sums: Any, total: Any, state: Any, costate: Any, at: Any, at_imag: Any, sign: Any
) -> Any:
    """sums[total] += sign * Im(conj(costate) state) at one row."""

    def emit(e: Emitter) -> None:
        state_real, state_imag = e.load(2, e[4]), e.load(2, e[5])
        costate_real, costate_imag = e.load(3, e[4]), e.load(3, e[5])
        value = costate_real * state_imag - costate_imag * state_real
        e.store(0, e[1], e.load(0, e[1]) + e.splat(e[6]) * value)

    return types.void(sums, total, state, costate, at, at_imag, sign), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_probability(
    _context: Any, sums: Any, total: Any, state: Any, at: Any, at_imag: Any, factor: Any
) -> Any:
    """sums[total] += factor * |state[at]|**2."""

    def emit(e: Emitter) -> None:
        real, imag = e.load(2, e[3]), e.load(2, e[4])
        e.store(0, e[1], e.load(0, e[1]) + e.splat(e[5]) * (real * real + imag * imag))

    return types.void(sums, total, state, at, at_imag, factor), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_square(_context: Any, sums: Any, total: Any, state: Any, at: Any, factor: Any) -> Any:
    """sums[total] += factor * state[at]**2."""

    def emit(e: Emitter) -> None:
        row = e.load(2, e[3])
        e.store(0, e[1], e.load(0, e[1]) + e.splat(e[4]) * (row * row))

    return types.void(sums, total, state, at, factor), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_scaled(_context: Any, sums: Any, total: Any, source: Any, at: Any, factor: Any) -> Any:
    """sums[total] += factor * source[at]."""

    def emit(e: Emitter) -> None:
        e.store(0, e[1], e.load(0, e[1]) + e.splat(e[4]) * e.load(2, e[3]))

    return types.void(sums, total, source, at, factor), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def multiply_rows(
    _context: Any, target: Any, to: Any, left: Any, left_at: Any, right: Any, right_at: Any
) -> Any:
    """target[to] = left[left_at] * right[right_at]."""

    def emit(e: Emitter) -> None:
        e.store(0, e[1], e.load(2, e[3]) * e.load(4, e[5]))

    return types.void(target, to, left, left_at, right, right_at), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def transpose(
    _context: Any, target: Any, to: Any, target_stride: Any, source: Any, at: Any,
    source_stride: Any,
) -> Any:  # fmt: skip
    """Write a square block of `source` rows, a stride apart, transposed into `target`."""

    def emit(e: Emitter) -> None:
        rows = []
        place = e[4]
        for _ in range(e.lanes):
            rows.append(e.load(3, place).value)
            place = e.builder.add(place, e[5])
        half = 1
        while half < e.lanes:  # exchange the off-diagonal halves of ever larger blocks
            low = [lane if not lane & half else e.lanes + lane - half for lane in range(e.lanes)]
            high = [lane + half if not lane & half else e.lanes + lane for lane in range(e.lanes)]
            kind = ir.VectorType(ir.IntType(32), e.lanes)
            for row in range(e.lanes):
                if not row & half:
                    pair = rows[row], rows[row | half]
                    for chosen, lanes in ((row, low), (row | half, high)):
                        mask = ir.Constant(kind, lanes)
                        rows[chosen] = e.builder.shuffle_vector(*pair, mask)
            half *= 2
        place = e[1]
        for row in rows:
            e.store(0, place, Row(e.builder, row))
            place = e.builder.add(place, e[2])

    return types.void(target, to, target_stride, source, at, source_stride), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def combine_rows(
    _context: Any, target: Any, to: Any, source: Any, matrix: Any, entry: Any, count: Any
) -> Any:
    """target[to] = sum_k matrix[entry + k] source[k] over the first `count` rows."""

    def emit(e: Emitter) -> None:
        total = cgutils.alloca_once(e.builder, e.vector)
        e.builder.store(ir.Constant(e.vector, None), total)
        with cgutils.for_range(e.builder, e[5]) as loop:
            weight = e.splat(e.scalar(3, e.builder.add(e[4], loop.index)))
            row = e.load(2, e.times(loop.index, e.lanes))
            so_far = Row(e.builder, e.builder.load(total))
            e.builder.store((so_far + weight * row).value, total)
        e.store(0, e[1], Row(e.builder, e.builder.load(total)))

    return types.void(target, to, source, matrix, entry, count), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def spread_row(
    _context: Any, sums: Any, source: Any, at: Any, matrix: Any, entry: Any, count: Any
) -> Any:
    """sums[k] += matrix[entry + k] source[at] for the first `count` rows."""

    def emit(e: Emitter) -> None:
        row = e.load(1, e[2])
        with cgutils.for_range(e.builder, e[5]) as loop:
            weight = e.splat(e.scalar(3, e.builder.add(e[4], loop.index)))
            to = e.times(loop.index, e.lanes)
            e.store(0, to, e.load(0, to) + weight * row)

    return types.void(sums, source, at, matrix, entry, count), body(emit)
