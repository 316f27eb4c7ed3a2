"""Fused steps of students with trained layers: the same training as under torch's autograd."""

import logging
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from torch.func import functional_call

from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import fused_hybrid
from qkd_qiskit.distillation import trainer as loop
from qkd_qiskit.distillation.population import Member, Population
from qkd_qiskit.distillation.terms import logit_terms, population_terms
from qkd_qiskit.recipe import DistillSpec, LossTerm, StudentSpec, TeacherSpec
from qkd_qiskit.simulator.fused.hybrid import HybridStep
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.teachers.teacher import make_teacher

SPEC = DistillSpec(epochs=3, batch_size=7, lr=0.02, temperature=3.0, weight_decay=0.05)
HYBRID = StudentSpec(
    kind="hybrid", qubits=3, encoding="amplitude", ansatz="ry_rz_ring", layers=2,
    reduction="linear", readout="probabilities", head="linear",
)  # fmt: skip
BINS = {"head": "none", "readout": "bins"}
STUDENTS = {
    "linear": {},
    "real": {"qubits": 4, "ansatz": "real_amplitudes"},
    "wide": {"qubits": 5},
    "mlp": {"head": "mlp"},
    "angle": {"encoding": "angle", "readout": "expectation"},
    "reuploading": {"encoding": "reuploading"},
    "qubit": {"encoding": "qubit", "ansatz": "local_rotations", "readout": "expectation"},
    "fixed": {"reduction": "pca"},
    "fixed_angle": {"reduction": "avg_pool", "encoding": "angle", "head": "mlp"},
    "bins": BINS,
    "gamma": BINS | {"sharpness": "learned"},
    "fixed_gamma": BINS | {"sharpness": "learned", "kind": "quantum", "reduction": "crop"},
    "classical": {"kind": "classical"},
    "classical_fixed": {"kind": "classical", "reduction": "avg_pool"},
    "classical_full": {"kind": "classical_full", "full_width": 19},
}
MEMBERS = [
    Member(arm=arm, seed=seed, ce_weight=ce, kd_weight=kd)
    for arm, ce, kd in (("label_only", 1.0, 0.0), ("distilled", 0.5, 0.5))
    for seed in (0, 1)
]


@pytest.fixture(scope="module")
def data():
    generator = np.random.default_rng(3)
    labels = np.arange(120) % 3
    images = generator.random((120, 1, 5, 5)) * 0.5 + 0.5 * (labels / 2)[:, None, None, None]
    return Data.from_arrays(images.astype(np.float32), labels, validation_fraction=0.2)


@pytest.fixture(scope="module")
def teacher(data):
    return make_teacher(TeacherSpec(kind="softmax", epochs=5, lr=0.05), data, cache=False)


def make(which, *, seed=0):
    spec = replace(HYBRID, **STUDENTS[which])
    return make_student(spec, image_shape=(1, 5, 5), num_classes=3, seed=seed)


def train(data, teacher, *, student="linear", members=MEMBERS, spec=SPEC, **options):
    shapes = {seed: make(student, seed=seed) for seed in (0, 1)}
    draws = torch.stack([data.draw(8, seed=member.seed) for member in members])
    return loop.train_population(
        shapes[0],
        members,
        starts=[dict(shapes[member.seed].named_parameters()) for member in members],
        examples=loop.make_distillation_data(shapes[0], teacher, data, draws=draws),
        spec=spec,
        **options,
    )


def in_torch(monkeypatch):
    monkeypatch.setattr(loop, "hybrid_steps", lambda *_, **__: None)


def watched(monkeypatch):
    """Return a list that gains what every training takes its steps with."""
    used = []

    def recorded(*given, **options):
        used.append(fused_hybrid.hybrid_steps(*given, **options))
        return used[-1]

    monkeypatch.setattr(loop, "hybrid_steps", recorded)
    return used


def same(fused, plain, *, tolerance=1e-4):
    for ours, theirs in zip(fused, plain, strict=True):
        assert set(ours.state) == set(theirs.state)
        for name, value in theirs.state.items():
            torch.testing.assert_close(ours.state[name], value, atol=tolerance, rtol=tolerance)
        for mine, other in zip(ours.history, theirs.history, strict=True):
            assert mine.to_json() == pytest.approx(other.to_json(), abs=20 * tolerance)


