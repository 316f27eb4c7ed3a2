"""Cross-entropy and divergence of logits in machine code, and the read-out gamma log p."""

from __future__ import annotations

import math
from typing import Any

from qkd_qiskit.simulator.kernel.compilation import compiled


@compiled
def losses(
    classes: int, temperature: float, data: Any, batch: Any, factors: Any, logits: Any,
    slopes: Any, stride: int,
) -> tuple[float, float]:  # fmt: skip
    """Fill the gradients of the logits; return cross-entropy and divergence, batch means in nats.

    Args:
        classes: Number of them.
        temperature: The student's.
        data: Labels, softened targets and their negative entropies, of all samples.
        batch: Which samples.
        factors: Of the two terms.
        logits: Flat, a row for each of the batch.
        slopes: Their gradients, likewise.
        stride: From one row to the next.
    """
    labels, targets, entropies = data
    kind = logits.dtype.type
    count = batch.size
    by_label = kind(factors[0] / count)
    by_target = kind(factors[1] * temperature / count)
    coolness = kind(1.0 / temperature)
    hard, soft = 0.0, 0.0
    for sample in range(count):
        row, at = batch[sample], sample * stride
        top = kind(-math.inf)
        for place in range(classes):
            top = max(top, logits[at + place])
        plain, mild, expected = kind(0.0), kind(0.0), kind(0.0)
        for place in range(classes):
            away = logits[at + place] - top
            plain += math.exp(away)
            power = math.exp(away * coolness)
            slopes[at + place] = power
            mild += power
            expected += targets[row, place] * away
        label = logits[at + labels[row]] - top
        hard += math.log(plain) - label
        soft += entropies[row] - expected * coolness + math.log(mild)
        to_plain, to_mild = by_label / plain, by_target / mild
        for place in range(classes):
            change = to_mild * slopes[at + place] - by_target * targets[row, place]
            change += to_plain * math.exp(logits[at + place] - top)
            slopes[at + place] = change
        slopes[at + labels[row]] -= by_label
    return hard / count, temperature * temperature * soft / count


@compiled
def gamma_log(
    values: Any, size: int, classes: int, smallest: float, gamma: float, logits: Any, stride: int
) -> None:
    """Fill logits ``gamma log p`` of probabilities, flat."""
    kind = values.dtype.type
    for row in range(size):
        for place in range(classes):
            value = max(values[row * classes + place], kind(smallest))
            logits[row * stride + place] = kind(gamma) * math.log(value)


@compiled
def gamma_log_back(
    values: Any, size: int, classes: int, smallest: float, gamma: float, logits: Any,
    slopes: Any, stride: int, incoming: Any,
) -> float:  # fmt: skip
    """Fill the gradients of the probabilities; return that of the logarithm of gamma."""
    kind = values.dtype.type
    total = 0.0
    for row in range(size):
        for place in range(classes):
            slope = slopes[row * stride + place]
            total += slope * logits[row * stride + place]
            value = values[row * classes + place]
            known = value >= kind(smallest)
            incoming[row * classes + place] = kind(gamma) * slope / value if known else kind(0.0)
    return total
