"""One run of the published student: ten epochs, one image per step, and how good every epoch is.

A run depends on nothing but its setting, its images, its targets and its two seeds, so runs can be
made in any order, in any process, and again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from paper_v1 import kernel
from paper_v1.data import Images, PublishedData
from paper_v1.losses import TEMPERATURE
from paper_v1.student import (
    SHIFTS,
    GradientRule,
    Head,
    initial_weights,
)
from qkd_qiskit.recipe.seeds import derive_seed, generator

LEAST_RECALL = 0.1


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a student is trained.

    Attributes:
        qubits: Width of the circuit, 3 or 4 in the paper.
        head: What is made of the outcome frequencies.
        shots: Per image, in training and evaluation; 0 = exact probabilities.
        gradient: The published difference, or the true derivative.
        alpha: Weight of the divergence from the teacher; 0 = labels alone.
        temperature: T of both sides.
        lr: Adam's learning rate.
        epochs: Passes over the images.
    """

    qubits: int
    head: Head = "sigmoid"
    shots: int = 0
    gradient: GradientRule = "published"
    alpha: float = 0.0
    temperature: float = TEMPERATURE
    lr: float = 1e-3
    epochs: int = 10


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a run gave; accuracies are fractions.

    Attributes:
        subset: Accuracy on the published test subset after each epoch.
        validation: Accuracy on the validation images after each epoch.
        ce: Mean cross-entropy of each epoch, in nats.
        kd: Mean divergence from the teacher of each epoch, in nats.
        test: Accuracy on all test images, with the weights of `chosen_epoch`.
        chosen_epoch: The first epoch of the best validation accuracy, from 1.
        lost_classes: Classes of which these weights recognise less than a tenth of the validation
            images: where a run fails, it is in this way.
    """

    subset: tuple[float, ...]
    validation: tuple[float, ...]
    ce: tuple[float, ...]
    kd: tuple[float, ...]
    test: float
    chosen_epoch: int
    lost_classes: int

    @property
    def published(self) -> float:
        """The figure of the published protocol: the best epoch on the test subset itself."""
        return max(self.subset)


def train(
    setting: Setting,
    examples: PublishedData,
    *,
    teacher_logits: torch.Tensor | None = None,
    seed: int,
    order_seed: int | None = None,
) -> Figures:
    """Train one student and evaluate it.

    Args:
        setting: How.
        examples: What it learns from and is measured on.
        teacher_logits: For the training images `(images, classes)`; None where alpha is 0.
        seed: Seed of the initial weights and, if no other is given, of everything else.
        order_seed: Seed of the order, the dropout and the shots.
    """
    order_seed = seed if order_seed is None else order_seed
    images, labels = examples.train
    classes = examples.data.num_classes
    if teacher_logits is None:
        teacher_logits = torch.zeros(len(labels), classes)
    targets = torch.softmax(teacher_logits.double() / setting.temperature, dim=1).numpy()
    weights = initial_weights(setting.qubits, seed=seed)
    state = (weights, np.zeros_like(weights), np.zeros_like(weights), np.zeros(1, np.int64))
    rule, memory = _rule(setting), make_memory(setting)
    shots = np.random.Generator(np.random.PCG64(derive_seed(order_seed, "published", "shots")))
    subset, validation, hard, soft = [], [], [], []
    best, chosen, kept = -1.0, 0, weights.copy()
    for epoch in range(setting.epochs):
        order, masks = _epoch(order_seed, epoch, images=len(labels))
        ce, kd, finite = kernel.train_epoch(
            state, images, labels, targets, order, masks, rule, shots, memory
        )
        hard.append(ce)
        soft.append(kd)
        subset.append(_accuracy(setting, weights, examples.subset, seed=order_seed))
        validation.append(_accuracy(setting, weights, examples.validation, seed=order_seed))
        if finite and validation[-1] > best:
            best, chosen, kept = validation[-1], epoch + 1, weights.copy()
    recalls = recall(setting, kept, examples.validation, seed=order_seed)
    return Figures(
        subset=tuple(subset),
        validation=tuple(validation),
        ce=tuple(hard),
        kd=tuple(soft),
        test=_accuracy(setting, kept, examples.test, seed=order_seed),
        chosen_epoch=chosen,
        lost_classes=int((recalls < LEAST_RECALL).sum()),
    )


def choices(
    setting: Setting, weights: npt.NDArray[np.float32], images: Images, *, seed: int
) -> npt.NDArray[np.int64]:
    """The largest output for each image, dropout off: a class, or an output beyond the classes."""
    shots = np.random.Generator(np.random.PCG64(derive_seed(seed, "published", "evaluation")))
    chosen = np.zeros(len(images[1]), np.int64)
    kernel.predict(weights, images[0], _rule(setting), shots, make_memory(setting), chosen)
    return chosen


def recall(
    setting: Setting, weights: npt.NDArray[np.float32], images: Images, *, seed: int
) -> npt.NDArray[np.float64]:
    """Share of each class's images that are recognised `(classes,)`."""
    right = choices(setting, weights, images, seed=seed) == images[1]
    return np.bincount(images[1], weights=right) / np.bincount(images[1])


def _accuracy(
    setting: Setting, weights: npt.NDArray[np.float32], images: Images, *, seed: int
) -> float:
    return float((choices(setting, weights, images, seed=seed) == images[1]).mean())


def make_memory(setting: Setting) -> tuple[Any, ...]:
    """The kernel's buffers for a setting."""
    outputs = 2 ** (setting.qubits + (setting.head == "sigmoid"))
    return kernel.make_memory(setting.qubits, head_outputs=outputs)


def _rule(setting: Setting) -> tuple[Any, ...]:
    shift, factor = SHIFTS[setting.gradient]
    return (
        *(setting.qubits, setting.shots, shift, factor, setting.head == "sigmoid"),
        *(setting.temperature, setting.temperature**2 * setting.alpha, setting.lr),
    )


def _epoch(seed: int, epoch: int, *, images: int) -> tuple[npt.NDArray[np.int64], tuple[Any, Any]]:
    """The order of the images, and what dropout keeps in each step."""
    random = generator(seed, "published", "epoch", epoch)
    order = torch.randperm(images, generator=random).numpy()
    kept = [(torch.rand(images, size, generator=random) < 0.5).float() for size in (20, 50)]
    return order, (kept[0].numpy(), kept[1].numpy())
