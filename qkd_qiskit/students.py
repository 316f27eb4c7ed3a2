"""What learns: a circuit as a QNN in a connector, between a reduction and a read-out.

    images -> features (fixed) -> reduction (trained) -> encoding -> circuit -> read-out -> logits

`student.qnn` is a `SamplerQNN` or `EstimatorQNN`, `student.connector` a `TorchConnector`. What runs
on another target needs only `student.encode`, `student.circuit` and `student.decode`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path

import torch
from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.circuits import (
    StudentCircuit,
    adopt_circuit,
    build_circuit,
    readout_matrix,
)
from qkd_qiskit.circuits.networks import make_qnn
from qkd_qiskit.circuits.openqasm import dump_circuit, load_circuit
from qkd_qiskit.engine import CompiledConnector
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, FILTER_STUDENTS, StudentSpec
from qkd_qiskit.recipes import parse_recipe
from qkd_qiskit.reductions import TRAINED, PrincipalComponents, make_reduction
from qkd_qiskit.seeds import derive_seed, seeded
from qkd_qiskit.storage import load_tensors, save_tensors, write_text

SMALLEST_PROBABILITY = 1e-6  # log p of an outcome that was never seen stays finite
DEFAULT_SHARPNESS = 8.0
FIRST_ANGLE = 0.3  # radians; circuits that start near the identity train better than random ones
FIRST_FEATURE_SCALE = 0.1  # so that angles of a trained reduction do not start wrapped around
CARD_FILE, WEIGHTS_FILE, CIRCUIT_FILE = "student.json", "weights.safetensors", "circuit.qasm"


class Student(nn.Module):
    """A torch module that maps images or prepared features to logits `(batch, num_classes)`.

    Attributes:
        spec: What it was built from.
        image_shape: (channels, height, width) of the images it takes.
        num_classes: Number of logits.
        reduction: From images to the features that are encoded.
        foreign_circuit: The circuit of a student that was built from one, else None.
        outcomes: Where the circuit runs while the student trains, as a torch function from input
            values and weights to outcome probabilities; None = exactly, in the connector.
    """

    foreign_circuit: QuantumCircuit | None = None
    outcomes: Callable[[Tensor, Tensor], Tensor] | None = None

    def __init__(
        self, spec: StudentSpec, *, image_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        self.spec, self.image_shape, self.num_classes = spec, image_shape, num_classes
        self.reduction: nn.Module = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """What a fixed reduction makes of images, computed once; images where it is trained."""
        return images if self.spec.reduction in TRAINED else self.reduction(images)

    def fit(self, images: Tensor) -> None:
        """Fit a fixed reduction that depends on data (pca) to the training pool, once.

        Raises:
            CircuitError: There are fewer images than components.
        """
        for module in self.reduction.modules():
            if isinstance(module, PrincipalComponents) and not module.fitted:
                module.fit(images)

    def reduce(self, inputs: Tensor) -> Tensor:
        """Features `(batch, num_features)` of images `(batch, channels, height, width)`.

        Inputs that `features` has prepared already `(batch, num_features)` are taken as they are.
        """
        return self.reduction(inputs) if inputs.ndim == 4 else inputs

    @property
    def circuit(self) -> QuantumCircuit | None:
        """What runs on a target, without measurements; None where no circuit runs."""
        return None

    def load_parameters(self, state: Mapping[str, Tensor]) -> None:
        """Copy parameters by name."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                parameter.copy_(state[name])

    @property
    def num_parameters(self) -> int:
        """Trained numbers, circuit weights included."""
        return count_trained(self)

    def save(self, folder: str | Path) -> None:
        """Write specification, weights and circuit into a folder that `load_student` reads.

        Raises:
            StorageError: A file could not be written.
        """
        folder = Path(folder)
        card = {
            "student": asdict(self.spec),
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "foreign_circuit": self.foreign_circuit is not None,
        }
        write_text(folder / CARD_FILE, json.dumps(card, indent=2) + "\n")
        circuit = self.foreign_circuit if self.circuit is None else self.circuit
        if circuit is not None:
            write_text(folder / CIRCUIT_FILE, dump_circuit(circuit))
        # Last: where the weights are, the student is whole.
        save_tensors(folder / WEIGHTS_FILE, self.saved_tensors())

    def saved_tensors(self) -> dict[str, Tensor]:
        """Parameters and fitted buffers by name, each once."""
        kept = self.state_dict()
        buffers = {name: value for name, value in self.named_buffers() if name in kept}
        return dict(self.named_parameters()) | buffers


