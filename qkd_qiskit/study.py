"""Paired arms x seeds as one run: teacher, populations, targets, statistics.

An arm is a named change of the recipe. Within a seed all arms share the draw of images, their
order, the initialisation and the validation split; the test set is used once, at the end.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.data import Data, load_data
from qkd_qiskit.distill import make_lessons, train_population
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.evaluate import evaluate, subset
from qkd_qiskit.hardware import Target
from qkd_qiskit.hardware.gradients import noisy_outcomes, parameter_shift, spsa
from qkd_qiskit.population import Epoch, Member
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.results import add_target, collect_result, evaluation_key, keep_other_targets
from qkd_qiskit.runs import CIRCUIT, RESULT, TEACHER, RunFolder, write_json
from qkd_qiskit.seeds import derive_seed
from qkd_qiskit.storage import load_tensors, write_text
from qkd_qiskit.students import (
    WEIGHTS_FILE,
    QuantumStudent,
    Student,
    load_student,
    make_student,
)
from qkd_qiskit.teachers import Teacher, make_teacher, save_teacher


class Observer:
    """What a run tells while it goes on; the base class is silent."""

    def stage(self, text: str) -> None:
        """A new stage has begun."""

    def epoch(self, figures: Sequence[Epoch], *, epochs: int) -> None:
        """A population has finished an epoch."""

    def teacher_epoch(self, epoch: int, *, epochs: int, loss: float, accuracy: float) -> None:
        """The teacher has finished an epoch; accuracy is on the validation split."""

    def evaluated(self, images: int, *, total: int) -> None:
        """More images have been evaluated on a target; `total` is for the whole target."""


class _Timing:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[f"{name}_s"] = round(time.perf_counter() - started, 2)


@dataclass(frozen=True)
class Arm:
    """A named change of the recipe.

    Attributes:
        population: Members of equal value train together.
        distilled: Whether the recipe's loss weights are used, or the labels alone.
        classical: Whether the student is the twin without a circuit.
        noisy: Whether it is trained through the noise of the first device in targets.
    """

    population: str
    distilled: bool
    classical: bool = False
    noisy: bool = False


ARMS: dict[str, Arm] = {
    "label_only": Arm("students", distilled=False),
    "distilled": Arm("students", distilled=True),
    "distilled_noisy": Arm("noisy students", distilled=True, noisy=True),
    "classical_twin": Arm("twins", distilled=True, classical=True),
}


def run(
    folder: RunFolder, *, observer: Observer | None = None, command: str = ""
) -> dict[str, Any]:
    """Everything that the recipe in the folder asks for and that is not there yet.

    Returns what is written to result.json. Stopped at any moment and called again, it ends with the
    same weights and figures.

    Raises:
        InputError: Something in the recipe does not fit the data, the teacher or a target.
        TrainingError: A loss term does not reach the student.
        StorageError: The disk is full, or the folder cannot be written.
    """
    observer = observer or Observer()
    recipe, timing = folder.recipe, _Timing()
    targets = [Target.parse(name, shots=recipe.shots, seed=recipe.seed) for name in recipe.targets]
    with timing("data"):
        observer.stage("data")
        data = load_data(recipe.data, seed=recipe.seed)
        student = _shape(recipe, data, arm=_student_arm(recipe))
        _check_before_training(recipe, data, student=student, targets=targets)
    with timing("teacher"):
        observer.stage("teacher")
        teacher = _teacher(folder, data, observer)
    if isinstance(student, QuantumStudent):
        write_text(folder.path / CIRCUIT, dump_circuit(student.circuit))
    for population in dict.fromkeys(ARMS[arm].population for arm in recipe.arms):
        arms = [arm for arm in recipe.arms if ARMS[arm].population == population]
        with timing(population):
            if not all(_finished(folder, arm) for arm in arms):
                observer.stage(" and ".join(arms))
                _train(folder, arms, teacher=teacher, data=data, observer=observer)
    for target in targets:
        with timing(target.name):
            observer.stage(target.name)
            _evaluate(folder, target, teacher=teacher, data=data, observer=observer)
    result = collect_result(
        folder,
        student=student,
        teacher=teacher,
        data=data,
        targets=targets,
        timing=timing.seconds,
        command=command,
    )
    result["training_cost"] = _training_cost(folder)
    if folder.result is not None:
        keep_other_targets(result, folder.result)
    write_json(folder.path / RESULT, result)
    return result


def evaluate_run(
    folder: RunFolder,
    target_name: str,
    *,
    shots: int | None = None,
    observer: Observer | None = None,
) -> dict[str, Any]:
    """The result of a finished run with the figures on one more target added.

    Raises:
        CheckpointError: The run has not ended.
        TargetError: The target is unknown or cannot run the circuit.
    """
    observer = observer or Observer()
    recipe, result = folder.recipe, folder.result
    if result is None:
        raise CheckpointError(
            f"{folder.path} has no {RESULT}: the run has not ended; continue it with "
            f"qkd distill --resume {folder.path}"
        )
    shots = recipe.shots if shots is None else shots
    target = Target.parse(target_name, shots=shots, seed=recipe.seed)
    observer.stage("data")
    data = load_data(recipe.data, seed=recipe.seed)
    teacher = _teacher(folder, data, observer)
    observer.stage(target.name)
    _evaluate(folder, target, teacher=teacher, data=data, observer=observer)
    student = load_student(folder.member(_student_arm(recipe), recipe.member_seeds[0]))
    add_target(result, folder, target=target, student=student)
    write_json(folder.path / RESULT, result)
    return result


def _student_arm(recipe: Recipe) -> str:
    """The first arm with the recipe's own student, which stands for the run's circuit."""
    return next((arm for arm in recipe.arms if not ARMS[arm].classical), recipe.arms[0])


def _shape(recipe: Recipe, data: Data, *, arm: str, seed: int = 0) -> Student:
    """The student of an arm as it is before training."""
    kind = "classical" if ARMS[arm].classical else recipe.student.kind
    student = make_student(
        replace(recipe.student, kind=kind),
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=seed,
    )
    student.fit(data.pool.images)
    return student


def _check_before_training(
    recipe: Recipe, data: Data, *, student: Student, targets: Sequence[Target]
) -> None:
    """Raise now what would otherwise be raised after the teacher or the students are trained."""
    data.draw_for(recipe.data, seed=recipe.member_seeds[0])
    for target in targets:
        if not target.ideal and isinstance(student, QuantumStudent):
            target.compile(student.circuit)
    for noisy in sorted({ARMS[arm].noisy for arm in recipe.arms}):
        _training_outcomes(recipe, student, noisy=noisy)


def _teacher(folder: RunFolder, data: Data, observer: Observer) -> Teacher:
    spec, path = folder.recipe.teacher, folder.path / TEACHER
    if path.exists():
        spec = replace(spec, checkpoint=str(path))

    def on_epoch(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        observer.teacher_epoch(epoch, epochs=epochs, loss=loss, accuracy=accuracy)

    teacher = make_teacher(spec, data, seed=folder.recipe.seed, on_epoch=on_epoch)
    if not path.exists():
        save_teacher(teacher, path)
    return teacher


def _finished(folder: RunFolder, arm: str) -> bool:
    members = (folder.member(arm, seed) for seed in folder.recipe.member_seeds)
    return all((member / WEIGHTS_FILE).exists() for member in members)


def _train(
    folder: RunFolder, arms: Sequence[str], *, teacher: Teacher, data: Data, observer: Observer
) -> None:
    """Train all seeds of arms that share a population, and write their students."""
    recipe, population = folder.recipe, ARMS[arms[0]].population
    students = {seed: _shape(recipe, data, arm=arms[0], seed=seed) for seed in recipe.member_seeds}
    members = [_member(recipe, arm, seed) for arm in arms for seed in recipe.member_seeds]
    shape = next(iter(students.values()))
    draws = torch.stack([data.draw_for(recipe.data, seed=member.seed) for member in members])

    def on_epoch(figures: Sequence[Epoch]) -> None:
        for member, epoch in zip(members, figures, strict=True):
            folder.append_metrics(member.arm, member.seed, epoch)
        observer.epoch(figures, epochs=recipe.distill.epochs)

    shape.outcomes = _training_outcomes(recipe, shape, noisy=ARMS[arms[0]].noisy)
    trained = train_population(
        shape,
        members,
        starts=[dict(students[member.seed].named_parameters()) for member in members],
        lessons=make_lessons(shape, teacher, data, draws=draws),
        spec=recipe.distill,
        checkpoint=folder.checkpoint(population),
        on_epoch=on_epoch,
    )
    for one in trained:
        # Whole, as a run that was killed between checkpoint and metrics lacks an epoch there.
        folder.write_metrics(one.member.arm, one.member.seed, one.history)
        shape.load_parameters(one.state)
        shape.save(folder.member(one.member.arm, one.member.seed))


def _training_outcomes(
    recipe: Recipe, student: Student, *, noisy: bool
) -> Callable[[Tensor, Tensor], Tensor] | None:
    """Where a student's circuit runs while it trains; None = exactly, in its connector."""
    spec = recipe.distill
    gradient, name = ("noisy", recipe.noise_target) if noisy else (spec.gradient, spec.train_target)
    if gradient == "exact" or name is None or not isinstance(student, QuantumStudent):
        return None
    target = Target.parse(name, shots=recipe.shots, seed=recipe.seed)
    compiled = target.compile(student.circuit)
    if gradient == "noisy":
        return noisy_outcomes(compiled)
    if gradient == "parameter_shift":
        return parameter_shift(target, compiled, shifted=spec.shifted_weights)
    return spsa(target, compiled)


