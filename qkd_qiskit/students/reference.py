"""Trained students that come with the package: `load_student("digits")`.

    builtin/NAME/  student.json  weights.safetensors  card.json  README.md

Each is the distilled student of seed 0 of the built-in recipe of its name, as `qkd distill NAME`
trains it; `benchmarks/reference_students.py` makes them again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from qkd_qiskit.errors import CheckpointError, nearest
from qkd_qiskit.recipe.validation import shown

REFERENCE_FILE = "card.json"
FOLDER = Path(__file__).with_name("builtin")


@dataclass(frozen=True)
class Measured:
    """Accuracy of a reference student on the test images of its recipe.

    Attributes:
        accuracy: Share of images that it is right on, 0 to 1.
        images: Their number.
        shots: Shots per image; None where the target is exact.
    """

    accuracy: float
    images: int
    shots: int | None


@dataclass(frozen=True)
class ReferenceStudent:
    """What is known of a trained student of the package: the content of its card.json.

    Attributes:
        recipe: The built-in recipe that trained it; its data, test images included, are
            `load_data(load_recipe(recipe).data)`.
        arm: Arm of the run.
        seed: Seed of the run.
        trained_numbers: How many numbers were trained.
        measured: Accuracy by target.
        teacher_accuracy: Of the teacher, on all test images, 0 to 1.
        made: UTC date.
        versions: Of the packages that it was trained with.
        data: SHA-256 of the splits of the data, by their names.
        weights: SHA-256 of weights.safetensors.
    """

    recipe: str
    arm: str
    seed: int
    trained_numbers: int
    measured: Mapping[str, Measured]
    teacher_accuracy: float
    made: str
    versions: Mapping[str, str]
    data: Mapping[str, str]
    weights: str


@cache
def list_reference_students() -> dict[str, ReferenceStudent]:
    """Return the trained students of the package by name, for `load_student(name)`."""
    found = {}
    for path in sorted(FOLDER.glob(f"*/{REFERENCE_FILE}")):
        card = json.loads(path.read_text(encoding="utf-8"))
        measured = {name: Measured(**entry) for name, entry in card.pop("measured").items()}
        found[path.parent.name] = ReferenceStudent(measured=measured, **card)
    return found


def student_folder(source: str | Path) -> Path:
    """Return the folder of a saved student: one that exists, else that of a reference student.

    A folder of the user's comes first: `student.save("digits")`, then `load_student("digits")`
    gives back what was saved.

    Raises:
        CheckpointError: A bare name is neither.
    """
    folder = Path(source)
    bare = len(folder.parts) == 1 and not folder.is_absolute() and str(source) not in (".", "..")
    if not bare or folder.exists():
        return folder
    known = list_reference_students()
    if str(source) in known:
        return FOLDER / folder
    raise CheckpointError(
        f"{shown(str(source))} is no folder here and no reference student; "
        f"{nearest(str(source), known)}give one of {', '.join(known)}, or a folder written by "
        "student.save, such as runs/NAME/distilled/seed_0"
    )
