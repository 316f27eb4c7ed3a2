"""Networks of the user's own, whatever they are and do: they work, or are refused in one line."""

import copy
import sys
import threading

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from qkd_qiskit import DistillSpec, StudentSpec, distill, make_student
from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.storage import tensor_digest
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.own_module import weights_digest
from qkd_qiskit.teachers.teacher import make_teacher, save_teacher

# torch deprecates what users still have.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*torch:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*torch:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*torch:UserWarning"),
]


@pytest.fixture(scope="module")
def blobs():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 900)
    return Data.from_arrays(rng.normal(size=(900, 4)) / 10 + np.eye(3, 4)[labels], labels)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))


class Own(nn.Module):
    """A network whose forward pass a test gives."""

    def __init__(self, network, forward):
        super().__init__()
        self.network, self.function = network, forward

    def forward(self, images):
        return self.function(self.network, images)


EXAMPLE = torch.zeros(2, 1, 1, 4)


def exported(network, **options):
    return torch.export.export(network.eval(), (EXAMPLE,), **options)


def dynamic(network):
    return exported(network, dynamic_shapes=({0: torch.export.Dim("batch")},))


def quantized(network):
    return torch.ao.quantization.quantize_dynamic(network, {nn.Linear}, dtype=torch.qint8)


def normed(network):
    torch.nn.utils.weight_norm(network[1])
    return network


def keeps_a_result(network):
    network.doubled = network[1].weight * 2
    return network


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (torch.jit.script, 0),
        (lambda network: torch.jit.trace(network, EXAMPLE), 0),
        (dynamic, 0),
        (lambda network: dynamic(network).module(), 0),
        (lambda network: torch.fx.symbolic_trace(network), 0),
        (quantized, 0.05),
        (nn.Module.half, 1e-2),
        (nn.Module.bfloat16, 5e-2),
        (nn.Module.double, 0),
        (nn.DataParallel, 0),
        (normed, 1e-6),
        (keeps_a_result, 0),
        (lambda network: Own(network, lambda inner, images: (inner(images), images)), 0),
        (lambda network: Own(network, lambda inner, images: {"logits": inner(images)}), 0),
        (lambda network: Own(network, lambda inner, images: inner(images).double()), 0),
        (lambda network: Own(network, torch.inference_mode()(lambda f, images: f(images))), 0),
    ],
)
def test_networks_of_every_sort_teach(change, tolerance, network, blobs, tmp_path):
    with torch.no_grad():
        expected = copy.deepcopy(network)(blobs.pool.images)
    teacher = Teacher.from_module(change(network), blobs, cache=tmp_path)
    logits = teacher.logits(blobs.pool.images, cache=tmp_path)
    assert logits.dtype == torch.float32
    assert (logits - expected).abs().max() <= tolerance + 1e-6
    assert not any(parameter.requires_grad for parameter in teacher.module.parameters())
    assert len(teacher.digest) == 64


def test_a_quantized_network_is_counted_and_told_from_another(network, blobs, tmp_path):
    first = Teacher.from_module(quantized(copy.deepcopy(network)), blobs, cache=False)
    with torch.no_grad():
        network[1].bias.add_(1)
    second = Teacher.from_module(quantized(network), blobs, cache=False)
    assert first.parameters == 15
    assert first.digest != second.digest
    with pytest.raises(TeacherError, match="no plain tensors, which is all that safetensors keeps"):
        save_teacher(first, tmp_path / "teacher.safetensors")


def test_the_digest_of_plain_weights_is_that_of_their_tensors(network):
    assert weights_digest(network) == tensor_digest(network.state_dict())


def test_a_network_that_changes_its_input_leaves_the_images_alone(network, blobs):
    images = blobs.test.images.clone()
    plain = Teacher.from_module(network, blobs, cache=False)
    halving = Own(network, lambda inner, batch: inner(batch.mul_(0.5)))
    teacher = Teacher.from_module(halving, blobs, cache=False)
    found = teacher.logits(blobs.test.images, cache=False)
    teacher.features(blobs.test.images, layer="network.1", cache=False)
    assert torch.equal(blobs.test.images, images)
    torch.testing.assert_close(found, plain.logits(images / 2, cache=False))


def recurse(network, images):
    return recurse(network, images)


def leave(network, images):
    sys.exit(3)


def fail_later(network, images):
    if len(images) > 2:
        sys.exit("later")
    return network(images)


class Unprintable(Exception):
    def __str__(self):
        raise RuntimeError


def unprintable(network, images):
    raise Unprintable


def of_own_size(network, images):
    return network(images.reshape(len(images), *images.shape[1:]))  # exported: of 2


