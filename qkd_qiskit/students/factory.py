"""Make a student from a specification or a circuit, and read a saved one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.circuits import adopt_circuit, build_circuit
from qkd_qiskit.circuits.openqasm import dump_circuit, load_circuit, load_named_circuit
from qkd_qiskit.circuits.student_circuit import without_entanglers
from qkd_qiskit.errors import CheckpointError, CircuitError, require_kind
from qkd_qiskit.recipe import (
    CLASSICAL_STUDENTS,
    FILTER_STUDENTS,
    TWINS,
    WITHOUT_CIRCUIT,
    StudentSpec,
)
from qkd_qiskit.recipe.parsing import parse_spec
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.base import CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE, Student
from qkd_qiskit.students.classical import ClassicalStudent
from qkd_qiskit.students.quantum import QuantumStudent, freeze_circuit, num_features
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.students.twins import TwinStudent
from qkd_qiskit.students.without_circuit import StudentWithoutCircuit


def make_student(
    spec: StudentSpec,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    circuit: QuantumCircuit | None = None,
    input_params: Iterable[Parameter | str] | None = None,
    weight_params: Iterable[Parameter | str] | None = None,
    seed: int = 0,
) -> Student:
    """Return a student with fresh parameters.

    Args:
        spec: What to build.
        image_shape: (channels, height, width) of the images that it will see.
        num_classes: Number of logits.
        circuit: Your own circuit in place of encoding, ansatz and layers: parameters x_000...,
            or a ParameterVector x, are set to the reduced features as they are; w_000..., or a
            ParameterVector w or θ, are trained. It must survive OpenQASM 3, in which it is saved.
        input_params: The circuit's inputs in the order of the features, under any names.
        weight_params: Its weights under any names; default with input_params: all others.
        seed: Seed of the initialisation; each part has its own stream, global state is untouched.

    Raises:
        CircuitError: Features, qubits, classes and read-out do not fit together.
    """
    require_kind("spec", spec, StudentSpec, accepted="a StudentSpec")
    say_unused(spec)
    if num_classes < 2 or min(image_shape) < 1:
        raise CircuitError(
            f"a student of {num_classes} classes for images of shape {image_shape} was asked for; "
            f"give at least 2 classes and 1 pixel"
        )
    if circuit is None and not (input_params is None and weight_params is None):
        raise CircuitError(
            "input_params and weight_params were given without a circuit; they name the "
            "parameters of `circuit=`"
        )
    if spec.kind in FILTER_STUDENTS:
        if circuit is not None:
            raise CircuitError(
                f"a circuit was given for a student of kind {spec.kind}, whose filters have their "
                "own; give kind quantum or hybrid, or leave the circuit out"
            )
        with seeded(derive_seed(seed, "student", "layers")):
            return QuanvolutionalStudent(spec, image_shape=image_shape, num_classes=num_classes)
    if circuit is not None:
        parts = adopt_circuit(circuit, input_params=input_params, weight_params=weight_params)
    elif spec.circuit is not None:
        parts = load_named_circuit(spec.circuit)
    else:
        parts = build_circuit(
            qubits=spec.qubits, encoding=spec.encoding, ansatz=spec.ansatz, layers=spec.layers
        )
    if spec.kind == "no_entanglers":
        parts = without_entanglers(parts, required=circuit is None)
    if parts.encoding is None:
        dump_circuit(parts.circuit)  # what could not be saved is refused before it is trained
    with seeded(derive_seed(seed, "student", "layers")):
        student: Student = QuantumStudent(
            spec, image_shape=image_shape, num_classes=num_classes, parts=parts, seed=seed
        )
        shape: dict[str, Any] = {"image_shape": image_shape, "num_classes": num_classes}
        if spec.kind in TWINS:
            student = TwinStudent(spec, **shape, matched=student.num_parameters)
        elif spec.kind in WITHOUT_CIRCUIT:
            student = StudentWithoutCircuit(spec, **shape, parts=parts)
        elif spec.kind in CLASSICAL_STUDENTS:
            matched, features = student.num_parameters, num_features(parts)
            student = ClassicalStudent(spec, **shape, num_features=features, matched=matched)
        elif spec.kind == "frozen_circuit":
            freeze_circuit(student, seed=seed)
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