@pytest.mark.parametrize("student", STUDENTS)
def test_fused_training_is_the_training_under_torch(student, data, teacher, monkeypatch):
    used = watched(monkeypatch)
    fused = train(data, teacher, student=student)
    assert used[0] is not None
    in_torch(monkeypatch)
    same(fused, train(data, teacher, student=student))


@pytest.mark.parametrize(
    "term",
    [
        LossTerm(loss="label_smoothing"),
        LossTerm(loss="standardized_kd"),
        LossTerm(loss="dkd", beta=2.0),
        LossTerm(loss="dist"),
        LossTerm(loss="jensen_shannon"),
        LossTerm(loss="rkd_distance"),
    ],
    ids=lambda term: term.loss,
)
def test_other_terms_of_the_loss_are_differentiated_for_the_logits(
    term, data, teacher, monkeypatch
):
    spec = replace(SPEC, terms=(LossTerm(loss="ce", weight=0.5), term))
    members = [
        replace(member, kd_weight=0.0, ce_weight=0.5, other_weights=(1.0,)) for member in MEMBERS
    ]
    used = watched(monkeypatch)
    fused = train(data, teacher, spec=spec, members=members)
    assert used[0] is not None
    in_torch(monkeypatch)
    same(fused, train(data, teacher, spec=spec, members=members))


def test_a_loss_of_ones_own_is_fused_too(data, teacher, monkeypatch):
    def own(logits, teacher_logits, labels):
        if bool((logits > 100).any()):  # what vmap cannot do
            return logits.sum()
        return (logits - teacher_logits).square().mean()

    members = [
        replace(member, ce_weight=0.0, kd_weight=0.0, other_weights=(1.0,)) for member in MEMBERS
    ]
    used = watched(monkeypatch)
    fused = train(data, teacher, members=members, loss=own)
    assert used[0] is not None
    in_torch(monkeypatch)
    same(fused, train(data, teacher, members=members, loss=own))


@pytest.mark.parametrize("student", STUDENTS)
def test_gradients_are_those_of_autograd_in_double_precision(student, data, teacher):
    """After one step AdamW's average is a tenth of the gradient."""
    module = make(student)
    draws = data.draw(8, seed=0)[None, :11]
    examples = loop.make_distillation_data(module, teacher, data, draws=draws)
    member = replace(MEMBERS[-1], ce_weight=0.3, kd_weight=0.8)
    spec = replace(SPEC, batch_size=11, student_temperature=1.5)
    population = Population(module, [member], starts=[dict(module.named_parameters())], spec=spec)
    terms = partial(population_terms, spec=spec, others={}, mapped=True)
    single = fused_hybrid.hybrid_steps(population, examples, terms=terms)
    module, design = module.double(), single.steps.design
    if student == "bins":  # its logarithm is kept in float32
        design = replace(design, gamma=module.sharpness)
    double = HybridStep(
        design,
        module.connector if isinstance(module, QuantumStudent) else None,
        members=1,
        batch_size=11,
        factors=np.array([[0.3, 0.8]]),
        dtype=np.dtype(np.float64),
    )
    start = single.steps.numbers()["values"]
    double.load({"values": {name: value.astype(float) for name, value in start.items()}})
    given = {}
    inputs = examples.inputs.double()
    if single.layout.first is not None:
        given = {"images": inputs, "places": draws[0]}
    else:
        given = module.circuit_inputs(inputs[draws[0]])
    samples = double.samples(
        examples.labels[draws[0]], examples.teacher_logits[0, draws[0]].double(), **given
    )
    parameters = {
        name: value.detach().clone().requires_grad_() for name, value in module.named_parameters()
    }
    logits = functional_call(module, parameters, (inputs[draws[0]],))
    ce, kd = logit_terms(
        logits,
        teacher_logits=examples.teacher_logits[0, draws[0]].double(),
        labels=examples.labels[draws[0]],
        spec=spec,
        others={},
    )
    gradients = torch.autograd.grad(0.3 * ce + 0.8 * kd, list(parameters.values()))
    expected = dict(zip(parameters, gradients, strict=True))
    means = double.epoch(samples, np.arange(11)[None], lr=0.01)
    np.testing.assert_allclose(means, [[ce.item(), kd.item()]], rtol=1e-10)
    found = double.numbers()["exp_avg"]
    for own, name in single.names.items():
        gradient = expected[name].numpy()
        np.testing.assert_allclose(
            10 * found[own][0].reshape(gradient.shape), gradient, atol=1e-9, rtol=1e-7
        )


