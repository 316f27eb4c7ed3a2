"""Vector instructions for the noisy kernel alone, a row at a time; simd.py has those for both."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qkd_qiskit.simulator.kernel.llvm import Emitter, Row, body


@intrinsic  # type: ignore[untyped-decorator]
def mix_four(
    _context: Any, target: Any, source: Any, at: Any, stride: Any,
    matrix: Any, entry: Any, step: Any, turn: Any,
) -> Any:  # fmt: skip
    """target[i] = sum_j matrix[entry + i step + j turn] source[j] on one qubit's 4 components.

    Component ``i`` lies at ``at + i stride`` in both arrays; the matrix has a row per entry.
    """

    def emit(e: Emitter) -> None:
        offsets = e.four(e[2], e[3])
        rows = [e.load(1, offset) for offset in offsets]
        totals = []
        for number in range(4):
            place = e.builder.add(e[5], e.times(e[6], number))
            total = None
            for other, row in enumerate(rows):
                term = e.load(4, e.builder.add(place, e.times(e[7], other))) * row
                total = term if total is None else total + term
            totals.append(total)
        for offset, total in zip(offsets, totals, strict=True):
            assert total is not None
            e.store(0, offset, total)

    arguments = (target, source, at, stride, matrix, entry, step, turn)
    return types.void(*arguments), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_products(
    _context: Any, sums: Any, to: Any, left: Any, right: Any, at: Any, stride: Any
) -> Any:
    """sums[to + 4 i + j] += left[i] right[j] over one qubit's 4 components, one row per pair."""

    def emit(e: Emitter) -> None:
        offsets = e.four(e[4], e[5])
        rows = [e.load(3, offset) for offset in offsets]
        for number, offset in enumerate(offsets):
            other = e.load(2, offset)
            for place, row in enumerate(rows):
                entry = e.builder.add(e[1], e[1].type((4 * number + place) * e.lanes))
                e.store(0, entry, e.load(0, entry) + other * row)

    return types.void(sums, to, left, right, at, stride), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def combine_four(
    _context: Any, target: Any, to: Any, source: Any, at: Any, stride: Any,
    matrix: Any, entry: Any, turn: Any,
) -> Any:  # fmt: skip
    """target[to] = sum_j matrix[entry + j turn] source[at + j stride] over 4 rows."""

    def emit(e: Emitter) -> None:
        total = None
        for number, offset in enumerate(e.four(e[3], e[4])):
            weight = e.scalar(5, e.builder.add(e[6], e.times(e[7], number)))
            term = e.splat(weight) * e.load(2, offset)
            total = term if total is None else total + term
        assert total is not None
        e.store(0, e[1], total)

    return types.void(target, to, source, at, stride, matrix, entry, turn), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def combine_sparse(
    _context: Any, target: Any, to: Any, source: Any, at: Any,
    offsets: Any, weights: Any, first: Any, last: Any,
) -> Any:  # fmt: skip
    """target[to] = sum_k weights[k] source[at + offsets[k]] for k from `first` to `last` - 1."""

    def emit(e: Emitter) -> None:
        total = cgutils.alloca_once(e.builder, e.vector)
        e.builder.store(ir.Constant(e.vector, None), total)
        with cgutils.for_range_slice(e.builder, e[6], e[7], e[6].type(1)) as (index, _):
            offset = e.builder.add(e[3], e.scalar(4, index))
            term = e.splat(e.scalar(5, index)) * e.load(2, offset)
            e.builder.store((Row(e.builder, e.builder.load(total)) + term).value, total)
        e.store(0, e[1], Row(e.builder, e.builder.load(total)))

    return types.void(target, to, source, at, offsets, weights, first, last), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def turn_rows(_context: Any, rows: Any, low: Any, high: Any, table: Any, at: Any) -> Any:
    """Turn two rows by an angle per lane, whose cosines lie at `at` and sines after them."""

    def emit(e: Emitter) -> None:
        cosine, sine = e.load(3, e[4]), e.load(3, e[4], skip=1)
        first, second = e.load(0, e[1]), e.load(0, e[2])
        e.store(0, e[1], cosine * first - sine * second)
        e.store(0, e[2], sine * first + cosine * second)

    return types.void(rows, low, high, table, at), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def turn_rows_back(
    _context: Any, gradient: Any, low: Any, high: Any, turned: Any, turned_low: Any,
    turned_high: Any, table: Any, at: Any, sums: Any, total: Any,
) -> Any:  # fmt: skip
    """Take a gradient back through `turn_rows`, and add to the angle's."""

    def emit(e: Emitter) -> None:
        cosine, sine = e.load(6, e[7]), e.load(6, e[7], skip=1)
        first, second = e.load(0, e[1]), e.load(0, e[2])
        slope = second * e.load(3, e[4]) - first * e.load(3, e[5])
        e.store(8, e[9], e.load(8, e[9]) + slope)
        e.store(0, e[1], cosine * first + sine * second)
        e.store(0, e[2], cosine * second - sine * first)

    arguments = (gradient, low, high, turned, turned_low, turned_high, table, at, sums, total)
    return types.void(*arguments), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_multiplied(
    _context: Any, target: Any, to: Any, left: Any, left_at: Any, right: Any, right_at: Any
) -> Any:
    """target[to] += left[left_at] * right[right_at]."""

    def emit(e: Emitter) -> None:
        product = e.load(2, e[3]) * e.load(4, e[5])
        e.store(0, e[1], e.load(0, e[1]) + product)

    return types.void(target, to, left, left_at, right, right_at), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def contract(_context: Any, target: Any, left: Any, right: Any, places: Any, count: Any) -> Any:
    """target[lane] = sum_k left[places[k]][lane] right[places[k]], one row per lane of `left`."""

    def emit(e: Emitter) -> None:
        totals = [cgutils.alloca_once(e.builder, e.vector) for _ in range(e.lanes)]
        for total in totals:
            e.builder.store(ir.Constant(e.vector, None), total)
        with cgutils.for_range(e.builder, e[4]) as loop:
            at = e.scalar(3, loop.index)
            row = e.load(2, at)
            for lane, total in enumerate(totals):
                term = e.splat(e.scalar(1, e.builder.add(at, at.type(lane)))) * row
                e.builder.store((Row(e.builder, e.builder.load(total)) + term).value, total)
        for lane, total in enumerate(totals):
            row = Row(e.builder, e.builder.load(total))
            e.store(0, e[4].type(lane * e.lanes), row)

    return types.void(target, left, right, places, count), body(emit)


@intrinsic  # type: ignore[untyped-decorator]
def add_spread(_context: Any, target: Any, left: Any, rows: Any, places: Any, count: Any) -> Any:
    """target[places[k]] += sum_lane left[places[k]][lane] rows[lane]."""

    def emit(e: Emitter) -> None:
        given = [e.load(2, e[4].type(lane * e.lanes)) for lane in range(e.lanes)]
        with cgutils.for_range(e.builder, e[4]) as loop:
            at = e.scalar(3, loop.index)
            total = e.load(0, at)
            for lane, row in enumerate(given):
                total = total + e.splat(e.scalar(1, e.builder.add(at, at.type(lane)))) * row
            e.store(0, at, total)

    return types.void(target, left, rows, places, count), body(emit)
