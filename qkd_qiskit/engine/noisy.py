"""Run a program with noise: exact, differentiable evolution of a density matrix in torch.

The state is the real Pauli vector ``(batch, 4**num_qubits)`` of channels.py. The matrices of all
chains are made at once, one 16x16 matrix per two-qubit gate from them, and these are applied to the
state one after the other. Ordinary differentiable torch code: any float precision and device,
under ``torch.func.vmap``, twice differentiable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.engine.angles import Angle, AngleMap, extend
from qkd_qiskit.engine.density import DensityProgram
from qkd_qiskit.engine.memory import require_memory
from qkd_qiskit.engine.statevector import RequireFinite

_X, _Y, _Z = 1, 2, 3


def noisy_probabilities(
    program: DensityProgram, inputs: Tensor | None, weights: Tensor | None
) -> Tensor:
    """Return outcome probabilities ``(batch, 2**bits)``, little-endian in the measured bits.

    Args:
        program: The compiled circuit with noise.
        inputs: ``(batch, num_inputs)``; None where there are none (the batch is then 1).
        weights: ``(num_weights,)``; None where there are none. Its dtype is the computation's.

    Raises:
        InputError: If an input is not a finite number.
    """
    like = weights if weights is not None else inputs
    if like is None:
        like = torch.zeros(0)
    inputs = like.new_zeros(1, 0) if inputs is None else inputs.to(like.dtype)
    weights = like.new_zeros(0) if weights is None else weights
    return noisy_values(program, inputs, weights)


def noisy_values(
    program: DensityProgram, inputs: Tensor, weights: Tensor, *, outputs: Tensor | None = None
) -> Tensor:
    """Return output values ``(batch, size)``: outcome probabilities times a matrix.

    Args:
        program: The compiled circuit with noise.
        inputs: ``(batch, num_inputs)``.
        weights: ``(num_weights,)``.
        outputs: Weight of each outcome in each output ``(outcomes, size)``; default: identity.

    Raises:
        InputError: If an input is not a finite number.
    """
    require_memory(
        program.num_qubits,
        copies=inputs.shape[0] * (2 * len(program.blocks) + 2),
        bytes_each=weights.element_size(),
        what=f"a batch of {inputs.shape[0]} noisy states",
        base=4,
    )
    if program.num_inputs:
        inputs = RequireFinite.apply(inputs)
    key = (weights.dtype, weights.device)
    tables: _Tables = program.cached(key, lambda: _tables(program, weights))
    vector = _evolve(program, tables, *extend(program.features, inputs, weights))
    readout = tables.readout if outputs is None else outputs.T.to(vector) @ tables.readout
    return (vector @ readout.T).expand(inputs.shape[0], -1)


@dataclass(frozen=True)
class _Group:
    """The chains of one kind (shared by the batch, or one per sample), as stacked tensors."""

    place: dict[int, int]
    constants: Tensor  # (chains, length + 1, 4, 4)
    angles: Tensor  # (chains, length), the last angle being zero


@dataclass(frozen=True)
class _Tables:
    shared: _Group
    sampled: _Group
    angles: AngleMap
    shared_blocks: list[int]
    sampled_blocks: list[int]
    shared_matrices: Tensor
    sampled_matrices: Tensor
    readout: Tensor


def _evolve(program: DensityProgram, tables: _Tables, inputs: Tensor, weights: Tensor) -> Tensor:
    """Return the components on strings of I and Z ``(batch, 2**num_qubits)``."""
    angles = tables.angles(inputs, weights)
    angles = torch.nn.functional.pad(angles, (0, 1))
    per_sample = angles if angles.dim() == 2 else angles[None]
    sampled = _chain_matrices(tables.sampled, per_sample)  # (chains, 4, 4, batch)
    shared = _chain_matrices(tables.shared, per_sample[:1])[..., 0]
    blocks: dict[int, Tensor] = {}
    if tables.shared_blocks:
        low, high = (
            shared[[tables.shared.place[program.blocks[b].chains[k]] for b in tables.shared_blocks]]
            for k in (0, 1)
        )
        pairs = torch.einsum("cij,ckl->cikjl", high, low).reshape(-1, 16, 16)
        made = tables.shared_matrices @ pairs
        blocks |= dict(zip(tables.shared_blocks, made.unbind(0), strict=True))
    if tables.sampled_blocks:
        everything = _joined(tables, shared, sampled)
        low, high = (
            everything[[program.blocks[b].chains[k] for b in tables.sampled_blocks]] for k in (0, 1)
        )
        pairs = torch.einsum("cbij,cbkl->cbikjl", high, low).flatten(2, 3).flatten(3, 4)
        made = tables.sampled_matrices[:, None] @ pairs
        blocks |= dict(zip(tables.sampled_blocks, made.unbind(0), strict=True))

    batch = per_sample.shape[0]
    state = _ground(program.num_qubits, like=per_sample).expand(batch, -1)
    state = state.reshape(batch, *[4] * program.num_qubits)
    order = list(reversed(range(program.num_qubits)))  # qubit per axis
    for number, block in enumerate(program.blocks):
        low_qubit, high_qubit = block.qubits
        axes = (1 + order.index(high_qubit), 1 + order.index(low_qubit))
        state = state.movedim(axes, (-2, -1))
        order = [q for q in order if q not in block.qubits] + [high_qubit, low_qubit]
        flat = state.reshape(batch, -1, 16) @ blocks[number].mT
        state = flat.reshape(batch, *[4] * program.num_qubits)
    for qubit, chain in enumerate(program.last):  # of the end only I and Z are read
        state = state.movedim(1 + order.index(qubit), -1)
        order = [q for q in order if q != qubit] + [qubit]
        if chain in tables.shared.place:
            matrix = shared[tables.shared.place[chain]]
        else:
            matrix = sampled[tables.sampled.place[chain]].movedim(-1, 0)
            matrix = matrix.reshape(batch, *[1] * (program.num_qubits - 2), 4, 4)
        state = _apply_last(state, matrix)
    return state.movedim(
        [1 + order.index(qubit) for qubit in reversed(range(program.num_qubits))],
        list(range(1, program.num_qubits + 1)),
    ).reshape(batch, -1)


def _apply_last(state: Tensor, matrix: Tensor) -> Tensor:
    rows = matrix[..., 0:4:3, :]
    if rows.dim() == 2:
        return state @ rows.T
    return (state.unsqueeze(-2) @ rows.mT).squeeze(-2) if state.dim() == 2 else state @ rows.mT


def _joined(tables: _Tables, shared: Tensor, sampled: Tensor) -> Tensor:
    """Return all chains' matrices ``(chains, batch, 4, 4)`` in the program's order."""
    batch = sampled.shape[-1]
    both = torch.cat((shared[:, None].expand(-1, batch, -1, -1), sampled.movedim(-1, 1)), dim=0)
    count = len(tables.shared.place)
    place = tables.shared.place | {k: count + v for k, v in tables.sampled.place.items()}
    return both[[place[chain] for chain in range(len(place))]]


def _chain_matrices(group: _Group, angles: Tensor) -> Tensor:
    """Return transfer matrices of chains ``(chains, 4, 4, batch)``."""
    batch = angles.shape[0]
    count = group.constants.shape[0]
    matrices = group.constants[:, 0, :, :, None].expand(-1, -1, -1, batch)
    if not count:
        return matrices
    chosen = angles.T[group.angles]  # (chains, length, batch)
    cosine, sine = torch.cos(chosen), torch.sin(chosen)
    for step in range(group.angles.shape[1]):
        c, s = cosine[:, step, None], sine[:, step, None]
        x, y = matrices[:, _X], matrices[:, _Y]
        turned = (matrices[:, 0], c * x - s * y, s * x + c * y, matrices[:, _Z])
        stacked = torch.stack(turned, dim=1)
        after = group.constants[:, step + 1] @ stacked.reshape(count, 4, 4 * batch)
        matrices = after.reshape(count, 4, 4, batch)
    return matrices


def _ground(num_qubits: int, *, like: Tensor) -> Tensor:
    vector = like.new_ones(1)
    for _ in range(num_qubits):
        vector = torch.kron(like.new_tensor([1.0, 0.0, 0.0, 1.0]), vector)
    return vector


def _tables(program: DensityProgram, like: Tensor) -> _Tables:
    def per_sample(angle: Angle) -> bool:
        return any(
            kind == "input" or (kind == "feature" and program.features[index].per_sample)
            for (kind, index), _ in angle.terms
        )

    varies = [any(per_sample(program.angles[a]) for a in chain.angles) for chain in program.chains]

    def group(wanted: bool) -> _Group:
        chosen = [number for number, flag in enumerate(varies) if flag == wanted]
        chains = [program.chains[number] for number in chosen]
        length = max((len(chain.angles) for chain in chains), default=0)
        constants = np.tile(np.eye(4), (len(chains), length + 1, 1, 1))
        angles = np.full((len(chains), length), len(program.angles), dtype=np.int64)
        for row, chain in enumerate(chains):
            constants[row, : len(chain.constants)] = chain.constants
            angles[row, : len(chain.angles)] = chain.angles
        place = {number: row for row, number in enumerate(chosen)}
        return _Group(place, _tensor(constants, like), torch.from_numpy(angles).to(like.device))

    kinds = [any(varies[chain] for chain in block.chains) for block in program.blocks]
    numbers = [[b for b, flag in enumerate(kinds) if flag == wanted] for wanted in (False, True)]
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
        group(False), group(True), angles.to(like), numbers[0], numbers[1], matrices[0],
        matrices[1], readout,
    )  # fmt: skip


def _tensor(array: NDArray[Any], like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like)
