"""What twins are made of: fixed maps of inputs, fitted to the pool, and the layers behind them."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from qkd_qiskit.circuits import readout_matrix
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.students.quantum import DEFAULT_SHARPNESS, FIRST_ANGLE, SMALLEST_PROBABILITY

_SMALLEST_SCALE = 1e-12


class Components(nn.Module):
    """Inputs about their mean, on the axes of largest variance or their own, on one scale."""

    mean: Tensor
    axes: Tensor
    scale: Tensor

    def __init__(self, inputs: int, *, components: int | None = None) -> None:
        """Make it for vectors of `inputs` numbers; without `components` the axes are their own."""
        super().__init__()
        self.principal = components is not None
        self.register_buffer("mean", torch.zeros(inputs))
        self.register_buffer("scale", torch.zeros(()))
        self.register_buffer("axes", torch.zeros(inputs if self.principal else 0, components or 0))

    def fit(self, values: Tensor) -> None:
        """Take mean, axes and scale from vectors `(images, inputs)`."""
        centred = values.double()
        mean = centred.mean(dim=0)
        centred = centred - mean
        self.mean.copy_(mean)
        if self.principal:
            # Beyond the number of images the components are 0 on all of them, and do no harm.
            _, vectors = torch.linalg.eigh(centred.T @ centred)
            axes = vectors.flip(1)[:, : self.axes.shape[1]]
            # The sign of an axis is a library's choice: its largest entry is positive here.
            signs = axes.gather(0, axes.abs().argmax(dim=0, keepdim=True)).sign()
            self.axes.copy_(axes * signs)
            centred = centred @ (axes * signs)
        self.scale.copy_(centred.square().mean().sqrt().clamp_min(_SMALLEST_SCALE))

    @property
    def fitted(self) -> bool:
        """Return whether `fit` has been called, or fitted buffers have been loaded."""
        return bool(self.scale > 0)

    def forward(self, values: Tensor) -> Tensor:
        """Return `(batch, components)` of vectors `(batch, inputs)`.

        Raises:
            CircuitError: `fit` has not been called.
        """
        if not self.fitted:
            raise CircuitError(
                "this twin has not seen any images; call student.fit(images) with the training "
                "images first"
            )
        centred = values - self.mean
        return (centred @ self.axes if self.principal else centred) / self.scale


class Direction(nn.Module):
    """Vectors over their norms; the zero vector stays zero."""

    def forward(self, values: Tensor) -> Tensor:
        """Return `(batch, inputs)` of vectors `(batch, inputs)`."""
        return nn.functional.normalize(values, dim=-1)


class Grey(nn.Module):
    """The mean over the channels of an image."""

    def forward(self, images: Tensor) -> Tensor:
        """Return `(batch, 1, height, width)` of images `(batch, channels, height, width)`."""
        return images.mean(dim=1, keepdim=True)


class Bilinear(nn.Module):
    """A linear layer on the p x q features u_i^T X v_j."""

    def __init__(self, size: tuple[int, int], *, features: tuple[int, int], classes: int) -> None:
        """Make it for X of `size`, rows and columns; `features` are p and q."""
        super().__init__()
        self.size = size
        self.left, self.right = (
            nn.Parameter(torch.randn(side, count) / math.sqrt(side))
            for side, count in zip(size, features, strict=True)
        )
        self.linear = nn.Linear(math.prod(features), classes)

    def forward(self, values: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of X `(batch, rows * columns)`."""
        pictures = values.reshape(-1, *self.size)
        logits: Tensor = self.linear((self.left.T @ pictures @ self.right).flatten(1))
        return logits


class RandomFeatures(nn.Module):
    """A linear layer on random projections, which are kept and not trained.

    More of them than there are inputs say nothing new, but by their ReLU.
    """

    def __init__(self, inputs: int, *, features: int, num_classes: int) -> None:
        super().__init__()
        projection = torch.randn(inputs, features) / math.sqrt(inputs)
        self.projection = nn.Parameter(projection, requires_grad=False)
        self.linear = nn.Linear(features, num_classes)

    def forward(self, values: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of vectors `(batch, inputs)`."""
        features = values @ self.projection
        if self.projection.shape[1] > self.projection.shape[0]:
            features = torch.relu(features)
        logits: Tensor = self.linear(features)
        return logits


class Butterfly(nn.Module):
    """Givens rotations of pairs of 2^m amplitudes, and the logarithm of their squares' bins."""

    bins: Tensor

    def __init__(self, wires: int, *, layers: int, num_classes: int) -> None:
        super().__init__()
        self.wires, self.sharpness = wires, DEFAULT_SHARPNESS
        start = torch.empty(layers, 2 ** (wires - 1)).uniform_(-FIRST_ANGLE, FIRST_ANGLE)
        self.angles = nn.Parameter(start)
        matrix = readout_matrix("bins", qubits=wires, num_classes=num_classes)
        self.register_buffer("bins", matrix.float(), persistent=False)

    def amplitudes(self, values: Tensor) -> Tensor:
        """Return amplitudes `(batch, 2^m)` after all layers, of those before them."""
        for layer in range(len(self.angles)):
            pairs = values.reshape(len(values), -1, 2, 2 ** (layer % self.wires))
            angles = self.angles[layer].reshape(pairs.shape[1], pairs.shape[3])
            cosine, sine = angles.cos(), angles.sin()
            first, second = pairs[:, :, 0], pairs[:, :, 1]
            turned = (cosine * first - sine * second, sine * first + cosine * second)
            values = torch.stack(turned, dim=2).flatten(1)
        return values

    def forward(self, values: Tensor) -> Tensor:
        """Return logits `(batch, classes)` of normalised vectors `(batch, 2^m)`."""
        shares = self.amplitudes(values).square() @ self.bins
        return self.sharpness * shares.clamp_min(SMALLEST_PROBABILITY).log()
