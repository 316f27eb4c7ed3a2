"""Compile a circuit into layers of Y rotations, phases and permutations.

``Program.from_circuit`` lowers each gate (see gates.py) and moves every elementary operation as
early as it commutes, merging it with its like: all Z rotations of a layer become one diagonal, a
ring of CX one permutation, and RY(x) RY(w) on one qubit a single rotation by x + w.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from qiskit.circuit import Barrier, Delay, Measure, Parameter, QuantumCircuit

from qkd_qiskit.errors import CircuitError, UnsupportedInstructionError
from qkd_qiskit.simulator.angles import Angle, AngleMap, AngleReader, Feature, Source
from qkd_qiskit.simulator.gates import (
    Complex,
    Elementary,
    FixedPhase,
    Index,
    ParityRotation,
    Shuffle,
    YRotation,
    embed,
    full_source,
    lower,
)
from qkd_qiskit.simulator.memory import require_memory
from qkd_qiskit.simulator.tables import Tables


@dataclass(frozen=True)
class Rotations:
    """Y rotations on distinct qubits.

    Attributes:
        angles: ``(qubit, index into Program.angles)`` per rotated qubit.
    """

    angles: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Phases:
    """One diagonal unitary: ``factors[j] * prod exp(-i angle parity(mask, j) / 2)``.

    Attributes:
        fixed: Phase factors ``(2**num_qubits,)``, or None where all are 1.
        terms: ``(mask, index into Program.angles)``; parity is +1 where the number of ones in
            ``mask & j`` is even and -1 where it is odd.
    """

    fixed: Complex | None
    terms: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Permutation:
    """A permutation of basis states: state ``j`` takes the amplitude of state ``source[j]``."""

    source: Index


Operation = Rotations | Phases | Permutation


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled circuit, without its measurements.

    Attributes:
        num_qubits: Qubits that are simulated: the circuit's, without a device's idle ones.
        num_inputs: Length of the inputs of one sample.
        num_weights: Length of the weights.
        operations: What is applied to the state, in this order.
        angles: Angles in radians; ``shared`` of them first.
        shared: Number of angles that do not depend on an input.
        features: Values that enter angles and are not affine in the parameters.
        outcome_bits: ``(qubit, bit)``: the outcome's bit ``bit`` is the value of ``qubit``.
        qubits: The circuit's qubit per simulated qubit.
        tables: Constant tensors made from it so far.
    """

    num_qubits: int
    num_inputs: int
    num_weights: int
    operations: tuple[Operation, ...]
    angles: tuple[Angle, ...]
    shared: int
    features: tuple[Feature, ...]
    outcome_bits: tuple[tuple[int, int], ...]
    qubits: tuple[int, ...]
    tables: Tables = field(default_factory=Tables, init=False, repr=False)

    @classmethod
    def from_circuit(
        cls,
        circuit: QuantumCircuit,
        *,
        input_params: Sequence[Parameter] | None = None,
        weight_params: Sequence[Parameter] | None = None,
        start: int = 0,
    ) -> Program:
        """Return the program of a circuit with or without a final layer of measurements.

        A circuit that was transpiled to a device keeps only the qubits it uses, and without
        measurements its outcomes follow the layout back to the logical qubits.

        Args:
            circuit: Gates, barriers and at most one final measurement per qubit.
            input_params: Parameters bound per sample; default: those whose names begin with `x_`.
            weight_params: Parameters shared by the batch; default: all others, sorted by name.
            start: Instructions at the beginning to leave out.

        Raises:
            UnsupportedInstructionError: If an instruction is not a unitary gate.
            CircuitError: If a parameter is neither an input nor a weight, or memory is short.
        """
        sources, sizes = parameter_sources(circuit, input_params, weight_params)
        reader = AngleReader(sources)
        measured = final_measurements(circuit)
        qubits = used_qubits(circuit, measured)
        position = {qubit: index for index, qubit in enumerate(qubits)}
        require_memory(len(qubits), copies=8, what="the compiled circuit")
        layers = _Layers(len(qubits))
        for instruction in circuit.data[start:]:
            if isinstance(instruction.operation, Measure):
                continue
            touched = tuple(position.get(circuit.find_bit(q).index, -1) for q in instruction.qubits)
            for elementary in lower(instruction.operation, touched, reader=reader):
                layers.add(elementary)
        operations, angles, shared = layers.finish(reader.features)
        return cls(
            num_qubits=len(qubits),
            num_inputs=sizes[0],
            num_weights=sizes[1],
            operations=operations,
            angles=angles,
            shared=shared,
            features=tuple(reader.features),
            outcome_bits=tuple((position[qubit], bit) for qubit, bit in measured),
            qubits=qubits,
        )

    @cached_property
    def shared_angles(self) -> AngleMap:
        """The angles that do not depend on an input."""
        return self._map(self.angles[: self.shared])

    @cached_property
    def sample_angles(self) -> AngleMap:
        """The angles that depend on an input."""
        return self._map(self.angles[self.shared :])

    def _map(self, angles: tuple[Angle, ...]) -> AngleMap:
        with torch.inference_mode(False):  # the tensors are kept, and used in training as well
            return AngleMap.of(
                list(angles),
                num_inputs=self.num_inputs,
                num_weights=self.num_weights,
                features=list(self.features),
            )

    @cached_property
    def outcome_index(self) -> Index:
        """Outcome per basis state ``(2**num_qubits,)``, little-endian."""
        states = np.arange(2**self.num_qubits, dtype=np.int64)
        outcome = np.zeros_like(states)
        for qubit, bit in self.outcome_bits:
            outcome |= ((states >> qubit) & 1) << bit
        return outcome

    @property
    def num_outcomes(self) -> int:
        """Number of outcomes, two to the power of the number of measured bits."""
        return 1 << (1 + max((bit for _, bit in self.outcome_bits), default=-1))

    def without_tail(self) -> tuple[Program, Index]:
        """Return the program without what no measurement sees, and where its states end up.

        Phases at the end do not change a probability, and a permutation at the end only renames
        basis states: state ``j`` of the shorter program is state ``end[j]`` of this one.
        """
        operations = list(self.operations)
        end = np.arange(2**self.num_qubits, dtype=np.int64)
        while operations and not isinstance(operations[-1], Rotations):
            last = operations.pop()
            if isinstance(last, Permutation):
                renamed = np.empty_like(end)
                renamed[last.source] = end
                end = renamed
        return replace(self, operations=tuple(operations)), end