class QuantumStudent(Student):
    """A circuit between a reduction and a read-out.

    Attributes:
        parts: The circuit, which of its parameters is which, and its encoding.
        qnn: SamplerQNN, or EstimatorQNN for the read-out `expectation`.
        connector: The TorchConnector around it.
        head: Layers from the read-out to logits, or None: logits = gamma log p.
        readout_matrix: Which outcomes make which output `(2^n, outputs)`, outcomes little-endian.
    """

    readout_matrix: Tensor

    def __init__(
        self,
        spec: StudentSpec,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        parts: StudentCircuit,
        seed: int,
    ) -> None:
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        self.parts = parts
        self.reduction = make_reduction(
            spec.reduction, image_shape=image_shape, num_features=_num_features(parts)
        )
        self.qnn = make_qnn(parts, readout=spec.readout, num_classes=num_classes)
        _shrink(self.reduction, parts)
        with seeded(derive_seed(seed, "student", "circuit")):
            weights = torch.empty(len(parts.weight_params)).uniform_(-FIRST_ANGLE, FIRST_ANGLE)
        self.connector = CompiledConnector(
            self.qnn, initial_weights=weights.numpy(), preparation=parts.preparation
        )
        matrix = readout_matrix(spec.readout, qubits=self.qubits, num_classes=num_classes)
        if spec.readout == "learned":
            # A parameter, though no gradient reaches it: a population keeps one for each member.
            self.readout_matrix = nn.Parameter(matrix.float(), requires_grad=False)
        else:
            self.register_buffer("readout_matrix", matrix.float(), persistent=False)
        self.head = _make_head(spec, inputs=matrix.shape[1], num_classes=num_classes)
        if self.head is None:
            start = DEFAULT_SHARPNESS if spec.sharpness == "learned" else float(spec.sharpness)
            log_sharpness = torch.tensor(math.log(start))
            if spec.sharpness == "learned":
                self.log_sharpness = nn.Parameter(log_sharpness)
            else:
                self.register_buffer("log_sharpness", log_sharpness, persistent=False)

    @property
    def circuit(self) -> QuantumCircuit:
        """The circuit without measurements, parameters x_000... (inputs) and w_000... (weights)."""
        return self.parts.circuit

    @property
    def qubits(self) -> int:
        """Width of the circuit."""
        return int(self.circuit.num_qubits)

    @property
    def weights(self) -> Tensor:
        """Circuit weights `(weights,)` in radians, in the order of their names."""
        weights: Tensor = self.connector.weight
        return weights

    @property
    def sharpness(self) -> float:
        """Gamma in logits = gamma log p, for a class-bin read-out without a head."""
        return float(self.log_sharpness.detach().exp())

    @property
    def only_circuit_is_trained(self) -> bool:
        """Whether the circuit weights are all that is trained, on exact outcomes."""
        plain = self.head is None and self.spec.sharpness != "learned" and self.outcomes is None
        shared = self.spec.readout != "learned"
        return plain and shared and self.spec.reduction not in TRAINED

    @property
    def input_names(self) -> list[str]:
        """Names of the circuit's input parameters, in the order of `encode`'s columns."""
        return [parameter.name for parameter in self.parts.input_params]

    @property
    def weight_names(self) -> list[str]:
        """Names of the circuit's weights, in the order of `weights`."""
        return [parameter.name for parameter in self.parts.weight_params]

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `(batch, num_classes)` of images or prepared features."""
        features, encoding = self.reduce(inputs), self.parts.encoding
        if self.outcomes is not None:
            return self.decode(self.outcomes(self._input_values(features), self.weights))
        if encoding is not None and encoding.prepares_state:
            outputs = self.connector.from_states(encoding.amplitudes(features))
        else:
            outputs = self.connector(self._input_values(features))
        return self.decode(outputs) if self.spec.readout == "learned" else self._logits(outputs)

    def circuit_inputs(self, features: Tensor) -> dict[str, Tensor]:
        """Prepared features as the engine takes them: `states` to start from, or `inputs`."""
        encoding = self.parts.encoding
        if encoding is not None and encoding.prepares_state:
            return {"states": encoding.amplitudes(features)}
        return {"inputs": self._input_values(features)}

    def features(self, images: Tensor) -> Tensor:
        """As `Student.features`; features that cannot be encoded are refused here.

        Raises:
            CircuitError: An amplitude-encoded image is zero everywhere.
        """
        features = super().features(images)
        if self.spec.reduction not in TRAINED and self.parts.encoding is not None:
            self.parts.encoding.check(features)
        return features

    def encode(self, inputs: Tensor) -> Tensor:
        """Values of the circuit's input parameters `(batch, inputs)` in radians."""
        return self._input_values(self.reduce(inputs))

    def decode(self, probabilities: Tensor) -> Tensor:
        """Logits of outcome probabilities `(batch, 2^n)`, outcomes little-endian (qubit 0 lowest).

        This is all that follows a measurement: `student(x)` equals `student.decode(p)` where p are
        the exact probabilities of `student.circuit` at `student.encode(x)` and `student.weights`.
        """
        matrix = self.readout_matrix.detach()
        return self._logits(probabilities.to(matrix.dtype) @ matrix)

    def _input_values(self, features: Tensor) -> Tensor:
        encoding = self.parts.encoding
        return features if encoding is None else encoding.parameters(features)

    def _logits(self, readout: Tensor) -> Tensor:
        if self.head is None:
            log_p = readout.clamp_min(SMALLEST_PROBABILITY).log()
            return self.log_sharpness.exp() * log_p
        # Probabilities are of the order of 1 / outcomes; a linear layer expects numbers around 1.
        scale = 1 if self.spec.readout == "expectation" else readout.shape[-1]
        logits: Tensor = self.head(readout * scale)
        return logits


