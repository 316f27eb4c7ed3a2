"""What the members of an arm learn from: weights of the loss, images, soft targets.

The arms themselves are the table `qkd_qiskit.recipe.arms`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.inputs import draw_unlabelled, in_usual_steps, with_unlabelled
from qkd_qiskit.errors import CircuitError, RecipeError
from qkd_qiskit.experiments.teachers import can_be_taught_alike
from qkd_qiskit.experiments.tuning import Setting
from qkd_qiskit.recipe import LABEL_LOSSES, DistillSpec, Recipe
from qkd_qiskit.recipe.arms import FIRST_NOISY, TREATMENT, Loss
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.recipe.training import STATE_LOSSES
from qkd_qiskit.students.growth import check_growth
from qkd_qiskit.teachers.teacher import make_untrained_teacher

_SMALLEST = 1e-12  # of a target probability: its logarithm stays finite
SHARE_OF_LR = 0.2  # of students that start trained: Adam's first steps are of full length
UNLABELLED_PER_LABELLED = 9  # images that only the teacher labels, where the recipe does not say


def loss_weights(arm: str, recipe: Recipe) -> tuple[float, float, float]:
    """Return the weights of the cross-entropy, the divergence and the feature maps in an arm.

    Feature maps are the teacher's alone: where the soft targets are not its own, they are left out.
    """
    table, spec = recipe.arm_table[arm], recipe.distill_of(arm)
    ce_weight, kd_weight = spec.ce_weight, spec.kd_weight
    own_teacher = table.targets == "teacher" and table.taught_by is None
    features = spec.feature_weight if own_teacher else 0.0
    weights: dict[Loss, tuple[float, float, float]] = {
        "labels": (1.0, 0.0, 0.0),
        "labels_scaled": (ce_weight, 0.0, 0.0),
        "distilled": (ce_weight, kd_weight, features),
        "teacher_only": (0.0, ce_weight + kd_weight, features),
        "logits_only": (ce_weight, kd_weight, 0.0),
        "features_only": (ce_weight, 0.0, features),
    }
    return weights[table.loss]


def other_weights(arm: str, recipe: Recipe) -> tuple[float, ...]:
    """Return an arm's weights of the recipe's other terms: 0 where it learns from less."""
    uses = recipe.arm_table[arm].loss in ("distilled", "teacher_only", "logits_only")
    return tuple(term.weight if uses else 0.0 for term in recipe.distill_of(arm).other_terms)


def term_of_states(arms: Sequence[str], recipe: Recipe) -> str | None:
    """Return the first loss of states that one of the arms learns from, and the arm, for errors."""
    for arm in arms:
        terms, weights = recipe.distill_of(arm).other_terms, other_weights(arm, recipe)
        for term, weight in zip(terms, weights, strict=True):
            if weight > 0 and term.loss in STATE_LOSSES:
                return f"{term.loss!r} of arm {arm!r}"
    return None


def check_arms(recipe: Recipe) -> None:
    """Raise where an arm does not fit the recipe.

    Raises:
        RecipeError: Images without labels and none that are left unlabelled, or with a term that
            reads labels; the label's weight without a weight for the labels; feature maps alone
            without one for them; or a start that is not trained.
    """
    for name in recipe.arms:
        table, spec = recipe.arm_table[name], recipe.distill_of(name)
        if table.loss == "features_only" and spec.feature_weight == 0:
            raise RecipeError(
                f"arms: {name!r} learns from feature maps, and distill.feature_weight is 0; give "
                "a weight above 0 and the layers, or leave the arm out"
            )
        if recipe.data.name not in ("arrays", "folder"):  # which may have unlabelled ones
            _check_unlabelled(name, recipe)
        start = table.start
        if start is not None and start not in recipe.arms:
            raise RecipeError(
                f"arms: {name!r} starts from the students of {start!r}, which is not among them; "
                f"give both, as in --arms {start},{name}"
            )
        if start is not None and recipe.student_of(name) != recipe.student_of(start):
            raise RecipeError(
                f"arms: {name!r} starts from the students of {start!r} and cannot have another "
                "shape; leave its student.* keys out"
            )
        if table.grown_from is not None:
            try:
                check_growth(recipe.student_of(table.grown_from), recipe.student_of(name))
            except CircuitError as error:
                raise RecipeError(
                    f"arms: {name!r} is grown from {table.grown_from!r}: {error}"
                ) from None
        readers = [term.loss for term in spec.other_terms if term.loss in LABEL_LOSSES]
        if table.unlabelled and readers:
            raise RecipeError(
                f"arms: {name!r} learns from images without labels, which {readers[0]} in "
                f"distill.terms reads; leave the term or the arm out"
            )
        if spec.augment == "mixup" and table.loss != "teacher_only":
            raise RecipeError(
                f"arms: {name!r} reads labels, which mixup has none of; give distill.augment shift "
                "or jitter, or arms such as transfer"
            )
        if table.targets == "same_draw" and not can_be_taught_alike(recipe.teacher):
            raise RecipeError(
                f"arms: {name!r} trains teachers of its own, and this one is not trained here "
                f"(teacher.kind {recipe.teacher.kind}, or a checkpoint); leave the arm out"
            )
        if table.loss == "labels_scaled" and spec.ce_weight == 0:
            raise RecipeError(
                f"arms: {name!r} trains on the labels with distill.ce_weight, which is 0; give a "
                "weight above 0, or leave the arm out"
            )


def _check_unlabelled(arm: str, recipe: Recipe) -> None:
    given = recipe.data.train_per_class, recipe.data.train_points
    if recipe.arm_table[arm].unlabelled and given == (None, None):
        raise RecipeError(
            f"arms: {arm!r} learns from images without labels, and data.train_per_class: null "
            "leaves none; give a number of labelled images per class, unlabelled images of your "
            "own (data.name arrays or folder), or leave the arm out"
        )


def executed_spec(arm: str, recipe: Recipe) -> DistillSpec:
    """Return how an arm's circuit is differentiated, and where it runs while it trains."""
    spec, device = recipe.distill_of(arm), recipe.arm_table[arm].train_target
    device = recipe.noise_target if device == FIRST_NOISY else device
    if device is None:
        return spec
    return replace(spec, gradient="noisy", train_target=device, shifted_weights=None)


