"""Linear layers in machine code: forward, back to what came in, and back to the weights with AdamW.

What a panel is and how rows are found is told in dense_ops.py. Every sum is taken in one order, so
that a layer's numbers do not depend on what else is trained beside it.
"""

from __future__ import annotations

from typing import Any

from qkd_qiskit.simulator.fused.dense_ops import (
    ROWS,
    backward_block,
    backward_row,
    forward_block,
    update_row,
)
from qkd_qiskit.simulator.kernel.compilation import compiled
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES


@compiled
def apply(panels: Any, x: Any, offsets: Any, out: Any, strides: Any) -> None:
    """Fill ``out = x @ weight.T + bias``.

    Args:
        panels: Weight and bias ``(panels, inputs + 1, lanes)``.
        x: Flat; the inputs of row i begin at ``offsets[i]``.
        offsets: ``(rows,)``, a multiple of `ROWS` of them.
        out: Flat.
        strides: From one row to the next in `out`, and from one panel to the next.
    """
    lanes = ROW_BYTES // out.itemsize
    rows, inputs = panels.shape[1], panels.shape[1] - 1
    by_row, by_panel = strides
    weights = panels.reshape(panels.size)
    for first in range(0, offsets.size, ROWS):
        for panel in range(panels.shape[0]):
            forward_block(
                out, first * by_row + panel * by_panel, by_row, x, offsets, first, weights,
                panel * rows * lanes, inputs,
            )  # fmt: skip


@compiled
def update(
    layer: Any, member: int, x: Any, offsets: Any, count: int, slopes: Any, strides: Any,
    scratch: Any, factors: Any,
) -> None:  # fmt: skip
    """Take AdamW's step on a layer, given the gradient of what it gave.

    Args:
        layer: Panels of weights, and of AdamW's two averages, of all members.
        member: Whose step it is.
        x: What went in, as in `apply`.
        offsets: Where each row begins.
        count: Number of rows.
        slopes: Gradients of the outputs, flat, 0 in the padding.
        strides: From one row to the next in `slopes`, and from one panel to the next.
        scratch: One vector, a block of `ROWS` columns of the inputs and where its rows begin.
        factors: AdamW's, as `dense_ops` lists them.
    """
    lanes = ROW_BYTES // slopes.itemsize
    panels, rows = layer[0].shape[1], layer[0].shape[2]
    size, inputs = panels * rows * lanes, rows - 1
    weights, first, second = layer[0][member], layer[1][member], layer[2][member]
    weights, first, second = weights.reshape(size), first.reshape(size), second.reshape(size)
    by_row, by_panel = strides
    spare, columns, begins = scratch
    whole = inputs - inputs % ROWS
    for place in range(0, whole, ROWS):
        taken, where, start = x, offsets, place
        if panels > 1:  # a batch's rows lie on more pages than a processor keeps at hand
            for row in range(count):
                for column in range(ROWS):
                    columns[row * ROWS + column] = x[offsets[row] + place + column]
            taken, where, start = columns, begins, 0
        for panel in range(panels):
            at = (panel * rows + place) * lanes
            backward_block(
                weights, first, second, at, taken, where, start, slopes, panel * by_panel, by_row,
                count, factors,
            )  # fmt: skip
    for panel in range(panels):
        for place in range(whole, inputs):
            at = (panel * rows + place) * lanes
            backward_row(
                weights, first, second, at, x, offsets, place, slopes, panel * by_panel, by_row,
                count, factors,
            )  # fmt: skip
        for lane in range(lanes):
            spare[lane] = 0.0
        for row in range(count):
            for lane in range(lanes):
                spare[lane] += slopes[row * by_row + panel * by_panel + lane]
        update_row(weights, first, second, (panel * rows + inputs) * lanes, spare, 0, factors)


@compiled
def transpose(panels: Any, turned: Any) -> None:
    """Fill the panels that lead back from outputs to inputs; their bias is 0.

    Args:
        panels: ``(panels, inputs + 1, lanes)``.
        turned: ``(panels of inputs, padded outputs + 1, lanes)``, for `apply` on the gradients.
    """
    lanes = panels.shape[2]
    turned[:] = 0.0
    for panel in range(panels.shape[0]):
        for place in range(panels.shape[1] - 1):
            for lane in range(lanes):
                value = panels[panel, place, lane]
                turned[place // lanes, panel * lanes + lane, place % lanes] = value
