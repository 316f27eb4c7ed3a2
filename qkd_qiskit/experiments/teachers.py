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
from qkd_qiskit.experiments.student_teachers import load_run_teachers
from qkd_qiskit.recipe import UNTRAINED_TEACHERS, Recipe, TeacherSpec
from qkd_qiskit.teachers.base import Teacher, combine_teachers
from qkd_qiskit.teachers.ensembles import member_specs
from qkd_qiskit.teachers.teacher import make_teacher, save_teacher
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


def teacher_files(recipe: Recipe) -> dict[int, tuple[str, ...]]:
    """Return where in the run folder the teacher of each seed lies: a file for each network.

    Soft labels lie in the data file, and students of an earlier run in folders of their own.
    """
    spec = recipe.teacher
    if spec.kind in UNTRAINED_TEACHERS:
        return dict.fromkeys(recipe.member_seeds, ())
    if not spec.same_draw:
        names = [f"teachers/member_{k}.safetensors" for k in range(spec.ensemble)]
        return dict.fromkeys(recipe.member_seeds, tuple(names) if len(names) > 1 else (TEACHER,))
    parts = [""] if spec.ensemble == 1 else [f"_member_{k}" for k in range(spec.ensemble)]
    return {
        seed: tuple(f"teachers/seed_{seed}{part}.safetensors" for part in parts)
        for seed in recipe.member_seeds
    }


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
    recipe = folder.recipe
    if recipe.teacher.kind == "logits":
        spec = recipe.teacher if train else TeacherSpec(kind="logits")
        return TeachersBySeed(dict.fromkeys(recipe.member_seeds, make_teacher(spec, data)))
    if recipe.teacher.kind == "run":
        return TeachersBySeed(load_run_teachers(folder, data, train=train))
    teachers: dict[tuple[str, ...], Teacher] = {}
    for seed, names in teacher_files(recipe).items():
        if names in teachers:
            continue
        own, first = data, recipe.seed
        if recipe.teacher.same_draw:
            own, first = replace(data, pool=data.pool[data.draw_for(recipe.data, seed=seed)]), seed
        spec = replace(recipe.teacher, same_draw=False)
        members = [
            _load(single, images, folder.path / name, seed=its, train=train, on_epoch=on_epoch)
            for name, (single, images, its) in zip(
                names, member_specs(spec, own, seed=first), strict=True
            )
        ]
        teachers[names] = (
            members[0]
            if len(members) == 1
            else combine_teachers(members, data, average=spec.average)
        )
    return TeachersBySeed({seed: teachers[it] for seed, it in teacher_files(recipe).items()})


def can_be_taught_alike(spec: TeacherSpec) -> bool:
    """Return whether a teacher can be trained anew on the images of each seed."""
    return spec.kind not in UNTRAINED_TEACHERS and spec.checkpoint is None


def load_same_draw_teachers(
    folder: RunFolder, data: Data, *, train: bool = False, on_epoch: OnEpoch | None = None
) -> TeachersBySeed:
    """Return teachers like the run's, each of which has seen the images of its seed alone.

    Raises:
        QKDError: As `load_teachers`.
    """
    spec = replace(folder.recipe.teacher, same_draw=True, train_per_class=None)
    alike = RunFolder(folder.path, replace(folder.recipe, teacher=spec))
    return load_teachers(alike, data, train=train, on_epoch=on_epoch)


def _load(
    spec: TeacherSpec,
    data: Data,
    path: Path,
    *,
    seed: int,
    train: bool,
    on_epoch: OnEpoch | None,
) -> Teacher:
    """Return one network, from its file or made now."""
    missing = not path.exists()
    if not (train and missing):
        # How it was trained is of no use to one that is there.
        spec = TeacherSpec(
            kind=spec.kind, module=spec.module, outputs=spec.outputs, checkpoint=str(path)
        )
    teacher = make_teacher(spec, data, seed=seed, on_epoch=on_epoch)
    if missing:
        save_teacher(teacher, path)
    return teacher
