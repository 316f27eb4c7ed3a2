"""Run a program in torch by whole layers: few launches, no atomic sums, nothing to wait for.

What statevector.py does qubit by qubit, as a GPU wants it. Rotations of up to four neighbouring
qubits are one real matrix, and those of all layers are made at once; so are the phases of all
layers that are the same for all samples. A step launches a few kernels for each layer.

All sums over states are matrix products or sums along a dimension, and a gather's gradient has one
summand for each number: the same device gives the same bits again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from qkd_qiskit.simulator.program import Permutation, Phases, Program, Rotations
from qkd_qiskit.simulator.readout import Readout
from qkd_qiskit.simulator.tables import parity

_TURNED = 4  # qubits that one matrix turns at most
_MOST_PADDING = 16  # numbers read for each state, where outputs sum unequal numbers of states


def evolve_layers(program: Program, state: Tensor, shared: Tensor, per_sample: Tensor) -> Tensor:
    """Return the state at the end ``(batch or 1, 2**num_qubits)``.

    Args:
        program: The compiled circuit.
        state: At its start.
        shared: Angles in radians ``(angles,)``.
        per_sample: Angles in radians ``(batch, angles)``.
    """
    constants: _Constants = program.tables.get(
        ("layers", shared.dtype, shared.device), lambda: _constants(program, shared)
    )
    half, half_sample = pad(shared / 2, (0, 1)), per_sample / 2  # the last angle is 0
    turns = _turns(constants, half, half_sample)
    factors = _shared_factors(constants, half)
    for number, operation in enumerate(program.operations):
        if isinstance(operation, Rotations):
            for group in constants.groups[number]:
                state = _turn(state, turns[group.size][group.row], lowest=group.lowest)
        elif isinstance(operation, Phases):
            if number in constants.phase_rows:
                state = state * factors[constants.phase_rows[number]]
            if number in constants.sampled:
                columns, signs = constants.sampled[number]
                state = state * _phase_factors(half_sample.index_select(1, columns) @ signs)
            if number in constants.fixed:
                state = state * constants.fixed[number]
        else:
            state = state.index_select(1, constants.sources[number])
    return state


def sum_outcomes(readout: Readout, squares: Tensor) -> Tensor:
    """Return sums ``(batch, size)`` of the probabilities of basis states ``(batch, states)``."""
    assert readout.index is not None
    index = readout.index
    table, mask = readout.tables.get(
        ("bins", squares.dtype, squares.device), lambda: _bins(index, readout.size, squares)
    )
    if table is None:  # in no certain order on a GPU, but in memory that there is
        return squares.new_zeros(squares.shape[0], readout.size).index_add(1, mask, squares)
    chosen = squares.index_select(1, table).reshape(-1, *mask.shape)
    return (chosen * mask).sum(dim=-1)


@dataclass(frozen=True)
class _Group:
    """Neighbouring qubits that one matrix turns.

    Attributes:
        lowest: The lowest of them.
        size: How many they are.
        row: Number of their matrix among those of this size: first the shared ones.
    """

    lowest: int
    size: int
    row: int


@dataclass(frozen=True)
class _Constants:
    """A program's constant tensors for one dtype and device; keys are numbers of operations.

    Attributes:
        groups: What rotations turn.
        columns: Per size of a group the angles of the shared ones ``(groups, size)``, and of those
            that differ between samples; `_Angles.all` counts the shared angles, 0, the others.
        terms: Shared angles of phases ``(layers, most terms)``; missing ones are the angle 0.
        signs: Their parities ``(layers, most terms, states)``.
        phase_rows: Row of each of these layers.
        sampled: Of phases that differ between samples, columns and parities ``(terms, states)``.
        fixed: Fixed phase factors ``(states,)``.
        sources: Of permutations.
    """

    groups: dict[int, list[_Group]]
    columns: dict[int, tuple[Tensor, Tensor]]
    terms: Tensor
    signs: Tensor
    phase_rows: dict[int, int]
    sampled: dict[int, tuple[Tensor, Tensor]]
    fixed: dict[int, Tensor]
    sources: dict[int, Tensor]


def _turns(constants: _Constants, half: Tensor, half_sample: Tensor) -> dict[int, list[Tensor]]:
    """Return the matrices of all groups by their size, of half angles, in the groups' rows."""
    found: dict[int, list[Tensor]] = {}
    plain = _rotations(half)
    mixed = None
    for size, (shared, sampled) in constants.columns.items():
        chosen = plain.index_select(0, shared.flatten()).reshape(-1, size, 2, 2)
        found[size] = list(_product(chosen).unbind(0))
        if sampled.numel():
            if mixed is None:
                everything = half.expand(half_sample.shape[0], -1)
                mixed = _rotations(torch.cat((everything, half_sample), dim=1))
            each = mixed.index_select(1, sampled.flatten())
            each = each.reshape(-1, sampled.shape[0], size, 2, 2).movedim(1, 0)
            found[size] += list(_product(each).unbind(0))
    return found


