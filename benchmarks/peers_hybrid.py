"""Time the training step of hybrid students against the same step written by hand in JAX.

    pip install -e ".[peers]"
    python benchmarks/peers_hybrid.py [--cases mnist_6,mnist_40,mnist_120,paper_v2_8q,digits_6]

A step is all that a population does for one batch: rows picked from the data set, linear layer,
normalisation, circuit, linear layer, cross-entropy and divergence, gradients, AdamW; the arms
label_only and distilled over half as many seeds, in float32. Ours is timed as `train_population`
runs it, whole epochs at a time, and on its path under torch's autograd. The peers: the circuit gate
by gate in TensorCircuit-NG, and structured JAX (a layer of RY as two Kronecker factors, of RZ as
one diagonal, CX as one gather, real numbers as long as there is no RZ); both vmapped over samples
and members and jitted with donated buffers, call by call and as `lax.scan` over an epoch. All start
from the same numbers and must agree in the first epoch's losses to 1e-4 before they are timed, in
turns in one process: CPU time on one core, medians over turns, ratios as medians of the turns'
ratios. Writes benchmarks/results/peers_hybrid.csv.
"""

# ruff: noqa: E402  (the number of threads is set before torch and jax are imported)
from __future__ import annotations

import argparse
import csv
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_name] = "1"
os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
import torch

from qkd_qiskit.distillation import trainer
from qkd_qiskit.distillation.fused_hybrid import hybrid_steps
from qkd_qiskit.distillation.population import DistillationData, Member, Population
from qkd_qiskit.distillation.terms import population_terms
from qkd_qiskit.recipe import DistillSpec, StudentSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.students.quantum import QuantumStudent

RESULTS = Path(__file__).parent / "results"
CLASSES = 10
LEARNING_RATE, DECAY = 0.01, 0.01
Epoch = Callable[[], np.ndarray]
"""Takes an epoch's steps and returns the members' mean losses of it `(members,)`."""


@dataclass(frozen=True)
class Case:
    """A population and what it learns from."""

    name: str
    members: int
    batch: int
    images: int
    side: int
    qubits: int = 4
    ansatz: str = "real_amplitudes"

    @property
    def spec(self) -> StudentSpec:
        """The student of the recipe."""
        return StudentSpec(
            kind="hybrid",
            qubits=self.qubits,
            encoding="amplitude",
            ansatz=self.ansatz,
            layers=2,
            reduction="linear",
            readout="probabilities",
            head="linear",
        )


CASES = (
    Case("digits_6", 6, 32, 100, 8),
    Case("mnist_6", 6, 32, 500, 28),
    Case("mnist_40", 40, 32, 500, 28),
    Case("mnist_120", 120, 32, 500, 28),
    Case("paper_v2_8q", 6, 256, 2048, 28, qubits=8, ansatz="ry_rz_ring"),
)
POOL = 20_000


@dataclass(frozen=True)
class Task:
    """A case's numbers, the same for every contender."""

    student: QuantumStudent
    members: list[Member]
    examples: DistillationData
    starts: list[dict[str, torch.Tensor]]
    spec: DistillSpec
    order: torch.Tensor

    @property
    def steps(self) -> list[torch.Tensor]:
        """The rows of each step `(members, batch)`."""
        return list(torch.split(self.order, self.spec.batch_size, dim=1))

    def population(self) -> Population:
        """Return the members at their start."""
        return Population(self.student, self.members, starts=self.starts, spec=self.spec)


