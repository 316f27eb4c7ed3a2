"""What every student is: a torch module from images to logits that can be saved.

images -> features (fixed) -> reduction (trained) -> encoding -> circuit -> read-out -> logits
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import torch
from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.display import changed_settings, html_pairs
from qkd_qiskit.storage import save_tensors, write_text
from qkd_qiskit.students.reductions import TRAINED, PrincipalComponents
from qkd_qiskit.targets.gradients import CircuitExecutor

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
    """

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

    def reduce(self, inputs: Tensor) -> Tensor:
        """Return features `(batch, num_features)` of images `(batch, channels, height, width)`.

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
        card = {
            "student": asdict(self.spec),
            "image_shape": list(self.image_shape),
            "num_classes": self.num_classes,
            "foreign_circuit": self.foreign_circuit is not None,
        }
        write_text(folder / CARD_FILE, json.dumps(card, indent=2) + "\n")
        circuit = self.foreign_circuit if self.circuit is None else self.circuit
        if circuit is not None:
            text = dump_circuit(circuit, checked=self.foreign_circuit is not None)
            write_text(folder / CIRCUIT_FILE, text)
        # Last: where the weights are, the student is whole.
        save_tensors(folder / WEIGHTS_FILE, self.saved_tensors())

    def saved_tensors(self) -> dict[str, Tensor]:
        """Return parameters and fitted buffers by name, each once."""
        kept = self.state_dict()
        buffers = {name: value for name, value in self.named_buffers() if name in kept}
        return dict(self.named_parameters()) | buffers


def count_trained(*modules: nn.Module) -> int:
    """TrainingResult numbers of modules."""
    parameters = (parameter for module in modules for parameter in module.parameters())
    return sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
