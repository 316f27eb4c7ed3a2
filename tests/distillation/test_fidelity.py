"""Fidelities of the student's states as a loss: Qiskit's states, finite differences, refusals."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.quantum_info import Statevector
from scipy.special import softmax

import qkd_qiskit
from qkd_qiskit.distillation import losses
from qkd_qiskit.errors import TrainingError
from qkd_qiskit.recipe import DistillSpec, LossTerm, StudentSpec, TeacherSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.teachers.teacher import make_teacher

SIZE, CLASSES, TEMPERATURE = 5, 3, 2.5
GENERATOR = torch.Generator().manual_seed(3)
IMAGES = torch.rand(SIZE, 1, 4, 4, generator=GENERATOR, dtype=torch.float64)
TEACHER = 2 * torch.randn(SIZE, CLASSES, generator=GENERATOR, dtype=torch.float64)

REUPLOADING = StudentSpec(
    kind="quantum", qubits=3, encoding="reuploading", ansatz="ry_rz_ring", layers=3,
    reduction="avg_pool", readout="bins", head="none",
)  # fmt: skip
FIXED = replace(REUPLOADING, encoding="angle")
SPECS = {
    "reuploading": REUPLOADING,
    "reuploading, linear": replace(REUPLOADING, kind="hybrid", reduction="linear"),
    "amplitude, linear": StudentSpec(qubits=3, encoding="amplitude", layers=1),
    "angle, linear": StudentSpec(qubits=3, encoding="angle", layers=2),
    "qubit, cnn": StudentSpec(qubits=2, encoding="qubit", ansatz="cz_line", reduction="cnn"),
}


def student(spec, *, seed=1):
    return make_student(spec, image_shape=(1, 4, 4), num_classes=CLASSES, seed=seed)


def own_circuit():
    """A circuit of one's own: a weight before the inputs, and others that nothing sees."""
    x, y, first, last, beside = (Parameter(f"{n}") for n in ("x_000", "x_001", "w_0", "w_1", "w_2"))
    circuit = QuantumCircuit(2)
    circuit.h(0)
    circuit.ry(first, 0)
    circuit.cx(0, 1)
    circuit.ry(last, 0)
    circuit.ry(x * y, 1)
    circuit.rx(x, 1)
    circuit.ry(beside, 0)
    return make_student(
        circuit=circuit,
        input_params=[x, y],
        weight_params=[first, last, beside],
        spec=StudentSpec(
            kind="quantum", qubits=2, reduction="avg_pool", readout="bins", head="none"
        ),
        image_shape=(1, 4, 4),
        num_classes=CLASSES,
        seed=1,
    )


def reference(model):
    """The loss from Qiskit's states of the whole circuit, pair by pair."""
    inputs, weights = model.encode(IMAGES).detach().numpy(), model.weights.detach().numpy()
    states = []
    for row in inputs:
        values = dict(zip(model.parts.input_params, row, strict=True))
        values |= dict(zip(model.parts.weight_params, weights, strict=True))
        states.append(Statevector(model.circuit.assign_parameters(values)))
    p = softmax(TEACHER.numpy() / TEMPERATURE, axis=1)
    pairs = [(i, j) for i in range(SIZE) for j in range(SIZE) if i != j]
    return np.mean(
        [
            (np.sum(np.sqrt(p[i] * p[j])) ** 2 - abs(states[i].inner(states[j])) ** 2) ** 2
            for i, j in pairs
        ]
    )


def value(model):
    return losses.fidelity_loss(model.states(IMAGES), TEACHER, temperature=TEMPERATURE)


