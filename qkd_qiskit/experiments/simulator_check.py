"""What draws a student's shots on a target, and a few of its circuits held against Aer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.experiments.quanvolution_evaluation import patch_values
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import AerCheck, CompiledCircuit, Simulator, Target, check_with_aer

_CHECKED_IMAGES = 2  # of each student


def simulator_of(student: Student, target: Target) -> Simulator | None:
    """Return what draws the shots of a student's circuit under noise; None without them."""
    if target.ideal or not student.circuits:
        return None
    return target.simulator_of(target.compile(student.circuits[0]))


@torch.no_grad()
def check_students(
    students: Sequence[Student], images: Tensor, *, target: Target
) -> list[AerCheck | None]:
    """Return how near Aer comes to the noisy probabilities that shots are drawn from.

    A few circuits of each student are run by Aer too, all together; None for a student whose shots
    are not drawn from probabilities.

    Args:
        students: Students that are evaluated on the target.
        images: What they are evaluated on.
        target: Where.

    Raises:
        TargetError: The two differ.
    """
    rows: dict[CompiledCircuit, list[tuple[int, NDArray[np.float64]]]] = {}
    for place, student in enumerate(students):
        density = simulator_of(student, target) == "density"
        for circuit in student.circuits if density else ():
            compiled = target.compile(circuit)
            values = _some_values(student, images, names=compiled.parameters)
            rows.setdefault(compiled, []).append((place, values))
    found: dict[int, list[NDArray[np.float64]]] = {}
    for compiled, parts in rows.items():
        differences = check_with_aer(compiled, np.concatenate([values for _, values in parts]))
        ends = np.cumsum([len(values) for _, values in parts])
        for (place, _), own in zip(parts, np.split(differences, ends[:-1]), strict=True):
            found.setdefault(place, []).append(own)
    return [
        AerCheck.of(np.concatenate(found[place])) if place in found else None
        for place in range(len(students))
    ]


def _some_values(
    student: Student, images: Tensor, *, names: tuple[str, ...]
) -> NDArray[np.float64]:
    """Return parameters `(circuits, parameters)` of the first images, or of one's patches."""
    if isinstance(student, QuanvolutionalStudent):
        assert isinstance(student.filters, Quanvolution)
        values = next(patch_values(student.filters, images[:1], names=names))
        return values[[len(values) // 3, len(values) // 2]]
    assert isinstance(student, CircuitStudent)
    return parameter_values(student, images[:_CHECKED_IMAGES], names=names)


def parameter_values(
    student: CircuitStudent, images: Tensor, *, names: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return circuit parameters `(rows, parameters)` of images in radians, columns as `names`."""
    return in_order(parameter_columns(student, student.features(images)), names)


@torch.no_grad()
def parameter_columns(student: CircuitStudent, inputs: Tensor) -> dict[str, Tensor]:
    """Return the values `(rows,)` in radians of each circuit parameter by its name.

    Args:
        student: Whose circuit; `runs_per_image` rows come of each image.
        inputs: What its `features` gives for images.
    """
    values = student.encode(inputs).double()
    weights = student.weights.detach().double().expand(len(values), -1)
    columns = dict(zip(student.input_names, values.T, strict=True))
    return columns | dict(zip(student.weight_names, weights.T, strict=True))


def in_order(
    columns: Mapping[str, Tensor], names: Sequence[str]
) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    """Return the values of a circuit's parameters `(rows, parameters)`, columns as `names`."""
    return torch.stack([columns[name] for name in names], dim=1).numpy()
