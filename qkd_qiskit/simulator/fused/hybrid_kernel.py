"""A hybrid student's training step in machine code: layers, circuit, loss, back again and AdamW.

    rows of the data set -> linear -> amplitudes or angles -> circuit -> linear (tanh linear)
                                   -> tanh                              or gamma log p  -> logits

Either whole epochs, member by member with the member's numbers in cache, with cross-entropy and
divergence; or one step of all members in two calls, with any loss of the logits between them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkd_qiskit.simulator.fused import dense
from qkd_qiskit.simulator.fused.dense_ops import ROWS
from qkd_qiskit.simulator.fused.hybrid_buffers import NO_CIRCUIT
from qkd_qiskit.simulator.fused.hybrid_circuit import circuit_back, run_circuit
from qkd_qiskit.simulator.fused.hybrid_losses import gamma_log, gamma_log_back, losses
from qkd_qiskit.simulator.fused.kernel import _adamw
from qkd_qiskit.simulator.kernel.compilation import compiled, merged

WHOLE, FORWARD, BACKWARD, EVALUATE = 0, 1, 2, 3
"""Whole steps with their losses, one step to its logits or back from them, or hits counted."""


@compiled
def train(
    plan: Any, maps: Any, design: Any, optimizer: Any, data: Any, order: Any, batch_size: int,
    phase: int, layers: Any, circuit: Any, memory: Any, quantum: Any, progress: Any, members: Any,
) -> None:  # fmt: skip
    """Go once through `order`, a step for every batch, or take a half of one step.

    Args:
        plan: As in `kernel.forward.forward`.
        maps: Sparse affine maps to shared angles from weights, to per-sample angles from weights
            and from features; constants of shared and of per-sample angles.
        design: What the circuit starts from, the number of layers behind it, whether gamma is
            trained, the numbers of classes, of outputs, of features, of given amplitudes and of
            given imaginary parts; then what values are multiplied by, the smallest probability,
            what features are multiplied by, the student's temperature and gamma.
        optimizer: Steps done before, rate, two decay rates of averages, epsilon, weight decay.
        data: Flat images, the image of each sample; cosines, sines and states of samples; labels,
            targets and their negative entropies.
        order: Samples in the order of their use ``(members, samples)``.
        batch_size: Samples per step.
        phase: What is done.
        layers: Of each layer the panels of weights and of AdamW's averages, for all members; no
            panels where there is no such layer.
        circuit: Weights and averages of the circuit, and at the end of the logarithm of gamma
            where it is trained.
        memory: Buffers of activations, for the largest batch, of one member or of all.
        quantum: Those of the circuit.
        progress: The terms' factors, whether a member has failed, and its mean terms.
        members: First member, and the last one plus 1.
    """
    factors, failed, means = progress
    pace = np.empty(7, dtype=memory[2].dtype)
    for member in range(members[0], members[1]):
        index = order[member if order.shape[0] > 1 else 0]
        slot = member if memory[0].shape[0] > 1 else 0
        hard, soft, count = 0.0, 0.0, optimizer[0]
        for begin in range(0, index.size, batch_size):
            if failed[member]:
                break
            batch = index[begin : begin + batch_size]
            if phase != BACKWARD:
                failed[member] = not _forward(
                    plan, maps, design, data, batch, member, layers, circuit, memory, quantum, slot
                )
            if phase == EVALUATE and not failed[member]:
                hard += _hits(memory[2][slot], memory[0].shape[1], design[0][3], data[6], batch)
            if phase in (FORWARD, EVALUATE) or failed[member]:
                continue
            if phase == WHOLE:
                logits, slopes = memory[2][slot], memory[3][slot]
                terms = losses(
                    design[0][3], design[1][3], (data[6], data[7], data[8]), batch,
                    factors[member], logits, slopes, logits.size // memory[0].shape[1],
                )  # fmt: skip
                hard += terms[0] * batch.size
                soft += terms[1] * batch.size
                if not math.isfinite(terms[0] + terms[1]):
                    failed[member] = True
                    continue
            count += 1.0
            _set_pace(optimizer, count, pace)
            failed[member] = not _backward(
                plan, maps, design, data, batch.size, member, layers, circuit, memory, quantum,
                slot, optimizer, count, pace,
            )  # fmt: skip
        if phase in (WHOLE, EVALUATE):
            means[member, 0] = math.nan if failed[member] else hard / index.size
            means[member, 1] = math.nan if failed[member] else soft / index.size


@compiled
def _hits(logits: Any, capacity: int, classes: int, labels: Any, batch: Any) -> float:
    """Return how many samples of a batch have the largest logit at their label."""
    hits, stride = 0, logits.size // capacity
    for row in range(batch.size):
        best = 0
        for place in range(1, classes):
            if logits[row * stride + place] > logits[row * stride + best]:
                best = place
        hits += best == labels[batch[row]]
    return hits


@compiled
def _set_pace(optimizer: Any, count: float, pace: Any) -> None:
    """Fill AdamW's factors of one step, as `dense_ops` lists them."""
    _, rate, keep_first, keep_second, epsilon, decay = optimizer
    pace[0] = 1.0 / math.sqrt(1.0 - keep_second**count)
    pace[1], pace[2], pace[3] = 1.0 - keep_first, keep_second, 1.0 - keep_second
    pace[4], pace[5] = epsilon, rate / (1.0 - keep_first**count)
    pace[6] = 1.0 - rate * decay


@compiled
def _gamma(design: Any, weights: Any) -> float:
    return math.exp(weights[weights.size - 1]) if design[0][2] else float(design[1][4])


