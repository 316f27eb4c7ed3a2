"""How a student is trained, and on which targets."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from qkd_qiskit.recipe.display import short_repr
from qkd_qiskit.recipe.validation import (
    BatchSize,
    Count,
    Epochs,
    LearningRate,
    Share,
    Temperature,
    Weight,
    check_fields,
    require,
    whole_number,
)

_DEVICES = re.compile(r"cpu|auto|cuda(:\d{1,3})?")
Gradient = Literal["exact", "noisy", "parameter_shift", "spsa", "forward", "guided_spsa"]
FROM_DIRECTIONS: tuple[Gradient, ...] = ("spsa", "forward")
"""Gradients from random directions alone, whose shots can adapt."""
IDEAL_TARGETS = ("exact", "aer")
LossName = Literal[
    "ce",
    "kd",
    "feature",
    "label_smoothing",
    "standardized_kd",
    "dkd",
    "dist",
    "jensen_shannon",
    "rkd_distance",
    "rkd_angle",
    "similarity",
    "pkt",
    "fidelity",
]
LOSS_OPTIONS: dict[LossName, tuple[str, ...]] = {
    "label_smoothing": ("smoothing",),
    "standardized_kd": ("temperature",),
    "dkd": ("temperature", "alpha", "beta"),
    "dist": ("temperature", "beta", "gamma"),
    "jensen_shannon": ("temperature",),
    "fidelity": ("temperature",),
}
LABEL_LOSSES: tuple[LossName, ...] = ("ce", "label_smoothing", "dkd")  # those that read the label
STATE_LOSSES: tuple[LossName, ...] = ("fidelity",)  # those that read the states of a circuit
_WEIGHTED: dict[LossName, str] = {"ce": "ce_weight", "kd": "kd_weight", "feature": "feature_weight"}


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One term of the loss.

    Attributes:
        loss: Which one: ce (cross-entropy with the labels), kd (the divergence from the teacher, of
            distill.temperature and distill.student_temperature), feature (of distill.teacher_layer
            and distill.student_layer), label_smoothing, standardized_kd, dkd, dist,
            jensen_shannon, rkd_distance, rkd_angle, similarity, pkt, fidelity (of the states of the
            student's circuit, whose encoding must be trained).
        weight: Weight of the term in the distilled arm.
        temperature: Of standardized_kd, dkd, dist, jensen_shannon and fidelity; null =
            distill.temperature.
        alpha: Of dkd, the weight of the label; null = 1.
        beta: Of dkd, the weight of the other classes, null = 8; of dist, the weight of the relation
            between classes, null = 1.
        gamma: Of dist, the weight of the relation between examples; null = 1.
        smoothing: Of label_smoothing, the share that all classes get; null = 0.1.
    """

    loss: LossName
    weight: Weight = 1.0
    temperature: Temperature | None = None
    alpha: Weight | None = None
    beta: Weight | None = None
    gamma: Weight | None = None
    smoothing: Share | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "distill.terms")
        options = LOSS_OPTIONS.get(self.loss, ())
        for field in fields(self)[2:]:
            require(
                field.name in options or getattr(self, field.name) is None,
                f"distill.terms.{field.name}",
                getattr(self, field.name),
                f"{', '.join(options) or 'loss and weight alone'} with the loss {self.loss}",
            )


