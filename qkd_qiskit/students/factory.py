"""Make a student from a specification or a circuit, and read a saved one."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import torch
from qiskit import QuantumCircuit

from qkd_qiskit.circuits import adopt_circuit, build_circuit
from qkd_qiskit.circuits.openqasm import load_circuit
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, FILTER_STUDENTS, StudentSpec
from qkd_qiskit.recipe.parsing import parse_spec
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.base import CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE, Student
from qkd_qiskit.students.classical import ClassicalStudent
from qkd_qiskit.students.quantum import QuantumStudent, num_features
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent


def make_student(
    spec: StudentSpec,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    circuit: QuantumCircuit | None = None,
    seed: int = 0,
) -> Student:
    """Return a student with fresh parameters.

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
        with seeded(derive_seed(seed, "student", "layers")):
            return QuanvolutionalStudent(spec, image_shape=image_shape, num_classes=num_classes)
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
            student = ClassicalStudent(
                spec,
                image_shape=image_shape,
                num_classes=num_classes,
                num_features=num_features(parts),
                matched=student.num_parameters,
            )
    student.foreign_circuit = parts.circuit if parts.encoding is None else None
    return student


def load_student(folder: str | Path) -> Student:
    """Return the student that `student.save` wrote.

    Raises:
        CheckpointError: A file is missing, damaged or does not fit the others.
    """
    folder = Path(folder)
    try:
        card = json.loads((folder / CARD_FILE).read_text(encoding="utf-8"))
        spec = parse_spec(StudentSpec, card["student"], section="student")
        channels, height, width = (int(size) for size in card["image_shape"])
        num_classes, foreign = int(card["num_classes"]), bool(card["foreign_circuit"])
    except (OSError, KeyError, TypeError, ValueError, RecursionError) as error:
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