def _make_head(spec: StudentSpec, *, inputs: int, num_classes: int) -> nn.Module | None:
    if spec.head == "none":
        return None
    if spec.head == "linear":
        return nn.Linear(inputs, num_classes)
    width = spec.head_width
    return nn.Sequential(nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, num_classes))


def make_student(
    spec: StudentSpec,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    circuit: QuantumCircuit | None = None,
    seed: int = 0,
) -> Student:
    """A student with fresh parameters.

    Args:
        spec: What to build.
        image_shape: (channels, height, width) of the images that it will see.
        num_classes: Number of logits.
        circuit: Your own circuit in place of encoding, ansatz and layers: parameters x_000...,
            or a ParameterVector x, are set to the reduced features as they are; w_000..., or a
            ParameterVector w or θ, are trained.
        seed: Seed of the initialisation; each part has its own stream, global state is untouched.

    Raises:
        CircuitError: Features, qubits, classes and read-out do not fit together.
    """
    if num_classes < 2 or min(image_shape) < 1:
        raise CircuitError(
            f"a student of {num_classes} classes for images of shape {image_shape} was asked for; "
            f"give at least 2 classes and 1 pixel"
        )
    if spec.kind in FILTER_STUDENTS:
        from qkd_qiskit.filter_students import FilterStudent

        with seeded(derive_seed(seed, "student", "layers")):
            return FilterStudent(spec, image_shape=image_shape, num_classes=num_classes)
    if circuit is not None:
        parts = adopt_circuit(circuit)
    elif spec.circuit is not None:
        parts = load_circuit(spec.circuit)
    else:
        parts = build_circuit(
            qubits=spec.qubits, encoding=spec.encoding, ansatz=spec.ansatz, layers=spec.layers
        )
    with seeded(derive_seed(seed, "student", "layers")):
        student: Student = QuantumStudent(
            spec, image_shape=image_shape, num_classes=num_classes, parts=parts, seed=seed
        )
        if spec.kind in CLASSICAL_STUDENTS:
            from qkd_qiskit.classical_students import ClassicalStudent

            student = ClassicalStudent(
                spec,
                image_shape=image_shape,
                num_classes=num_classes,
                num_features=_num_features(parts),
                matched=student.num_parameters,
            )
    student.foreign_circuit = parts.circuit if parts.encoding is None else None
    return student


def load_student(folder: str | Path) -> Student:
    """The student that `student.save` wrote.

    Raises:
        CheckpointError: A file is missing, damaged or does not fit the others.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        spec = parse_recipe({"student": card["student"], "arms": ["label_only"]}).student
        channels, height, width = (int(size) for size in card["image_shape"])
        num_classes, foreign = int(card["num_classes"]), bool(card["foreign_circuit"])
    except (OSError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{folder} holds no saved student ({reason}); give a folder written by student.save, "
            f"such as runs/NAME/distilled/seed_0"
        ) from error
    student = make_student(
        replace(spec, circuit=None),
        image_shape=(channels, height, width),
        num_classes=num_classes,
        circuit=load_circuit(folder / CIRCUIT_FILE).circuit if foreign else None,
    )
    tensors, _ = load_tensors(folder / WEIGHTS_FILE)
    expected = student.saved_tensors()
    wrong = [name for name in expected if name not in tensors]
    wrong += [name for name in tensors if name not in expected]
    wrong += [n for n in expected if n in tensors and tensors[n].shape != expected[n].shape]
    wrong += [n for n, tensor in tensors.items() if not bool(tensor.isfinite().all())]
    if wrong:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: tensor {wrong[0]!r} is missing, unexpected, of another "
            f"shape or not finite; the weights do not belong to {CARD_FILE} beside them"
        )
    with torch.no_grad():
        for name, tensor in expected.items():
            tensor.copy_(tensors[name])
    return student


def _num_features(parts: StudentCircuit) -> int:
    return len(parts.input_params) if parts.encoding is None else parts.encoding.num_features


def _shrink(reduction: nn.Module, parts: StudentCircuit) -> None:
    """Start the angles that a trained reduction gives near 0; amplitudes have no scale."""
    if parts.encoding is None or not parts.encoding.prepares_state:
        with torch.no_grad():
            layers = [layer for layer in reduction.modules() if isinstance(layer, nn.Linear)]
            for parameter in (p for layer in layers[-1:] for p in layer.parameters()):
                parameter.mul_(FIRST_FEATURE_SCALE)


def count_trained(*modules: nn.Module) -> int:
    """Trained numbers of modules."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