@pytest.mark.parametrize("others", [False, True])
def test_a_resumed_training_ends_with_the_same_bits(others, data, teacher, tmp_path):
    options = {"student": "mlp"}
    if others:
        options["spec"] = replace(SPEC, terms=(LossTerm(loss="ce"), LossTerm(loss="dkd")))
        options["members"] = [replace(each, other_weights=(0.5,)) for each in MEMBERS]
    whole = train(data, teacher, **options)

    def stop(figures):
        if figures[0].epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "population.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(data, teacher, checkpoint=checkpoint, on_epoch=stop, **options)
    resumed = train(data, teacher, checkpoint=checkpoint, **options)
    for first, second in zip(whole, resumed, strict=True):
        assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)
        assert first.history == second.history


def test_a_training_begun_in_torch_goes_on_fused(data, teacher, tmp_path, monkeypatch):
    whole = train(data, teacher)

    def stop(figures):
        if figures[0].epoch == 2:
            raise KeyboardInterrupt

    checkpoint = tmp_path / "population.safetensors"
    with monkeypatch.context() as patched:
        in_torch(patched)
        with pytest.raises(KeyboardInterrupt):
            train(data, teacher, checkpoint=checkpoint, on_epoch=stop)
    same(train(data, teacher, checkpoint=checkpoint), whole)


@pytest.mark.parametrize("student", ["wide", "classical"])
def test_a_member_has_the_same_bits_in_any_company(student, data, teacher):
    together = train(data, teacher, student=student)
    for index, member in enumerate(MEMBERS):
        (alone,) = train(data, teacher, student=student, members=[member])
        for name, value in alone.state.items():
            torch.testing.assert_close(together[index].state[name], value, atol=0, rtol=0)
        assert alone.history == together[index].history


def test_two_threads_give_the_same_bits(data, teacher, monkeypatch):
    single = train(data, teacher)
    monkeypatch.setattr("qkd_qiskit.simulator.fused.hybrid.threads_for", lambda _: 2)
    double = train(data, teacher)
    for first, second in zip(single, double, strict=True):
        assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


@pytest.mark.parametrize("others", [False, True])
def test_a_member_that_fails_leaves_the_others_alone(others, data, teacher, monkeypatch):
    options = {}
    members = MEMBERS
    if others:
        options["spec"] = replace(SPEC, terms=(LossTerm(loss="ce"), LossTerm(loss="dkd")))
        members = [replace(each, other_weights=(0.5,)) for each in MEMBERS]
    monkeypatch.setattr(loop, "check_terms", lambda *_, **__: None)
    bad = replace(members[0], ce_weight=float("nan"))
    healthy = train(data, teacher, members=members[1:], **options)
    mixed = train(data, teacher, members=[bad, *members[1:]], **options)
    assert np.isnan(mixed[0].history[-1].loss)
    assert mixed[0].chosen_epoch == 0
    start = dict(make("linear", seed=0).named_parameters())
    assert all(torch.equal(value, start[name]) for name, value in mixed[0].state.items())
    for first, second in zip(mixed[1:], healthy, strict=True):
        assert all(torch.equal(first.state[name], second.state[name]) for name in first.state)


class Scaled(QuantumStudent):
    """A student that does something of its own."""

    def forward(self, inputs):
        return 2 * super().forward(inputs)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"reduction": "cnn"}, "parameters other than linear layers"),
        ({"head": "none", "readout": "learned"}, "bins of its own"),
    ],
)
def test_what_is_not_known_runs_in_torch_and_is_logged(
    changed, reason, data, teacher, monkeypatch, caplog
):
    monkeypatch.setitem(STUDENTS, "other", changed)
    used = watched(monkeypatch)
    with caplog.at_level(logging.DEBUG, logger="qkd_qiskit"):
        train(data, teacher, student="other", spec=replace(SPEC, epochs=1))
    assert used == [None]
    assert reason in caplog.text


def test_a_subclass_with_a_forward_of_its_own_runs_in_torch(data, teacher, monkeypatch):
    used = watched(monkeypatch)
    student = make("linear")
    student.__class__ = Scaled
    loop.train_population(
        student,
        MEMBERS[:1],
        starts=[dict(student.named_parameters())],
        examples=loop.make_distillation_data(
            student, teacher, data, draws=data.draw(8, seed=0)[None]
        ),
        spec=replace(SPEC, epochs=1),
    )
    assert used == [None]
