"""A fused step against the connector, the losses and the optimizer that it stands for."""

import numpy as np
import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter
from qiskit.circuit.library import zz_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN

from qkd_qiskit import StudentSpec, make_student
from qkd_qiskit.distillation.losses import distillation_loss, label_loss
from qkd_qiskit.errors import CheckpointError, CircuitError, InputError
from qkd_qiskit.simulator import CompiledConnector
from qkd_qiskit.simulator.fused.step import FusedStep, Objective

QUBITS, CLASSES = 3, 3


def make_connector(*, output="bins", encoding="angle", observable="Z"):
    """RY by inputs and weights, RZ, CX, twice; bins of outcomes or <Z> per qubit."""
    circuit = QuantumCircuit(QUBITS)
    inputs = [Parameter(f"x_{i:03d}") for i in range(QUBITS)] if encoding != "states" else []
    if encoding == "zz":
        feature_map = zz_feature_map(QUBITS, reps=1)
        by_name = dict(zip(feature_map.parameters, inputs, strict=True))
        circuit.compose(feature_map.assign_parameters(by_name), inplace=True)
    elif inputs:
        for qubit, parameter in enumerate(inputs):
            circuit.ry(parameter, qubit)
    weights = [Parameter(f"w_{i:03d}") for i in range(4 * QUBITS)]
    for number, weight in enumerate(weights):
        qubit = number // 2 % QUBITS
        if number % 2 == 0:
            angle = 2 * weight + weights[0] + 0.2
            if encoding == "products":  # of one input and one weight, and of several
                angle += weights[1] * inputs[qubit] - 0.5 * weight * inputs[0]
            circuit.ry(angle, qubit)
        else:
            circuit.rz(weight + (inputs[qubit] if inputs else 0.1), qubit)
            circuit.cx(qubit, (qubit + 1) % QUBITS)
    options = {"circuit": circuit, "input_params": inputs, "weight_params": weights}
    if output == "bins":
        return CompiledConnector(
            SamplerQNN(**options, interpret=lambda o: o * CLASSES >> QUBITS, output_shape=CLASSES)
        )
    observables = [
        SparsePauliOp.from_sparse_list([(observable, [q], 1.0)], num_qubits=QUBITS)
        for q in range(QUBITS)
    ]
    return CompiledConnector(EstimatorQNN(**options, observables=observables))


