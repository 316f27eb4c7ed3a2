"""Generated data: feature vectors in [0, 1] whose classes no linear classifier can tell apart.

Both sets start from a few latent numbers of +1 or -1, a corner of a cube. Each corner belongs to
one class. A point is a corner with Gaussian noise around it, and every informative feature shows
one latent number, upright or reversed, with a little noise of its own:

    latent:   z = corner + sigma * normal        sigma = 0.2 + 0.8 * difficulty
    feature:  x = clip(0.5 + 0.2 * sign * z[i] + 0.1 * normal, 0, 1)

Noise features are such a feature of a coin that no class depends on. The features are mixed in
order, so that none of their places says anything.

=============  ===================================================================================
name           which corners make a class
=============  ===================================================================================
generated      four to a class, in the way of Guyon's Madelon (NIPS 2003): a corner and its
               opposite, so that the class has no side, and two corners at random
extended_xor   those with as many +1 as make the class, modulo the number of classes: XOR is two
               latent numbers and two classes
=============  ===================================================================================

The features are not negative: outcome probabilities of an amplitude-encoded circuit are even in its
input. The best classifier that there is for the latent numbers is `best_accuracy`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qkd_qiskit.data.sources import Source
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.recipe.synthetic import CORNERS_PER_CLASS, Generator

_CONTRAST, _FEATURE_NOISE = 0.2, 0.1


def generate(generator: Generator, *, points: int, seed: int = 0) -> Source:
    """Return points of a generated set, as many of each class to one, in mixed order.

    The same seed gives the same corners, points and noise at every difficulty, the noise scaled.

    Args:
        generator: What is generated.
        points: Number of points, at least one of each class.
        seed: Seed of corners, features and points.
    """
    corners = class_corners(generator, seed=seed)
    random = np.random.default_rng(derive_seed(seed, "generated", generator.name, "points"))
    labels = random.permutation(np.arange(points) % generator.num_classes)
    chosen = random.integers(0, [len(corners[label]) for label in labels])
    latent = np.stack(
        [corners[label][corner] for label, corner in zip(labels, chosen, strict=True)]
    )
    coins = random.choice([-1.0, 1.0], size=(points, generator.noise_features))
    everything = np.concatenate([latent, coins], axis=1)
    everything = everything + generator.noise * random.standard_normal(everything.shape)
    own_noise = _FEATURE_NOISE * random.standard_normal((points, generator.features))

    layout = np.random.default_rng(derive_seed(seed, "generated", generator.name, "features"))
    informative = generator.features - generator.noise_features
    shown = np.concatenate(
        [
            np.arange(informative) % generator.informative,
            generator.informative + np.arange(generator.noise_features),
        ]
    )
    shown = layout.permutation(shown)
    signs = layout.choice([-1.0, 1.0], size=generator.features)
    features = np.clip(0.5 + _CONTRAST * signs * everything[:, shown] + own_noise, 0, 1)
    return Source(
        features.reshape(points, *image_size(generator.features)).astype(np.float32),
        labels.astype(np.int64),
        None,
        tuple(f"class {label}" for label in range(generator.num_classes)),
    )


def image_size(features: int) -> tuple[int, int]:
    """Return height and width for features: a square where they fill one, else a row."""
    side = math.isqrt(features)
    return (side, side) if side * side == features else (1, features)


def class_corners(generator: Generator, *, seed: int = 0) -> list[npt.NDArray[np.float64]]:
    """Return the corners (count, informative) of each class, numbers of +1 and -1."""
    count = generator.informative
    bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    corners = 2.0 * bits - 1
    if generator.name == "extended_xor":
        classes = bits.sum(axis=1) % generator.num_classes
        return [corners[classes == label] for label in range(generator.num_classes)]
    random = np.random.default_rng(derive_seed(seed, "generated", generator.name, "corners"))
    # Of the corners with the last number -1, each has its opposite among the others.
    halves = corners[random.permutation(2 ** (count - 1))]
    paired, free = np.split(halves, [generator.num_classes])
    free = random.permutation(np.concatenate([free, -free]))
    others = free[: (CORNERS_PER_CLASS - 2) * generator.num_classes]
    return [
        np.stack([corner, -corner, *others[label :: generator.num_classes]])
        for label, corner in enumerate(paired)
    ]


def best_accuracy(generator: Generator, *, seed: int = 0, points: int = 20_000) -> float:
    """Return the share of points that the best classifier of the latent numbers gets right.

    No classifier of the features can do better; estimated from `points` points.
    """
    corners = class_corners(generator, seed=seed)
    random = np.random.default_rng(derive_seed(seed, "generated", generator.name, "best"))
    labels = np.arange(points) % generator.num_classes
    chosen = random.integers(0, [len(corners[label]) for label in labels])
    centres = np.stack(
        [corners[label][corner] for label, corner in zip(labels, chosen, strict=True)]
    )
    latent = centres + generator.noise * random.standard_normal(centres.shape)
    likelihoods = [
        np.exp(latent @ group.T / generator.noise**2).mean(axis=1) for group in corners
    ]  # all corners are equally far from the centre
    return float((np.argmax(likelihoods, axis=0) == labels).mean())
