"""Arms with settings of their own: the baseline that a gain has to beat, and what is held to it.

By mean accuracy on the validation images, over some of the run's own seeds: first learning rate and
number of epochs from a grid around the arm's, then weight decay at the best of them. The arm's own
setting is in the grid; ties go to the one that comes first. Every tuned arm tries as many settings.
"""

from __future__ import annotations

import itertools
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import fmean

from qkd_qiskit.experiments.json_codec import decode
from qkd_qiskit.experiments.results import TriedSetting, Tuning
from qkd_qiskit.experiments.run_folder import RunFolder, read_json, write_json
from qkd_qiskit.recipe import DistillSpec, Recipe
from qkd_qiskit.recipe.arms import TUNED

logger = logging.getLogger(__name__)

LR_FACTORS = (1.0, 3.0, 1 / 3)
EPOCH_FACTORS = (1.0, 0.5, 2.0)
WEIGHT_DECAYS = (0.0, 0.01, 0.1)
TUNING_SEEDS = 5  # at most: the first of the run


@dataclass(frozen=True)
class Setting:
    """How the students of a tuned arm are trained.

    Attributes:
        lr: Adam's learning rate at the start.
        weight_decay: Decoupled weight decay (AdamW).
        epochs: Passes over the images.
    """

    lr: float
    weight_decay: float
    epochs: int

    def __str__(self) -> str:
        return f"lr {self.lr:g}, weight decay {self.weight_decay:g}, {self.epochs} epochs"

    def apply(self, spec: DistillSpec) -> DistillSpec:
        """Return the recipe's training with this setting."""
        return replace(spec, **asdict(self))


def tuned_arms(recipe: Recipe) -> list[str]:
    """Return the arms of a run that have settings of their own."""
    return [arm for arm in recipe.arms if recipe.arm_table[arm].tuned]


def first_round(recipe: Recipe, arm: str) -> list[Setting]:
    """Return learning rates and epochs with the arm's weight decay, the arm's own setting first."""
    spec = recipe.distill_of(arm)
    return [
        Setting(
            spec.lr if lr == 1 else float(f"{spec.lr * lr:.3g}"),
            spec.weight_decay,
            max(1, round(spec.epochs * epochs)),
        )
        for lr, epochs in itertools.product(LR_FACTORS, EPOCH_FACTORS)
    ]


def second_round(folder: RunFolder, arm: str) -> list[Setting]:
    """Return weight decays at the best of the first round.

    Raises:
        CheckpointError: A setting of the first round has not been tried yet.
    """
    first = first_round(folder.recipe, arm)
    best = _setting(max(_tried(folder, arm, first), key=_score))
    others = [decay for decay in WEIGHT_DECAYS if decay != best.weight_decay]
    return [replace(best, weight_decay=decay) for decay in others]


def tuning_seeds(recipe: Recipe) -> tuple[int, ...]:
    """Return the seeds on which settings are compared."""
    return recipe.member_seeds[:TUNING_SEEDS]


def tuning_file(folder: RunFolder, arm: str, setting: Setting) -> Path:
    """Return where the validation accuracies of one setting of an arm are kept."""
    name = f"lr_{setting.lr:g}_decay_{setting.weight_decay:g}_epochs_{setting.epochs}.json"
    path = folder.path / "tuning"
    return path / name if arm == TUNED else path / arm / name


def keep_tried(folder: RunFolder, arm: str, setting: Setting, accuracies: list[float]) -> None:
    """Write the validation accuracies of one setting, one for each seed that was not tried yet.

    A seed that has none, as its training failed, has NaN here and null in the file.
    """
    content = asdict(setting) | {
        "validation_accuracy": [*_known_accuracies(folder, arm, setting), *accuracies]
    }
    write_json(tuning_file(folder, arm, setting), content)


def is_tried(folder: RunFolder, arm: str, setting: Setting) -> bool:
    """Return whether a setting has the validation accuracies of all tuning seeds."""
    return len(_known_accuracies(folder, arm, setting)) == len(tuning_seeds(folder.recipe))


def untried_seeds(folder: RunFolder, arm: str, setting: Setting) -> tuple[tuple[int, ...], bool]:
    """Return the tuning seeds that a setting is to be tried on, and whether others have been.

    All of them where it has been tried on every one.
    """
    seeds, known = tuning_seeds(folder.recipe), len(_known_accuracies(folder, arm, setting))
    some = 0 < known < len(seeds)
    return (seeds[known:] if some else seeds), some


def _known_accuracies(folder: RunFolder, arm: str, setting: Setting) -> tuple[float | None, ...]:
    path = tuning_file(folder, arm, setting)
    if not path.exists():
        return ()
    return decode(TriedSetting, read_json(path), where=path).validation_accuracy


def forget_outdated(folder: RunFolder) -> None:
    """Forget what an extension has overtaken: settings beside the way, students of another setting.

    The tuning of a run with more seeds can end elsewhere; the tuned arm is then trained anew.
    """
    last = folder.last_result
    for arm in tuned_arms(folder.recipe):
        before = None if last is None else last.tuning_of(arm)
        if folder.earlier and before is not None:
            _forget_outdated(folder, arm, before)


def _forget_outdated(folder: RunFolder, arm: str, last: Tuning) -> None:
    now = tuned(folder, arm)
    files = {tuning_file(folder, arm, _setting(tried)) for tried in now.tried}
    for path in tuning_file(folder, arm, _setting(now.chosen)).parent.glob("*.json"):
        if path not in files:
            path.unlink()
    before, chosen = _setting(last.chosen), _setting(now.chosen)
    if before == chosen or not any(known == arm for known, _ in folder.earlier):
        return
    logger.warning(
        f"{arm} is tuned on {len(now.seeds)} seeds in place of {len(last.seeds)}, and "
        f"{chosen} took the place of {before}: all its students are trained with it"
    )
    folder.forget_earlier(arm)
    shutil.rmtree(folder.path / arm, ignore_errors=True)
    population = folder.checkpoint(folder.recipe.arm_table[arm].population)
    for rest in ("", " *", ", *"):
        for path in population.parent.glob(f"{population.stem}{rest}{population.suffix}"):
            path.unlink()


def tuned(folder: RunFolder, arm: str) -> Tuning:
    """Return what was tried for an arm, and chosen.

    Raises:
        CheckpointError: A setting has not been tried yet.
    """
    settings = [*first_round(folder.recipe, arm), *second_round(folder, arm)]
    tried = _tried(folder, arm, settings)
    return Tuning(
        seeds=tuning_seeds(folder.recipe), chosen=max(tried, key=_score), tried=tuple(tried)
    )


def chosen_setting(folder: RunFolder, arm: str) -> Setting:
    """Return the setting of the best mean validation accuracy.

    Raises:
        CheckpointError: A setting has not been tried yet.
    """
    return _setting(tuned(folder, arm).chosen)


def _tried(folder: RunFolder, arm: str, settings: Sequence[Setting]) -> list[TriedSetting]:
    files = (tuning_file(folder, arm, setting) for setting in dict.fromkeys(settings))
    return [decode(TriedSetting, read_json(path), where=path) for path in files]


def _setting(tried: TriedSetting) -> Setting:
    return Setting(tried.lr, tried.weight_decay, tried.epochs)


def _score(tried: TriedSetting) -> float:
    """Return mean validation accuracy; worst of all where the training of a seed failed."""
    accuracies = [value for value in tried.validation_accuracy if value is not None]
    failed = len(accuracies) < len(tried.validation_accuracy)
    return -math.inf if failed else fmean(accuracies)
