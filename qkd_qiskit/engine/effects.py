"""Move outputs back through the two-qubit operations that all samples share.

An output is a linear function of the noisy state, so it can take up the operations before the
readout (the Heisenberg picture) once for all samples. On the CPU a compiled kernel does this;
second derivatives and torch.func gradients go through the same steps in torch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ROW_BYTES = 64

Array = NDArray[Any]
Reference = Callable[[Tensor, Tensor], Tensor]


def move_back(
    outputs: Tensor, matrices: Tensor, *, qubits: NDArray[np.int64], reference: Reference
) -> Tensor:
    """Return ``outputs`` times ``matrices[0]``, times ``matrices[1]``, and so on.

    Args:
        outputs: ``(outputs, 4**num_qubits)``, float32 or float64, on the CPU.
        matrices: ``(blocks, 16, 16)``.
        qubits: The qubits of the lower and the higher digit per block ``(blocks, 2)``.
        reference: The same of `outputs` and `matrices` in torch.
    """
    found: Tensor = _function().apply(outputs, matrices, qubits, reference)
    return found


def _transforms_active() -> bool:
    """Return whether a torch.func transform is running, or may be."""
    known = getattr(torch._C, "_are_functorch_transforms_active", None)
    return known is None or bool(known())


def _function() -> Any:
    return _MoveBack if _transforms_active() else _MoveBackPlainly


class _MoveBackPlainly(torch.autograd.Function):
    """Outside of torch.func transforms, where intermediate rows can be kept for the way back."""

    @staticmethod
    def forward(
        ctx: Any,
        outputs: Tensor,
        matrices: Tensor,
        qubits: NDArray[np.int64],
        reference: Reference,
    ) -> Tensor:
        ctx.history = _history(outputs, matrices, qubits)
        ctx.qubits, ctx.reference = qubits, reference
        ctx.save_for_backward(outputs, matrices)
        return _vectors(ctx.history[:, -1], outputs, matrices)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        outputs, matrices = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative will be asked for
            return _in_torch(ctx.reference, outputs, matrices, gradients[0])
        found = _gradients(outputs, matrices, ctx.qubits, gradients[0], ctx.history)
        return (*found, None, None)


class _MoveBack(torch.autograd.Function):
    """Under torch.func transforms."""

    @staticmethod
    def forward(
        outputs: Tensor, matrices: Tensor, qubits: NDArray[np.int64], reference: Reference
    ) -> Tensor:
        history = _history(outputs, matrices, qubits)
        return _vectors(history[:, -1], outputs, matrices)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        outputs, matrices, _, ctx.reference = inputs
        ctx.save_for_backward(outputs, matrices)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        outputs, matrices = ctx.saved_tensors
        return _in_torch(ctx.reference, outputs, matrices, gradients[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        outputs, matrices, qubits, reference = arguments
        size = info.batch_size
        if in_dims[0] is not None:
            outputs = outputs.movedim(in_dims[0], 0)
        if in_dims[1] is not None:
            matrices = matrices.movedim(in_dims[1], 0)
        else:
            matrices = matrices.expand(size, *matrices.shape)
        if matrices.dim() == 4 and outputs.dim() <= 3:
            return _function().apply(outputs, matrices, qubits, reference), 0
        nested = torch.func.vmap(reference, (0 if in_dims[0] is not None else None, 0))
        return torch.func.vmap(nested)(outputs, matrices), 0


def _in_torch(
    reference: Reference, outputs: Tensor, matrices: Tensor, gradient: Tensor
) -> tuple[Any, ...]:
    """Return the gradients so that they can be differentiated again."""
    if matrices.dim() == 4:  # members, which vmap had folded in
        reference = torch.func.vmap(reference, (0 if outputs.dim() == 3 else None, 0))
    back: Any = torch.func.vjp(reference, outputs, matrices)[1]
    return (*back(gradient), None, None)


def _lanes(like: Array) -> int:
    return int(_ROW_BYTES // like.itemsize)


def _rows(vectors: Array, members: int) -> Array:
    """Return vectors ``(members or nothing, outputs, components)`` as rows, in tiles of lanes.

    The result is ``(members * tiles, components, lanes)``.
    """
    lanes = _lanes(vectors)
    whole = vectors if vectors.ndim == 3 else vectors[None]
    whole = np.broadcast_to(whole, (members, *whole.shape[1:]))
    tiles = -(-whole.shape[1] // lanes)
    rows: Array = torch.zeros(
        members, tiles, whole.shape[2], lanes, dtype=torch.from_numpy(vectors[:0]).dtype
    ).numpy()
    for tile in range(tiles):
        part = whole[:, tile * lanes : (tile + 1) * lanes]
        rows[:, tile, :, : part.shape[1]] = part.transpose(0, 2, 1)
    return rows.reshape(members * tiles, whole.shape[2], lanes)


def _history(outputs: Tensor, matrices: Tensor, qubits: NDArray[np.int64]) -> Array:
    """Return the rows before and after every block ``(members * tiles, blocks + 1, rows)``."""
    from qkd_qiskit.engine import effects_kernel

    given, factors = _given(outputs, matrices)
    start = _rows(given, factors.shape[0])
    tiles = len(start) // factors.shape[0]
    factors = np.repeat(factors, tiles, axis=0)
    shape = (len(start), factors.shape[1] + 1, math.prod(start.shape[1:]))
    history: Array = torch.empty(shape, dtype=outputs.dtype).numpy()
    history[:, 0] = start.reshape(len(start), -1)
    effects_kernel.forward(factors, qubits, history)
    return history


def _given(outputs: Tensor, matrices: Tensor) -> tuple[Array, Array]:
    factors = matrices.detach().numpy()
    factors = factors if factors.ndim == 4 else factors[None]
    return outputs.detach().numpy(), np.ascontiguousarray(factors).reshape(*factors.shape[:2], 256)


def _vectors(rows: Array, outputs: Tensor, matrices: Tensor) -> Tensor:
    """Return rows as vectors: ``(outputs, components)``, with members if the matrices have them."""
    members = matrices.shape[0] if matrices.dim() == 4 else 1
    count, components = outputs.shape[-2:]
    lanes = _lanes(rows)
    whole = rows.reshape(members, -1, components, lanes).transpose(0, 1, 3, 2)
    whole = np.ascontiguousarray(whole.reshape(members, -1, components)[:, :count])
    return torch.from_numpy(whole if matrices.dim() == 4 else whole[0])


def _gradients(
    outputs: Tensor,
    matrices: Tensor,
    qubits: NDArray[np.int64],
    gradient: Tensor,
    history: Array,
) -> tuple[Tensor, Tensor]:
    from qkd_qiskit.engine import effects_kernel

    factors = _given(outputs, matrices)[1]
    incoming = _rows(gradient.detach().numpy(), len(factors))
    tiles = len(incoming) // len(factors)
    incoming = incoming.reshape(len(incoming), -1)
    repeated = np.repeat(factors, tiles, axis=0)
    of_matrices = np.empty_like(repeated)
    lanes = _lanes(incoming)
    sums: Array = torch.empty(256 * lanes, dtype=outputs.dtype).numpy()
    other: Array = torch.empty(incoming.shape[1], dtype=outputs.dtype).numpy()
    effects_kernel.backward(repeated, qubits, history, incoming, other, sums, of_matrices)
    total = of_matrices.reshape(len(factors), tiles, *of_matrices.shape[1:]).sum(axis=1)
    of_outputs = _vectors(incoming, outputs, matrices)
    if of_outputs.dim() > outputs.dim():
        of_outputs = of_outputs.sum(dim=0)
    return of_outputs, torch.from_numpy(total.reshape(matrices.shape))
