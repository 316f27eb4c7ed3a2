"""What is damaged in a run folder is put aside, so that the run writes it again.

A student is written again from its population's checkpoint, or trained again where that is lost
too; evaluations and result.json are made from the students.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

from qkd_qiskit.circuits import load_circuit
from qkd_qiskit.errors import CheckpointError, CircuitError, InputError
from qkd_qiskit.experiments.run_folder import EVALUATIONS, METRICS, RESULT, RunFolder, read_json
from qkd_qiskit.experiments.tasks import training_tasks
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.base import CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE
from qkd_qiskit.students.factory import load_student

logger = logging.getLogger(__name__)
_ASIDE = ".damaged"


def put_damage_aside(folder: RunFolder) -> None:
    """Put aside what cannot be read of a run's students and figures; say so in the log.

    Args:
        folder: A run that goes on, or has ended.

    Raises:
        OSError: A file cannot be moved.
    """
    for arm, seed in _trained_members(folder):
        weights = folder.member(arm, seed) / WEIGHTS_FILE
        damaged = _damaged_part(folder, arm, seed) if weights.exists() else None
        if damaged is not None:
            logger.warning(
                "%s/seed_%d has a damaged or no %s; it is made again", arm, seed, damaged
            )
            _put_aside(weights)
    for arm, seed in folder.members:
        _check(folder.member(arm, seed) / EVALUATIONS, partial(folder.evaluations, arm, seed))
    _check(folder.path / RESULT, lambda: folder.last_result)


def _trained_members(folder: RunFolder) -> Iterator[tuple[str, int]]:
    for task in training_tasks(folder.recipe):
        yield from task.members


def _damaged_part(folder: RunFolder, arm: str, seed: int) -> str | None:
    """Return the file of a trained student that is missing or cannot be read, or None."""
    member = folder.member(arm, seed)
    if not _can_be_read(lambda: load_tensors(member / WEIGHTS_FILE)):
        return WEIGHTS_FILE
    if not _can_be_read(lambda: read_json(member / CARD_FILE)):
        return CARD_FILE
    own_code = folder.recipe.student_of(arm).module is not None
    if own_code and not _can_be_read(lambda: load_circuit(member / CIRCUIT_FILE)):
        return CIRCUIT_FILE
    try:
        has_circuit = load_student(member).circuit is not None
    except InputError:  # of a circuit of the user's own
        if own_code:  # which is gone, or is another than it was: nothing here is damaged
            raise
        return CIRCUIT_FILE
    texts = (METRICS, CIRCUIT_FILE) if has_circuit else (METRICS,)
    return next((name for name in texts if not _is_whole(member / name)), None)


def _is_whole(text: Path) -> bool:
    """Return whether a text is there and was not cut within a line."""
    return text.is_file() and text.read_bytes().endswith(b"\n")


def _check(path: Path, read: Callable[[], object]) -> None:
    if path.exists() and not _can_be_read(read):
        logger.warning("%s is damaged and is made again", path)
        _put_aside(path)


def _can_be_read(read: Callable[[], object]) -> bool:
    with suppress(CheckpointError, CircuitError):
        read()
        return True
    return False


def _put_aside(path: Path) -> None:
    path.replace(path.with_name(path.name + _ASIDE))
