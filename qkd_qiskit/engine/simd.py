"""One row of a tile at a time: vector instructions for the Numba kernel, as LLVM IR.

A row holds one real component of one amplitude for a tile of samples, and fills one 64-byte vector:
16 samples in float32, 8 in float64. LLVM splits it where a processor's vectors are shorter. Loops
over rows stay in Numba; the bodies are written here because LLVM cannot prove that rows do not
overlap and would not vectorise them.

All positions are offsets in elements into flat arrays. A rotation's coefficients are three rows:
cosine, sine and tangent of half the angle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

ROW_BYTES = 64
_FLAGS = ("contract", "nsz")  # a * b + c in one instruction where the processor has one


class Row:
    """A vector value with arithmetic."""

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    def __add__(self, other: Row) -> Row:
        return Row(self.builder, self.builder.fadd(self.value, other.value, flags=_FLAGS))

    def __sub__(self, other: Row) -> Row:
        return Row(self.builder, self.builder.fsub(self.value, other.value, flags=_FLAGS))

    def __mul__(self, other: Row) -> Row:
        return Row(self.builder, self.builder.fmul(self.value, other.value, flags=_FLAGS))


class Emitter:
    """Loads, stores and scalars of one intrinsic's body; arguments are taken by position."""

    def __init__(self, context: Any, builder: Any, signature: Any, arguments: Any) -> None:
        self.context, self.builder = context, builder
        self.types, self.arguments = signature.args, arguments
        element = self.types[0].dtype
        self.bytes = element.bitwidth // 8
        self.lanes = ROW_BYTES // self.bytes
        self.vector = ir.VectorType(context.get_data_type(element), self.lanes)
        self._bases = {
            position: context.make_array(kind)(context, builder, arguments[position]).data
            for position, kind in enumerate(self.types)
            if isinstance(kind, types.Array)
        }

    def __getitem__(self, position: int) -> Any:
        return self.arguments[position]

    def _pointer(self, array: int, offset: Any) -> Any:
        place = self.builder.gep(self._bases[array], [offset])
        return self.builder.bitcast(place, self.vector.as_pointer())

    def load(self, array: int, offset: Any, *, skip: int = 0) -> Row:
        """Return the row at an offset, or so many rows after it."""
        if skip:
            offset = self.builder.add(offset, offset.type(skip * self.lanes))
        pointer = self._pointer(array, offset)
        return Row(self.builder, self.builder.load(pointer, align=self.bytes))

    def store(self, array: int, offset: Any, row: Row) -> None:
        """Write a row."""
        self.builder.store(row.value, self._pointer(array, offset), align=self.bytes)

    def splat(self, scalar: Any) -> Row:
        """Return a row with one scalar, which may be of higher precision, in every lane."""
        if scalar.type != self.vector.element:
            scalar = self.builder.fptrunc(scalar, self.vector.element)
        undefined = ir.Constant(self.vector, ir.Undefined)
        zero = ir.IntType(32)(0)
        first = self.builder.insert_element(undefined, scalar, zero)
        mask = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return Row(self.builder, self.builder.shuffle_vector(first, undefined, mask))

    def corners(self, base: Any, strides: list[Any]) -> list[Any]:
        """Return the offsets of a block of rows: base plus every subset of the strides."""
        offsets = [base]
        for stride in strides:
            offsets += [self.builder.add(offset, stride) for offset in offsets]
        return offsets

    def scalar(self, array: int, offset: Any) -> Any:
        """Return one element."""
        return self.builder.load(self.builder.gep(self._bases[array], [offset]))

    def times(self, value: Any, factor: int) -> Any:
        """Return an integer times a constant."""
        return self.builder.mul(value, value.type(factor))

    def four(self, base: Any, stride: Any) -> list[Any]:
        """Return four offsets from a base on, a stride apart."""
        return [self.builder.add(base, self.times(stride, place)) for place in range(4)]


def body(emit: Callable[[Emitter], None]) -> Callable[..., Any]:
    """Return an intrinsic's code generator."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        emit(Emitter(context, builder, signature, arguments))
        return context.get_dummy_value()

    return generate


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
