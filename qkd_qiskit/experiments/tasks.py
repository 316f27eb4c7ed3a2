"""Tasks of a run: members that train together, and what is then evaluated.

A task is a part of a population: its arms at a few seeds. Which tasks there are follows from the
recipe alone, not from who runs them: a run gives the same figures however many processes share it,
and whatever was finished before it was stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import executors
from qkd_qiskit.distillation.population import EpochMetrics, Member
from qkd_qiskit.distillation.schedule import step_sizes
from qkd_qiskit.distillation.trainer import (
    train_population,
)
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.experiments.arms import (
    executed_spec,
    loss_weights,
    other_weights,
    training_spec,
)
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation_set import evaluation_key
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.started_students import copy_students, start_students
from qkd_qiskit.experiments.task_examples import task_examples
from qkd_qiskit.experiments.teachers import TeachersBySeed
from qkd_qiskit.experiments.tuning import (
    Setting,
    chosen_setting,
    first_round,
    forget_outdated,
    is_tried,
    keep_tried,
    second_round,
    tuned_arms,
    untried_seeds,
)
from qkd_qiskit.recipe import DistillSpec, Recipe
from qkd_qiskit.recipe.arms import TUNED
from qkd_qiskit.students.base import WEIGHTS_FILE, Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.class_bins import learn_bins
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.gradients import CircuitExecutor

SEEDS_PER_TASK = 10  # enough for a step to be cheap, few enough for tasks to be shared out


@dataclass(frozen=True)
class TrainingTask:
    """Members that train together.

    Attributes:
        population: What they have in common.
        arms: Their arms.
        seeds: Their seeds; every arm is trained with each.
        part: Number of this part of the population, from 0.
        setting: The setting that is tried, of a task that only tunes.
        added: Number of this part, from 1, of what an extension adds to the task; 0 = all of it.
    """

    population: str
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    part: int = 0
    setting: Setting | None = None
    added: int = 0

    @property
    def name(self) -> str:
        """A name that no other task of the run has."""
        name = self.population if self.part == 0 else f"{self.population} {self.part + 1}"
        return f"{name}, added {self.added}" if self.added else name

    @property
    def members(self) -> list[tuple[str, int]]:
        """Arm and seed of each member."""
        return [(arm, seed) for arm in self.arms for seed in self.seeds]


@dataclass(frozen=True)
class RunContext:
    """What all tasks of a run share.

    Attributes:
        folder: Where everything is written.
        data: Images.
        teachers_by_seed: Who teaches.
        targets: Where students are evaluated.
        executor: Where the circuit of a student runs while it trains; None = where the recipe says.
        starts: First parameters of a member by arm and seed; members without are initialised.
    """

    folder: RunFolder
    data: Data
    teachers_by_seed: TeachersBySeed
    targets: Sequence[Target]
    executor: Callable[[CircuitStudent], CircuitExecutor] | None = None
    starts: Mapping[tuple[str, int], Mapping[str, Tensor]] = field(default_factory=dict)


def recipe_targets(recipe: Recipe) -> list[Target]:
    """Return where the students of a recipe are evaluated."""
    return [Target.parse(name, shots=recipe.shots, seed=recipe.seed) for name in recipe.targets]


def run_targets(folder: RunFolder) -> list[Target]:
    """Return where the students of a run are evaluated.

    While it is extended, these are also the simulated targets that evaluations have added to it.
    """
    targets, last = recipe_targets(folder.recipe), folder.last_result
    if last is None or not folder.earlier:
        return targets
    known = {evaluation_key(folder.recipe, target) for target in targets}
    added = [
        Target.parse(
            key if summary.shots is None else key.removesuffix(f"@{summary.shots}"),
            shots=summary.shots or folder.recipe.shots,
            seed=folder.recipe.seed,
        )
        for key, summary in last.targets.items()
        if key not in known and summary.device is None
    ]
    return [*targets, *added]


def rounds(folder: RunFolder) -> Iterator[list[TrainingTask]]:
    """Return the tasks of a run in rounds: those of one can depend on the rounds before it."""
    recipe = folder.recipe
    if arms := tuned_arms(recipe):
        first = {arm: first_round(recipe, arm) for arm in arms}
        yield [task for arm in arms for task in _tuning_tasks(folder, arm, first[arm])]
        yield [
            task
            for arm in arms
            for task in _tuning_tasks(folder, arm, second_round(folder, arm), start=len(first[arm]))
        ]
        forget_outdated(folder)
    tasks = training_tasks(recipe, folder.earlier)
    generations = {task: recipe.generation_of(task.arms[0]) for task in tasks}
    for generation in sorted(set(generations.values())):
        yield [task for task in tasks if generations[task] == generation]


def _tuning_tasks(
    folder: RunFolder, arm: str, settings: Sequence[Setting], *, start: int = 0
) -> list[TrainingTask]:
    tasks, population = [], "tuning" if arm == TUNED else f"tuning {arm}"
    for part, setting in enumerate(dict.fromkeys(settings), start=start):
        seeds, some = untried_seeds(folder, arm, setting)
        tasks.append(TrainingTask(population, (arm,), seeds, part, setting, added=int(some)))
    return tasks


def training_tasks(
    recipe: Recipe, earlier: Collection[tuple[str, int]] = frozenset()
) -> list[TrainingTask]:
    """Return the tasks with the students of the run.

    Args:
        recipe: The run.
        earlier: Arm and seed of students that the run had before it was extended: of their tasks
            the rest is left, as rectangles of arms and seeds.
    """
    return [part for task in _whole_tasks(recipe) for part in _without(task, earlier)]


def _without(task: TrainingTask, earlier: Collection[tuple[str, int]]) -> list[TrainingTask]:
    if not any(member in earlier for member in task.members):
        return [task]
    missing = {
        seed: tuple(arm for arm in task.arms if (arm, seed) not in earlier) for seed in task.seeds
    }
    rest = [arms for arms in dict.fromkeys(missing.values()) if arms]
    return [
        replace(
            task,
            arms=arms,
            seeds=tuple(seed for seed in task.seeds if missing[seed] == arms),
            added=number,
        )
        for number, arms in enumerate(rest, start=1)
    ]


def _whole_tasks(recipe: Recipe) -> list[TrainingTask]:
    seeds, tasks = recipe.member_seeds, []
    populations = {arm: recipe.arm_table[arm].population for arm in recipe.arms}
    for population in dict.fromkeys(populations.values()):
        arms = tuple(arm for arm, its in populations.items() if its == population)
        for part, start in enumerate(range(0, len(seeds), SEEDS_PER_TASK)):
            tasks.append(
                TrainingTask(population, arms, seeds[start : start + SEEDS_PER_TASK], part)
            )
    return tasks


def is_trained(folder: RunFolder, task: TrainingTask) -> bool:
    """Return whether the students of a task, or the accuracies of a tried setting, are on disk."""
    if task.setting is not None:
        return is_tried(folder, task.arms[0], task.setting)
    return all((folder.member(*member) / WEIGHTS_FILE).exists() for member in task.members)


def is_finished(folder: RunFolder, task: TrainingTask, targets: Sequence[Target]) -> bool:
    """Return whether the students of a task are on disk with their figures on every target."""
    if not is_trained(folder, task) or task.setting is not None:
        return is_trained(folder, task)
    keys = {evaluation_key(folder.recipe, target) for target in targets}
    return all(keys <= set(folder.evaluations(*member)) for member in task.members)


def new_student(recipe: Recipe, data: Data, *, arm: str, seed: int = 0) -> Student:
    """Return the student of an arm as it is before training.

    Raises:
        CircuitError: Its parts do not fit together; a twin's line begins with the arm.
    """
    spec = recipe.student_of(arm)
    try:
        student = make_student(
            spec, image_shape=data.image_shape, num_classes=data.num_classes, seed=seed
        )
    except CircuitError as error:
        if recipe.arm_table[arm].kind is None:
            raise
        raise CircuitError(f"arm {arm}: {error}") from error
    if spec in data.fits:
        student.load_fit(data.fits[spec])
    else:
        student.fit(data.pool.images)
        data.fits[spec] = student.fit_state
    if spec.readout == "learned":
        learn_bins(student, data.pool[data.draw_for(recipe.data, seed=seed)])
    return student


def train_task(context: RunContext, task: TrainingTask, *, callback: Callback) -> None:
    """Train the members of a task, and write their students; go on from where it was stopped.

    Raises:
        TrainingError: A loss term does not reach the student.
        StorageError: The disk is full, or the folder cannot be written.
    """
    folder, recipe = context.folder, context.folder.recipe
    if recipe.arm_table[task.arms[0]].recalibrated:
        copy_students(folder, task.members)
        return
    spec = _task_spec(context, task)
    # A matrix product rounds otherwise for one member than for several: what an extension adds
    # alone is trained beside a copy of itself, to the bits that it has among companions.
    copies = 2 if task.added and len(task.members) == 1 else 1
    members = [_member(recipe, arm, seed) for arm, seed in copies * task.members]
    students = {
        seed: new_student(recipe, context.data, arm=task.arms[0], seed=seed) for seed in task.seeds
    }
    shape = students[task.seeds[0]]
    _check_shared(students)
    if context.executor is not None and isinstance(shape, CircuitStudent):
        shape.executor = context.executor(shape)
    else:
        shape.executor = training_executor(recipe, shape, arm=task.arms[0])
    started = start_students(folder, task.arms[0], fresh=students)
    starts = {seed: student.member_parameters() for seed, student in started.items()}
    examples = task_examples(
        folder,
        context.data,
        context.teachers_by_seed,
        shape=shape,
        members=copies * task.members,
    )
    steps = sum(map(len, step_sizes(spec, examples.draws.shape[1])))

    def on_epoch(figures: Sequence[EpochMetrics]) -> None:
        if task.setting is None:
            for member, epoch in zip(members[: len(task.members)], figures, strict=False):
                folder.append_metrics(member.arm, member.seed, epoch)
        callback.epoch(figures, epochs=spec.epochs)

    def on_step(number: int, loss: float) -> None:
        callback.step(number, steps=steps, loss=loss)

    trained = train_population(
        shape,
        members,
        starts=[
            context.starts.get((member.arm, member.seed), starts[member.seed]) for member in members
        ],
        examples=examples,
        spec=spec,
        checkpoint=None if task.setting is not None else folder.checkpoint(task.name),
        on_epoch=on_epoch,
        on_step=None if shape.executor is None or not shape.executor.sampled else on_step,
    )[: len(task.members)]
    if task.setting is not None:
        accuracies = [one.validation_accuracy for one in trained]
        keep_tried(folder, task.arms[0], task.setting, accuracies)
        return
    for one in trained:
        # Whole, as a run that was killed between checkpoint and metrics lacks an epoch there.
        folder.write_metrics(one.member.arm, one.member.seed, one.history)
        shape.load_parameters(one.state)
        shape.save(folder.member(one.member.arm, one.member.seed))


def _check_shared(students: Mapping[int, Student]) -> None:
    """Raise where what is not trained differs between seeds, as only one of them would be used."""
    kept: dict[int, dict[str, Tensor]] = {}
    for seed, student in students.items():
        if student.batched:
            return  # a student of ours, whose fixed parts follow from the data
        own = student.member_parameters()
        fixed = {name: value for name, value in student.saved_tensors().items() if name not in own}
        first_seed, first = next(iter(kept.items()), (seed, fixed))
        kept[seed] = fixed
        for name, value in fixed.items():
            if not torch.equal(value, first[name]):
                raise CircuitError(
                    f"student.module: {name.removeprefix('module.')!r} is not trained and differs "
                    f"between the seeds {first_seed} and {seed}; load it, or draw it from a seed "
                    "of its own"
                )


def training_executor(recipe: Recipe, student: Student, *, arm: str) -> CircuitExecutor | None:
    """Return what runs the circuit of an arm's student while it trains; None = its connector."""
    spec = executed_spec(arm, recipe)
    return executors.training_executor(student, spec, shots=recipe.shots, seed=recipe.seed)


def _task_spec(context: RunContext, task: TrainingTask) -> DistillSpec:
    arm, setting = task.arms[0], task.setting
    if setting is None and context.folder.recipe.arm_table[arm].tuned:
        setting = chosen_setting(context.folder, arm)
    return training_spec(arm, context.folder.recipe, context.data, setting=setting)


def _member(recipe: Recipe, arm: str, seed: int) -> Member:
    ce_weight, kd_weight, feature_weight = loss_weights(arm, recipe)
    return Member(
        arm=arm,
        seed=seed,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        feature_weight=feature_weight,
        order=recipe.arm_table[arm].order,
        other_weights=other_weights(arm, recipe),
    )