def parameter_sources(
    circuit: QuantumCircuit,
    input_params: Sequence[Parameter] | None,
    weight_params: Sequence[Parameter] | None,
) -> tuple[dict[Parameter, Source], tuple[int, int]]:
    """Return where each parameter's value comes from, and how many inputs and weights there are."""
    names = sorted(circuit.parameters, key=lambda parameter: str(parameter.name))
    if input_params is None:
        input_params = [name for name in names if name.name.startswith("x_")]
    if weight_params is None:
        taken = set(input_params)
        weight_params = [name for name in names if name not in taken]
    sources: dict[Parameter, Source] = {
        parameter: ("input", number) for number, parameter in enumerate(input_params)
    }
    sources |= {parameter: ("weight", number) for number, parameter in enumerate(weight_params)}
    return sources, (len(input_params), len(weight_params))


def final_measurements(circuit: QuantumCircuit) -> list[tuple[int, int]]:
    """Return ``(qubit, outcome bit)`` pairs.

    Raises:
        UnsupportedInstructionError: If a qubit is used after its measurement.
    """
    measured: dict[int, int] = {}
    last: dict[int, int] = {}  # which qubit a bit holds at the end: the one measured into it last
    for instruction in circuit.data:
        touched = [circuit.find_bit(qubit).index for qubit in instruction.qubits]
        if isinstance(instruction.operation, Barrier):
            continue
        again = next((qubit for qubit in touched if qubit in measured), None)
        if again is not None:
            raise UnsupportedInstructionError(
                f"instruction {instruction.operation.name!r} comes after the measurement of qubit "
                f"{again}; measure at the end only"
            )
        if isinstance(instruction.operation, Measure):
            bit = circuit.find_bit(instruction.clbits[0]).index
            measured[touched[0]] = bit
            last[bit] = touched[0]
    if measured:
        return [(last[bit], bit) for bit in sorted(last)]
    if circuit.layout is not None:
        return [(qubit, bit) for bit, qubit in enumerate(circuit.layout.final_index_layout())]
    return [(qubit, qubit) for qubit in range(circuit.num_qubits)]


