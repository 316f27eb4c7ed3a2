"""Time one distillation step against other differentiable simulators, on one core.

    pip install -e ".[peers]"
    python benchmarks/peers.py [--grid quick|full] [--peers structured,tensorcircuit,...]

A step is the circuit's forward pass, the loss CE + T^2 KL, its gradient and Adam, in float32. The
student has n qubits, amplitude or angle (RY) encoding, L layers of RY and RZ on every qubit and a
ring of CX; its outcome probabilities are summed into 10 classes, or <Z> per qubit is the output.
Ours is timed twice: `FusedStep`, the whole step in one call, and `CompiledConnector` as a layer
under torch's autograd. Contenders of a case run in turns in one process, after their losses and
gradients were found to agree to 1e-5. Times are CPU time of the process, medians over turns; a
ratio is the median of the turns' ratios.

The strongest opponents: `structured` is the circuit by hand in JAX (Kronecker factors, diagonals, a
gather); part `scan` has ten of its steps in one `lax.scan` against ten of ours in one call; part
`wide` has lightning.qubit (float32) and qulacs (float64) on 12 to 20 qubits, forward and gradient.

Part `structured` times that opponent alone beside ours in the cases of the figure, of which
`--qubits` names some. Writes peers.csv, peers_structured.csv, peers_population.csv,
peers_noisy.csv, peers_scan.csv, peers_wide.csv and peers.png under benchmarks/results/.
"""

# ruff: noqa: E402  (the number of threads is set before torch and jax are imported)
from __future__ import annotations

import argparse
import csv
import ctypes
import itertools
import os
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch.nn import functional

from qkd_qiskit.simulator import Channels, CompiledConnector, FusedStep, Objective

RESULTS = Path(__file__).parent / "results"
TEMPERATURE = 4.0
CLASSES = 10
LEARNING_RATE = 0.01


@dataclass(frozen=True)
class Case:
    """One student and batch."""

    qubits: int
    layers: int
    batch: int
    encoding: str
    output: str

    @property
    def outputs(self) -> int:
        """Number of outputs, and of classes."""
        return CLASSES if self.output == "probabilities" else self.qubits

    @property
    def num_weights(self) -> int:
        """Number of trainable angles."""
        return 2 * self.qubits * self.layers

    def flops(self) -> float:
        """Return the least arithmetic of an adjoint sweep.

        Per amplitude: a Y rotation takes 6 forward, 12 back (state and costate) and 4 for its
        gradient; a diagonal 6, 12 and 4. The first layer acts on a real state (half) or, with
        angle encoding, makes a product state (nothing); the last diagonal has no effect.
        """
        rotations = self.qubits * (self.layers - (0.5 if self.encoding == "amplitude" else 1))
        return self.batch * 2**self.qubits * 22.0 * (rotations + self.layers - 1)


@dataclass(frozen=True)
class Task:
    """A case's numbers, the same for every contender."""

    features: np.ndarray
    weights: np.ndarray
    labels: np.ndarray
    teacher: np.ndarray  # softened probabilities (batch, outputs)


def make_task(case: Case, *, members: int = 0) -> Task:
    random = np.random.default_rng(7)
    lead = (members,) if members else ()
    length = 2**case.qubits if case.encoding == "amplitude" else case.qubits
    features = random.normal(size=(*lead, case.batch, length)).astype(np.float32)
    if case.encoding == "amplitude":
        features /= np.linalg.norm(features, axis=-1, keepdims=True)
    weights = random.uniform(-1, 1, size=(*lead, case.num_weights)).astype(np.float32)
    labels = random.integers(0, case.outputs, size=(*lead, case.batch))
    logits = random.normal(size=(*lead, case.batch, case.outputs)) * 3 / TEMPERATURE
    teacher = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    return Task(features, weights, labels, teacher.astype(np.float32))


def class_matrix(case: Case) -> np.ndarray:
    """Return what turns probabilities into outputs ``(2**qubits, outputs)``."""
    states = np.arange(2**case.qubits)
    if case.output == "probabilities":
        return np.eye(CLASSES, dtype=np.float32)[states * CLASSES >> case.qubits]
    bits = states[:, None] >> np.arange(case.qubits) & 1
    return (1 - 2 * bits).astype(np.float32)


