"""The trainable part of a circuit: what one layer is, and how many weights all layers take.

===============  ==========================================================  =============
ansatz           one layer                                                   weights
===============  ==========================================================  =============
ry_rz_ring       RY, RZ on every qubit, CX from each qubit to the next and   2 n per layer
                 from the last to the first (two qubits: one CX)
real_amplitudes  RY on every qubit, CX from each qubit to the next; one RY   n per layer,
                 layer after the last                                        and n
cz_line          RZ, RY on every qubit, CZ between neighbours on a line, in  2 n per layer,
                 two rounds; one RY layer after the last                     and n
ry_cz_line       RY on every qubit, CZ between neighbours on a line, in two   n per layer,
                 rounds; one RY layer after the last                         and n
ry_cz_brick      RY on every qubit, then one round of these CZ alone: even    n per layer,
                 pairs and odd pairs layer by layer; one RY layer at the     and n
                 end
local_rotations  RX RY RZ RX RX RY RZ on every qubit, no two-qubit gate       7 n per layer
===============  ==========================================================  =============
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.errors import CircuitError


@dataclass(frozen=True, kw_only=True)
class Ansatz(ABC):
    """The common face of the ansatze.

    Attributes:
        qubits: Width of the circuit.
        layers: Repetitions.
    """

    qubits: int
    layers: int

    @property
    @abstractmethod
    def num_weights(self) -> int:
        """Circuit weights w_000, w_001, ... of all layers."""

    @abstractmethod
    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append layer `layer`, from 0, taking its weights from the iterator in gate order."""

    def append_end(self, circuit: QuantumCircuit, weights: Iterator[Parameter]) -> None:  # noqa: B027
        """Append what follows the last layer; by default nothing."""


@dataclass(frozen=True, kw_only=True)
class RyRzRing(Ansatz):
    """RY and RZ on every qubit, then a ring of CX, per layer."""

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: 2 n per layer."""
        return 2 * self.qubits * self.layers

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits, RZ on all qubits and the ring."""
        for rotate in (circuit.ry, circuit.rz):
            for qubit in range(self.qubits):
                rotate(next(weights), qubit)
        append_cx_chain(circuit)
        if self.qubits > 2:
            circuit.cx(self.qubits - 1, 0)


@dataclass(frozen=True, kw_only=True)
class RealAmplitudes(Ansatz):
    """Qiskit's `real_amplitudes` with linear entanglement: real gates only."""

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: n per layer, and n for the last rotations."""
        return self.qubits * (self.layers + 1)

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits and the chain."""
        self.append_end(circuit, weights)
        append_cx_chain(circuit)

    def append_end(self, circuit: QuantumCircuit, weights: Iterator[Parameter]) -> None:
        """Append the last RY on all qubits."""
        for qubit in range(self.qubits):
            circuit.ry(next(weights), qubit)


@dataclass(frozen=True, kw_only=True)
class CzLine(Ansatz):
    """RZ and RY on every qubit, then CZ between neighbours on a line, per layer.

    Shaped for devices: a line of qubits is on every coupling map, so nothing is routed, CZ is
    native on many and one gate of theirs on the others, and the two rounds (even pairs, then odd
    ones) run in parallel.
    """

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: 2 n per layer, and n for the last rotations."""
        return self.qubits * (2 * self.layers + 1)

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RZ on all qubits, RY on all qubits and both rounds."""
        for qubit in range(self.qubits):
            circuit.rz(next(weights), qubit)
        self.append_end(circuit, weights)
        append_cz_line(circuit)

    def append_end(self, circuit: QuantumCircuit, weights: Iterator[Parameter]) -> None:
        """Append the last RY on all qubits, without which no outcome would see the last CZ."""
        for qubit in range(self.qubits):
            circuit.ry(next(weights), qubit)


@dataclass(frozen=True, kw_only=True)
class RyCzLine(CzLine):
    """RY on every qubit, then CZ on a line, per layer: for encodings that bring their own RZ."""

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: n per layer, and n for the last rotations."""
        return self.qubits * (self.layers + 1)

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits and both rounds."""
        self.append_end(circuit, weights)
        append_cz_line(circuit)


@dataclass(frozen=True, kw_only=True)
class RyCzBrick(RyCzLine):
    """RY on every qubit, then CZ on every other pair of a line, per layer, like bricks.

    Twice the rotations of `ry_cz_line` for as many CZ: two CZ of a qubit without a rotation between
    them commute.
    """

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits and one round: even pairs in even layers, else odd ones."""
        self.append_end(circuit, weights)
        append_cz_round(circuit, first=layer % 2)


@dataclass(frozen=True, kw_only=True)
class LocalRotations(Ansatz):
    """Seven rotations on each qubit and no entanglement, per layer (arXiv 2311.13810 v2).

    Each qubit turns on its own, whatever the number of layers: three angles would do the same, and
    <Z> of a qubit is a function of its own reduced state.
    """

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: 7 n per layer."""
        return 7 * self.qubits * self.layers

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RX RY RZ RX RX RY RZ on one qubit after the other."""
        for qubit in range(self.qubits):
            for name in ("rx", "ry", "rz", "rx", "rx", "ry", "rz"):
                getattr(circuit, name)(next(weights), qubit)


ANSATZE: dict[str, type[Ansatz]] = {
    "ry_rz_ring": RyRzRing,
    "real_amplitudes": RealAmplitudes,
    "cz_line": CzLine,
    "ry_cz_line": RyCzLine,
    "ry_cz_brick": RyCzBrick,
    "local_rotations": LocalRotations,
}


def make_ansatz(name: str, *, qubits: int, layers: int) -> Ansatz:
    """Return the ansatz `name`: one of `ANSATZE`.

    Raises:
        CircuitError: The name is unknown, or there are no qubits or no layers.
    """
    if name not in ANSATZE:
        raise CircuitError(f"ansatz {name!r} is unknown; give one of {', '.join(ANSATZE)}")
    if qubits < 1 or layers < 1:
        raise CircuitError(
            f"ansatz {name}: {qubits} qubits and {layers} layers were given; "
            "at least 1 of each is needed"
        )
    return ANSATZE[name](qubits=qubits, layers=layers)


def append_cx_chain(circuit: QuantumCircuit) -> None:
    """Append CX from each qubit to the next: n - 1 gates."""
    for qubit in range(circuit.num_qubits - 1):
        circuit.cx(qubit, qubit + 1)


def append_cz_line(circuit: QuantumCircuit) -> None:
    """Append CZ between neighbours, even pairs and then odd ones: n - 1 gates."""
    for first in (0, 1):
        append_cz_round(circuit, first=first)


def append_cz_round(circuit: QuantumCircuit, *, first: int) -> None:
    """Append CZ on the pairs of neighbours that begin with qubit `first`, first + 2, ..."""
    for qubit in range(first, circuit.num_qubits - 1, 2):
        circuit.cz(qubit, qubit + 1)
