"""Networks of the user's own around a circuit layer: the same logits, anywhere, from any file."""

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit.library import real_amplitudes, z_feature_map
from qiskit.quantum_info import SparsePauliOp
from qiskit_machine_learning.connectors import TorchConnector
from qiskit_machine_learning.neural_networks import EstimatorQNN, SamplerQNN
from torch import nn

from qkd_qiskit import (
    CompiledConnector,
    DistillSpec,
    Student,
    Target,
    distill,
    evaluate,
    load_student,
)
from qkd_qiskit.distillation.executors import training_executor
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.experiments.evaluation import exact_logits, target_logits
from qkd_qiskit.simulator.channels import Channels
from qkd_qiskit.students.circuit_layer import CircuitLayer

SHAPE = {"image_shape": (1, 4, 4), "num_classes": 3}


def network(kind="sampler", qubits=2):
    features, ansatz = z_feature_map(qubits, reps=1), real_amplitudes(qubits, reps=1)
    given = {
        "circuit": features.compose(ansatz),
        "input_params": list(features.parameters),
        "weight_params": list(ansatz.parameters),
        "input_gradients": True,
    }
    if kind == "sampler":
        return SamplerQNN(**given)
    return EstimatorQNN(**given, observables=[SparsePauliOp("ZI"), SparsePauliOp("XY")])


class Skipping(nn.Module):
    """The circuit sees two patches of an image, and the head the image beside it."""

    def __init__(self, layer):
        super().__init__()
        self.front, self.layer = nn.Linear(8, 2), layer
        self.head = nn.Linear(2 * 2 + 16, 3)

    def forward(self, images):
        patches = self.front(images.reshape(len(images), 2, 8))
        outputs = self.layer(patches).flatten(1)
        return self.head(torch.cat([outputs, images.flatten(1)], dim=1))


def plain(layer, outputs, *more):
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 2), nn.Tanh(), layer, *more, nn.Linear(outputs, 3)
    )


def networks():
    torch.manual_seed(0)
    return {
        "stock": plain(TorchConnector(network()), 4),
        "compiled": plain(CompiledConnector(network()), 4),
        "observables": plain(TorchConnector(network("estimator")), 2, nn.LayerNorm(2)),
        "skipping": Skipping(CompiledConnector(network("estimator"))),
    }


@pytest.fixture
def images():
    return torch.rand(6, 1, 4, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", networks())
def test_a_student_is_its_network_everywhere(name, images, tmp_path):
    module = networks()[name]
    student = Student.from_module(module, **SHAPE)
    expected = module(images).detach()
    torch.testing.assert_close(exact_logits(student, images), expected, rtol=0, atol=1e-5)
    measured = target_logits(student, images, target=Target.parse("exact"))
    torch.testing.assert_close(measured, expected, rtol=0, atol=1e-5)
    assert student.runs_per_image == (2 if name == "skipping" else 1)
    assert student.trains_inputs
    names = [key.removeprefix("module.") for key in student.saved_tensors()]
    assert set(names) == set(dict(module.named_parameters()))
    student.save(tmp_path)
    other = Student.from_module(networks()[name], **SHAPE)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
    assert other.load(tmp_path) is other
    assert torch.equal(other(images), student(images))


@pytest.mark.parametrize("name", ["stock", "skipping"])
def test_noise_reaches_the_circuit_and_nothing_else(name, images):
    """Readout errors of one half leave the same outcomes whatever was computed."""
    student = Student.from_module(networks()[name], **SHAPE)
    target = Target.parse("synthetic:qubits=2:p1=0:p2=0:readout=0.5:exact")
    logits = target_logits(student, images, target=target)
    uniform = torch.full((len(images) * student.runs_per_image, 4 * len(student.circuits)), 0.25)
    torch.testing.assert_close(logits, student.decode(uniform, images), rtol=0, atol=1e-5)
    assert not torch.allclose(logits, exact_logits(student, images), atol=1e-3)


@pytest.mark.parametrize(
    ("gradient", "target"), [("noisy", "fake_manila"), ("parameter_shift", "aer")]
)
def test_the_circuit_runs_on_a_target_in_training(gradient, target, images):
    student = Student.from_module(networks()["skipping"], **SHAPE)
    exact = student(images)
    exact.square().sum().backward()
    expected = {name: p.grad.clone() for name, p in student.named_parameters()}
    student.zero_grad()
    spec = DistillSpec(gradient=gradient, train_target=target)
    student.executor = training_executor(student, spec, shots=100_000, seed=0)
    logits = student(images)
    logits.square().sum().backward()
    got = {name: p.grad for name, p in student.named_parameters()}
    assert not torch.equal(logits, exact)
    for name, gradient_of in got.items():
        assert gradient_of.abs().sum() > 0
        if target == "aer":
            torch.testing.assert_close(gradient_of, expected[name], rtol=0.05, atol=0.2)


def test_two_students_of_a_network_are_a_pair(data):
    """Distilling one leaves the network and the other as they were."""
    module = networks()["stock"]
    before = {name: value.clone() for name, value in module.state_dict().items()}
    student, other = (Student.from_module(module, **SHAPE) for _ in range(2))
    teacher_logits = 4 * torch.nn.functional.one_hot(data.pool.labels, 3).float()
    trained = distill(student, teacher_logits, data, spec=DistillSpec(epochs=12, lr=0.05))
    assert trained.history[-1].loss < 0.95 * trained.history[0].loss
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name])
    untrained = module(data.test.images)
    torch.testing.assert_close(other(data.test.images), untrained, rtol=0, atol=1e-5)
    module.load_state_dict(student.module.state_dict())
    assert torch.equal(other.module.state_dict()["3.weight"], before["3.weight"])
    evaluation = evaluate(student, data.test, target="fake_manila:exact")
    exact = evaluate(student, data.test)
    assert evaluation.exact_accuracy == exact.accuracy > 0.6
    assert evaluation.calibration_error != exact.calibration_error


