"""The numbers that a generated data set is made from; `qkd_qiskit.data.synthetic` draws it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from qkd_qiskit.recipe.validation import require

CORNERS_PER_CLASS = 4
MOST_INFORMATIVE = 12  # 4,096 corners
_LEAST_NOISE, _NOISE_RANGE = 0.2, 0.8  # of the latent numbers, which are +1 and -1


@dataclass(frozen=True, kw_only=True)
class Generator:
    """What a generated set is.

    Raises:
        RecipeError: Numbers that do not go together.

    Attributes:
        name: generated or extended_xor.
        num_classes: Number of classes.
        features: Features of a point.
        informative: Latent numbers that the class depends on.
        noise_features: Features that say nothing.
        difficulty: 0 (clusters apart) to 1 (clusters that overlap widely).
    """

    name: str
    num_classes: int = 3
    features: int = 64
    informative: int = 4
    noise_features: int = 0
    difficulty: float = 0.25

    def __post_init__(self) -> None:
        require(
            0 <= self.difficulty <= 1, "data.difficulty", self.difficulty, "a number from 0 to 1"
        )
        least = max(2, self.num_classes - 1)
        if self.name == "generated":
            least = math.ceil(math.log2(CORNERS_PER_CLASS * self.num_classes))
        require(
            least <= self.informative <= MOST_INFORMATIVE,
            "data.informative",
            self.informative,
            f"{least} to {MOST_INFORMATIVE} for {self.num_classes} classes of {self.name}",
        )
        require(
            self.features >= self.informative,
            "data.features",
            self.features,
            f"at least {self.informative}, the number of data.informative",
        )
        spare = self.features - self.informative
        require(
            0 <= self.noise_features <= spare,
            "data.noise_features",
            self.noise_features,
            f"0 to {spare}, so that {self.informative} of the {self.features} features are left",
        )

    @property
    def noise(self) -> float:
        """Return the standard deviation of the latent numbers around a corner."""
        return _LEAST_NOISE + _NOISE_RANGE * self.difficulty
