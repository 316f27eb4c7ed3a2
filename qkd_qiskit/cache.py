"""Tensors that are computed once and then kept on disk by what they were computed from.

The folder is $QKD_CACHE, else ~/.cache/qkd_qiskit; it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch

from qkd_qiskit.errors import InputError, StorageError
from qkd_qiskit.storage import load_tensors, save_tensors

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
CacheFolder = str | Path | Literal[False] | None


def cache_path(kind: str, key: str, *, cache: CacheFolder = None) -> Path | None:
    """Where `compute_once` keeps its result; None where it keeps nothing."""
    if cache is False:
        return None
    folder = Path(cache or os.environ.get("QKD_CACHE") or "~/.cache/qkd_qiskit").expanduser()
    return folder / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def compute_once(
    kind: str,
    key: str,
    *,
    compute: Callable[[], Tensors],
    check: Callable[[Tensors], None],
    cache: CacheFolder = None,
) -> Tensors:
    """Return what `compute` gives, from disk where it was kept under the same key.

    Args:
        kind: Folder inside the cache, and the word for it in warnings.
        key: All that the result depends on.
        compute: Makes the tensors.
        check: Raises an InputError for tensors that cannot be the result; they are made again, as
            those of a damaged file are.
        cache: Folder; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False = keep nothing. One that
            cannot be written to costs a warning.
    """
    path = cache_path(kind, key, cache=cache)
    if path is None:
        return compute()
    try:
        if path.exists():
            tensors, _ = load_tensors(path)
            check(tensors)
            return tensors
    except (InputError, OSError) as error:
        logger.warning("computing %s again, what the cache holds is no good: %s", kind, error)
    tensors = compute()
    try:
        save_tensors(path, tensors)
    except StorageError as error:
        logger.warning("going on without the cache, set QKD_CACHE to a folder: %s", error)
    return tensors
