"""How features enter a circuit: the gates, and the classical map from features to their angles.

==============  ========================  ===========================  =======================
encoding        features                  circuit parameters           two-qubit gates
==============  ========================  ===========================  =======================
amplitude       2^n                       2^n - 1                      2^n - 2 CX
angle           n                         n                            none
reuploading     n, in front of every      n, the same in every layer   none
                layer of the ansatz
qubit           4 n                       4 n                          none
==============  ========================  ===========================  =======================

The classical map is torch code without data-dependent control flow, so it can be differentiated,
vmapped over stacked members and run on any device.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.errors import CircuitError

MAX_AMPLITUDE_QUBITS = 12
ROTATIONS_PER_QUBIT = 4


@dataclass(frozen=True, kw_only=True)
class Encoding(ABC):
    """The common face of the encodings.

    Attributes:
        qubits: Width of the circuit.
        layers: Layers of the ansatz; re-uploading enters the features once in front of each.
    """

    qubits: int
    layers: int = 1

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Features that the classical side supplies per image."""

    @property
    def num_parameters(self) -> int:
        """Circuit parameters x_000, x_001, ... that the features are turned into."""
        return self.num_features

    @property
    def prepares_state(self) -> bool:
        """Whether the gates prepare exactly `amplitudes(features)`, so that they may be skipped."""
        return False

    def parameters(self, features: torch.Tensor) -> torch.Tensor:
        """Return the angles pi * features, (..., num_parameters), for features (..., num_features).

        Features in [0, 1] thus become angles from 0 to pi; any real feature is accepted.

        Raises:
            CircuitError: The last dimension is not num_features.
        """
        self.check(features)
        return math.pi * features

    def amplitudes(self, features: torch.Tensor) -> torch.Tensor:
        """Return the real state (..., 2^n) that the gates prepare, where there is one.

        Raises:
            CircuitError: The encoding is not one of amplitudes.
        """
        raise CircuitError(f"{type(self).__name__} has no amplitudes; use the amplitude encoding")

    def check(self, features: torch.Tensor) -> None:
        """Raise a CircuitError for features that cannot be encoded."""
        given = features.shape[-1] if features.ndim else 0
        if given != self.num_features:
            raise CircuitError(
                f"{given} features per image were given; this encoding of {self.qubits} qubits "
                f"takes {self.num_features}: choose a reduction to {self.num_features} features"
            )

    @abstractmethod
    def append(
        self, circuit: QuantumCircuit, input_params: Sequence[Parameter], *, layer: int
    ) -> None:
        """Append the gates that belong in front of ansatz layer `layer`, counted from 0."""


