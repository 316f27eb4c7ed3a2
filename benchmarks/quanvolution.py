"""Time the forward and backward pass of a quanvolution against other simulators, on one core.

    pip install -e ".[peers]"
    python benchmarks/quanvolution.py

256 images of 28x28 pixels under 3 filters of 2x2 pixels, stride 2: 150,528 circuit runs of 4 qubits
with 11 weights. Measured is one pass forward and the gradients of all weights and all pixels, in
float32. Ours is timed twice: as it is, where 81 runs per filter determine the values of all patches
(`engine/interpolation.py`), and with every patch run in the compiled kernel. The others run every
patch, as their users would write it. Contenders run in turns in one process, after their values and
gradients were found to agree to 1e-5. Times are CPU time of the process, medians over turns; a
ratio is the median of the turns' ratios.

Also times the training of the quanvolutional teacher on 1,000 Fashion-MNIST images, 10 epochs, and
its evaluation on noisy targets, where every patch of every image is a circuit for every filter.

Writes quanvolution_speed.csv, quanvolution_teacher.csv and quanvolution_targets.csv under
benchmarks/results/.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from peers import RESULTS, seconds_in_turns, show, write

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.data.splits import load_data
from qkd_qiskit.experiments.evaluation import evaluate, subset
from qkd_qiskit.experiments.quanvolution_evaluation import patch_cost
from qkd_qiskit.recipe import DataSpec, StudentSpec, TeacherSpec
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

IMAGES, FILTERS = 256, 3
TEACHER = TeacherSpec(kind="quanvolution", epochs=10, batch_size=32, lr=0.003, train_per_class=100)
Pass = Callable[[], tuple[Any, Any, Any]]
"""Runs forward and backward; returns feature maps, gradients of weights and of images."""


def as_student(teacher: Teacher, *, image_shape: tuple[int, int, int]) -> QuanvolutionalStudent:
    """Return a quanvolutional teacher as a student, so that `evaluate` can run it on a target."""
    student = QuanvolutionalStudent(
        StudentSpec(kind="quanvolution"), image_shape=image_shape, num_classes=teacher.num_classes
    )
    student.load_parameters(teacher.module.state_dict())
    return student


def make_task() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return images, weights, and the gradient that comes in from the loss."""
    random = np.random.default_rng(5)
    images = random.random((IMAGES, 1, 28, 28), dtype=np.float32)
    weights = (2 * np.pi * random.random((FILTERS, 11))).astype(np.float32)
    incoming = random.normal(size=(IMAGES, FILTERS, 14, 14)).astype(np.float32)
    return images, weights, incoming


def torch_pass(maps_of: Callable[[torch.Tensor], torch.Tensor], weights: torch.Tensor) -> Pass:
    images, _, incoming = make_task()
    pixels = torch.from_numpy(images).requires_grad_()
    gradient = torch.from_numpy(incoming)

    def run() -> tuple[Any, Any, Any]:
        weights.grad = pixels.grad = None
        maps = maps_of(pixels)
        maps.backward(gradient)
        return maps.detach().numpy(), weights.grad.numpy(), pixels.grad.numpy()

    return run


def ours(*, interpolated: bool) -> Pass:
    layer = Quanvolution(FILTERS, interpolated=interpolated)
    layer.weight.data = torch.from_numpy(make_task()[1])
    return torch_pass(layer, layer.weight)


def angles_of(images: Any) -> Any:
    """Return the angles of all patches ``(patches, 4)``, of an array of torch or jax."""
    rows = images.reshape(IMAGES, 14, 2, 14, 2)
    order = (0, 1, 3, 2, 4)
    rows = rows.permute(order) if isinstance(rows, torch.Tensor) else rows.transpose(order)
    return np.pi * rows.reshape(-1, 4)


