"""Circuits with measurements of their own: what a target makes of one, and how it is sampled.

Qubits that no gate joins are independent. A circuit is therefore split into parts, and the bits
read from each part have a distribution of their own: a student transpiled to 133 qubits and
measured on all of them is one part of four qubits and 129 of one.
"""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import Barrier, ControlFlowOp, Delay, Gate, Measure, QuantumCircuit

from qkd_qiskit.errors import TargetError, first_line
from qkd_qiskit.targets.shot_drawing import clean_probabilities, draw_outcomes

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 2**25  # larger batches fall out of the cache
_JOINED_OUTCOMES = 2**12  # up to which constant distributions are joined into one
_KEPT_PROGRAMS = 8  # per part: one for each choice of the parameters that a batch shares

Distribution = tuple[tuple[int, ...], NDArray[np.float64]]
"""Bits, lowest digit first, and probabilities (batch or 1, 2**bits) of their values."""
Basis = Mapping[int, str]
"""The Pauli letter, X, Y or Z, that each listed qubit is measured in."""
Registers = Mapping[str, tuple[int, ...]]
"""The circuit's classical bits in each register, its bit 0 first."""
Evaluate = Callable[[Any, Any, Any], Any]
"""Probabilities (batch, outcomes) of a simulator's program, inputs and weights as tensors."""


