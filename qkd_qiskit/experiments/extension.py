"""A finished run with more seeds or arms: what it has is kept, what it lacks is trained.

Everything random about a student follows from its own seed, so that a run that was extended ends
with the bytes of one that began with all seeds and arms. What does not is said before it begins:
training from shots draws for all that trains together; the tuned arm is tuned on up to five seeds;
a student that trained with no other, or through noise, rounds otherwise among other companions.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from qkd_qiskit.distillation.checkpoints import Checkpoint, join_members
from qkd_qiskit.errors import CheckpointError, InputError, RecipeError
from qkd_qiskit.experiments.arms import check_arms, executed_spec, loss_weights
from qkd_qiskit.experiments.run_folder import RECIPE, RunFolder
from qkd_qiskit.experiments.tasks import TrainingTask, run_targets, training_tasks
from qkd_qiskit.experiments.tuning import tuned_arms, tuning_seeds
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.students.base import WEIGHTS_FILE

logger = logging.getLogger(__name__)


def extended_recipe(folder: RunFolder, given: Mapping[str, Any]) -> Recipe:
    """Return the recipe of a run with more seeds and arms.

    Args:
        folder: The run.
        given: seeds, arms and own_arms, as in a recipe or as text. Arms that the run has need not
            be named; where all of them are, the arms get this order.

    Raises:
        RecipeError: A value is not accepted, a seed of the run is missing, or one of its own arms
            is changed.
    """
    old, given = folder.recipe, {key: value for key, value in given.items() if value is not None}
    if not given:
        raise InputError(
            f"nothing to add to {folder.path} was given; give more seeds, arms or both: "
            "--seeds 10 --arms label_only_tuned"
        )
    path = folder.path / RECIPE
    if "own_arms" in given:
        added = load_recipe(path, {"own_arms": given["own_arms"]}).own_arms
        changed = [name for name in added if added[name] != old.own_arms.get(name, added[name])]
        if changed:
            raise RecipeError(
                f"own_arms: {changed[0]} is another arm in {folder.path}; give it another name"
            )
        given["own_arms"] = {**old.own_arms, **added}
    recipe = load_recipe(path, given)
    lost = [seed for seed in old.member_seeds if seed not in recipe.member_seeds]
    if lost:
        raise RecipeError(
            f"seeds: {recipe.seeds} is not accepted; {folder.path} has the seeds "
            f"{', '.join(map(str, old.member_seeds))} and an extension keeps them: give more"
        )
    if not set(old.arms) <= set(recipe.arms):
        new = [arm for arm in recipe.arms if arm not in old.arms]
        recipe = load_recipe(path, given | {"arms": [*old.arms, *new]})
    return recipe


def begin_extension(folder: RunFolder, recipe: Recipe) -> RunFolder:
    """Return a run that has begun to be extended, after what can be checked has been.

    Raises:
        CheckpointError: The run has not ended, was trained on a device, or has lost a student.
        InputError: The recipe does not fit, or the run has figures of a device that an arm lacks.
    """
    result = folder.ended()
    if result.trained_on is not None:
        raise CheckpointError(
            f"{folder.path} was trained on {result.trained_on.backend} by jobs; extend the run "
            "that it began with, and submit that again"
        )
    for member in folder.members:
        if not (folder.member(*member) / WEIGHTS_FILE).exists():
            raise CheckpointError(
                f"{folder.member(*member)} has lost its {WEIGHTS_FILE}; write it again with "
                f"qkd distill --resume {folder.path}, then extend the run"
            )
    if recipe.teacher.kind == "run" and recipe.member_seeds != folder.recipe.member_seeds:
        raise InputError(
            f"{folder.path} is taught by the students of {recipe.teacher.run}, of which it keeps "
            "those of its own seeds; give new arms alone, or start a new run with more seeds"
        )
    devices = [key for key, target in result.targets.items() if target.device is not None]
    new = [arm for arm in recipe.arms if arm not in folder.recipe.arms]
    if devices and new:
        raise InputError(
            f"{folder.path} has figures of {devices[0]}, where the arm {new[0]} has not been; "
            "give more seeds alone, or start a new run with these arms"
        )
    check_arms(recipe)
    for text in _differences(folder, recipe):
        logger.warning(text)
    old, first = tuning_seeds(folder.recipe), tuning_seeds(recipe)
    extended = folder.begin_extension(recipe)
    try:
        run_targets(extended)
    except InputError:
        extended.abandon_extension()
        raise
    if tuned_arms(folder.recipe) and old != first[: len(old)]:
        for path in (folder.path / "tuning").glob("**/*.json"):
            path.unlink()
    return extended


def _differences(folder: RunFolder, recipe: Recipe) -> list[str]:
    """Return what of an extended run is not as in a run that began with all, a line for each."""
    old, lines = folder.recipe, []
    whole, old_tasks = training_tasks(recipe), training_tasks(old)
    grown = [task for task in whole if task.added == 0 and _has_both(task, folder)]
    sampled = [task.arms[0] for task in grown if _is_sampled(task.arms[0], recipe)]
    if sampled:
        lines.append(
            f"the population of {sampled[0]} is trained from shots, which are drawn for all that "
            "train together: those added are as good as, but not equal to, those of a run that "
            "began with all"
        )
    noisy = [
        task.arms[0] for task in grown if executed_spec(task.arms[0], recipe).gradient == "noisy"
    ]
    if noisy:
        lines.append(
            f"the population of {noisy[0]} is trained through noise, where angles round with who "
            "trains beside: those added can differ in the last bit from a run that began with all"
        )
    alone = [task for task in old_tasks if len(task.members) == 1]
    alone = [task for task in alone if task.population in {other.population for other in grown}]
    if alone:
        lines.append(
            f"{', '.join(task.arms[0] for task in alone)} of seed {alone[0].seeds[0]} trained "
            "alone and is kept: in a run that began with all it can differ by rounding"
        )
    for task in grown:
        features = {
            part: any(loss_weights(arm, part)[2] > 0 for arm in arms)
            for part, arms in ((old, [a for a in task.arms if a in old.arms]), (recipe, task.arms))
        }
        if features[recipe] and not features[old]:
            lines.append(
                f"{RECIPE}: the new arms compare feature maps, which the metrics of those that "
                "are there do not show"
            )
    if tuning_seeds(old) != tuning_seeds(recipe):
        lines += [
            f"{arm} was tuned on {len(tuning_seeds(old))} seeds and is now on "
            f"{len(tuning_seeds(recipe))}, as in a run that began with all; its students are "
            "trained again only if another setting is then the best"
            for arm in tuned_arms(old)
        ]
    return lines


def _has_both(task: TrainingTask, folder: RunFolder) -> bool:
    known = set(folder.members)
    return bool(known & set(task.members)) and not set(task.members) <= known


def _is_sampled(arm: str, recipe: Recipe) -> bool:
    return executed_spec(arm, recipe).gradient not in ("exact", "noisy")


def join_checkpoints(folder: RunFolder) -> None:
    """Put what was trained before an extension and for it into the checkpoints of a whole run.

    Where a part is missing there is no checkpoint: its students are there without it.

    Raises:
        CheckpointError: A checkpoint is damaged.
        StorageError: One could not be written.
    """
    paths = sorted(folder.checkpoint("").parent.glob("*.safetensors"))
    sources = [Checkpoint.load(path) for path in paths]
    joined: dict[str, Checkpoint | None] = {}
    for task in training_tasks(folder.recipe):
        joined[task.name] = _joined(sources, task.members)
    for name, checkpoint in joined.items():
        if checkpoint is not None:
            checkpoint.save(folder.checkpoint(name))
    kept = {folder.checkpoint(name) for name, checkpoint in joined.items() if checkpoint}
    for path in paths:
        if path not in kept:
            path.unlink()


def _joined(sources: Sequence[Checkpoint], members: Sequence[tuple[str, int]]) -> Checkpoint | None:
    own = [source for source in sources if set(source.members) & set(members)]
    if any(source.members == list(members) for source in own):
        return next(source for source in own if source.members == list(members))
    return join_members(own, members)
