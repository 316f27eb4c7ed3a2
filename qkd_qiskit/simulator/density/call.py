"""One call of the noisy kernel in NumPy, and the memory that it works in."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from qkd_qiskit.simulator.density.kernel import backward, forward
from qkd_qiskit.simulator.density.plan import NoisyAngleMap, NoisyPlan
from qkd_qiskit.simulator.kernel.angles import Array
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.memory import empty_rows, require_memory

_MAX_KEPT_BYTES = 2**25  # scratch memory that is kept for the next call
_scratch = threading.local()


@dataclass(eq=False)
class NoisyCall:
    """One call of the kernel. Arrays have a leading members dimension of S, or of 1 if shared.

    Attributes:
        prepared: What runs.
        plan: Its plan.
        turns: Cosines and sines of the shared angles ``(members, angles)``, then of the per-sample
            angles ``(members, batch, angles)``.
        members: Number of members.
        batch: Number of samples.
        finite: Whether all inputs and values were finite, once it ran.
    """

    prepared: NoisyAngleMap
    plan: NoisyPlan
    turns: tuple[Array, Array, Array, Array]
    members: int
    batch: int
    finite: bool = True

    @classmethod
    def of(cls, prepared: NoisyAngleMap, inputs: Tensor, weights: Tensor) -> NoisyCall:
        """Return the call for tensors that both have a members dimension, or neither."""
        features, weight = inputs.detach().numpy(), weights.detach().numpy()
        if weight.ndim == 1:
            features, weight = features[None], weight[None]
        shared_map, sample_map = prepared.maps(weights.dtype)
        with np.errstate(invalid="ignore"):  # numbers that are not finite are reported later
            shared = shared_map.forward(features, weight, sampled=False)
            each = sample_map.forward(features, weight, sampled=True)
            turns = (
                np.cos(shared, order="C"), np.sin(shared, order="C"),
                np.cos(each, order="C"), np.sin(each, order="C"),
            )  # fmt: skip
        batch, members = features.shape[1], max(len(features), len(weight))
        plan = prepared.plan(batch if each.shape[2] else 1, weight.itemsize)
        finite = bool(np.isfinite(features).all())
        return cls(prepared, plan, turns, members, batch, finite)

    @property
    def _rows(self) -> int:
        """Samples that the kernel runs: one where no angle differs between them."""
        return self.batch if self.turns[2].shape[2] else 1

    def values(self, *, keep: bool) -> Array:
        """Return output values ``(members, batch, outputs)``, and keep what `gradients` needs."""
        values = empty_rows(
            self.members, self._rows, self.plan.fields[-1], dtype=self.turns[0].dtype
        )
        memory = _Scratch.of(self, keep=keep)
        forward(self.plan.fields, memory.arrays, *self.turns, memory.effects, keep, values)
        memory.owner = self if keep and memory.whole else None
        self.finite = self.finite and bool(np.isfinite(values).all())
        if self._rows != self.batch:
            values = np.repeat(values, self.batch, axis=1)
        return values

    def gradients(self, incoming: Array, *, of_states: bool) -> tuple[Array, Array, Array]:
        """Return gradients of shared and per-sample angles, and an empty one of given states.

        Args:
            incoming: Gradients of the output values ``(members, batch, outputs)``.
            of_states: Not used: there are no given states.
        """
        if self._rows != self.batch:
            incoming = incoming.sum(axis=1, keepdims=True)
        of_shared, of_samples = np.zeros_like(self.turns[0]), np.zeros_like(self.turns[2])
        memory = _Scratch.of(self, keep=True)
        moved = memory.owner is self
        backward(
            self.plan.fields, memory.arrays, *self.turns, memory.effects, moved, incoming,
            of_shared, of_samples,
        )  # fmt: skip
        memory.owner = self if moved else None
        return of_shared, of_samples, np.empty(0, dtype=of_shared.dtype)


@dataclass(eq=False)
class _Scratch:
    """Memory for calls of one plan, kept per thread for the next call.

    Attributes:
        plan: The plan it is for.
        members: The number of members it is for.
        keep: Whether it has room for the vectors before every chain.
        arrays: Scratch memory of the kernel.
        effects: Moved outputs ``(members or 1, tiles, steps, components * lanes)``.
        whole: Whether these are those of all members.
        owner: The call whose outputs they are.
    """

    plan: NoisyPlan
    members: int
    keep: bool
    arrays: tuple[Array, ...]
    effects: Array
    whole: bool
    owner: NoisyCall | None = None

    @classmethod
    def of(cls, call: NoisyCall, *, keep: bool) -> _Scratch:
        """Return memory for a call; with `keep`, for the vectors before every chain."""
        plan, like = call.plan, call.turns[0]
        known: _Scratch | None = getattr(_scratch, "memory", None)
        if known is not None and known.serves(plan, call.members, keep=keep):
            return known
        lanes = ROW_BYTES // like.itemsize
        size = lanes * 4**plan.num_qubits
        early, late = (plan.early_steps + 1, plan.late_steps + 1) if keep else (1, 1)
        whole = call.members * plan.tiles * late * size * like.itemsize < _MAX_KEPT_BYTES
        members = call.members if whole else 1
        require_memory(
            plan.num_qubits,
            copies=lanes * (early + plan.tiles * (late * members + 1) + 2),
            bytes_each=like.itemsize,
            what="a noisy circuit",
            base=4,
        )
        empty = functools.partial(empty_rows, dtype=like.dtype)
        arrays = (
            empty(max(1, 2 * plan.rotations * lanes)),
            empty(max(1, 16 * plan.rotations * lanes)),
            empty(16 * plan.chains * lanes),
            empty(16 * plan.chains * lanes),
            empty(33 * lanes),
            empty((4**plan.num_qubits - 1) // 3 * lanes),
            empty(early, size),
            empty(1 + plan.tiles if keep else 1, size),
            empty(2 * lanes * lanes),
        )
        effects = empty(members, plan.tiles, late, size)
        found = cls(plan, call.members, keep, arrays, effects, whole)
        if sum(array.nbytes for array in (*arrays, effects)) < 2 * _MAX_KEPT_BYTES:
            _scratch.memory = found
        return found

    def serves(self, plan: NoisyPlan, members: int, *, keep: bool) -> bool:
        """Return whether this memory will do."""
        return self.plan is plan and self.members == members and self.keep >= keep