def pennylane_circuit(angles: Any, weights: Any) -> Any:
    import pennylane as qml

    for wire in range(4):
        qml.RY(angles[..., wire], wires=wire)
    for wire in range(4):
        qml.RY(weights[wire], wires=wire)
    for wire in range(4):
        qml.CNOT(wires=[wire, (wire + 1) % 4])
    for wire in range(4):
        qml.RY(weights[4 + wire], wires=wire)
    for control, wire, number in ((1, 0, 8), (3, 2, 9), (2, 0, 10)):
        qml.CNOT(wires=[control, wire])
        qml.RY(weights[number], wires=wire)
    return qml.expval(qml.PauliZ(0))


def jax_pass(values: Callable[[Any, Any], Any]) -> Pass:
    """Return the jitted pass around ``values(angles, weights)`` of all patches and one filter."""
    import jax
    import jax.numpy as jnp

    images, weights, incoming = (jnp.asarray(part) for part in make_task())

    def maps_of(weights: Any, images: Any) -> Any:
        found = jax.vmap(values, in_axes=(None, 0))(angles_of(images), weights)
        return found.reshape(FILTERS, IMAGES, 14, 14).transpose(1, 0, 2, 3)

    @jax.jit
    def both(weights: Any, images: Any) -> Any:
        maps, back = jax.vjp(maps_of, weights, images)
        return maps, *back(incoming)

    def run() -> tuple[Any, Any, Any]:
        found = both(weights, images)
        return tuple(part.block_until_ready() for part in found)

    return run


def pennylane(*, broadcast: bool) -> Pass:
    """Return PennyLane under jax.jit, its patches mapped by jax.vmap or broadcast by itself."""
    import jax
    import pennylane as qml

    node = qml.QNode(
        pennylane_circuit, qml.device("default.qubit", wires=4), interface="jax",
        diff_method="backprop",
    )  # fmt: skip
    return jax_pass(node if broadcast else jax.vmap(node, in_axes=(0, None)))


def pennylane_torch() -> Pass:
    import pennylane as qml

    node = qml.QNode(
        pennylane_circuit, qml.device("default.qubit", wires=4), interface="torch",
        diff_method="backprop",
    )  # fmt: skip
    weights = torch.from_numpy(make_task()[1]).requires_grad_()

    def maps_of(images: torch.Tensor) -> torch.Tensor:
        angles = angles_of(images)
        maps = torch.stack([node(angles, filter_weights) for filter_weights in weights])
        return maps.float().reshape(FILTERS, IMAGES, 14, 14).movedim(1, 0)

    return torch_pass(maps_of, weights)


def tensorcircuit() -> Pass:
    import jax
    import tensorcircuit as tc

    backend = tc.set_backend("jax")

    def value(angles: Any, weights: Any) -> Any:
        circuit = tc.Circuit(4)
        for wire in range(4):
            circuit.ry(wire, theta=angles[wire])
        for wire in range(4):
            circuit.ry(wire, theta=weights[wire])
        for wire in range(4):
            circuit.cx(wire, (wire + 1) % 4)
        for wire in range(4):
            circuit.ry(wire, theta=weights[4 + wire])
        for control, wire, number in ((1, 0, 8), (3, 2, 9), (2, 0, 10)):
            circuit.cx(control, wire)
            circuit.ry(wire, theta=weights[number])
        return backend.real(circuit.expectation_ps(z=[0]))

    return jax_pass(jax.vmap(value, in_axes=(0, None)))


PEERS: dict[str, Callable[[], Pass]] = {
    "pennylane_vmap": lambda: pennylane(broadcast=False),
    "pennylane_broadcast": lambda: pennylane(broadcast=True),
    "pennylane_torch": pennylane_torch,
    "tensorcircuit": tensorcircuit,
}


def qiskit_one_patch() -> float:
    """Return the seconds of forward and backward for one patch in the stock connector."""
    from qiskit_machine_learning.connectors import TorchConnector

    connector = TorchConnector(Quanvolution(1).qnn)
    patch = torch.rand(1, 4, requires_grad=True)
    begin = time.process_time()
    connector(patch).sum().backward()
    return time.process_time() - begin