@merged
def _forward(
    plan: Any, maps: Any, design: Any, data: Any, batch: Any, member: int, layers: Any,
    circuit: Any, memory: Any, quantum: Any, slot: int,
) -> bool:  # fmt: skip
    """Fill a member's logits on one batch; return whether the circuit's outputs are finite."""
    whole, numbers = design
    (offsets, counted, all_logits, _, all_first, _, all_values, _, all_inner, _, all_hidden, _,
     _, _, _, _, _) = memory  # fmt: skip
    logits, first, values, inner, hidden = (
        all_logits[slot], all_first[slot], all_values[slot], all_inner[slot], all_hidden[slot],
    )  # fmt: skip
    size, lanes, capacity = batch.size, layers[0][0].shape[3], offsets.shape[1]
    rows = (size + ROWS - 1) // ROWS * ROWS
    panels = layers[0][0].shape[1]
    if panels:
        where, inputs = offsets[slot][:rows], layers[0][0].shape[2] - 1
        for row in range(rows):
            where[row] = data[1][batch[row if row < size else 0]] * inputs
        strides = lanes, lanes * capacity
        dense.apply(layers[0][0][member], data[0], where, first, strides)
    weights = circuit[0][member]
    if whole[0] != NO_CIRCUIT and not run_circuit(
        plan, maps, design, data, batch, weights, first, capacity, values, quantum, slot
    ):
        return False
    if whole[1] == 0:
        gamma, stride = _gamma(design, weights), logits.size // capacity
        gamma_log(values, size, whole[3], numbers[1], gamma, logits, stride)
        return True
    width = inner.size // capacity
    if whole[0] == NO_CIRCUIT:
        for panel in range(panels):
            for row in range(rows):
                at, to = (panel * capacity + row) * lanes, row * width + panel * lanes
                for lane in range(lanes):
                    inner[to + lane] = math.tanh(first[at + lane])
    else:
        length = whole[4]
        for row in range(size):
            for place in range(length):
                inner[row * width + place] = numbers[0] * values[row * length + place]
    by_row = layers[1][0].shape[1] * lanes
    out = logits if whole[1] == 1 else hidden
    dense.apply(layers[1][0][member], inner, counted[0][:rows], out, (by_row, lanes))
    if whole[1] == 2:
        for place in range(rows * by_row):
            hidden[place] = math.tanh(hidden[place])
        by_last = layers[2][0].shape[1] * lanes
        dense.apply(layers[2][0][member], hidden, counted[1][:rows], logits, (by_last, lanes))
    return True


@merged
def _backward(
    plan: Any, maps: Any, design: Any, data: Any, size: int, member: int, layers: Any,
    circuit: Any, memory: Any, quantum: Any, slot: int, optimizer: Any, count: float, pace: Any,
) -> bool:  # fmt: skip
    """Take a member's step from the gradients of its logits; return whether it is finite."""
    whole, numbers = design
    (offsets, counted, all_logits, all_slopes, _, all_first_slopes, all_values, incoming,
     all_inner, inner_slopes, all_hidden, hidden_slopes, turned, turned_last, spare, gradient,
     columns) = memory  # fmt: skip
    scratch = spare, columns, counted[3]
    slopes, inner, hidden = all_slopes[slot], all_inner[slot], all_hidden[slot]
    first_slopes, lanes, capacity = all_first_slopes[0], layers[0][0].shape[3], offsets.shape[1]
    rows = (size + ROWS - 1) // ROWS * ROWS
    width = inner.size // capacity
    upper, by_upper, where = slopes, slopes.size // capacity, counted[2][:rows]
    if whole[1] == 2:
        by_row = hidden.size // capacity
        dense.transpose(layers[2][0][member], turned_last)
        dense.apply(turned_last, slopes, where, hidden_slopes, (by_row, lanes))
        for place in range(size * by_row):
            hidden_slopes[place] *= pace.dtype.type(1.0) - hidden[place] * hidden[place]
        strides = by_upper, lanes
        dense.update(layers[2], member, hidden, counted[1], size, slopes, strides, scratch, pace)
        upper, by_upper, where = hidden_slopes, by_row, counted[1][:rows]
    if whole[1]:
        dense.transpose(layers[1][0][member], turned)
        dense.apply(turned, upper, where, inner_slopes, (width, lanes))
        strides = by_upper, lanes
        dense.update(layers[1], member, inner, counted[0], size, upper, strides, scratch, pace)
    finite = True
    if whole[0] == NO_CIRCUIT:
        for panel in range(layers[0][0].shape[1]):
            for row in range(size):
                to, at = (panel * capacity + row) * lanes, row * width + panel * lanes
                for lane in range(lanes):
                    value = inner[at + lane]
                    slope = inner_slopes[at + lane] * (pace.dtype.type(1.0) - value * value)
                    first_slopes[to + lane] = slope
    else:
        weights = circuit[0][member]
        length = whole[4]
        of_gamma = 0.0
        if whole[1]:
            for row in range(size):
                for place in range(length):
                    slope = numbers[0] * inner_slopes[row * width + place]
                    incoming[row * length + place] = slope
        else:
            of_gamma = gamma_log_back(
                all_values[slot], size, whole[3], numbers[1], _gamma(design, weights),
                all_logits[slot], slopes, slopes.size // capacity, incoming,
            )  # fmt: skip
        circuit_back(
            plan, maps, design, size, incoming, first_slopes, capacity, gradient, quantum, slot
        )
        if whole[2]:
            gradient[gradient.size - 1] = of_gamma
        averages = circuit[1][member], circuit[2][member]
        finite = _adamw(weights, averages[0], averages[1], gradient, optimizer, count)
    if layers[0][0].shape[1]:
        strides = lanes, lanes * capacity
        dense.update(
            layers[0], member, data[0], offsets[slot], size, first_slopes, strides, scratch, pace
        )
    return finite
