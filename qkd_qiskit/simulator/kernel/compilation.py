"""How the kernels are compiled: what is kept on disk, and what is only a part of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, TypeVar

from numba import njit
from numba.core import event

logger = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])
_kept: set[Any] = set()


def compiled(function: F) -> F:
    """Return a function compiled on first use; the machine code is kept on disk."""
    made: F = njit(cache=True, nogil=True, error_model="numpy")(function)
    _kept.add(made)
    return made


def inner(function: F) -> F:
    """Return a function that compiled ones call, and become one with; Python must not call it.

    Without a wrapper for Python and a file of its own it takes less time to compile.
    """
    made: F = njit(error_model="numpy", no_cpython_wrapper=True, no_cfunc_wrapper=True)(function)
    return made


def merged(function: F) -> F:
    """Return a function that becomes part of what calls it: called once, it is not built twice."""
    made: F = njit(inline="always", nogil=True, error_model="numpy")(function)
    return made


class _FirstUse(event.Listener):  # type: ignore[misc]
    """Says, once in a process, that machine code is made and not read from disk."""

    def on_start(self, started: Any) -> None:
        """Hear that numba compiles a function."""
        if started.data["dispatcher"] in _kept:
            _kept.clear()
            logger.info("compiling the simulator for this machine; it is kept: once 10 to 40 s")

    def on_end(self, ended: Any) -> None:
        """Hear that it has."""


event.register("numba:compile", _FirstUse())
