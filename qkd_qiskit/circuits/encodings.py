"""How features enter a circuit: the gates, and the classical map from features to their angles.

===================  ========================  ===========================  ===============
encoding             features                  circuit parameters           two-qubit gates
===================  ========================  ===========================  ===============
amplitude            2^n                       2^n - 1                      2^n - 2 CX
angle                n                         n                            none
reuploading          n, in front of every      n, the same in every layer   none
                     layer of the ansatz
trained_reuploading  as many as you like, two  the features, and 4 n        none
                     per qubit and layer in    trained weights per layer
                     turn
qubit                4 n                       4 n                          none
===================  ========================  ===========================  ===============

The classical map is torch code without data-dependent control flow, so it can be differentiated,
vmapped over stacked members and run on any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.circuits.amplitude_encoding import MAX_AMPLITUDE_QUBITS, AmplitudeEncoding
from qkd_qiskit.circuits.encoding_base import Encoding
from qkd_qiskit.errors import CircuitError

ROTATIONS_PER_QUBIT = 4
ROTATIONS_PER_LAYER = 2  # of each qubit, in front of a layer of trained re-uploading


@dataclass(frozen=True, kw_only=True)
class AngleEncoding(Encoding):
    """RY(pi * feature q) on qubit q."""

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: n."""
        return self.qubits

    def append(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append one RY per qubit in front of layer 0, nothing later."""
        if layer == 0:
            for qubit, angle in enumerate(input_params):
                circuit.ry(angle, qubit)


@dataclass(frozen=True, kw_only=True)
class ReuploadingEncoding(AngleEncoding):
    """RY(pi * feature q) on qubit q in front of every layer of the ansatz, the same n features."""

    def append(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append one RY per qubit in front of every layer."""
        for qubit, angle in enumerate(input_params):
            circuit.ry(angle, qubit)


@dataclass(frozen=True, kw_only=True)
class TrainedReuploadingEncoding(Encoding):
    """RY(w x + b), RZ(w' x' + b') on every qubit in front of every layer, w and b trained.

    Data re-uploading with trained input weights (Perez-Salinas et al., arXiv 1907.02085). The
    features take turns: rotation r of all layers, counted in gate order (layer by layer, qubit by
    qubit, RY before RZ), has feature r mod `features`. A feature in [0, 1] enters as a number from
    -1 to 1: it is the weight that makes an angle of it.

    Attributes:
        features: How many features there are; None = two for each qubit.
    """

    features: int | None = None

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image."""
        return 2 * self.qubits if self.features is None else self.features

    @property
    def weights_per_layer(self) -> int:
        """Trained weights of a layer: w and b of two rotations on each qubit, in gate order."""
        return 2 * ROTATIONS_PER_LAYER * self.qubits

    def parameters(self, features: torch.Tensor) -> torch.Tensor:
        """Return 2 features - 1, (..., num_features): what the weights are multiplied by.

        Raises:
            CircuitError: The last dimension is not num_features.
        """
        self.check(features)
        return 2 * features - 1

    def append(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append RY and RZ on one qubit after the other, in front of every layer."""
        remaining = iter(weights)
        rotation = ROTATIONS_PER_LAYER * self.qubits * layer
        for qubit in range(self.qubits):
            for rotate in (circuit.ry, circuit.rz):
                feature = input_params[rotation % len(input_params)]
                rotate(next(remaining) * feature + next(remaining), qubit)
                rotation += 1


@dataclass(frozen=True, kw_only=True)
class QubitEncoding(Encoding):
    """RX RY RZ RX on each qubit: row q of a (n, 4) image turns qubit q (arXiv 2311.13810 v2).

    Feature 4 q + r is the angle pi * feature of rotation r on qubit q.
    """

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: 4 n."""
        return ROTATIONS_PER_QUBIT * self.qubits

    def append(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append four rotations per qubit in front of layer 0, nothing later."""
        if layer > 0:
            return
        angles = iter(input_params)
        for qubit in range(self.qubits):
            for rotate in (circuit.rx, circuit.ry, circuit.rz, circuit.rx):
                rotate(next(angles), qubit)


ENCODINGS: dict[str, type[Encoding]] = {
    "amplitude": AmplitudeEncoding,
    "angle": AngleEncoding,
    "reuploading": ReuploadingEncoding,
    "trained_reuploading": TrainedReuploadingEncoding,
    "qubit": QubitEncoding,
}


def make_encoding(
    name: str, *, qubits: int, layers: int = 1, features: int | None = None
) -> Encoding:
    """Return the encoding `name`: one of `ENCODINGS`.

    Args:
        name: Which one.
        qubits: Width of the circuit.
        layers: Layers of the ansatz.
        features: How many features trained_reuploading takes; None = two for each qubit. The others
            take as many as their qubits say.

    Raises:
        CircuitError: The name is unknown, or the encoding cannot have so many qubits or features.
    """
    if name not in ENCODINGS:
        raise CircuitError(f"encoding {name!r} is unknown; give one of {', '.join(ENCODINGS)}")
    if qubits < 1:
        raise CircuitError(f"encoding: {qubits} qubits were given; at least 1 is needed")
    if name == "amplitude" and qubits > MAX_AMPLITUDE_QUBITS:
        raise CircuitError(
            f"amplitude encoding of {qubits} qubits takes 2^{qubits} - 2 CX gates; "
            f"at most {MAX_AMPLITUDE_QUBITS} qubits are accepted: use angle or reuploading"
        )
    if name != "trained_reuploading":
        return ENCODINGS[name](qubits=qubits, layers=layers)
    rotations = ROTATIONS_PER_LAYER * qubits * layers
    if features is not None and not 1 <= features <= rotations:
        raise CircuitError(
            f"trained_reuploading: {features} features were given; {qubits} qubits and {layers} "
            f"layers have {rotations} rotations, so 1 to {rotations} are accepted"
        )
    return TrainedReuploadingEncoding(qubits=qubits, layers=layers, features=features)