class MeasuredProgram(ABC):
    """A circuit with measurements as a target runs it.

    `values` are (batch, parameters) in radians, columns in the order of the given circuit's
    `parameters`.
    """

    exact = False
    """Whether `expectations` are known without shots."""

    def __init__(self, registers: Registers):
        self.registers = registers

    @abstractmethod
    def sample(
        self, values: NDArray[np.float64], *, shots: int, rng: np.random.Generator
    ) -> dict[str, NDArray[np.uint8]]:
        """Return shots (batch, shots, bytes) of each register, packed as in a `BitArray`."""

    @abstractmethod
    def expectations(
        self, values: NDArray[np.float64], masks: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return mean parities (batch, rows of masks): +1 for an even number of ones, else -1.

        Args:
            values: as above.
            masks: which classical bits enter (parities, classical bits).

        Raises:
            NotImplementedError: the circuit is only sampled; see `exact`.
        """


class ExactProgram(MeasuredProgram):
    """A circuit whose outcome probabilities are known; shots are drawn from them."""

    exact = True

    def __init__(self, registers: Registers, parts: Sequence["Part"]):
        """Take the registers and the independent parts."""
        super().__init__(registers)
        self.parts = parts

    def distributions(self, values: NDArray[np.float64]) -> Iterator[Distribution]:
        """Yield bits and their probabilities, part by part; batch 1 where values do not matter."""
        constant: Distribution = ((), np.ones((1, 1)))
        for part in self.parts:
            bits, rows = part.bits, part.probabilities(values)
            if len(rows) > 1:
                yield bits, rows
                continue
            if constant[1].size * rows.size > _JOINED_OUTCOMES:
                yield constant
                constant = ((), np.ones((1, 1)))
            joined = np.kron(rows, constant[1]).astype(np.float64)
            constant = (constant[0] + bits, joined)
        if constant[0]:
            yield constant

    def sample(
        self, values: NDArray[np.float64], *, shots: int, rng: np.random.Generator
    ) -> dict[str, NDArray[np.uint8]]:
        """Return shots of each register: multinomial counts, in random order."""
        batch = len(values)
        packed = {
            name: np.zeros((batch, shots, -(-len(register) // 8)), dtype=np.uint8)
            for name, register in self.registers.items()
        }
        for bits, rows in self.distributions(values):
            outcomes = draw_outcomes(np.broadcast_to(rows, (batch, rows.shape[1])), shots, rng=rng)
            for name, register in self.registers.items():
                if set(bits) & set(register):
                    packed[name] |= _bytes_per_outcome(bits, register)[outcomes]
        return packed

    def expectations(
        self, values: NDArray[np.float64], masks: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Return mean parities (batch, rows of masks)."""
        means = np.ones((len(values), len(masks)))
        for bits, rows in self.distributions(values):
            outcomes = np.arange(rows.shape[1])[:, None] >> np.arange(len(bits)) & 1
            means *= rows @ (1 - 2 * (outcomes @ masks[:, list(bits)].T.astype(np.int64) & 1))
        return means


class ShotProgram(MeasuredProgram):
    """A circuit that something else samples: Aer, a backend, a sampler."""

    def __init__(self, registers: Registers, run: Callable[..., Mapping[str, Any]]):
        """Take the registers and what runs: `run(values, shots=..., seed=...)` gives `BitArray`."""
        super().__init__(registers)
        self._run = run

    def sample(
        self, values: NDArray[np.float64], *, shots: int, rng: np.random.Generator
    ) -> dict[str, NDArray[np.uint8]]:
        """Return shots of each register.

        Raises:
            TargetError: what runs the circuit failed.
        """
        try:
            arrays = self._run(values, shots=shots, seed=int(rng.integers(2**30)))
        except Exception as error:  # of any type: it is another library's
            raise TargetError(f"the circuit could not be run: {first_line(error)}") from error
        return {
            name: bits.array for name, bits in zip(self.registers, arrays.values(), strict=True)
        }

    def expectations(
        self, values: NDArray[np.float64], masks: NDArray[np.bool_]
    ) -> NDArray[np.float64]:
        """Refuse: only shots are known."""
        raise NotImplementedError("a circuit that is only sampled has no exact expectation values")


@dataclass(frozen=True, eq=False)
class Part:
    """Qubits that gates join, and the bits that are read from them."""

    qubits: tuple[int, ...]
    """The circuit's qubits, ascending."""
    bits: tuple[int, ...]
    """Classical bit behind each bit of an outcome."""
    circuit: QuantumCircuit
    """Their gates, with bit i of an outcome measured into classical bit i."""
    names: tuple[str, ...]
    """The columns of `values`."""
    compile: Callable[..., Any] | None = None
    """Gives the simulator's program of `circuit`, `input_params` and `weight_params`."""
    evaluate: Evaluate | None = None
    """Runs such a program."""
    row_bytes: int = 1
    """Memory of one row of a batch."""
    known: NDArray[np.float64] | None = None
    """Probabilities (1, 2**bits) where nothing has to be run."""
    _programs: dict[bytes, Any] = field(default_factory=dict, init=False, repr=False)

    def probabilities(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return outcome probabilities (batch, 2**bits), or a single row where all are alike."""
        if self.known is not None:
            return self.known
        import torch

        assert self.compile is not None
        assert self.evaluate is not None
        column = {name: number for number, name in enumerate(self.names)}
        parameters = sorted(self.circuit.parameters, key=lambda parameter: column[parameter.name])
        live = values[:, [column[parameter.name] for parameter in parameters]]
        varies = (live != live[:1]).any(axis=0)
        key = varies.tobytes()
        program = self._programs.get(key)
        if program is None:
            if len(self._programs) >= _KEPT_PROGRAMS:
                self._programs.clear()
            pairs = list(zip(parameters, varies, strict=True))
            program = self._programs[key] = self.compile(
                self.circuit,
                input_params=[parameter for parameter, moves in pairs if moves],
                weight_params=[parameter for parameter, moves in pairs if not moves],
            )
        batch = live[:, varies] if varies.any() else live[:1, varies]
        shared = torch.from_numpy(live[0, ~varies].copy())
        with torch.no_grad():
            rows = torch.cat(
                [
                    self.evaluate(program, part, shared)
                    for part in torch.split(
                        torch.from_numpy(batch.copy()), max(1, _CHUNK_BYTES // self.row_bytes)
                    )
                ]
            ).numpy()
        return clean_probabilities(rows)


def registers_of(circuit: QuantumCircuit) -> dict[str, tuple[int, ...]]:
    """Return the classical bits of each register, its bit 0 first."""
    return {
        register.name: tuple(circuit.find_bit(bit).index for bit in register)
        for register in circuit.cregs
    }


def final_measurements(circuit: QuantumCircuit) -> dict[int, int] | None:
    """Return the qubit that each classical bit is read from, where all is measured at the end.

    None where a qubit is used or measured again after its measurement, or where the circuit has
    anything but gates: these need a simulation shot by shot.
    """
    sources: dict[int, int] = {}
    measured: set[int] = set()
    for instruction in circuit.data:
        operation = instruction.operation
        if isinstance(operation, Barrier | Delay):
            continue
        qubits = {circuit.find_bit(qubit).index for qubit in instruction.qubits}
        if measured & qubits or not isinstance(operation, Gate | Measure):
            return None
        if isinstance(operation, Measure):
            sources[circuit.find_bit(instruction.clbits[0]).index] = min(qubits)
            measured |= qubits
    return sources


def without_measurements(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the gates of a circuit that is measured at the end, without bits and last barriers."""
    bare = QuantumCircuit(circuit.num_qubits, global_phase=circuit.global_phase, name=circuit.name)
    kept = [
        (
            instruction.operation,
            [circuit.find_bit(qubit).index for qubit in instruction.qubits],
        )
        for instruction in circuit.data
        if not isinstance(instruction.operation, Measure)
    ]
    while kept and isinstance(kept[-1][0], Barrier):
        kept.pop()
    for operation, qubits in kept:
        bare.append(operation, qubits, copy=False)
    return bare


def split_parts(
    circuit: QuantumCircuit, sources: Mapping[int, int], *, names: Sequence[str]
) -> list[Part]:
    """Return the independent parts of a circuit that are measured.

    Args:
        circuit: gates, delays and final measurements.
        sources: qubit of each classical bit that counts.
        names: of the parameters, in the order of the columns of `values`.
    """
    leader = list(range(circuit.num_qubits))

    def find(qubit: int) -> int:
        while leader[qubit] != qubit:
            leader[qubit] = leader[leader[qubit]]
            qubit = leader[qubit]
        return qubit

    touched = [
        (instruction.operation, [circuit.find_bit(qubit).index for qubit in instruction.qubits])
        for instruction in circuit.data
    ]
    for operation, qubits in touched:
        if not isinstance(operation, Barrier):
            for qubit in qubits[1:]:
                leader[find(qubit)] = find(qubits[0])
    parts: dict[int, tuple[list[int], list[int]]] = {}
    for qubit in range(circuit.num_qubits):
        parts.setdefault(find(qubit), ([], []))[0].append(qubit)
    for bit, qubit in sorted(sources.items()):
        parts[find(qubit)][1].append(bit)
    circuits = {
        first: QuantumCircuit(len(qubits), len(bits))
        for first, (qubits, bits) in parts.items()
        if bits
    }
    position = {qubit: i for qubits, _ in parts.values() for i, qubit in enumerate(qubits)}
    read: set[int] = set()
    for operation, qubits in touched:
        first = find(qubits[0]) if qubits else -1
        if isinstance(operation, Measure):
            read |= set(qubits)
        elif first in circuits and not isinstance(operation, Barrier) and not read & set(qubits):
            circuits[first].append(operation, [position[qubit] for qubit in qubits], copy=False)
    made = []
    for first, part in circuits.items():
        qubits, bits = parts[first]
        part.measure([position[sources[bit]] for bit in bits], range(len(bits)))
        made.append(Part(tuple(qubits), tuple(bits), part, tuple(names)))
    return made


def require_registers(circuit: QuantumCircuit, *, name: str, steered: bool) -> None:
    """Check that a circuit's shots can be drawn one by one.

    Args:
        circuit: what is measured before its end, or too wide for exact probabilities.
        name: the target's.
        steered: whether gates may depend on measured bits.

    Raises:
        TargetError: it has classical bits outside registers, or control flow where there is none.
    """
    listed = {bit for register in registers_of(circuit).values() for bit in register}
    if len(listed) < circuit.num_clbits:
        raise TargetError(
            f"circuit {circuit.name!r} has classical bits outside registers; Aer samples registers "
            "only: put them into a ClassicalRegister"
        )
    flow = [item.operation.name for item in circuit if isinstance(item.operation, ControlFlowOp)]
    if flow and not steered:
        raise TargetError(
            f"circuit {circuit.name!r} is steered by what it measures ({flow[0]}), which {name} "
            "does not simulate; accepted are gates, measurements and resets: use exact or aer"
        )


def _bytes_per_outcome(bits: tuple[int, ...], register: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return a register's bytes (outcomes, bytes), the most significant first, per outcome."""
    outcomes = np.arange(1 << len(bits))
    count = -(-len(register) // 8)
    table = np.zeros((len(outcomes), count), dtype=np.uint8)
    place = {bit: number for number, bit in enumerate(bits)}
    for index, bit in enumerate(register):
        if bit in place:
            ones = (outcomes >> place[bit] & 1) << index % 8
            table[:, count - 1 - index // 8] |= ones.astype(np.uint8)
    return table