def network(case: Case) -> SamplerQNN | EstimatorQNN:
    """Return the student as Qiskit Machine Learning writes it."""
    circuit = QuantumCircuit(case.qubits)
    inputs = []
    if case.encoding == "angle":
        inputs = [Parameter(f"x_{i:03d}") for i in range(case.qubits)]
        for qubit, parameter in enumerate(inputs):
            circuit.ry(parameter, qubit)
    weights = [Parameter(f"w_{i:03d}") for i in range(case.num_weights)]
    remaining = iter(weights)
    for _ in range(case.layers):
        for qubit in range(case.qubits):
            circuit.ry(next(remaining), qubit)
            circuit.rz(next(remaining), qubit)
        for qubit in range(case.qubits):
            circuit.cx(qubit, (qubit + 1) % case.qubits)
    options: dict[str, Any] = {"circuit": circuit, "weight_params": weights}
    if inputs:
        options["input_params"] = inputs
    if case.output == "probabilities":
        return SamplerQNN(
            **options,
            interpret=lambda outcome: outcome * CLASSES >> case.qubits,
            output_shape=CLASSES,
        )
    observables = [
        SparsePauliOp.from_sparse_list([("Z", [qubit], 1.0)], num_qubits=case.qubits)
        for qubit in range(case.qubits)
    ]
    return EstimatorQNN(**options, observables=observables)


# One step per contender: a function that makes one and returns its loss before the update.

Step = Callable[[], Any]


class TorchLoss:
    """CE + T^2 KL, the mean over the batch, summed over members if there are any.

    Classes come first: over a short last dimension torch's log_softmax takes 20 times as long.
    """

    def __init__(self, case: Case, task: Task) -> None:
        self.log = case.output == "probabilities"
        hard = np.eye(case.outputs, dtype=np.float32)[task.labels]
        soft = TEMPERATURE**2 * task.teacher
        self.hard, self.soft = (
            torch.from_numpy(part / case.batch).movedim(-1, -2).contiguous().flatten()
            for part in (hard, soft)
        )
        self.constant = float((soft * np.log(task.teacher)).sum() / case.batch)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:  # noqa: D102
        logits = values.movedim(-1, -2).contiguous()
        if self.log:
            logits = torch.log(logits + 1e-9)
        plain = functional.log_softmax(logits, dim=-2)
        softened = functional.log_softmax(logits / TEMPERATURE, dim=-2)
        return (
            self.constant
            - torch.dot(self.hard, plain.flatten())
            - torch.dot(self.soft, softened.flatten())
        )


class Adam:
    """Adam for one tensor; torch.optim's takes longer than a small student's whole step."""

    def __init__(self, weights: torch.Tensor) -> None:
        self.weights, self.count = weights, 0
        self.first, self.second = torch.zeros_like(weights), torch.zeros_like(weights)

    @torch.no_grad()
    def step(self) -> None:  # noqa: D102
        gradient = self.weights.grad
        self.count += 1
        self.first.lerp_(gradient, 0.1)
        self.second.lerp_(gradient.square(), 0.001)
        root = (self.second / (1 - 0.999**self.count)).sqrt_().add_(1e-8)
        rate = LEARNING_RATE / (1 - 0.9**self.count)
        self.weights.addcdiv_(self.first, root, value=-rate)
        self.weights.grad = None


def ours(case: Case, task: Task, *, steps: int = 0) -> Step:
    """The whole step in one call, or several of them; the task may have members first."""
    objective = Objective(
        temperature=TEMPERATURE, logarithm=case.output == "probabilities", added=1e-9
    )
    fused = FusedStep(
        CompiledConnector(network(case)),
        np.atleast_2d(task.weights),
        objective=objective,
        ce_weight=1.0,
        kd_weight=1.0,
        weight_decay=0.0,
    )
    kind = "states" if case.encoding == "amplitude" else "inputs"
    samples = fused.samples(
        task.labels, TEMPERATURE * np.log(task.teacher), **{kind: task.features}
    )
    if steps:
        order = np.tile(np.arange(case.batch), steps)[None]
        return lambda: float(
            fused.epoch(samples, order, batch_size=case.batch, lr=LEARNING_RATE).sum()
        )
    return lambda: float(fused.step(samples, lr=LEARNING_RATE).sum())


def under_torch(case: Case, task: Task) -> Step:
    """`CompiledConnector` as a layer, with torch's autograd."""
    connector = CompiledConnector(network(case), task.weights)
    return torch_step(
        case,
        task,
        connector.weight,
        connector.from_states if case.encoding == "amplitude" else connector,
    )


