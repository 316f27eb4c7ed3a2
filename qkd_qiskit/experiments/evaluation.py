"""A trained student on a target: logits there, and the figures that follow from them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import InputError, require_kind
from qkd_qiskit.experiments.json_codec import OMITTED
from qkd_qiskit.experiments.quanvolution_evaluation import logits_on_target
from qkd_qiskit.experiments.scores import (
    agreement_and_divergence,
    calibration_error,
    confusion_counts,
    share,
)
from qkd_qiskit.experiments.simulator_check import (
    check_students,
    in_order,
    parameter_columns,
    simulator_of,
)
from qkd_qiskit.recipe.display import html_pairs
from qkd_qiskit.recipe.seeds import derive_seed, generator
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import AerCheck, Simulator, Target

EXACT_BATCH = 1024
"""Images at a time where nothing is sampled."""
_SAMPLED_BATCH = 50


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One student on one target.

    Attributes:
        target: Name of the target.
        images: Number of test images.
        shots: Shots per image, or None where probabilities are exact.
        accuracy: Share of images whose largest logit is at the label.
        exact_accuracy: Accuracy without noise and shots on the same images.
        agreement: Share of images where student and teacher choose the same class, or None.
        divergence: KL(teacher || student) at temperature 1, a mean in nats, or None.
        calibration_error: Expected calibration error, 15 bins of equal width (arXiv 1706.04599).
        confusion: Counts, row = label, column = choice.
        exact_agreement: Share of images where the choice is that without noise and shots; None
            where it was not asked for.
        simulator: What drew the shots under a noise model, `density` or `aer`; None without, and in
            files of earlier versions, where it was Aer.
        check: A few of the circuits run by Aer too, where it did not draw the shots.
    """

    target: str
    images: int
    shots: int | None
    accuracy: float
    exact_accuracy: float
    agreement: float | None
    divergence: float | None
    calibration_error: float
    confusion: list[list[int]] = field(repr=False)
    exact_agreement: float | None = field(default=None, metadata=OMITTED)
    simulator: Simulator | None = field(default=None, metadata=OMITTED)
    check: AerCheck | None = field(default=None, metadata=OMITTED)

    def _repr_html_(self) -> str:
        shares = {
            "accuracy": self.accuracy,
            "without noise and shots": self.exact_accuracy,
            "agreement with the teacher": self.agreement,
            "calibration error": self.calibration_error,
        }
        figures = {name: f"{value:.1%}" for name, value in shares.items() if value is not None}
        if self.divergence is not None:
            figures["divergence from the teacher"] = f"{self.divergence:.3f} nats"
        return html_pairs(
            {
                "images": f"{self.images}",
                "shots": "" if self.shots is None else f"{self.shots} for each image",
                **figures,
                "most often mixed up": self._mixed_up(),
            },
            title=f"Student on {self.target}",
        )

    def _mixed_up(self) -> str:
        counts = np.array(self.confusion)
        np.fill_diagonal(counts, 0)
        label, choice = np.unravel_index(counts.argmax(), counts.shape)
        worst = int(counts[label, choice])
        return f"class {label} as {choice}, {worst} times" if worst else ""


