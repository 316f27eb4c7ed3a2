"""The closed form of a trained student: a plain torch module that needs no circuit and no Qiskit.

Outcome probabilities of a circuit are known functions of its inputs once its weights are fixed.

- Amplitudes: the state is the normalised feature vector x, which the rest U of the circuit turns;
  every sum of probabilities is a quadratic form x^T A x with A = Re(U^dagger D U), D diagonal.
- Angles: an input that enters d rotations gives a Fourier sum of degree d in it (Schuld, Sweke,
  Meyer, arXiv 2008.08605), exact from its values at 2 d + 1 points; n inputs, from their grid.

A linear head is part of the forms. They are built in float64 from the circuit itself.
"""

from __future__ import annotations

import copy
import importlib.util
import math
from pathlib import Path

import torch
from qiskit import QuantumCircuit
from qiskit.quantum_info import Operator
from torch import Tensor, nn

from qkd_qiskit.circuits.matrix_product_encoding import MatrixProductEncoding
from qkd_qiskit.errors import CircuitError, InputError, StorageError
from qkd_qiskit.simulator.interpolation import rotations_per_input
from qkd_qiskit.students.quantum import SMALLEST_PROBABILITY, QuantumStudent
from qkd_qiskit.students.reductions import PrincipalComponents

MOST_NUMBERS = 2**22
_CHUNK = 4096  # points of the grid that are run at once


