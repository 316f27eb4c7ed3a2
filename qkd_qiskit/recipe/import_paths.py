"""Code of the user's that a recipe names, `package.file:factory`: imported without trusting it."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import nn

from qkd_qiskit.errors import InputError, QKDError, TeacherError


@contextlib.contextmanager
def user_code(
    problem: str, *, advice: str, error: type[InputError] = TeacherError
) -> Iterator[None]:
    """Turn whatever the user's code raises into one line.

    Args:
        problem: What failed, for example `the module Net fails on images of shape (1, 8, 8)`.
        advice: What to give instead.
        error: What is raised.

    Raises:
        InputError: The code raised or left the interpreter; errors of this package pass.
    """
    try:
        yield
    except QKDError:
        raise
    except (Exception, SystemExit) as failure:  # the user's code may fail in any way
        raise error(f"{problem} ({_one_line(failure)}); {advice}") from failure


def import_function(
    path: str, *, key: str, error: type[InputError], signature: str
) -> Callable[..., Any]:
    """Import `package.file:factory`, also from the folder that the command was started in.

    Args:
        path: The import path.
        key: The key of a recipe that names it.
        error: What is raised.
        signature: What the function has to be, for error messages.

    Raises:
        InputError: It is no such path, cannot be imported, or is no function.
    """
    name, colon, attribute = path.partition(":")
    if not (name and colon and attribute):
        raise error(f"{key}: {path!r} is not an import path; give `package.file:factory`")
    before = sys.path
    sys.path = [*before, str(Path.cwd())]
    try:
        with user_code(
            f"{key}: {path!r} cannot be imported",
            advice="give `package.file:factory` that Python finds from here or through PYTHONPATH",
            error=error,
        ):
            factory = getattr(importlib.import_module(name), attribute)
    finally:
        sys.path = before
    if not callable(factory) or isinstance(factory, nn.Module):
        raise error(f"{key}: {path!r} is a {type(factory).__name__}; give a function {signature}")
    return factory  # type: ignore[no-any-return]


def _one_line(error: BaseException) -> str:
    try:
        text = str(error).strip()
    except Exception:  # an exception of the user's that cannot be printed
        text = ""
    return f"{type(error).__name__}: {text}".strip().split("\n")[0][:300]