def _rotations(half: Tensor) -> Tensor:
    """Return RY matrices ``(..., 2, 2)`` of half angles ``(...)``."""
    cosine, sine = torch.cos(half), torch.sin(half)
    return torch.stack((cosine, -sine, sine, cosine), dim=-1).reshape(*half.shape, 2, 2)


def _product(matrices: Tensor) -> Tensor:
    """Return Kronecker products ``(..., 2**size, 2**size)`` of matrices ``(..., size, 2, 2)``.

    The first matrix is the lowest qubit's.
    """
    found = matrices[..., 0, :, :]
    for number in range(1, matrices.shape[-3]):
        higher = matrices[..., number, :, None, :, None]
        found = (higher * found[..., None, :, None, :]).flatten(-4, -3).flatten(-2)
    return found


def _turn(state: Tensor, matrix: Tensor, *, lowest: int) -> Tensor:
    """Apply a real matrix, of all samples or one for each, to neighbouring qubits."""
    side, batch = matrix.shape[-1], state.shape[0]
    if lowest == 0:
        rows = state.reshape(batch, -1, side)
        return (rows @ matrix.mT.to(state.dtype)).flatten(1)
    if matrix.dim() == 3:
        matrix = matrix[:, None]
    if not state.is_complex():
        return (matrix @ state.reshape(batch, -1, side, 1 << lowest)).flatten(1)
    parts = torch.view_as_real(state.resolve_conj()).reshape(batch, -1, side, 2 << lowest)
    turned = (matrix @ parts).flatten(1)
    return torch.view_as_complex(turned.reshape(turned.shape[0], -1, 2))


def _shared_factors(constants: _Constants, half: Tensor) -> tuple[Tensor, ...]:
    """Return the phase factors ``(states,)`` of all layers that have shared angles."""
    if not constants.terms.numel():
        return ()
    chosen = half.index_select(0, constants.terms.flatten()).reshape(constants.terms.shape)
    return _phase_factors((chosen[:, None] @ constants.signs)[:, 0]).unbind(0)


def _phase_factors(angles: Tensor) -> Tensor:
    return torch.complex(torch.cos(angles), -torch.sin(angles))