class Locked(nn.Linear):
    def __init__(self):
        super().__init__(4, 3)
        self.lock = threading.Lock()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda network: Own(network, leave), r"module Own fails on images .*\(SystemExit: 3\)"),
        (lambda network: Own(network, recurse), "RecursionError: maximum recursion depth"),
        (lambda network: Own(network, unprintable), r"\(Unprintable:\); give a network"),
        (lambda network: Own(network, fail_later), r"fails on 256 images .*\(SystemExit: later\)"),
        (lambda network: Own(network, lambda f, x: f(x)[: 1 if len(x) > 2 else 2]), r"\(1, 3\) fo"),
        (lambda network: Own(network, lambda f, x: f(x) + 0j), "of torch.complex64"),
        (lambda network: Own(network, lambda f, x: {"scores": f(x)}), "gives dict for 2 images"),
        (lambda network: Own(network, lambda f, x: ()), "gives tuple for 2 images"),
        (lambda network: Own(network, lambda f, x: f(x.to("cuda:77"))), "fails on images"),
        (lambda network: network.to("meta"), "cannot be copied .*meta tensor"),
        (lambda network: nn.Sequential(nn.Flatten(), Locked()), "cannot be copied .*pickle"),
        (
            lambda network: exported(Own(network, of_own_size)),
            "fails on 256 images .*batches of",
        ),
        (lambda network: nn.Linear, "gives a type; give an nn.Module"),
    ],
)
def test_networks_that_do_not_work_are_one_line(change, message, network, blobs):
    with pytest.raises(TeacherError, match=message) as caught:
        Teacher.from_module(change(network), blobs, cache=False)
    assert "\n" not in str(caught.value)


NETWORKS = """
import sys
import torch
from torch import nn

def network():
    return nn.Sequential(nn.Flatten(), nn.Linear(4, 3))

def no_arguments():
    return network()

def leaves(image_shape, num_classes):
    sys.exit(0)

def recurses(image_shape, num_classes):
    return recurses(image_shape, num_classes)

def double(image_shape, num_classes):
    return network().double()

def scripted(image_shape, num_classes):
    return torch.jit.script(network())

def exported(image_shape, num_classes):
    return torch.export.export(
        network().eval(),
        (torch.zeros(2, 1, 1, 4),),
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )

class Constant(nn.Module):
    def forward(self, images):
        return images.flatten(1)[:, :3]

def without_weights(image_shape, num_classes):
    return Constant()

class Detached(nn.Module):
    def __init__(self):
        super().__init__()
        self.network = network()

    def forward(self, images):
        return self.network(images).detach()

def detached(image_shape, num_classes):
    return Detached()

instance = network()
"""


@pytest.fixture
def factories(tmp_path, monkeypatch):
    (tmp_path / "factories_of_every_sort.py").write_text(NETWORKS)
    (tmp_path / "factories_that_leave.py").write_text("import sys; sys.exit(0)")
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("factories_of_every_sort", None)


def train(name, data, file="factories_of_every_sort"):
    spec = TeacherSpec(kind="module", module=f"{file}:{name}", epochs=5, lr=0.1)
    return make_teacher(spec, data, cache=False)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_arguments", "fails for image_shape .* takes 0 positional arguments but 2 were given"),
        ("leaves", "SystemExit: 0"),
        ("recurses", "RecursionError"),
        ("exported", "the teacher cannot be trained .*Calling train"),
        ("without_weights", "gives a Constant without weights that can be trained"),
        ("detached", "the teacher cannot be trained .*does not require grad"),
        ("instance", "is a Sequential; give a function"),
    ],
)
def test_factories_that_do_not_work_are_one_line(name, message, factories, blobs):
    with pytest.raises(TeacherError, match=message) as caught:
        train(name, blobs)
    assert "\n" not in str(caught.value)


def test_a_file_that_leaves_while_it_is_imported_is_one_line(factories, blobs):
    with pytest.raises(TeacherError, match=r"cannot be imported \(SystemExit: 0\)"):
        train("any", blobs, file="factories_that_leave")


@pytest.mark.parametrize("name", ["double", "scripted"])
def test_factories_of_other_networks_are_trained(name, factories, blobs):
    assert train(name, blobs).accuracy > 0.95


def test_nothing_made_in_inference_mode_spoils_a_training(network):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 90)
    points = rng.random((90, 4)) / 4 + np.eye(3, 4)[labels] / 2

    def outcome(context):
        with context:
            data = Data.from_arrays(points, labels)
            teacher = make_teacher(TeacherSpec(epochs=2), data, cache=False)
            own = Teacher.from_module(copy.deepcopy(network), data, cache=False)
            logits = own.logits(data.pool.images, cache=False)
        assert not any(part.is_inference() for part in (logits, data.pool.images))
        student = make_student(
            StudentSpec(qubits=2), image_shape=data.image_shape, num_classes=3, seed=0
        )
        losses = [
            [
                epoch.loss
                for epoch in distill(student, one, data, spec=DistillSpec(epochs=2)).history
            ]
            for one in (teacher, own)
        ]
        layer = nn.Linear(4, 3)
        functional.cross_entropy(layer(data.pool.images.flatten(1)), logits.softmax(1)).backward()
        return losses

    expected = outcome(torch.enable_grad())
    assert outcome(torch.inference_mode()) == expected
    assert outcome(torch.no_grad()) == expected