def torch_step(
    case: Case, task: Task, weights: torch.Tensor, run: Callable[[torch.Tensor], torch.Tensor]
) -> Step:
    features, loss_of = torch.from_numpy(task.features), TorchLoss(case, task)
    optimizer = Adam(weights)

    def step() -> float:
        loss = loss_of(run(features))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def jax_step(
    case: Case, task: Task, probabilities: Callable[[Any, Any], Any], *, population: bool = False
) -> Step:
    """Return a jitted step around ``probabilities(features, weights)`` of one sample."""
    import jax
    import jax.numpy as jnp

    matrix = jnp.asarray(class_matrix(case))
    batched = jax.vmap(probabilities, in_axes=(0, None))

    def loss_of(weights: Any, features: Any, labels: Any, teacher: Any) -> Any:
        values = batched(features, weights) @ matrix
        logits = jnp.log(values + 1e-9) if case.output == "probabilities" else values
        soft = jax.nn.log_softmax(logits / TEMPERATURE)
        distilled = (teacher * (jnp.log(teacher) - soft)).sum(-1) * TEMPERATURE**2
        hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
        return (hard + distilled).mean()

    def update(state: Any, features: Any, labels: Any, teacher: Any) -> Any:
        weights, first, second, count = state
        loss, gradient = jax.value_and_grad(loss_of)(weights, features, labels, teacher)
        count = count + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.999**count)) + 1e-8)
        return (weights - LEARNING_RATE * scale, first, second, count), loss

    if population:
        update = jax.vmap(update, in_axes=((0, 0, 0, None), 0, 0, 0), out_axes=((0, 0, 0, None), 0))
    compiled = jax.jit(update)
    given = [jnp.asarray(part) for part in (task.features, task.labels, task.teacher)]
    weights = jnp.asarray(task.weights)
    state = (weights, jnp.zeros_like(weights), jnp.zeros_like(weights), jnp.float32(0))

    def step() -> float:
        nonlocal state
        state, loss = compiled(state, *given)
        return float(loss.sum())

    return step


def tensorcircuit(case: Case, task: Task, *, population: bool = False) -> Step:
    import tensorcircuit as tc

    backend = tc.set_backend("jax")
    last = case.qubits - 1  # its first qubit is the most significant bit

    def probabilities(features: Any, weights: Any) -> Any:
        if case.encoding == "amplitude":
            circuit = tc.Circuit(case.qubits, inputs=features)
        else:
            circuit = tc.Circuit(case.qubits)
            for qubit in range(case.qubits):
                circuit.ry(last - qubit, theta=features[qubit])
        for layer in range(case.layers):
            for qubit in range(case.qubits):
                number = 2 * (layer * case.qubits + qubit)
                circuit.ry(last - qubit, theta=weights[number])
                circuit.rz(last - qubit, theta=weights[number + 1])
            for qubit in range(case.qubits):
                circuit.cx(last - qubit, last - (qubit + 1) % case.qubits)
        state = circuit.state()
        return backend.real(state) ** 2 + backend.imag(state) ** 2

    return jax_step(case, task, probabilities, population=population)


def _pennylane_circuit(case: Case, features: Any, weights: Any) -> Any:
    import pennylane as qml

    last = case.qubits - 1
    if case.encoding == "amplitude":
        qml.StatePrep(features, wires=range(case.qubits), validate_norm=False)
    else:
        for qubit in range(case.qubits):
            qml.RY(features[..., qubit], wires=last - qubit)
    for layer in range(case.layers):
        for qubit in range(case.qubits):
            number = 2 * (layer * case.qubits + qubit)
            qml.RY(weights[number], wires=last - qubit)
            qml.RZ(weights[number + 1], wires=last - qubit)
        for qubit in range(case.qubits):
            qml.CNOT(wires=[last - qubit, last - (qubit + 1) % case.qubits])
    return qml.probs(wires=range(case.qubits))


def pennylane(case: Case, task: Task, *, population: bool = False) -> Step:
    import pennylane as qml

    device = qml.device("default.qubit", wires=case.qubits)

    @qml.qnode(device, interface="jax", diff_method="backprop")
    def probabilities(features: Any, weights: Any) -> Any:
        return _pennylane_circuit(case, features, weights)

    return jax_step(case, task, probabilities, population=population)


def pennylane_torch(case: Case, task: Task) -> Step:
    import pennylane as qml

    device = qml.device("default.qubit", wires=case.qubits)

    @qml.qnode(device, interface="torch", diff_method="backprop")
    def probabilities(features: Any, weights: Any) -> Any:
        return _pennylane_circuit(case, features, weights)

    weights = torch.from_numpy(task.weights.copy()).requires_grad_()
    matrix = torch.from_numpy(class_matrix(case))
    return torch_step(
        case, task, weights, lambda features: probabilities(features, weights).float() @ matrix
    )


# Under noise: a depolarising channel on every qubit after every gate that acts on it.

ONE_QUBIT_ERROR, TWO_QUBIT_ERROR = 0.001, 0.01


def ours_noisy(case: Case, task: Task) -> Step:
    from qiskit_aer.noise import depolarizing_error

    one, two = (depolarizing_error(p, 1) for p in (ONE_QUBIT_ERROR, TWO_QUBIT_ERROR))
    pair = two.tensor(two)
    gates: dict[tuple[str, tuple[int, ...]], Any] = {}
    for qubit in range(case.qubits):
        for name in ("ry", "rz"):
            gates[name, (qubit,)] = one.to_quantumchannel().data
        gates["cx", (qubit, (qubit + 1) % case.qubits)] = pair.to_quantumchannel().data
    connector = CompiledConnector(network(case), task.weights, channels=Channels(gates=gates))
    return torch_step(case, task, connector.weight, connector)


