"""The compiled part of effects.py: two-qubit matrices on rows of Pauli components.

A row holds one component for up to 16 (float32) or 8 (float64) vectors; vectors are padded to that.
"""

from __future__ import annotations

from typing import Any

from qkd_qiskit.engine import simd
from qkd_qiskit.engine.kernels import compiled, row_sum


@compiled
def base_of(group: int, first: int, second: int) -> int:
    """Return a group's component whose digits of two qubits are 0; `first` is the lower qubit."""
    base = (group >> 2 * first) << (2 * first + 2) | group & ((1 << 2 * first) - 1)
    return (base >> 2 * second) << (2 * second + 2) | base & ((1 << 2 * second) - 1)


@compiled
def forward(matrices: Any, qubits: Any, history: Any) -> None:
    """Fill ``history[:, b + 1] = matrices[b]^T history[:, b]``.

    Args:
        matrices: ``(members, blocks, 256)``.
        qubits: Lower and higher digit's qubit per block ``(blocks, 2)``.
        history: ``(members, blocks + 1, components * lanes)``; the first is given.
    """
    lanes = simd.ROW_BYTES // history.itemsize
    groups = history.shape[2] // lanes // 16
    for member in range(matrices.shape[0]):
        for block in range(matrices.shape[1]):
            low, high = qubits[block, 0], qubits[block, 1]
            first, second = min(low, high), max(low, high)
            source, target = history[member, block], history[member, block + 1]
            matrix = matrices[member, block]
            for group in range(groups):
                at = base_of(group, first, second) * lanes
                simd.mix_sixteen(
                    target, source, at, lanes << 2 * low, lanes << 2 * high, matrix, 0, 1, 16
                )


@compiled
def backward(
    matrices: Any, qubits: Any, history: Any, incoming: Any, other: Any, sums: Any, gradient: Any
) -> None:
    """Fill `gradient` ``(members, blocks, 256)``, and leave the start's gradient in `incoming`.

    Args:
        matrices: As in `forward`.
        qubits: As in `forward`.
        history: As `forward` left it.
        incoming: Gradient of the last of it ``(members, components * lanes)``.
        other: As large as one member's.
        sums: ``256 * lanes``.
        gradient: What to fill.
    """
    lanes = simd.ROW_BYTES // history.itemsize
    groups = history.shape[2] // lanes // 16
    for member in range(matrices.shape[0]):
        for place in range(matrices.shape[1]):
            block = matrices.shape[1] - 1 - place
            low, high = qubits[block, 0], qubits[block, 1]
            first, second = min(low, high), max(low, high)
            before, matrix = history[member, block], matrices[member, block]
            now = incoming[member]
            sums[:] = 0.0
            for group in range(groups):
                at = base_of(group, first, second) * lanes
                step_low, step_high = lanes << 2 * low, lanes << 2 * high
                simd.add_products(sums, before, now, at, step_low, step_high)
                simd.mix_sixteen(other, now, at, step_low, step_high, matrix, 0, 16, 1)
            now[:] = other
            for entry in range(256):
                gradient[member, block, entry] = row_sum(sums, entry * lanes, lanes)
