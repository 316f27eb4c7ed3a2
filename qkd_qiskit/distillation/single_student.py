"""Distil one student in Python, without a run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from qkd_qiskit.circuits import readout_matrix
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation.executors import training_executor
from qkd_qiskit.distillation.inputs import (
    draw_unlabelled,
    in_usual_steps,
    require_no_labels,
    with_copies,
    with_unlabelled,
)
from qkd_qiskit.distillation.population import EpochMetrics, Member, TrainingResult
from qkd_qiskit.distillation.terms import Loss
from qkd_qiskit.distillation.trainer import layer_of, make_distillation_data, train_population
from qkd_qiskit.errors import InputError, TrainingError, require_kind
from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.simulator.torch_device import torch_device
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.class_bins import learn_bins
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.teachers.adapters import as_teacher

logger = logging.getLogger(__name__)


def distill(
    student: Student,
    teacher: object,
    data: Data,
    *,
    spec: DistillSpec | None = None,
    train_per_class: int | None = None,
    shots: int = 4096,
    seed: int = 0,
    loss: Loss | None = None,
    device: str | None = None,
    on_epoch: Callable[[list[EpochMetrics]], None] | None = None,
) -> TrainingResult:
    """Train the student in place from the labels and the teacher; return what happened.

    Args:
        student: What learns; it starts from its present parameters. Its circuit runs where
            `spec.gradient` and `spec.train_target` say while it trains, and as before afterwards.
            Bins of the read-out `learned` are chosen first, where they have not been.
        teacher: What teaches: a `Teacher`, or what `as_teacher` takes: a network, a function, a
            scikit-learn classifier, its logits for `data.pool` (pool, num_classes), or a list of
            these.
        data: Images with a training pool and a validation split.
        spec: Loss weights, optimizer and schedule; default: `DistillSpec()`.
        train_per_class: Labelled images per class that are drawn from the pool; None = as the
            `DataSpec` says that the data were loaded with, else all.
        shots: Shots per circuit where `spec.train_target` is sampled.
        seed: Seed of the draw, of the data order and of the target.
        loss: What is minimised in place of the specification's terms: a function of the student's
            logits and the teacher's `(batch, num_classes)` and of the labels `(batch,)` that
            returns a scalar, such as those of `qkd_qiskit.distillation.losses`.
        device: Where it is trained, in place of `spec.device`: cpu, cuda, cuda:1 or auto. It stays
            where it lies.
        on_epoch: Called after every epoch with a list of one `EpochMetrics`.

    Raises:
        TrainingError: As `train_population`; the loss returns no scalar, or the specification has
            terms of its own beside it.
        TeacherError: It is none, or does not fit the student.
        DataError: A class has fewer images than asked for.
        InputError: `spec.gradient` is not exact, and the student has no circuit that could run
            elsewhere, or runs elsewhere already; or the device is not there.
        TargetError: `spec.train_target` is unknown or cannot run the circuit.

    Example:
        >>> import qkd_qiskit as qkd
        >>> data = qkd.load_data(qkd.DataSpec(name="digits", classes=(3, 5)))
        >>> teacher = qkd.make_teacher(qkd.TeacherSpec(kind="softmax", epochs=20), data)
        >>> student = qkd.make_student(
        ...     qkd.StudentSpec(qubits=2), image_shape=data.image_shape, num_classes=2
        ... )
        >>> spec = qkd.DistillSpec(epochs=20, temperature=4.0)
        >>> trained = qkd.distill(student, teacher, data, spec=spec, train_per_class=10)
        >>> len(trained.history)
        20
        >>> qkd.evaluate(student, data.test).accuracy > 0.9
        True
    """
    spec = DistillSpec() if spec is None else spec
    _check_kinds(student, data, spec=spec, shots=shots, calls={"loss": loss, "on_epoch": on_epoch})
    if device is not None:
        spec = replace(spec, device=device)
    if spec.device is not None:
        torch_device(spec.device)  # before the teacher is asked
    taught_by = as_teacher(teacher, data)
    member = _member(spec, seed=seed, loss=loss)
    rows = _draw(data, train_per_class, seed=seed)
    own, all_rows = _with_unlabelled(data, rows, spec=spec, seed=seed)
    own, draws = with_copies(own, all_rows[None], spec=spec, seeds=[seed])
    if spec.augment == "mixup":
        require_no_labels(spec, reason="distill.augment is mixup")
    student.fit(data.pool.images)  # of the data, not of copies
    examples = make_distillation_data(
        student,
        [taught_by],
        own,
        draws=draws,
        layer=layer_of(spec),
        # A function of the user's own softens as it likes.
        temperature=spec.temperature if loss is None else 1.0,
    )
    if _has_first_bins(student):
        learn_bins(student, data.pool[rows])
    with _circuit_runs_on(student, spec, shots=shots, seed=seed):
        (trained,) = train_population(
            student,
            [member],
            starts=[student.member_parameters()],
            examples=examples,
            spec=in_usual_steps(spec, usual=len(rows), more=draws.shape[1]),
            loss=loss,
            on_epoch=on_epoch,
        )
    student.load_parameters(trained.state)
    return trained


def _check_kinds(
    student: object, data: object, *, spec: object, shots: object, calls: Mapping[str, object]
) -> None:
    require_kind("student", student, Student, accepted="a Student, such as make_student makes")
    require_kind("data", data, Data, accepted="Data, from load_data or Data.from_arrays")
    require_kind("spec", spec, DistillSpec, accepted="a DistillSpec, or None")
    for name, call in calls.items():
        require_kind(name, call, Callable | None, accepted="a function, or None")  # type: ignore[arg-type]
    if not isinstance(shots, int) or shots < 1:
        raise InputError(f"shots is {shots!r}; give a whole number of at least 1")


def _member(spec: DistillSpec, *, seed: int, loss: Loss | None) -> Member:
    weights = spec.ce_weight, spec.kd_weight, spec.feature_weight
    others = tuple(term.weight for term in spec.other_terms)
    if loss is not None:
        if spec.terms is not None or spec.feature_weight > 0:
            raise TrainingError(
                "loss= is all that is minimised, and the DistillSpec has terms or a feature_weight "
                "beside it; leave them out, or leave loss= out"
            )
        weights, others = (0.0, 0.0, 0.0), (1.0,)
    ce, kd, feature = weights
    return Member(
        arm="distilled",
        seed=seed,
        ce_weight=ce,
        kd_weight=kd,
        feature_weight=feature,
        other_weights=others,
    )


def _draw(data: Data, train_per_class: int | None, *, seed: int) -> Tensor:
    """Return the rows of the pool that the student trains on."""
    if train_per_class is None and data.spec is not None:
        return data.draw_for(data.spec, seed=seed)
    return data.draw(train_per_class, draw="random", seed=seed)


def _with_unlabelled(
    data: Data, rows: Tensor, *, spec: DistillSpec, seed: int
) -> tuple[Data, Tensor]:
    """Return data and rows of its pool, with the unlabelled images that the specification asks for.

    Raises:
        TrainingError: The loss reads labels.
    """
    if spec.unlabelled is not None:
        require_no_labels(spec, reason=f"distill.unlabelled is {spec.unlabelled}")
        rows = draw_unlabelled(data, rows, share=spec.unlabelled, seed=seed)
        return with_unlabelled(data), rows
    if data.unlabelled is not None:
        logger.warning(
            "the data's %d unlabelled images are not used; a DistillSpec with unlabelled=9 and "
            "ce_weight=0 learns from up to nine of them for each labelled one",
            len(data.unlabelled),
        )
    return data, rows


def _has_first_bins(student: Student) -> bool:
    if not isinstance(student, QuantumStudent) or student.spec.readout != "learned":
        return False
    first = readout_matrix("learned", qubits=student.qubits, num_classes=student.num_classes)
    return torch.equal(student.readout_matrix, first.to(student.readout_matrix))


@contextmanager
def _circuit_runs_on(
    student: Student, spec: DistillSpec, *, shots: int, seed: int
) -> Iterator[None]:
    """Run the student's circuit where the specification says."""
    before, executor = student.executor, training_executor(student, spec, shots=shots, seed=seed)
    if spec.gradient != "exact":
        if executor is None:
            raise InputError(
                f"distill.gradient: {spec.gradient!r} is not accepted for a student of kind "
                f"{student.spec.kind}, whose circuit cannot run on a target; give exact"
            )
        if before is not None:
            raise InputError(
                f"distill.gradient: {spec.gradient!r} is not accepted for a student that has an "
                "executor of its own; give exact, or set student.executor to None"
            )
        student.executor = executor
    try:
        yield
    finally:
        student.executor = before