def pennylane_noisy(case: Case, task: Task) -> Step:
    import pennylane as qml

    device = qml.device("default.mixed", wires=case.qubits)
    last = case.qubits - 1

    def noise(error: float, *wires: int) -> None:
        for wire in wires:  # Qiskit's depolarising parameter is 4/3 of PennyLane's
            qml.DepolarizingChannel(0.75 * error, wires=wire)

    @qml.qnode(device, interface="jax", diff_method="backprop")
    def probabilities(features: Any, weights: Any) -> Any:
        for qubit in range(case.qubits):
            qml.RY(features[qubit], wires=last - qubit)
            noise(ONE_QUBIT_ERROR, last - qubit)
        for layer in range(case.layers):
            for qubit in range(case.qubits):
                number = 2 * (layer * case.qubits + qubit)
                qml.RY(weights[number], wires=last - qubit)
                noise(ONE_QUBIT_ERROR, last - qubit)
                qml.RZ(weights[number + 1], wires=last - qubit)
                noise(ONE_QUBIT_ERROR, last - qubit)
            for qubit in range(case.qubits):
                wires = (last - qubit, last - (qubit + 1) % case.qubits)
                qml.CNOT(wires=wires)
                noise(TWO_QUBIT_ERROR, *wires)
        return qml.probs(wires=range(case.qubits))

    return jax_step(case, task, probabilities)


def run_noisy(case: Case) -> dict[str, Any]:
    task = make_task(case)
    steps = {"ours": ours_noisy(case, task), "pennylane": pennylane_noisy(case, task)}
    first = check_agreement(steps)
    times = seconds_in_turns(steps, turns=9, least=0.05)
    pairs = zip(times["pennylane"], times["ours"], strict=True)
    return {
        **asdict(case),
        "ours_ms": 1e3 * statistics.median(times["ours"]),
        "pennylane_mixed_ms": 1e3 * statistics.median(times["pennylane"]),
        "pennylane_mixed_first_s": first["pennylane"],
        "speedup": statistics.median(theirs / mine for theirs, mine in pairs),
    }


def qiskit_one_sample(case: Case) -> float:
    """Return the seconds of forward and backward for one sample in the stock connector."""
    from qiskit_machine_learning.connectors import TorchConnector

    connector = TorchConnector(network(case))
    features = torch.zeros(1, case.qubits if case.encoding == "angle" else 0)
    begin = time.process_time()
    connector(features).sum().backward()
    return time.process_time() - begin


# The strongest opponents: what this package knows of the circuit, by hand in JAX; lax.scan over
# ten steps, against an epoch of ten batches; and simulators made for one wide circuit at a time.

SCANNED = 10


def cx_ring_source(qubits: int) -> np.ndarray:
    """Return the gather that is a ring of CX: the basis state that each one's amplitude is from."""
    end = np.arange(2**qubits)
    for qubit in range(qubits):
        end ^= (end >> qubit & 1) << (qubit + 1) % qubits
    source = np.empty_like(end)
    source[end] = np.arange(2**qubits)
    return source


