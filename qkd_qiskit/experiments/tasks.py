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
from qkd_qiskit.distillation.inputs import with_copies
from qkd_qiskit.distillation.population import DistillationData, EpochMetrics, Member
from qkd_qiskit.distillation.trainer import (
    layer_of,
    make_distillation_data,
    step_sizes,
    train_population,
)
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.experiments.arms import (
    draw_images,
    executed_spec,
    loss_weights,
    other_weights,
    soft_targets,
    training_spec,
)
from qkd_qiskit.experiments.baseline_tuning import (
    Setting,
    chosen_setting,
    first_round,
    forget_outdated,
    is_tried,
    keep_tried,
    second_round,
    untried_seeds,
)
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation_set import evaluation_key
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.student_teachers import teacher_of_students
from qkd_qiskit.experiments.teachers import TeachersBySeed, load_same_draw_teachers
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
    if TUNED in recipe.arms:
        first = first_round(recipe)
        yield _tuning_tasks(folder, first)
        yield _tuning_tasks(folder, second_round(folder), start=len(first))
        forget_outdated(folder)
    tasks = training_tasks(recipe, folder.earlier)
    generations = {task: recipe.generation_of(task.arms[0]) for task in tasks}
    for generation in sorted(set(generations.values())):
        yield [task for task in tasks if generations[task] == generation]


def _tuning_tasks(
    folder: RunFolder, settings: Sequence[Setting], *, start: int = 0
) -> list[TrainingTask]:
    tasks = []
    for part, setting in enumerate(dict.fromkeys(settings), start=start):
        seeds, some = untried_seeds(folder, setting)
        tasks.append(TrainingTask("tuning", (TUNED,), seeds, part, setting, added=int(some)))
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
        return is_tried(folder, task.setting)
    return all((folder.member(*member) / WEIGHTS_FILE).exists() for member in task.members)


def is_finished(folder: RunFolder, task: TrainingTask, targets: Sequence[Target]) -> bool:
    """Return whether the students of a task are on disk with their figures on every target."""
    if not is_trained(folder, task) or task.setting is not None:
        return is_trained(folder, task)
    keys = {evaluation_key(folder.recipe, target) for target in targets}
    return all(keys <= set(folder.evaluations(*member)) for member in task.members)


def new_student(recipe: Recipe, data: Data, *, arm: str, seed: int = 0) -> Student:
    """Return the student of an arm as it is before training."""
    spec = recipe.student_of(arm)
    student = make_student(
        spec,
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=seed,
    )
    student.fit(data.pool.images)
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
    starts = {seed: student.member_parameters() for seed, student in students.items()}
    examples = _task_examples(context, task, shape, members=copies * task.members)
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
        keep_tried(folder, task.setting, [one.validation_accuracy for one in trained])
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
    if setting is None and arm == TUNED:
        setting = chosen_setting(context.folder)
    return training_spec(arm, context.folder.recipe, context.data, setting=setting)


def _task_examples(
    context: RunContext,
    task: TrainingTask,
    shape: Student,
    *,
    members: Sequence[tuple[str, int]],
) -> DistillationData:
    """Return what the members learn from.

    Among the examples' teachers are the run's, or the students of the arm that teaches the task's,
    once for each kind of soft targets that an arm has.
    """
    recipe = context.folder.recipe
    spec = recipe.distill_of(task.arms[0])
    drawn = [draw_images(arm, recipe, context.data, seed=seed) for arm, seed in members]
    data, draws = with_copies(
        context.data, torch.stack(drawn), spec=spec, seeds=[seed for _, seed in members]
    )
    # Of all arms of the population, whichever of them an extension adds: they share their figures.
    population = recipe.arm_table[task.arms[0]].population
    companions = [arm for arm in recipe.arms if recipe.arm_table[arm].population == population]
    featured = any(loss_weights(arm, recipe)[2] > 0 for arm in companions)
    teachers_by_seed = context.teachers_by_seed
    teaching_arm = recipe.arm_table[task.arms[0]].taught_by
    if teaching_arm is not None:
        teachers_by_seed = _students_as_teachers(context, teaching_arm, seeds=task.seeds)
    elif recipe.arm_table[task.arms[0]].targets == "same_draw":
        teachers_by_seed = load_same_draw_teachers(context.folder, context.data)
    places = [teachers_by_seed.index_of(seed) for seed in task.seeds]
    teachers = teachers_by_seed.teachers[min(places) : max(places) + 1]
    examples = make_distillation_data(
        shape,
        teachers,
        data,
        draws=draws,
        layer=layer_of(spec) if featured else None,
        temperature=spec.temperature,
    )
    kind_of = {arm: recipe.arm_table[arm].targets for arm in task.arms}
    kinds = list(dict.fromkeys(kind_of.values()))
    logits = {
        kind_of[arm]: [
            soft_targets(arm, recipe, data, teacher_logits=teacher_logits)
            for teacher_logits in examples.teacher_logits
        ]
        for arm in task.arms
    }
    taught_by = [
        kinds.index(kind_of[arm]) * len(teachers) + teachers_by_seed.index_of(seed) - min(places)
        for arm, seed in members
    ]
    features = examples.teacher_features
    return replace(
        examples,
        teacher_logits=torch.stack([targets for kind in kinds for targets in logits[kind]]),
        teachers=torch.tensor(taught_by),
        # Feature maps are the teacher's for all kinds; controls give them no weight.
        teacher_features=None
        if features is None
        else features.repeat(len(kinds), *[1] * (features.ndim - 1)),
    )


def _students_as_teachers(context: RunContext, arm: str, *, seeds: Sequence[int]) -> TeachersBySeed:
    """Return the trained students of an arm as the teachers of their seeds."""
    exact = Target.parse("exact")
    return TeachersBySeed(
        {
            seed: teacher_of_students(
                [context.folder.member(arm, seed)], context.data, target=exact
            )
            for seed in seeds
        }
    )


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
