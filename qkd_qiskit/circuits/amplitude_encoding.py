"""Exact amplitude encoding: multiplexed RY and CX, and the classical map to their angles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.circuits.encoding_base import StatePreparation
from qkd_qiskit.errors import CircuitError

MAX_AMPLITUDE_QUBITS = 12


@dataclass(frozen=True, kw_only=True)
class AmplitudeEncoding(StatePreparation):
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

    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append the multiplexed rotations."""
        angles = iter(input_params)
        for level in range(self.qubits):
            target = self.qubits - 1 - level
            for step in range(1, 2**level + 1):
                circuit.ry(next(angles), target)
                if level:
                    # The bit in which the Gray codes of step - 1 and step differ.
                    changed = (step & -step).bit_length() - 1
                    circuit.cx(target + 1 + min(changed, level - 1), target)


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