def structured(case: Case, task: Task, *, scan: bool = False) -> Step:
    """A layer as two Kronecker factors, one diagonal and one gather, batched, under jax.jit."""
    import jax
    import jax.numpy as jnp

    qubits, low = case.qubits, case.qubits // 2
    source = jnp.asarray(cx_ring_source(qubits))
    states = np.arange(2**qubits)
    signs = jnp.asarray(1.0 - 2 * (states[:, None] >> np.arange(qubits) & 1), jnp.float32)
    matrix = jnp.asarray(class_matrix(case))

    def kronecker(angles: Any) -> Any:
        """Return the matrix of Y rotations, the first qubit least significant."""
        product = jnp.ones((1, 1), jnp.float32)
        for half in angles / 2:
            cosine, sine = jnp.cos(half), jnp.sin(half)
            product = jnp.kron(jnp.array([[cosine, -sine], [sine, cosine]]), product)
        return product

    def encoded(features: Any) -> Any:
        if case.encoding == "amplitude":
            return features
        whole = jnp.ones((len(features), 1), jnp.float32)
        for qubit in range(qubits):
            half = features[:, qubit] / 2
            pair = jnp.stack([jnp.cos(half), jnp.sin(half)], axis=1)
            whole = (pair[:, :, None] * whole[:, None, :]).reshape(len(features), -1)
        return whole

    def loss_of(weights: Any, features: Any, labels: Any, teacher: Any) -> Any:
        angles = weights.reshape(case.layers, qubits, 2)
        state = encoded(features)
        for layer in range(case.layers):
            left, right = kronecker(angles[layer, low:, 0]), kronecker(angles[layer, :low, 0])
            blocks = state.reshape(len(features), 2 ** (qubits - low), 2**low)
            state = (left @ blocks @ right.T).reshape(len(features), -1)
            if layer < case.layers - 1:  # the last diagonal has no effect
                turn = signs @ angles[layer, :, 1] / 2
                state = state * jnp.exp(-1j * turn)
            state = state[:, source]
        values = (jnp.real(state) ** 2 + jnp.imag(state) ** 2) @ matrix
        logits = jnp.log(values + 1e-9) if case.output == "probabilities" else values
        soft = jax.nn.log_softmax(logits / TEMPERATURE)
        distilled = (teacher * (jnp.log(teacher) - soft)).sum(-1) * TEMPERATURE**2
        hard = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)[:, 0]
        return (hard + distilled).mean()

    given = [jnp.asarray(part) for part in (task.features, task.labels, task.teacher)]

    def update(state: Any, _: Any) -> Any:
        weights, first, second, count = state
        loss, gradient = jax.value_and_grad(loss_of)(weights, *given)
        count = count + 1
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        scale = first / (1 - 0.9**count) / (jnp.sqrt(second / (1 - 0.999**count)) + 1e-8)
        return (weights - LEARNING_RATE * scale, first, second, count), loss

    compiled = jax.jit(
        (lambda state: jax.lax.scan(update, state, length=SCANNED))
        if scan
        else (lambda state: update(state, None))
    )
    weights = jnp.asarray(task.weights)
    state = (weights, jnp.zeros_like(weights), jnp.zeros_like(weights), jnp.float32(0))

    def step() -> float:
        nonlocal state
        state, loss = compiled(state)
        return float(loss.mean())

    return step


def structured_scan(case: Case, task: Task) -> Step:
    return structured(case, task, scan=True)


def ours_epoch(case: Case, task: Task) -> Step:
    """Ten steps in one call."""
    return ours(case, task, steps=SCANNED)


def run_scan(case: Case) -> dict[str, Any]:
    """Return times per step of ten steps in one call, ours and structured JAX's."""
    task = make_task(case)
    steps: dict[str, Step] = {
        "ours": ours_epoch(case, task),
        "structured_scan": structured_scan(case, task),
    }
    first = check_agreement(steps)
    times = seconds_in_turns(steps, turns=9, least=0.05)
    pairs = zip(times["structured_scan"], times["ours"], strict=True)
    return {
        **asdict(case),
        "ours_ms": 1e3 * statistics.median(times["ours"]) / SCANNED,
        "structured_scan_ms": 1e3 * statistics.median(times["structured_scan"]) / SCANNED,
        "structured_scan_first_s": first["structured_scan"],
        "speedup": statistics.median(theirs / mine for theirs, mine in pairs),
    }


# One wide circuit: <Z> of every qubit, weighted, and the gradient by all weights.

Gradient = Callable[[], tuple[float, np.ndarray]]


def _weighted(case: Case) -> np.ndarray:
    return np.linspace(1, 2, case.qubits)


def wide_ours(case: Case, task: Task) -> Gradient:
    connector = CompiledConnector(network(case), task.weights)
    features = torch.from_numpy(task.features)
    factors = torch.from_numpy(_weighted(case)).float()

    def run() -> tuple[float, np.ndarray]:
        connector.weight.grad = None
        value = (connector(features) @ factors).sum()
        value.backward()
        return float(value.detach()), connector.weight.grad.numpy()

    return run


def wide_lightning(case: Case, task: Task) -> Gradient:
    import pennylane as qml
    from pennylane import numpy as pnp

    device = qml.device("lightning.qubit", wires=case.qubits, c_dtype=np.complex64)
    last = case.qubits - 1
    observable = qml.Hamiltonian(
        _weighted(case), [qml.PauliZ(last - qubit) for qubit in range(case.qubits)]
    )

    @qml.qnode(device, diff_method="adjoint")
    def value_of(features: Any, weights: Any) -> Any:
        for qubit in range(case.qubits):
            qml.RY(features[qubit], wires=last - qubit)
        for layer in range(case.layers):
            for qubit in range(case.qubits):
                number = 2 * (layer * case.qubits + qubit)
                qml.RY(weights[number], wires=last - qubit)
                qml.RZ(weights[number + 1], wires=last - qubit)
            for qubit in range(case.qubits):
                qml.CNOT(wires=[last - qubit, last - (qubit + 1) % case.qubits])
        return qml.expval(observable)

    gradient = qml.grad(value_of, argnums=1)
    weights = pnp.array(task.weights.astype(float), requires_grad=True)

    def run() -> tuple[float, np.ndarray]:
        value, total = 0.0, np.zeros(case.num_weights)
        for row in task.features:
            total += gradient(pnp.array(row, requires_grad=False), weights)
            value += float(gradient.forward)
        return value, total

    return run


