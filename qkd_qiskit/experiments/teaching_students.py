"""Students of an earlier run that teach in another: which they are, and what tells them apart."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from qkd_qiskit.errors import CheckpointError, TeacherError
from qkd_qiskit.recipe import Recipe, TeacherSpec
from qkd_qiskit.students.base import CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE

STUDENT_FILES = (CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE)
"""What a student is made of; only one with a circuit has one."""


def teaching_seeds(spec: TeacherSpec, earlier: Recipe, *, seeds: Iterable[int]) -> tuple[int, ...]:
    """Return the seeds of an earlier run whose students teach.

    Args:
        spec: Names the run, the arm and the seed.
        earlier: The recipe of that run.
        seeds: Those of the run that is taught.

    Raises:
        TeacherError: The earlier run has no such arm or seed.
    """
    known = earlier.member_seeds
    if spec.arm not in earlier.arms:
        raise TeacherError(
            f"teacher.arm: {spec.arm!r} is no arm of {spec.run}; give one of "
            f"{', '.join(earlier.arms)}"
        )
    if spec.seed == "all":
        return tuple(sorted(known))
    wanted = tuple(sorted(seeds)) if spec.seed == "each" else (spec.seed,)
    missing = [seed for seed in wanted if seed not in known]
    if missing:
        raise TeacherError(
            f"teacher.seed: {spec.seed!r} needs the seed {missing[0]}, which {spec.run} does not "
            f"have; give one of {', '.join(map(str, known))}, or all"
        )
    return wanted


def students_digest(folders: Iterable[Path]) -> str:
    """Return the SHA-256 of students: of their specifications, circuits and weights, in order.

    Raises:
        CheckpointError: A student is not there.
    """
    digest = hashlib.sha256()
    for folder in folders:
        for name in STUDENT_FILES:
            path = folder / name
            if not path.is_file() and name == CIRCUIT_FILE:
                continue
            try:
                content = path.read_bytes()
            except OSError as error:
                raise CheckpointError(
                    f"{folder} holds no trained student ({name}: {error.strerror or error}); give "
                    "a run that has ended, and an arm and a seed of it"
                ) from error
            digest.update(f"{name} {len(content)}\n".encode())
            digest.update(content)
    return digest.hexdigest()
