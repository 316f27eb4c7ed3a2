"""Approximate amplitude encoding in few gates: layers of a staircase, fitted to each image.

The circuit is that of a layered matrix product state (Ran, arXiv 1908.07958). It is transpiled
once: what an image has of its own are the angles. They are kept by content, in memory and, for
more than a few images at once, on disk.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from torch import Tensor

from qkd_qiskit.circuits.amplitude_encoding import AmplitudeEncoding
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.loading import fit_angles, staircase, states_of
from qkd_qiskit.storage import Tensors, compute_once, tensor_digest

MAX_MATRIX_PRODUCT_QUBITS = 10
DEFAULT_LOADER_LAYERS = 3
_VERSION = 1  # of the fit, in the key of what is kept on disk
_FEW = 64  # images that are fitted faster than a file is written and read
_MOST_KEPT = 64  # batches in memory


@dataclass(frozen=True, kw_only=True)
class MatrixProductEncoding(AmplitudeEncoding):
    """Feature k is the amplitude of outcome k as nearly as `loader_layers` staircases can.

    A layer is RY on every qubit and, from the highest pair of neighbours to the lowest, a CZ with
    an RY in front of the next one: n - 1 CZ on a line, where exact encoding takes 2^n - 2 CX. The
    fidelity with the exact state is that of a local optimum; `fidelities` gives it.

    Attributes:
        loader_layers: Staircases.
    """

    loader_layers: int = DEFAULT_LOADER_LAYERS

    @property
    def num_parameters(self) -> int:
        """Circuit parameters x_000, x_001, ...: n, and 2 n - 2 per layer (n for one qubit)."""
        return sum(len(gate) == 1 for gate in staircase(self.qubits, self.loader_layers))

    def parameters(self, features: Tensor) -> Tensor:
        """Return the fitted RY angles (..., num_parameters) for features (..., 2^n), in gate order.

        They are found without a gradient.

        Raises:
            CircuitError: The last dimension is not 2^n, a vector is zero or not finite, or the
                features are to be differentiated.
        """
        if features.requires_grad and torch.is_grad_enabled():
            raise CircuitError(
                "matrix_product encoding: its angles are fitted, not differentiated; choose a "
                "reduction that is not trained, or the amplitude encoding"
            )
        self.check(features)
        angles: Tensor = _Fitted.apply(features.detach(), self.qubits, self.loader_layers)
        return angles

    def amplitudes(self, features: Tensor) -> Tensor:
        """Return the real states (..., 2^n) that the fitted circuits prepare, of length 1.

        Raises:
            CircuitError: As `parameters`.
        """
        angles = self.parameters(features)
        states: Tensor = _Prepared.apply(angles, self.qubits, self.loader_layers)
        return states

    def fidelities(self, features: Tensor) -> Tensor:
        """Return the fidelity (...) of each prepared state with the exact one.

        Raises:
            CircuitError: As `parameters`.
        """
        return (self.amplitudes(features) * super().amplitudes(features)).sum(-1).square()

    def prepare(self, circuit: QuantumCircuit, input_params: Sequence[Parameter]) -> None:
        """Append the staircases."""
        angles = iter(input_params)
        for gate in staircase(self.qubits, self.loader_layers):
            if len(gate) == 1:
                circuit.ry(next(angles), gate[0])
            else:
                circuit.cz(*gate)


class _Rowwise(torch.autograd.Function):
    """A map of rows that NumPy computes, under vmap too; it has no gradient."""

    generate_vmap_rule = False

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        return None, None, None


class _Fitted(_Rowwise):
    """Angles of features."""

    @staticmethod
    def forward(features: Tensor, qubits: int, layers: int) -> Tensor:
        rows = features.reshape(-1, features.shape[-1]).cpu()
        found = _kept_angles(rows, qubits=qubits, layers=layers)
        return found.to(features).reshape(*features.shape[:-1], -1)

    @staticmethod
    def vmap(info: Any, in_dims: Any, features: Tensor, qubits: int, layers: int) -> Any:
        return _Fitted.apply(features.movedim(in_dims[0], 0), qubits, layers), 0


class _Prepared(_Rowwise):
    """States of angles."""

    @staticmethod
    def forward(angles: Tensor, qubits: int, layers: int) -> Tensor:
        rows = angles.reshape(-1, angles.shape[-1]).cpu().double().numpy()
        states = torch.from_numpy(states_of(rows, qubits=qubits, layers=layers))
        return states.to(angles).reshape(*angles.shape[:-1], -1)

    @staticmethod
    def vmap(info: Any, in_dims: Any, angles: Tensor, qubits: int, layers: int) -> Any:
        return _Prepared.apply(angles.movedim(in_dims[0], 0), qubits, layers), 0


_lock = threading.Lock()
_batches: OrderedDict[str, Tensor] = OrderedDict()


def _kept_angles(rows: Tensor, *, qubits: int, layers: int) -> Tensor:
    """Return the angles of features `(batch, 2^n)`, fitted once for the same features."""
    key = f"{_VERSION} {qubits} {layers} {tensor_digest({'features': rows})}"
    with _lock:
        if key in _batches:
            _batches.move_to_end(key)
            return _batches[key]

    def fit() -> Tensors:
        states = rows.double().numpy()
        for size in (np.inf, 2):  # the largest first: squares of small numbers vanish
            norms = np.linalg.norm(states, ord=size, axis=1, keepdims=True)
            states = states / np.where(norms == 0, 1.0, norms)
        return {"angles": torch.from_numpy(fit_angles(states, layers=layers))}

    def check(tensors: Tensors) -> None:
        angles = tensors.get("angles", torch.empty(0))
        if angles.shape[:1] != rows.shape[:1] or not torch.isfinite(angles).all():
            raise CircuitError(f"no finite angles of {len(rows)} images")

    small = len(rows) <= _FEW
    made = fit() if small else compute_once("loaded_angles", key, compute=fit, check=check)
    with _lock:
        _batches[key] = made["angles"]
        while len(_batches) > _MOST_KEPT:
            _batches.popitem(last=False)
    return made["angles"]
