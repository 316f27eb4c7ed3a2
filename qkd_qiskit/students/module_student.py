"""A network of the user's own, with one circuit layer between any torch layers, as a student."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from qkd_qiskit.circuits.openqasm import load_circuit
from qkd_qiskit.circuits.readouts import parse_observables
from qkd_qiskit.circuits.standard_gates import first_difference
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.import_paths import user_code
from qkd_qiskit.recipe.seeds import seeded
from qkd_qiskit.students.base import CIRCUIT_FILE, Student
from qkd_qiskit.students.circuit_layer import CircuitLayer, Outside, only_circuit_layer
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.measurement import Measurement, measure_observables
from qkd_qiskit.students.own_network import OwnNetwork, adopt_network
from qkd_qiskit.teachers.own_module import (
    copies_of_results,
    import_factory,
    on_cpu,
    plain_weights,
)

ImageShape = tuple[int, int, int]
_PROBED = 3  # images that a new student is checked with
_CLOSE = 1e-4  # of an image's logits alone and beside others


class ModuleStudent(CircuitStudent):
    """A copy of a network, whose circuit layer runs exactly or where it is told to.

    Its trained numbers are the parameters that need a gradient; what is frozen stays as it is. In
    training, layers are in the mode that they were given in.

    Attributes:
        module: The network, a `CircuitLayer` in the place of its circuit layer.
        layer_name: Name of that layer in it; empty where it is the network.
        readout_matrix: What outcomes make which output `(circuits * 2^n, outputs)`.
    """

    batched = False  # the user's code need not run under vmap
    readout_matrix: Tensor

    def __init__(
        self,
        spec: StudentSpec,
        module: nn.Module,
        network: OwnNetwork,
        *,
        layer_name: str,
        image_shape: ImageShape,
        num_classes: int,
    ) -> None:
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        self.parts, self.foreign_circuit = network.parts, network.parts.circuit
        self.measurement = _measurement(network)
        self.register_buffer("readout_matrix", self.measurement.matrix.float(), persistent=False)
        self.module, self.layer_name = module, layer_name
        self._in_training = [part for part in module.modules() if part.training]
        self.eval()

    @property
    def layer(self) -> CircuitLayer:
        """Return the circuit layer."""
        layer = self.module.get_submodule(self.layer_name)
        assert isinstance(layer, CircuitLayer)
        return layer

    @property
    def weights(self) -> Tensor:
        """Return the circuit weights `(weights,)` in radians, in the order of their names."""
        weights: Tensor = self.layer.weight
        return weights

    @property
    def trains_inputs(self) -> bool:
        """Return whether anything in front of the circuit is trained."""
        with torch.enable_grad():
            return self.encode(_probe(self.image_shape)[:1]).requires_grad

    def features(self, images: Tensor) -> Tensor:
        """Return the images: everything is the network's."""
        return images

    def train(self, mode: bool = True) -> ModuleStudent:
        """Put layers into the mode that they were given in, or all of them into evaluation."""
        super().train(False)
        self.training = mode
        for part in self._in_training if mode else ():
            part.training = True
        return self

    def member_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that need a gradient."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad}

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images."""
        executor = self.executor
        if executor is None:
            return self._run(inputs, None)
        return self._run(inputs, lambda rows: executor(rows, self.weights) @ self.readout_matrix)

    def encode(self, inputs: Tensor) -> Tensor:
        """Return what enters the circuit layer `(images * runs_per_image, inputs)` in radians."""
        entered: list[Tensor] = []

        def catch(rows: Tensor) -> Tensor:
            entered.append(rows)
            return rows.new_zeros(len(rows), self.readout_matrix.shape[1])

        self._run(inputs, catch)
        (rows,) = entered
        return rows

    def decode(self, probabilities: Tensor, inputs: Tensor | None = None) -> Tensor:
        """Return logits `(batch, num_classes)` of outcome probabilities, little-endian.

        Args:
            probabilities: `(rows, circuits * 2^n)`, rows as `encode` gives them.
            inputs: The images; layers may read them beside the circuit.

        Raises:
            CircuitError: The images were not given.
        """
        if inputs is None:
            raise CircuitError(
                "the logits of a network of your own need the images, which other layers may "
                "read; give student.decode(probabilities, images)"
            )
        outputs = probabilities.to(self.readout_matrix.dtype) @ self.readout_matrix
        return self._run(inputs, lambda rows: outputs)

    def load(self, folder: str | Path) -> ModuleStudent:
        """Take the weights that `save` wrote; see `Student.load`."""
        path = Path(folder) / CIRCUIT_FILE
        if path.exists():
            try:
                saved = load_circuit(path).circuit
            except CircuitError as error:
                raise CheckpointError(str(error)) from error
            difference = first_difference(self.circuit, saved)
            if difference is not None:
                raise CheckpointError(
                    f"{path} is another circuit than the network's ({difference}); give the "
                    "network that the student was made from"
                )
        super().load(folder)
        return self

    def _run(self, inputs: Tensor, outside: Outside | None) -> Tensor:
        with _runs_outside(self.layer, outside):
            logits: Tensor = self.module(inputs)
        return logits


@contextmanager
def _runs_outside(layer: CircuitLayer, outside: Outside | None) -> Iterator[None]:
    before, layer.outside = layer.outside, outside
    try:
        yield
    finally:
        layer.outside = before


def _measurement(network: OwnNetwork) -> Measurement:
    circuit = network.parts.circuit
    if network.sums is not None:
        return Measurement((circuit,), network.sums.matrix())
    assert network.observables is not None
    observables = parse_observables(network.observables, qubits=circuit.num_qubits)
    return measure_observables(circuit, observables)


def student_from_module(
    module: object,
    *,
    image_shape: ImageShape,
    num_classes: int,
    spec: StudentSpec | None = None,
    source: str = "",
) -> ModuleStudent:
    """Return a copy of a network as a student; see `Student.from_module`.

    Args:
        module: The network.
        image_shape: (channels, height, width).
        num_classes: Number of logits.
        spec: Names the factory that the network came from; default: it was given in Python.
        source: What error messages call it.

    Raises:
        CircuitError: It is no network with one circuit layer from images to logits.
    """
    if not isinstance(module, nn.Module):
        what = f"class {module.__name__}" if isinstance(module, type) else type(module).__name__
        raise CircuitError(f"{source or 'the student'} is a {what}; give an nn.Module")
    source = source or f"the module {type(module).__name__}"
    given = only_circuit_layer(module, source=source)
    name = next(name for name, part in module.named_modules() if part is given)
    network = adopt_network(given.neural_network, source=f"{source}: its circuit layer")
    with user_code(
        f"{source} cannot be copied",
        advice="give a network that copy.deepcopy takes",
        error=CircuitError,
    ):
        # The copy gets our layer in the place of the user's, wherever that is kept.
        kept = copies_of_results(module) | {id(given): CircuitLayer.of(given)}
        copied = on_cpu(copy.deepcopy(module, kept))
    student = ModuleStudent(
        spec or StudentSpec(kind="module"),
        copied,
        network,
        layer_name=name,
        image_shape=image_shape,
        num_classes=num_classes,
    )
    _check(student, source=source)
    return student


def build_module_student(
    spec: StudentSpec, *, image_shape: ImageShape, num_classes: int
) -> ModuleStudent:
    """Return the student that the factory of `student.module` makes.

    Its random numbers are torch's, from the present state.

    Raises:
        CircuitError: It cannot be imported, fails, or makes no student.
    """
    if spec.module is None:
        raise CircuitError(
            "student.kind: module was given without student.module; give its import path "
            "`package.file:factory`, or the network to Student.from_module in Python"
        )
    source = f"student.module: {spec.module!r}"
    factory = import_factory(spec.module, key="student.module", error=CircuitError)
    with user_code(
        f"{source} fails for image_shape {image_shape} and num_classes {num_classes}",
        advice="give a function (image_shape, num_classes) -> nn.Module",
        error=CircuitError,
    ):
        module = factory(image_shape, num_classes)
    return student_from_module(
        module, image_shape=image_shape, num_classes=num_classes, spec=spec, source=source
    )


def _probe(image_shape: ImageShape) -> Tensor:
    return torch.rand(_PROBED, *image_shape, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def _check(student: ModuleStudent, *, source: str) -> None:
    """Raise where a network is no student, and note how often its circuit runs for an image."""
    images, rows = _probe(student.image_shape), list[int]()

    def count(entering: Tensor) -> Tensor:
        rows.append(len(entering))
        return entering.new_zeros(len(entering), student.readout_matrix.shape[1])

    shape = f"({_PROBED}, {str(student.image_shape)[1:]}"
    with (
        seeded(0),
        user_code(
            f"{source} fails on images of shape {shape}",
            advice="give a network for batches of any size of these images",
            error=CircuitError,
        ),
    ):
        student._run(images, count)
        logits: object = student(images)
        alone = torch.cat([student(image[None]) for image in images])
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (_PROBED, student.num_classes):
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise CircuitError(
            f"{source} gives {what} for {_PROBED} images of {student.num_classes} classes; give "
            f"logits of shape (batch, {student.num_classes})"
        )
    if len(rows) != 1 or rows[0] % _PROBED or not rows[0]:
        raise CircuitError(
            f"{source} runs its circuit layer {len(rows)} times on {sum(rows)} rows for {_PROBED} "
            "images; give a network that runs it once, on one or more rows for each image"
        )
    student.runs_per_image = rows[0] // _PROBED
    if not torch.allclose(logits, alone, rtol=_CLOSE, atol=_CLOSE):
        raise CircuitError(
            f"{source} gives other logits for an image alone than beside others; give a network "
            "whose layers see one image at a time"
        )
    if not plain_weights(student.module):
        raise CircuitError(f"{source} has weights that are no plain tensors; give float tensors")
    if not student.member_parameters():
        raise CircuitError(f"{source} has no parameter that needs a gradient; give one to train")
    _check_training(student, images, source=source)


def _check_training(student: ModuleStudent, images: Tensor, *, source: str) -> None:
    """Raise where a layer changes its own state in training, which members would share."""
    before = {name: buffer.clone() for name, buffer in student.named_buffers()}
    with seeded(0):
        student.train()
        student._run(images, None)
        student.eval()
    changed = [n for n, value in student.named_buffers() if not torch.equal(value, before[n])]
    if changed:
        raise CircuitError(
            f"{source} keeps statistics in training ({changed[0].removeprefix('module.')}), which "
            "students that train together would share; use GroupNorm or LayerNorm, or put that "
            "layer into evaluation mode: layer.eval()"
        )


Student.register(from_module=student_from_module)