def _training_cost(folder: RunFolder) -> dict[str, Any]:
    """What training from shots has cost each population: calls, steps, circuits, executions."""
    costs: dict[str, Any] = {}
    for population in dict.fromkeys(ARMS[arm].population for arm in folder.recipe.arms):
        checkpoint = folder.checkpoint(population)
        if checkpoint.exists():
            cost = load_tensors(checkpoint)[1].get("cost")
            costs |= {} if cost is None else {population: json.loads(cost)}
    return costs


def _member(recipe: Recipe, arm: str, seed: int) -> Member:
    spec, distilled = recipe.distill, ARMS[arm].distilled
    return Member(
        arm=arm,
        seed=seed,
        ce_weight=spec.ce_weight if distilled else 1.0,
        kd_weight=spec.kd_weight if distilled else 0.0,
    )


def _evaluate(
    folder: RunFolder, target: Target, *, teacher: Teacher, data: Data, observer: Observer
) -> None:
    """Evaluate every trained student on one target; what is there already is kept."""
    recipe, split, rows = folder.recipe, data.test, torch.arange(len(data.test))
    if target.sampled:
        split, rows = subset(data.test, limit=recipe.test_limit, seed=recipe.seed)
    teacher_logits = teacher.logits(data.test.images)[rows]
    pairs = [(arm, seed) for seed in recipe.member_seeds for arm in recipe.arms]
    key = evaluation_key(recipe, target)
    missing = [pair for pair in pairs if key not in folder.evaluations(*pair)]

    def on_batch(images: int) -> None:
        observer.evaluated(images, total=len(missing) * len(split))

    for arm, seed in missing:
        figures = evaluate(
            load_student(folder.member(arm, seed)),
            split,
            target=target,
            teacher_logits=teacher_logits,
            seed=derive_seed(recipe.seed, "evaluate", seed),
            on_batch=on_batch,
        )
        folder.add_evaluation(arm, seed, key=key, figures=asdict(figures))
