"""What every student is: a torch module from images to logits that can be saved.

images -> features (fixed) -> reduction (trained) -> encoding -> circuit -> read-out -> logits
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, ClassVar

import torch
from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.display import changed_settings, html_pairs
from qkd_qiskit.storage import load_tensors, save_tensors, write_text
from qkd_qiskit.students.reductions import TRAINED, PrincipalComponents
from qkd_qiskit.targets.gradients import CircuitExecutor

_LEFT_OUT = ("observables", "module")  # where null: cards of students without are written as ever
CARD_FILE, WEIGHTS_FILE, CIRCUIT_FILE = "student.json", "weights.safetensors", "circuit.qasm"


class Student(nn.Module):
    """A torch module that maps images or prepared features to logits `(batch, num_classes)`.

    Attributes:
        spec: What it was built from.
        image_shape: (channels, height, width) of the images it takes.
        num_classes: Number of logits.
        reduction: From images to the features that are encoded.
        foreign_circuit: The circuit of a student that was built from one, else None.
        executor: Where the circuit runs while the student trains, as a torch function from input
            values and weights to outcome probabilities; None = exactly, in the connector.
        batched: Whether members of a population run in one call, under torch.func.vmap.
    """

    _from_module: ClassVar[Callable[..., Student]]
    batched: ClassVar[bool] = True

    foreign_circuit: QuantumCircuit | None = None
    executor: CircuitExecutor | None = None

    def __init__(
        self, spec: StudentSpec, *, image_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        super().__init__()
        self.spec, self.image_shape, self.num_classes = spec, image_shape, num_classes
        self.reduction: nn.Module = nn.Identity()

    def features(self, images: Tensor) -> Tensor:
        """Return what a fixed reduction makes of images, once; images where it is trained."""
        return images if self.spec.reduction in TRAINED else self.reduction(images)

    def fit(self, images: Tensor) -> None:
        """Fit a fixed reduction that depends on data (pca) to the training pool, once.

        Raises:
            CircuitError: There are fewer images than components.
        """
        for module in self.reduction.modules():
            if isinstance(module, PrincipalComponents) and not module.fitted:
                module.fit(images)

    @property
    def fit_state(self) -> tuple[Tensor, ...]:
        """What `fit` has taken from the pool, for another student of the same specification."""
        return tuple(self.reduction.buffers())

    def load_fit(self, state: Sequence[Tensor]) -> None:
        """Copy what `fit` has taken for a student of the same specification: its `fit_state`."""
        for buffer, values in zip(self.reduction.buffers(), state, strict=True):
            buffer.copy_(values)

    def reduce(self, inputs: Tensor) -> Tensor:
        """Return features `(batch, num_features)` of images `(batch, channels, height, width)`.

        Inputs that `features` has prepared already `(batch, num_features)` are taken as they are.
        """
        return self.reduction(inputs) if inputs.ndim == 4 else inputs

    @property
    def circuit(self) -> QuantumCircuit | None:
        """What runs on a target, without measurements; None where no circuit runs."""
        return None

    @property
    def circuits(self) -> tuple[QuantumCircuit, ...]:
        """What runs on a target, once for each basis that is measured; none where none runs."""
        return () if self.circuit is None else (self.circuit,)

    @staticmethod
    def from_module(
        module: nn.Module, *, image_shape: tuple[int, int, int], num_classes: int
    ) -> Student:
        """Return a network of your own that holds one circuit layer as a student.

        The student has a copy, `student.module`, and the network is left as it is: two students of
        one network begin with the same weights.

        Args:
            module: From images (batch, channels, height, width) to logits (batch, num_classes),
                with one `TorchConnector` or `CompiledConnector` around a SamplerQNN or EstimatorQNN
                between any other layers. Parameters that need no gradient stay as they are.
            image_shape: (channels, height, width) of the images.
            num_classes: Number of logits.

        Raises:
            CircuitError: It has no circuit layer or several, fails on such images, gives another
                number of logits, or its circuit cannot run on a target.

        Example:
            >>> import torch
            >>> from torch import nn
            >>> from qkd_qiskit import CompiledConnector, Student, StudentSpec, make_student
            >>> spec = StudentSpec(qubits=2, encoding="angle")
            >>> built = make_student(spec, image_shape=(1, 8, 8), num_classes=10)
            >>> layer = CompiledConnector(built.qnn)  # of any SamplerQNN or EstimatorQNN
            >>> network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), layer, nn.Linear(4, 10))
            >>> student = Student.from_module(network, image_shape=(1, 8, 8), num_classes=10)
            >>> student(torch.zeros(3, 1, 8, 8)).shape
            torch.Size([3, 10])
        """
        return Student._from_module(module, image_shape=image_shape, num_classes=num_classes)

    @staticmethod
    def register(*, from_module: Callable[..., Student]) -> None:
        """Set what `from_module` calls: it knows the students of networks."""
        Student._from_module = from_module

    def member_parameters(self) -> dict[str, nn.Parameter]:
        """Return the parameters that each member of a population has of its own, by name."""
        return dict(self.named_parameters())

    def load_parameters(self, state: Mapping[str, Tensor]) -> None:
        """Copy parameters by name."""
        with torch.no_grad():
            for name, parameter in self.member_parameters().items():
                parameter.copy_(state[name])

    @property
    def device(self) -> torch.device:
        """Where it lies: on the CPU, or after `student.to("cuda")` on a GPU."""
        return next(self.parameters()).device

    def _repr_html_(self) -> str:
        circuit, shape = self.circuit, " x ".join(map(str, self.image_shape))
        size = "" if circuit is None else f"{circuit.num_qubits} qubits, depth {circuit.depth()}"
        if circuit is not None:
            size += f", {circuit.num_nonlocal_gates()} two-qubit gates before transpiling"
        return html_pairs(
            {
                "takes": f"images of {shape} in {self.num_classes} classes",
                "circuit": size,
                "trained numbers": f"{self.num_parameters}",
                "settings": changed_settings(self.spec),
            },
            title=f"Student of kind {self.spec.kind}",
        )

    def extra_repr(self) -> str:
        """Return the kind, the images, the classes and the trained numbers."""
        return (
            f"{self.spec.kind}, images {self.image_shape}, {self.num_classes} classes, "
            f"{self.num_parameters} trained numbers"
        )

    @property
    def num_parameters(self) -> int:
        """TrainingResult numbers, circuit weights included."""
        return count_trained(self)

    def save(self, folder: str | Path) -> None:
        """Write specification, weights and circuit into a folder that `load_student` reads.

        Raises:
            StorageError: A file could not be written.
        """
        folder = Path(folder)
        write_text(folder / CARD_FILE, json.dumps(self.card(), indent=2) + "\n")
        circuit = self.foreign_circuit if self.circuit is None else self.circuit
        if circuit is not None:
            text = dump_circuit(circuit, checked=self.foreign_circuit is not None)
            write_text(folder / CIRCUIT_FILE, text)
        # Last: where the weights are, the student is whole.
        save_tensors(folder / WEIGHTS_FILE, self.saved_tensors())

    def card(self) -> dict[str, Any]:
        """Return what `load_student` makes a student of this shape from."""
        fields = asdict(self.spec)
        for name in _LEFT_OUT:
            if fields[name] is None:
                del fields[name]
        return {
            "student": fields,
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "foreign_circuit": self.foreign_circuit is not None,
        }

    def load(self, folder: str | Path) -> Student:
        """Take the weights that `save` wrote into a folder, and return the student itself.

        This is for students that `load_student` cannot make anew, as those of a network of your
        own: `Student.from_module(network, ...).load(folder)`.

        Raises:
            CheckpointError: There is no saved student, or it is of another shape.
        """
        folder = Path(folder)
        card = read_card(folder)
        own = json.loads(json.dumps(self.card()))
        wrong = [key for key in ("image_shape", "num_classes") if card.get(key) != own[key]]
        if wrong:
            raise CheckpointError(
                f"{folder / CARD_FILE} is of a student with {wrong[0]} {card.get(wrong[0])}, this "
                f"one has {own[wrong[0]]}; give the folder of a student of the same shape"
            )
        self.load_tensors(folder / WEIGHTS_FILE)
        return self

    def load_tensors(self, path: Path) -> None:
        """Copy what `save` has written into a file of weights.

        Raises:
            CheckpointError: The file cannot be read, or belongs to another student.
        """
        tensors, _ = load_tensors(path)
        expected = self.saved_tensors()
        wrong = [name for name in expected if name not in tensors]
        wrong += [name for name in tensors if name not in expected]
        wrong += [n for n in expected if n in tensors and tensors[n].shape != expected[n].shape]
        wrong += [n for n, tensor in tensors.items() if not bool(tensor.isfinite().all())]
        if wrong:
            raise CheckpointError(
                f"{path}: tensor {wrong[0]!r} is missing, unexpected, of another shape or not "
                f"finite; the weights do not belong to {CARD_FILE} beside them"
            )
        with torch.no_grad():
            for name, tensor in expected.items():
                tensor.copy_(tensors[name])

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return parameters and fitted buffers by name, each once."""
        kept = self.state_dict()
        buffers = {name: value for name, value in self.named_buffers() if name in kept}
        return dict(self.named_parameters()) | buffers


def read_card(folder: Path) -> dict[str, Any]:
    """Return the card of a saved student.

    Raises:
        CheckpointError: There is none, or it is damaged.
    """
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        if not isinstance(card, dict):
            raise TypeError(f"{CARD_FILE} holds no object")
    except (OSError, TypeError, ValueError, RecursionError) as error:
        raise no_student(folder, error) from error
    return card


def no_student(folder: Path, error: Exception) -> CheckpointError:
    """Return the error for a folder whose card says nothing that a student can be made from."""
    return CheckpointError(
        f"{folder} holds no saved student ({type(error).__name__}: {error}); give a folder written "
        "by student.save, such as runs/NAME/distilled/seed_0"
    )


def count_trained(*modules: nn.Module) -> int:
    """TrainingResult numbers of modules."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
