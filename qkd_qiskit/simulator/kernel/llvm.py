"""What the bodies of vector instructions are written with: rows and their addresses, as LLVM IR.

A row holds one real component of one amplitude for a tile of samples, and fills one 64-byte vector:
16 samples in float32, 8 in float64. LLVM splits it where a processor's vectors are shorter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import config, types

from qkd_qiskit.errors import CircuitError

if config.DISABLE_JIT:
    raise CircuitError(
        "NUMBA_DISABLE_JIT is set, and the simulator's kernels only run compiled; unset it"
    )

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
