"""A training step in machine code: angles, circuit, loss, sweep back and AdamW, without torch.

The circuit's forward pass and its sweep back are those of kernels.py and adjoint.py; here is what
lies before, between and after them. A member is trained through all its batches before the next
one: members do not depend on each other, and one member's buffers stay in cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkd_qiskit.engine.adjoint import backward
from qkd_qiskit.engine.kernels import compiled, forward


@compiled
def train(
    plan: Any, maps: Any, rule: Any, optimizer: Any, samples: Any, order: Any, batch_size: int,
    gather: bool, update: bool, memory: Any, progress: Any, members: Any,
) -> None:  # fmt: skip
    """Go once through `order`, a step for every batch, and fill the members' mean loss terms.

    Args:
        plan: As in `kernels.forward`.
        maps: Sparse affine maps from weights to shared and to per-sample angles.
        rule: From outputs to logits and losses; see `_losses`.
        optimizer: Steps done before, rate, two decay rates of averages, epsilon, weight decay.
        samples: Cosines, sines, given states (real, imaginary), labels, targets and their negative
            entropies, each with a leading dimension of 1 where members share it.
        order: Samples in the order of their use ``(members or 1, samples)``.
        batch_size: Samples per step.
        gather: Whether given states must be picked; otherwise the samples are one whole batch.
        update: Whether weights are updated; otherwise only their gradients are found.
        memory: Buffers, for the largest batch.
        progress: Weights, first and second averages, the terms' factors, whether a member has
            failed, gradients, and the mean terms.
        members: First member, and the last one plus 1.
    """
    weights, first, second, factors, failed, gradients, means = progress
    for member in range(members[0], members[1]):
        index = order[member if order.shape[0] > 1 else 0]
        count = optimizer[0]
        hard, soft = 0.0, 0.0
        for begin in range(0, index.size, batch_size):
            if failed[member]:
                break
            batch = index[begin : begin + batch_size]
            terms = _gradient(
                plan, maps, rule, samples, batch, gather, member, weights[member],
                factors[member], memory, gradients[member],
            )  # fmt: skip
            count += 1.0
            if update:
                failed[member] = not _adamw(
                    weights[member], first[member], second[member], gradients[member], optimizer,
                    count,
                )  # fmt: skip
            hard += terms[0] * batch.size
            soft += terms[1] * batch.size
        means[member, 0] = math.nan if failed[member] else hard / index.size
        means[member, 1] = math.nan if failed[member] else soft / index.size


@compiled
def _gradient(
    plan: Any, maps: Any, rule: Any, samples: Any, batch: Any, gather: bool, member: int,
    weights: Any, factors: Any, memory: Any, gradient: Any,
) -> tuple[float, float]:  # fmt: skip
    """Fill a member's gradient on one batch; return its loss terms."""
    all_cosines, all_sines, all_given, all_imag, all_labels, all_targets, all_entropies = samples
    (tables, rows, states, sums, phases, outputs, saved, shared, shared_gradient, no_gradient,
     flat_cosines, flat_sines, flat_sampled, flat_values, flat_incoming, flat_given, flat_imag,
     logits) = memory  # fmt: skip
    shared_map, sample_map, constants = maps
    size = batch.size
    angles = flat_cosines.size // (flat_values.size // logits.shape[1])
    cosines = flat_cosines[: size * angles].reshape(1, size, angles)
    sines = flat_sines[: size * angles].reshape(1, size, angles)
    values = flat_values[: size * logits.shape[1]].reshape(1, size, logits.shape[1])
    incoming = flat_incoming[: values.size].reshape(1, size, logits.shape[1])
    sampled = flat_sampled[: size * angles].reshape(1, size, angles)
    for angle in range(shared.shape[1]):
        shared[0, angle] = constants[angle] + _angle(shared_map, angle, weights)
    _sample_angles(
        sample_map, weights, all_cosines[member if all_cosines.shape[0] > 1 else 0],
        all_sines[member if all_sines.shape[0] > 1 else 0], batch, cosines[0], sines[0],
    )  # fmt: skip
    given = _pick(all_given, member, batch, gather, flat_given)
    imag = _pick(all_imag, member, batch, gather, flat_imag)
    tiles = (0, saved.shape[1])
    lanes = rows.size // (3 * sums.size // (states.shape[1] >> 1 >> plan[0]))
    tiles = (0, (size + lanes - 1) // lanes)
    forward(
        plan, shared, cosines, sines, given, imag, tables, rows, states[0], states[1], outputs,
        values, saved, True, (0, 1), tiles,
    )  # fmt: skip
    terms = _losses(
        values[0], batch, all_labels[member if all_labels.shape[0] > 1 else 0],
        all_targets[member if all_targets.shape[0] > 1 else 0],
        all_entropies[member if all_entropies.shape[0] > 1 else 0], rule, factors, logits,
        incoming[0],
    )  # fmt: skip
    shared_gradient[:] = 0.0
    sampled[:] = 0.0
    backward(
        plan, shared, cosines, sines, tables, rows, states, sums, phases, outputs, saved, incoming,
        False, shared_gradient, sampled, no_gradient, (0, 1), tiles,
    )  # fmt: skip
    gradient[:] = 0.0
    for angle in range(shared.shape[1]):
        _add_angle(shared_map, angle, shared_gradient[0, angle], gradient)
    for angle in range(angles):
        total = 0.0
        for sample in range(size):
            total += sampled[0, sample, angle]
        _add_angle(sample_map, angle, total, gradient)
    return terms
