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
ry_cz_brick      RY on every qubit, then CZ on the even pairs alone, in the   n per layer,
                 next layer on the odd ones; one RY layer after the last     and n
ry_cz_ring       as ry_cz_line, and CZ between the ends of the line          n per layer,
                                                                             and n
ry_cz_patch      as ry_cz_line on n - 1 qubits, and CZ from the middle to    n per layer,
                 the last: a piece of a heavy-hexagonal lattice              and n
ry_rzz_line      RY on every qubit, RZZ of trained angles on a line; one RY  2 n - 1 per
                 layer after the last                                        layer, and n
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

    def grown_from(self, layers: int) -> list[int | None]:
        """Return for each weight its number in the same ansatz of fewer layers; None = starts at 0.

        With these weights both circuits give the same outcome probabilities, where no input enters
        behind the layers that there were before.

        Args:
            layers: Of the smaller one.

        Raises:
            CircuitError: A layer of this ansatz is no identity at any weights.
        """
        raise CircuitError(
            "its gates on two qubits turn outcomes into others whatever the weights are, so that "
            "no layer can be added without a change; give one of CZ or RZZ, such as ry_cz_line"
        )


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
    ones) run in parallel. CZ is diagonal: a layer that is added with its RZ at 0, its RY as the
    last rotations were and new last rotations at 0 leaves every outcome as probable as it was.
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

    def grown_from(self, layers: int) -> list[int | None]:
        """Return for each weight its number in the same ansatz of fewer layers; None = starts at 0.

        The old last rotations are the RY of the first new layer.
        """
        layer = (self.num_weights - self.qubits) // self.layers
        kept = layer * layers
        added: list[int | None] = [*range(kept), *[None] * self.weights_before_ry]
        added += range(kept, kept + self.qubits)
        return added + [None] * (self.num_weights - len(added))

    @property
    def weights_before_ry(self) -> int:
        """Weights of a layer in front of its RY."""
        return self.qubits


@dataclass(frozen=True, kw_only=True)
class RyCzLine(CzLine):
    """RY on every qubit, then CZ on a line, per layer: for encodings that bring their own RZ."""

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: n per layer, and n for the last rotations."""
        return self.qubits * (self.layers + 1)

    @property
    def weights_before_ry(self) -> int:
        """None: a layer begins with its RY."""
        return 0

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
        """Append RY on all qubits and CZ on the even pairs in even layers, else on the odd ones."""
        self.append_end(circuit, weights)
        for low, high in line_pairs(self.qubits):
            if low % 2 == layer % 2:
                circuit.cz(low, high)


@dataclass(frozen=True, kw_only=True)
class RyCzRing(RyCzLine):
    """RY on every qubit, then CZ on a line and between its ends (from three qubits), per layer."""

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits, both rounds and the CZ that closes the ring."""
        super().append_layer(circuit, weights, layer=layer)
        if self.qubits > 2:
            circuit.cz(self.qubits - 1, 0)


@dataclass(frozen=True, kw_only=True)
class RyCzPatch(RyCzLine):
    """RY on every qubit, then CZ on a line of n - 1 qubits and from its middle to the last one.

    A piece of a heavy-hexagonal lattice around a qubit with three neighbours.
    """

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits, both rounds of the line and the branch."""
        self.append_end(circuit, weights)
        append_cz_line(circuit, qubits=self.qubits - 1)
        if self.qubits > 1:
            circuit.cz((self.qubits - 1) // 2, self.qubits - 1)


@dataclass(frozen=True, kw_only=True)
class RyRzzLine(RyCzLine):
    """RY on every qubit, then RZZ of a trained angle between neighbours on a line, per layer.

    One gate each on devices with fractional gates, two CZ or CX on others.
    """

    @property
    def num_weights(self) -> int:
        """Circuit weights of all layers: 2 n - 1 per layer, and n for the last rotations."""
        return (2 * self.qubits - 1) * self.layers + self.qubits

    def append_layer(
        self, circuit: QuantumCircuit, weights: Iterator[Parameter], *, layer: int
    ) -> None:
        """Append RY on all qubits and RZZ in both rounds."""
        self.append_end(circuit, weights)
        for low, high in line_pairs(self.qubits):
            circuit.rzz(next(weights), low, high)


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
    "ry_cz_ring": RyCzRing,
    "ry_cz_patch": RyCzPatch,
    "ry_rzz_line": RyRzzLine,
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


def append_cz_line(circuit: QuantumCircuit, *, qubits: int | None = None) -> None:
    """Append CZ between neighbours, even pairs and then odd ones: n - 1 gates.

    Args:
        circuit: What is appended to.
        qubits: How many of its first qubits are on the line; None = all.
    """
    for low, high in line_pairs(circuit.num_qubits if qubits is None else qubits):
        circuit.cz(low, high)


def line_pairs(qubits: int) -> list[tuple[int, int]]:
    """Return the neighbours on a line: the pairs that begin at even qubits, then the others."""
    return [(low, low + 1) for first in (0, 1) for low in range(first, qubits - 1, 2)]