def test_frozen_parameters_stay_and_are_saved(data, tmp_path):
    module = networks()["stock"]
    module[1].requires_grad_(False)
    student = Student.from_module(module, **SHAPE)
    assert not student.trains_inputs
    assert student.num_parameters == sum(p.numel() for p in module.parameters()) - 34
    distill(student, torch.eye(3)[data.pool.labels], data, spec=DistillSpec(epochs=1))
    assert torch.equal(student.module[1].weight, module[1].weight)
    assert not torch.equal(student.module[4].weight, module[4].weight)
    student.save(tmp_path)
    assert torch.equal(
        Student.from_module(networks()["stock"], **SHAPE).load(tmp_path)(data.test.images),
        student(data.test.images),
    )


def test_dropout_drops_in_training_only_and_alike_every_time(data):
    def states(rate):
        torch.manual_seed(0)
        module = plain(TorchConnector(network()), 4, nn.Dropout(rate))
        student = Student.from_module(module, **SHAPE)
        images = data.test.images
        assert torch.equal(student(images), student(images))
        teacher = torch.eye(3)[data.pool.labels]
        trained = distill(student, teacher, data, spec=DistillSpec(epochs=2))
        assert torch.equal(student(images), student(images))
        return trained.state["module.1.weight"]

    assert torch.equal(states(0.5), states(0.5))
    assert not torch.equal(states(0.5), states(0.0))


def test_a_student_given_in_python_is_given_again(tmp_path, data):
    student = Student.from_module(networks()["stock"], **SHAPE)
    student.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"Student\.from_module\(network, \.\.\.\)\.load\("):
        load_student(tmp_path)
    for module, message in (
        (networks()["observables"], "missing, unexpected, of another shape"),
        (plain(TorchConnector(network(qubits=3)), 8), "is another circuit"),
    ):
        if message == "is another circuit":
            module[1] = nn.Linear(16, 3)
        with pytest.raises(CheckpointError, match=message) as caught:
            Student.from_module(module, **SHAPE).load(tmp_path)
        assert "\n" not in str(caught.value)
    wide = plain(TorchConnector(network()), 4)
    wide[-1] = nn.Linear(4, 2)
    with pytest.raises(CheckpointError, match="of a student with num_classes 3"):
        Student.from_module(wide, image_shape=(1, 4, 4), num_classes=2).load(tmp_path)
    with pytest.raises(CheckpointError, match="holds no saved student"):
        student.load(tmp_path / "nowhere")


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.front, self.layer, self.head = (
            nn.Linear(16, 2),
            TorchConnector(network()),
            nn.Linear(4, 3),
        )

    def forward(self, images):
        rows = self.front(images.flatten(1))
        return self.head(self.layer(rows) + self.layer(2 * rows))