def _constants(program: Program, like: Tensor) -> _Constants:
    device, real, number_of = like.device, like.dtype, program.num_qubits
    precision = torch.complex128 if real == torch.float64 else torch.complex64
    groups, columns = _rotated(program, device)
    terms: dict[int, list[tuple[int, int]]] = {}
    sampled: dict[int, tuple[Tensor, Tensor]] = {}
    fixed: dict[int, Tensor] = {}
    sources: dict[int, Tensor] = {}
    for number, operation in enumerate(program.operations):
        if isinstance(operation, Permutation):
            sources[number] = torch.as_tensor(operation.source, device=device)
        elif isinstance(operation, Phases):
            if operation.fixed is not None:
                fixed[number] = torch.as_tensor(operation.fixed).to(device, precision)
            own = [term for term in operation.terms if term[1] < program.shared]
            others = [term for term in operation.terms if term[1] >= program.shared]
            if own:
                terms[number] = own
            if others:
                places = torch.tensor([angle - program.shared for _, angle in others])
                signs = torch.stack([parity(mask, num_qubits=number_of) for mask, _ in others])
                sampled[number] = (places.to(device), signs.to(device, real))
    most = max((len(own) for own in terms.values()), default=0)
    angles = torch.full((len(terms), most), program.shared)
    signs = torch.zeros(len(terms), most, 2**number_of, dtype=real)
    for row, own in enumerate(terms.values()):
        for place, (mask, angle) in enumerate(own):
            angles[row, place] = angle
            signs[row, place] = parity(mask, num_qubits=number_of)
    return _Constants(
        groups=groups,
        columns=columns,
        terms=angles.to(device),
        signs=signs.to(device),
        phase_rows={number: row for row, number in enumerate(terms)},
        sampled=sampled,
        fixed=fixed,
        sources=sources,
    )


def _rotated(
    program: Program, device: torch.device
) -> tuple[dict[int, list[_Group]], dict[int, tuple[Tensor, Tensor]]]:
    """Return what rotations turn, and the angles of each matrix, as `_Constants` has them."""
    width, none = program.num_qubits, program.shared
    size = -(-width // -(-width // _TURNED))
    kinds: dict[tuple[int, bool], list[list[int]]] = {}
    turned: dict[int, list[tuple[int, int, bool, int]]] = {}
    for number, operation in enumerate(program.operations):
        if not isinstance(operation, Rotations):
            continue
        angle_of = dict(operation.angles)
        for lowest in range(0, width, size):
            qubits = range(lowest, min(width, lowest + size))
            if not any(qubit in angle_of for qubit in qubits):
                continue
            # The angle 0 stands behind the shared ones, in front of the others.
            angles = [angle_of.get(qubit, -1) for qubit in qubits]
            differs = any(angle >= none for angle in angles)
            places = [
                none if angle < 0 else angle + (1 if angle >= none else 0) for angle in angles
            ]
            kind = kinds.setdefault((len(qubits), differs), [])
            turned.setdefault(number, []).append((lowest, len(qubits), differs, len(kind)))
            kind.append(places)
    sizes = {length for length, _ in kinds}
    columns = {
        length: tuple(
            torch.tensor(
                kinds.get((length, differs), []), dtype=torch.int64, device=device
            ).reshape(-1, length)
            for differs in (False, True)
        )
        for length in sizes
    }
    groups = {
        number: [
            _Group(lowest, length, row + (len(columns[length][0]) if differs else 0))
            for lowest, length, differs, row in parts
        ]
        for number, parts in turned.items()
    }
    return groups, {length: (pair[0], pair[1]) for length, pair in columns.items()}


def _bins(index: np.ndarray, size: int, like: Tensor) -> tuple[Tensor | None, Tensor]:
    """Return the states of each output ``(size * most,)`` and which are any ``(size, most)``.

    Where outputs are so unequal that this is too much, None and the output of each state.
    """
    counts = np.bincount(index, minlength=size)
    most = int(counts.max())
    if size * most > _MOST_PADDING * len(index):
        return None, torch.as_tensor(index, device=like.device)
    order = np.argsort(index, kind="stable")
    place = np.arange(len(index)) - (np.cumsum(counts) - counts)[index[order]]
    table = np.zeros((size, most), dtype=np.int64)
    mask = np.zeros((size, most))
    table[index[order], place], mask[index[order], place] = order, 1
    return (
        torch.as_tensor(table.ravel(), device=like.device),
        torch.as_tensor(mask).to(like.device, like.dtype),
    )
