"""Students that start from trained ones of the same run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.students.growth import grow


def start_students(
    folder: RunFolder, arm: str, *, fresh: Mapping[int, Student]
) -> Mapping[int, Student]:
    """Return the students that those of an arm start from, by seed.

    Args:
        folder: The run, with the students that are trained before.
        arm: The arm.
        fresh: Its initialised students: those of an arm without a start; those of one that is grown
            from another get the weights of its students.
    """
    table = folder.recipe.arm_table[arm]
    if table.start is not None:
        return {seed: load_student(folder.member(table.start, seed)) for seed in fresh}
    if table.grown_from is not None:
        before = {seed: load_student(folder.member(table.grown_from, seed)) for seed in fresh}
        return {seed: grow(before[seed], student) for seed, student in fresh.items()}
    return fresh


def copy_students(folder: RunFolder, members: Sequence[tuple[str, int]]) -> None:
    """Give members the trained students that they start from, as they are."""
    for arm, seed in members:
        start = folder.recipe.arm_table[arm].start
        assert start is not None
        folder.write_metrics(arm, seed, folder.metrics(start, seed))
        load_student(folder.member(start, seed)).save(folder.member(arm, seed))
