"""Compile a device's circuit with its noise, on the qubits that the circuit uses.

On IBM's basis only RZ carries parameters and it is noiseless, so everything between two RZ is
constant. A run of one-qubit operations is a chain of constants and RZ; every two-qubit gate absorbs
the chains before it, so the state will be touched once per two-qubit gate (see noisy.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from qiskit.circuit import Barrier, Delay, Measure, Parameter, QuantumCircuit

from qkd_qiskit.errors import UnsupportedInstructionError
from qkd_qiskit.simulator.angles import Angle, AngleReader, Feature
from qkd_qiskit.simulator.channels import Channels, Real, of_unitary
from qkd_qiskit.simulator.gates import (
    STANDARD_GATES,
    FixedPhase,
    ParityRotation,
    YRotation,
    has_free_parameters,
    lower,
    standard_name,
)
from qkd_qiskit.simulator.memory import require_memory
from qkd_qiskit.simulator.program import final_measurements, parameter_sources, used_qubits
from qkd_qiskit.simulator.tables import Tables

_HALF_X = np.array([[1, -1j], [-1j, 1]]) / np.sqrt(2)  # RX(pi/2): turns RZ into RY
_CX = np.array([[1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0]])  # control is qubit 0


@dataclass
class Chain:
    """A run of operations on one qubit: constant, RZ, constant, RZ, ..., constant.

    Attributes:
        constants: Transfer matrices, one more than there are angles.
        angles: Indices of the RZ angles between them.
    """

    constants: list[Real] = field(default_factory=lambda: [np.eye(4)])
    angles: list[int] = field(default_factory=list)

    def constant(self, matrix: Real) -> None:
        """Append a constant operation."""
        self.constants[-1] = matrix @ self.constants[-1]

    def rotation(self, angle: int) -> None:
        """Append an RZ."""
        self.angles.append(angle)
        self.constants.append(np.eye(4))


@dataclass(frozen=True)
class Block:
    """A two-qubit operation after a chain on each of its qubits.

    Attributes:
        qubits: The two qubits; the first is the lower digit.
        chains: Numbers of their chains.
        matrix: Transfer matrix ``(16, 16)`` of gate and noise.
    """

    qubits: tuple[int, int]
    chains: tuple[int, int]
    matrix: Real


@dataclass(frozen=True, eq=False)
class DensityProgram:
    """A compiled circuit with noise.

    Attributes:
        num_qubits: Qubits that are simulated: those the circuit uses.
        num_inputs: Length of the inputs of one sample.
        num_weights: Length of the weights.
        angles: RZ angles.
        features: Values that enter angles and are not affine in the parameters.
        chains: Runs of one-qubit operations.
        blocks: What is applied to the state, in this order.
        last: Chain at the end of each qubit.
        outcome_bits: ``(qubit, bit)``: the outcome's bit ``bit`` is read from ``qubit``.
        confusion: Readout matrix ``A[true, measured]`` per simulated qubit.
        qubits: The circuit's qubit per simulated qubit.
        tables: Constant tensors made from it so far.
    """

    num_qubits: int
    num_inputs: int
    num_weights: int
    angles: tuple[Angle, ...]
    features: tuple[Feature, ...]
    chains: tuple[Chain, ...]
    blocks: tuple[Block, ...]
    last: tuple[int, ...]
    outcome_bits: tuple[tuple[int, int], ...]
    confusion: tuple[Real, ...]
    qubits: tuple[int, ...]
    tables: Tables = field(default_factory=Tables, init=False, repr=False)

    @classmethod
    def from_circuit(
        cls,
        circuit: QuantumCircuit,
        channels: Channels,
        *,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
    ) -> DensityProgram:
        """Return the program of a transpiled circuit under a device's noise.

        Noise is looked up by the circuit's own gate names and qubits, so the circuit must be
        transpiled to the device that the channels describe.

        Args:
            circuit: Gates on one or two qubits, delays, barriers, final measurements.
            channels: The device's noise.
            input_params: As in `Program.from_circuit`.
            weight_params: As in `Program.from_circuit`.

        Raises:
            UnsupportedInstructionError: If an instruction is not a gate on one or two qubits.
            CircuitError: If a parameter is neither an input nor a weight, or memory is short.
        """
        sources, sizes = parameter_sources(circuit, input_params, weight_params)
        measured = final_measurements(circuit)
        qubits = used_qubits(circuit, measured)
        require_memory(len(qubits), copies=4, bytes_each=8, what="a noisy state", base=4)
        builder = _Builder(channels, qubits, AngleReader(sources))
        for instruction in circuit.data:
            touched = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
            builder.add(instruction.operation, touched)
        position = {qubit: index for index, qubit in enumerate(qubits)}
        identity = np.eye(2)
        return cls(
            num_qubits=len(qubits),
            num_inputs=sizes[0],
            num_weights=sizes[1],
            angles=tuple(builder.angles),
            features=tuple(builder.reader.features),
            chains=tuple(builder.chains),
            blocks=tuple(builder.blocks),
            last=tuple(builder.open),
            outcome_bits=tuple((position[qubit], bit) for qubit, bit in measured),
            confusion=tuple(
                np.asarray(channels.readout.get(qubit, identity), dtype=float) for qubit in qubits
            ),
            qubits=qubits,
        )

    @property
    def num_outcomes(self) -> int:
        """Number of outcomes, two to the power of the number of measured bits."""
        return 1 << (1 + max((bit for _, bit in self.outcome_bits), default=-1))

    def readout_matrix(self) -> Real:
        """Return what turns the strings of I and Z into probabilities ``(outcomes, 2**qubits)``.

        Column ``z`` belongs to the string with Z on the qubits in mask ``z``.
        """
        bit_of = dict(self.outcome_bits)
        matrix = np.zeros((self.num_outcomes, 2**self.num_qubits))
        strings = np.arange(2**self.num_qubits)
        for outcome in range(self.num_outcomes):
            if outcome & ~sum(1 << bit for bit in bit_of.values()):
                continue  # a classical bit that nothing is measured into stays 0
            row = np.ones(len(strings))
            for qubit in range(self.num_qubits):
                has_z = strings >> qubit & 1
                if qubit in bit_of:
                    zero, one = self.confusion[qubit][:, outcome >> bit_of[qubit] & 1]
                    row *= np.where(has_z, zero - one, zero + one) / 2
                else:
                    row *= 1 - has_z
            matrix[outcome] = row
        return matrix


class _Builder:
    """The program under construction: an open chain per qubit, closed by two-qubit gates."""

    def __init__(self, channels: Channels, qubits: tuple[int, ...], reader: AngleReader) -> None:
        self.channels, self.reader = channels, reader
        self.position = {qubit: index for index, qubit in enumerate(qubits)}
        self.angles: list[Angle] = []
        self.chains = [Chain() for _ in qubits]
        self.open = list(range(len(qubits)))
        self.blocks: list[Block] = []

    def add(self, operation: Any, qubits: tuple[int, ...]) -> None:
        name = operation.name
        if isinstance(operation, Barrier | Measure):
            return
        if isinstance(operation, Delay):
            if qubits[0] in self.position:
                noise = self.channels.delay(qubits[0], float(operation.duration), operation.unit)
                self._constant(noise, (self.position[qubits[0]],))
            return
        if len(qubits) > 2:
            raise UnsupportedInstructionError(
                f"gate {name!r} acts on {len(qubits)} qubits; transpile the circuit to the device"
            )
        standard = standard_name(operation)
        if standard is None and name in STANDARD_GATES:
            raise UnsupportedInstructionError(
                f"gate {name!r} is another one than Qiskit's of that name, whose noise is not its "
                "own; transpile the circuit to the device"
            )
        places = tuple(self.position[qubit] for qubit in qubits)
        noise = self.channels.noise(name, qubits)
        if not has_free_parameters(operation) and standard != "id":
            try:
                ideal = of_unitary(operation.to_matrix())
            except Exception as error:
                raise UnsupportedInstructionError(
                    f"instruction {name!r} has no unitary; use gates and final measurements"
                ) from error
            self._constant(ideal if noise is None else noise @ ideal, places)
            return
        for elementary in lower(operation, places, reader=self.reader):
            if isinstance(elementary, YRotation):  # RY(a) = RX(-pi/2) RZ(a) RX(pi/2)
                here = (elementary.qubit,)
                self._constant(of_unitary(_HALF_X), here)
                self._rotation(elementary.angle, elementary.qubit)
                self._constant(of_unitary(_HALF_X.conj()), here)
            elif isinstance(elementary, ParityRotation):
                self._parity(elementary)
            else:
                size = 2 ** len(elementary.qubits)
                matrix = (
                    np.diag(elementary.factors)
                    if isinstance(elementary, FixedPhase)
                    else np.eye(size)[elementary.source]
                )
                self._constant(of_unitary(matrix), elementary.qubits)
        self._constant(noise, places)

    def _parity(self, elementary: ParityRotation) -> None:
        if len(elementary.qubits) == 2:
            self._constant(of_unitary(_CX), elementary.qubits)
        self._rotation(elementary.angle, elementary.qubits[-1])
        if len(elementary.qubits) == 2:
            self._constant(of_unitary(_CX), elementary.qubits)

    def _rotation(self, angle: Angle, qubit: int) -> None:
        chain = self.chains[self.open[qubit]]
        if angle.terms:
            self.angles.append(angle)
            chain.rotation(len(self.angles) - 1)
        else:
            cosine, sine = np.cos(angle.constant), np.sin(angle.constant)
            matrix = np.eye(4)
            matrix[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
            chain.constant(matrix)

    def _constant(self, matrix: Real | None, qubits: tuple[int, ...]) -> None:
        if matrix is None:
            return
        if len(qubits) == 1:
            self.chains[self.open[qubits[0]]].constant(matrix)
            return
        first, second = qubits
        self.blocks.append(Block((first, second), (self.open[first], self.open[second]), matrix))
        for qubit in qubits:
            self.chains.append(Chain())
            self.open[qubit] = len(self.chains) - 1
