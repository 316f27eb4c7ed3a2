"""What the noisy kernel needs of a program: its plan, and one call of it, in NumPy.

Operations without parameters at the end of a circuit act on the readout, once when the plan is
made. Of the others, what is the same for all samples acts on the outputs, backwards, where these
need no more tiles than the samples; all else acts on the states.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qkd_qiskit.engine import noisy_kernel
from qkd_qiskit.engine.angles import Angle, AngleMap
from qkd_qiskit.engine.channels import Real
from qkd_qiskit.engine.density import Chain, DensityProgram
from qkd_qiskit.engine.memory import require_memory
from qkd_qiskit.engine.noisy_kernel import CHAIN, PAIR
from qkd_qiskit.engine.sweep import Affine, Array

_ROW_BYTES = 64
_TINY = 1e-15  # what is left of exact zeros
_MAX_KEPT_BYTES = 2**25  # scratch memory that is kept for the next call
_scratch = threading.local()

Reference = Callable[[Tensor, Tensor], Tensor]
Operation = tuple[tuple[int, ...], Any]  # qubits, and the number of a chain or a matrix (16, 16)


@dataclass(frozen=True)
class NoisyPlan:
    """A program and its readout for one precision and one direction.

    Attributes:
        num_qubits: Qubits.
        chains: Number of chains.
        rotations: Number of rotations in them.
        early_steps: Chains that act on a state after its start.
        late_steps: Chains that act on the outputs.
        tiles: Tiles of outputs.
        fields: The plan as the kernel takes it.
    """

    num_qubits: int
    chains: int
    rotations: int
    early_steps: int
    late_steps: int
    tiles: int
    fields: tuple[Any, ...]


class NoisySweep:
    """A program and what is read out of it, made ready for the kernel.

    Args:
        program: The compiled circuit with noise.
        readout: Output values per string of I and Z ``(outputs, 2**num_qubits)``.
        reference: The same values in torch, of inputs and weights with their features.
    """

    def __init__(self, program: DensityProgram, readout: Real, reference: Reference) -> None:
        self.program, self.readout, self._reference = program, readout, reference
        self._plans: dict[tuple[bool, int], NoisyPlan] = {}
        self._maps: dict[torch.dtype, tuple[Affine, Affine]] = {}
        sampled = [self._per_sample(angle) for angle in program.angles]
        shared, each = ([k for k, flag in enumerate(sampled) if flag == f] for f in (False, True))
        self.number = {angle: -1 - k for k, angle in enumerate(shared)}
        self.number |= {angle: k for k, angle in enumerate(each)}
        self._shared, self._each = (
            AngleMap.of(
                [program.angles[k] for k in part],
                num_inputs=program.num_inputs,
                num_weights=program.num_weights,
                features=list(program.features),
            )
            for part in (shared, each)
        )

    def _per_sample(self, angle: Angle) -> bool:
        return any(
            kind == "input" or (kind == "feature" and self.program.features[index].per_sample)
            for (kind, index), _ in angle.terms
        )

    def maps(self, dtype: torch.dtype) -> tuple[Affine, Affine]:
        """Return the shared and the per-sample angles' maps."""
        if dtype not in self._maps:
            self._maps[dtype] = (
                Affine.of(self._shared, dtype=dtype),
                Affine.of(self._each, dtype=dtype),
            )
        return self._maps[dtype]

    def reference(self, inputs: Tensor, weights: Tensor, states: Tensor | None) -> Tensor:
        """Return the same values by the torch path."""
        if weights.dim() == 1:
            return self._reference(inputs, weights)
        count = max(len(inputs), len(weights))
        rows = [
            self._reference(inputs[i % len(inputs)], weights[i % len(weights)])
            for i in range(count)
        ]
        return torch.stack(rows)

    def plan(self, batch: int, itemsize: int) -> NoisyPlan:
        """Return the plan for a batch."""
        lanes = _ROW_BYTES // itemsize
        backwards = -(-len(self.readout) // lanes) <= -(-batch // lanes)
        key = (backwards, itemsize)
        if key not in self._plans:
            self._plans[key] = self._make(backwards, itemsize)
        return self._plans[key]

    def _make(self, backwards: bool, itemsize: int) -> NoisyPlan:
        program, count = self.program, self.program.num_qubits
        operations = _operations(program)
        moves = [len(qubits) == 1 for qubits, _ in operations]
        varies = [
            moved and any(self.number[a] >= 0 for a in program.chains[what].angles)
            for moved, (_, what) in zip(moves, operations, strict=True)
        ]
        end = _after_last(moves)
        split = _after_last(varies) if backwards else end
        vectors = _embedded(self.readout, count)
        lasts = [(qubit, program.chains[chain]) for qubit, chain in enumerate(program.last)]
        for qubit, chain in lasts:
            if not chain.angles and program.last[qubit] >= count:
                vectors = _times(vectors, chain.constants[0], (qubit,))
        for qubits, matrix in reversed(operations[end:]):
            vectors = _times(vectors, matrix, qubits)
        early, late = operations[:split], operations[split:end][::-1]
        chains = [program.chains[qubit] for qubit in range(count)]
        packed = []
        tables: list[tuple[tuple[int, ...], Real]] = []
        for part, turned in ((early, False), (late, True)):
            rows = np.zeros((len(part), 5), dtype=np.int64)
            for row, (qubits, what) in zip(rows, part, strict=True):
                if len(qubits) == 1:
                    row[:] = CHAIN, qubits[0], 0, len(chains), turned
                    chains.append(program.chains[what])
                else:
                    row[:] = PAIR, *qubits, len(tables), turned
                    tables.append((qubits, what.T if turned else what))
            packed.append(rows)
        kind = np.dtype(np.float32 if itemsize == 4 else np.float64)
        lanes = _ROW_BYTES // itemsize
        steps = [sum(len(qubits) == 1 for qubits, _ in part) for part in (early, late)]
        table, starts, constants = _chain_tables(chains, count)
        angles = [self.number[angle] for chain in chains for angle in chain.angles]
        tiles = -(-len(vectors) // lanes)
        padded = np.zeros((tiles * lanes, 4**count))
        padded[: len(vectors)] = vectors
        readout = padded.reshape(tiles, lanes, -1).transpose(0, 2, 1).reshape(tiles, -1)
        used = np.arange(4**count) if late else np.flatnonzero(vectors.any(axis=0))
        early_chains = count + steps[0]
        fields = (
            count, packed[0], packed[1], table, early_chains, starts.astype(kind),
            constants.astype(kind), np.array(angles, dtype=np.int64),
            sum(len(chain.angles) for chain in chains[:early_chains]),
            _pair_tables(tables, kind, lanes), np.ascontiguousarray(readout, dtype=kind),
            used * lanes, len(vectors),
        )  # fmt: skip
        return NoisyPlan(count, len(chains), len(angles), steps[0], steps[1], tiles, fields)


def _after_last(flags: list[bool]) -> int:
    return max((number + 1 for number, flag in enumerate(flags) if flag), default=0)


def _operations(program: DensityProgram) -> list[Operation]:
    """Return what acts after the first chains, in order; constants are part of the pairs."""
    found: list[Operation] = []
    for block in program.blocks:
        matrix = block.matrix
        for place, (qubit, number) in enumerate(zip(block.qubits, block.chains, strict=True)):
            chain = program.chains[number]
            if number < program.num_qubits:
                continue  # it is in the first state
            if chain.angles:
                found.append(((qubit,), number))
            elif (chain.constants[0] != np.eye(4)).any():
                parts = (np.eye(4), chain.constants[0])
                matrix = matrix @ np.kron(*(parts if place == 0 else parts[::-1]))
        found.append((block.qubits, matrix))
    found += [
        ((qubit,), number)
        for qubit, number in enumerate(program.last)
        if number >= program.num_qubits and program.chains[number].angles
    ]
    return found


def _embedded(readout: Real, num_qubits: int) -> Real:
    """Return values per string of I and Z as values per Pauli string ``(..., 4**num_qubits)``."""
    masks = np.arange(2**num_qubits)
    places = sum(3 * (masks >> qubit & 1) << 2 * qubit for qubit in range(num_qubits))
    vectors = np.zeros((len(readout), 4**num_qubits))
    vectors[:, places] = readout
    return vectors


def _times(vectors: Real, matrix: Real, qubits: tuple[int, ...]) -> Real:
    """Return vectors times a matrix on some qubits, the first being the lowest digit."""
    shape = vectors.shape
    count = (shape[1].bit_length() - 1) // 2
    axes = [count - qubit for qubit in reversed(qubits)]
    ends = list(range(-len(qubits), 0))
    moved = np.moveaxis(vectors.reshape(-1, *[4] * count), axes, ends)
    found = moved.reshape(-1, len(matrix)) @ matrix
    return np.moveaxis(found.reshape(moved.shape), ends, axes).reshape(shape)


def _chain_tables(chains: list[Chain], num_qubits: int) -> tuple[Array, Array, Array]:
    """Return first rotation, rotations, first constant and width per chain; starts; constants.

    The first chains act on (1, 0, 0, 1), so that their width is 1 instead of 4.
    """
    table = np.zeros((len(chains), 4), dtype=np.int64)
    starts = np.zeros((len(chains), 16))
    constants: list[Real] = []
    for number, chain in enumerate(chains):
        width = 1 if number < num_qubits else 4
        table[number] = len(constants), len(chain.angles), len(constants), width
        start = chain.constants[0]
        start = start[:, [0]] + start[:, [3]] if width == 1 else start
        starts[number, : 4 * width] = start.reshape(-1)
        constants += chain.constants[1:]
    return table, starts.reshape(-1), np.array(constants).reshape(-1)


def _pair_tables(
    tables: list[tuple[tuple[int, ...], Real]], kind: np.dtype[Any], lanes: int
) -> tuple[Array, Array, Array, Array]:
    """Return the 16 components' offsets per matrix, and nonzero entries row by row.

    A matrix's rows are followed by its transpose's.
    """
    spots = np.zeros((len(tables), 16), dtype=np.int64)
    starts, offsets, weights = [0], [], []
    digits = np.arange(16)
    for spot, (qubits, matrix) in zip(spots, tables, strict=True):
        spot[:] = lanes * ((digits % 4 << 2 * qubits[0]) + (digits // 4 << 2 * qubits[1]))
        for row in (*matrix, *matrix.T):
            entries = np.flatnonzero(np.abs(row) > _TINY)
            offsets += spot[entries].tolist()
            weights += row[entries].tolist()
            starts.append(len(offsets))
    return (
        spots,
        np.array(starts, dtype=np.int64),
        np.array(offsets, dtype=np.int64),
        np.array(weights, dtype=kind),
    )


@dataclass(eq=False)
class NoisyCall:
    """One call of the kernel. Arrays have a leading members dimension of S, or of 1 if shared.

    Attributes:
        sweep: What runs.
        plan: Its plan.
        turns: Cosines and sines of the shared angles ``(members, angles)``, then of the per-sample
            angles ``(members, batch, angles)``.
        members: Number of members.
        batch: Number of samples.
        finite: Whether all inputs and values were finite, once it ran.
    """

    sweep: NoisySweep
    plan: NoisyPlan
    turns: tuple[Array, Array, Array, Array]
    members: int
    batch: int
    finite: bool = True

    @classmethod
    def of(cls, sweep: NoisySweep, inputs: Tensor, weights: Tensor) -> NoisyCall:
        """Return the call for tensors that both have a members dimension, or neither."""
        features, weight = inputs.detach().numpy(), weights.detach().numpy()
        if weight.ndim == 1:
            features, weight = features[None], weight[None]
        shared_map, sample_map = sweep.maps(weights.dtype)
        with np.errstate(invalid="ignore"):  # numbers that are not finite are reported later
            shared = shared_map.forward(features, weight, sampled=False)
            each = sample_map.forward(features, weight, sampled=True)
            turns = (
                np.cos(shared, order="C"), np.sin(shared, order="C"),
                np.cos(each, order="C"), np.sin(each, order="C"),
            )  # fmt: skip
        batch, members = features.shape[1], max(len(features), len(weight))
        plan = sweep.plan(batch if each.shape[2] else 1, weight.itemsize)
        finite = bool(np.isfinite(features).all())
        return cls(sweep, plan, turns, members, batch, finite)

    @property
    def _rows(self) -> int:
        """Samples that the kernel runs: one where no angle differs between them."""
        return self.batch if self.turns[2].shape[2] else 1

    def values(self, *, keep: bool) -> Array:
        """Return output values ``(members, batch, outputs)``, and keep what `gradients` needs."""
        values = _empty(self.members, self._rows, self.plan.fields[-1], like=self.turns[0])
        memory = _Scratch.of(self, keep=keep)
        noisy_kernel.forward(
            self.plan.fields, memory.arrays, *self.turns, memory.effects, keep, values
        )
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
        noisy_kernel.backward(
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
        lanes = _ROW_BYTES // like.itemsize
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
        arrays = (
            _empty(max(1, 2 * plan.rotations * lanes), like=like),
            _empty(max(1, 16 * plan.rotations * lanes), like=like),
            _empty(16 * plan.chains * lanes, like=like),
            _empty(16 * plan.chains * lanes, like=like),
            _empty(33 * lanes, like=like),
            _empty((4**plan.num_qubits - 1) // 3 * lanes, like=like),
            _empty(early, size, like=like),
            _empty(1 + plan.tiles if keep else 1, size, like=like),
            _empty(2 * lanes * lanes, like=like),
        )
        effects = _empty(members, plan.tiles, late, size, like=like)
        found = cls(plan, call.members, keep, arrays, effects, whole)
        if sum(array.nbytes for array in (*arrays, effects)) < 2 * _MAX_KEPT_BYTES:
            _scratch.memory = found
        return found

    def serves(self, plan: NoisyPlan, members: int, *, keep: bool) -> bool:
        """Return whether this memory will do."""
        return self.plan is plan and self.members == members and self.keep >= keep


def _empty(*shape: int, like: Array) -> Array:
    """Return an array that begins at a cache line, which NumPy does not promise."""
    kind = torch.float32 if like.itemsize == 4 else torch.float64
    found: Array = torch.empty(shape, dtype=kind).numpy()
    return found
