"""How features enter a circuit: the gates, and the classical map from features to their angles.

===================  ========================  ===========================  ===============
encoding             features                  circuit parameters           two-qubit gates
===================  ========================  ===========================  ===============
amplitude            2^n                       2^n - 1                      2^n - 2 CX
matrix_product       2^n, approximately        n, and 2 n - 2 per layer of  n - 1 CZ per
                                               the loader, fitted           layer of the
                                                                            loader
angle                n                         n                            none
reuploading          n, in front of every      n, the same in every layer   none
                     layer of the ansatz
trained_reuploading  as many as you like, two  the features, and 4 n        none
                     per qubit and layer in    trained weights per layer
                     turn
qubit                4 n                       4 n                          none
entangled_qubit      4 n                       4 n                          2 n - 2 CZ
===================  ========================  ===========================  ===============

Fidelity of `matrix_product` with the exact state, mean of the first 300 images (the digits; MNIST's
and Fashion-MNIST's test images as 8x8 means of pixels), 6 qubits, where exact loading takes 62 CX:

======  ====  ======  =====  =======
layers  CZ    digits  MNIST  Fashion
======  ====  ======  =====  =======
1       5     0.807   0.785  0.919
2       10    0.889   0.905  0.970
3       15    0.958   0.970  0.986
4       20    0.984   0.989  0.993
======  ====  ======  =====  =======

But for `matrix_product`, whose angles are fitted, the classical map is torch code without
data-dependent control flow, so it can be differentiated, vmapped over stacked members and run on
any device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.circuits.amplitude_encoding import MAX_AMPLITUDE_QUBITS, AmplitudeEncoding
from qkd_qiskit.circuits.ansatze import append_cz_line
from qkd_qiskit.circuits.encoding_base import Encoding, StatePreparation
from qkd_qiskit.circuits.matrix_product_encoding import (
    DEFAULT_LOADER_LAYERS,
    MAX_MATRIX_PRODUCT_QUBITS,
    MatrixProductEncoding,
)
from qkd_qiskit.errors import CircuitError

ROTATIONS_PER_QUBIT = 4
ROTATIONS_PER_LAYER = 2  # of each qubit, in front of a layer of trained re-uploading


@dataclass(frozen=True, kw_only=True)
class AngleEncoding(StatePreparation):
    """RY(pi * feature q) on qubit q."""

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: n."""
        return self.qubits

    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append one RY per qubit."""
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
        self.prepare(circuit, input_params)


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
class QubitEncoding(StatePreparation):
    """RX RY RZ RX on each qubit: row q of a (n, 4) image turns qubit q (arXiv 2311.13810 v2).

    Feature 4 q + r is the angle pi * feature of rotation r on qubit q.
    """

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: 4 n."""
        return ROTATIONS_PER_QUBIT * self.qubits

    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append four rotations per qubit."""
        angles = iter(input_params)
        for qubit in range(self.qubits):
            for rotate in (circuit.rx, circuit.ry, circuit.rz, circuit.rx):
                rotate(next(angles), qubit)


@dataclass(frozen=True, kw_only=True)
class EntangledQubitEncoding(QubitEncoding):
    """The rotations of `qubit`, RX RY RZ RX, with CZ on a line behind the first and the third.

    What a feature does thus depends on the features before it, also on other qubits. RZ commutes
    with CZ: between RY and RZ they would only undo those behind the RZ.
    """

    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append four rounds of rotations and two of CZ between them."""
        rounds = (circuit.rx, circuit.ry, circuit.rz, circuit.rx)
        for number, rotate in enumerate(rounds):
            if number % 2 == 1:
                append_cz_line(circuit)
            for qubit in range(self.qubits):
                rotate(input_params[ROTATIONS_PER_QUBIT * qubit + number], qubit)


ENCODINGS: dict[str, type[Encoding]] = {
    "amplitude": AmplitudeEncoding,
    "matrix_product": MatrixProductEncoding,
    "angle": AngleEncoding,
    "reuploading": ReuploadingEncoding,
    "trained_reuploading": TrainedReuploadingEncoding,
    "qubit": QubitEncoding,
    "entangled_qubit": EntangledQubitEncoding,
}


def make_encoding(
    name: str,
    *,
    qubits: int,
    layers: int = 1,
    features: int | None = None,
    loader_layers: int = DEFAULT_LOADER_LAYERS,
) -> Encoding:
    """Return the encoding `name`: one of `ENCODINGS`.

    Args:
        name: Which one.
        qubits: Width of the circuit.
        layers: Layers of the ansatz.
        features: How many features trained_reuploading takes; None = two for each qubit. The others
            take as many as their qubits say.
        loader_layers: Staircases of matrix_product.

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
    if name == "matrix_product":
        if qubits > MAX_MATRIX_PRODUCT_QUBITS or loader_layers < 1:
            raise CircuitError(
                f"matrix_product encoding of {qubits} qubits in {loader_layers} layers was asked "
                f"for; at most {MAX_MATRIX_PRODUCT_QUBITS} qubits and at least 1 layer are accepted"
            )
        return MatrixProductEncoding(qubits=qubits, layers=layers, loader_layers=loader_layers)
    if name != "trained_reuploading":
        return ENCODINGS[name](qubits=qubits, layers=layers)
    rotations = ROTATIONS_PER_LAYER * qubits * layers
    if features is not None and not 1 <= features <= rotations:
        raise CircuitError(
            f"trained_reuploading: {features} features were given; {qubits} qubits and {layers} "
            f"layers have {rotations} rotations, so 1 to {rotations} are accepted"
        )
    return TrainedReuploadingEncoding(qubits=qubits, layers=layers, features=features)
