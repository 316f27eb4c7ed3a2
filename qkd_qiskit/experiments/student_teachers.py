"""Trained students as teachers: of an earlier run, or of another arm of the same run."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from qkd_qiskit.data.splits import Data, Split, load_data
from qkd_qiskit.errors import CheckpointError, DataError, StorageError, TeacherError, first_line
from qkd_qiskit.experiments.evaluation import exact_logits, logits_on
from qkd_qiskit.experiments.run_folder import TEACHERS, RunFolder, teaching_run
from qkd_qiskit.experiments.teaching_students import STUDENT_FILES, students_digest, teaching_seeds
from qkd_qiskit.recipe import TeacherAverage
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.storage import CacheFolder, tensor_digest
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target
from qkd_qiskit.teachers.base import Teacher, combine_teachers, measured

logger = logging.getLogger(__name__)


class _StudentOnTarget(nn.Module):
    """A trained student from images to logits, its circuit run on a target."""

    def __init__(self, student: Student, target: Target) -> None:
        super().__init__()
        self.student, self.target = student, target

    def forward(self, images: Tensor) -> Tensor:
        # Other images have other shots, and the same ones the same.
        seed = derive_seed(self.target.seed, "teacher", tensor_digest({"images": images}))
        logits, _ = logits_on(self.student, images, target=self.target, seed=seed)
        return exact_logits(self.student, images) if logits is None else logits


def teacher_of_students(
    folders: Sequence[Path],
    data: Data,
    *,
    target: Target,
    average: TeacherAverage = "probabilities",
    cache: CacheFolder = None,
) -> Teacher:
    """Return trained students as one teacher, measured on the test images.

    Its logits are kept by the content of the students and by the target.

    Args:
        folders: One student each, as `student.save` writes it; several are an ensemble.
        data: What it teaches.
        target: Where their circuits run.
        average: What is averaged over several.
        cache: As for `Teacher.logits`.

    Raises:
        TeacherError: A student takes other images or has other classes than the data, or has no
            circuit that could run on a target.
        CheckpointError: A student is not there.
    """
    members = [_teacher(folder, data, target=target, cache=cache) for folder in folders]
    if len(members) == 1:
        return members[0]
    return combine_teachers(members, data, average=average, cache=cache)


def _teacher(folder: Path, data: Data, *, target: Target, cache: CacheFolder) -> Teacher:
    student = load_student(folder).eval()
    parameters = student.num_parameters
    student.requires_grad_(False)
    given = (data.image_shape, data.num_classes)
    if (student.image_shape, student.num_classes) != given:
        raise TeacherError(
            f"the teacher {folder} takes images of shape {student.image_shape} in "
            f"{student.num_classes} classes, the data has {given[0]} in {given[1]}; give a run on "
            "such images and classes"
        )
    if student.circuit is None and not target.ideal:
        raise TeacherError(
            f"teacher.target: {target.name!r} is not accepted for {folder}, a student of kind "
            f"{student.spec.kind} without a circuit; give exact"
        )
    where = f"{target.name} {target.shots} {target.seed} {target.calibration_date} {target.options}"
    teacher = Teacher(
        module=_StudentOnTarget(student, target),
        kind="run",
        num_classes=data.num_classes,
        digest=students_digest([folder]),
        architecture="student, exact" if target.ideal else f"student on {where}",
        parameters=parameters,
        accuracy=math.nan,
    )
    return measured(teacher, data, cache=cache)


def load_run_teachers(folder: RunFolder, data: Data, *, train: bool) -> dict[int, Teacher]:
    """Return the teacher of each seed where students of an earlier run teach.

    The students are copied into the run when it begins, and taken from there ever after.

    Args:
        folder: The run.
        data: What is taught.
        train: Copy them where they are not there yet.

    Raises:
        TeacherError: They have changed since the run began, do not fit the data, or have been
            trained on its test images.
        CheckpointError: A student is not there, or is damaged.
        StorageError: The folder cannot be written.
    """
    recipe = folder.recipe
    spec = recipe.teacher
    copies = folder.path / TEACHERS
    if train and not (copies / _WHOLE).exists():
        say_unused(spec)
        _copy_students(folder, data, copies)
    seeds = sorted(int(path.name.removeprefix("seed_")) for path in copies.glob("seed_*"))
    if not seeds or students_digest(copies / f"seed_{seed}" for seed in seeds) != spec.digest:
        raise CheckpointError(
            f"{copies} does not hold the students that teach in this run (teacher.digest); delete "
            f"it and go on with qkd distill --resume {folder.path}, which copies them from "
            f"{spec.run} again"
        )
    target = Target.parse(spec.target, shots=recipe.shots, seed=recipe.seed)
    missing = [seed for seed in recipe.member_seeds if seed not in seeds]
    if spec.seed == "each" and missing:
        raise TeacherError(
            f"teacher.seed: each needs a student of the seed {missing[0]}, {copies} has those of "
            f"{', '.join(map(str, seeds))}; start a new run with teacher.digest null"
        )
    groups = [[seed] for seed in recipe.member_seeds] if spec.seed == "each" else [seeds]
    teachers = [
        teacher_of_students(
            [copies / f"seed_{seed}" for seed in group], data, target=target, average=spec.average
        )
        for group in groups
    ]
    if spec.seed == "each":
        return dict(zip(recipe.member_seeds, teachers, strict=True))
    return dict.fromkeys(recipe.member_seeds, teachers[0])


_WHOLE = ".copied"  # in the folder once all students are


def _copy_students(folder: RunFolder, data: Data, copies: Path) -> None:
    spec = folder.recipe.teacher
    earlier = teaching_run(spec)
    seeds = teaching_seeds(spec, earlier.recipe, seeds=folder.recipe.member_seeds)
    sources = {seed: earlier.member(spec.arm, seed) for seed in seeds}
    if students_digest(sources.values()) != spec.digest:
        raise TeacherError(
            f"teacher.run: the students of {spec.run} have changed since this run began "
            "(teacher.digest); bring the old ones back, or start a new run with teacher.digest null"
        )
    _check_same_images(folder, earlier, data)
    try:
        shutil.rmtree(copies, ignore_errors=True)
        for seed, source in sources.items():
            (copies / f"seed_{seed}").mkdir(parents=True)
            for name in STUDENT_FILES:
                if (source / name).exists():
                    shutil.copy2(source / name, copies / f"seed_{seed}")
        (copies / _WHOLE).touch()
    except OSError as error:
        raise StorageError(f"cannot write {copies}: {error.strerror or error}") from error


def _check_same_images(folder: RunFolder, earlier: RunFolder, data: Data) -> None:
    """Refuse an earlier run of other classes or scaling, or one that saw the test images."""
    run, result = folder.recipe.teacher.run, earlier.result
    scales = earlier.recipe.data.scale, folder.recipe.data.scale
    if scales[0] != scales[1]:
        raise TeacherError(
            f"teacher.run: {run} has data.scale {scales[0]}, this run {scales[1]}; its students "
            "would see other numbers than they know: give both the same"
        )
    if result is not None and result.classes and tuple(result.classes) != data.class_names:
        raise TeacherError(
            f"teacher.run: {run} has the classes {', '.join(result.classes)}, this run "
            f"{', '.join(data.class_names)}; give a run on the same classes in the same order"
        )
    try:
        theirs = load_data(earlier.recipe.data, seed=earlier.recipe.seed)
    except DataError as error:
        logger.warning(
            "the images of %s cannot be read (%s): whether its students have seen the test images "
            "of this run is not known",
            run,
            first_line(error),
        )
        return
    # Images that a set has twice, to train on and to test on, are those of this run as well.
    seen = _digests(theirs.pool, theirs.validation) - _digests(data.pool, data.validation)
    leaked = len(seen & _digests(data.test))
    if leaked:
        raise TeacherError(
            f"teacher.run: {leaked} of the {len(data.test)} test images of this run are among the "
            f"training images of {run}; give both runs the same data and the same seed"
        )


def _digests(*splits: Split) -> set[bytes]:
    images = (image for split in splits for image in split.images.contiguous())
    return {hashlib.sha256(image.numpy().tobytes()).digest() for image in images}
