"""Students that start from trained ones of the same run."""

from __future__ import annotations

from collections.abc import Sequence

from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student


def start_students(folder: RunFolder, arm: str, *, seeds: Sequence[int]) -> dict[int, Student]:
    """Return the trained students that those of an arm start from; none for an arm without."""
    start = folder.recipe.arm_table[arm].start
    if start is None:
        return {}
    return {seed: load_student(folder.member(start, seed)) for seed in seeds}


def copy_students(folder: RunFolder, members: Sequence[tuple[str, int]]) -> None:
    """Give members the trained students that they start from, as they are."""
    for arm, seed in members:
        start = folder.recipe.arm_table[arm].start
        assert start is not None
        folder.write_metrics(arm, seed, folder.metrics(start, seed))
        load_student(folder.member(start, seed)).save(folder.member(arm, seed))
