"""How a student is trained, and on which targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from qkd_qiskit.recipe.validation import (
    BatchSize,
    Count,
    Epochs,
    LearningRate,
    Temperature,
    Weight,
    check_fields,
    require,
)

Gradient = Literal["exact", "noisy", "parameter_shift", "spsa"]
IDEAL_TARGETS = ("exact", "aer")


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
            noise), parameter_shift or spsa (both from shots alone).
        train_target: Where the circuit runs while it trains: exact, aer or fake_<device>; a real
            device in a recipe that `qkd submit --train` wrote.
        shifted_weights: Weights that a step of parameter_shift shifts, drawn at random; null = all.
        steps: Steps after which training ends, within an epoch too; null = after all epochs.
        selection: Which weights are kept: those of the best validation accuracy, or the last.
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
    train_target: str = "exact"
    shifted_weights: Count | None = None
    steps: Count | None = None
    selection: Literal["validation", "last"] = "last"

    def __post_init__(self) -> None:
        check_fields(self, "distill")
        require(
            self.shifted_weights is None or self.gradient == "parameter_shift",
            "distill.shifted_weights",
            self.shifted_weights,
            "null where distill.gradient is not parameter_shift",
        )
        on_device = self.train_target not in IDEAL_TARGETS
        require(
            self.train_target == "exact" or self.gradient != "exact",
            "distill.gradient",
            self.gradient,
            f"noisy, parameter_shift or spsa to train on {self.train_target}",
        )
        require(
            on_device or self.gradient != "noisy",
            "distill.train_target",
            self.train_target,
            "a device such as fake_torino where distill.gradient is noisy",
        )
        require(
            self.ce_weight + self.kd_weight + self.feature_weight > 0,
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
