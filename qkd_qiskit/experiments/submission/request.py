"""What a user wants of a device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, DistillSpec, Mode, Recipe, RuntimeSpec
from qkd_qiskit.recipe.arms import BASELINE, TREATMENT

SHARE_OF_LR = 0.2
"""Learning rate of a training on a device, as a share of the recipe's: its gradients scatter."""

SampledGradient = Literal["spsa", "forward", "guided_spsa", "parameter_shift"]
MAX_STEPS = 100_000
"""Steps of a training on a device, which would take more than two days of it."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is wanted of a device; None = what the recipe says.

    Attributes:
        backend: Device of the account, or a snapshot such as fake_torino.
        mode: How jobs are submitted.
        shots: Shots per circuit.
        limit: Test images.
        seeds: Seeds of the students.
        max_qpu_seconds: QPU seconds that all its jobs may use; None = no limit.
        again: Whether to measure once more what was measured.
        recalibrate: Unlabelled training images that are measured in the same jobs, to fit the maps
            of `experiments.recalibration`; 0 = none.
        options: Fields of `RuntimeSpec` that change what is counted, in place of the recipe's.
    """

    backend: str
    mode: Mode | None = None
    shots: int | None = None
    limit: int | None = None
    seeds: tuple[int, ...] | None = None
    max_qpu_seconds: float | None = None
    again: bool = False
    recalibrate: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)

    def runtime(self, base: RuntimeSpec, *, mode: Mode) -> RuntimeSpec:
        """Return how jobs are submitted: as a recipe says, but for what is requested."""
        return replace(base, **self.options, mode=self.mode or mode)

    def changed(self, base: RuntimeSpec) -> dict[str, Any]:
        """Return the options that are not as a recipe says."""
        return {name: it for name, it in self.options.items() if it != getattr(base, name)}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How students are trained on a device.

    Attributes:
        gradient: `spsa`, `forward` or `guided_spsa` (one job a step), or `parameter_shift` (two).
        steps: Steps of the optimizer.
        batch_size: Images per step; None = the recipe's.
        lr: Learning rate; None = `SHARE_OF_LR` of the recipe's.
        shifted_weights: Weights that a step of parameter_shift shifts; None = all.
        directions: Of forward: directions of each image; None = the recipe's.
        adaptive_shots: Whether steps of spsa or forward take no more shots than are worth it.
        fresh: Whether students start untrained; else from the run's.
        recalibrated: Whether they start with the device's maps in their last layers.
        evaluate: Whether they are evaluated on the device afterwards.
    """

    gradient: SampledGradient
    steps: int
    batch_size: int | None = None
    lr: float | None = None
    shifted_weights: int | None = None
    directions: int | None = None
    adaptive_shots: bool = False
    fresh: bool = False
    recalibrated: bool = False
    evaluate: bool = False

    def __post_init__(self) -> None:
        if self.fresh and self.recalibrated:
            raise InputError(
                "--from-scratch and --from-recalibrated are given; an untrained student has no "
                "recalibration: leave one out"
            )
        if not 1 <= self.steps <= MAX_STEPS:
            raise InputError(
                f"--steps: {self.steps} is not accepted; give 1 to {MAX_STEPS:,}, each of which "
                "is a job of 2 QPU seconds or more"
            )


def trained_arms(recipe: Recipe) -> tuple[str, ...]:
    """Return the arms of a run that are trained on a device: label-only and distilled.

    Raises:
        InputError: The run has neither.
    """
    arms = tuple(arm for arm in recipe.arms if arm in (BASELINE, TREATMENT))
    if not arms or recipe.student.kind in CLASSICAL_STUDENTS:
        raise InputError(
            f"the run has the arms {', '.join(recipe.arms)} of kind {recipe.student.kind}; on a "
            "device, label_only and distilled are trained, with a circuit"
        )
    return arms


def training_spec(recipe: Recipe, training: Training, *, backend: str, images: int) -> DistillSpec:
    """Return how the recipe's students are trained on a device, from so many images each."""
    spec = recipe.distill
    batch_size = training.batch_size or spec.batch_size
    share = 1.0 if training.fresh else SHARE_OF_LR
    return replace(
        spec,
        gradient=training.gradient,
        train_target=backend,
        steps=training.steps,
        epochs=math.ceil(training.steps / math.ceil(images / batch_size)),
        batch_size=batch_size,
        lr=training.lr or share * spec.lr,
        shifted_weights=training.shifted_weights,
        directions=training.directions or spec.directions,
        adaptive_shots=training.adaptive_shots,
    )
