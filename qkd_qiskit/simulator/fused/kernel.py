"""A training step in machine code: angles, circuit, loss, sweep back and AdamW, without torch.

The circuit is run forward by kernel/forward.py and back by kernel/backward.py; here is what lies
before, between and after them. A member is trained through all its batches before the next one:
members do not depend on each other, and one member's buffers stay in cache.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from qkd_qiskit.simulator.kernel.backward import backward
from qkd_qiskit.simulator.kernel.compilation import compiled, inner
from qkd_qiskit.simulator.kernel.forward import forward
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES


@compiled
def train(
    plan: Any, maps: Any, rule: Any, optimizer: Any, samples: Any, order: Any, batch_size: int,
    gather: bool, update: bool, memory: Any, progress: Any, members: Any,
) -> None:  # fmt: skip
    """Go once through `order`, a step for every batch, and fill the members' mean loss terms.

    Args:
        plan: As in `kernel.forward.forward`.
        maps: Sparse affine maps from weights to shared and to per-sample angles, constants of the
            former, and the products of inputs and weights in the latter.
        rule: From outputs to logits and losses; see `_losses`.
        optimizer: Steps done before, rate, two decay rates of averages, epsilon, weight decay.
        samples: Cosines, sines, given states (real, imaginary), labels, targets, their negative
            entropies and inputs, each with a leading dimension of 1 where members share it.
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


