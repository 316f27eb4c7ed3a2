"""Everything a run is, as frozen dataclasses; `recipes` reads and writes them as YAML.

They check themselves when they are made, so a value that exists is a valid one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from qkd_qiskit.errors import RecipeError
from qkd_qiskit.generator import Generator

DatasetName = Literal["digits", "mnist", "fashion_mnist", "cifar10", "generated", "extended_xor"]
GENERATED: tuple[DatasetName, ...] = ("generated", "extended_xor")
TeacherKind = Literal[
    "softmax",
    "mlp",
    "small_cnn",
    "lenet5",
    "alexnet",
    "ensemble",
    "quanvolution",
    "random_quanvolution",
    "convolution",
    "module",
]
StudentKind = Literal[
    "quantum", "hybrid", "classical", "classical_full", "quanvolution", "convolution"
]
CLASSICAL_STUDENTS = ("classical", "classical_full")
FILTER_STUDENTS = ("quanvolution", "convolution")
Encoding = Literal["amplitude", "angle", "reuploading", "qubit"]
Ansatz = Literal["ry_rz_ring", "real_amplitudes", "cz_line", "local_rotations"]
Reduction = Literal["none", "linear", "crop", "pca", "avg_pool", "max_pool", "cnn"]
Readout = Literal["bins", "modulo", "learned", "probabilities", "expectation"]
Head = Literal["none", "linear", "mlp"]
Gradient = Literal["exact", "noisy", "parameter_shift", "spsa"]
Mode = Literal["session", "batch", "job"]
Decoupling = Literal["none", "XX", "XpXm", "XY4"]
CLASS_BINS = ("bins", "modulo", "learned")
IDEAL_TARGETS = ("exact", "aer")
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

MAX_LR = 1e30  # what comes near the largest 32-bit number overflows in the optimizer


def _require(condition: bool, key: str, given: object, accepted: str) -> None:
    if not condition:
        raise RecipeError(f"{key}: {given!r} is not accepted; give {accepted}")


def _positive(key: str, value: float) -> None:
    _require(math.isfinite(value) and value > 0, key, value, "a number above 0")


def _learning_rate(key: str, value: float) -> None:
    _require(0 < value <= MAX_LR, key, value, f"a number above 0, at most {MAX_LR}")


def _at_least(key: str, value: int, least: int) -> None:
    _require(value >= least, key, value, f"a whole number of at least {least}")


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """Which images a run sees.

    Attributes:
        name: Data set: digits (8x8, no download), mnist or fashion_mnist (28x28), cifar10 (3x32x32,
            never downloaded), generated or extended_xor (feature vectors of three classes; see
            `qkd_qiskit.generated`).
        root: Folder of the torchvision data sets; default: $QKD_DATA, else the user's cache folder.
        classes: Labels to keep, relabelled 0, 1, ... in this order; default: all.
        train_per_class: Labelled training images per class for the student; null = all.
        train_points: Labelled training images for the student in all, drawn without regard to
            their classes; null = as train_per_class says.
        draw: Take the first images (of each class) in data-set order, or a random draw per seed.
        validation_fraction: Share of the training images held out before anything is drawn.
        test_per_class: First test images per class to keep; null = all.
        points: Of generated data: how many points, a third of them for the test.
        features: Of generated data: features of a point.
        informative: Of generated data: hidden numbers that decide the class.
        noise_features: Of generated data: features that say nothing.
        difficulty: Of generated data: 0 (clusters apart) to 1 (they overlap widely).
    """

    name: DatasetName = "digits"
    root: str | None = None
    classes: tuple[int, ...] | None = None
    train_per_class: int | None = None
    train_points: int | None = None
    draw: Literal["first", "random"] = "random"
    validation_fraction: float = 0.1
    test_per_class: int | None = None
    points: int = 3000
    features: int = 64
    informative: int = 4
    noise_features: int = 0
    difficulty: float = 0.25

    def __post_init__(self) -> None:
        if self.classes is not None:
            object.__setattr__(self, "classes", tuple(self.classes))
            distinct = len(set(self.classes)) == len(self.classes)
            in_range = all(0 <= label <= 9 for label in self.classes)
            _require(
                distinct and in_range and len(self.classes) >= 2,
                "data.classes",
                list(self.classes),
                "two or more distinct labels from 0 to 9, for example [0, 1, 2]",
            )
        for key in ("train_per_class", "train_points", "test_per_class"):
            value = getattr(self, key)
            if value is not None:
                _at_least(f"data.{key}", value, 1)
        _require(
            self.train_points is None or self.train_per_class is None,
            "data.train_points",
            self.train_points,
            "either train_points or train_per_class, and null for the other",
        )
        _require(
            0 < self.validation_fraction < 1,
            "data.validation_fraction",
            self.validation_fraction,
            "a share between 0 and 1",
        )
        _at_least("data.points", self.points, 30)
        if self.name in GENERATED:
            _ = self.generator

    @property
    def generator(self) -> Generator:
        """What generates the points of generated data.

        Raises:
            RecipeError: Numbers that do not go together.
        """
        return Generator(
            name=self.name,
            features=self.features,
            informative=self.informative,
            noise_features=self.noise_features,
            difficulty=self.difficulty,
        )


@dataclass(frozen=True, kw_only=True)
class TeacherSpec:
    """What teaches.

    Attributes:
        kind: Architecture; module = your own, named by `module`.
        module: For kind=module: import path `package.file:factory`;
            factory(image_shape, num_classes) returns an nn.Module that maps images
            (batch, channels, height, width) to logits.
        checkpoint: Safetensors file with trained weights; the teacher is then not trained.
        epochs: Training epochs.
        batch_size: Training batch size.
        lr: Adam's learning rate.
        weight_decay: Decoupled weight decay (AdamW).
        train_per_class: Training images per class for the teacher; null = all.
        same_draw: One teacher for each seed, trained on the images that the students of that seed
            train on.
    """

    kind: TeacherKind = "softmax"
    module: str | None = None
    checkpoint: str | None = None
    epochs: int = 60
    batch_size: int = 128
    lr: float = 0.01
    weight_decay: float = 0.0
    train_per_class: int | None = None
    same_draw: bool = False

    def __post_init__(self) -> None:
        _require(
            (self.module is not None) == (self.kind == "module"),
            "teacher.module",
            self.module,
            "an import path `package.file:factory` exactly when teacher.kind is `module`",
        )
        _at_least("teacher.epochs", self.epochs, 1)
        _at_least("teacher.batch_size", self.batch_size, 1)
        _learning_rate("teacher.lr", self.lr)
        _require(self.weight_decay >= 0, "teacher.weight_decay", self.weight_decay, "0 or more")
        if self.train_per_class is not None:
            _at_least("teacher.train_per_class", self.train_per_class, 1)
        _require(
            not self.same_draw or (self.checkpoint is None and self.train_per_class is None),
            "teacher.same_draw",
            self.same_draw,
            "false where teacher.checkpoint or teacher.train_per_class is given",
        )


@dataclass(frozen=True, kw_only=True)
class StudentSpec:
    """What learns.

    Attributes:
        kind: quantum (no trainable classical layer), hybrid (trainable reduction and/or head),
            classical (the twin of the hybrid or quantum student that the other fields describe,
            with a matched number of parameters and no circuit), classical_full (the same with as
            many hidden units as it likes: `full_width`), convolution (three filters of 2x2
            pixels and a linear layer) or quanvolution (the same, the filters circuits); the last
            two take no other field.
        qubits: Width of the circuit.
        encoding: How features enter: amplitude (2^n features), angle (one per qubit), reuploading
            (one per qubit and layer), qubit (several rotations per qubit).
        ansatz: Trainable part of the circuit.
        layers: Repetitions of the ansatz.
        reduction: From image to features: linear and cnn are trained; crop, pca, avg_pool, max_pool
            and none are fixed.
        readout: bins, modulo or learned (outcome probabilities summed into classes; learned = which
            outcome counts for which class is chosen from the labelled images before training),
            probabilities (all 2^n) or expectation (<Z> per qubit).
        head: none, or trained layers from readout to logits: linear, or mlp with one hidden layer.
        head_width: Hidden units of the head mlp.
        full_width: Hidden units of the kind classical_full.
        sharpness: gamma in logits = gamma log p of a class-bin readout: a number or `learned`.
        circuit: OpenQASM 3 file with parameters x_000... and w_000... in place of encoding, ansatz
            and layers.
    """

    kind: StudentKind = "hybrid"
    qubits: int = 4
    encoding: Encoding = "amplitude"
    ansatz: Ansatz = "real_amplitudes"
    layers: int = 2
    reduction: Reduction = "linear"
    readout: Readout = "probabilities"
    head: Head = "linear"
    head_width: int = 8
    full_width: int = 8
    sharpness: float | Literal["learned"] = 8.0
    circuit: str | None = None

    def __post_init__(self) -> None:
        _require(1 <= self.qubits <= 20, "student.qubits", self.qubits, "1 to 20")
        for key in ("layers", "head_width", "full_width"):
            _at_least(f"student.{key}", getattr(self, key), 1)
        if self.sharpness != "learned":
            _positive("student.sharpness", float(self.sharpness))
        if self.kind == "quantum":
            _require(
                self.head == "none",
                "student.head",
                self.head,
                "none for kind quantum, which has no trainable classical layer, or kind hybrid",
            )
            _require(
                self.reduction not in ("linear", "cnn"),
                "student.reduction",
                self.reduction,
                "a fixed reduction (none, crop, pca, avg_pool, max_pool) for kind quantum, "
                "which has no trainable classical layer, or kind hybrid",
            )
        if self.head == "none":
            _require(
                self.readout in CLASS_BINS,
                "student.readout",
                self.readout,
                "bins, modulo or learned where student.head is none, or student.head: linear",
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
            noise), parameter_shift or spsa (both from shots alone).
        train_target: Where the circuit runs while it trains: exact, aer or fake_<device>; a real
            device in a recipe that `qkd submit --train` wrote.
        shifted_weights: Weights that a step of parameter_shift shifts, drawn at random; null = all.
        steps: Steps after which training ends, within an epoch too; null = after all epochs.
        selection: Which weights are kept: those of the best validation accuracy, or the last.
    """

    epochs: int = 60
    batch_size: int = 32
    lr: float = 0.03
    schedule: Literal["cosine", "constant"] = "cosine"
    weight_decay: float = 0.0
    temperature: float = 4.0
    student_temperature: float | None = None
    ce_weight: float = 0.5
    kd_weight: float = 0.5
    feature_weight: float = 0.0
    teacher_layer: str | None = None
    student_layer: str | None = None
    gradient: Gradient = "exact"
    train_target: str = "exact"
    shifted_weights: int | None = None
    steps: int | None = None
    selection: Literal["validation", "last"] = "last"

    def __post_init__(self) -> None:
        _at_least("distill.epochs", self.epochs, 1)
        _at_least("distill.batch_size", self.batch_size, 1)
        _learning_rate("distill.lr", self.lr)
        for key in ("temperature", "student_temperature"):
            value = getattr(self, key)
            accepted = "a number above 0, at most 1000"
            _require(value is None or 0 < value <= 1000, f"distill.{key}", value, accepted)
        for key in ("ce_weight", "kd_weight", "feature_weight", "weight_decay"):
            value = getattr(self, key)
            accepted = "a finite number, 0 or more"
            _require(math.isfinite(value) and value >= 0, f"distill.{key}", value, accepted)
        for key in ("shifted_weights", "steps"):
            if getattr(self, key) is not None:
                _at_least(f"distill.{key}", getattr(self, key), 1)
        _require(
            self.shifted_weights is None or self.gradient == "parameter_shift",
            "distill.shifted_weights",
            self.shifted_weights,
            "null where distill.gradient is not parameter_shift",
        )
        on_device = self.train_target not in IDEAL_TARGETS
        _require(
            self.train_target == "exact" or self.gradient != "exact",
            "distill.gradient",
            self.gradient,
            f"noisy, parameter_shift or spsa to train on {self.train_target}",
        )
        _require(
            on_device or self.gradient != "noisy",
            "distill.train_target",
            self.train_target,
            "a device such as fake_torino where distill.gradient is noisy",
        )
        _require(
            self.ce_weight + self.kd_weight + self.feature_weight > 0,
            "distill.ce_weight",
            self.ce_weight,
            "a positive weight for at least one of ce_weight, kd_weight and feature_weight",
        )
        for key in ("teacher_layer", "student_layer"):
            _require(
                self.feature_weight == 0 or getattr(self, key) is not None,
                f"distill.{key}",
                getattr(self, key),
                "the name of a layer where distill.feature_weight is above 0",
            )


