"""Threads: how many a call is worth, and the pools that are kept for the next call."""

from __future__ import annotations

import functools
import os
from concurrent.futures import ThreadPoolExecutor

import torch

_LEAST_WORK = 3_000_000  # row updates below which one thread is faster than several


def threads_for(work: float) -> int:
    """Return how many threads so many row updates are worth, at most those of torch."""
    return 1 if work < _LEAST_WORK else torch.get_num_threads()


@functools.cache
def pool(threads: int) -> ThreadPoolExecutor:
    """Return the pool of so many threads."""
    return ThreadPoolExecutor(threads, thread_name_prefix="qkd-kernel")


if hasattr(os, "register_at_fork"):  # threads do not survive a fork; a kept pool would wait forever
    os.register_at_fork(after_in_child=pool.cache_clear)
