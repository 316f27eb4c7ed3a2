"""A convolution whose filters are circuits: a torch layer around a real `EstimatorQNN`.

Pixel p of a patch (channel by channel, row by row) turns qubit p; a filter's value is <Z> of
qubit 0, or one value per qubit. All patches of all images under all filters are one call of the
simulator, differentiable in weights and images.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from qiskit import QuantumCircuit
from qiskit_machine_learning.neural_networks import EstimatorQNN
from torch import Tensor, nn
from torch.func import functional_call, vmap

from qkd_qiskit.circuits import StudentCircuit, adopt_circuit
from qkd_qiskit.circuits.filters import filter_circuit
from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.circuits.readouts import observables, readout_matrix
from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.interpolation import NODES, enters_once, grid, interpolate
from qkd_qiskit.storage import CacheFolder, Tensors, compute_once, tensor_digest

Outputs = Literal["one", "each"]
_CACHE_BATCH = 1024  # images


class Quanvolution(nn.Module):
    """Feature maps `(batch, channels, rows, columns)` of images, as `torch.nn.Conv2d` gives them.

    Channels are the filters, or with `outputs="each"` the qubits of the first filter, of the
    second, ... A patch that would reach over the edge is left out (no padding).

    Attributes:
        filters: Number of filters.
        weight: Circuit weights of each filter `(filters, weights)` in radians; a buffer where they
            are not trained.
        qnn: The network that every filter runs with its own weights: inputs are the angles
            pi x pixel.

    Example:
        >>> import torch
        >>> from qkd_qiskit import Quanvolution
        >>> Quanvolution(filters=3, seed=0)(torch.rand(2, 1, 8, 8)).shape
        torch.Size([2, 3, 4, 4])
    """

    def __init__(
        self,
        filters: int = 3,
        *,
        in_channels: int = 1,
        kernel: int = 2,
        stride: int = 2,
        outputs: Outputs = "one",
        circuit: QuantumCircuit | None = None,
        trainable: bool = True,
        interpolated: bool = True,
        seed: int | None = None,
    ) -> None:
        """Draw the weights uniformly from a whole turn.

        Args:
            filters: Number of filters.
            in_channels: Channels of the images.
            kernel: Height and width of a patch in pixels.
            stride: Pixels from a patch to the next.
            outputs: <Z> of qubit 0, or of each qubit.
            circuit: Your own filter on as many qubits as you like, parameters x_000... (one per
                pixel of a patch) and w_000...; default: `filter_circuit`.
            trainable: False: random filters that stay as they are.
            interpolated: Get the values of many patches from the 3^pixels circuit runs that
                determine them, where the circuit allows it; False: run every patch.
            seed: Seed of the weights; None: torch's global random numbers, as torch's layers do.

        Raises:
            CircuitError: The circuit does not fit the patches or cannot be compiled.
        """
        super().__init__()
        if min(filters, in_channels, kernel, stride) < 1:
            raise CircuitError(
                f"filters, in_channels, kernel and stride are {filters}, {in_channels}, {kernel} "
                f"and {stride}; each is at least 1"
            )
        if outputs not in ("one", "each"):
            raise CircuitError(f"outputs {outputs!r} is not accepted; give 'one' or 'each'")
        pixels = in_channels * kernel**2
        self.parts = filter_circuit(pixels) if circuit is None else adopt_circuit(circuit)
        if len(self.parts.input_params) != pixels:
            raise CircuitError(
                f"the filter takes {len(self.parts.input_params)} inputs and a patch has {pixels} "
                f"pixels ({in_channels} channels, kernel {kernel}); give one input per pixel"
            )
        self.filters, self.in_channels, self.kernel, self.stride = (
            filters,
            in_channels,
            kernel,
            stride,
        )
        self.outputs: Outputs = outputs
        self.qnn = _network(self.parts, outputs=outputs)
        shape = (filters, len(self.parts.weight_params))
        connector = CompiledConnector(self.qnn, torch.zeros(shape[1]), small_in_double=False)
        if not connector.compiled:
            raise CircuitError("the filter's circuit cannot be compiled; use unitary gates only")
        # Not a submodule: its own weights are no parameters of this layer.
        self._connector = (connector,)
        self._interpolated = interpolated and enters_once(
            self.parts.circuit, self.parts.input_params
        )
        order = None if seed is None else generator(seed, "quanvolution")
        weight = torch.rand(shape, generator=order) * (2 * math.pi)
        if trainable:
            self.weight = nn.Parameter(weight)
        else:
            self.register_buffer("weight", weight)

    @property
    def circuit(self) -> QuantumCircuit:
        """A filter's circuit without measurements."""
        return self.parts.circuit

    @property
    def channels(self) -> int:
        """Channels of the feature maps."""
        return self.filters * int(self.qnn.output_shape[0])

    @property
    def trainable(self) -> bool:
        """Whether the weights are parameters."""
        return isinstance(self.weight, nn.Parameter)

    def connector(self, number: int) -> CompiledConnector:
        """Return a filter as a connector of its own: inputs `(patches, pixels)` are angles."""
        weights = self.weight[number].detach()
        connector: CompiledConnector = CompiledConnector(
            self.qnn, weights, small_in_double=False
        ).to(weights)
        return connector

    def map_shape(self, images: Tensor) -> tuple[int, int]:
        """Return rows and columns of the feature maps of images.

        Raises:
            InputError: The images have other channels, or are smaller than a patch.
        """
        _, channels, *sizes = images.shape if images.ndim == 4 else (0, 0, 0, 0)
        if channels != self.in_channels or min(sizes) < self.kernel:
            raise InputError(
                f"images have shape {tuple(images.shape)}; give (batch, {self.in_channels}, height,"
                f" width) of at least {self.kernel}x{self.kernel} pixels"
            )
        rows, columns = ((size - self.kernel) // self.stride + 1 for size in sizes)
        return rows, columns

    def circuit_runs(self, images: Tensor) -> int:
        """Return how many circuits feature maps of images are: patches times filters."""
        return len(images) * math.prod(self.map_shape(images)) * self.filters

    def angles(self, images: Tensor) -> Tensor:
        """Return angles of all patches `(pixels, patches)`; images in order, patches row by row."""
        self.map_shape(images)
        patches = images.unfold(2, self.kernel, self.stride).unfold(3, self.kernel, self.stride)
        pixels = self.in_channels * self.kernel**2
        return math.pi * patches.permute(1, 4, 5, 0, 2, 3).reshape(pixels, -1)

    def forward(self, images: Tensor) -> Tensor:
        """Feature maps `(batch, channels, rows, columns)` of images `(batch, channels, ., .)`.

        Raises:
            InputError: As `map_shape`.
        """
        rows, columns = self.map_shape(images)
        angles = self.angles(images.to(self.weight))
        runs = NODES ** len(angles)
        if self._interpolated and runs < angles.shape[1]:
            # In double: the interpolation adds up 3^n numbers.
            corners = grid(len(angles), device=self.weight.device)
            values = self._run(self.weight.double(), corners).to(self.weight.dtype)
            found = interpolate(values, angles)
        else:
            found = self._run(self.weight, angles.T)
        return found.reshape(self.channels, -1, rows, columns).movedim(1, 0)

    def _run(self, weights: Tensor, angles: Tensor) -> Tensor:
        """Return values `(channels, points)` of all filters at angles `(points, pixels)`."""
        (connector,) = self._connector

        def one(weight: Tensor) -> Tensor:
            values: Tensor = functional_call(connector, {"weight": weight}, (angles,))
            return values

        return vmap(one)(weights).movedim(2, 1).reshape(self.channels, -1)

    @torch.no_grad()
    def cached(self, images: Tensor, *, cache: CacheFolder = None) -> Tensor:
        """Feature maps, computed once for the same filters and images and then read from disk.

        For filters that stay as they are; there is no gradient.

        Args:
            images: Images `(N, channels, height, width)`, a whole split.
            cache: Folder that keeps them; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False =
                none.
        """
        shape = (len(images), self.channels, *self.map_shape(images))

        def compute() -> Tensors:
            return {"maps": torch.cat([self(part) for part in torch.split(images, _CACHE_BATCH)])}

        def check(tensors: Tensors) -> None:
            if tensors.get("maps", torch.empty(0)).shape != shape:
                raise InputError(f"no feature maps of shape {shape}")

        content = tensor_digest({"weight": self.weight, "images": images})
        key = f"{dump_circuit(self.circuit)} {self.extra_repr()} {content}"
        return compute_once("quanvolution", key, compute=compute, check=check, cache=cache)["maps"]

    @torch.no_grad()
    def from_probabilities(self, probabilities: Tensor) -> Tensor:
        """Return values `(points, outputs)` of probabilities `(points, 2^n)`, little-endian.

        Qubit q is bit q of the outcome; <Z> is the share of zeros minus that of ones.
        """
        signs = readout_matrix("expectation", qubits=self.circuit.num_qubits, num_classes=2)
        return probabilities.to(signs) @ signs[:, : int(self.qnn.output_shape[0])]

    def extra_repr(self) -> str:
        """Return what torch shows between the brackets."""
        return (
            f"{self.filters}, in_channels={self.in_channels}, kernel={self.kernel}, "
            f"stride={self.stride}, outputs={self.outputs!r}, "
            f"weights={self.weight.shape[1]}, trainable={self.trainable}"
        )


def _network(parts: StudentCircuit, *, outputs: Outputs) -> EstimatorQNN:
    read = observables(parts.circuit.num_qubits)
    return EstimatorQNN(
        circuit=parts.circuit,
        input_params=list(parts.input_params),
        weight_params=list(parts.weight_params),
        observables=read[:1] if outputs == "one" else read,
        input_gradients=True,
    )