@dataclass(frozen=True, kw_only=True)
class RuntimeSpec:
    """How jobs are submitted to a device of IBM Quantum; nothing else reads it.

    Attributes:
        mode: session (the device is held between jobs and the idle time is paid: for training),
            batch (jobs are queued together) or job (each on its own). Plans without sessions get
            a batch.
        twirl_gates: Randomise two-qubit gates with Paulis; shots are rounded up to whole
            randomisations.
        twirl_measure: Likewise measurements.
        dynamical_decoupling: Pulses while a qubit idles: none, XX, XpXm or XY4.
        max_execution_time: QPU seconds after which the service stops a job; null = its own limit.
        session_max_time: Seconds after which a session or batch closes, and another is opened;
            null = the service's own limit.
        max_executions: Circuits times shots of one job; what is larger is split.
    """

    mode: Mode = "batch"
    twirl_gates: bool = False
    twirl_measure: bool = False
    dynamical_decoupling: Decoupling = "none"
    max_execution_time: int | None = None
    session_max_time: int | None = None
    max_executions: int = 10_000_000

    def __post_init__(self) -> None:
        for key in ("max_execution_time", "session_max_time", "max_executions"):
            value = getattr(self, key)
            if value is not None:
                _at_least(f"runtime.{key}", value, 1)

    @property
    def twirled(self) -> bool:
        """Whether anything is twirled."""
        return self.twirl_gates or self.twirl_measure


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
    shots: int = 4096
    test_limit: int = 500
    seeds: int | tuple[int, ...] = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for key in ("arms", "targets"):
            object.__setattr__(self, key, tuple(getattr(self, key)))
            value = getattr(self, key)
            distinct = len(set(value)) == len(value) > 0
            _require(distinct, key, list(value), "a list of one or more distinct names")
        if not isinstance(self.seeds, int):
            object.__setattr__(self, "seeds", tuple(self.seeds))
        seeds = self.member_seeds
        _require(
            len(seeds) > 0 and len(set(seeds)) == len(seeds) and min(seeds) >= 0,
            "seeds",
            self.seeds,
            "a number of at least 1, or a list of distinct whole numbers of at least 0",
        )
        _require(0 <= self.seed < 2**32, "seed", self.seed, "a whole number from 0 to 2**32 - 1")
        _require(
            not {"classical_twin", "classical_full"} & set(self.arms)
            or self.student.kind != "convolution",
            "arms",
            list(self.arms),
            "arms without classical twins for the student convolution, which is classical itself",
        )
        exactly = self.distill.gradient == "exact" and "distilled_noisy" not in self.arms
        _require(
            exactly or self.student.kind not in FILTER_STUDENTS,
            "student.kind",
            self.student.kind,
            "another kind where distill.gradient is not exact or an arm trains through noise: "
            "filters are trained exactly",
        )
        _require(
            "distilled_noisy" not in self.arms or self.noise_target is not None,
            "targets",
            list(self.targets),
            "a device such as fake_torino for the arm distilled_noisy",
        )
        _at_least("shots", self.shots, 1)
        _at_least("test_limit", self.test_limit, 1)

    @property
    def noise_target(self) -> str | None:
        """The first device in targets: where the arm distilled_noisy trains."""
        return next((name for name in self.targets if name not in IDEAL_TARGETS), None)

    @property
    def member_seeds(self) -> tuple[int, ...]:
        """The seeds as a list: `seeds: 3` is 0, 1, 2."""
        return tuple(range(self.seeds)) if isinstance(self.seeds, int) else self.seeds