def evaluate(
    student: Student,
    split: Split,
    *,
    target: Target | str = "exact",
    teacher_logits: Tensor | None = None,
    shots: int | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> Evaluation:
    """Return the figures of a student on every image of a split.

    Args:
        student: A trained student. A classical one has no circuit: every target gives the exact
            figures.
        split: Images and labels; on a sampled target take `subset(split, limit=...)`.
        target: A target or its name: exact, aer, fake_torino, ...
        teacher_logits: Teacher's logits for the same images `(images, num_classes)`.
        shots: Shots per image on a sampled target; default: the target's.
        seed: Seed of the shots.
        on_batch: Called with the number of images just evaluated.

    Raises:
        TargetError: The target is unknown or cannot run the circuit.
        InputError: Images, labels or logits are not those that the student takes.

    Example:
        >>> import qkd_qiskit as qkd
        >>> student = qkd.load_student("digits")
        >>> data = qkd.load_data(qkd.DataSpec(name="digits"))
        >>> qkd.evaluate(student, data.test).accuracy > 0.9
        True
        >>> images, rows = qkd.subset(data.test, limit=50)
        >>> noisy = qkd.evaluate(student, images, target="fake_manila", shots=1024)
        >>> noisy.images, noisy.shots
        (50, 1024)
    """
    target = Target.parse(target) if isinstance(target, str) else target
    split = _checked_split(student, split)
    expected = (len(split), student.num_classes)
    if teacher_logits is not None and tuple(teacher_logits.shape) != expected:
        raise InputError(
            f"teacher_logits have shape {tuple(teacher_logits.shape)}; give {expected}, one row "
            f"for each image of the split"
        )
    logits, shots = logits_on(
        student, split.images, target=target, shots=shots, seed=seed, on_batch=on_batch
    )
    return evaluate_logits(
        student,
        split,
        logits=logits,
        target=target.name,
        teacher_logits=teacher_logits,
        shots=shots,
        simulator=simulator_of(student, target),
        check=check_students([student], split.images, target=target)[0],
    )


def _checked_split(student: Student, split: Split) -> Split:
    """Return images that the student takes, in float32, and labels that are its classes."""
    require_kind("student", student, Student, accepted="a Student, such as load_student gives")
    require_kind("split", split, Split, accepted="a Split of images and labels: data.test")
    if student.device.type != "cpu":
        raise InputError(
            f"the student lies on {student.device}, and every target runs on the CPU; give "
            "student.cpu()"
        )
    if len(split.images) != len(split.labels) or not len(split):
        raise InputError(
            f"the split has {len(split.images)} images and {len(split.labels)} labels; give one "
            "label for each of one or more images"
        )
    if tuple(split.images.shape[1:]) != student.image_shape:
        raise InputError(
            f"images of shape {tuple(split.images.shape[1:])} were given; this student takes "
            f"{student.image_shape} (channels, height, width)"
        )
    low, high = int(split.labels.min()), int(split.labels.max())
    if low < 0 or high >= student.num_classes:
        raise InputError(
            f"labels {f'down to {low}' if low < 0 else f'up to {high}'} were given; this student "
            f"has {student.num_classes} classes, numbered from 0"
        )
    return Split(split.images.float(), split.labels)


def evaluate_logits(
    student: Student,
    split: Split,
    *,
    logits: Tensor | None,
    target: str,
    teacher_logits: Tensor | None = None,
    shots: int | None = None,
    compare_exact: bool = False,
    simulator: Simulator | None = None,
    check: AerCheck | None = None,
) -> Evaluation:
    """Return the figures of a student whose logits are known.

    Args:
        student: Whose they are.
        split: Images and labels.
        logits: `(images, num_classes)` as measured; None = the exact ones.
        target: Where they were measured.
        teacher_logits: As for `evaluate`.
        shots: Shots per image; None where nothing was sampled.
        compare_exact: Whether choices are compared with those without noise and shots.
        simulator: What drew the shots, as in `Evaluation`.
        check: As in `Evaluation`.
    """
    exact = exact_logits(student, split.images)
    logits = exact if logits is None else logits
    choices, exact_choices = logits.argmax(dim=1), exact.argmax(dim=1)
    agreement, divergence = agreement_and_divergence(logits, teacher_logits)
    return Evaluation(
        target=target,
        images=len(split),
        shots=shots,
        accuracy=share(choices == split.labels),
        exact_accuracy=share(exact_choices == split.labels),
        agreement=agreement,
        divergence=divergence,
        calibration_error=calibration_error(logits.softmax(dim=1), split.labels),
        confusion=confusion_counts(choices, split.labels, num_classes=student.num_classes),
        exact_agreement=share(choices == exact_choices) if compare_exact else None,
        simulator=simulator,
        check=check,
    )


def logits_on(
    student: Student,
    images: Tensor,
    *,
    target: Target,
    shots: int | None = None,
    seed: int = 0,
    stream: str = "",
    on_batch: Callable[[int], None] | None = None,
) -> tuple[Tensor | None, int | None]:
    """Return a student's logits on a target `(images, num_classes)`, and the shots per image.

    Both are None where the target changes nothing: it is ideal, or the student has no circuit.
    Arguments are those of `target_logits`.
    """
    if target.ideal or student.circuit is None:
        if on_batch is not None:
            on_batch(len(images))
        return None, None
    shots = (target.shots if shots is None else shots) if target.sampled else None
    logits = target_logits(
        student,
        images,
        target=target,
        shots=shots,
        seed=seed,
        stream=stream,
        on_batch=on_batch,
    )
    return logits, shots


def subset(split: Split, *, limit: int, seed: int = 0) -> tuple[Split, Tensor]:
    """Return a random part of at most `limit` images, the same for the same seed, and its rows.

    Example:
        >>> from qkd_qiskit import DataSpec, load_data, subset
        >>> images, rows = subset(load_data(DataSpec(name="digits")).test, limit=100)
        >>> len(images), tuple(images.images.shape)
        (100, (100, 1, 8, 8))
    """
    require_kind("split", split, Split, accepted="a Split of images and labels: data.test")
    if not isinstance(limit, int) or limit < 1:
        raise InputError(f"limit is {limit!r}; give a whole number of at least 1")
    rows = torch.randperm(len(split), generator=generator(seed, "test subset"))[:limit]
    return split[rows], rows


@torch.no_grad()
def exact_logits(student: Student, images: Tensor) -> Tensor:
    """Return logits `(images, num_classes)` without noise and shots."""
    return torch.cat(
        [student(student.features(batch)) for batch in torch.split(images, EXACT_BATCH)]
    )


@torch.no_grad()
def target_logits(
    student: Student,
    images: Tensor,
    *,
    target: Target,
    shots: int | None = None,
    seed: int = 0,
    stream: str = "",
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Return logits `(images, num_classes)` from outcome frequencies on a target.

    The images go in batches. Where shots are drawn from known probabilities, all batches share one
    stream; elsewhere each is one PUB with its own seed for each
    basis that is measured. Of a quanvolutional student every patch is
    a circuit with `shots` shots.

    Args:
        student: A student with a circuit.
        images: Images as it takes them.
        target: Where its circuit runs.
        shots: Shots per circuit; default: the target's.
        seed: Seed of the shots.
        stream: What sets the shots apart from those of other students with this seed.
        on_batch: Called with the number of images just evaluated.
    """
    if isinstance(student, QuanvolutionalStudent):
        return logits_on_target(
            student, images, target=target, shots=shots, seed=seed, on_batch=on_batch
        )
    assert isinstance(student, CircuitStudent)
    outcomes = target_outcomes(
        student,
        images,
        target=target,
        shots=shots,
        seed=seed,
        stream=stream,
        on_batch=on_batch,
    )
    batches = torch.split(images, _SAMPLED_BATCH)
    rows = torch.split(outcomes, _SAMPLED_BATCH * student.runs_per_image)
    return torch.cat(
        [
            student.decode(own, student.features(batch))
            for own, batch in zip(rows, batches, strict=True)
        ]
    )


@torch.no_grad()
def target_outcomes(
    student: CircuitStudent,
    images: Tensor,
    *,
    target: Target,
    shots: int | None = None,
    seed: int = 0,
    stream: str = "",
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Return outcome frequencies `(rows, circuits * 2^n)` on a target, as `decode` takes them.

    Arguments are those of `target_logits`.
    """
    compiled = [target.compile(circuit) for circuit in student.circuits]
    drawn = target.simulator_of(compiled[0]) == "density"
    rng = np.random.default_rng(derive_seed(seed, "shots", target.stream_name, stream))
    frequencies = []
    for number, batch in enumerate(torch.split(images, _SAMPLED_BATCH)):
        columns, outcomes = parameter_columns(student, student.features(batch)), []
        for basis, circuit in enumerate(compiled):
            values = in_order(columns, circuit.parameters)
            if drawn:
                outcomes.append(target.frequencies(circuit, values, shots=shots, rng=rng))
                continue
            purpose = [number, basis] if basis else [number]
            own = derive_seed(seed, "shots", target.stream_name, *purpose)
            outcomes.append(target.probabilities(circuit, values, shots=shots, seed=own))
        frequencies.append(torch.as_tensor(np.concatenate(outcomes, axis=1)))
        if on_batch is not None:
            on_batch(len(batch))
    return torch.cat(frequencies)
