"""What teachers give for images, computed once for the same weights and images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.storage import CacheFolder, Tensors, compute_once
from qkd_qiskit.teachers.own_module import without_gradient


def cached_rows(
    kind: Literal["logits", "features"],
    key: str,
    *,
    shape: tuple[int, ...],
    compute: Callable[[], Tensor],
    cache: CacheFolder,
) -> Tensor:
    """Return one row for each image, from disk where it was kept under the same key.

    Args:
        kind: What the rows are.
        key: All that they depend on.
        shape: Their shape; what is kept in another one, or not finite, is computed again.
        compute: Makes them.
        cache: As for `compute_once`.
    """

    def check(tensors: Tensors) -> None:
        rows = tensors.get(kind, torch.empty(0))
        if rows.shape != shape or not torch.isfinite(rows).all():
            raise TeacherError(f"no finite {kind} of shape {shape}")

    with without_gradient():
        tensors = compute_once(
            kind, key, compute=lambda: {kind: compute()}, check=check, cache=cache
        )
    return tensors[kind]
