"""The table of arms: everything about an arm that a run, a comparison or a report asks for.

An arm is a named change of the recipe. Within a seed all arms share the draw of images, their
order, the initialisation and the validation split. A control keeps the loss of the distilled arm
and takes away what the teacher knows: what it still gains is not the teacher's doing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from qkd_qiskit.recipe.display import Style
from qkd_qiskit.recipe.models import StudentKind

Loss = Literal[
    "labels", "labels_scaled", "distilled", "teacher_only", "logits_only", "features_only"
]
SoftTargets = Literal["teacher", "same_draw", "smoothed", "class_means", "shuffled", "untrained"]

FIRST_NOISY: Final = "first noisy target"
COUNTING_BASELINE: Final = "baseline"

BASELINE: Final = "label_only"
TUNED: Final = "label_only_tuned"
TREATMENT: Final = "distilled"
TUNED_TREATMENT: Final = "distilled_tuned"
AUGMENTED_TUNED: Final = "label_only_augmented_tuned"
NOISE_AWARE: Final = "distilled_noisy"
RECALIBRATED: Final = "recalibrated"
TRANSFER: Final = "transfer"
SAME_DRAW: Final = "distilled_same_draw"
TWIN: Final = "classical_twin"
FULL_TWIN: Final = "classical_full"
PROBE: Final = "feature_probe"
REPLICATE: Final = "replicate"


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A named change of the recipe.

    Attributes:
        label: What a reader calls it.
        description: What it is, in a sentence.
        loss: Weights of the loss: labels (cross-entropy alone, weight 1), labels_scaled (with the
            distilled arm's weight), distilled (the recipe's weights), teacher_only (the divergence
            alone, with the sum of both weights), logits_only and features_only (the distilled arm's
            without the feature maps, and without the divergence).
        targets: What the divergence is taken from.
        kind: Kind of the student where it is another than the recipe's: a twin without a circuit.
        train_target: Device whose noise it is trained through, or FIRST_NOISY, the first device in
            the recipe's targets; None = where distill.train_target says.
        start: The arm whose trained student it starts from; None = from the initialisation.
        recalibrated: Whether it is that student without any more training, and what it gives on a
            target is corrected by a map that was fitted without labels.
        tuned: Whether its learning rate, weight decay and epochs are its own, by validation.
        unlabelled: Whether it sees images that the others do not.
        order: Name of the random stream that orders the images.
        before: The arm that holds what a training of this one on a device began with.
        began: Whether it is such an arm: it is not trained again.
        compared_with: The arms that it is compared with; COUNTING_BASELINE = the tuned label-only
            arm of a run, or without one the label-only arm.
        taught_by: The arm whose students teach in place of the teacher, each that of its own seed.
        grown_from: The arm whose trained student of the same seed its own begins as, with fewer
            layers; None = from the initialisation.
        control: Whether it takes away what the teacher knows.
        population: Members of equal population have one shape and optimizer setting: they train
            together. It names their checkpoint.
        style: How it is drawn.
        base: Of an arm of your own, the arm that it changes.
        changes: Values of its own by dotted key of the recipe.
    """

    label: str
    description: str
    loss: Loss
    targets: SoftTargets = "teacher"
    kind: StudentKind | None = None
    train_target: str | None = None
    start: str | None = None
    recalibrated: bool = False
    tuned: bool = False
    unlabelled: bool = False
    order: str = "order"
    before: str | None = None
    began: bool = False
    compared_with: tuple[str, ...] = (COUNTING_BASELINE,)
    taught_by: str | None = None
    grown_from: str | None = None
    control: bool = False
    population: str = "students"
    style: Style = field(default_factory=Style)
    base: str | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)


def _changed(kind: StudentKind, label: str, into: str) -> Arm:
    return Arm(
        label=label,
        description=f"distilled into {into}",
        loss="distilled",
        kind=kind,
        compared_with=(),
        population=f"{label} students",
        style=Style(colour="#7c7f83", marker="v"),
    )


def _twin(kind: StudentKind, label: str, into: str) -> Arm:
    # The distilled arm is compared with the best twin of a run alone.
    return _changed(kind, label, f"{into}, of at most as many trained numbers as the student")


def _without_teacher(label: str, source: str, targets: SoftTargets) -> Arm:
    text = f"distilled from {source}"
    return Arm(label=label, description=text, loss="distilled", targets=targets, control=True)


def _generation(number: int, teacher: str) -> Arm:
    return Arm(
        label=f"generation {number}",
        description=f"distilled from the {teacher} student of its seed in place of the teacher",
        loss="distilled",
        taught_by=teacher,
        compared_with=(COUNTING_BASELINE, teacher),
        population=f"students of generation {number}",
    )


