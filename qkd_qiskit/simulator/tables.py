"""Constant tensors that a program or a readout keeps per dtype and device."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


@dataclass(eq=False)
class Tables:
    """What was made once for a key."""

    _made: dict[Hashable, Any] = field(default_factory=dict)

    def get(self, key: Hashable, make: Callable[[], T]) -> T:
        """Return what was made for this key before, or make it now.

        Inside of a torch.func transform every new tensor belongs to the transform and must not be
        kept, nor must one of inference mode; what is made here is made outside of both.
        """
        if key not in self._made:
            outside = getattr(torch._C, "_DisableFuncTorch", contextlib.nullcontext)
            with outside(), torch.inference_mode(False), torch.no_grad():
                self._made[key] = make()
        found: T = self._made[key]
        return found


def parity(mask: int, *, num_qubits: int) -> Tensor:
    """Return +1 per basis state whose ones under the mask are even in number, else -1."""
    sign = torch.ones(1, dtype=torch.float64)
    for qubit in range(num_qubits):
        flipped = -sign if mask >> qubit & 1 else sign
        sign = torch.cat((sign, flipped))
    return sign
