"""Products of a linear layer on blocks of vectors held in registers, as LLVM IR, with AdamW.

A layer's numbers are kept in *panels* ``(panels, inputs + 1, lanes)``: its transposed weight, so
many outputs side by side as a vector holds, and the bias as the last row. Outputs past the last are
padding and stay 0. Activations are ``(rows, padded width)``; the rows that go in are found by their
offsets, so that a batch is never copied out of the data set.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES, Emitter, Row, body

ROWS = 16 if llvmlite.binding.get_host_cpu_features().get("avx512f") else 4
"""Vectors of a block: as many sums as a processor's registers hold beside the factors."""

_UNROLL = 4
ROOT, KEEP_FIRST, KEEP_SECOND, NEW_SECOND, EPSILON, STEP, DECAY = range(7)
"""What an array of AdamW's factors holds: 1 / sqrt(1 - beta2^t), 1 - beta1, beta2, 1 - beta2,
epsilon, lr / (1 - beta1^t), 1 - lr * weight decay."""


def _accumulate(e: Emitter, sums: list[Any], row: Row, factors: list[Any]) -> None:
    """Add a vector times a scalar to each sum."""
    for total, factor in zip(sums, factors, strict=True):
        so_far = Row(e.builder, e.builder.load(total))
        e.builder.store((so_far + e.splat(factor) * row).value, total)


def _forward(rows: int) -> Any:
    """Return an intrinsic: ``out[i] = panel[count] + sum_j x[offsets[i] + j] * panel[j]``."""

    def emit(e: Emitter) -> None:
        # out, to, stride, x, offsets, first, panels, at, count
        b, count = e.builder, e[8]
        bases = [e.scalar(4, b.add(e[5], e[5].type(i))) for i in range(rows)]
        bias = e.load(6, b.add(e[7], e.times(count, e.lanes)))
        sums = [cgutils.alloca_once_value(b, bias.value) for _ in range(rows)]
        whole = b.udiv(count, count.type(_UNROLL))

        def block(place: Any, length: int) -> None:
            at = b.add(e[7], e.times(place, e.lanes))
            vectors = [e.load(6, at, skip=step) for step in range(length)]
            for total, base in zip(sums, bases, strict=True):
                start = b.add(base, place)
                value = Row(b, b.load(total))
                for step, vector in enumerate(vectors):
                    factor = e.scalar(3, b.add(start, start.type(step)))
                    value = value + e.splat(factor) * vector
                b.store(value.value, total)

        with cgutils.for_range(b, whole) as loop:
            block(e.times(loop.index, _UNROLL), _UNROLL)
        done = e.times(whole, _UNROLL)
        with cgutils.for_range(b, b.sub(count, done)) as loop:
            block(b.add(done, loop.index), 1)
        for i, total in enumerate(sums):
            to = b.add(e[1], e.times(e[2], i))
            e.store(0, to, Row(b, b.load(total)))

    @intrinsic  # type: ignore[untyped-decorator]
    def forward(
        _context: Any, out: Any, to: Any, stride: Any, x: Any, offsets: Any, first: Any,
        panels: Any, at: Any, count: Any,
    ) -> Any:  # fmt: skip
        arguments = (out, to, stride, x, offsets, first, panels, at, count)
        return types.void(*arguments), body(emit)

    return forward


def _adamw(e: Emitter, at: Any, slope: Row, *, layer: int, factors: list[Row]) -> None:
    """Update a vector of weights, and its averages, at `at`; the arrays are `layer` and on."""
    b = e.builder
    weight, first, second = (e.load(layer + part, at) for part in range(3))
    first = first + factors[KEEP_FIRST] * (slope - first)
    second = factors[KEEP_SECOND] * second + factors[NEW_SECOND] * slope * slope
    kind = ir.FunctionType(e.vector, [e.vector])
    name = f"llvm.sqrt.v{e.lanes}f{8 * e.bytes}"
    root = cgutils.get_or_insert_function(b.module, kind, name)
    size = Row(b, b.call(root, [second.value])) * factors[ROOT] + factors[EPSILON]
    change = Row(b, b.fdiv((factors[STEP] * first).value, size.value))
    e.store(layer, at, weight * factors[DECAY] - change)
    e.store(layer + 1, at, first)
    e.store(layer + 2, at, second)


def _factors(e: Emitter, array: int) -> list[Row]:
    place = ir.IntType(64)
    return [e.splat(e.scalar(array, place(number))) for number in range(7)]


def _backward(rows: int) -> Any:
    """Return an intrinsic: AdamW on panel rows, given what came in and the outputs' gradient.

    Row i of the panel has the gradient ``sum_j x[offsets[j] + place + i] * slopes[j]``.
    """

    def emit(e: Emitter) -> None:
        # weights, first, second, at, x, offsets, place, slopes, slopes_at, stride, count, factors
        b = e.builder
        zero = ir.Constant(e.vector, None)
        sums = [cgutils.alloca_once_value(b, zero) for _ in range(rows)]
        with cgutils.for_range(b, e[10]) as loop:
            start = b.add(e.scalar(5, loop.index), e[6])
            slope = e.load(7, b.add(e[8], b.mul(loop.index, e[9])))
            values = [e.scalar(4, b.add(start, start.type(i))) for i in range(rows)]
            _accumulate(e, sums, slope, values)
        factors = _factors(e, 11)
        for i, total in enumerate(sums):
            at = b.add(e[3], e[3].type(i * e.lanes))
            _adamw(e, at, Row(b, b.load(total)), layer=0, factors=factors)

    @intrinsic  # type: ignore[untyped-decorator]
    def backward(
        _context: Any, weights: Any, first: Any, second: Any, at: Any, x: Any, offsets: Any,
        place: Any, slopes: Any, slopes_at: Any, stride: Any, count: Any, factors: Any,
    ) -> Any:  # fmt: skip
        arguments = (
            weights, first, second, at, x, offsets, place, slopes, slopes_at, stride, count, factors
        )  # fmt: skip
        return types.void(*arguments), body(emit)

    return backward


@intrinsic  # type: ignore[untyped-decorator]
def update_row(
    _context: Any, weights: Any, first: Any, second: Any, at: Any, slopes: Any, place: Any,
    factors: Any,
) -> Any:  # fmt: skip
    """AdamW on one vector of numbers, given its gradient `slopes[place]`."""

    def emit(e: Emitter) -> None:
        _adamw(e, e[3], e.load(4, e[5]), layer=0, factors=_factors(e, 6))

    return types.void(weights, first, second, at, slopes, place, factors), body(emit)


forward_block, backward_block, backward_row = _forward(ROWS), _backward(ROWS), _backward(1)


def lanes_of(itemsize: int) -> int:
    """Return how many numbers of so many bytes a vector holds."""
    return ROW_BYTES // itemsize