class QuadraticForms(nn.Module):
    """x^T A_c x for each output c, x the normalised features."""

    forms: Tensor

    def __init__(self, forms: Tensor) -> None:
        """Keep the matrices `(outputs, features, features)`."""
        super().__init__()
        self.register_buffer("forms", forms.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `(batch, outputs)` of features `(batch, features)`."""
        unit = features / features.norm(dim=-1, keepdim=True)
        return torch.einsum("bi,cij,bj->bc", unit, self.forms, unit)


class FourierSums(nn.Module):
    """Sums of products of 1, cos(k x_i), sin(k x_i) for each output."""

    coefficients: Tensor
    scale: Tensor

    def __init__(self, coefficients: Tensor, *, degrees: tuple[int, ...], scale: float) -> None:
        """Keep the coefficients `(outputs, products)`, those of the first input varying fastest.

        Args:
            coefficients: As `fourier_coefficients` gives them.
            degrees: The degree in each input.
            scale: From features to angles in radians.
        """
        super().__init__()
        self.degrees, self.middle = degrees, len(degrees) // 2
        # As a tensor: ONNX takes a number for one of float32.
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float64))
        self.register_buffer("coefficients", coefficients.contiguous())

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs `(batch, outputs)` of features `(batch, features)`."""
        angles = features * self.scale
        low = _products(angles[:, : self.middle], self.degrees[: self.middle])
        high = _products(angles[:, self.middle :], self.degrees[self.middle :])
        table = self.coefficients.reshape(-1, high.shape[1], low.shape[1])
        return torch.einsum("chl,bl,bh->bc", table, low, high)


class Surrogate(nn.Module):
    """Images to logits in closed form, in float64.

    Attributes:
        kind: quadratic or fourier.
        numbers: Numbers in the forms or sums.
    """

    def __init__(self, student: QuantumStudent, core: nn.Module, *, kind: str) -> None:
        super().__init__()
        self.kind = kind
        numbers = core.get_buffer("forms" if kind == "quadratic" else "coefficients")
        self.numbers = numbers.numel()
        self.reduction, self.core = _plain(student), core
        self.gamma = student.sharpness if student.head is None else 1.0
        self.logarithm = student.head is None
        self.head: nn.Module = nn.Identity()
        if student.head is not None and not isinstance(student.head, nn.Linear):
            self.head = copy.deepcopy(student.head)
        self.double().requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images `(batch, channels, height, width)`."""
        outputs: Tensor = self.core(self.reduction(images.double()))
        if self.logarithm:
            return self.gamma * outputs.clamp_min(SMALLEST_PROBABILITY).log()
        logits: Tensor = self.head(outputs)
        return logits


class _Affine(nn.Module):
    """Principal components as they were fitted."""

    def __init__(self, fitted: PrincipalComponents) -> None:
        super().__init__()
        for name in ("mean", "components", "low", "span"):
            self.register_buffer(name, getattr(fitted, name).clone())

    def forward(self, images: Tensor) -> Tensor:
        """Return features in [0, 1]."""
        scores = (images.flatten(1) - self.get_buffer("mean")) @ self.get_buffer("components")
        features = (scores - self.get_buffer("low")) / self.get_buffer("span")
        return features.clamp(0, 1)


class _AveragePool(nn.Module):
    """Means over regions as two matrices: float64 pooling is missing where ONNX files run."""

    def __init__(self, pool: nn.AdaptiveAvgPool2d, *, image_size: tuple[int, int]) -> None:
        super().__init__()
        pooled = pool(torch.empty(1, *image_size)).shape[1:]
        for name, pixels, regions in zip(("rows", "columns"), image_size, pooled, strict=True):
            image = torch.eye(pixels, dtype=torch.float64)[None]
            self.register_buffer(name, nn.functional.adaptive_avg_pool1d(image, regions)[0])

    def forward(self, images: Tensor) -> Tensor:
        """Return means `(batch, channels, rows, columns)`."""
        return self.get_buffer("rows").T @ images @ self.get_buffer("columns")


def make_surrogate(student: QuantumStudent) -> Surrogate:
    """Return a trained student in closed form.

    Raises:
        CircuitError: The closed form has more than 2^22 numbers, or an input enters the circuit
            otherwise than as the angle of rotations.
    """
    encoding = student.parts.encoding
    whole = student.head is None or not isinstance(student.head, nn.Linear)
    outputs = student.readout_matrix.shape[1] if whole else student.num_classes
    if isinstance(encoding, MatrixProductEncoding):
        raise CircuitError(
            "the encoding matrix_product fits angles to each image; no closed form is made of it"
        )
    if encoding is not None and encoding.prepares_state:
        _check_size(outputs * 4**student.qubits)
        return Surrogate(student, QuadraticForms(_forms(student)), kind="quadratic")
    degrees = rotations_per_input(student.circuit, student.parts.input_params)
    if degrees is None:
        raise CircuitError(
            "an input of this circuit is not, as it is, the angle of rotations; no closed form is "
            "made of it"
        )
    _check_size(outputs * math.prod(2 * degree + 1 for degree in degrees))
    coefficients = fourier_coefficients(_values_on_grid(student, degrees), degrees)
    scale = 1.0 if encoding is None else math.pi
    core = FourierSums(coefficients, degrees=degrees, scale=scale)
    return Surrogate(student, core, kind="fourier")


@torch.no_grad()
def largest_difference(surrogate: Surrogate, student: QuantumStudent, images: Tensor) -> float:
    """Return the largest difference of logits on images, both computed in float64."""
    exact = copy.deepcopy(student).double()
    logits = exact(exact.features(images.double()))
    return float((surrogate(images) - logits).abs().max())


def export_surrogate(
    surrogate: Surrogate, path: Path, *, image_shape: tuple[int, int, int]
) -> None:
    """Write a module that `torch.export.load(path).module()` reads, without this package.

    It takes images `(batch, channels, height, width)`, any number of them.

    Raises:
        StorageError: The file could not be written.
    """
    program = _program(surrogate, image_shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.export.save(program, path)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def export_onnx(surrogate: Surrogate, path: Path, *, image_shape: tuple[int, int, int]) -> None:
    """Write the same module as ONNX: input `images`, any number of them, output `logits`.

    Raises:
        InputError: onnxscript is not installed.
        StorageError: The file could not be written.
    """
    require_onnx()
    program = torch.onnx.export(
        _program(surrogate, image_shape),
        input_names=["images"],
        output_names=["logits"],
        dynamo=True,
        verbose=False,
    )
    assert program is not None  # as it is with dynamo
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        program.save(path)
    except (OSError, RuntimeError) as error:
        raise StorageError(f"cannot write {path}: {error}") from error


def require_onnx() -> None:
    """Raise where ONNX cannot be written.

    Raises:
        InputError: onnxscript is not installed.
    """
    if importlib.util.find_spec("onnxscript") is None:
        raise InputError(
            "--onnx: ONNX files need onnxscript, which is not installed; pip install "
            "'qkd-qiskit[onnx]', or leave --onnx out"
        )


def _program(
    surrogate: Surrogate, image_shape: tuple[int, int, int]
) -> torch.export.ExportedProgram:
    batch = torch.export.Dim("batch")
    example = (torch.rand(2, *image_shape),)
    # strict, the default of torch 2.6, refuses the batch of that version's own making
    return torch.export.export(surrogate, example, dynamic_shapes=({0: batch},), strict=False)


def fourier_coefficients(values: Tensor, degrees: tuple[int, ...]) -> Tensor:
    """Return coefficients of 1, cos x, sin x, ..., cos d x, sin d x and their products.

    Args:
        values: On the grid of 2 d + 1 points each way `(outputs, points)`, the first input fastest.
        degrees: The degree d in each input.
    """
    table = values.reshape(-1, *(2 * degree + 1 for degree in reversed(degrees)))
    for axis, degree in enumerate(reversed(degrees), start=1):
        nodes = _nodes(degree)
        transform = _basis(nodes[:, None], degree) * (2 / len(nodes))
        transform[:, 0] /= 2
        table = torch.tensordot(table, transform, dims=([axis], [0])).movedim(-1, axis)
    return table.flatten(1)


def _with_head(student: QuantumStudent, outputs: Tensor) -> Tensor:
    """Return outputs of the read-out `(..., outputs)` as the forms have them, a linear head in."""
    if student.head is None:
        return outputs
    scaled = outputs if student.spec.readout == "expectation" else outputs * outputs.shape[-1]
    if not isinstance(student.head, nn.Linear):
        return scaled
    weight, bias = student.head.weight.detach().double(), student.head.bias.detach().double()
    return scaled @ weight.T + bias


def _check_size(numbers: int) -> None:
    if numbers > MOST_NUMBERS:
        raise CircuitError(
            f"the closed form has {numbers:,} numbers, more than the {MOST_NUMBERS:,} that are "
            "made; fewer qubits or classes have fewer"
        )


def _forms(student: QuantumStudent) -> Tensor:
    """Return the forms `(outputs, 2^n, 2^n)`."""
    parts, size = student.parts, 2**student.qubits
    weights = student.weights.detach().double().tolist()
    values = dict(zip(parts.weight_params, weights, strict=True))
    matrix = student.readout_matrix.detach().double()
    forms = torch.zeros(matrix.shape[1], size, size, dtype=torch.float64)
    for number, circuit in enumerate(student.circuits):
        rest = QuantumCircuit(*circuit.qregs)
        for instruction in circuit.data[parts.preparation :]:
            rest.append(instruction)
        used = {parameter: values[parameter] for parameter in rest.parameters}
        unitary = torch.as_tensor(Operator(rest.assign_parameters(used)).data)
        rows = matrix[number * size : (number + 1) * size]
        for part in (unitary.real, unitary.imag):
            forms += torch.einsum("ki,kc,kj->cij", part, rows, part)
    # A linear head mixes the forms; its bias is a multiple of x^T x, which is 1.
    identity = torch.eye(size, dtype=torch.float64)
    mixed = _with_head(student, forms.movedim(0, -1))
    constant = _with_head(student, torch.zeros(matrix.shape[1], dtype=torch.float64))
    return (mixed - constant + identity[:, :, None] * constant).movedim(-1, 0)


@torch.no_grad()
def _values_on_grid(student: QuantumStudent, degrees: tuple[int, ...]) -> Tensor:
    """Return outputs `(outputs, points)` on the grid, the first input fastest."""
    connector = copy.deepcopy(student.connector).double()
    points = torch.arange(math.prod(2 * degree + 1 for degree in degrees))
    parts = []
    for numbers in torch.split(points, _CHUNK):
        columns, left = [], numbers
        for degree in degrees:
            columns.append(_nodes(degree)[left % (2 * degree + 1)])
            left = left // (2 * degree + 1)
        outputs = connector(torch.stack(columns, dim=1)).double()
        if student.spec.readout == "learned":
            outputs = outputs @ student.readout_matrix.detach().double()
        parts.append(_with_head(student, outputs))
    return torch.cat(parts).T


def _nodes(degree: int) -> Tensor:
    count = 2 * degree + 1
    return torch.arange(count, dtype=torch.float64) * (2 * math.pi / count)


def _basis(angles: Tensor, degree: int) -> Tensor:
    """Return 1, cos x, sin x, ... `(batch, 2 d + 1)` of angles `(batch, 1)`."""
    parts = [torch.ones_like(angles)]
    for order in range(1, degree + 1):
        parts += [(order * angles).cos(), (order * angles).sin()]
    return torch.cat(parts, dim=1)


def _products(angles: Tensor, degrees: tuple[int, ...]) -> Tensor:
    """Return the products of the basis functions `(batch, products)`, the first input fastest."""
    product = angles.new_ones(angles.shape[0], 1)
    for column, degree in enumerate(degrees):
        functions = _basis(angles[:, column : column + 1], degree)
        product = (functions[:, :, None] * product[:, None, :]).flatten(1)
    return product


def _plain(student: QuantumStudent) -> nn.Module:
    """Return a copy of the reduction without checks of values, which an exported graph has not."""
    layers: list[nn.Module] = []
    for layer in student.reduction.children():
        if isinstance(layer, PrincipalComponents):
            layers.append(_Affine(layer))
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            layers.append(_AveragePool(layer, image_size=student.image_shape[1:]))
        else:
            layers.append(copy.deepcopy(layer))
    return nn.Sequential(*layers)