def check_agreement(passes: dict[str, Pass]) -> dict[str, float]:
    """Return the seconds of every first pass; values and gradients must agree to 1e-5."""
    found, first = {}, {}
    for name, run in passes.items():
        begin = time.process_time()
        found[name] = [np.asarray(part) for part in run()]
        first[name] = time.process_time() - begin
    for name, parts in found.items():
        for part, reference in zip(parts, found["ours"], strict=True):
            scale = np.abs(reference).max()
            np.testing.assert_allclose(part, reference, rtol=0, atol=1e-5 * scale, err_msg=name)
    return first


def time_pass(peers: list[str], *, turns: int) -> dict[str, Any]:
    passes = {"ours": ours(interpolated=True), "every_patch": ours(interpolated=False)}
    passes |= {name: PEERS[name]() for name in peers}
    first = check_agreement(passes)
    times = seconds_in_turns(passes, turns=turns, least=0.1)
    row: dict[str, Any] = {"images": IMAGES, "circuit_runs": IMAGES * 196 * FILTERS}
    for name, values in times.items():
        row[f"{name}_s"] = statistics.median(values)
        row[f"{name}_first_s"] = first[name]
    for label, rivals in (
        ("pennylane", [name for name in peers if name.startswith("pennylane")]),
        ("peer", peers),
    ):
        if rivals:
            fastest = min(rivals, key=lambda name: row[f"{name}_s"])
            row[f"fastest_{label}"] = fastest
            for mine in ("ours", "every_patch"):
                pairs = zip(times[fastest], times[mine], strict=True)
                row[f"{mine}_speedup_over_{label}"] = statistics.median(a / b for a, b in pairs)
    row["qiskit_extrapolated_s"] = row["circuit_runs"] * qiskit_one_patch()
    return row


def time_teacher() -> dict[str, Any]:
    """Return the seconds of training on 1,000 images for 10 epochs, and the accuracy."""
    data = load_data(DataSpec(name="fashion_mnist"))
    begin, cpu = time.perf_counter(), time.process_time()
    teacher = make_teacher(TEACHER, data, cache=False)
    return {
        "images": 1000,
        "epochs": TEACHER.epochs,
        "wall_s": time.perf_counter() - begin,
        "cpu_s": time.process_time() - cpu,
        "test_accuracy": teacher.accuracy,
    }


def time_targets(*, images: int, shots: int) -> list[dict[str, Any]]:
    """Return the accuracy of that teacher on noisy targets, every patch a circuit, and its cost.

    Without shots an image costs so little that there are 20 times as many.
    """
    data = load_data(DataSpec(name="fashion_mnist"))
    student = as_student(make_teacher(TEACHER, data), image_shape=data.image_shape)
    rows = []
    for name in ("fake_torino", "fake_torino:exact", "fake_melbourne:exact"):
        target = Target.parse(name, shots=shots)
        split, _ = subset(data.test, limit=images if target.sampled else 20 * images)
        cost = patch_cost(student.filters, split.images, target=target)
        begin = time.perf_counter()
        figures = evaluate(student, split, target=target)
        rows.append(
            {
                "target": name, "images": len(split), **asdict(cost), "executions": cost.executions,
                "accuracy": figures.accuracy, "exact_accuracy": figures.exact_accuracy,
                "wall_s": time.perf_counter() - begin,
            }
        )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", default=",".join(PEERS))
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--parts", default="pass,teacher,targets")
    parser.add_argument("--images", type=int, default=50)
    parser.add_argument("--shots", type=int, default=1024)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    parts = options.parts.split(",")
    if "pass" in parts:
        row = time_pass([name for name in options.peers.split(",") if name], turns=options.turns)
        show(row)
        write(RESULTS / "quanvolution_speed.csv", [row])
    if "teacher" in parts:
        row = time_teacher()
        show(row)
        write(RESULTS / "quanvolution_teacher.csv", [row])
    if "targets" in parts:
        rows = time_targets(images=options.images, shots=options.shots)
        for row in rows:
            show(row)
        write(RESULTS / "quanvolution_targets.csv", rows)


if __name__ == "__main__":
    main()
