"""Training on another device than the CPU, without one: on `meta`, and with the CPU in disguise."""

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from qkd_qiskit.circuits import quanvolution
from qkd_qiskit.data.splits import Data
from qkd_qiskit.distillation import population, student_modes, trainer
from qkd_qiskit.distillation.population import DistillationData, Member, Population
from qkd_qiskit.distillation.single_student import distill
from qkd_qiskit.distillation.student_modes import in_training, training_device
from qkd_qiskit.distillation.terms import other_losses
from qkd_qiskit.errors import InputError, RecipeError
from qkd_qiskit.experiments.evaluation import evaluate
from qkd_qiskit.recipe import DistillSpec, LossTerm, StudentSpec
from qkd_qiskit.simulator import connector, networks, run, statevector
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student, make_student

SHAPE, CLASSES, META = (1, 4, 4), 3, torch.device("meta")
STUDENTS = {
    "amplitudes": StudentSpec(
        kind="quantum", qubits=4, encoding="amplitude", reduction="none", readout="bins",
        head="none",
    ),
    "pca angles": StudentSpec(
        kind="hybrid", qubits=3, encoding="angle", reduction="pca", readout="expectation"
    ),
    "hybrid": StudentSpec(kind="hybrid", qubits=4, encoding="reuploading", reduction="linear"),
    "hybrid amplitudes": StudentSpec(
        kind="hybrid", qubits=3, encoding="amplitude", reduction="cnn", readout="probabilities"
    ),
    "learned bins": StudentSpec(
        kind="quantum", qubits=4, encoding="amplitude", reduction="none", readout="learned",
        head="none", sharpness="learned",
    ),
    "observables": StudentSpec(
        kind="hybrid", qubits=3, encoding="angle", reduction="linear", readout="expectation",
        observables=("XZI", "IYZ", "0.5*ZZZ"),
    ),
    "classical": StudentSpec(kind="classical", qubits=3, encoding="angle", reduction="linear"),
    "quanvolution": StudentSpec(kind="quanvolution"),
}  # fmt: skip
TERMS = (
    LossTerm(loss="ce"), LossTerm(loss="kd"), LossTerm(loss="dkd"), LossTerm(loss="dist"),
    LossTerm(loss="rkd_distance"), LossTerm(loss="rkd_angle"), LossTerm(loss="similarity"),
    LossTerm(loss="pkt"), LossTerm(loss="standardized_kd"), LossTerm(loss="jensen_shannon"),
    LossTerm(loss="label_smoothing"), LossTerm(loss="fidelity"),
)  # fmt: skip


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(90) % CLASSES
    images = 0.2 * torch.rand(90, *SHAPE, generator=generator)
    images[torch.arange(90), 0, labels, labels] += 0.5
    return Data.from_arrays(images.numpy(), labels.numpy(), seed=1)


def stepped(student, data, spec):
    """Return a population and what it learns from, in which nothing has been stepped."""
    weights = [term.weight for term in spec.other_terms]
    members = [
        Member(arm="distilled", seed=seed, ce_weight=0.5, kd_weight=0.5, other_weights=weights)
        for seed in (0, 1)
    ]
    draws = torch.arange(16).expand(2, 16)
    student.fit(data.pool.images)
    examples = DistillationData(
        inputs=student.features(data.pool.images),
        labels=data.pool.labels,
        teacher_logits=torch.randn(2, len(data.pool), CLASSES),
        teachers=torch.tensor([0, 1]),
        draws=draws,
        validation_inputs=student.features(data.validation.images),
        validation_labels=data.validation.labels,
    )
    starts = [student.member_parameters()] * 2
    return members, starts, examples


@pytest.mark.parametrize("kind", STUDENTS)
def test_steps_wait_for_nothing_and_stay_on_the_device(kind, data, on_device):
    spec = DistillSpec(batch_size=8, terms=TERMS)
    student = make_student(STUDENTS[kind], image_shape=SHAPE, num_classes=CLASSES)
    members, starts, examples = stepped(student, data, spec)
    others = other_losses(spec)
    student.to(META)
    there = Population(student, members, starts=starts, spec=spec, other_terms=list(others))
    moved, order = examples.to(META), examples.draws.to(META)
    steps = {"others": others, "mapped": True, "lr": 0.1}
    trainer._steps(there, moved, order, **steps)  # constants are made, once for each device
    with on_device() as counted:
        terms = trainer._steps(there, moved, order, **steps)
    assert counted.kernels > 0
    assert terms.shape == (2, 3 + len(others))
    assert {part.device for part in (terms, *there.parameters.values(), there.failed)} == {META}


def test_the_mode_refuses_a_look_a_copy_and_a_mask(on_device):
    there = torch.zeros(3, device="meta")
    for look in (
        lambda: there + torch.ones(3),
        lambda: there.sum().item(),
        lambda: there[there > 0],
        lambda: torch.ones(3).to("meta"),
    ):
        refused = pytest.raises((AssertionError, RuntimeError), match=r"waits for|copies|device")
        with refused, on_device():
            look()


def test_a_network_of_your_own_steps_on_the_device(data, on_device):
    layer = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES).connector
    (outputs,) = layer.neural_network.output_shape
    head = nn.Linear(outputs, CLASSES)
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.Dropout(0.1), layer, head)
    student = Student.from_module(network, image_shape=SHAPE, num_classes=CLASSES).to(META)
    images = torch.zeros(5, *SHAPE, device=META)
    student(images)  # makes the constants
    with in_training(student), on_device():
        student(images).logsumexp(dim=1).sum().backward()
    assert student.weights.grad.device == META


