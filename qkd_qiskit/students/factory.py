"""Make a student from a specification or a circuit, and read a saved one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit_machine_learning.neural_networks import NeuralNetwork

from qkd_qiskit.circuits import StudentCircuit, adopt_circuit
from qkd_qiskit.circuits.openqasm import dump_circuit, load_circuit, load_named_circuit
from qkd_qiskit.circuits.readouts import OutcomeSums, observable_texts, read_sums
from qkd_qiskit.circuits.student_circuit import circuit_of_spec, without_entanglers
from qkd_qiskit.errors import CheckpointError, CircuitError, require_kind
from qkd_qiskit.recipe import (
    CLASSICAL_STUDENTS,
    FILTER_STUDENTS,
    WITHOUT_CIRCUIT,
    StudentSpec,
)
from qkd_qiskit.recipe.parsing import parse_spec
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.simulator.torch_device import torch_device
from qkd_qiskit.students.base import (
    CARD_FILE,
    CIRCUIT_FILE,
    WEIGHTS_FILE,
    Student,
    no_student,
    read_card,
)
from qkd_qiskit.students.classical import ClassicalStudent
from qkd_qiskit.students.module_student import ModuleStudent, build_module_student
from qkd_qiskit.students.own_network import adopt_network, say_primitive, spec_of_network
from qkd_qiskit.students.quantum import QuantumStudent, freeze_circuit, num_features
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.students.reference import student_folder
from qkd_qiskit.students.twins import MAKERS, TwinStudent
from qkd_qiskit.students.without_circuit import StudentWithoutCircuit

ImageShape = tuple[int, int, int]


def make_student(
    spec: StudentSpec,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    circuit: QuantumCircuit | None = None,
    input_params: Iterable[Parameter | str] | None = None,
    weight_params: Iterable[Parameter | str] | None = None,
    qnn: NeuralNetwork | None = None,
    observables: Sequence[Any] | None = None,
    seed: int = 0,
    device: str | torch.device = "cpu",
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
        qnn: Your own SamplerQNN or EstimatorQNN in place of circuit and read-out: its circuit,
            input and weight parameters, and its interpret function or its observables. Its
            primitive is not used.
        observables: What is measured in place of the read-out, one output for each: sums of Pauli
            strings, as SparsePauliOp or as text; qubit 0 is the last letter.
        seed: Seed of the initialisation; each part has its own stream, global state is untouched.
        device: Where it lies: cpu, cuda, cuda:1 or auto (a GPU where there is one); parameters are
            drawn on the CPU, so that they are the same. `student.to(...)` moves it later.

    Raises:
        CircuitError: Features, qubits, classes and read-out do not fit together.
        InputError: The device is not there.

    Example:
        >>> import torch
        >>> from qkd_qiskit import StudentSpec, make_student
        >>> student = make_student(StudentSpec(qubits=4), image_shape=(1, 8, 8), num_classes=10)
        >>> student(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 10])
        >>> student.circuit.num_qubits
        4
    """
    place = torch_device(device)
    student = _fresh_student(
        spec,
        image_shape=image_shape,
        num_classes=num_classes,
        circuit=circuit,
        input_params=input_params,
        weight_params=weight_params,
        qnn=qnn,
        observables=observables,
        seed=seed,
    )
    return student.to(place)


def _fresh_student(
    spec: StudentSpec,
    *,
    image_shape: ImageShape,
    num_classes: int,
    circuit: QuantumCircuit | None,
    input_params: Iterable[Parameter | str] | None,
    weight_params: Iterable[Parameter | str] | None,
    qnn: NeuralNetwork | None,
    observables: Sequence[Any] | None,
    seed: int,
) -> Student:
    require_kind("spec", spec, StudentSpec, accepted="a StudentSpec")
    say_unused(spec)
    check_shape(image_shape, num_classes)
    shape: dict[str, Any] = {"image_shape": image_shape, "num_classes": num_classes}
    _check_given(spec, circuit=circuit, qnn=qnn, observables=observables)
    if circuit is None and not (input_params is None and weight_params is None):
        raise CircuitError(
            "input_params and weight_params were given without a circuit; they name the "
            "parameters of `circuit=`"
        )
    if spec.kind in FILTER_STUDENTS:
        with seeded(derive_seed(seed, "student", "layers")):
            return QuanvolutionalStudent(spec, **shape)
    if spec.module is not None or spec.kind == "module":
        return _of_module(spec, seed=seed, **shape)
    sums = None
    if observables is not None:
        texts = observable_texts(observables)
        spec = replace(spec, readout="expectation", observables=texts)
    if qnn is not None:
        network = adopt_network(qnn)
        spec = spec_of_network(spec, network, num_classes=num_classes)
        say_primitive(qnn)
        parts, sums = network.parts, network.sums
    elif circuit is not None:
        parts = adopt_circuit(circuit, input_params=input_params, weight_params=weight_params)
    else:
        parts = _circuit_of(spec)
    if spec.kind == "no_entanglers" and not (circuit is None and qnn is None):
        parts = without_entanglers(parts, required=False)
    if parts.encoding is None:
        dump_circuit(parts.circuit)  # what could not be saved is refused before it is trained
    return _assembled(spec, parts, sums=sums, seed=seed, **shape)


def check_shape(image_shape: tuple[int, int, int], num_classes: int) -> None:
    """Raise a CircuitError where no student could take such images or give such classes."""
    if num_classes < 2 or min(image_shape) < 1:
        raise CircuitError(
            f"a student of {num_classes} classes for images of shape {image_shape} was asked for; "
            f"give at least 2 classes and 1 pixel"
        )


