"""The compiled kernel as a differentiable torch function, for a population in one call.

Canonical shapes have a leading members dimension of S, or of 1 where all members share a tensor.
``vmap`` stacks into that dimension. Second derivatives go through the torch path.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qkd_qiskit.engine.plan import Plan
from qkd_qiskit.engine.sweep import Array, Sweep
from qkd_qiskit.errors import InputError

_ROW_BYTES = 64
_THREAD_WORK = 3_000_000  # row updates below which one thread is faster than several


@dataclass
class _Arrays:
    """One call's arrays in NumPy: angles, their cosines and sines, given states."""

    plan: Plan
    fields: tuple[Any, ...]
    shared: Array
    cosines: Array
    sines: Array
    given: Array
    given_imag: Array
    members: int
    batch: int

    @property
    def lanes(self) -> int:
        return _ROW_BYTES // self.shared.itemsize

    @property
    def tiles(self) -> int:
        return -(-self.batch // self.lanes)

    @classmethod
    def of(cls, sweep: Sweep, inputs: Tensor, weights: Tensor, states: Tensor | None) -> _Arrays:
        kind = "ground" if states is None else "complex" if states.is_complex() else "real"
        plan, fields = sweep.plan(kind)
        features, weight = inputs.detach().numpy(), weights.detach().numpy()
        shared_map, sample_map = sweep.maps(weights.dtype)
        shared = np.ascontiguousarray(shared_map.forward(features, weight, sampled=False))
        with np.errstate(invalid="ignore"):  # the kernel reports numbers that are not finite
            half = 0.5 * sample_map.forward(features, weight, sampled=True)
            cosines, sines = np.cos(half), np.sin(half)
        if states is None:
            given = given_imag = np.zeros((1, 0, 0), dtype=weight.dtype)
        elif kind == "real":
            given = np.ascontiguousarray(states.detach().numpy())
            given_imag = np.zeros((1, 0, 0), dtype=weight.dtype)
        else:
            whole = states.detach().resolve_conj().numpy()
            given, given_imag = (np.ascontiguousarray(part) for part in (whole.real, whole.imag))
        members = max(len(features), len(weight), len(given))
        batch = inputs.shape[1]
        return cls(plan, fields, shared, cosines, sines, given, given_imag, members, batch)

    def scratch(self) -> tuple[Array, Array, Array]:
        """Return phase tables, coefficient rows, and two tiles' states."""
        kind = torch.float32 if self.shared.itemsize == 4 else torch.float64
        states = 1 << self.plan.num_qubits
        tables = empty(max(1, len(self.plan.fixed)), 2, states, dtype=kind)
        rows = empty(max(1, 3 * len(self.plan.slots) * self.lanes), dtype=kind)
        return tables, rows, empty(4, 2 * states * self.lanes, dtype=kind)


def empty(*shape: int, dtype: torch.dtype) -> Array:
    """Return an array that begins at a cache line, which NumPy does not promise."""
    found: Array = torch.empty(*shape, dtype=dtype).numpy()
    return found


class _Run(torch.autograd.Function):
    """Values and final states; gradients by the adjoint sweep."""

    @staticmethod
    def forward(
        sweep: Sweep, keep: bool, inputs: Tensor, weights: Tensor, states: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        from qkd_qiskit.engine import kernels

        call = _Arrays.of(sweep, inputs, weights, states)
        values = torch.empty(call.members, call.batch, call.plan.size, dtype=weights.dtype)
        length = (1 + call.plan.final_complex) * (call.lanes << call.plan.num_qubits)
        kept = (call.members, call.tiles, length) if keep else (call.members, 0, length)
        saved = torch.empty(kept, dtype=weights.dtype)

        def work(members: tuple[int, int], tiles: tuple[int, int]) -> bool:
            tables, rows, states_ = call.scratch()
            sums = empty((call.plan.size + 1) * call.lanes, dtype=weights.dtype)
            return bool(
                kernels.forward(
                    call.fields,
                    call.shared,
                    call.cosines,
                    call.sines,
                    call.given,
                    call.given_imag,
                    tables,
                    rows,
                    states_[0],
                    states_[1],
                    sums,
                    values.numpy(),
                    saved.numpy(),
                    keep,
                    members,
                    tiles,
                )
            )

        if not all(_in_threads(work, call)):
            _refuse_not_finite(inputs, states)
        return values, saved

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.sweep, _, features, weights, states = inputs
        saved = output[1]
        ctx.mark_non_differentiable(saved)
        ctx.save_for_backward(features, weights, states, saved)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        features, weights, states, saved = ctx.saved_tensors
        wanted = (ctx.needs_input_grad[2], ctx.needs_input_grad[4])
        found = _RunBack.apply(ctx.sweep, wanted, features, weights, states, saved, gradients[0])
        to_inputs, to_weights, to_states = found
        return (
            None,
            None,
            to_inputs if wanted[0] else None,
            to_weights,
            to_states if wanted[1] else None,
        )

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        sweep, keep, *tensors = arguments
        stacked, inner = _stack(info.batch_size, in_dims[2:], tensors, share=True)
        values, saved = _Run.apply(sweep, keep, *stacked)
        shape = (info.batch_size, inner)
        return (values.reshape(*shape, *values.shape[1:]), saved.unflatten(0, shape)), (0, 0)


class _RunBack(torch.autograd.Function):
    """Gradients of inputs, weights and given states."""

    @staticmethod
    def forward(
        sweep: Sweep, wanted: tuple[bool, bool], inputs: Tensor, weights: Tensor,
        states: Tensor | None, saved: Tensor, gradient: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        from qkd_qiskit.engine import adjoint

        call = _Arrays.of(sweep, inputs, weights, states)
        kind = weights.dtype
        if saved.shape[1] != call.tiles:  # the forward pass ran without gradients
            saved = _Run.forward(sweep, True, inputs, weights, states)[1]
        incoming = gradient.detach().contiguous().numpy()
        keep_states = wanted[1]
        parts = 0 if not keep_states or states is None else 1 + states.is_complex()
        amplitudes = call.given.shape[2] if parts else 0
        shapes = (
            call.shared.shape,
            call.cosines.shape,
            (*call.given.shape[:2], amplitudes, parts),
        )
        totals = [np.zeros(shape, dtype=call.shared.dtype) for shape in shapes]

        def work(members: tuple[int, int], tiles: tuple[int, int]) -> list[Array]:
            whole = members == (0, call.members) and tiles == (0, call.tiles)
            own = totals if whole else [np.zeros_like(total) for total in totals]
            tables, rows, states_ = call.scratch()
            slots = max(1, len(call.plan.slots))
            sums = empty(slots * call.lanes, dtype=kind)
            phase_sums = empty(tables.shape[0] * tables.shape[2] * call.lanes, dtype=kind)
            outputs = empty((call.plan.size + 1) * call.lanes, dtype=kind)
            adjoint.backward(
                call.fields, call.shared, call.cosines, call.sines, tables, rows, states_, sums,
                phase_sums, outputs, saved.numpy(), incoming, keep_states, *own, members, tiles,
            )  # fmt: skip
            return own

        for own in _in_threads(work, call):
            if own is not totals:
                for total, part in zip(totals, own, strict=True):
                    total += part
        shared_map, sample_map = sweep.maps(kind)
        to_weights = np.zeros(weights.shape, dtype=totals[0].dtype)
        to_inputs = np.zeros(inputs.shape, dtype=totals[0].dtype) if wanted[0] else None
        shared_map.backward(totals[0], None, to_weights)
        sample_map.backward(totals[1], to_inputs, to_weights)
        to_states = torch.from_numpy(totals[2])
        if parts == 2:
            to_states = torch.view_as_complex(to_states)
        elif parts == 1:
            to_states = to_states[..., 0]
        nothing = torch.empty(0, dtype=kind)
        return (
            nothing if to_inputs is None else torch.from_numpy(to_inputs),
            torch.from_numpy(to_weights),
            to_states if parts else nothing.clone(),
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.sweep, ctx.wanted, features, weights, states, _, gradient = inputs
        ctx.save_for_backward(features, weights, states, gradient)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Any) -> Any:
        given = ctx.saved_tensors
        with torch.enable_grad():
            leaves: list[Any] = [
                None if part is None else part.detach().requires_grad_() for part in given
            ]
            features, weights, states, gradient = leaves
            values = ctx.sweep.reference(features, weights, states)
            first = [features, weights] + ([] if states is None else [states])
            found = torch.autograd.grad(
                values, first, gradient, create_graph=True, allow_unused=True
            )
            pairs = [
                (part, change)
                for part, change in zip(found, gradients, strict=False)
                if part is not None and part.requires_grad and change.shape == part.shape
            ]
            present = [leaf for leaf in leaves if leaf is not None]
            second = torch.autograd.grad(
                [part for part, _ in pairs],
                present,
                [change for _, change in pairs],
                allow_unused=True,
            )
        by_leaf = iter(second)
        result = [None if leaf is None else next(by_leaf) for leaf in leaves]
        return None, None, result[0], result[1], result[2], None, result[3]

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        sweep, wanted, *tensors = arguments
        stacked, inner = _stack(info.batch_size, in_dims[2:], tensors, share=False)
        found = _RunBack.apply(sweep, wanted, *stacked)
        shape = (info.batch_size, inner)
        return tuple(part.unflatten(0, shape) if part.numel() else part for part in found), tuple(
            0 if part.numel() else None for part in found
        )


def _stack(
    size: int, dims: tuple[int | None, ...], tensors: list[Tensor | None], *, share: bool
) -> tuple[list[Tensor | None], int]:
    """Fold a vmapped dimension into the members dimension; return also the members inside it."""

    def members(tensor: Tensor, dim: int | None) -> int:
        return int(tensor.movedim(dim, 0).shape[1] if dim is not None else tensor.shape[0])

    inner = max(
        members(tensor, dim)
        for tensor, dim in zip(tensors, dims, strict=True)
        if tensor is not None
    )
    stacked: list[Tensor | None] = []
    for tensor, dim in zip(tensors, dims, strict=True):
        if tensor is None or (share and dim is None and tensor.shape[0] == 1):
            stacked.append(tensor)
            continue
        whole = tensor.movedim(dim, 0) if dim is not None else tensor.expand(size, *tensor.shape)
        whole = whole.expand(size, inner, *whole.shape[2:])
        stacked.append(whole.reshape(size * inner, *whole.shape[2:]))
    return stacked, inner


def _in_threads(work: Callable[..., Any], call: _Arrays) -> list[Any]:
    """Run the kernel over all members and tiles, in as many threads as torch may use."""
    threads = torch.get_num_threads()
    cost = (call.members * call.tiles << call.plan.num_qubits) * (4 + len(call.plan.slots))
    if threads == 1 or cost < _THREAD_WORK:
        return [work((0, call.members), (0, call.tiles))]
    by_member = call.members >= threads
    length = call.members if by_member else call.tiles
    edges = np.linspace(0, length, min(threads, length) + 1).astype(int).tolist()
    parts = [
        (part, (0, call.tiles)) if by_member else ((0, call.members), part)
        for part in itertools.pairwise(edges)
    ]
    return list(_pool(threads).map(lambda part: work(*part), parts))


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="qkd-engine")


def _refuse_not_finite(inputs: Tensor, states: Tensor | None) -> None:
    for name, given in (("circuit inputs", inputs), ("amplitudes", states)):
        bad = 0 if given is None else int((~torch.isfinite(given)).sum())
        if given is not None and bad:
            raise InputError(
                f"{bad} of {given.numel()} {name} are NaN or infinite; give finite numbers"
            )


def run(sweep: Sweep, inputs: Tensor, weights: Tensor, states: Tensor | None = None) -> Tensor:
    """Return output values ``(batch, outputs)``.

    Args:
        sweep: The program and what is read out of it.
        inputs: ``(batch, inputs and features of inputs)``.
        weights: ``(weights and features of weights,)``, float32 or float64, on the CPU.
        states: States to start from ``(batch, 2**num_qubits)``; default: all qubits in 0.
    """
    given = None if states is None else states[None]
    values, _ = _Run.apply(sweep, torch.is_grad_enabled(), inputs[None], weights[None], given)
    result: Tensor = values[0]
    return result