def make_distillation_data(*, batch, encoding="angle", dtype=torch.float64, members=(), seed=0):
    """Labels, teacher logits and what the circuit starts from."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (*members, batch), generator=generator)
    teacher = 3 * torch.randn(*members, batch, CLASSES, generator=generator, dtype=dtype)
    if encoding in ("real", "complex"):
        kind = dtype.to_complex() if encoding == "complex" else dtype
        states = torch.randn(*members, batch, 2**QUBITS, generator=generator, dtype=kind)
        return labels, teacher, {"states": states / states.norm(dim=-1, keepdim=True)}
    inputs = torch.randn(*members, batch, QUBITS, generator=generator, dtype=dtype)
    return labels, teacher, {"inputs": inputs}


def torch_terms(connector, objective, labels, teacher, start):
    """The loss terms by the connector and losses.py."""
    if "states" in start:
        outputs = connector.from_states(start["states"])
    else:
        outputs = connector(start["inputs"])
    logits = objective.factor * outputs
    if objective.logarithm:
        clamped = outputs.clamp_min(objective.smallest) + objective.added
        logits = objective.factor * clamped.log()
    temperatures = (objective.temperature, objective.student_temperature)
    kd = distillation_loss(
        logits, teacher, temperature=temperatures[0], student_temperature=temperatures[1]
    )
    return torch.stack([label_loss(logits, labels), kd])


def start_weights(*, members=1, dtype=torch.float64, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(members, 4 * QUBITS, generator=generator, dtype=dtype)


def set_weights(connector, weights):
    connector.to(weights.dtype).weight.data.copy_(weights)
    return connector


@pytest.mark.parametrize("factors", [(1.0, 0.0), (0.0, 1.0), (0.3, 0.7)])
@pytest.mark.parametrize("encoding", ["angle", "products", "zz", "real", "complex"])
@pytest.mark.parametrize("output", ["bins", "z"])
def test_gradient_is_that_of_torch(output, encoding, factors):
    given = encoding in ("real", "complex")
    connector = make_connector(output=output, encoding="states" if given else encoding)
    weights = start_weights()
    for temperature, own, batch in ((1.0, None, 1), (3.0, None, 19), (4.0, 1.0, 8)):
        objective = Objective(
            temperature=temperature,
            student_temperature=own,
            logarithm=output == "bins",
            factor=2.5,
            smallest=0.15,  # some bins are below
            added=1e-3,
        )
        labels, teacher, start = make_distillation_data(batch=batch, encoding=encoding)
        fused = FusedStep(
            connector, weights, objective=objective, ce_weight=factors[0], kd_weight=factors[1]
        )
        terms, gradient = fused.gradients(fused.samples(labels, teacher, **start))
        set_weights(connector, weights[0])
        expected = torch_terms(connector, objective, labels, teacher, start)
        loss = (expected * torch.tensor(factors, dtype=torch.float64)).sum()
        (slope,) = torch.autograd.grad(loss, connector.weight)
        np.testing.assert_allclose(terms[0], expected.detach().numpy(), atol=1e-10)
        np.testing.assert_allclose(gradient[0], slope.numpy(), atol=1e-10)
        assert np.abs(gradient).max() > 1e-3


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-4)], ids=str
)
@pytest.mark.parametrize(
    ("output", "encoding"), [("bins", "real"), ("z", "angle"), ("bins", "products")]
)
def test_steps_are_those_of_adamw(output, encoding, dtype, tolerance):
    connector = make_connector(output=output, encoding="states" if encoding == "real" else encoding)
    objective = Objective(temperature=4.0, logarithm=output == "bins", smallest=1e-6)
    weights = start_weights(dtype=dtype)
    labels, teacher, start = make_distillation_data(batch=21, encoding=encoding, dtype=dtype)
    fused = FusedStep(connector, weights, objective=objective, ce_weight=0.5, kd_weight=0.5)
    samples = fused.samples(labels, teacher, **start)
    set_weights(connector, weights[0])
    optimizer = torch.optim.AdamW([connector.weight])
    for number in range(20):
        optimizer.param_groups[0]["lr"] = lr = 0.05 / (1 + number)
        terms = torch_terms(connector, objective, labels, teacher, start)
        optimizer.zero_grad()
        (0.5 * terms).sum().backward()
        optimizer.step()
        found = fused.step(samples, lr=lr)
        np.testing.assert_allclose(found[0], terms.detach().numpy(), atol=tolerance)
    state = optimizer.state[connector.weight]
    # Rotations that no outcome depends on have gradients that are rounding errors, which Adam turns
    # into steps of full size.
    felt = state["exp_avg_sq"].numpy() > 1e-10
    assert felt.sum() >= 9
    weight = connector.weight.detach().numpy()
    np.testing.assert_allclose(fused.weights[0][felt], weight[felt], atol=tolerance)
    for name in ("exp_avg", "exp_avg_sq"):
        np.testing.assert_allclose(fused.state()[name][0], state[name].numpy(), atol=tolerance)
    assert fused.steps == 20 == int(fused.state()["steps"])


def population(members, **options):
    """A population whose members differ in everything, and an epoch's order."""
    connector = make_connector()
    fused = FusedStep(
        connector,
        start_weights(members=members, **options),
        objective=Objective(temperature=3.0, smallest=1e-6),
        ce_weight=np.linspace(0, 1, members),
        kd_weight=np.linspace(1, 0.5, members),
    )
    random = np.random.default_rng(3)
    order = np.stack([random.permutation(50)[:45] for _ in range(members)])
    return fused, order


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_members_are_trained_as_if_alone(dtype, monkeypatch):
    members = 3
    labels, teacher, start = make_distillation_data(batch=50, members=(members,), dtype=dtype)
    together, order = population(members, dtype=dtype)
    first = together.weights.copy()
    samples = together.samples(labels, teacher, **start)
    terms = together.epoch(samples, order, batch_size=16, lr=0.05)
    for member in range(members):
        alone, _ = population(members, dtype=dtype)
        alone = FusedStep(
            make_connector(),
            first[member : member + 1],
            objective=alone.objective,
            ce_weight=np.linspace(0, 1, members)[member],
            kd_weight=np.linspace(1, 0.5, members)[member],
        )
        mine = {name: values[member] for name, values in start.items()}
        examples = alone.samples(labels[member], teacher[member], **mine)
        found = alone.epoch(examples, order[member : member + 1], batch_size=16, lr=0.05)
        np.testing.assert_array_equal(found[0], terms[member])
        np.testing.assert_array_equal(alone.weights[0], together.weights[member])

    monkeypatch.setattr("qkd_qiskit.simulator.threads._LEAST_WORK", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        threaded, _ = population(members, dtype=dtype)
        threaded.epoch(samples, order, batch_size=16, lr=0.05)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(threaded.weights, together.weights)


@pytest.mark.parametrize("encoding", ["angle", "real", "complex"])
def test_epoch_is_its_steps(encoding):
    connector = make_connector(encoding="angle" if encoding == "angle" else "states")
    labels, teacher, start = make_distillation_data(batch=50, encoding=encoding)
    order = np.random.default_rng(0).permutation(50)[None, :45]
    found = []
    for whole in (True, False):
        fused = FusedStep(
            connector,
            start_weights(),
            objective=Objective(temperature=3.0),
            ce_weight=0.5,
            kd_weight=0.5,
        )
        if whole:
            pool = fused.samples(labels, teacher, **start)
            terms = fused.epoch(pool, order, batch_size=20, lr=0.05)
        else:
            terms = np.zeros((1, 2))
            for rows in (order[0, :20], order[0, 20:40], order[0, 40:]):
                picked = {name: values[rows] for name, values in start.items()}
                batch = fused.samples(labels[rows], teacher[rows], **picked)
                terms += fused.step(batch, lr=0.05) * len(rows) / 45
        found.append((terms, fused.state()))
    (terms, state), (other_terms, other_state) = found
    np.testing.assert_allclose(terms, other_terms, atol=1e-15)
    for name, array in state.items():
        np.testing.assert_array_equal(array, other_state[name])
    assert int(state["steps"]) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_resumed_training_ends_with_the_same_bits(dtype):
    labels, teacher, start = make_distillation_data(batch=50, dtype=dtype)
    straight, order = population(2, dtype=dtype)
    samples = straight.samples(labels, teacher, **start)
    for _ in range(2):
        straight.epoch(samples, order, batch_size=16, lr=0.05)
    saved = straight.state()
    resumed, _ = population(2, dtype=dtype, seed=9)
    resumed.load_state({name: torch.from_numpy(array) for name, array in saved.items()})
    for fused in (straight, resumed):
        fused.epoch(samples, order, batch_size=16, lr=0.02)
        fused.step(samples, lr=0.01)
    for name, array in straight.state().items():
        np.testing.assert_array_equal(array, resumed.state()[name])
    assert resumed.steps == 10
    assert not np.array_equal(saved["weights"], straight.weights)  # copies


@pytest.mark.parametrize("encoding", ["amplitude", "angle"])
def test_logits_of_a_student(encoding):
    spec = StudentSpec(
        kind="quantum", qubits=4, layers=1, encoding=encoding, reduction="avg_pool",
        readout="bins", head="none", sharpness=8.0,
    )  # fmt: skip
    student = make_student(spec, image_shape=(1, 8, 8), num_classes=CLASSES)
    generator = torch.Generator().manual_seed(0)
    inputs = student.features(torch.rand(7, 1, 8, 8, generator=generator))
    labels, teacher, _ = make_distillation_data(batch=7, dtype=torch.float32)
    logits = student(inputs)
    expected = [label_loss(logits, labels), distillation_loss(logits, teacher, temperature=2.0)]
    prepared = student.parts.encoding
    if prepared.prepares_state:
        start = {"states": prepared.amplitudes(inputs)}
    else:
        start = {"inputs": student.encode(inputs)}
    fused = FusedStep(
        student.connector,
        student.weights[None],
        objective=Objective(temperature=2.0, factor=8.0, smallest=1e-6),
        ce_weight=1.0,
        kd_weight=1.0,
    )
    terms = fused.step(fused.samples(labels, teacher, **start), lr=0.1)
    np.testing.assert_allclose(terms[0], torch.stack(expected).detach().numpy(), rtol=1e-5)


def test_a_member_that_fails_stops_alone():
    labels, teacher, start = make_distillation_data(batch=50)
    fused, order = population(3)
    alone, _ = population(3)
    fused._factors[1] = np.inf
    samples = fused.samples(labels, teacher, **start)
    before = fused.weights[1].copy()
    for _ in range(2):
        terms = fused.epoch(samples, order, batch_size=16, lr=0.05)
        expected = alone.epoch(samples, order, batch_size=16, lr=0.05)
    assert fused.failed.tolist() == [False, True, False]
    assert np.isnan(terms[1]).all()
    np.testing.assert_array_equal(fused.weights[1], before)
    np.testing.assert_array_equal(terms[::2], expected[::2])
    np.testing.assert_array_equal(fused.weights[::2], alone.weights[::2])


def test_what_is_refused():
    labels, teacher, start = make_distillation_data(batch=5)
    options = {"objective": Objective(temperature=2.0), "ce_weight": 1.0, "kd_weight": 1.0}
    with pytest.raises(InputError, match="above 0"):
        Objective(temperature=0.0)
    with pytest.raises(CircuitError, match="X or Y"):
        FusedStep(make_connector(output="z", observable="X"), start_weights(), **options)
    circuit = QuantumCircuit(1)
    circuit.ry(Parameter("w_0") * Parameter("w_1"), 0)
    product = CompiledConnector(SamplerQNN(circuit=circuit, weight_params=circuit.parameters))
    with pytest.raises(CircuitError, match="not affine"):
        FusedStep(product, torch.zeros(1, 2), **options)
    connector = make_connector()
    for wrong in (start_weights()[0], start_weights()[:, 1:], start_weights().half()):
        with pytest.raises(InputError, match="weights are"):
            FusedStep(connector, wrong, **options)
    with pytest.raises(InputError, match="NaN"):
        FusedStep(connector, start_weights() * np.nan, **options)
    fused = FusedStep(connector, start_weights(), **options)
    broken = start["inputs"].clone()
    broken[2, 1] = torch.nan
    with pytest.raises(InputError, match="1 of 15 inputs are NaN"):
        fused.samples(labels, teacher, inputs=broken)
    with pytest.raises(InputError, match="inputs have shape"):
        fused.samples(labels, teacher, inputs=start["inputs"][:, :2])
    with pytest.raises(InputError, match="inputs after its preparation"):
        fused.samples(labels, teacher, states=torch.ones(5, 8))
    with pytest.raises(InputError, match="teacher logits have shape"):
        fused.samples(labels, teacher[:3], **start)
    with pytest.raises(InputError, match="labels"):
        fused.samples(labels + 1, teacher, **start)
    samples = fused.samples(labels, teacher, **start)
    for order in (np.arange(5), np.arange(6)[None], np.zeros((1, 0)), np.zeros((2, 5))):
        with pytest.raises(InputError, match="order"):
            fused.epoch(samples, order, batch_size=2, lr=0.1)
    with pytest.raises(CheckpointError, match="needs"):
        fused.load_state(population(2)[0].state())
    pair, _ = population(2)
    own = pair.samples(labels.expand(2, 5), teacher, **start)
    with pytest.raises(InputError, match="2 members"):
        population(3)[0].step(own, lr=0.1)