def make_task(case: Case) -> Task:
    generator = torch.Generator().manual_seed(7)
    shape = (1, case.side, case.side)
    arms = (("label_only", 1.0, 0.0), ("distilled", 0.5, 0.5))
    members = [
        Member(arm=arm, seed=seed, ce_weight=ce, kd_weight=kd)
        for seed in range(case.members // 2)
        for arm, ce, kd in arms
    ]
    students = {
        member.seed: make_student(
            case.spec, image_shape=shape, num_classes=CLASSES, seed=member.seed
        )
        for member in members
    }
    draws = torch.stack(
        [torch.randperm(POOL, generator=generator)[: case.images] for _ in students]
    ).repeat_interleave(2, dim=0)
    shuffled = torch.randperm(case.images, generator=generator)
    examples = DistillationData(
        inputs=torch.rand(POOL, *shape, generator=generator),
        labels=torch.randint(0, CLASSES, (POOL,), generator=generator),
        teacher_logits=3 * torch.randn(1, POOL, CLASSES, generator=generator),
        teachers=torch.zeros(case.members, dtype=torch.int64),
        draws=draws,
        validation_inputs=torch.rand(4, *shape, generator=generator),
        validation_labels=torch.zeros(4, dtype=torch.int64),
    )
    student = students[0]
    assert isinstance(student, QuantumStudent)
    return Task(
        student=student,
        members=members,
        examples=examples,
        starts=[dict(students[member.seed].named_parameters()) for member in members],
        spec=DistillSpec(
            batch_size=case.batch, lr=LEARNING_RATE, temperature=4.0, weight_decay=DECAY
        ),
        order=draws[:, shuffled],
    )


def ours(task: Task) -> Epoch:
    """The steps as `train_population` takes them, parameters handed back after every epoch."""
    population = task.population()
    terms = partial(population_terms, spec=task.spec, others={}, mapped=True)
    steps = hybrid_steps(population, task.examples, terms=terms)
    assert steps is not None

    def epoch() -> np.ndarray:
        found = steps(task.order, lr=LEARNING_RATE)
        return (population.weights * found).sum(dim=1).numpy()

    return epoch


def under_torch(task: Task) -> Epoch:
    """The path of what is not fused: vmap, autograd, torch.optim.AdamW."""
    population = task.population()

    def epoch() -> np.ndarray:
        found = trainer._steps(
            population, task.examples, task.order, lr=LEARNING_RATE, others={}, mapped=True
        )
        return (population.weights * found).sum(dim=1).numpy()

    return epoch


def gates_of(student: QuantumStudent) -> list[tuple[str, list[int], int]]:
    """Return name, qubits and weight (or -1) of the gates behind the preparation."""
    circuit, parts = student.circuit, student.parts
    number = {parameter: index for index, parameter in enumerate(parts.weight_params)}
    return [
        (
            instruction.operation.name,
            [circuit.find_bit(qubit).index for qubit in instruction.qubits],
            number[instruction.operation.params[0]] if instruction.operation.params else -1,
        )
        for instruction in circuit.data[parts.preparation :]
    ]


def tensorcircuit_probabilities(student: QuantumStudent) -> Callable[[Any, Any], Any]:
    """Return the circuit of one sample, gate by gate."""
    import tensorcircuit as tc

    backend = tc.set_backend("jax")
    last, gates = student.qubits - 1, gates_of(student)  # its first qubit is the most significant

    def probabilities(amplitudes: Any, weights: Any) -> Any:
        circuit = tc.Circuit(student.qubits, inputs=amplitudes)
        for name, qubits, weight in gates:
            places = [last - qubit for qubit in qubits]
            angle = {} if weight < 0 else {"theta": weights[weight]}
            getattr(circuit, name)(*places, **angle)
        state = circuit.state()
        return backend.real(state) ** 2 + backend.imag(state) ** 2

    return probabilities


def structured_probabilities(student: QuantumStudent) -> Callable[[Any, Any], Any]:
    """Return the circuit of one sample, a layer of gates of one kind at a time."""
    import jax.numpy as jnp

    qubits = student.qubits
    states = np.arange(2**qubits)
    half = qubits // 2
    layers: list[tuple[str, Any]] = []
    for name, where, weight in gates_of(student):
        if name == "cx":
            control, target = where
            source = states ^ ((states >> control & 1) << target)
            if layers and layers[-1][0] == "cx":
                layers[-1] = ("cx", layers[-1][1][source])
            else:
                layers.append(("cx", source))
        elif layers and layers[-1][0] == name and where[0] not in layers[-1][1]:
            layers[-1][1][where[0]] = weight
        elif len(layers) > 1 and layers[-2][0] == name and where[0] not in layers[-2][1]:
            layers[-2][1][where[0]] = weight  # RY of the next qubit, before or after RZ of another
        else:
            layers.append((name, {where[0]: weight}))

    def rotation(angle: Any) -> Any:
        cosine, sine = jnp.cos(angle / 2), jnp.sin(angle / 2)
        return jnp.stack([jnp.stack([cosine, -sine]), jnp.stack([sine, cosine])])

    def factor(weights: Any, chosen: dict[int, int], first: int, end: int) -> Any:
        total = jnp.ones((1, 1))
        for qubit in range(end - 1, first - 1, -1):
            part = rotation(weights[chosen[qubit]]) if qubit in chosen else jnp.eye(2)
            total = jnp.kron(total, part)
        return total

    def probabilities(amplitudes: Any, weights: Any) -> Any:
        state = amplitudes
        for name, what in layers:
            if name == "cx":
                state = state[what]
            elif name == "ry":
                high = factor(weights, what, half, qubits)
                low = factor(weights, what, 0, half)
                square = state.reshape(2 ** (qubits - half), 2**half)
                state = (high @ square @ low.T).reshape(-1)
            else:
                signs = np.stack([(states >> qubit & 1) - 0.5 for qubit in what])
                angles = jnp.stack([weights[weight] for weight in what.values()])
                state = state * jnp.exp(1j * (angles @ signs))
        return jnp.real(state) ** 2 + jnp.imag(state) ** 2

    return probabilities


def in_jax(
    task: Task, make_circuit: Callable[[QuantumStudent], Callable[[Any, Any], Any]], *, scan: bool
) -> Epoch:
    """Return an epoch around the probabilities of one sample."""
    import jax
    import jax.numpy as jnp

    circuit = jax.vmap(make_circuit(task.student), in_axes=(0, None))
    outcomes, warmth = 2**task.student.qubits, task.spec.temperature

    def loss_of(numbers: Any, factors: Any, images: Any, labels: Any, targets: Any) -> Any:
        features = images @ numbers["reduction.1.weight"].T + numbers["reduction.1.bias"]
        amplitudes = features / jnp.linalg.norm(features, axis=-1, keepdims=True)
        values = outcomes * circuit(amplitudes, numbers["connector.weight"])
        logits = values @ numbers["head.weight"].T + numbers["head.bias"]
        plain, soft = jax.nn.log_softmax(logits), jax.nn.log_softmax(logits / warmth)
        hard = -jnp.take_along_axis(plain, labels[:, None], axis=1).mean()
        known = jnp.exp(targets)
        distilled = warmth**2 * (known * (targets - soft)).sum(axis=-1).mean()
        return factors[0] * hard + factors[1] * distilled

    def update(state: Any, factors: Any, images: Any, labels: Any, targets: Any) -> Any:
        numbers, first, second, count = state
        loss, slopes = jax.value_and_grad(loss_of)(numbers, factors, images, labels, targets)
        count = count + 1
        each = jax.tree_util.tree_map
        first = each(lambda m, g: 0.9 * m + 0.1 * g, first, slopes)
        second = each(lambda v, g: 0.999 * v + 0.001 * g * g, second, slopes)
        rate, root = LEARNING_RATE / (1 - 0.9**count), jnp.sqrt(1 - 0.999**count)
        numbers = each(
            lambda w, m, v: (
                w * (1 - LEARNING_RATE * DECAY) - rate * m / (jnp.sqrt(v) / root + 1e-8)
            ),
            numbers,
            first,
            second,
        )
        return (numbers, first, second, count), loss

    over_members = jax.vmap(
        update, in_axes=((0, 0, 0, None), 0, 0, 0, 0), out_axes=((0, 0, 0, None), 0)
    )
    examples = task.examples
    images = jnp.asarray(examples.inputs.flatten(1).numpy())
    labels = jnp.asarray(examples.labels.numpy())
    targets = jnp.asarray((examples.teacher_logits[0] / warmth).log_softmax(dim=1).numpy())
    factors = jnp.asarray([member.weights[:2] for member in task.members])

    def step(state: Any, rows: Any) -> Any:
        return over_members(state, factors, images[rows], labels[rows], targets[rows])

    names = dict(task.student.named_parameters())
    assert set(names) >= {"reduction.1.weight", "head.weight"}
    own = {id(value): name for name, value in names.items()}[id(task.student.weights)]
    start = {
        ("connector.weight" if name == own else name): jnp.asarray(
            torch.stack([each[name].detach() for each in task.starts]).numpy()
        )
        for name in names
    }
    zeros = [{name: jnp.zeros_like(value) for name, value in start.items()} for _ in range(2)]
    state: Any = (start, *zeros, jnp.float32(0))
    one = jax.jit(step, donate_argnums=0)
    whole = jax.jit(lambda state, rows: jax.lax.scan(step, state, rows), donate_argnums=0)
    steps = [jnp.asarray(rows.numpy()) for rows in task.steps]
    equal = [rows for rows in steps if rows.shape == steps[0].shape]
    stacked, rest = jnp.stack(equal), steps[len(equal) :]
    sizes = [rows.shape[1] for rows in steps]

    def epoch() -> np.ndarray:
        nonlocal state
        losses: list[Any] = []
        if scan:
            state, several = whole(state, stacked)
            losses += list(np.asarray(several))
        for rows in rest if scan else steps:
            state, loss = one(state, rows)
            losses.append(np.asarray(loss))
        return np.average(np.stack(losses), axis=0, weights=sizes)

    return epoch


CONTENDERS: dict[str, Callable[[Task], Epoch]] = {
    "ours": ours,
    "ours_in_torch": under_torch,
    "tensorcircuit": partial(in_jax, make_circuit=tensorcircuit_probabilities, scan=False),
    "tensorcircuit_scan": partial(in_jax, make_circuit=tensorcircuit_probabilities, scan=True),
    "structured_jax": partial(in_jax, make_circuit=structured_probabilities, scan=False),
    "structured_jax_scan": partial(in_jax, make_circuit=structured_probabilities, scan=True),
}


def run_case(case: Case, *, turns: int) -> dict[str, Any]:
    """Return milliseconds per step of every contender, and how many times ours they take."""
    task = make_task(case)
    epochs, first = {}, {}
    for name, make in CONTENDERS.items():
        epochs[name] = make(task)
        first[name] = epochs[name]()
    for name, losses in first.items():
        if not np.allclose(losses, first["ours"], rtol=1e-4, atol=1e-4):
            raise SystemExit(f"{case.name}: {name} loses {losses}, ours {first['ours']}")
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for turn in range(turns + 1):
        for name, epoch in epochs.items():
            start = time.process_time()
            epoch()
            if turn:  # the first warms up
                times[name].append(1e3 * (time.process_time() - start) / len(task.steps))
    row: dict[str, Any] = {
        "case": case.name, "members": case.members, "batch": case.batch,
        "inputs": case.side**2, "qubits": case.qubits,
    }  # fmt: skip
    row |= {f"{name}_ms": round(statistics.median(each), 3) for name, each in times.items()}
    for name, each in times.items():
        if name != "ours":
            ratios = [peer / mine for peer, mine in zip(each, times["ours"], strict=True)]
            row[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", default=",".join(case.name for case in CASES))
    parser.add_argument("--turns", type=int, default=9)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    rows = []
    RESULTS.mkdir(exist_ok=True)
    for case in CASES:
        if case.name not in options.cases.split(","):
            continue
        rows.append(run_case(case, turns=options.turns))
        print("  ".join(f"{name}={value}" for name, value in rows[-1].items()), flush=True)
        with (RESULTS / "peers_hybrid.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
