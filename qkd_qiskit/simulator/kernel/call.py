"""One call of the compiled kernel, in NumPy: its arrays, its threads, its results.

Arrays have a leading members dimension of S, or of 1 where all members share them.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from qkd_qiskit.simulator.kernel.angles import Array, KernelAngles
from qkd_qiskit.simulator.kernel.backward import backward
from qkd_qiskit.simulator.kernel.forward import forward
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.kernel.plan import Plan
from qkd_qiskit.simulator.memory import empty_rows, require_memory
from qkd_qiskit.simulator.program import Permutation, Phases
from qkd_qiskit.simulator.threads import in_threads, threads_allowed, threads_for

_MAX_KEPT_BYTES = 2**24  # scratch memory that is kept for the next call
_NOT_COUNTED = 2**22  # amplitudes of all tiles, about, that need no look at the system's memory
_scratch = threading.local()


def _require_memory(prepared: KernelAngles, *, members: int, batch: int, itemsize: int) -> None:
    """Check that a call's plan, its tiles of states in every thread and what it keeps fit.

    Raises:
        CircuitError: If they do not.
    """
    program, size = prepared.program, prepared.readout.size
    if (members * batch + ROW_BYTES) << program.num_qubits < _NOT_COUNTED:
        return
    tiles = -(-batch * itemsize // ROW_BYTES)
    phases = 1 + sum(isinstance(each, Phases) for each in program.operations)
    permutations = 1 + sum(isinstance(each, Permutation) for each in program.operations)
    plan = 16 * phases + 8 * permutations + (8 * size if prepared.readout.index is None else 0)
    tile = 8 * ROW_BYTES + (2 * itemsize + ROW_BYTES) * phases
    threads = max(1, min(threads_allowed(), max(members, tiles)))
    require_memory(
        program.num_qubits,
        copies=plan + threads * tile + 2 * ROW_BYTES * members * tiles,
        bytes_each=1,
        what=f"a batch of {batch} states",
    )


@dataclass
class Call:
    """The angles of a call, their cosines and sines, and given states.

    Attributes:
        prepared: What runs.
        plan: Its plan for this kind of start.
        fields: The plan as the kernel takes it.
        shared: Shared angles ``(members, angles)``.
        cosines: Of half the per-sample angles ``(members, batch, angles)``.
        sines: Of the same.
        given: Real parts of given states ``(members, batch, 2**num_qubits)``, or empty.
        given_imag: Imaginary parts, or empty.
        members: Number of members.
        batch: Number of samples.
        saved: Final states ``(members, tiles, rows)``, once they are kept.
        finite: Whether all output values were finite, once it ran.
    """

    prepared: KernelAngles
    plan: Plan
    fields: tuple[Any, ...]
    shared: Array
    cosines: Array
    sines: Array
    given: Array
    given_imag: Array
    members: int
    batch: int
    saved: Array | None = None
    finite: bool = True

    @classmethod
    def of(
        cls, prepared: KernelAngles, inputs: Tensor, weights: Tensor, states: Tensor | None
    ) -> Call:
        """Return the call for tensors that all have a members dimension, or none of them."""
        kind = "ground" if states is None else "complex" if states.is_complex() else "real"
        features, weight = inputs.detach().numpy(), weights.detach().numpy()
        single = weight.ndim == 1
        if single:
            features, weight = features[None], weight[None]
        members, batch = max(len(features), len(weight)), features.shape[1]
        if states is not None and not single:
            members = max(members, len(states))
        _require_memory(prepared, members=members, batch=batch, itemsize=weight.itemsize)
        plan, fields = prepared.plan(kind)
        shared_map, sample_map = prepared.maps(weights.dtype)
        shared = np.array(shared_map.forward(features, weight, sampled=False), order="C")
        cosines = sines = np.empty((1, batch, 0), dtype=weight.dtype)
        if sample_map.count:
            with np.errstate(invalid="ignore"):  # the kernel reports numbers that are not finite
                half = 0.5 * sample_map.forward(features, weight, sampled=True)
                cosines, sines = np.cos(half), np.sin(half)
        given = given_imag = np.empty((1, 0, 0), dtype=weight.dtype)
        if states is not None:
            whole = states.detach().resolve_conj().numpy()
            whole = whole[None] if single else whole
            given = np.ascontiguousarray(whole.real)
            if kind == "complex":
                given_imag = np.ascontiguousarray(whole.imag)
        return cls(
            prepared, plan, fields, shared, cosines, sines, given, given_imag, members, batch
        )

    @property
    def lanes(self) -> int:
        """Samples per tile."""
        return ROW_BYTES // self.shared.itemsize

    @property
    def tiles(self) -> int:
        """Number of tiles."""
        return -(-self.batch // self.lanes)

    def scratch(self) -> tuple[Array, Array, Array, Array, Array, Array]:
        """Return phase tables, coefficient rows, states, and rows of sums, phases and outputs."""
        states = 1 << self.plan.num_qubits
        tables = max(1, len(self.plan.fixed))
        slots = max(1, len(self.plan.slots))
        key = (states, tables, slots, self.plan.size, self.shared.dtype)
        if getattr(_scratch, "key", None) == key:
            found: tuple[Array, Array, Array, Array, Array, Array] = _scratch.arrays
            return found
        row = self.lanes
        arrays = (
            self._empty(tables, 2, states),
            self._empty(3 * slots * row),
            self._empty(4, 2 * states * row),
            self._empty(slots * row),
            self._empty(tables * states * row),
            self._empty((self.plan.size + 1) * row),
        )
        if sum(array.nbytes for array in arrays) < _MAX_KEPT_BYTES:
            _scratch.key, _scratch.arrays = key, arrays
        return arrays

    def _empty(self, *shape: int) -> Array:
        return empty_rows(*shape, dtype=self.shared.dtype)

    def values(self, *, keep: bool) -> Array:
        """Return output values ``(members, batch, outputs)``, and keep the final states."""
        values = self._empty(self.members, self.batch, self.plan.size)
        length = (1 + self.plan.final_complex) * (self.lanes << self.plan.num_qubits)
        saved = self._empty(self.members, self.tiles if keep else 0, length)

        def work(members: tuple[int, int], tiles: tuple[int, int]) -> bool:
            tables, rows, states, _, _, outputs = self.scratch()
            finite = forward(
                self.fields, self.shared, self.cosines, self.sines, self.given, self.given_imag,
                tables, rows, states[0], states[1], outputs, values, saved, keep, members, tiles,
            )  # fmt: skip
            return bool(finite)

        self.finite = all(self._in_threads(work))
        self.saved = saved if keep else None
        return values

    def gradients(self, incoming: Array, *, of_states: bool) -> tuple[Array, Array, Array]:
        """Return gradients of shared and per-sample angles, and of given states.

        The last is ``(members, batch, 2**num_qubits, parts)`` with the real and the imaginary
        part, or empty.

        Args:
            incoming: Gradients of the output values ``(members, batch, outputs)``.
            of_states: Whether given states need a gradient.
        """
        if self.saved is None:
            self.values(keep=True)
        parts = 0 if not of_states else 2 if self.given_imag.size else 1
        shape = (*self.given.shape[: 3 if parts else 2], *([] if parts else [0]), parts)
        totals = [
            np.zeros(size, dtype=self.shared.dtype)
            for size in (self.shared.shape, self.cosines.shape, shape)
        ]

        def work(members: tuple[int, int], tiles: tuple[int, int]) -> list[Array]:
            whole = members == (0, self.members) and tiles == (0, self.tiles)
            own = totals if whole else [np.zeros_like(total) for total in totals]
            tables, rows, states, sums, phases, outputs = self.scratch()
            backward(
                self.fields, self.shared, self.cosines, self.sines, tables, rows, states, sums,
                phases, outputs, self.saved, incoming, of_states, own[0], own[1], own[2],
                members, tiles,
            )  # fmt: skip
            return own

        for own in self._in_threads(work):
            if own is not totals:
                for total, part in zip(totals, own, strict=True):
                    total += part
        return totals[0], totals[1], totals[2]

    def _in_threads(self, work: Callable[..., Any]) -> list[Any]:
        """Run over all members and tiles, in as many threads as torch may use."""
        row_updates = (self.members * self.tiles << self.plan.num_qubits) * (
            4 + len(self.plan.slots)
        )
        threads = threads_for(row_updates)
        if threads == 1:
            return [work((0, self.members), (0, self.tiles))]
        by_member = self.members >= threads
        length = self.members if by_member else self.tiles
        edges = np.linspace(0, length, min(threads, length) + 1).astype(int).tolist()
        parts = [
            (part, (0, self.tiles)) if by_member else ((0, self.members), part)
            for part in itertools.pairwise(edges)
        ]
        return in_threads(work, parts)
