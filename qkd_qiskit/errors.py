"""The exception tree of the package.

::

    QKDError                      anything this package raises on purpose          exit 1
    ├── InputError (ValueError)   the caller can mend it: what, accepted, what to do   exit 2
    │   ├── RecipeError           a recipe key: unknown, of the wrong type, impossible
    │   ├── DataError             a data set that is missing, damaged or not usable
    │   ├── TeacherError          a teacher that does not fit its data or its checkpoint
    │   ├── CircuitError          a circuit or student that cannot be built
    │   │   └── UnsupportedInstructionError    an instruction that the engine cannot compile
    │   ├── CheckpointError       weights or run files that cannot be read
    │   └── TargetError           a device or simulator that is unknown or cannot run the circuit
    │       └── NoAccountError    a real device is asked for, and no account is saved
    ├── TrainingError             a loss term that does not reach the student
    ├── SubmissionError           jobs on a device that stopped: the run goes on where it was left
    │   └── BudgetError           the next job would pass the QPU seconds that are allowed
    ├── WorkerError               processes that keep dying, or a cluster that was lost
    └── StorageError              a file that could not be written (a full disk, no permission)
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_LONGEST_WORD = 100  # a longer one is no misspelt name


class QKDError(Exception):
    """Base of every error that this package raises on purpose."""


class InputError(QKDError, ValueError):
    """Input that the caller can mend; the message says what was given and what is accepted."""


class RecipeError(InputError):
    """A recipe key that is unknown, of the wrong type or part of an impossible combination."""


class DataError(InputError):
    """A data set that is missing, damaged or holds values that cannot be trained on."""


class TeacherError(InputError):
    """A teacher that does not fit its data, its number of classes or its checkpoint."""


class CircuitError(InputError):
    """A circuit, encoding, ansatz or readout that cannot be built or compiled."""


class UnsupportedInstructionError(CircuitError):
    """An instruction that has no unitary, or none that is known before it runs."""


class CheckpointError(InputError):
    """Saved weights or a run folder that cannot be read or belongs to something else."""


class TargetError(InputError):
    """A target that is unknown, or that cannot run the circuit it was given."""


class NoAccountError(TargetError):
    """A real device without an account of IBM Quantum that could reach it."""


class TrainingError(QKDError):
    """Training that would not do what it says, such as a loss term without a gradient."""


class SubmissionError(QKDError):
    """Jobs on a device that could not go on; nothing is lost, and the run can be continued."""


class BudgetError(SubmissionError):
    """The next job would pass the QPU seconds that are allowed; it was not submitted."""


class StorageError(QKDError):
    """A file that could not be written; what was there before is still there."""


class WorkerError(QKDError):
    """Processes that keep dying, or a cluster that was lost; what they finished is kept."""


def require_kind(name: str, given: object, kind: type, *, accepted: str) -> None:
    """Refuse an argument of another type.

    Args:
        name: Of the argument.
        given: What was given.
        kind: What it must be.
        accepted: What to give, in words.

    Raises:
        InputError: It is something else.
    """
    if not isinstance(given, kind):
        raise InputError(f"{name} is a {type(given).__name__}; give {accepted}")


def first_line(error: Exception) -> str:
    """Return the first line of an error's text, for a message of ours; its type if it is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def one_line(error: BaseException) -> str:
    """Return the kind of an error and what it says, in one line of at most 200 characters."""
    reason = " ".join(str(error).split()).strip("'\"")[:200]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__


def nearest(word: str, known: Iterable[str]) -> str:
    """Return the question for a name that is not known but like one that is; else nothing."""
    near = difflib.get_close_matches(word[:_LONGEST_WORD], known, n=1)
    return f"did you mean {near[0]}? " if near else ""
