"""Paired arms x seeds as one run: teacher, tasks of students, targets, statistics.

An arm is a named change of the recipe. Within a seed all arms share the draw of images, their
order, the initialisation and the validation split; the test set is used once, at the end.
`qkd distill` and `qkd study` are both `run`, with few arms and seeds or many.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.distillation.inputs import check_augmentation
from qkd_qiskit.distillation.terms import why_no_states
from qkd_qiskit.errors import CheckpointError, RecipeError
from qkd_qiskit.experiments.arms import check_arms, draw_images, term_of_states
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.collect import collect_result, student_arm
from qkd_qiskit.experiments.evaluation_set import evaluate_members
from qkd_qiskit.experiments.extension import join_checkpoints
from qkd_qiskit.experiments.provenance import begin_session, end_session
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import CIRCUIT, DEVICES, RunFolder
from qkd_qiskit.experiments.tasks import (
    RunContext,
    TrainingTask,
    is_trained,
    new_student,
    rounds,
    run_targets,
    train_task,
    training_executor,
    training_tasks,
)
from qkd_qiskit.experiments.teachers import (
    TeachersBySeed,
    load_same_draw_teachers,
    load_teachers,
)
from qkd_qiskit.experiments.workers import Workers, pool, run_tasks
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.simulator.torch_device import torch_device
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.base import Student
from qkd_qiskit.targets import Target

logger = logging.getLogger(__name__)


class _Timing:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        spent = time.perf_counter() - started
        self.seconds[f"{name}_s"] = round(self.seconds.get(f"{name}_s", 0.0) + spent, 2)


def run(
    folder: RunFolder,
    *,
    callback: Callback | None = None,
    command: str = "",
    workers: Workers | None = None,
) -> Result:
    """Do everything that the recipe in the folder asks for and that is not there yet.

    Returns what is written to result.json. Stopped at any moment and called again, it ends with the
    same weights and figures, whoever the workers are.

    Args:
        folder: What is run, and where it is written.
        callback: Hears of the progress.
        command: What was typed, for the report.
        workers: Where tasks run; default: in this process, one after the other.

    Raises:
        InputError: Something in the recipe does not fit the data, the teacher or a target, or the
            cluster does not answer.
        TrainingError: A loss term does not reach the student.
        WorkerError: Workers keep dying.
        StorageError: The disk is full, or the folder cannot be written.
    """
    callback, workers = callback or Callback(), workers or Workers()
    recipe, timing = folder.recipe, _Timing()
    check_arms(recipe)
    workers.check()
    trained = all(is_trained(folder, task) for task in training_tasks(recipe, folder.earlier))
    if not trained:
        _check_place(folder)
    targets = run_targets(folder)
    with timing("data"):
        callback.stage("data")
        data = load_data(recipe.data, seed=recipe.seed)
        student = new_student(recipe, data, arm=student_arm(recipe))
        if not trained:
            _check_before_training(recipe, data, student=student, targets=targets)
    jobs = None if workers.cluster is not None else workers.jobs
    begin_session(folder, data, command=command, jobs=jobs)
    callback.began(folder)
    with timing("teacher"):
        callback.stage("teacher")
        teachers_by_seed = _train_teachers(folder, data, callback)
    if student.circuit is not None:
        write_text(folder.path / CIRCUIT, dump_circuit(student.circuit, checked=False))
    context = RunContext(
        folder=folder, data=data, teachers_by_seed=teachers_by_seed, targets=targets
    )
    with pool(workers) if workers.parallel else nullcontext() as submit:
        for tasks in rounds(folder):
            if submit is not None:
                with timing("tasks"):
                    callback.stage(tasks[0].population if tasks[0].setting else "students")
                    run_tasks(folder, tasks, submit=submit, targets=targets, callback=callback)
            for task in tasks:
                with timing(task.population):
                    _train_here(context, task, callback=callback)
    for target in targets:
        with timing(target.name):
            callback.stage(target.name)
            evaluate_members(
                folder,
                target,
                folder.members,
                data=data,
                teachers_by_seed=teachers_by_seed,
                callback=callback,
            )
    if folder.earlier:
        join_checkpoints(folder)
    result = collect_result(
        folder,
        student=student,
        teachers_by_seed=teachers_by_seed,
        data=data,
        targets=targets,
        timing=timing.seconds,
        command=command,
    )
    end_session(folder)
    folder.end(result)
    callback.ended(result)
    return result


def _check_place(folder: RunFolder) -> None:
    """Raise where students are trained on a real device, which is not done here."""
    recipe = folder.recipe
    if (folder.path / DEVICES).exists() and not folder.earlier:
        raise CheckpointError(
            f"{folder.path} is trained on {recipe.distill.train_target} by jobs; to go on: "
            f"qkd collect {folder.path}"
        )
    before = [arm for arm in recipe.arms if recipe.arm_table[arm].began]
    places = [name for arm in recipe.arms for name in recipe.distill_of(arm).train_targets]
    devices = [place for place in places if place.startswith("ibm_")]
    if before or devices:
        what = f"arm {before[0]!r}" if before else f"distill.train_target {devices[0]!r}"
        raise RecipeError(
            f"{what} is for training on a real device: train with distill.train_target exact and "
            f"distill.gradient exact first, then: qkd submit RUN --backend ibm_<name> --train spsa"
        )


def _check_before_training(
    recipe: Recipe, data: Data, *, student: Student, targets: Sequence[Target]
) -> None:
    """Raise now what would otherwise be raised after the teacher or the students are trained."""
    if recipe.distill.device is not None:
        torch_device(recipe.distill.device)
    for arm in recipe.arms:
        draw_images(arm, recipe, data, seed=recipe.member_seeds[0])
    read = any(recipe.arm_table[arm].unlabelled for arm in recipe.arms)
    if data.unlabelled is not None and not read:
        logger.warning(
            "the data's %d unlabelled images are not used by these arms; transfer learns from them",
            len(data.unlabelled),
        )
    for arms in dict.fromkeys(task.arms for task in training_tasks(recipe)):
        arm = arms[0]
        check_augmentation(data, recipe.distill_of(arm))
        own = recipe.student_of(arm) == recipe.student
        trained = student if own else new_student(recipe, data, arm=arm)
        for target in targets:
            for circuit in () if target.ideal else trained.circuits:
                target.compile(circuit)
        exact = training_executor(recipe, trained, arm=arm) is None
        reason = why_no_states(trained, exact=exact)
        if reason is not None and (term := term_of_states(arms, recipe)) is not None:
            raise RecipeError(f"loss term {term} gives the student no gradient: {reason}")


def _train_teachers(folder: RunFolder, data: Data, callback: Callback) -> TeachersBySeed:
    def on_epoch(epoch: int, epochs: int, loss: float, accuracy: float) -> None:
        callback.teacher_epoch(epoch, epochs=epochs, loss=loss, accuracy=accuracy)

    recipe = folder.recipe
    if any(recipe.arm_table[arm].targets == "same_draw" for arm in recipe.arms):
        load_same_draw_teachers(folder, data, train=True, on_epoch=on_epoch)
    return load_teachers(folder, data, train=True, on_epoch=on_epoch)


def _train_here(context: RunContext, task: TrainingTask, *, callback: Callback) -> None:
    """Train a task in this process, unless it is there already."""
    if not is_trained(context.folder, task):
        tuning = task.setting is not None
        callback.stage(f"tuning: {task.setting}" if tuning else " and ".join(task.arms))
        train_task(context, task, callback=callback)