@pytest.mark.parametrize("name", [*SPECS, "own"])
def test_value_and_gradient_are_those_of_qiskits_states(name):
    model = (own_circuit() if name == "own" else student(SPECS[name])).double()
    loss = value(model)
    assert loss.item() == pytest.approx(reference(model), abs=1e-9)
    assert loss.item() > 1e-3
    parameters = [p for p in model.parameters() if p.requires_grad]
    slopes = torch.autograd.grad(loss, parameters, allow_unused=True)
    largest, step = 0.0, 1e-5
    for parameter, slope in zip(parameters, slopes, strict=True):
        flat = parameter.data.view(-1)
        for index in range(0, len(flat), max(1, len(flat) // 8)):
            before, found = flat[index].item(), []
            for moved in (before + step, before - step):
                flat[index] = moved
                found.append(reference(model))
            flat[index] = before
            expected = (found[0] - found[1]) / (2 * step)
            given = 0.0 if slope is None else slope.reshape(-1)[index].item()
            assert given == pytest.approx(expected, abs=1e-7)
            largest = max(largest, abs(expected))
    assert largest > 1e-5


def test_only_gates_before_an_input_are_run():
    part = own_circuit().parts.encoding_part()
    assert [instruction.operation.name for instruction in part.data] == [
        "h",
        "ry",
        "cx",
        "ry",
        "rx",
    ]
    assert {parameter.name for parameter in part.parameters} == {"x_000", "x_001", "w_000"}
    whole, before_last = student(REUPLOADING), student(replace(REUPLOADING, layers=2))
    used = set(whole.parts.encoding_part().parameters) & set(whole.parts.weight_params)
    assert len(used) == len(before_last.parts.weight_params)


def test_vmap_agrees_with_a_loop():
    states = torch.stack([student(REUPLOADING, seed=s).states(IMAGES).detach() for s in range(3)])
    taught = torch.stack([TEACHER, TEACHER.flip(0), TEACHER]).float()
    mapped = torch.func.vmap(losses.fidelity_loss)(states, taught)
    looped = [losses.fidelity_loss(*each) for each in zip(states, taught, strict=True)]
    torch.testing.assert_close(mapped, torch.stack(looped))


def test_states_that_are_the_teachers_have_no_loss_and_one_example_no_relation():
    roots = (TEACHER / TEMPERATURE).softmax(dim=1).sqrt().requires_grad_()
    loss = losses.fidelity_loss(roots, TEACHER, temperature=TEMPERATURE)
    assert abs(loss.item()) < 1e-12
    turn, _ = torch.linalg.qr(torch.randn(3, 3, dtype=torch.complex128, generator=GENERATOR))
    elsewhere = roots.flip(0).to(torch.complex128)
    torch.testing.assert_close(
        losses.fidelity_loss(elsewhere @ turn, TEACHER), losses.fidelity_loss(elsewhere, TEACHER)
    )
    alone = losses.fidelity_loss(roots[:1], TEACHER[:1])
    assert alone.item() == 0
    assert torch.equal(torch.autograd.grad(alone, roots)[0], torch.zeros_like(roots))


@pytest.fixture(scope="module")
def data():
    labels = torch.arange(90) % 3
    images = 0.2 * torch.rand(90, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[torch.arange(90), 0, labels, labels] += 0.5
    return qkd_qiskit.Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


@pytest.fixture(scope="module")
def teacher(data):
    return make_teacher(TeacherSpec(kind="softmax", epochs=20, lr=0.1), data, cache=False)


ALONE = DistillSpec(epochs=4, lr=0.05, temperature=3.0, terms=(LossTerm(loss="fidelity"),))


@pytest.mark.parametrize("spec", [REUPLOADING, SPECS["amplitude, linear"]])
def test_the_term_trains_the_encoding(spec, data, teacher):
    trained = qkd_qiskit.distill(student(spec), teacher, data, spec=ALONE)
    first, last = trained.history[0], trained.history[-1]
    assert first.loss == first.terms["fidelity"] > last.loss
    state = student(spec).state_dict()
    reached = {name for name, value in trained.state.items() if not torch.equal(value, state[name])}
    assert reached == {"connector.weight"} if spec is REUPLOADING else {"reduction.1.weight"}


def test_the_temperature_is_the_recipes_or_the_terms_own(data, teacher):
    def first_loss(**options):
        spec = replace(ALONE, epochs=1, terms=(LossTerm(loss="fidelity", **options),))
        return qkd_qiskit.distill(student(REUPLOADING), teacher, data, spec=spec).history[0].loss

    assert first_loss() == first_loss(temperature=3.0) != first_loss(temperature=1.0)


@pytest.mark.parametrize(
    ("spec", "change", "message"),
    [
        (FIXED, {}, r"nothing that encodes an image is trained .*avg_pool.*angle.*unitary U"),
        (replace(REUPLOADING, layers=1), {}, r"nothing that encodes .* 2 or more layers"),
        (StudentSpec(kind="classical"), {}, "kind classical has no circuit with states"),
        (REUPLOADING, {"gradient": "noisy", "train_target": "fake_lima"}, "gradient exact"),
    ],
)
def test_what_it_cannot_train_is_refused_in_one_line(spec, change, message, data, teacher):
    epochs, model = [], student(spec)
    with pytest.raises(
        TrainingError, match=f"'fidelity' of arm .* no gradient: .*{message}"
    ) as raised:
        qkd_qiskit.distill(
            model, teacher, data, spec=replace(ALONE, **change), on_epoch=epochs.append
        )
    assert "\n" not in str(raised.value)
    assert not epochs


def test_a_fixed_encoding_has_in_fact_no_gradient():
    model = student(FIXED)
    assert not model.trains_states
    assert not losses.fidelity_loss(model.states(IMAGES.float()), TEACHER.float()).requires_grad