@dataclass(frozen=True, kw_only=True)
class DistillSpec:
    """How the student is trained.

    Attributes:
        epochs: Passes over the student's training images.
        batch_size: Images per step.
        lr: Adam's learning rate at the start.
        schedule: Learning rate over the epochs.
        weight_decay: Decoupled weight decay (AdamW).
        temperature: T, softens the teacher's logits.
        student_temperature: Temperature of the student; null = the teacher's (symmetric, as
            Hinton); 1 = soften the teacher only.
        ce_weight: Weight of the cross-entropy with the labels in the distilled arm.
        kd_weight: Weight of the KL divergence from the teacher in the distilled arm.
        feature_weight: Weight of the mean squared difference of feature maps in the distilled arm.
        teacher_layer: Layer of the teacher whose feature maps are taken, for example filters.
        student_layer: Layer of the student that is to give the same; where the channels differ, a
            1x1 convolution between them is learned.
        gradient: How the circuit is differentiated: exact, noisy (exactly, through the device's
            noise), or from shots alone: parameter_shift, spsa (one random direction of each image),
            forward (several, see directions), guided_spsa (an eighth of the images shifted, which
            guide the others).
        train_target: Where the circuit runs while it trains: exact, aer or fake_<device>; a real
            device in a recipe that `qkd submit --train` wrote. A list of devices, where gradient is
            noisy, has every one run an equal share of each batch.
        shifted_weights: Weights that a step of parameter_shift shifts, drawn at random; null = all.
        directions: Of gradient forward: directions of each image.
        adaptive_shots: Of spsa and forward: the run's shots are the most, and each step takes as
            many as make the most progress per QPU second by what the steps before have measured.
        steps: Steps after which training ends, within an epoch too; null = after all epochs.
        selection: Which weights are kept: those of the best validation accuracy, or the last.
        terms: The loss of the distilled arm as a list, such as
            [{loss: ce, weight: 0.5}, {loss: dkd, beta: 2}]; ce_weight, kd_weight and feature_weight
            are then those in the list, 0 for what is not in it. null = these three weights alone.
        unlabelled: Images without a label for each labelled one, as far as there are, in arms that
            learn from the teacher alone (transfer, self_training): your own unlabelled ones, else
            others of the pool; null = 9. In Python's `distill`, whose loss must then read no
            labels; null = none.
        augment: Copies of each image that are trained on too, labelled by the teacher one by one
            and by the image's own label, in as many steps: none, shift (whole pixels), jitter
            (turned, scaled and shifted a little) or mixup (mixed with another; only where the loss
            reads no labels).
        copies: Of distill.augment: how many of each image, itself among them.
        device: Where students train: cpu, cuda, cuda:1 or auto (a GPU where there is one); null =
            where they lie, in a run the CPU.
    """

    epochs: Epochs = 60
    batch_size: BatchSize = 32
    lr: LearningRate = 0.03
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: Weight = 0.0
    temperature: Temperature = 4.0
    student_temperature: Temperature | None = None
    ce_weight: Weight = 0.5
    kd_weight: Weight = 0.5
    feature_weight: Weight = 0.0
    teacher_layer: str | None = None
    student_layer: str | None = None
    gradient: Gradient = "exact"
    train_target: tuple[str, ...] | str = "exact"
    shifted_weights: Count | None = None
    directions: Count = 4
    adaptive_shots: bool = False
    steps: Count | None = None
    selection: Literal["validation", "last"] = "last"
    terms: tuple[LossTerm, ...] | None = None
    unlabelled: Count | None = None
    augment: Literal["none", "shift", "jitter", "mixup"] = "none"
    copies: Annotated[int, whole_number(least=2, most=1000)] = 8
    device: str | None = None

    __repr__ = short_repr

    def __post_init__(self) -> None:
        check_fields(self, "distill")
        if self.terms is not None:
            self._take_weights(self.terms)
        require(
            self.shifted_weights is None or self.gradient == "parameter_shift",
            "distill.shifted_weights",
            self.shifted_weights,
            "null where distill.gradient is not parameter_shift",
        )
        require(
            not self.adaptive_shots or self.gradient in FROM_DIRECTIONS,
            "distill.adaptive_shots",
            True,
            f"false where distill.gradient is not {' or '.join(FROM_DIRECTIONS)}",
        )
        require(
            self.device is None or _DEVICES.fullmatch(self.device) is not None,
            "distill.device",
            self.device,
            "cpu, cuda, cuda:1 or another number, auto or null",
        )
        require(
            self.gradient == "exact" or self.device in (None, "cpu", "auto"),
            "distill.device",
            self.device,
            f"cpu where distill.gradient is {self.gradient}, as targets run on the CPU alone",
        )
        names = self.train_targets
        if len(names) == 1:
            object.__setattr__(self, "train_target", names[0])  # one in a list is one
        require(
            len(set(names)) == len(names) > 0,
            "distill.train_target",
            list(names),
            "one target, or a list of distinct devices",
        )
        require(
            len(names) == 1 or self.gradient == "noisy",
            "distill.train_target",
            list(names),
            "one target where distill.gradient is not noisy",
        )
        on_device = not set(names) & set(IDEAL_TARGETS)
        require(
            self.train_target == "exact" or self.gradient != "exact",
            "distill.gradient",
            self.gradient,
            f"noisy, or one from shots such as spsa, to train on {', '.join(names)}",
        )
        require(
            on_device or self.gradient != "noisy",
            "distill.train_target",
            self.train_target,
            "a device such as fake_torino where distill.gradient is noisy",
        )
        require(
            self.ce_weight + self.kd_weight + self.feature_weight > 0 or self.terms is not None,
            "distill.ce_weight",
            self.ce_weight,
            "a positive weight for at least one of ce_weight, kd_weight and feature_weight",
        )
        for key in ("teacher_layer", "student_layer"):
            require(
                self.feature_weight == 0 or getattr(self, key) is not None,
                f"distill.{key}",
                getattr(self, key),
                "the name of a layer where distill.feature_weight is above 0",
            )

    @property
    def train_targets(self) -> tuple[str, ...]:
        """Where the circuit runs while it trains, as a list."""
        return (self.train_target,) if isinstance(self.train_target, str) else self.train_target

    @property
    def other_terms(self) -> tuple[LossTerm, ...]:
        """The terms beside cross-entropy, divergence and feature maps."""
        return tuple(term for term in self.terms or () if term.loss not in _WEIGHTED)

    def _take_weights(self, terms: tuple[LossTerm, ...]) -> None:
        """Check the terms, and let the weights by name be theirs."""
        weights = {term.loss: term.weight for term in terms}
        require(
            len(weights) == len(terms) and sum(weights.values()) > 0,
            "distill.terms",
            [f"{term.loss}: {term.weight:g}" for term in terms],
            "a list of one or more losses, each once, with a weight above 0 for at least one",
        )
        require(
            self.student_temperature is None or "kd" in weights,
            "distill.student_temperature",
            self.student_temperature,
            "null where distill.terms has no kd, which alone has a temperature for the student",
        )
        for loss, key in _WEIGHTED.items():
            object.__setattr__(self, key, weights.get(loss, 0.0))
