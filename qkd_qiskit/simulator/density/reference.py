"""Evolution of a density matrix in torch: the reference of the kernel, and the way without it.

On a GPU and for second derivatives the state is the real Pauli vector ``(batch, 4**num_qubits)`` of
channels.py. The matrices of all chains are made at once, one 16x16 matrix per two-qubit gate from
them, and these are applied to the state one after the other. Ordinary differentiable torch code:
any float precision and device, under ``torch.func.vmap``, twice differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.simulator.angles import AngleMap
from qkd_qiskit.simulator.channels import Real
from qkd_qiskit.simulator.density.program import DensityProgram

_X, _Y, _Z = 1, 2, 3
_SEGMENT = 3  # rotations whose products are expanded


def torch_values(
    program: DensityProgram, inputs: Tensor, weights: Tensor, *, outputs: Tensor | None
) -> Tensor:
    """Return output values of inputs and weights with their features, in torch."""
    key = (weights.dtype, weights.device)
    tables: _Tables = program.tables.get(key, lambda: _tables(program, weights))
    readout = tables.readout if outputs is None else outputs.T.to(tables.readout) @ tables.readout
    return _values(program, tables, inputs, weights, readout=readout).expand(inputs.shape[0], -1)


@dataclass(frozen=True)
class _Group:
    """The chains of one kind (shared by the batch, or one per sample), as stacked tensors.

    A chain is cut into segments of at most three rotations. A rotation's matrix is linear in
    (1, cos, sin), so a segment's is linear in the products of these: one matrix product makes all
    segments of all chains.

    Attributes:
        place: Row per chain.
        expansion: ``(chains, segments, 16, 3**length)``.
        angles: ``(chains, segments, length)``, the last angle being zero.
    """

    place: dict[int, int]
    expansion: Tensor
    angles: Tensor


@dataclass(frozen=True)
class _Tables:
    """A program's constants as tensors.

    Rows of a block list count the shared chains, the identity, then the per-sample chains; every
    qubit's first chain is the identity there, since the first state contains it.
    """

    shared: _Group
    sampled: _Group
    angles: AngleMap
    shared_blocks: list[int]
    sampled_blocks: list[int]
    shared_rows: tuple[Tensor, Tensor]
    sampled_rows: tuple[Tensor, Tensor]
    shared_matrices: Tensor
    sampled_matrices: Tensor
    last_rows: Tensor  # of every qubit's last chain
    first_shared_block: int | None  # from here on nothing differs between samples
    readout: Tensor


def _values(
    program: DensityProgram,
    tables: _Tables,
    inputs: Tensor,
    weights: Tensor,
    *,
    readout: Tensor,
) -> Tensor:
    """Return ``readout (outputs, 2**num_qubits)`` times the components on strings of I and Z.

    States go forward through the operations that differ between samples. What is the same for all
    of them acts on the outputs instead, backwards, where these are fewer than the samples.
    """
    angles = torch.nn.functional.pad(tables.angles(inputs, weights), (0, 1))
    per_sample = angles if angles.dim() == 2 else angles[None]
    sampled = _chain_matrices(tables.sampled, per_sample)  # (chains, 4, 4, batch)
    shared = _chain_matrices(tables.shared, per_sample[:1])[..., 0]
    blocks = _block_matrices(tables, shared, sampled)
    count = program.num_qubits
    state, order = _first_state(tables, shared, sampled, count), list(reversed(range(count)))
    first = tables.first_shared_block
    backwards = first is not None and readout.shape[0] < state.shape[0]
    for number, block in enumerate(program.blocks[:first] if backwards else program.blocks):
        state, order = _apply(state, order, block.qubits, blocks(number).mT)
    if not backwards:
        for qubit in range(count):  # of the end only I and Z are read
            state, order = _to_end(state, order, (qubit,))
            rows = _last_matrix(program, tables, shared, sampled, qubit)[..., 0:4:3, :]
            flat = state.reshape(state.shape[0], -1, 4) @ rows.mT  # (batch or 1, ..., 2)
            state = flat.reshape(-1, *state.shape[1:-1], 2)
        return _in_order(state, order).flatten(1) @ readout.T
    outputs = readout.reshape(-1, *[2] * count)
    back = list(reversed(range(count)))
    lasts = blocks.common[tables.last_rows][:, 0:4:3]
    high, low = lasts[1::2], lasts[: count - count % 2 : 2]
    pairs = (high[:, :, None, :, None] * low[:, None, :, None, :]).reshape(-1, 4, 16)
    for number, pair in enumerate(pairs.unbind(0)):
        outputs, back = _to_end(outputs, back, (2 * number + 1, 2 * number))
        outputs = (outputs.flatten(-2) @ pair).reshape(*outputs.shape[:-2], 4, 4)
    if count % 2:
        outputs, back = _to_end(outputs, back, (count - 1,))
        outputs = outputs @ lasts[-1]
    late = list(reversed(range(first or 0, len(program.blocks))))
    qubits = [program.blocks[number].qubits for number in late]
    vectors = _in_order(outputs, back).flatten(1)
    if late:
        vectors = _move_back(vectors, torch.stack([blocks(number) for number in late]), qubits)
    return _in_order(state, order).flatten(1) @ vectors.T


def _move_back(vectors: Tensor, matrices: Tensor, qubits: list[tuple[int, int]]) -> Tensor:
    """Return vectors ``(outputs, 4**num_qubits)`` times two-qubit matrices, one by one."""
    count = (vectors.shape[1].bit_length() - 1) // 2
    order = list(reversed(range(count)))
    outputs = vectors.reshape(-1, *[4] * count)
    for number, pair in enumerate(qubits):
        outputs, order = _apply(outputs, order, pair, matrices[number])
    return _in_order(outputs, order).flatten(1)


def _to_end(vectors: Tensor, order: list[int], qubits: tuple[int, ...]) -> tuple[Tensor, list[int]]:
    """Move some qubits' axes to the end; `order` is the qubit of each axis after the first."""
    vectors = vectors.movedim(
        [1 + order.index(qubit) for qubit in qubits], list(range(-len(qubits), 0))
    )
    return vectors, [qubit for qubit in order if qubit not in qubits] + list(qubits)