def _check_given(spec: StudentSpec, **given: object) -> None:
    """Refuse arguments of which one takes the other's place, or that the kind has no use for."""
    names = [name for name, value in given.items() if value is not None]
    owner = "filters have" if spec.kind in FILTER_STUDENTS else "network has"
    if names and (spec.kind in FILTER_STUDENTS or spec.module is not None or spec.kind == "module"):
        raise CircuitError(
            f"a {names[0]} was given for a student of kind {spec.kind}, whose {owner} its own; "
            f"give kind quantum or hybrid, or leave the {names[0]} out"
        )
    if "qnn" in names and len(names) > 1:
        raise CircuitError(
            f"qnn and {names[0] if names[0] != 'qnn' else names[1]} were given; give one of them: "
            "a network has its own circuit and observables"
        )


def _of_module(
    spec: StudentSpec, *, image_shape: ImageShape, num_classes: int, seed: int
) -> ModuleStudent | ClassicalStudent | TwinStudent:
    """Return the student around a network of your own, or the classical twin of it."""
    with seeded(derive_seed(seed, "student", "layers")):
        student = build_module_student(spec, image_shape=image_shape, num_classes=num_classes)
        if spec.kind not in CLASSICAL_STUDENTS:
            return student
        shape: dict[str, Any] = {"image_shape": image_shape, "num_classes": num_classes}
        twin: TwinStudent | ClassicalStudent
        if spec.kind in MAKERS:
            twin = TwinStudent(spec, **shape, matched=student.num_parameters)
        else:
            matched, features = student.num_parameters, len(student.parts.input_params)
            twin = ClassicalStudent(spec, **shape, num_features=features, matched=matched)
    twin.foreign_circuit = student.foreign_circuit
    return twin


def _circuit_of(spec: StudentSpec) -> StudentCircuit:
    named = spec.circuit
    parts = circuit_of_spec(spec) if named is None else load_named_circuit(named)
    return without_entanglers(parts) if spec.kind == "no_entanglers" else parts


def _assembled(
    spec: StudentSpec,
    parts: StudentCircuit,
    *,
    image_shape: tuple[int, int, int],
    num_classes: int,
    sums: OutcomeSums | None,
    seed: int,
) -> Student:
    """Return the student around a circuit, or the classical twin of it."""
    with seeded(derive_seed(seed, "student", "layers")):
        student: Student = QuantumStudent(
            spec,
            image_shape=image_shape,
            num_classes=num_classes,
            parts=parts,
            seed=seed,
            sums=sums,
        )
        shape: dict[str, Any] = {"image_shape": image_shape, "num_classes": num_classes}
        if spec.kind in MAKERS:
            student = TwinStudent(spec, **shape, matched=student.num_parameters)
        elif spec.kind in WITHOUT_CIRCUIT:
            student = StudentWithoutCircuit(spec, **shape, parts=parts)
        elif spec.kind in CLASSICAL_STUDENTS:
            matched, features = student.num_parameters, num_features(parts)
            student = ClassicalStudent(spec, **shape, num_features=features, matched=matched)
        elif spec.kind == "frozen_circuit" and isinstance(student, QuantumStudent):
            freeze_circuit(student, seed=seed)
    student.foreign_circuit = parts.circuit if parts.encoding is None else None
    return student


def load_student(folder: str | Path, *, device: str | torch.device = "cpu") -> Student:
    """Return the student that `student.save` wrote, or a trained one of the package by name.

    Args:
        folder: Where it was written; or `digits`, `mnist`, ...: a name of
            `list_reference_students`, where there is no folder of that name.
        device: Where it lies, as for `make_student`.

    Raises:
        InputError: The device is not there.
        CheckpointError: A file is missing, damaged or does not fit the others; an unknown name.

    Example:
        >>> import torch
        >>> from qkd_qiskit import load_student
        >>> student = load_student("mnist")
        >>> student.image_shape, student.num_classes
        ((1, 28, 28), 10)
        >>> student.save("student")
        >>> image = torch.rand(1, 1, 28, 28)
        >>> torch.equal(load_student("student")(image), student(image))
        True
    """
    place = torch_device(device)
    return _saved_student(student_folder(folder)).to(place)


def _saved_student(folder: Path) -> Student:
    card = read_card(folder)
    try:
        spec = parse_spec(StudentSpec, card["student"], section="student")
        spec = replace(spec, circuit=None)
        channels, height, width = (int(size) for size in card["image_shape"])
        shape: dict[str, Any] = {
            "image_shape": (channels, height, width),
            "num_classes": int(card["num_classes"]),
        }
        foreign = bool(card["foreign_circuit"])
        sums = read_sums(card["outcome_sums"]) if "outcome_sums" in card else None
        check_shape(**shape)
    except (KeyError, TypeError, ValueError) as error:
        raise no_student(folder, error) from error
    if spec.kind == "module" and spec.module is None:
        raise CheckpointError(
            f"{folder} holds a student of a network that was given in Python, whose code is not in "
            "it; give it again: Student.from_module(network, ...).load(folder)"
        )
    if spec.module is not None:
        return _of_module(spec, seed=0, **shape).load(folder)
    if spec.kind in FILTER_STUDENTS:
        student = make_student(spec, **shape)
    else:
        own = load_circuit(folder / CIRCUIT_FILE) if foreign else _circuit_of(spec)
        if sums is not None and len(sums.places) != 2**own.circuit.num_qubits:
            raise CheckpointError(
                f"{folder / CARD_FILE} sums {len(sums.places)} outcomes, the circuit beside it has "
                f"{own.circuit.num_qubits} qubits; they do not belong together"
            )
        student = _assembled(spec, own, sums=sums, seed=0, **shape)
    student.load_tensors(folder / WEIGHTS_FILE)
    return student
