"""Arms: named changes of the recipe, and the soft targets that the controls learn from.

Within a seed all arms share the draw of images, their order, the initialisation and the validation
split. A control keeps the loss of the distilled arm and takes away what the teacher knows: what it
still gains is not the teacher's doing.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import one_hot, softmax

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.trainer import step_sizes
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.recipe import LABEL_LOSSES, DistillSpec, Recipe, StudentKind
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.teachers.teacher import make_untrained_teacher

Loss = Literal[
    "labels", "labels_scaled", "distilled", "teacher_only", "logits_only", "features_only"
]
Targets = Literal["teacher", "smoothed", "class_means", "shuffled", "untrained"]

_SMALLEST = 1e-12  # of a target probability: its logarithm stays finite
UNLABELLED_PER_LABELLED = 9  # of the arm transfer: images that only the teacher has labelled


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A named change of the recipe.

    Attributes:
        loss: Weights of the loss: labels (cross-entropy alone, weight 1), labels_scaled (with the
            distilled arm's weight), distilled (the recipe's weights), teacher_only (the divergence
            alone, with the sum of both weights), logits_only and features_only (the distilled arm's
            without the feature maps, and without the divergence). The recipe's other terms are in
            distilled, teacher_only and logits_only.
        targets: Whose soft targets the divergence is taken from.
        kind: Kind of the student where it is another than the recipe's: a twin without a circuit.
        noisy: Whether it is trained through the noise of the first device in targets.
        tuned: Whether it has a learning rate, weight decay and number of epochs of its own.
        unlabelled: Whether it sees images that the others do not.
        order: Name of the random stream that orders the images.
        before: Whether it is what a training on a device began with: it is not trained again.
    """

    loss: Loss
    targets: Targets = "teacher"
    kind: StudentKind | None = None
    noisy: bool = False
    tuned: bool = False
    unlabelled: bool = False
    order: str = "order"
    before: bool = False

    @property
    def population(self) -> str:
        """Members of equal population have one shape and optimizer setting: they train together."""
        if self.before:
            return "students before"
        if self.kind is not None:
            return "twins" if self.kind == "classical" else "full-size twins"
        if self.noisy:
            return "noisy students"
        if self.tuned:
            return "tuned students"
        return "transfer students" if self.unlabelled else "students"


ARMS: dict[str, Arm] = {
    "label_only": Arm(loss="labels"),
    "label_only_before": Arm(loss="labels", before=True),
    "label_only_tuned": Arm(loss="labels", tuned=True),
    "distilled": Arm(loss="distilled"),
    "distilled_before": Arm(loss="distilled", before=True),
    "distilled_noisy": Arm(loss="distilled", noisy=True),
    "logits_only": Arm(loss="logits_only"),
    "features_only": Arm(loss="features_only"),
    "transfer": Arm(loss="teacher_only", unlabelled=True),
    "label_smoothing": Arm(loss="distilled", targets="smoothed"),
    "class_mean_labels": Arm(loss="distilled", targets="class_means"),
    "shuffled_teacher": Arm(loss="distilled", targets="shuffled"),
    "untrained_teacher": Arm(loss="distilled", targets="untrained"),
    "scaled_ce": Arm(loss="labels_scaled"),
    "classical_twin": Arm(loss="distilled", kind="classical"),
    "classical_full": Arm(loss="distilled", kind="classical_full"),
    "replicate": Arm(loss="labels", order="replicate order"),
}


def loss_weights(arm: str, spec: DistillSpec) -> tuple[float, float, float]:
    """Weights of the cross-entropy, the divergence and the feature maps in an arm.

    Feature maps are the teacher's alone: where the soft targets are not its own, they are left out.
    """
    ce_weight, kd_weight = spec.ce_weight, spec.kd_weight
    features = spec.feature_weight if ARMS[arm].targets == "teacher" else 0.0
    weights: dict[Loss, tuple[float, float, float]] = {
        "labels": (1.0, 0.0, 0.0),
        "labels_scaled": (ce_weight, 0.0, 0.0),
        "distilled": (ce_weight, kd_weight, features),
        "teacher_only": (0.0, ce_weight + kd_weight, features),
        "logits_only": (ce_weight, kd_weight, 0.0),
        "features_only": (ce_weight, 0.0, features),
    }
    return weights[ARMS[arm].loss]


def other_weights(arm: str, spec: DistillSpec) -> tuple[float, ...]:
    """Return an arm's weights of the recipe's other terms: 0 where it learns from less."""
    uses = ARMS[arm].loss in ("distilled", "teacher_only", "logits_only")
    return tuple(term.weight if uses else 0.0 for term in spec.other_terms)


