"""What a measurement of the final state returns: outcome sums or expectation values.

Both are quadratic forms of the state. A group collects the Pauli strings that flip the same
qubits: ``value[k] = sum_j Re(conj(state[j ^ flip]) state[j] table[j, k])``. Outcome probabilities
and Z-diagonal observables have the single group ``flip = 0``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from qiskit.quantum_info import SparsePauliOp

from qkd_qiskit.errors import CircuitError, UnsupportedInstructionError
from qkd_qiskit.simulator.gates import Index
from qkd_qiskit.simulator.memory import require_memory
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.tables import Tables


@dataclass(frozen=True)
class FlipGroup:
    """Observables' parts that flip the same qubits.

    Attributes:
        flip: Mask of the flipped qubits.
        table: Factors ``(2**num_qubits, outputs)``, complex.
    """

    flip: int
    table: NDArray[np.complex128]


@dataclass(frozen=True)
class Readout:
    """What comes out of the final state.

    Attributes:
        size: Number of output values per sample.
        index: Outcome sums: output per basis state ``(2**num_qubits,)``; else None.
        groups: Expectation values: the groups of the observables; else empty.
        tables: Constant tensors made from it so far.
    """

    size: int
    index: Index | None
    groups: tuple[FlipGroup, ...] = ()
    tables: Tables = field(default_factory=Tables, init=False, repr=False, compare=False)

    @property
    def diagonal(self) -> bool:
        """Whether only the probabilities of basis states enter."""
        return self.index is not None or all(group.flip == 0 for group in self.groups)

    def moved(self, end: Index) -> Readout:
        """Return the readout of a state whose basis state ``j`` stands for ``end[j]``."""
        if self.index is not None:
            return Readout(self.size, self.index[end])
        if not self.diagonal:
            raise AssertionError("only a diagonal readout can be moved")
        return Readout(
            self.size, None, tuple(FlipGroup(0, group.table[end]) for group in self.groups)
        )


def outcome_sums(
    program: Program,
    *,
    interpret: Callable[[int], int | tuple[int, ...]] | None = None,
    output_shape: tuple[int, ...] | None = None,
) -> Readout:
    """Return the readout that sums probabilities by ``interpret(outcome)``.

    Args:
        program: Its measured bits give the outcome, little-endian.
        interpret: Output position of an outcome; default: the outcome itself.
        output_shape: Shape of the output; default: one value per outcome.

    Raises:
        CircuitError: If an outcome's position lies outside the output.
    """
    shape = output_shape or (program.num_outcomes,)
    positions = _positions(program.num_outcomes, interpret, shape)
    return Readout(math.prod(shape), positions[program.outcome_index])


def outcome_matrix(
    num_outcomes: int,
    interpret: Callable[[int], int | tuple[int, ...]] | None,
    output_shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """Return the matrix ``(outcomes, outputs)`` that sums outcomes as `outcome_sums` does.

    Raises:
        CircuitError: If an outcome's position lies outside the output.
    """
    positions = _positions(num_outcomes, interpret, output_shape)
    return np.eye(math.prod(output_shape))[positions]


def diagonal_matrix(num_outcomes: int, observables: Sequence[SparsePauliOp]) -> NDArray[np.float64]:
    """Return the matrix ``(outcomes, observables)`` of observables made of Z on measured bits.

    Raises:
        UnsupportedInstructionError: If an observable holds X or Y, which needs another circuit.
    """
    outcomes = np.arange(num_outcomes)
    matrix = np.zeros((num_outcomes, len(observables)))
    for column, observable in enumerate(observables):
        for label, bits, coefficient in SparsePauliOp(observable).to_sparse_list():
            if set(label) - {"Z"}:
                raise UnsupportedInstructionError(
                    f"observable {label!r} is not diagonal; under noise only I and Z are read out"
                )
            ones = sum(outcomes >> bit & 1 for bit in bits)
            matrix[:, column] += np.real(coefficient) * (1 - 2 * (ones & 1))
    return matrix


def _positions(
    num_outcomes: int,
    interpret: Callable[[int], int | tuple[int, ...]] | None,
    shape: tuple[int, ...],
) -> Index:
    """Return the flat output position of every outcome."""
    outcomes = np.arange(num_outcomes)
    if interpret is None:
        if num_outcomes > math.prod(shape):
            raise CircuitError(
                f"the circuit measures {num_outcomes} outcomes and output_shape is {shape}; "
                "give interpret, or measure fewer bits"
            )
        return outcomes
    try:
        found = [interpret(int(outcome)) for outcome in outcomes]
        if np.asarray(found).dtype.kind not in "bui":
            raise TypeError("they are not whole numbers")
        columns = np.asarray(found, dtype=np.int64).reshape(num_outcomes, -1).T
        return np.asarray(np.ravel_multi_index(tuple(columns), shape), dtype=np.int64)
    except (TypeError, ValueError) as error:
        raise CircuitError(
            f"interpret gives positions that do not fit output_shape {shape}: {error}"
        ) from error


def expectations(program: Program, observables: Sequence[SparsePauliOp]) -> Readout:
    """Return the readout of observables on the circuit's qubits, one value per observable.

    Raises:
        CircuitError: If an observable has another number of qubits than the circuit, or memory is
            short.
    """
    position = {qubit: index for index, qubit in enumerate(program.qubits)}
    require_memory(
        program.num_qubits,
        copies=40 * len(observables),  # complex factors, the same reordered, and what is real
        bytes_each=1,
        what=f"the read-out of {len(observables)} observables",
    )
    states = np.arange(2**program.num_qubits, dtype=np.int64)
    tables: dict[int, NDArray[np.complex128]] = {}
    for column, given in enumerate(observables):
        observable = SparsePauliOp(given)
        for label, qubits, coefficient in observable.to_sparse_list():
            flip, signs, factor = 0, np.zeros_like(states), complex(coefficient)
            for pauli, qubit in zip(label, qubits, strict=True):
                if qubit not in position:  # an idle qubit is in state 0
                    factor *= 1 if pauli == "Z" else 0
                    continue
                bit = position[qubit]
                if pauli in "XY":
                    flip |= 1 << bit
                if pauli in "YZ":
                    signs ^= (states >> bit) & 1
                if pauli == "Y":
                    factor *= 1j
            if flip not in tables:
                tables[flip] = np.zeros((len(states), len(observables)), dtype=np.complex128)
            tables[flip][:, column] += factor * (1 - 2 * signs)
    groups = tuple(FlipGroup(flip, table) for flip, table in sorted(tables.items()))
    return Readout(len(observables), None, groups)
