"""The compiled kernel as a differentiable torch function, for a population in one call.

``vmap`` stacks into a leading members dimension of all tensors, of length S, or of 1 where all
members share a tensor. Second derivatives go through the torch path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qkd_qiskit.errors import InputError
from qkd_qiskit.simulator.density.call import NoisyCall
from qkd_qiskit.simulator.density.plan import NoisyAngleMap
from qkd_qiskit.simulator.kernel.angles import KernelAngles
from qkd_qiskit.simulator.kernel.call import Call
from qkd_qiskit.simulator.kernel.narrow_call import NarrowCall
from qkd_qiskit.simulator.kernel.plan import is_narrow

Tensors = tuple[Tensor, Tensor, Tensor | None]
Prepared = KernelAngles | NoisyAngleMap
AnyCall = Call | NarrowCall | NoisyCall
_RANKS = (2, 1, 2, 2)  # of inputs, weights, given states and output values, without members


def run(
    prepared: Prepared, inputs: Tensor, weights: Tensor, states: Tensor | None = None
) -> Tensor:
    """Return output values ``(batch, outputs)``.

    Args:
        prepared: The program and what is read out of it.
        inputs: ``(batch, inputs and features of inputs)``.
        weights: ``(weights and features of weights,)``, float32 or float64, on the CPU.
        states: States to start from ``(batch, 2**num_qubits)``; default: all qubits in 0.
    """
    return _values(prepared, torch.is_grad_enabled(), (inputs, weights, states))


def _transforms_active() -> bool:
    """Return whether a torch.func transform is running, or may be."""
    known = getattr(torch._C, "_are_functorch_transforms_active", None)
    return known is None or bool(known())


def _values(prepared: Prepared, keep: bool, tensors: Sequence[Tensor | None]) -> Tensor:
    """Return output values of inputs, weights and given states, all with members or none."""
    function = _Run if _transforms_active() else _RunPlainly
    values: Tensor = function.apply(prepared, keep, *tensors)
    return values


def _call(prepared: Prepared, tensors: Tensors) -> AnyCall:
    if isinstance(prepared, NoisyAngleMap):
        return NoisyCall.of(prepared, *tensors[:2])
    inputs, weights, _ = tensors
    qubits, bytes_each = prepared.program.num_qubits, weights.element_size()
    if is_narrow(qubits, batch=inputs.shape[-2], itemsize=bytes_each):
        return NarrowCall.of(prepared, *tensors)
    return Call.of(prepared, *tensors)


def _forward(prepared: Prepared, keep: bool, tensors: Tensors) -> tuple[AnyCall, Tensor]:
    call = _call(prepared, tensors)
    values = torch.from_numpy(call.values(keep=keep))
    if tensors[1].dim() == 1:
        values = values[0]
    if not call.finite:
        for name, given in (("circuit inputs", tensors[0]), ("amplitudes", tensors[2])):
            bad = 0 if given is None else int((~torch.isfinite(given)).sum())
            if given is not None and bad:
                raise InputError(
                    f"{bad} of {given.numel()} {name} are NaN or infinite; give finite numbers"
                )
    return call, values


def _backward(
    call: AnyCall, wanted: tuple[bool, bool], gradient: Tensor, tensors: Tensors
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Return gradients of inputs, weights and given states."""
    incoming = np.ascontiguousarray(gradient.detach().numpy())
    single = tensors[1].dim() == 1
    if single:
        incoming = incoming[None]
    of_shared, of_samples, of_states = call.gradients(incoming, of_states=wanted[1])
    shared_map, sample_map = call.prepared.maps(tensors[1].dtype)
    kind = of_shared.dtype
    shapes = [(1, *part.shape) if single else tuple(part.shape) for part in tensors[:2]]
    to_inputs = np.zeros(shapes[0], dtype=kind) if wanted[0] else None
    to_weights = np.zeros(shapes[1], dtype=kind)
    shared_map.backward(of_shared, None, to_weights)
    sample_map.backward(of_samples, to_inputs, to_weights)
    found = [to_inputs, to_weights, of_states if wanted[1] else None]
    first, middle, last = (
        None if part is None else torch.from_numpy(part[0] if single else part) for part in found
    )
    assert middle is not None
    if last is not None:
        last = torch.view_as_complex(last) if last.shape[-1] == 2 else last[..., 0]
    return first, middle, last


class _RunPlainly(torch.autograd.Function):
    """Output values, outside of torch.func transforms: what `_Run` does at half the overhead."""

    @staticmethod
    def forward(
        ctx: Any,
        prepared: Prepared,
        keep: bool,
        inputs: Tensor,
        weights: Tensor,
        states: Tensor | None,
    ) -> Tensor:
        ctx.prepared = prepared
        ctx.call, values = _forward(prepared, keep, (inputs, weights, states))
        ctx.save_for_backward(inputs, weights, states)
        return values

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        tensors = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[2], ctx.needs_input_grad[4])
        if torch.is_grad_enabled():  # a second derivative will be asked for
            return (
                None,
                None,
                *_differentiable_backward(ctx.prepared, wanted, gradients[0], tensors),
            )
        return None, None, *_backward(ctx.call, wanted, gradients[0], tensors)