def check_arms(recipe: Recipe) -> None:
    """Raise where an arm does not fit the recipe.

    Raises:
        RecipeError: transfer without images that are left unlabelled, or with a term that reads
            labels, scaled_ce without a weight for the labels, or features_only without one for the
            feature maps.
    """
    if "features_only" in recipe.arms and recipe.distill.feature_weight == 0:
        raise RecipeError(
            "arms: 'features_only' learns from feature maps, and distill.feature_weight is 0; give "
            "a weight above 0 and the layers, or leave the arm out"
        )
    given = recipe.data.train_per_class, recipe.data.train_points
    if "transfer" in recipe.arms and given == (None, None):
        raise RecipeError(
            "arms: 'transfer' learns from images without labels, and data.train_per_class: null "
            "leaves none; give a number of labelled images per class, or leave the arm out"
        )
    readers = [term.loss for term in recipe.distill.other_terms if term.loss in LABEL_LOSSES]
    if "transfer" in recipe.arms and readers:
        raise RecipeError(
            f"arms: 'transfer' learns from images without labels, which {readers[0]} in "
            f"distill.terms reads; leave the term or the arm out"
        )
    if "scaled_ce" in recipe.arms and recipe.distill.ce_weight == 0:
        raise RecipeError(
            "arms: 'scaled_ce' trains on the labels with distill.ce_weight, which is 0; give a "
            "weight above 0, or leave the arm out"
        )


def draw_images(arm: str, recipe: Recipe, data: Data, *, seed: int) -> Tensor:
    """Rows of the pool `(images,)` that a member trains on.

    With unlabelled images, the labelled ones are among them.

    Raises:
        DataError: A class has fewer images than asked for.
    """
    spec, factor = recipe.data, 1 + UNLABELLED_PER_LABELLED
    if not ARMS[arm].unlabelled:
        return data.draw_for(spec, seed=seed)
    if spec.train_points is not None:
        points = min(spec.train_points * factor, len(data.pool))
        return data.draw_for(replace(spec, train_points=points), seed=seed)
    assert spec.train_per_class is not None  # as check_arms has seen to
    smallest = int(torch.bincount(data.pool.labels).min())
    per_class = min(spec.train_per_class * factor, smallest)
    return data.draw_for(replace(spec, train_per_class=per_class), seed=seed)


def training_spec(arm: str, recipe: Recipe, data: Data) -> DistillSpec:
    """How an arm is trained: with more images in fewer epochs, to the same number of steps."""
    spec = recipe.distill
    if not ARMS[arm].unlabelled:
        return spec
    usual, more = (len(draw_images(name, recipe, data, seed=0)) for name in ("distilled", arm))
    steps = sum(map(len, step_sizes(spec, usual)))
    return replace(spec, epochs=math.ceil(steps / math.ceil(more / spec.batch_size)), steps=steps)


def soft_targets(arm: str, recipe: Recipe, data: Data, *, teacher_logits: Tensor) -> Tensor:
    """Logits for the pool `(pool, num_classes)` whose softening gives the arm's soft targets.

    Args:
        arm: Whose targets.
        recipe: Teacher, temperature and seed.
        data: Its pool is what the targets are for.
        teacher_logits: What the recipe's teacher says about the pool `(pool, num_classes)`.
    """
    kind = ARMS[arm].targets
    if kind == "untrained":
        untrained = make_untrained_teacher(recipe.teacher, data, seed=recipe.seed)
        return untrained.logits(data.pool.images)
    labels, temperature = data.pool.labels, recipe.distill.temperature
    if kind == "smoothed":
        return smoothed(teacher_logits, labels, temperature=temperature)
    if kind == "class_means":
        return class_means(teacher_logits, labels, temperature=temperature)
    return shuffled(teacher_logits, seed=recipe.seed) if kind == "shuffled" else teacher_logits


def smoothed(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Label smoothing: the label with the teacher's mean softened confidence, others alike.

    Szegedy et al. (arXiv 1512.00567, section 7). Theirs mixes in a fixed share of 0.1; here the
    share is that of the teacher, so that both arms have targets of equal softness.
    """
    classes = logits.shape[-1]
    right = softmax(logits / temperature, dim=-1).gather(1, labels[:, None]).mean()
    targets = (1 - right) / (classes - 1) * torch.ones_like(logits)
    targets = torch.where(one_hot(labels, classes).bool(), right, targets)
    return temperature * targets.clamp_min(_SMALLEST).log()


def class_means(logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """The mean of the teacher's softened outputs over all images of the same label."""
    softened = softmax(logits / temperature, dim=-1)
    classes = logits.shape[-1]
    sums = torch.zeros(classes, classes).index_add(0, labels, softened)
    means = sums / torch.bincount(labels, minlength=classes)[:, None]
    return temperature * means.clamp_min(_SMALLEST).log()[labels]


def shuffled(logits: Tensor, *, seed: int) -> Tensor:
    """The teacher's outputs for other images of the pool, of whatever class."""
    return logits[torch.randperm(len(logits), generator=generator(seed, "shuffled teacher"))]
