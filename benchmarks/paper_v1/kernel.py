"""The student of arXiv:2311.13810 (version 1) in machine code, one run and one image at a time.

Batches of one image leave nothing to vectorise over but the network itself. A run's weights,
averages and activations (350 kB) stay in a core's cache, and only what dropout, pooling and ReLU
left alive is swept back, so that a step takes some tens of microseconds instead of torch's
milliseconds.

Weights are one flat float32 vector in torch's order: conv1 (10, 1, 5, 5) and bias, conv2
(20, 10, 5, 5) and bias, fc1 (50, 320) and bias, fc2 (qubits, 50) and bias. Outcome b of the circuit
is little-endian: bit k is qubit k.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from numba import njit

F = TypeVar("F", bound=Callable[..., Any])

WEIGHTS1, BIAS1, WEIGHTS2, BIAS2 = 0, 250, 260, 5260
WEIGHTS3, BIAS3, WEIGHTS4 = 5280, 21280, 21330
BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # Adam, torch's defaults


def _compiled(function: F) -> F:
    # Sums may be reordered, which vectorises them; NaN and infinity keep their meaning.
    flags = {"reassoc", "contract", "nsz"}
    made: F = njit(cache=True, nogil=True, error_model="numpy", fastmath=flags)(function)
    return made


@_compiled
def train_epoch(
    state: Any, images: Any, labels: Any, targets: Any, order: Any, masks: Any, rule: Any,
    generator: Any, memory: Any,
) -> tuple[float, float, bool]:  # fmt: skip
    """Take one step per image of `order`; return the mean loss terms and whether all went well.

    Args:
        state: Weights, first and second averages, the number of steps done `(1,)`.
        images: `(images, 28, 28)`, float32.
        labels: `(images,)`.
        targets: The teacher's softened probabilities `(images, classes)`, float64.
        order: Images in the order of their use.
        masks: What dropout keeps, 0 or 1: channels `(steps, 20)` and units `(steps, 50)`.
        rule: Qubits, shots (0 = exact), shift, factor of the difference, whether the head is the
            sigmoid one, temperature, weight of the divergence's sum over classes, learning rate.
        generator: numpy's, for the shots.
        memory: From `make_memory`.
    """
    weights, first, second, steps = state
    qubits, shots, shift, factor, sigmoid, temperature, kd_weight, rate = rule
    channels, units = masks
    gradient, angles, outcome, slopes, outputs, pulls = memory[-6:]
    hard, soft = 0.0, 0.0
    for step in range(order.size):
        row = order[step]
        _forward(weights, images[row], channels[step], units[step], True, qubits, angles, memory)
        _frequencies(angles, qubits, shots, generator, outcome)
        ce, kd = _loss(
            outcome, sigmoid, labels[row], targets[row], temperature, kd_weight, outputs, pulls
        )
        hard += ce
        soft += kd
        # d loss / d theta_k from the circuit at two shifted angles.
        for k in range(qubits):
            centre = angles[k]
            slope = 0.0
            for sign in (1.0, -1.0):
                angles[k] = centre + sign * shift
                _frequencies(angles, qubits, shots, generator, slopes)
                for b in range(slopes.size):
                    slope += sign * slopes[b] * pulls[b]
            angles[k] = centre
            memory[7][k] = factor * slope
        _backward(weights, images[row], channels[step], qubits, angles, memory)
        steps[0] += 1
        if not _adam(weights, first, second, gradient, steps[0], rate):
            return hard, soft, False
    return hard / order.size, soft / order.size, True


@_compiled
def predict(
    weights: Any, images: Any, rule: Any, generator: Any, memory: Any, classes: Any
) -> None:
    """Fill the chosen output of each image: a class, or one of the outputs beyond the classes."""
    qubits, shots, sigmoid = rule[0], rule[1], rule[4]
    angles, outcome, outputs = memory[-5], memory[-4], memory[-2]
    ones = memory[8]
    for row in range(images.shape[0]):
        _forward(weights, images[row], ones[:20], ones, False, qubits, angles, memory)
        _frequencies(angles, qubits, shots, generator, outcome)
        _head(outcome, sigmoid, outputs)
        classes[row] = np.argmax(outputs)


def make_memory(qubits: int, *, head_outputs: int) -> tuple[Any, ...]:
    """Buffers of a run: activations, their gradients, the circuit's and the head's values."""
    size = WEIGHTS4 + 51 * qubits
    return (
        np.zeros((10, 576), np.float32),  # 0 conv1
        np.zeros((10, 12, 12), np.float32),  # 1 pooled
        np.zeros((20, 64), np.float32),  # 2 conv2 of the kept channels
        np.zeros(320, np.float32),  # 3 pooled
        np.zeros(50, np.float32),  # 4 fc1
        np.zeros((10, 12, 12), np.float32),  # 5 gradient of 1
        np.zeros(320, np.float32),  # 6 gradient of 3
        np.zeros(qubits, np.float64),  # 7 gradient of the angles
        np.ones(50, np.float32),  # 8 all kept
        np.zeros((25, 576), np.float32),  # 9 patches of the image
        np.zeros((250, 64), np.float32),  # 10 patches of 1
        np.zeros((20, 250), np.float32),  # 11 weights of the kept channels
        np.zeros(size, np.float32),  # -6 gradient of the weights
        np.zeros(qubits, np.float64),  # -5 angles
        np.zeros(2**qubits, np.float64),  # -4 outcome frequencies
        np.zeros(2**qubits, np.float64),  # -3 frequencies at shifted angles
        np.zeros(head_outputs, np.float64),  # -2 outputs of the head
        np.zeros(2**qubits, np.float64),  # -1 gradient of the frequencies
    )


@_compiled
def _forward(
    weights: Any, image: Any, channels: Any, units: Any, training: bool, qubits: int, angles: Any,
    memory: Any,
) -> None:  # fmt: skip
    conv1, pooled1, conv2, pooled2, hidden = memory[:5]
    patches1, patches2, rows2 = memory[9:12]
    for tap in range(25):
        dy, dx = tap // 5, tap % 5
        for y in range(24):
            for x in range(24):
                patches1[tap, y * 24 + x] = image[y + dy, x + dx]
    np.dot(weights[WEIGHTS1:BIAS1].reshape(10, 25), patches1, conv1)
    for c in range(10):
        _pool(conv1[c].reshape(24, 24), weights[BIAS1 + c], np.float32(1), pooled1[c])
    for tap in range(250):
        source, dy, dx = tap // 25, tap % 25 // 5, tap % 5
        for y in range(8):
            for x in range(8):
                patches2[tap, y * 8 + x] = pooled1[source, y + dy, x + dx]
    scale = np.float32(2) if training else np.float32(1)
    kept = 0
    for c in range(20):
        if channels[c] != 0:
            rows2[kept] = weights[WEIGHTS2 + c * 250 : WEIGHTS2 + (c + 1) * 250]
            kept += 1
    np.dot(rows2[:kept], patches2, conv2[:kept])
    kept = 0
    for c in range(20):
        out = pooled2[c * 16 : (c + 1) * 16].reshape(4, 4)
        if channels[c] != 0:
            _pool(conv2[kept].reshape(8, 8), weights[BIAS2 + c], scale, out)
            kept += 1
        else:
            out[:, :] = 0
    for j in range(50):
        total = np.float32(0)
        if units[j] != 0:
            row = weights[WEIGHTS3 + j * 320 : WEIGHTS3 + (j + 1) * 320]
            for i in range(320):
                total += row[i] * pooled2[i]
            total = scale * max(total + weights[BIAS3 + j], np.float32(0))
        hidden[j] = total
    for k in range(qubits):
        total = weights[WEIGHTS4 + 50 * qubits + k]
        for j in range(50):
            total += weights[WEIGHTS4 + k * 50 + j] * hidden[j]
        angles[k] = math.pi * math.tanh(total)


@_compiled
def _backward(
    weights: Any, image: Any, channels: Any, qubits: int, angles: Any, memory: Any
) -> None:
    """Fill the gradient of the weights from the gradient of the angles."""
    conv1, pooled1, conv2, pooled2, hidden, pull1, pull2, pull_angles = memory[:8]
    gradient = memory[-6]
    gradient[:] = 0
    pull1[:, :, :] = 0
    pull2[:] = 0
    for k in range(qubits):
        squashed = angles[k] / math.pi
        pull_angles[k] *= math.pi * (1 - squashed * squashed)
        gradient[WEIGHTS4 + 50 * qubits + k] = pull_angles[k]
        for j in range(50):
            gradient[WEIGHTS4 + k * 50 + j] = pull_angles[k] * hidden[j]
    for j in range(50):
        if hidden[j] > 0:
            total = 0.0
            for k in range(qubits):
                total += pull_angles[k] * weights[WEIGHTS4 + k * 50 + j]
            pull = np.float32(2 * total)  # dropout's factor
            gradient[BIAS3 + j] = pull
            row = weights[WEIGHTS3 + j * 320 : WEIGHTS3 + (j + 1) * 320]
            slope = gradient[WEIGHTS3 + j * 320 : WEIGHTS3 + (j + 1) * 320]
            for i in range(320):
                slope[i] = pull * pooled2[i]
                pull2[i] += pull * row[i]
    kept = -1
    for c in range(20):
        if channels[c] == 0:
            continue
        kept += 1
        for i in range(c * 16, (c + 1) * 16):
            if pooled2[i] > 0:
                pull = np.float32(2) * pull2[i]
                top, left = _corner(conv2[kept].reshape(8, 8), i % 16 // 4, i % 4)
                gradient[BIAS2 + c] += pull
                for source in range(10):
                    for dy in range(5):
                        start = WEIGHTS2 + c * 250 + source * 25 + dy * 5
                        for dx in range(5):
                            gradient[start + dx] += pull * pooled1[source, top + dy, left + dx]
                            pull1[source, top + dy, left + dx] += pull * weights[start + dx]
    for c in range(10):
        for y in range(12):
            for x in range(12):
                pull = pull1[c, y, x]
                if pull != 0 and pooled1[c, y, x] > 0:
                    top, left = _corner(conv1[c].reshape(24, 24), y, x)
                    gradient[BIAS1 + c] += pull
                    for dy in range(5):
                        for dx in range(5):
                            tap = WEIGHTS1 + c * 25 + dy * 5 + dx
                            gradient[tap] += pull * image[top + dy, left + dx]


@_compiled
def _pool(conv: Any, bias: Any, scale: Any, out: Any) -> None:
    """Fill scale * relu(maximum + bias) over squares of two."""
    for y in range(out.shape[0]):
        upper, lower = conv[2 * y], conv[2 * y + 1]
        for x in range(out.shape[1]):
            best = max(max(upper[2 * x], upper[2 * x + 1]), max(lower[2 * x], lower[2 * x + 1]))
            out[y, x] = scale * max(best + bias, np.float32(0))


@_compiled
def _corner(conv: Any, y: int, x: int) -> tuple[int, int]:
    """Return where the maximum of a square of two is; the first of equal ones, as in torch."""
    top, left = 2 * y, 2 * x
    for corner in range(1, 4):
        if conv[2 * y + corner // 2, 2 * x + corner % 2] > conv[top, left]:
            top, left = 2 * y + corner // 2, 2 * x + corner % 2
    return top, left


@_compiled
def _frequencies(angles: Any, qubits: int, shots: int, generator: Any, outcome: Any) -> None:
    """Fill p_b = prod_k (1 +- sin theta_k) / 2, or frequencies of so many shots."""
    outcome[0] = 1.0
    size = 1
    for k in range(qubits):
        one = 0.5 * (1 + math.sin(angles[k]))
        for b in range(size):
            outcome[size + b] = outcome[b] * one
            outcome[b] *= 1 - one
        size *= 2
    if shots == 0:
        return
    left, mass = shots, 1.0
    for b in range(size):
        # The number of shots in one outcome, given those in the outcomes before it.
        share = min(max(outcome[b] / mass, 0.0), 1.0) if mass > 0 else 1.0
        count = left if b == size - 1 else (generator.binomial(left, share) if left > 0 else 0)
        mass -= outcome[b]
        left -= count
        outcome[b] = count / shots


@_compiled
def _head(outcome: Any, sigmoid: bool, outputs: Any) -> None:
    """Fill sigmoid(f) and 1 - sigmoid(f), or softmax(f), of the frequencies f."""
    if sigmoid:
        for b in range(outcome.size):
            outputs[b] = 1 / (1 + math.exp(-outcome[b]))
            outputs[outcome.size + b] = 1 - outputs[b]
        return
    total = 0.0
    for b in range(outcome.size):
        outputs[b] = math.exp(outcome[b])
        total += outputs[b]
    for b in range(outcome.size):
        outputs[b] /= total


@_compiled
def _loss(
    outcome: Any, sigmoid: bool, label: int, target: Any, temperature: float, kd_weight: float,
    outputs: Any, pulls: Any,
) -> tuple[float, float]:  # fmt: skip
    """Return cross-entropy and divergence; fill d loss / d frequency.

    Both treat the head's outputs as logits, as the published code does: the cross-entropy all of
    them, the divergence those of the classes.
    """
    _head(outcome, sigmoid, outputs)
    total, soft_total = 0.0, 0.0
    for output in outputs:
        total += math.exp(output)
    for c in range(target.size):
        soft_total += math.exp(outputs[c] / temperature)
    divergence = 0.0
    inner = 0.0
    pulls[:] = 0.0
    for o in range(outputs.size):
        pull = math.exp(outputs[o]) / total - (1.0 if o == label else 0.0)
        if o < target.size:
            student = math.exp(outputs[o] / temperature) / soft_total
            if target[o] > 0:
                divergence += target[o] * (math.log(target[o]) - math.log(student))
            pull += kd_weight * (student - target[o]) / temperature
        if sigmoid:
            b = o % pulls.size
            slope = outputs[b] * (1 - outputs[b])
            pulls[b] += pull * slope if o == b else -pull * slope
        else:
            pulls[o] = pull
            inner += pull * outputs[o]
    if not sigmoid:
        for b in range(pulls.size):
            pulls[b] = outputs[b] * (pulls[b] - inner)
    return math.log(total) - outputs[label], divergence


@_compiled
def _adam(weights: Any, first: Any, second: Any, gradient: Any, step: int, rate: float) -> bool:
    b1, b2 = np.float32(BETA1), np.float32(BETA2)
    one = np.float32(1)
    size = np.float32(rate / (1 - BETA1**step))
    unbias = np.float32(1 / math.sqrt(1 - BETA2**step))
    epsilon = np.float32(EPSILON)
    total = np.float32(0)
    for i in range(weights.size):
        g = gradient[i]
        m = b1 * first[i] + (one - b1) * g
        v = b2 * second[i] + (one - b2) * g * g
        first[i] = m
        second[i] = v
        weights[i] -= size * m / (np.sqrt(v) * unbias + epsilon)
        total += weights[i]
    return math.isfinite(total)
