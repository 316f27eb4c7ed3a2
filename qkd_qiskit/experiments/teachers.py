"""The teachers of a run: one teacher for all seeds, or one for each seed.

With `teacher.same_draw` the teacher of a seed is trained on the images that the students of that
seed train on, and no others: the teacher then knows nothing that its students could not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from qkd_qiskit.data.splits import Data
from qkd_qiskit.experiments.run_folder import TEACHER, RunFolder
from qkd_qiskit.recipe import Recipe, TeacherSpec
from qkd_qiskit.teachers.teacher import Teacher, make_teacher, save_teacher
from qkd_qiskit.teachers.training import OnEpoch


@dataclass(frozen=True)
class TeachersBySeed:
    """The teachers of a run.

    Attributes:
        by_seed: The teacher of the students of each seed.
    """

    by_seed: Mapping[int, Teacher]

    @property
    def teachers(self) -> list[Teacher]:
        """Each teacher once, in the order of the seeds."""
        return list({id(teacher): teacher for teacher in self.by_seed.values()}.values())

    def index_of(self, seed: int) -> int:
        """Return which of `teachers` teaches the students of a seed."""
        return next(i for i, it in enumerate(self.teachers) if it is self.by_seed[seed])


def teacher_files(recipe: Recipe) -> dict[int, str]:
    """Return where in the run folder the teacher of each seed lies."""
    if not recipe.teacher.same_draw:
        return dict.fromkeys(recipe.member_seeds, TEACHER)
    return {seed: f"teachers/seed_{seed}.safetensors" for seed in recipe.member_seeds}


def load_teachers(
    folder: RunFolder, data: Data, *, train: bool = False, on_epoch: OnEpoch | None = None
) -> TeachersBySeed:
    """Return the teachers of a run, from its folder.

    Args:
        folder: The run.
        data: What they train on and are measured on.
        train: Train a teacher that is not there yet, and write it into the folder.
        on_epoch: Called while one trains; see `train_teacher`.

    Raises:
        TeacherError: As `make_teacher`.
        CheckpointError: A teacher is not there, and is not to be trained.
        StorageError: The folder cannot be written.
    """
    recipe, teachers = folder.recipe, {}
    for seed, name in teacher_files(recipe).items():
        if name in teachers:
            continue
        own, first = data, recipe.seed
        if recipe.teacher.same_draw:
            own, first = replace(data, pool=data.pool[data.draw_for(recipe.data, seed=seed)]), seed
        path = folder.path / name
        teachers[name] = _load(folder, own, path, seed=first, train=train, on_epoch=on_epoch)
    return TeachersBySeed({seed: teachers[name] for seed, name in teacher_files(recipe).items()})


def _load(
    folder: RunFolder,
    data: Data,
    path: Path,
    *,
    seed: int,
    train: bool,
    on_epoch: OnEpoch | None,
) -> Teacher:
    spec, missing = replace(folder.recipe.teacher, same_draw=False), not path.exists()
    if not (train and missing):
        # How it was trained is of no use to one that is there.
        spec = TeacherSpec(
            kind=spec.kind, module=spec.module, outputs=spec.outputs, checkpoint=str(path)
        )
    teacher = make_teacher(spec, data, seed=seed, on_epoch=on_epoch)
    if missing:
        save_teacher(teacher, path)
    return teacher
