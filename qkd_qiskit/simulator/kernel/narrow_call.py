"""One call of the kernel for a few samples of many qubits (narrow.py), in NumPy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from qkd_qiskit.simulator.kernel.angles import Array, KernelAngles
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES
from qkd_qiskit.simulator.kernel.narrow import backward, forward
from qkd_qiskit.simulator.kernel.plan import Plan
from qkd_qiskit.simulator.memory import empty_rows, require_memory
from qkd_qiskit.simulator.program import Permutation, Phases


def _require_memory(prepared: KernelAngles, *, samples: int, itemsize: int) -> None:
    """Check that the plan, the states that are worked on and those that are kept fit.

    Raises:
        CircuitError: If they do not.
    """
    program, readout = prepared.program, prepared.readout
    phases = 1 + sum(isinstance(each, Phases) for each in program.operations)
    permutations = 1 + sum(isinstance(each, Permutation) for each in program.operations)
    plan = 16 * phases + 8 * permutations + (0 if readout.index is not None else 8 * readout.size)
    numbers = 2 * phases + 9 + 6 * samples  # tables; states, costates; given, kept, gradients
    require_memory(
        program.num_qubits,
        copies=plan + itemsize * numbers,
        bytes_each=1,
        what=f"a batch of {samples} states",
    )


@dataclass
class NarrowCall:
    """The angles of a call and given states; `Call` for few samples.

    Attributes:
        prepared: What runs.
        plan: Its plan.
        fields: The plan as the kernel takes it.
        shared: Shared angles ``(members or 1, angles)``.
        sampled: Per-sample angles ``(members or 1, batch, angles)``.
        given: Real and imaginary parts of given states ``(members or 1, batch, 2**num_qubits)``,
            each ``(1, batch, 0)`` where there is none.
        members: Number of members.
        batch: Number of samples.
        saved: Final states ``(samples, numbers)``, once they are kept.
        finite: Whether all output values were finite, once it ran.
    """

    prepared: KernelAngles
    plan: Plan
    fields: tuple[Any, ...]
    shared: Array
    sampled: Array
    given: tuple[Array, Array]
    members: int
    batch: int
    saved: Array | None = None
    finite: bool = True

    @classmethod
    def of(
        cls, prepared: KernelAngles, inputs: Tensor, weights: Tensor, states: Tensor | None
    ) -> NarrowCall:
        """Return the call for tensors that all have a members dimension, or none of them."""
        features, weight = inputs.detach().numpy(), weights.detach().numpy()
        single = weight.ndim == 1
        if single:
            features, weight = features[None], weight[None]
        members, batch = max(len(features), len(weight)), features.shape[1]
        real = imag = np.empty((1, batch, 0), dtype=weight.dtype)
        kind = "ground" if states is None else "complex" if states.is_complex() else "real"
        if states is not None:
            whole = states.detach().resolve_conj().numpy()
            whole = whole[None] if single else whole
            members = max(members, len(whole))
            real, imag = whole.real, whole.imag if kind == "complex" else imag
        _require_memory(prepared, samples=members * batch, itemsize=weight.itemsize)
        within = (ROW_BYTES // weight.itemsize).bit_length() - 1
        plan, fields = prepared.plan(kind, within=within)
        shared_map, sample_map = prepared.maps(weights.dtype)
        with np.errstate(invalid="ignore"):  # the kernel reports numbers that are not finite
            shared = shared_map.forward(features, weight, sampled=False)
            sampled = sample_map.forward(features, weight, sampled=True)
        return cls(prepared, plan, fields, shared, sampled, (real, imag), members, batch)

    def _angles(self) -> Array:
        """Return the angles of every sample ``(samples, angles)``, the shared ones first."""
        lead = (self.members, self.batch)
        shared = np.broadcast_to(self.shared[:, None], (*lead, self.shared.shape[-1]))
        sampled = np.broadcast_to(self.sampled, (*lead, self.sampled.shape[-1]))
        whole = np.concatenate([shared, sampled], axis=-1)
        return np.ascontiguousarray(whole.reshape(self.members * self.batch, -1))

    def _room(self) -> tuple[Array, Array, Array]:
        """Return room for phase tables, coefficient rows and states."""
        states, kind = 1 << self.plan.num_qubits, self.shared.dtype
        lanes, slots = ROW_BYTES // kind.itemsize, max(1, len(self.plan.slots))
        return (
            empty_rows(max(1, len(self.plan.fixed)), 2, states, dtype=kind),
            empty_rows(3 * slots * lanes, dtype=kind),
            empty_rows(4, 2 * states, dtype=kind),
        )

    def values(self, *, keep: bool) -> Array:
        """Return output values ``(members, batch, outputs)``, and keep the final states."""
        samples, kind = self.members * self.batch, self.shared.dtype
        length = (1 + self.plan.final_complex) << self.plan.num_qubits
        values = empty_rows(samples, self.plan.size, dtype=kind)
        saved = empty_rows(samples if keep else 1, length if keep else 0, dtype=kind)
        angles, room = self._angles(), self._room()
        real, imag = (
            np.broadcast_to(part, (self.members, *part.shape[1:])).reshape(samples, part.shape[2])
            for part in self.given
        )
        real, imag = np.ascontiguousarray(real), np.ascontiguousarray(imag)
        self.finite = True
        for sample in range(samples):
            finite = forward(
                self.fields, angles, real, imag, *room, values, saved, keep, sample
            )  # fmt: skip
            self.finite = self.finite and bool(finite)
        self.saved = saved if keep else None
        return values.reshape(self.members, self.batch, -1)

    def gradients(self, incoming: Array, *, of_states: bool) -> tuple[Array, Array, Array]:
        """Return gradients of shared and per-sample angles and of given states, as `Call` does."""
        if self.saved is None:
            self.values(keep=True)
        angles, kind = self._angles(), self.shared.dtype
        samples, states = len(angles), 1 << self.plan.num_qubits
        real, imag = self.given
        parts = (1 + bool(imag.size)) * bool(real.size) * of_states
        of_angles = np.zeros(angles.shape, dtype=kind)
        to_states = np.zeros((samples, states if parts else 0, parts), dtype=kind)
        sums = empty_rows(max(1, len(self.plan.slots)) * ROW_BYTES // kind.itemsize, dtype=kind)
        by_row, room = empty_rows(states, dtype=kind), self._room()
        flat = np.ascontiguousarray(incoming.reshape(samples, -1))
        for sample in range(samples):
            backward(
                self.fields, angles, *room, sums, by_row, self.saved, flat, of_angles, to_states,
                sample,
            )  # fmt: skip
        whole = of_angles.reshape(self.members, self.batch, -1)
        count = self.shared.shape[-1]
        return (
            _summed(whole[..., :count].sum(axis=1), self.shared),
            _summed(whole[..., count:], self.sampled),
            _summed(to_states.reshape(self.members, self.batch, to_states.shape[1], parts), real),
        )


def _summed(gradient: Array, given: Array) -> Array:
    """Return a gradient summed over members where they share what it is of."""
    if len(given) == len(gradient):
        return np.ascontiguousarray(gradient)
    total: Array = gradient.sum(axis=0, keepdims=True)
    return total
