"""What the interval of a paired gain will be: students' seeds, test images and shots as causes.

The gain of a seed on an image is d = P(treated right) - P(baseline right), a number from -1 to 1,
where the probabilities are over the shots. Seeds and images are crossed: every seed meets every
image. The mean over S seeds and N of M images scatters by::

    (seeds + (seeds x images + shots) / N) / S + images (1 / N - 1 / M)

The t interval over the seeds that a run reports sees the first part; the second, that other images
would have been harder for both arms of every seed alike, is added to it here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import special

Real = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class GainVariance:
    """Where the scatter of a gain comes from; accuracies are fractions.

    Attributes:
        mean: The gain over all seeds and images.
        seeds: Variance between seeds.
        images: Variance between images, the same for all seeds.
        both: Variance of a seed on an image beyond these.
        shots: Variance by shots, of one image and seed.
        pool: Test images that there are.
    """

    mean: float
    seeds: float
    images: float
    both: float
    shots: float
    pool: int

    def half_width(self, *, seeds: int, images: int, confidence: float = 0.95) -> float:
        """Return half of the expected interval of the gain, as a fraction.

        Args:
            seeds: Seeds that are measured, at least two.
            images: Test images that each is measured on.
            confidence: Of the interval.
        """
        level = 0.5 + confidence / 2
        of_seeds = self.seeds_scatter(images=images) / seeds
        drawn = self.images * max(0.0, 1 / images - 1 / self.pool)
        t, z = float(special.stdtrit(seeds - 1, level)), float(special.ndtri(level))
        return math.sqrt(t**2 * of_seeds + z**2 * drawn)

    def seeds_spread(self, seeds: int, *, confidence: float = 0.95) -> tuple[float, float]:
        """Return the standard deviations between seeds that so many seeds leave open."""
        rest, free = (1 - confidence) / 2, seeds - 1
        most, least = (float(special.chdtri(free, part)) for part in (rest, 1 - rest))
        return math.sqrt(self.seeds * free / most), math.sqrt(self.seeds * free / least)

    def seeds_scatter(self, *, images: int) -> float:
        """Return the variance of one seed's measured gain on so many images."""
        # What a seed does to single images is drawn with the images, and known where all are used.
        return self.seeds + self.both * max(0.0, 1 / images - 1 / self.pool) + self.shots / images


def gain_variance(treated: Real, baseline: Real) -> GainVariance:
    """Return where the scatter of a gain comes from.

    Args:
        treated: Probability of a right answer, over the shots, `(seeds, images)`; two seeds or
            more.
        baseline: The same of the students that these are compared with.
    """
    gains = treated - baseline
    seeds, images = gains.shape
    mean = float(gains.mean())
    of_seeds, of_images = gains.mean(axis=1), gains.mean(axis=0)
    rest = gains - of_seeds[:, None] - of_images[None, :] + mean
    both = float((rest**2).sum()) / ((seeds - 1) * (images - 1)) if images > 1 else 0.0
    shots = float((treated * (1 - treated) + baseline * (1 - baseline)).mean())
    return GainVariance(
        mean=mean,
        # Of the mean over the images that there are: nothing of them is taken off.
        seeds=float(of_seeds.var(ddof=1)),
        images=max(0.0, float(of_images.var(ddof=1)) - both / seeds) if images > 1 else 0.0,
        both=both,
        shots=shots,
        pool=images,
    )