def used_qubits(circuit: QuantumCircuit, measured: list[tuple[int, int]]) -> tuple[int, ...]:
    """Return the qubits that are measured or on which a gate acts, in ascending order.

    Raises:
        CircuitError: If there are none.
    """
    used = {qubit for qubit, _ in measured}
    for instruction in circuit.data:
        if not isinstance(instruction.operation, Barrier | Delay | Measure):
            used |= {circuit.find_bit(qubit).index for qubit in instruction.qubits}
    if not used:
        raise CircuitError("the circuit has no qubits; give a circuit with at least one")
    return tuple(sorted(used))


@dataclass
class _Layer:
    """Elementary operations of one kind that are applied together."""

    kind: str
    support: set[int] = field(default_factory=set)
    rotations: dict[int, Angle] = field(default_factory=dict)
    parities: dict[int, Angle] = field(default_factory=dict)
    fixed: list[FixedPhase] = field(default_factory=list)
    shuffles: list[Shuffle] = field(default_factory=list)


def _kind(elementary: Elementary) -> str:
    if isinstance(elementary, YRotation):
        return "rotations"
    return "permutation" if isinstance(elementary, Shuffle) else "phases"


def _support(elementary: Elementary) -> set[int]:
    qubits = (elementary.qubit,) if isinstance(elementary, YRotation) else elementary.qubits
    return set(qubits)


class _Layers:
    """The schedule under construction: every operation goes as early as it commutes."""

    def __init__(self, num_qubits: int) -> None:
        self.num_qubits = num_qubits
        self.layers: list[_Layer] = []

    def add(self, elementary: Elementary) -> None:
        kind, support = _kind(elementary), _support(elementary)
        home: _Layer | None = None
        for layer in reversed(self.layers):
            disjoint = not (layer.support & support)
            if layer.kind == kind:
                home = layer
                if not disjoint and kind != "phases":
                    break
            elif not disjoint:
                break
        if home is None:
            home = _Layer(kind)
            self.layers.append(home)
        home.support |= support
        if isinstance(elementary, YRotation):
            known = home.rotations.get(elementary.qubit, Angle())
            home.rotations[elementary.qubit] = known + elementary.angle
        elif isinstance(elementary, ParityRotation):
            mask = sum(1 << qubit for qubit in elementary.qubits)
            home.parities[mask] = home.parities.get(mask, Angle()) + elementary.angle
        elif isinstance(elementary, FixedPhase):
            home.fixed.append(elementary)
        else:
            home.shuffles.append(elementary)

    def finish(
        self, features: list[Feature]
    ) -> tuple[tuple[Operation, ...], tuple[Angle, ...], int]:
        """Return operations, angles, and how many of the angles are shared by the batch."""
        found = list(self._angles())
        varies = [angle.per_sample(features) for angle in found]
        ordered = sorted(range(len(found)), key=varies.__getitem__)
        place = {old: new for new, old in enumerate(ordered)}
        shared = varies.count(False)
        numbers = iter(range(len(found)))
        operations: list[Operation] = []
        for layer in self.layers:
            if layer.kind == "rotations":
                pairs = tuple((qubit, place[next(numbers)]) for qubit in layer.rotations)
                operations.append(Rotations(pairs))
            elif layer.kind == "phases":
                terms = tuple((mask, place[next(numbers)]) for mask in layer.parities)
                operations.append(Phases(self._fixed(layer), terms))
            else:
                operations.append(Permutation(self._source(layer)))
        return tuple(operations), tuple(found[index] for index in ordered), shared

    def _angles(self) -> Iterator[Angle]:
        for layer in self.layers:
            yield from layer.rotations.values()
            yield from layer.parities.values()

    def _fixed(self, layer: _Layer) -> Complex | None:
        if not layer.fixed:
            return None
        total = np.ones(2**self.num_qubits, dtype=np.complex128)
        for phase in layer.fixed:
            total *= embed(phase.factors, phase.qubits, num_qubits=self.num_qubits)
        return total

    def _source(self, layer: _Layer) -> Index:
        total = np.arange(2**self.num_qubits, dtype=np.int64)
        for shuffle in layer.shuffles:
            total = total[full_source(shuffle, num_qubits=self.num_qubits)]
        return total