@inner
def _gradient(
    plan: Any, maps: Any, rule: Any, samples: Any, batch: Any, gather: bool, member: int,
    weights: Any, factors: Any, memory: Any, gradient: Any,
) -> tuple[float, float]:  # fmt: skip
    """Fill a member's gradient on one batch; return its loss terms."""
    (all_cosines, all_sines, all_given, all_imag, all_labels, all_targets, all_entropies,
     all_inputs) = samples  # fmt: skip
    (tables, rows, states, sums, phases, outputs, saved, shared, shared_gradient, no_gradient,
     flat_cosines, flat_sines, flat_sampled, flat_values, flat_incoming, flat_given, flat_imag,
     logits) = memory  # fmt: skip
    shared_map, sample_map, constants, products = maps
    inputs = all_inputs[_row(all_inputs, member)]
    size, angles, classes = batch.size, sample_map[0].size - 1, logits.shape[1]
    cosines = flat_cosines[: size * angles].reshape(1, size, angles)
    sines = flat_sines[: size * angles].reshape(1, size, angles)
    sampled = flat_sampled[: size * angles].reshape(1, size, angles)
    values = flat_values[: size * classes].reshape(1, size, classes)
    incoming = flat_incoming[: size * classes].reshape(1, size, classes)
    for angle in range(constants.size):
        shared[0, angle] = constants[angle] + _angle(shared_map, angle, weights)
    _sample_angles(
        sample_map, weights, all_cosines[_row(all_cosines, member)],
        all_sines[_row(all_sines, member)], batch, cosines[0], sines[0],
    )  # fmt: skip
    _turn_by_products(products, weights, inputs, batch, cosines[0], sines[0])
    given = _pick(all_given[_row(all_given, member)], batch, gather, flat_given)
    imag = _pick(all_imag[_row(all_imag, member)], batch, gather, flat_imag)
    lanes = ROW_BYTES // rows.itemsize
    # Not literals, which would be compiled as types of their own.
    begin, keep = np.int64(0), size > 0
    one, tiles = (begin, begin + 1), (begin, begin + (size + lanes - 1) // lanes)
    finite = forward(
        plan, shared, cosines, sines, given, imag, tables, rows, states[0], states[1], outputs,
        values, saved, keep, one, tiles,
    )  # fmt: skip
    if not finite:
        gradient[:] = math.nan
        return math.nan, math.nan
    terms = _losses(
        rule, values[0], batch, all_labels[_row(all_labels, member)],
        all_targets[_row(all_targets, member)], all_entropies[_row(all_entropies, member)],
        factors, logits, incoming[0],
    )  # fmt: skip
    shared_gradient[:] = 0.0
    sampled[:] = 0.0
    backward(
        plan, shared, cosines, sines, tables, rows, states, sums, phases, outputs, saved, incoming,
        not keep, shared_gradient, sampled, no_gradient, one, tiles,
    )  # fmt: skip
    gradient[:] = 0.0
    for angle in range(constants.size):
        _add_angle(shared_map, angle, shared_gradient[0, angle], gradient)
    for angle in range(angles):
        total = 0.0
        for sample in range(size):
            total += sampled[0, sample, angle]
        _add_angle(sample_map, angle, total, gradient)
        _add_products(products, angle, sampled[0], inputs, batch, gradient)
    return terms


@inner
def _row(array: Any, member: int) -> int:
    """Return a member's place in an array that all members may share."""
    return member if array.shape[0] > 1 else 0


@inner
def _angle(sparse: Any, angle: int, weights: Any) -> float:
    """Return an angle's part that comes from weights."""
    starts, columns, factors = sparse
    total = 0.0
    for term in range(starts[angle], starts[angle + 1]):
        total += factors[term] * weights[columns[term]]
    return total


@inner
def _add_angle(sparse: Any, angle: int, change: float, gradient: Any) -> None:
    """Add to the weights' gradient, given one angle's."""
    starts, columns, factors = sparse
    for term in range(starts[angle], starts[angle + 1]):
        gradient[columns[term]] += factors[term] * change


@inner
def _add_products(
    products: Any, angle: int, sampled: Any, inputs: Any, batch: Any, gradient: Any
) -> None:
    """Add what an angle's gradients by sample are to the weights that inputs are multiplied by."""
    starts, columns, places, factors = products
    for term in range(starts[angle], starts[angle + 1]):
        total = 0.0
        for sample in range(batch.size):
            total += sampled[sample, angle] * inputs[batch[sample], columns[term]]
        gradient[places[term]] += factors[term] * total


@inner
def _sample_angles(
    sparse: Any, weights: Any, known_cosines: Any, known_sines: Any, batch: Any,
    cosines: Any, sines: Any,
) -> None:  # fmt: skip
    """Add the weights' part of half the per-sample angles to what comes from inputs.

    By the addition theorem: only the weights' part changes from step to step.
    """
    for angle in range(cosines.shape[1]):
        half = 0.5 * _angle(sparse, angle, weights)
        cosine, sine = cosines.dtype.type(math.cos(half)), cosines.dtype.type(math.sin(half))
        for sample in range(batch.size):
            known_cosine = known_cosines[batch[sample], angle]
            known_sine = known_sines[batch[sample], angle]
            cosines[sample, angle] = known_cosine * cosine - known_sine * sine
            sines[sample, angle] = known_sine * cosine + known_cosine * sine


@inner
def _turn_by_products(
    products: Any, weights: Any, inputs: Any, batch: Any, cosines: Any, sines: Any
) -> None:
    """Add half the products of inputs and weights to the per-sample angles."""
    starts, columns, places, factors = products
    kind = cosines.dtype.type
    for angle in range(cosines.shape[1]):
        begin, end = starts[angle], starts[angle + 1]
        if begin == end:
            continue
        for sample in range(batch.size):
            half = kind(0.0)
            for term in range(begin, end):
                factor = kind(0.5 * factors[term]) * weights[places[term]]
                half += factor * inputs[batch[sample], columns[term]]
            cosine, sine = math.cos(half), math.sin(half)
            before, beside = cosines[sample, angle], sines[sample, angle]
            cosines[sample, angle] = before * cosine - beside * sine
            sines[sample, angle] = beside * cosine + before * sine


@inner
def _pick(states: Any, batch: Any, gather: bool, buffer: Any) -> Any:
    """Return a batch's given states ``(1, samples, length)``, in the buffer if it was gathered."""
    length = states.shape[1]
    if not gather:
        return states.reshape(1, states.shape[0], length)
    picked = buffer[: batch.size * length].reshape(1, batch.size, length)
    if length:
        for sample in range(batch.size):
            picked[0, sample] = states[batch[sample]]
    return picked


@inner
def _losses(
    rule: Any, values: Any, batch: Any, labels: Any, targets: Any, entropies: Any, factors: Any,
    logits: Any, incoming: Any,
) -> tuple[float, float]:  # fmt: skip
    """Fill the gradients of the outputs; return cross-entropy and divergence, batch means.

    A rule is whether logits are a logarithm, their factor, the smallest value whose logarithm is
    taken and what is added to it, and the student's temperature, in the outputs' precision.
    """
    is_log, factor, smallest, added, temperature = rule
    kind = values.dtype.type
    count, classes = values.shape
    by_label = kind(factors[0] / count)
    by_target = kind(factors[1] * temperature / count)
    coolness = kind(1.0) / temperature
    hard, soft = 0.0, 0.0
    for sample in range(count):
        row = batch[sample]
        top = kind(-math.inf)
        for place in range(classes):
            value = values[sample, place]
            if is_log:
                value = math.log(max(value, smallest) + added)
            logits[0, place] = factor * value
            top = max(top, logits[0, place])
        plain, mild, expected = kind(0.0), kind(0.0), kind(0.0)
        for place in range(classes):
            away = logits[0, place] - top
            logits[0, place], logits[1, place] = math.exp(away), math.exp(away * coolness)
            plain += logits[0, place]
            mild += logits[1, place]
            expected += targets[row, place] * away
            if place == labels[row]:
                hard -= away
        hard += math.log(plain)
        soft += entropies[row] - expected * coolness + math.log(mild)
        to_plain, to_mild = by_label / plain, by_target / mild
        for place in range(classes):
            change = to_plain * logits[0, place] + to_mild * logits[1, place]
            change -= by_target * targets[row, place]
            if place == labels[row]:
                change -= by_label
            change *= factor
            if is_log:
                value = values[sample, place]
                change = change / (value + added) if value >= smallest else kind(0.0)
            incoming[sample, place] = change
    return hard / count, temperature * temperature * soft / count


@inner
def _adamw(
    weights: Any, first: Any, second: Any, gradient: Any, optimizer: Any, count: float
) -> bool:
    """Update weights and averages as torch.optim.AdamW does; return whether all is finite.

    Loshchilov, Hutter (arXiv 1711.05101, algorithm 2). The gradient is overwritten. Where a number
    is not finite, the weights stay.
    """
    _, rate, keep_first, keep_second, epsilon, decay = optimizer
    step = rate / (1.0 - keep_first**count)
    root = math.sqrt(1.0 - keep_second**count)
    finite = True
    for place in range(weights.size):
        slope = float(gradient[place])
        first[place] += (1.0 - keep_first) * (slope - first[place])
        second[place] = keep_second * second[place] + (1.0 - keep_second) * slope * slope
        size = math.sqrt(float(second[place])) / root + epsilon
        gradient[place] = weights[place] * (1.0 - rate * decay) - step * first[place] / size
        finite = finite and math.isfinite(slope) and math.isfinite(gradient[place])
    if finite:
        weights[:] = gradient
    return finite