def arm_data(arm: str, recipe: Recipe, data: Data) -> Data:
    """Return data whose pool is what the students of an arm draw from."""
    return with_unlabelled(data) if recipe.arm_table[arm].unlabelled else data


def draw_images(arm: str, recipe: Recipe, data: Data, *, seed: int) -> Tensor:
    """Return the rows of the pool of `arm_data` `(images,)` that a member trains on.

    With unlabelled images, the labelled ones are among them.

    Raises:
        DataError: A class has fewer images than asked for.
        RecipeError: There are no images left to be unlabelled.
    """
    spec = recipe.data
    share = recipe.distill_of(arm).unlabelled or UNLABELLED_PER_LABELLED
    factor = 1 + share
    if not recipe.arm_table[arm].unlabelled:
        return data.draw_for(spec, seed=seed)
    if data.unlabelled is not None:
        return draw_unlabelled(data, data.draw_for(spec, seed=seed), share=share, seed=seed)
    _check_unlabelled(arm, recipe)
    if spec.train_points is not None:
        points = min(spec.train_points * factor, len(data.pool))
        return data.draw_for(replace(spec, train_points=points), seed=seed)
    assert spec.train_per_class is not None  # as has been checked
    smallest = int(torch.bincount(data.pool.labels).min())
    per_class = min(spec.train_per_class * factor, smallest)
    return data.draw_for(replace(spec, train_per_class=per_class), seed=seed)


def training_spec(
    arm: str, recipe: Recipe, data: Data, *, setting: Setting | None = None
) -> DistillSpec:
    """Return how an arm is trained: to the same number of steps, with more images too.

    What a student teaches itself has one temperature: another one would change its margins. One
    that starts trained has `SHARE_OF_LR` of the learning rate.
    """
    spec = recipe.distill_of(arm) if setting is None else setting.apply(recipe.distill_of(arm))
    table = recipe.arm_table[arm]
    if table.start is not None and table.taught_by == table.start:
        spec = replace(spec, student_temperature=None)
    if table.start is not None:
        spec = replace(spec, lr=SHARE_OF_LR * spec.lr)
    usual, more = (len(draw_images(name, recipe, data, seed=0)) for name in (TREATMENT, arm))
    copies = 1 if spec.augment == "none" else spec.copies
    return in_usual_steps(spec, usual=usual, more=copies * more)


def soft_targets(arm: str, recipe: Recipe, data: Data, *, teacher_logits: Tensor) -> Tensor:
    """Return logits `(pool, num_classes)` whose softening gives the soft targets of an arm.

    Args:
        arm: Whose targets.
        recipe: Teacher, temperature and seed.
        data: Its pool is what the targets are for.
        teacher_logits: Logits of the recipe's teacher for the pool `(pool, num_classes)`.
    """
    kind = recipe.arm_table[arm].targets
    labels, temperature = data.pool.labels, recipe.distill_of(arm).temperature
    if kind == "untrained":
        untrained = make_untrained_teacher(recipe.teacher, data, seed=recipe.seed)
        return untrained.logits(data.pool.images, temperature=temperature)
    if kind == "smoothed":
        return smoothed(teacher_logits, labels, temperature=temperature)
    if kind == "class_means":
        return class_means(teacher_logits, labels, temperature=temperature)
    return shuffled(teacher_logits, seed=recipe.seed) if kind == "shuffled" else teacher_logits


def smoothed(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Smooth the labels: the label with the teacher's mean softened confidence, others alike.

    Szegedy et al. (arXiv 1512.00567, section 7). Theirs mixes in a fixed share of 0.1; here the
    share is that of the teacher, so that both arms have targets of equal softness.
    """
    classes = logits.shape[-1]
    right = softmax(logits / temperature, dim=-1).gather(1, labels[:, None]).mean()
    targets = (1 - right) / (classes - 1) * torch.ones_like(logits)
    targets = torch.where(one_hot(labels, classes).bool(), right, targets)
    return temperature * targets.clamp_min(_SMALLEST).log()


def class_means(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Return the mean of the teacher's softened outputs over all images of the same label."""
    softened = softmax(logits / temperature, dim=-1)
    classes = logits.shape[-1]
    sums = torch.zeros(classes, classes).index_add(0, labels, softened)
    means = sums / torch.bincount(labels, minlength=classes)[:, None]
    return temperature * means.clamp_min(_SMALLEST).log()[labels]


def shuffled(logits: Tensor, *, seed: int) -> Tensor:
    """Return the teacher's outputs for other images of the pool, of whatever class."""
    return logits[torch.randperm(len(logits), generator=generator(seed, "shuffled teacher"))]