def _before(arm: str, compared_with: tuple[str, ...]) -> Arm:
    return Arm(
        label=f"{arm.replace('_', ' ')}, before",
        description=f"{arm} as it was before a training on a device",
        loss="distilled" if arm == TREATMENT else "labels",
        began=True,
        compared_with=compared_with,
        population="students before",
    )


ARMS: dict[str, Arm] = {
    BASELINE: Arm(
        label="label only",
        description="learns from the labels alone",
        loss="labels",
        before="label_only_before",
        control=True,
        compared_with=(COUNTING_BASELINE, "label_only_before"),
        style=Style(colour="#d55e00", line=(0, (4, 1.5)), marker="s"),
    ),
    TUNED: Arm(
        label="label only, tuned",
        description="label_only with learning rate, weight decay and epochs of the best validation",
        loss="labels",
        tuned=True,
        population="tuned students",
    ),
    TUNED_TREATMENT: Arm(
        label="distilled, tuned",
        description="distilled with settings of its own, the best of as many",
        loss="distilled",
        tuned=True,
        compared_with=(COUNTING_BASELINE, TREATMENT, AUGMENTED_TUNED),
        population="tuned distilled students",
    ),
    TREATMENT: Arm(
        label="distilled",
        description="learns from the labels and the teacher, with the weights of the recipe",
        loss="distilled",
        before="distilled_before",
        compared_with=(
            COUNTING_BASELINE,
            "distilled_before",
            BASELINE,
            "scaled_ce",
            "label_smoothing",
            "class_mean_labels",
            "shuffled_teacher",
            "untrained_teacher",
            "self_distilled",
            SAME_DRAW,
            TWIN,
            FULL_TWIN,
            PROBE,
            "no_circuit",
            "no_entanglers",
            "frozen_circuit",
        ),
        style=Style(colour="#0072b2", line="-", marker="o"),
    ),
    NOISE_AWARE: Arm(
        label="distilled noisy",
        description="distilled through the noise of the first device in targets",
        loss="distilled",
        train_target=FIRST_NOISY,
        compared_with=(COUNTING_BASELINE, TREATMENT),
        population="noisy students",
    ),
    RECALIBRATED: Arm(
        label="recalibrated",
        description="the distilled student, what it gives on a target corrected by an affine map "
        "that 50 unlabelled images were measured for",
        loss="distilled",
        start=TREATMENT,
        recalibrated=True,
        compared_with=(COUNTING_BASELINE, TREATMENT),
        population="recalibrated students",
    ),
    "self_distilled_noisy": Arm(
        label="self-distilled noisy",
        description="the distilled student, taught by its own exact outputs for ten times as many "
        "images, without labels, through the noise of the first device in targets",
        loss="teacher_only",
        taught_by=TREATMENT,
        train_target=FIRST_NOISY,
        start=TREATMENT,
        unlabelled=True,
        compared_with=(COUNTING_BASELINE, TREATMENT, RECALIBRATED, NOISE_AWARE),
        population="noisy self-distilled students",
    ),
    "distilled_then_noisy": Arm(
        label="distilled, then noisy",
        description="the distilled student, distilled on by the teacher for ten times as many "
        "images, without labels, through the noise of the first device in targets",
        loss="teacher_only",
        train_target=FIRST_NOISY,
        start=TREATMENT,
        unlabelled=True,
        compared_with=(COUNTING_BASELINE, TREATMENT, RECALIBRATED, NOISE_AWARE),
        population="noisy students from clean ones",
    ),
    "logits_only": Arm(
        label="logits only",
        description="distilled without the feature maps",
        loss="logits_only",
    ),
    "features_only": Arm(
        label="features only",
        description="learns from the labels and the teacher's feature maps, not from its logits",
        loss="features_only",
    ),
    TRANSFER: Arm(
        label="transfer",
        description="learns from the teacher alone, on ten times as many images of which the "
        "labels are not used",
        loss="teacher_only",
        unlabelled=True,
        compared_with=(COUNTING_BASELINE, TREATMENT, "self_training"),
        population="transfer students",
    ),
    SAME_DRAW: Arm(
        label="distilled, same draw",
        description="distilled from a teacher that has seen no other images than the student",
        loss="distilled",
        targets="same_draw",
        compared_with=(COUNTING_BASELINE, BASELINE),
        population="same-draw students",
    ),
    "self_training": Arm(
        label="self-training",
        description="transfer with the label_only student of its seed in place of the teacher",
        loss="teacher_only",
        unlabelled=True,
        taught_by=BASELINE,
        control=True,
        compared_with=(COUNTING_BASELINE, BASELINE),
        population="self-trained students",
    ),
    "augmented": Arm(
        label="distilled, augmented",
        description="distilled on jittered copies of the images too, which the teacher labels",
        loss="distilled",
        compared_with=(COUNTING_BASELINE, TREATMENT, "label_only_augmented", AUGMENTED_TUNED),
        population="augmented students",
        changes={"distill.augment": "jitter"},
    ),
    "label_only_augmented": Arm(
        label="label only, augmented",
        description="label_only on the same jittered copies",
        loss="labels",
        control=True,
        compared_with=(COUNTING_BASELINE, BASELINE),
        population="augmented students",
        changes={"distill.augment": "jitter"},
    ),
    AUGMENTED_TUNED: Arm(
        label="label only, augmented, tuned",
        description="label_only_augmented with settings of its own, the best of as many",
        loss="labels",
        tuned=True,
        compared_with=(COUNTING_BASELINE,),
        population="tuned augmented students",
        changes={"distill.augment": "jitter"},
    ),
    "transfer_augmented": Arm(
        label="transfer, augmented",
        description="transfer on jittered copies of all its images",
        loss="teacher_only",
        unlabelled=True,
        compared_with=(COUNTING_BASELINE, TREATMENT, TRANSFER),
        population="augmented transfer students",
        changes={"distill.augment": "jitter"},
    ),
    "scaled_ce": Arm(
        label="scaled cross-entropy",
        description="learns from the labels alone, with their weight in distilled",
        loss="labels_scaled",
        control=True,
    ),
    "label_smoothing": _without_teacher(
        "label smoothing", "smoothed labels as soft as the teacher", "smoothed"
    ),
    "class_mean_labels": _without_teacher(
        "class mean labels", "the teacher's mean output for each class", "class_means"
    ),
    "shuffled_teacher": _without_teacher(
        "shuffled teacher", "the teacher's outputs for other images", "shuffled"
    ),
    "untrained_teacher": _without_teacher(
        "untrained teacher", "a teacher that was not trained", "untrained"
    ),
    "self_distilled": Arm(
        label="self-distilled",
        description="distilled from the label_only student of its seed in place of the teacher",
        loss="distilled",
        taught_by=BASELINE,
        compared_with=(COUNTING_BASELINE, BASELINE),
        population="self-distilled students",
    ),
    "generation_2": _generation(2, TREATMENT),
    "generation_3": _generation(3, "generation_2"),
    TWIN: Arm(
        label="classical twin",
        description="distilled into a student without a circuit, of about as many parameters",
        loss="distilled",
        kind="classical",
        population="twins",
        style=Style(colour="#7c7f83", line=(0, (1, 1.2)), marker="^"),
    ),
    FULL_TWIN: Arm(
        label="full-size twin",
        description="distilled into student.full_width hidden units in place of a circuit",
        loss="distilled",
        kind="classical_full",
        population="full-size twins",
    ),
    PROBE: Arm(
        label="linear probe",
        description="a linear layer on all features or pixels, of any size, from the labels alone",
        loss="labels",
        kind="softmax",
        population="probes",
    ),
    "twin_pca": _twin("pca_linear", "PCA twin", "principal components and a linear layer"),
    "twin_pooled": _twin("pooled_linear", "pooled twin", "means of pixels and a linear layer"),
    "twin_bilinear": _twin("bilinear", "bilinear twin", "features u^T X v and a linear layer"),
    "twin_random": _twin("random_features", "random twin", "random features and a linear layer"),
    "twin_butterfly": _twin(
        "butterfly", "butterfly twin", "rotations of pairs of amplitudes, squared into class bins"
    ),
    "twin_conv": _twin("small_convolution", "convolution twin", "a small convolution"),
    "no_circuit": _changed(
        "no_circuit", "no circuit", "the student without its circuit, features straight to the head"
    ),
    "no_entanglers": _changed(
        "no_entanglers", "no entanglers", "the student without its gates on two qubits"
    ),
    "frozen_circuit": _changed(
        "frozen_circuit", "frozen circuit", "the student with random circuit weights, not trained"
    ),
    REPLICATE: Arm(
        label="replicate",
        description="label_only with the images in another order: what differs is noise",
        loss="labels",
        order="replicate order",
        compared_with=(BASELINE,),
    ),
    "distilled_before": _before(TREATMENT, ("label_only_before",)),
    "label_only_before": _before(BASELINE, ()),
}
"""Every built-in arm by its name, in the order of help texts and comparisons."""
CONTROLS = tuple(name for name, arm in ARMS.items() if arm.control)
BEFORE = {name: arm.before for name, arm in ARMS.items() if arm.before is not None}
OwnArms = dict[str, dict[str, Any]]
