"""A whole run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from qkd_qiskit.recipe.data import DataSpec
from qkd_qiskit.recipe.models import CLASSICAL_STUDENTS, FILTER_STUDENTS, StudentSpec, TeacherSpec
from qkd_qiskit.recipe.runtime import RuntimeSpec
from qkd_qiskit.recipe.training import IDEAL_TARGETS, DistillSpec
from qkd_qiskit.recipe.validation import Count, Range, check_fields, require, whole_number

Arm = Literal[
    "label_only",
    "label_only_tuned",
    "distilled",
    "distilled_noisy",
    "logits_only",
    "features_only",
    "transfer",
    "label_smoothing",
    "class_mean_labels",
    "shuffled_teacher",
    "untrained_teacher",
    "scaled_ce",
    "classical_twin",
    "classical_full",
    "replicate",
    "label_only_before",
    "distilled_before",
]

SeedCount = Annotated[int, whole_number(most=10_000)]
Seed = Annotated[int, Range(accepted="a whole number of at least 0", least=0)]
SharedSeed = Annotated[
    int, Range(accepted="a whole number from 0 to 2**32 - 1", least=0, most=2**32 - 1)
]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run.

    Attributes:
        data: Which images.
        teacher: What teaches.
        student: What learns.
        distill: How it is trained.
        runtime: How jobs are submitted to a real device.
        arms: What is compared: label_only; label_only_tuned (its learning rate, weight decay and
            epochs chosen on validation images); distilled; distilled_noisy (through the noise of
            the first device in targets); transfer (from images that only the teacher has
            labelled); classical_twin (the distilled twin); classical_full (the
            same with student.full_width hidden units); replicate (label_only in another order).
            Distilled from other soft targets: label_smoothing, class_mean_labels,
            shuffled_teacher, untrained_teacher; from labels with their weight alone: scaled_ce.
            As they were before a training on a device: label_only_before, distilled_before.
        targets: Where the trained students are evaluated: exact, aer, fake_<device>, a snapshot's
            file; a device with options is fake_torino:exact, fake_torino:scale=2, ...
        shots: Shots per image on sampled targets.
        test_limit: Test images on sampled targets.
        seeds: Number of paired seeds, or a list of them.
        seed: Seed of what the paired seeds share: split, teacher, transpiler, shots.
    """

    data: DataSpec = field(default_factory=DataSpec)
    teacher: TeacherSpec = field(default_factory=TeacherSpec)
    student: StudentSpec = field(default_factory=StudentSpec)
    distill: DistillSpec = field(default_factory=DistillSpec)
    runtime: RuntimeSpec = field(default_factory=RuntimeSpec)
    arms: tuple[Arm, ...] = ("label_only", "distilled", "classical_twin")
    targets: tuple[str, ...] = ("exact", "fake_torino")
    shots: Annotated[int, whole_number(most=10_000_000)] = 4096
    test_limit: Count = 500
    seeds: SeedCount | tuple[Seed, ...] = 3
    seed: SharedSeed = 0

    def __post_init__(self) -> None:
        check_fields(self)
        for key in ("arms", "targets"):
            value = getattr(self, key)
            distinct = len(set(value)) == len(value) > 0
            require(distinct, key, list(value), "a list of one or more distinct names")
        seeds = self.member_seeds
        require(
            len(set(seeds)) == len(seeds) > 0,
            "seeds",
            self.seeds,
            "a number of at least 1, or a list of distinct whole numbers of at least 0",
        )
        require(
            not {"classical_twin", "classical_full"} & set(self.arms)
            or self.student.kind != "convolution",
            "arms",
            list(self.arms),
            "arms without classical twins for the student convolution, which is classical itself",
        )
        exactly = self.distill.gradient == "exact" and "distilled_noisy" not in self.arms
        require(
            exactly or self.student.kind not in (*FILTER_STUDENTS, *CLASSICAL_STUDENTS),
            "student.kind",
            self.student.kind,
            "another kind where distill.gradient is not exact or an arm trains through noise: "
            "filters are trained exactly, classical students have no circuit",
        )
        require(
            "distilled_noisy" not in self.arms or self.noise_target is not None,
            "targets",
            list(self.targets),
            "a device such as fake_torino for the arm distilled_noisy",
        )

    @property
    def noise_target(self) -> str | None:
        """The first device in targets: where the arm distilled_noisy trains."""
        return next((name for name in self.targets if name not in IDEAL_TARGETS), None)

    @property
    def member_seeds(self) -> tuple[int, ...]:
        """The seeds as a list: `seeds: 3` is 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
