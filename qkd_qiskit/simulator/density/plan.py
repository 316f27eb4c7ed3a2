"""What the noisy kernel needs of a program: its plan, in NumPy; call.py runs it.

Operations without parameters at the end of a circuit act on the readout, once when the plan is
made. Of the others, what is the same for all samples acts on the outputs, backwards, where these
need no more tiles than the samples; all else acts on the states.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qkd_qiskit.simulator.angles import AngleMap
from qkd_qiskit.simulator.channels import Real
from qkd_qiskit.simulator.density.kernel import CHAIN, PAIR
from qkd_qiskit.simulator.density.program import Chain, DensityProgram
from qkd_qiskit.simulator.kernel.angles import Affine, Array
from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES

_TINY = 1e-15  # what is left of exact zeros

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


class NoisyAngleMap:
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
        sampled = [angle.per_sample(program.features) for angle in program.angles]
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
        lanes = ROW_BYTES // itemsize
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
        lanes = ROW_BYTES // itemsize
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
