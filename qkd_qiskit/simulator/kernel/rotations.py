"""Y rotations on a block of rows held in registers: vector instructions for the Numba kernel.

Rows, offsets and coefficients are those of simd.py.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.extending import intrinsic

from qkd_qiskit.simulator.kernel.llvm import Emitter, body


def _pairs(size: int, qubit: int) -> list[tuple[int, int]]:
    return [(row, row | 1 << qubit) for row in range(size) if not row >> qubit & 1]


def _rotation(num_qubits: int, *, by_tangent: bool) -> Any:
    """Return an intrinsic that applies Y rotations on 1 to 3 qubits to a block of rows.

    By tangent, ``(a, b) -> (a - t b, b + t a)`` leaves the factor of a cosine per rotation to the
    caller and takes one multiply-add per row instead of two.
    """

    def emit(e: Emitter) -> None:
        offsets = e.corners(e[1], [e[2], e[3], e[4]][:num_qubits])
        rows = [e.load(0, offset) for offset in offsets]
        for qubit in range(num_qubits):
            if by_tangent:
                tangent = e.load(5, e[6 + qubit], skip=2)
                for low, high in _pairs(len(rows), qubit):
                    zero, one = rows[low], rows[high]
                    rows[low], rows[high] = zero - tangent * one, one + tangent * zero
            else:
                cosine, sine = e.load(5, e[6 + qubit]), e.load(5, e[6 + qubit], skip=1)
                for low, high in _pairs(len(rows), qubit):
                    zero, one = rows[low], rows[high]
                    rows[low] = cosine * zero - sine * one
                    rows[high] = cosine * one + sine * zero
        for offset, row in zip(offsets, rows, strict=True):
            e.store(0, offset, row)

    @intrinsic  # type: ignore[untyped-decorator]
    def rotate(
        _context: Any,
        state: Any, at: Any, stride0: Any, stride1: Any, stride2: Any,
        coefficients: Any, first: Any, second: Any, third: Any,
    ) -> Any:  # fmt: skip
        arguments = (state, at, stride0, stride1, stride2, coefficients, first, second, third)
        return types.void(*arguments), body(emit)

    return rotate


def _rotation_back(num_qubits: int, *, by_tangent: bool) -> Any:
    """Return an intrinsic that undoes `_rotation` on state and costate and sums gradients.

    Per rotation ``sum(costate_1 state_0 - costate_0 state_1)`` is added to a row of `sums`.
    """

    def emit(e: Emitter) -> None:
        offsets = e.corners(e[2], [e[3], e[4], e[5]][:num_qubits])
        state = [e.load(0, offset) for offset in offsets]
        costate = [e.load(1, offset) for offset in offsets]
        for qubit in reversed(range(num_qubits)):
            total, spare = e.load(10, e[11 + qubit]), None
            for low, high in _pairs(len(state), qubit):
                total = total + costate[high] * state[low]
                term = costate[low] * state[high]
                spare = term if spare is None else spare + term
            assert spare is not None
            e.store(10, e[11 + qubit], total - spare)
            if by_tangent:
                tangent = e.load(6, e[7 + qubit], skip=2)
                for rows in (state, costate):
                    for low, high in _pairs(len(rows), qubit):
                        zero, one = rows[low], rows[high]
                        rows[low], rows[high] = zero + tangent * one, one - tangent * zero
            else:
                cosine, sine = e.load(6, e[7 + qubit]), e.load(6, e[7 + qubit], skip=1)
                for rows in (state, costate):
                    for low, high in _pairs(len(rows), qubit):
                        zero, one = rows[low], rows[high]
                        rows[low] = cosine * zero + sine * one
                        rows[high] = cosine * one - sine * zero
        for array, rows in ((0, state), (1, costate)):
            for offset, row in zip(offsets, rows, strict=True):
                e.store(array, offset, row)

    @intrinsic  # type: ignore[untyped-decorator]
    def rotate_back(
        _context: Any,
        state: Any, costate: Any, at: Any, stride0: Any, stride1: Any, stride2: Any,
        coefficients: Any, first: Any, second: Any, third: Any,
        sums: Any, sum0: Any, sum1: Any, sum2: Any,
    ) -> Any:  # fmt: skip
        arguments = (
            state, costate, at, stride0, stride1, stride2,
            coefficients, first, second, third, sums, sum0, sum1, sum2,
        )  # fmt: skip
        return types.void(*arguments), body(emit)

    return rotate_back


rotate1 = _rotation(1, by_tangent=False)
rotate2 = _rotation(2, by_tangent=False)
rotate3 = _rotation(3, by_tangent=False)
tangent1 = _rotation(1, by_tangent=True)
tangent2 = _rotation(2, by_tangent=True)
tangent3 = _rotation(3, by_tangent=True)
rotate_back1 = _rotation_back(1, by_tangent=False)
rotate_back2 = _rotation_back(2, by_tangent=False)
rotate_back3 = _rotation_back(3, by_tangent=False)
tangent_back1 = _rotation_back(1, by_tangent=True)
tangent_back2 = _rotation_back(2, by_tangent=True)
tangent_back3 = _rotation_back(3, by_tangent=True)
