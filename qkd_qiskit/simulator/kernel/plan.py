"""A program as arrays of numbers, for the compiled kernel to walk through."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.simulator.gates import Index
from qkd_qiskit.simulator.program import Permutation, Phases, Program, Rotations
from qkd_qiskit.simulator.readout import Readout

ROTATE, MIX, LANE_PHASE = 0, 1, 2
"""Kinds of steps: a block of Y rotations; phases shared by the batch, then a permutation; one
parity phase with an angle per sample."""

_ROW_BYTES = 64
_BLOCK = 3  # qubits rotated while a block of rows is in registers

LEAST_NARROW = 12
"""Qubits from which few samples are run alone (narrow.py); below, a tile is quick anyway."""


def is_narrow(num_qubits: int, *, batch: int, itemsize: int) -> bool:
    """Return whether so few samples, of numbers of so many bytes, take less than a tile alone."""
    return num_qubits >= LEAST_NARROW and 0 < 4 * batch * itemsize <= _ROW_BYTES


@dataclass(frozen=True, eq=False)
class Plan:
    """What the kernel does, one row of ``steps`` after the other.

    A *slot* is one use of one angle in a rotation or a per-sample phase; slots with shared angles
    come first. Columns of a step: kind; then

    * ROTATE: number of qubits, three qubits, first slot, whether the state is complex, whether
      the angles are shared, whether the qubits lie within rows (narrow.py; the others are then
      counted from the first that does not);
    * MIX: phase table or -1, permutation or -1, -, -, -, whether the state is complex before;
    * LANE_PHASE: parity mask, -, -, -, slot, whether the state is complex before.

    Attributes:
        num_qubits: Simulated qubits.
        steps: ``(steps, 9)``.
        slots: Angle per slot; per-sample angles are counted from 0 again.
        shared_slots: Number of slots with shared angles.
        product: Slot per qubit of the first rotations, applied to the ground state; -1 for none.
        fixed: Constant factors of each phase table ``(tables, 2, 2**num_qubits)``, real and
            imaginary.
        has_fixed: Whether a table's constant factors are not all 1.
        term_start: First term of each table, and the number of terms at the end.
        term_mask: Parity mask per term.
        term_angle: Shared angle per term.
        targets: Where each row goes ``(permutations, 2**num_qubits)``.
        final_complex: Whether the state is complex at the end.
        index: Output per basis state, or an empty array.
        matrix: Output weights ``(2**num_qubits, outputs)`` where index is empty.
        size: Number of outputs.
    """

    num_qubits: int
    steps: Index
    slots: Index
    shared_slots: int
    product: Index
    fixed: NDArray[np.float64]
    has_fixed: NDArray[np.bool_]
    term_start: Index
    term_mask: Index
    term_angle: Index
    targets: Index
    final_complex: bool
    index: Index
    matrix: NDArray[np.float64]
    size: int


def make_plan(
    program: Program, readout: Readout, *, given: str = "ground", within: int = 0
) -> Plan:
    """Return the plan of a program with a diagonal readout.

    Args:
        program: What to run.
        readout: Outcome sums, or Z-diagonal observables.
        given: What the run starts from: the `ground` state, or given `real` or `complex` states.
        within: Lowest qubits that lie within rows.
    """
    shorter, end = program.without_tail()
    return _Planner(shorter, given=given, within=within).finish(readout.moved(end))


class _Planner:
    def __init__(self, program: Program, *, given: str, within: int) -> None:
        self.program, self.within = program, within
        self.steps: list[list[int]] = []
        self.shared: list[int] = []
        self.sampled: list[int] = []
        self.tables: list[Phases] = []
        self.permutations: list[Permutation] = []
        self.complex = given == "complex"
        self.product = [(-1, True)] * program.num_qubits
        operations = list(program.operations)
        first = operations[0] if operations else None
        if given == "ground" and isinstance(first, Rotations):
            for qubit, angle in first.angles:
                self.product[qubit] = self._slot(angle)
            del operations[0]
        for operation in operations:
            if isinstance(operation, Rotations):
                self._rotations(operation)
            elif isinstance(operation, Phases):
                self._phases(operation)
            else:
                self._permutation(operation)

    def _slot(self, angle: int) -> tuple[int, bool]:
        shared = angle < self.program.shared
        slots = self.shared if shared else self.sampled
        slots.append(angle if shared else angle - self.program.shared)
        return len(slots) - 1, shared

    def _rotations(self, operation: Rotations) -> None:
        for shared, inside in itertools.product((True, False), (False, True)):
            chosen = sorted(
                (qubit, angle)
                for qubit, angle in operation.angles
                if (angle < self.program.shared) == shared and (qubit < self.within) == inside
            )
            count = -(-len(chosen) // _BLOCK)
            for part in np.array_split(np.array(chosen, dtype=np.int64), count) if count else ():
                first = 0 if inside else self.within
                qubits = [int(qubit) - first for qubit in part[:, 0]]
                slots = [self._slot(int(angle))[0] for angle in part[:, 1]]
                padded = [*qubits, 0, 0][:3]
                flags = [int(self.complex), int(shared), int(inside)]
                self.steps.append([ROTATE, len(qubits), *padded, slots[0], *flags])

    def _phases(self, operation: Phases) -> None:
        shared = tuple(term for term in operation.terms if term[1] < self.program.shared)
        if shared or operation.fixed is not None:
            self.tables.append(Phases(operation.fixed, shared))
            table = len(self.tables) - 1
            self.steps.append([MIX, table, -1, 0, 0, 0, int(self.complex), 1, 0])
            self.complex = True
        for mask, angle in operation.terms:
            if angle >= self.program.shared:
                slot, _ = self._slot(angle)
                self.steps.append([LANE_PHASE, mask, 0, 0, 0, slot, int(self.complex), 0, 0])
                self.complex = True

    def _permutation(self, operation: Permutation) -> None:
        self.permutations.append(operation)
        number = len(self.permutations) - 1
        if self.steps and self.steps[-1][0] == MIX and self.steps[-1][2] < 0:
            self.steps[-1][2] = number
        else:
            self.steps.append([MIX, -1, number, 0, 0, 0, int(self.complex), 1, 0])

    def finish(self, readout: Readout) -> Plan:
        states = 2**self.program.num_qubits
        offset = len(self.shared)
        for step in self.steps:
            if step[0] != MIX and not step[7]:
                step[5] += offset
        product = [slot if shared else slot + offset for slot, shared in self.product]
        fixed = np.ones((len(self.tables), 2, states))
        fixed[:, 1] = 0
        for table, phases in enumerate(self.tables):
            if phases.fixed is not None:
                fixed[table] = phases.fixed.real, phases.fixed.imag
        terms = [phases.terms for phases in self.tables]
        targets = np.zeros((max(1, len(self.permutations)), states), dtype=np.int64)
        for number, permutation in enumerate(self.permutations):
            targets[number, permutation.source] = np.arange(states)
        if readout.index is not None:
            index, matrix = readout.index, np.zeros((0, 0))
        else:
            index = np.zeros(0, dtype=np.int64)
            matrix = np.zeros((states, readout.size))
            for group in readout.groups:
                matrix += group.table.real
        return Plan(
            num_qubits=self.program.num_qubits,
            steps=np.array(self.steps, dtype=np.int64).reshape(-1, 9),
            slots=np.array(self.shared + self.sampled, dtype=np.int64),
            shared_slots=offset,
            product=np.array(product, dtype=np.int64),
            fixed=fixed,
            has_fixed=np.array(
                [phases.fixed is not None for phases in self.tables], dtype=np.bool_
            ),
            term_start=np.cumsum([0, *map(len, terms)], dtype=np.int64),
            term_mask=np.array([mask for part in terms for mask, _ in part], dtype=np.int64),
            term_angle=np.array([angle for part in terms for _, angle in part], dtype=np.int64),
            targets=targets,
            final_complex=self.complex,
            index=index,
            matrix=matrix,
            size=readout.size,
        )
