"""The label-only arm with settings of its own: the baseline that a gain has to beat.

Learning rate, weight decay and number of epochs are chosen from a grid around the recipe's, by the
mean accuracy on the validation images of some of the run's own seeds. The recipe's setting is in
the grid; ties go to the one that comes first.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

from qkd_qiskit.recipe import DistillSpec, Recipe
from qkd_qiskit.runs import RunFolder, read_json, write_json

LR_FACTORS = (1.0, 3.0, 1 / 3)
EPOCH_FACTORS = (1.0, 0.5, 2.0)
WEIGHT_DECAYS = (0.0, 0.01, 0.1)
TUNING_SEEDS = 5  # at most: the first of the run


@dataclass(frozen=True)
class Setting:
    """How a label-only student is trained.

    Attributes:
        lr: Adam's learning rate at the start.
        weight_decay: Decoupled weight decay (AdamW).
        epochs: Passes over the images.
    """

    lr: float
    weight_decay: float
    epochs: int

    def apply(self, spec: DistillSpec) -> DistillSpec:
        """The recipe's training with this setting."""
        return replace(spec, **asdict(self))


def grid(recipe: Recipe) -> list[Setting]:
    """The settings that are tried, the recipe's first."""
    spec = recipe.distill
    own = Setting(spec.lr, spec.weight_decay, spec.epochs)
    tried = [
        Setting(float(f"{spec.lr * lr:.3g}"), weight_decay, max(1, round(spec.epochs * epochs)))
        for lr, weight_decay, epochs in itertools.product(LR_FACTORS, WEIGHT_DECAYS, EPOCH_FACTORS)
    ]
    return list(dict.fromkeys([own, *tried]))


def tuning_seeds(recipe: Recipe) -> tuple[int, ...]:
    """The seeds on which settings are compared."""
    return recipe.member_seeds[:TUNING_SEEDS]


def tuning_file(folder: RunFolder, setting: Setting) -> Path:
    """Where the validation accuracies of one setting are kept."""
    name = f"lr_{setting.lr:g}_decay_{setting.weight_decay:g}_epochs_{setting.epochs}.json"
    return folder.path / "tuning" / name


def keep_tried(folder: RunFolder, setting: Setting, accuracies: list[float]) -> None:
    """Write the validation accuracies of one setting, one for each tuning seed."""
    content = asdict(setting) | {"validation_accuracy": accuracies}
    write_json(tuning_file(folder, setting), content)


def is_tried(folder: RunFolder, setting: Setting) -> bool:
    """Whether a setting has its validation accuracies."""
    return tuning_file(folder, setting).exists()


def tuned(folder: RunFolder) -> dict[str, Any]:
    """What was tried and chosen, for result.json.

    Raises:
        CheckpointError: A setting of the grid has not been tried yet.
    """
    tried = [read_json(tuning_file(folder, setting)) for setting in grid(folder.recipe)]
    chosen = max(tried, key=_score)
    return {"seeds": list(tuning_seeds(folder.recipe)), "chosen": chosen, "tried": tried}


def chosen_setting(folder: RunFolder) -> Setting:
    """The setting of the best mean validation accuracy.

    Raises:
        CheckpointError: A setting of the grid has not been tried yet.
    """
    chosen = tuned(folder)["chosen"]
    return Setting(chosen["lr"], chosen["weight_decay"], chosen["epochs"])


def _score(tried: Mapping[str, Any]) -> float:
    return fmean(tried["validation_accuracy"])
