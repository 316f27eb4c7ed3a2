"""The common face of the encodings: features of an image to circuit parameters, and their gates."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.errors import CircuitError


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
    def weights_per_layer(self) -> int:
        """Trained weights that the gates of a layer take beside the inputs."""
        return 0

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
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append the gates that belong in front of ansatz layer `layer`, counted from 0.

        Args:
            circuit: What is appended to.
            input_params: All inputs.
            layer: Number of the layer.
            weights: The layer's own `weights_per_layer` weights.
        """


@dataclass(frozen=True, kw_only=True)
class StatePreparation(Encoding):
    """An encoding whose gates all stand in front of layer 0."""

    def append(
        self,
        circuit: QuantumCircuit,
        input_params: Sequence[Parameter],
        *,
        layer: int,
        weights: Sequence[Parameter] = (),
    ) -> None:
        """Append the gates in front of layer 0, nothing later."""
        if layer == 0:
            self.prepare(circuit, input_params)

    @abstractmethod
    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append the gates of all inputs."""