def wide_qulacs(case: Case, task: Task) -> Gradient:
    """In float64, which is all that it has; its angles have the other sign."""
    from qulacs import Observable, ParametricQuantumCircuit, QuantumState

    observable = Observable(case.qubits)
    for qubit, factor in enumerate(_weighted(case)):
        observable.add_operator(factor, f"Z {qubit}")

    def run() -> tuple[float, np.ndarray]:
        value, total = 0.0, np.zeros(case.num_weights)
        for row in task.features.astype(float):
            circuit = ParametricQuantumCircuit(case.qubits)
            for qubit in range(case.qubits):
                circuit.add_RY_gate(qubit, -row[qubit])
            for layer in range(case.layers):
                for qubit in range(case.qubits):
                    number = 2 * (layer * case.qubits + qubit)
                    circuit.add_parametric_RY_gate(qubit, -float(task.weights[number]))
                    circuit.add_parametric_RZ_gate(qubit, -float(task.weights[number + 1]))
                for qubit in range(case.qubits):
                    circuit.add_CNOT_gate(qubit, (qubit + 1) % case.qubits)
            state = QuantumState(case.qubits)
            circuit.update_quantum_state(state)
            value += observable.get_expectation_value(state)
            total -= np.array(circuit.backprop(observable))
        return value, total

    return run


def run_wide(case: Case) -> dict[str, Any]:
    """Return milliseconds per sample of forward and gradient.

    The others go sample by sample: of a batch they are timed on the first two.
    """
    task = make_task(case)
    few = replace(task, features=task.features[:2])
    runs = {
        "ours": wide_ours(case, task),
        "lightning": wide_lightning(case, few),
        "qulacs": wide_qulacs(case, few),
    }
    value, gradient = wide_ours(case, few)()
    for name in ("lightning", "qulacs"):
        theirs = runs[name]()
        np.testing.assert_allclose(theirs[0], value, rtol=1e-3, atol=5e-4, err_msg=name)
        np.testing.assert_allclose(theirs[1], gradient, rtol=1e-3, atol=5e-4, err_msg=name)
    times = seconds_in_turns(runs, turns=3 if case.qubits > 16 else 5, least=0.05)
    samples = dict.fromkeys(times, len(few.features)) | {"ours": case.batch}
    times = {name: [each / samples[name] for each in values] for name, values in times.items()}
    row = asdict(case) | {
        f"{name}_ms": 1e3 * statistics.median(values) for name, values in times.items()
    }
    for name in ("lightning", "qulacs"):
        pairs = zip(times[name], times["ours"], strict=True)
        row[f"against_{name}"] = statistics.median(theirs / mine for theirs, mine in pairs)
    return row


PEERS: dict[str, Callable[..., Step]] = {
    "structured": structured,
    "tensorcircuit": tensorcircuit,
    "pennylane": pennylane,
    "torch": pennylane_torch,
}


def matrix_product() -> Step:
    left, right = torch.rand(512, 512), torch.rand(512, 512)
    return lambda: left @ right


def seconds_in_turns(steps: dict[str, Step], *, turns: int, least: float) -> dict[str, list[float]]:
    """Return seconds per step of every contender in every turn.

    Args:
        steps: The contenders, already compiled.
        turns: How often each has its turn.
        least: Seconds that a turn lasts at least; quick steps are repeated.
    """
    repeats = {}
    for name, step in steps.items():
        begin = time.process_time()
        step()
        repeats[name] = max(1, round(least / (time.process_time() - begin)))
    found: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(turns):
        for name, step in steps.items():
            begin = time.process_time()
            for _ in range(repeats[name]):
                step()
            found[name].append((time.process_time() - begin) / repeats[name])
    return found


def check_agreement(steps: dict[str, Step]) -> dict[str, float]:
    """Return the seconds of every contender's first step; three losses must agree to 1e-5.

    The second and third loss depend on the gradients through Adam.
    """
    losses, first = {}, {}
    for name, step in steps.items():
        begin = time.process_time()
        values = [step()]
        first[name] = time.process_time() - begin
        losses[name] = [*values, step(), step()]
    reference = losses["ours"]
    for name, values in losses.items():
        np.testing.assert_allclose(values, reference, rtol=1e-5, atol=1e-5, err_msg=name)
    return first