@pytest.fixture
def disguised(monkeypatch):
    """Make the CPU look like another device: no looks, whole layers, no compiled code."""
    for module in (run, statevector, connector, networks, population):
        monkeypatch.setattr(module, "on_host", lambda tensor: False)
    monkeypatch.setattr(run, "kernel_works", lambda: False)
    monkeypatch.setattr(trainer, "fused_steps", lambda *_: None)
    monkeypatch.setattr(trainer, "hybrid_steps", lambda *_, **__: None)


@pytest.mark.parametrize("kind", ["amplitudes", "hybrid", "observables", "quanvolution"])
def test_the_same_student_is_trained_there(kind, data, request):
    spec = DistillSpec(epochs=2, batch_size=16, lr=0.05)
    logits = torch.randn(len(data.pool), CLASSES, generator=torch.Generator().manual_seed(3))
    found = []
    for disguise in (False, True):
        if disguise:
            request.getfixturevalue("disguised")
        student = make_student(STUDENTS[kind], image_shape=SHAPE, num_classes=CLASSES)
        found.append(distill(student, logits, data, spec=spec))
    for name, value in found[0].state.items():
        torch.testing.assert_close(found[1].state[name], value, rtol=0, atol=1e-4)
    losses = [[epoch.loss for epoch in result.history] for result in found]
    assert losses[1] == pytest.approx(losses[0], abs=1e-5)


def test_a_member_that_fails_there_leaves_the_others_alone(data, disguised):
    spec = DistillSpec(batch_size=8)
    student = make_student(STUDENTS["amplitudes"], image_shape=SHAPE, num_classes=CLASSES)
    members, starts, _ = stepped(student, data, spec)
    population = Population(student, members, starts=starts, spec=spec)
    (weights,) = population.parameters.values()
    before = weights.detach().clone()
    loss = (weights * torch.tensor([[torch.nan], [1.0]])).sum()
    population.step(loss, lr=0.1)
    assert population.failed.tolist() == [True, False]
    assert torch.equal(weights[0], before[0])
    assert bool(weights.isfinite().all())
    assert not torch.equal(weights[1], before[1])


def test_inputs_that_are_not_finite_give_nan_there(disguised):
    layer = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES).connector
    outputs = layer(torch.tensor([[0.1, 0.2, 0.3, 0.4], [torch.inf, 0.2, 0.3, 0.4]]))
    assert outputs.isfinite().all(dim=1).tolist() == [True, False]


def test_a_gpu_that_is_not_there_is_one_line(data, tmp_path):
    student = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES)
    student.save(tmp_path)
    logits = torch.zeros(len(data.pool), CLASSES)
    text = "^device 'cuda:7' is not there .*; give cpu or auto$"
    for refused in (
        lambda: make_student(
            STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES, device="cuda:7"
        ),
        lambda: load_student(tmp_path, device="cuda:7"),
        lambda: distill(student, logits, data, device="cuda:7"),
        lambda: distill(student, logits, data, spec=DistillSpec(device="cuda:7")),
    ):
        with pytest.raises(InputError, match=text):
            refused()
    for wrong in ("gpu", "cuda:", "cuda:x", "CPU", ""):
        with pytest.raises(InputError, match="give cpu, cuda"):
            load_student(tmp_path, device=wrong)
        with pytest.raises(RecipeError, match=r"distill.device: .* cpu, cuda, cuda:1"):
            DistillSpec(device=wrong)


def test_targets_are_the_cpus(data):
    with pytest.raises(RecipeError, match=r"distill.device: 'cuda'.*gradient is spsa"):
        DistillSpec(gradient="spsa", train_target="aer", device="cuda")
    student = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES, device=META)
    with pytest.raises(InputError, match=r"the student lies on meta.*give student\.cpu"):
        evaluate(student, data.test)
    student.executor = lambda inputs, weights: None
    refused = pytest.raises(InputError, match="'meta' is not accepted for a student whose circuit")
    with refused, training_device(student, DistillSpec()):
        pass


def test_a_student_is_put_back_and_what_runs_there_is_said_once(caplog, monkeypatch):
    student_modes._say_once.cache_clear()
    student = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES, device=META)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with training_device(student, DistillSpec()) as device:
                assert device == META
    (record,) = (it for it in caplog.records if it.name.startswith("qkd_qiskit"))
    assert record.getMessage() == (
        "students train in torch on meta; the compiled kernel, its fused steps and all targets run "
        "on the CPU alone"
    )
    spec = replace(DistillSpec(), device="auto")
    here = make_student(STUDENTS["hybrid"], image_shape=SHAPE, num_classes=CLASSES)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with training_device(here, spec) as device:
        assert device.type == "cpu"


def test_a_quanvolution_stays_on_the_device(on_device):
    layer = quanvolution.Quanvolution(2, seed=0).to("meta")
    images = torch.zeros(40, 1, 8, 8, device="meta")
    layer(images)
    with on_device():
        layer(images).sum().backward()
    assert layer.weight.grad.device == META


def test_checkpoints_of_before_are_still_taken(data):
    """Who they belong to was written when there were no devices."""
    student = make_student(STUDENTS["amplitudes"], image_shape=SHAPE, num_classes=CLASSES)
    members, starts, _ = stepped(student, data, DistillSpec())
    known = [
        Population(student, members, starts=starts, spec=DistillSpec(device=device))._identity()
        for device in (None, "cuda")
    ]
    assert ["device" in text for text in known] == [False, True]