def _differentiable_backward(
    prepared: Prepared, wanted: tuple[bool, bool], gradient: Tensor, tensors: Tensors
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    to_inputs, to_weights, to_states = _RunBack.apply(prepared, wanted, *tensors, gradient)
    return to_inputs if wanted[0] else None, to_weights, to_states if wanted[1] else None


class _Run(torch.autograd.Function):
    """Output values, under torch.func transforms."""

    @staticmethod
    def forward(
        prepared: Prepared, keep: bool, inputs: Tensor, weights: Tensor, states: Tensor | None
    ) -> Tensor:
        return _forward(prepared, keep, (inputs, weights, states))[1]

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.prepared, _, features, weights, states = inputs
        ctx.save_for_backward(features, weights, states)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        wanted = (ctx.needs_input_grad[2], ctx.needs_input_grad[4])
        tensors = ctx.saved_tensors
        return None, None, *_differentiable_backward(ctx.prepared, wanted, gradients[0], tensors)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        prepared, keep, *tensors = arguments
        stacked, shape = _stack(info.batch_size, in_dims[2:], tensors, share=True)
        values = _values(prepared, keep, stacked)
        return values.reshape(*shape, *values.shape[1:]), 0


class _RunBack(torch.autograd.Function):
    """Gradients of inputs, weights and given states; empty where they are not wanted."""

    @staticmethod
    def forward(
        prepared: Prepared, wanted: tuple[bool, bool], inputs: Tensor, weights: Tensor,
        states: Tensor | None, gradient: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        tensors = (inputs, weights, states)
        call = _call(prepared, tensors)
        found = _backward(call, wanted, gradient, tensors)
        first, middle, last = (weights.new_empty(0) if part is None else part for part in found)
        return first, middle, last

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.prepared, _, features, weights, states, gradient = inputs
        ctx.save_for_backward(features, weights, states, gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        features, weights, states, gradient = ctx.saved_tensors
        given = [part for part in (features, weights, states) if part is not None]

        def first(*tensors: Tensor) -> tuple[Tensor, ...]:
            def values(*parts: Tensor) -> Tensor:
                initial = parts[2] if len(parts) == 3 else None
                found: Tensor = ctx.prepared.reference(parts[0], parts[1], initial)
                return found

            back: Any = torch.func.vjp(values, *tensors[:-1])[1]
            return tuple(back(tensors[-1]))

        derived: Any = torch.func.vjp(first, *given, gradient)
        found, second = derived
        changes = tuple(
            change if change is not None and change.shape == part.shape else torch.zeros_like(part)
            for part, change in zip(found, gradients, strict=False)
        )
        results = list(second(changes))
        if states is None:
            results.insert(2, None)
        return None, None, *results

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        prepared, wanted, *tensors = arguments
        stacked, shape = _stack(info.batch_size, in_dims[2:], tensors, share=False)
        found = _RunBack.apply(prepared, wanted, *stacked)
        empty = [part.dim() == 1 for part in found]  # not wanted
        parts = tuple(
            part if none else part.reshape(*shape, *part.shape[1:])
            for part, none in zip(found, empty, strict=True)
        )
        return parts, tuple(None if none else 0 for none in empty)


def _stack(
    size: int, dims: tuple[int | None, ...], tensors: list[Tensor | None], *, share: bool
) -> tuple[list[Tensor | None], tuple[int, ...]]:
    """Fold a vmapped dimension into the members dimension.

    Return the tensors and the shape to unfold the members dimension into.
    """
    single = False
    moved: list[tuple[Tensor, bool] | None] = []
    for tensor, dim, rank in zip(tensors, dims, _RANKS, strict=False):
        if tensor is None:
            moved.append(None)
            continue
        mapped = dim is not None
        whole = tensor.movedim(dim, 0) if dim is not None else tensor
        if whole.dim() == rank + mapped:
            single = True
            whole = whole.unsqueeze(int(mapped))
        moved.append((whole, mapped))
    inner = max(part[0].shape[int(part[1])] for part in moved if part is not None)
    stacked: list[Tensor | None] = []
    for part in moved:
        if part is None:
            stacked.append(None)
            continue
        whole, mapped = part
        if not (share and not mapped and whole.shape[0] == 1):
            whole = whole if mapped else whole.expand(size, *whole.shape)
            whole = whole.expand(size, inner, *whole.shape[2:])
            whole = whole.reshape(size * inner, *whole.shape[2:])
        stacked.append(whole)
    return stacked, (size,) if single else (size, inner)