@dataclass(frozen=True, kw_only=True)
class AmplitudeEncoding(Encoding):
    """Feature k is the amplitude of outcome k, little-endian (qubit 0 is the lowest bit of k).

    Multiplexed RY and CX, quant-ph/0407010 (Mottonen et al., figure 4), for real states: from qubit
    n - 1 down to qubit 0, each is turned by an angle that depends on the qubits above it. The
    features are normalised; they may be negative, and the sign of the state is kept.
    """

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: 2^n."""
        return 1 << self.qubits

    @property
    def num_parameters(self) -> int:
        """Circuit parameters x_000, x_001, ...: 2^n - 1."""
        return (1 << self.qubits) - 1

    @property
    def prepares_state(self) -> bool:
        """Always true: the gates prepare `amplitudes(features)`."""
        return True

    def amplitudes(self, features: torch.Tensor) -> torch.Tensor:
        """Return features / ||features||, (..., 2^n); the zero vector stays zero inside vmap.

        Raises:
            CircuitError: The last dimension is not 2^n, or a vector is zero or not finite.
        """
        self.check(features)
        scaled = _scaled(features)
        return scaled / _guarded_root(scaled.square().sum(-1, keepdim=True), at_zero=1.0)

    def parameters(self, features: torch.Tensor) -> torch.Tensor:
        """Return the RY angles (..., 2^n - 1) for features (..., 2^n), in gate order.

        On level l the 2^l blocks of amplitudes are split in halves, theta = 2 atan2(norm of the
        upper half, norm of the lower half), signed on the last level, and a Walsh transform in
        Gray-code order turns the block angles into gate angles. Where a block vanishes its angles
        are 0 and so is their gradient.

        Raises:
            CircuitError: The last dimension is not 2^n, or a vector is zero or not finite.
        """
        self.check(features)
        scaled = _scaled(features)
        squares = scaled.square()
        batch = squares.shape[:-1]
        levels = []
        for level in range(self.qubits):
            halves = squares.reshape(*batch, 2 ** (level + 1), -1).sum(-1)
            signed = scaled if level == self.qubits - 1 else _guarded_root(halves)
            lower, upper = signed[..., 0::2], signed[..., 1::2]
            vanishes = (lower == 0) & (upper == 0)
            angles = 2 * torch.atan2(
                torch.where(vanishes, torch.zeros_like(upper), upper),
                torch.where(vanishes, torch.ones_like(lower), lower),
            )
            walsh = torch.as_tensor(_gray_walsh(level), dtype=angles.dtype, device=angles.device)
            levels.append(angles @ walsh)
        return torch.cat(levels, dim=-1)

    def check(self, features: torch.Tensor) -> None:
        """Raise a CircuitError for features that cannot be encoded.

        Inside torch.func transforms, and on another device than the CPU, only the shape is checked:
        values cannot be looked at there, or not without waiting for the device.
        """
        super().check(features)
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(features)
        if wrapped or features.device.type != "cpu":
            return
        largest = features.detach().abs().amax(-1)
        if not bool(torch.isfinite(largest).all()):
            raise CircuitError("amplitude encoding: a feature is NaN or infinite; give finite ones")
        if bool((largest == 0).any()):
            raise CircuitError(
                "amplitude encoding: all features of an image are 0, which is no quantum state; "
                "leave the image out or add a constant to its features"
            )

    def append(
        self, circuit: QuantumCircuit, input_params: Sequence[Parameter], *, layer: int
    ) -> None:
        """Append the state preparation in front of layer 0, nothing later."""
        if layer > 0:
            return
        angles = iter(input_params)
        for level in range(self.qubits):
            target = self.qubits - 1 - level
            for step in range(1, 2**level + 1):
                circuit.ry(next(angles), target)
                if level:
                    # The bit in which the Gray codes of step - 1 and step differ.
                    changed = (step & -step).bit_length() - 1
                    circuit.cx(target + 1 + min(changed, level - 1), target)


@dataclass(frozen=True, kw_only=True)
class AngleEncoding(Encoding):
    """RY(pi * feature q) on qubit q."""

    @property
    def num_features(self) -> int:
        """Features that the classical side supplies per image: n."""
        return self.qubits

    def append(
        self, circuit: QuantumCircuit, input_params: Sequence[Parameter], *, layer: int
    ) -> None:
        """Append one RY per qubit in front of layer 0, nothing later."""
        if layer == 0:
            for qubit, angle in enumerate(input_params):
                circuit.ry(angle, qubit)


@dataclass(frozen=True, kw_only=True)
class ReuploadingEncoding(AngleEncoding):
    """RY(pi * feature q) on qubit q in front of every layer of the ansatz, the same n features."""

    def append(
        self, circuit: QuantumCircuit, input_params: Sequence[Parameter], *, layer: int
    ) -> None:
        """Append one RY per qubit in front of every layer."""
        for qubit, angle in enumerate(input_params):
            circuit.ry(angle, qubit)


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
        self, circuit: QuantumCircuit, input_params: Sequence[Parameter], *, layer: int
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
    "qubit": QubitEncoding,
}


def make_encoding(name: str, *, qubits: int, layers: int = 1) -> Encoding:
    """Return the encoding `name` (amplitude, angle, reuploading or qubit).

    Raises:
        CircuitError: The name is unknown, or the encoding cannot have so many qubits.
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
    return ENCODINGS[name](qubits=qubits, layers=layers)


def _scaled(features: torch.Tensor) -> torch.Tensor:
    # Angles and amplitudes do not depend on the scale; without it, squares of small numbers vanish.
    # For the same reason the scale may be held constant: every derivative is exact.
    largest = features.detach().abs().amax(-1, keepdim=True)
    return features / torch.where(largest == 0, torch.ones_like(largest), largest)


def _guarded_root(squares: torch.Tensor, *, at_zero: float = 0.0) -> torch.Tensor:
    vanishes = squares == 0
    root = torch.where(vanishes, torch.ones_like(squares), squares).sqrt()
    return torch.where(vanishes, torch.full_like(squares, at_zero), root)


@lru_cache(maxsize=MAX_AMPLITUDE_QUBITS)
def _gray_walsh(level: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the matrix (2^l, 2^l) from block angles to gate angles.

    Entry [b, g] is (-1)^(b . gray(g)) / 2^l: the CX gates flip the sign of gate angle g for the
    blocks whose control bits overlap oddly with the Gray code of g.
    """
    size = 2**level
    blocks = np.arange(size)[:, None]
    overlap = blocks & (np.arange(size) ^ (np.arange(size) >> 1))[None, :]
    parity = np.zeros((size, size), dtype=np.int64)
    for bit in range(level):
        parity ^= (overlap >> bit) & 1
    matrix: np.ndarray[Any, np.dtype[np.float64]] = (1.0 - 2.0 * parity) / size
    return matrix