def _in_order(vectors: Tensor, order: list[int]) -> Tensor:
    """Return vectors with the highest qubit's axis first."""
    return vectors.permute(0, *[1 + order.index(qubit) for qubit in sorted(order, reverse=True)])


def _apply(
    vectors: Tensor, order: list[int], qubits: tuple[int, int], matrix: Tensor
) -> tuple[Tensor, list[int]]:
    """Multiply two qubits' components by a matrix from the right."""
    moved, order = _to_end(vectors, order, (qubits[1], qubits[0]))
    flat = moved.reshape(moved.shape[0], -1, 16) @ matrix
    return flat.reshape(-1, *moved.shape[1:]), order


def _first_state(tables: _Tables, shared: Tensor, sampled: Tensor, num_qubits: int) -> Tensor:
    """Return the product state after every qubit's first chain ``(batch or 1, 4, ..., 4)``."""
    vectors: dict[int, Tensor] = {}
    for group, matrices in ((tables.shared, shared[..., None]), (tables.sampled, sampled)):
        chains = [chain for chain in group.place if chain < num_qubits]  # they come first
        columns = matrices[: len(chains), :, 0] + matrices[: len(chains), :, _Z]
        vectors |= dict(zip(chains, columns.mT.unbind(0), strict=True))
    state = shared.new_ones(1, 1)  # the ground state is (1, 0, 0, 1) on every qubit
    for qubit in range(num_qubits):
        state = (vectors[qubit][:, :, None] * state[:, None]).flatten(1)
    return state.reshape(-1, *[4] * num_qubits)


def _last_matrix(
    program: DensityProgram, tables: _Tables, shared: Tensor, sampled: Tensor, qubit: int
) -> Tensor:
    """Return the last chain of a qubit ``(4, 4)``, or ``(batch, 4, 4)`` where samples differ."""
    chain = program.last[qubit]
    if chain < program.num_qubits:  # it is in the first state
        return torch.eye(4, dtype=shared.dtype, device=shared.device)
    if chain in tables.shared.place:
        return shared[tables.shared.place[chain]]
    return sampled[tables.sampled.place[chain]].movedim(-1, 0)


@dataclass(frozen=True)
class _Blocks:
    """Matrices of the blocks that all samples share, and of those that differ."""

    tables: _Tables
    common: Tensor  # chains that all samples share, and the identity (chains + 1, 4, 4)
    shared: Tensor  # (blocks, 16, 16)
    sampled: Tensor | None  # (blocks, batch, 16, 16)

    def __call__(self, number: int) -> Tensor:
        """Return one block's ``(16, 16)``, or ``(batch, 16, 16)`` where samples differ."""
        if self.sampled is not None and number in self.tables.sampled_blocks:
            return self.sampled[self.tables.sampled_blocks.index(number)]
        return self.shared[self.tables.shared_blocks.index(number)]


def _block_matrices(tables: _Tables, shared: Tensor, sampled: Tensor) -> _Blocks:
    """Return all blocks' matrices: the chains on both qubits, then gate and noise."""
    identity = torch.eye(4, dtype=shared.dtype, device=shared.device)[None]
    common = torch.cat((shared, identity))
    low, high = (common[rows] for rows in tables.shared_rows)
    pairs = (high[:, :, None, :, None] * low[:, None, :, None, :]).reshape(-1, 16, 16)
    differing = None
    if tables.sampled_blocks:
        per_sample = common[:, None].expand(-1, sampled.shape[-1], -1, -1)
        everything = torch.cat((per_sample, sampled.movedim(-1, 1)))
        lower, higher = (everything[rows] for rows in tables.sampled_rows)
        each = higher[..., :, None, :, None] * lower[..., None, :, None, :]
        differing = tables.sampled_matrices[:, None] @ each.flatten(-4, -3).flatten(-2)
    return _Blocks(tables, common, tables.shared_matrices @ pairs, differing)


