"""Students trained on a device: a run of its own, begun from another and brought to its end.

The new run holds what it began with as the arms `label_only_before` and `distilled_before`, so that
both can be evaluated in the same jobs. Both arms of all seeds train as one population: a step is
one job (SPSA) or two (parameter shift). Steps are not stored one by one: a training that was
stopped goes on from its last epoch and reads the jobs since then from the journal.
"""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.executors import sampled_executor
from qkd_qiskit.errors import CheckpointError, InputError, StorageError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.recalibrated_start import with_map
from qkd_qiskit.experiments.recalibration import recalibrations
from qkd_qiskit.experiments.run_folder import (
    CIRCUIT,
    RECIPE,
    TEACHER,
    TEACHERS,
    RunFolder,
    numbered_paths,
)
from qkd_qiskit.experiments.submission.request import Request, Training, trained_arms, training_spec
from qkd_qiskit.experiments.tasks import RunContext, TrainingTask, is_trained, train_task
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.arms import BEFORE
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets.ibm.target import RuntimeTarget

TRAIN = "train/"
_STARTED = ("metrics.jsonl", "weights.safetensors", "student.json", "circuit.qasm")


def derived_recipe(
    start: RunFolder, request: Request, training: Training, *, seeds: Sequence[int]
) -> Recipe:
    """Return the recipe of a training on a device that begins with a run's students.

    Raises:
        InputError: The run has no students that can be trained there.
    """
    recipe = start.recipe
    arms = trained_arms(recipe)
    data = load_data(recipe.data, seed=recipe.seed)
    images = len(data.draw_for(recipe.data, seed=seeds[0]))
    before = () if training.fresh else tuple(BEFORE[arm] for arm in arms)
    return replace(
        recipe,
        arms=(*arms, *before),
        distill=training_spec(recipe, training, backend=request.backend, images=images),
        runtime=request.runtime(recipe.runtime, mode="session"),
        shots=request.shots or recipe.shots,
        test_limit=request.limit or recipe.test_limit,
        seeds=tuple(seeds),
    )


def derive_run(
    start: RunFolder, recipe: Recipe, *, out: str | None, name: str, maps: str | None = None
) -> RunFolder:
    """Return the run of a training: one that was begun with the same recipe, or a new one.

    Args:
        start: The run whose students are trained on.
        recipe: What `derived_recipe` gave.
        out: Its folder; default: beside the run, named after it and the device.
        name: The device's name in that folder's.
        maps: Target whose maps the students begin with in their last layers; None = none.

    Raises:
        CheckpointError: The folder holds something else.
        InputError: A student has no such map, or cannot take it.
        StorageError: The folder cannot be written.
    """
    if out is not None:
        path = Path(out)
        if not (path / RECIPE).exists():
            return _create(start, recipe, path, maps=maps)
        begun = RunFolder.open(path)
        if begun.recipe != recipe:
            raise CheckpointError(
                f"{path} holds another run; give another --out, or finish that one with "
                f"qkd collect {path}"
            )
        return begun
    base = start.path.absolute().with_name(f"{start.path.absolute().name}-on-{name}")
    for path in numbered_paths(base):
        if not path.exists():
            return _create(start, recipe, path, maps=maps)
        if (path / RECIPE).exists():
            begun = RunFolder.open(path)
            if begun.recipe == recipe:
                return begun
    raise AssertionError


def train_members(run: RunFolder, target: RuntimeTarget, *, callback: Callback) -> None:
    """Train the students of a derived run on a device, unless they are.

    Raises:
        SubmissionError: The service failed; the training goes on where it was left.
        BudgetError: The next job would pass the QPU seconds that are allowed.
    """
    recipe = run.recipe
    task = training_task(recipe)
    if is_trained(run, task):
        return
    callback.stage("data")
    data = load_data(recipe.data, seed=recipe.seed)
    teachers_by_seed = load_teachers(run, data)
    callback.stage(f"compiling for {target.name}")
    context = RunContext(
        folder=run,
        data=data,
        teachers_by_seed=teachers_by_seed,
        targets=(),
        executor=lambda student: sampled_executor(
            student, recipe.distill, target, seed=recipe.seed
        ),
        starts=_starts(run, task),
    )
    callback.stage(f"training on {target.name}")
    train_task(context, task, callback=callback)


def training_task(recipe: Recipe) -> TrainingTask:
    """Return the students that are trained, as one population."""
    return TrainingTask("students", trained_arms(recipe), recipe.member_seeds)


def _starts(run: RunFolder, task: TrainingTask) -> dict[tuple[str, int], Mapping[str, Tensor]]:
    if not set(BEFORE.values()) & set(run.recipe.arms):
        return {}
    return {
        (arm, seed): load_student(run.member(BEFORE[arm], seed)).member_parameters()
        for arm, seed in task.members
    }


def _create(start: RunFolder, recipe: Recipe, path: Path, *, maps: str | None) -> RunFolder:
    """Create a run with the teacher and the students that it begins with: whole, or not."""
    made = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        run = RunFolder.create(made, recipe)
        for name in (TEACHER, CIRCUIT):
            if (start.path / name).exists():
                shutil.copy2(start.path / name, made / name)
        if (start.path / TEACHERS).exists():
            shutil.copytree(start.path / TEACHERS, made / TEACHERS)
        for arm, before in BEFORE.items():
            for seed in recipe.member_seeds if before in recipe.arms else ():
                run.member(before, seed).mkdir(parents=True)
                for name in _STARTED:
                    if (start.member(arm, seed) / name).exists():
                        shutil.copy2(start.member(arm, seed) / name, run.member(before, seed))
                if maps is not None:
                    _recalibrate(start, (arm, seed), run.member(before, seed), maps=maps)
        if path.exists():  # an empty folder
            path.rmdir()
        made.rename(path)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)
    return RunFolder.open(path)


def _recalibrate(start: RunFolder, member: tuple[str, int], folder: Path, *, maps: str) -> None:
    """Put a student's map into its last layer, where a copy of it lies."""
    known = recalibrations(start, *member).get(maps)
    if known is None:
        raise InputError(
            f"{start.path} has no recalibration of {member[0]}, seed {member[1]}, for {maps}: fit "
            "one with qkd submit --recalibrate 50, or begin without --from-recalibrated"
        )
    student = load_student(folder)
    student.load_parameters(with_map(student, known))
    student.save(folder)
