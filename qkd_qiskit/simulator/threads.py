"""Threads: how many a call is worth, and the pools that are kept for the next call.

Work is split over members where there are enough of them, else over tiles of samples, so that a
single student's large batches are split too; steps that are fused are split over members alone, so
that a member's bits do not depend on the number of threads. The kernel takes as many threads as
torch may (`torch.set_num_threads`). Where torch itself has nothing large to do it is held to one:
its idle threads spin, and would take the cores from the kernel's.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, TypeVar

import torch

_LEAST_WORK = 250_000  # row updates, a good millisecond, below which a second thread costs too much
_LARGE_STEP = 2**24  # parameters x images, from which torch gets its threads
_allowed: ContextVar[int | None] = ContextVar("allowed", default=None)

R = TypeVar("R")


def threads_allowed() -> int:
    """Return how many threads the kernel may take: torch's, or what it was before it was held."""
    return _allowed.get() or torch.get_num_threads()


def threads_for(work: float) -> int:
    """Return how many threads so many row updates are worth, at most `threads_allowed`."""
    return 1 if work < _LEAST_WORK else threads_allowed()


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread; the kernel may take as many as before."""
    threads = torch.get_num_threads()
    token = _allowed.set(threads_allowed())
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        _allowed.reset(token)


def torch_threads_for(*, parameters: int, images: int) -> AbstractContextManager[None]:
    """Hold torch to one thread while as many images at a time go through so many parameters.

    Where these are few a second thread brings nothing, and on a busy machine each of torch's calls
    waits for it: milliseconds for a square root of a few thousand numbers.
    """
    return one_torch_thread() if parameters * images < _LARGE_STEP else nullcontext()


def in_threads(work: Callable[..., R], parts: Sequence[tuple[Any, ...]]) -> list[R]:
    """Return what the function gives for each part's arguments, the first in this thread."""
    if len(parts) == 1:
        return [work(*parts[0])]
    others = [_pool(len(parts) - 1).submit(work, *part) for part in parts[1:]]
    return [work(*parts[0]), *(other.result() for other in others)]


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    """Return the pool of so many threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="qkd-kernel")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork; a kept pool would wait forever
    os.register_at_fork(after_in_child=_pool.cache_clear)