def run_case(case: Case, peers: list[str]) -> dict[str, Any]:
    task = make_task(case)
    steps: dict[str, Step] = {"ours": ours(case, task), "under_torch": under_torch(case, task)}
    for name in peers:
        if name in PEERS:
            steps[name] = PEERS[name](case, task)
    first = check_agreement(steps)
    steps["gemm"] = matrix_product()
    times = seconds_in_turns(steps, turns=9, least=0.05)
    row: dict[str, Any] = asdict(case)
    for name in ("ours", "under_torch", *peers):
        if name in times:
            row[f"{name}_ms"] = 1e3 * statistics.median(times[name])
            row[f"{name}_first_s"] = first[name]
    rivals = [name for name in peers if name in times]
    if rivals:
        fastest = min(rivals, key=lambda name: row[f"{name}_ms"])
        pairs = zip(times[fastest], times["ours"], strict=True)
        row["fastest_peer"] = fastest
        row["speedup"] = statistics.median(theirs / mine for theirs, mine in pairs)
    rate = 2 * 512**3 / min(times["gemm"])
    row["gemm_gflops"] = rate / 1e9
    row["limit_ms"] = 1e3 * case.flops() / rate
    row["share_of_limit"] = row["limit_ms"] / row["ours_ms"]
    if "qiskit" in peers and case.encoding == "angle":
        row["qiskit_extrapolated_ms"] = 1e3 * case.batch * qiskit_one_sample(case)
        row["qiskit_speedup"] = row["qiskit_extrapolated_ms"] / row["ours_ms"]
    return row


def run_population(case: Case, peers: list[str], *, members: int = 40) -> dict[str, Any]:
    task = make_task(case, members=members)
    steps: dict[str, Step] = {"ours": ours(case, task)}
    for name in peers:
        if name in ("tensorcircuit", "pennylane"):
            steps[name] = PEERS[name](case, task, population=True)
    check_agreement(steps)
    times = seconds_in_turns(steps, turns=9, least=0.05)
    row: dict[str, Any] = {"members": members, **asdict(case)}
    for name, values in times.items():
        row[f"{name}_ms_per_student"] = 1e3 * statistics.median(values) / members
    rivals = [name for name in times if name != "ours"]
    if rivals:
        fastest = min(rivals, key=lambda name: row[f"{name}_ms_per_student"])
        pairs = zip(times[fastest], times["ours"], strict=True)
        row["fastest_peer"] = fastest
        row["speedup"] = statistics.median(theirs / mine for theirs, mine in pairs)
    return row


def cases(grid: str) -> Iterator[Case]:
    if grid == "full":
        for values in itertools.product(
            (4, 6, 8, 10), (2, 4, 8), (32, 256, 1024), ("amplitude", "angle"),
            ("probabilities", "expectation"),
        ):  # fmt: skip
            yield Case(*values)
        return
    for qubits, batch in itertools.product((4, 6, 8, 10), (32, 256, 1024)):
        yield Case(qubits, 4, batch, "amplitude", "probabilities")
    for layers in (2, 8):
        yield Case(8, layers, 256, "amplitude", "probabilities")
    for qubits, batch in itertools.product((4, 6, 8), (32, 256)):
        yield Case(qubits, 2, batch, "angle", "expectation")
    yield Case(10, 2, 256, "angle", "expectation")
    yield Case(8, 4, 1024, "angle", "expectation")
    yield Case(6, 8, 256, "amplitude", "probabilities")
    yield Case(10, 8, 1024, "amplitude", "probabilities")


SCAN_CASES = (
    (4, 2, 32, "amplitude", "probabilities"),
    (6, 4, 32, "amplitude", "probabilities"),
    (8, 2, 32, "angle", "expectation"),
    (8, 2, 256, "amplitude", "probabilities"),
    (10, 2, 256, "amplitude", "probabilities"),
)