def _chain_matrices(group: _Group, angles: Tensor) -> Tensor:
    """Return transfer matrices of chains ``(chains, 4, 4, batch)``."""
    count, segments = group.expansion.shape[:2]
    chosen = angles.T[group.angles]  # (chains, segments, length, batch)
    factors = torch.stack((torch.ones_like(chosen), torch.cos(chosen), torch.sin(chosen)), dim=3)
    products = factors.new_ones(count, segments, 1, angles.shape[0])
    for step in range(group.angles.shape[2]):
        products = (factors[:, :, step, :, None] * products[:, :, None]).flatten(2, 3)
    parts = (group.expansion @ products).reshape(count, segments, 4, 4, angles.shape[0])
    matrices: Tensor = parts[:, 0]
    for segment in range(1, segments):
        matrices = torch.einsum("cijb,cjkb->cikb", parts[:, segment], matrices)
    return matrices


def _expansion(constants: Real) -> Real:
    """Return what turns products of (1, cos, sin) into a segment ``(16, 3**length)``."""
    parts = np.zeros((3, 4, 4))  # RZ is the sum of these times 1, cos, sin
    parts[0, 0, 0] = parts[0, _Z, _Z] = parts[1, _X, _X] = parts[1, _Y, _Y] = parts[2, _Y, _X] = 1
    parts[2, _X, _Y] = -1
    found = constants[0][None]
    for constant in constants[1:]:
        found = (constant @ parts[:, None] @ found[None]).reshape(-1, 4, 4)
    return np.asarray(found.reshape(-1, 16).T)


def _tables(program: DensityProgram, like: Tensor) -> _Tables:
    differs = [angle.per_sample(program.features) for angle in program.angles]
    varies = [any(differs[angle] for angle in chain.angles) for chain in program.chains]

    def group(wanted: bool) -> _Group:
        chosen = [number for number, flag in enumerate(varies) if flag == wanted]
        chains = [program.chains[number] for number in chosen]
        longest = max((len(chain.angles) for chain in chains), default=0)
        length = min(longest, _SEGMENT)
        segments = max(1, -(-longest // max(length, 1)))
        expansion = np.zeros((len(chains), segments, 16, 3**length))
        angles = np.full((len(chains), segments * length), len(program.angles), dtype=np.int64)
        for row, chain in enumerate(chains):
            angles[row, : len(chain.angles)] = chain.angles
            constants = np.tile(np.eye(4), (segments * length + 1, 1, 1))
            constants[: len(chain.constants)] = chain.constants
            for segment in range(segments):
                part = constants[segment * length : (segment + 1) * length + 1].copy()
                if segment:
                    part[0] = np.eye(4)  # it ended the segment before
                expansion[row, segment] = _expansion(part)
        numbers = torch.from_numpy(angles.reshape(len(chains), segments, length))
        place = {number: row for row, number in enumerate(chosen)}
        return _Group(place, _tensor(expansion, like), numbers.to(like.device))

    groups = group(False), group(True)
    identity = len(groups[0].place)
    row = groups[0].place | {chain: identity + 1 + k for chain, k in groups[1].place.items()}
    row |= dict.fromkeys(range(program.num_qubits), identity)
    late = [flag and chain >= program.num_qubits for chain, flag in enumerate(varies)]
    kinds = [any(late[chain] for chain in block.chains) for block in program.blocks]
    numbers = [[b for b, flag in enumerate(kinds) if flag == wanted] for wanted in (False, True)]
    rows = [
        tuple(
            torch.tensor(
                [row[program.blocks[b].chains[k]] for b in part],
                dtype=torch.int64,
                device=like.device,
            )
            for k in (0, 1)
        )
        for part in numbers
    ]
    split = None if any(late[chain] for chain in program.last) else 1 + max(numbers[1], default=-1)
    matrices = [
        _tensor(np.array([program.blocks[b].matrix for b in part]).reshape(-1, 16, 16), like)
        for part in numbers
    ]
    angles = AngleMap.of(
        list(program.angles),
        num_inputs=program.num_inputs,
        num_weights=program.num_weights,
        features=list(program.features),
    )
    readout = _tensor(program.readout_matrix(), like)
    return _Tables(
        shared=groups[0],
        sampled=groups[1],
        angles=angles.to(like),
        shared_blocks=numbers[0],
        sampled_blocks=numbers[1],
        shared_rows=(rows[0][0], rows[0][1]),
        sampled_rows=(rows[1][0], rows[1][1]),
        shared_matrices=matrices[0],
        sampled_matrices=matrices[1],
        last_rows=torch.tensor([row[chain] for chain in program.last], device=like.device),
        first_shared_block=split,
        readout=readout,
    )


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype)