class Own(TorchConnector):
    def forward(self, input_data=None):
        return super().forward(input_data) * 2


def measured_in_the_middle():
    given = network()
    circuit = QuantumCircuit(2, 1).compose(given.circuit)
    circuit.measure(0, 0)
    circuit.h(0)
    return SamplerQNN(
        circuit=circuit, input_params=given.input_params, weight_params=given.weight_params
    )


def two_layers():
    return plain(TorchConnector(network()), 4, nn.Linear(4, 2), TorchConnector(network()))


WRONG = {
    "no module": (lambda: 3, "the student is a int; give an nn.Module"),
    "class": (lambda: nn.Linear, "the student is a class Linear; give an nn.Module"),
    "no circuit": (lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 3)), "has no circuit layer"),
    "two circuits": (two_layers, r"has 2 circuit layers \('3', '5'\)"),
    "called twice": (Twice, "runs its circuit layer 2 times on 6 rows for 3 images"),
    "own forward": (lambda: plain(Own(network()), 4), "a Own with a forward of its own"),
    "width": (
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(16, 2), TorchConnector(network())),
        r"gives \(3, 4\) for 3 images of 3 classes; give logits of shape \(batch, 3\)",
    ),
    "features": (
        lambda: nn.Sequential(nn.Linear(16, 2), TorchConnector(network()), nn.Linear(4, 3)),
        r"fails on images of shape \(3, 1, 4, 4\)",
    ),
    "batch statistics": (
        lambda: plain(TorchConnector(network()), 4, nn.BatchNorm1d(4)),
        r"keeps statistics in training \(4\.running_mean\)",
    ),
    "batch mean": (
        lambda: plain(TorchConnector(network()), 4, nn.BatchNorm1d(4, track_running_stats=False)),
        "gives other logits for an image alone|fails on images",
    ),
    "frozen": (
        lambda: plain(TorchConnector(network()), 4).requires_grad_(False),
        "has no parameter that needs a gradient",
    ),
    "middle": (lambda: plain(TorchConnector(measured_in_the_middle()), 4), "circuit layer"),
}


@pytest.mark.filterwarnings("ignore:CompiledConnector falls back")
@pytest.mark.parametrize("name", WRONG)
def test_what_is_no_student_is_refused_in_one_line(name):
    make, message = WRONG[name]
    with pytest.raises(CircuitError, match=message) as caught:
        Student.from_module(make(), **SHAPE)
    assert "\n" not in str(caught.value)


def test_statistics_in_evaluation_mode_are_kept():
    module = plain(TorchConnector(network()), 4, nn.BatchNorm1d(4))
    module[4].eval()
    student = Student.from_module(module, **SHAPE)
    assert not student.train().module[4].training
    assert student.module[2].training
    assert not student.eval().module[2].training


def test_a_layer_with_channels_is_refused():
    compiled = Target.parse("fake_manila").compile(network().circuit)
    noisy = compiled.program.noisy
    layer = CompiledConnector(network(), channels=noisy.channels, circuit=noisy.circuit)
    assert isinstance(noisy.channels, Channels)
    with pytest.raises(CircuitError, match="run with a device's channels"):
        Student.from_module(plain(layer, 4), **SHAPE)


def test_the_circuit_layer_takes_the_place_of_the_users():
    module = networks()["skipping"]
    student = Student.from_module(module, **SHAPE)
    assert isinstance(student.layer, CircuitLayer)
    assert student.layer is student.module.layer
    assert not isinstance(module.layer, CircuitLayer)
    assert student.layer.neural_network is module.layer.neural_network


def test_a_student_says_what_it_is():
    student = Student.from_module(networks()["skipping"], **SHAPE)
    assert student.extra_repr() == (
        "module, images (1, 4, 4), 3 classes, 85 trained numbers, 2 qubits, 4 weights, 1 two-qubit "
        "gates, read-out: 2 observables (ZI, XY), 2 bases, 2 circuits an image, compiled"
    )