def peak_memory() -> float:
    """Return MiB of resident memory that a step at n=10, L=8, B=1024 takes above the state.

    Read from Linux's /proc.
    """

    def resident(field: str) -> float:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))

    small = Case(10, 8, 16, "amplitude", "probabilities")
    large = Case(10, 8, 1024, "amplitude", "probabilities")
    ours(small, make_task(small))()
    step = ours(large, make_task(large))
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed must not hide what is taken
    before = resident("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
    for _ in range(3):
        step()
    return resident("VmHWM:") - before - 8.0  # the state: 1024 * 1024 complex numbers of 8 bytes


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            writer.writerow({k: f"{v:.4g}" if isinstance(v, float) else v for k, v in row.items()})


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    styles = {
        "ours": ("this package", "#0b6e4f", "o"),
        "under_torch": ("this package under torch's autograd", "#6cb28e", "o"),
        "structured": ("Kronecker factors by hand, jax.jit", "#e0a030", "v"),
        "tensorcircuit": ("TensorCircuit-NG, jax.jit", "#c8553d", "s"),
        "pennylane": ("PennyLane, jax.jit", "#28587b", "^"),
        "torch": ("PennyLane, torch", "#8d6a9f", "D"),
    }
    figure, axes = plt.subplots(1, 3, figsize=(11, 4.2), sharey=True, layout="constrained")
    for axis, batch in zip(axes, (32, 256, 1024), strict=True):
        chosen = [
            row
            for row in rows
            if row["batch"] == batch and row["encoding"] == "amplitude" and row["layers"] == 4
        ]
        by_hand = [row for row in read(RESULTS / "peers_structured.csv") if row["batch"] == batch]
        for name, (label, color, marker) in styles.items():
            where = by_hand if name == "structured" and by_hand else chosen
            points = [(row["qubits"], row[f"{name}_ms"]) for row in where if f"{name}_ms" in row]
            if points:
                axis.plot(*zip(*points, strict=True), marker=marker, color=color, label=label)
        points = [(row["qubits"], row["limit_ms"]) for row in chosen]
        axis.plot(*zip(*points, strict=True), color="0.5", ls=":", label="limit: flop at GEMM rate")
        axis.set(yscale="log", xticks=(4, 6, 8, 10), xlabel="qubits", title=f"batch {batch}")
        axis.grid(True, which="major", alpha=0.3)
    axes[0].set_ylabel("one distillation step, CPU ms")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle("Four layers, amplitude encoding, one CPU core, float32 (lower is better)")
    figure.savefig(path, dpi=150)


def run_structured(qubits: list[int]) -> None:
    """Time the circuit by hand beside ours in the figure's cases; rows of other widths stay."""
    path = RESULTS / "peers_structured.csv"
    kept = [row for row in read(path) if row["qubits"] not in qubits]
    for width, batch in itertools.product(qubits, (32, 256, 1024)):
        row = run_case(Case(width, 4, batch, "amplitude", "probabilities"), ["structured"])
        kept.append({key: value for key, value in row.items() if "limit" not in key})
        show(kept[-1])
        write(path, sorted(kept, key=lambda row: (row["qubits"], row["batch"])))


def read(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a file that `write` wrote; no rows where there is none."""
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return [
            {key: _number(value) for key, value in row.items() if value}
            for row in csv.DictReader(file)
        ]


def _number(text: str) -> str | float:
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:
        return text


def show(row: dict[str, Any]) -> None:
    print({k: round(v, 4) if isinstance(v, float) else v for k, v in row.items()}, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--grid", choices=("quick", "full"), default="quick")
    parser.add_argument("--peers", default="structured,tensorcircuit,pennylane,torch,qiskit")
    parser.add_argument("--parts", default="memory,cases,population,noisy,scan,wide")
    parser.add_argument("--qubits", default="4,6,8,10", help="of the part `structured`")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    peers = [name for name in options.peers.split(",") if name]
    parts = options.parts.split(",")
    # First: the peers' memory must not count. Only Linux says what it is.
    if "memory" in parts and sys.platform == "linux":
        print(f"memory above the state at n=10, L=8, B=1024: {peak_memory():.1f} MiB", flush=True)
    rows: list[dict[str, Any]] = []
    for case in cases(options.grid) if "cases" in parts else ():
        # these take minutes to compile and were never the fastest at this size
        slow = (
            ("pennylane", "torch") if case.qubits >= 8 and case.batch * case.layers > 1024 else ()
        )
        rows.append(run_case(case, [name for name in peers if name not in slow]))
        show(rows[-1])
        write(RESULTS / "peers.csv", rows)
        draw(rows, RESULTS / "peers.png")
    if "structured" in parts:
        run_structured([int(width) for width in options.qubits.split(",")])
        draw(read(RESULTS / "peers.csv"), RESULTS / "peers.png")
    rows = []
    for values in (
        itertools.product((4, 6), ("angle", "amplitude")) if "population" in parts else ()
    ):
        rows.append(run_population(Case(values[0], 2, 32, values[1], "probabilities"), peers))
        show(rows[-1])
        write(RESULTS / "peers_population.csv", rows)
    rows = []
    for qubits in (4, 6) if "noisy" in parts else ():
        rows.append(run_noisy(Case(qubits, 2, 32, "angle", "probabilities")))
        show(rows[-1])
        write(RESULTS / "peers_noisy.csv", rows)
    rows = []
    for values in SCAN_CASES if "scan" in parts else ():
        rows.append(run_scan(Case(*values)))
        show(rows[-1])
        write(RESULTS / "peers_scan.csv", rows)
    rows = []
    for qubits, batch in itertools.product((12, 16, 20), (1, 16)) if "wide" in parts else ():
        rows.append(run_wide(Case(qubits, 2, batch, "angle", "expectation")))
        show(rows[-1])
        write(RESULTS / "peers_wide.csv", rows)


if __name__ == "__main__":
    main()
