import sys

import pytest
import torch
from torch import nn

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.storage import tensor_digest
from qkd_qiskit.teachers.architectures import architecture_digest, build_teacher, seeded

MNIST, DIGITS = (1, 28, 28), (1, 8, 8)


def build(kind, *, image_shape=MNIST, num_classes=10, **kwargs):
    return build_teacher(
        TeacherSpec(kind=kind), image_shape=image_shape, num_classes=num_classes, **kwargs
    )


def module_spec(path):
    return TeacherSpec(kind="module", module=path)


@pytest.mark.parametrize(
    ("kind", "num_classes", "parameters"),
    [
        ("lenet5", 6, 44_086),
        ("lenet5", 8, 44_256),
        ("alexnet", 6, 94_655_686),
        ("alexnet", 8, 94_663_880),
        ("ensemble", 6, 94_655_686 + 44_086),
        ("mlp", 10, 784 * 64 + 64 + 64 * 10 + 10),
        ("softmax", 10, 784 * 10 + 10),
        ("small_cnn", 10, 160 + 4640 + 32 * 49 * 10 + 10),
    ],
)
def test_parameter_counts_are_the_published_ones(kind, num_classes, parameters):
    with torch.device("meta"):
        module = build(kind, num_classes=num_classes)
    assert sum(weights.numel() for weights in module.parameters()) == parameters


def test_layers_of_lenet5_and_alexnet_are_those_of_the_paper():
    with torch.device("meta"):
        names = {
            kind: [
                type(layer).__name__ for layer in build(kind).modules() if not [*layer.children()]
            ]
            for kind in ("lenet5", "alexnet")
        }
    block = ["Conv2d", "Tanh", "AvgPool2d"]
    assert names["lenet5"] == [*block, *block, "Flatten", *["Linear", "Tanh"] * 2, "Linear"]
    block = ["Conv2d", "ReLU", "MaxPool2d"]
    assert names["alexnet"] == [
        *(*block, *block, "Conv2d", "ReLU", "Flatten"),
        *(*["Dropout", "Linear", "ReLU"] * 2, "Linear"),
    ]


@pytest.mark.parametrize(
    ("kind", "image_shape"),
    [
        *((kind, DIGITS) for kind in ("softmax", "mlp", "small_cnn")),
        *((kind, MNIST) for kind in ("softmax", "mlp", "small_cnn", "lenet5")),
        *((kind, (1, 1, 64)) for kind in ("softmax", "mlp")),
        ("small_cnn", (3, 5, 7)),
        *(("lenet5", shape) for shape in ((3, 32, 32), (1, 16, 40))),
    ],
)
def test_logits_have_a_column_per_class(kind, image_shape):
    module = build(kind, image_shape=image_shape, num_classes=7)
    assert module(torch.rand(3, *image_shape)).shape == (3, 7)


@pytest.mark.parametrize("kind", ["alexnet", "ensemble"])
def test_large_networks_fit_their_images(kind):
    with torch.device("meta"):
        assert build(kind)(torch.rand(3, *MNIST)).shape == (3, 10)


def test_ensemble_is_the_mean_of_its_logits():
    with torch.device("meta"):
        ensemble = build("ensemble")
    images = torch.rand(2, *MNIST)
    ensemble.alexnet = build("lenet5", seed=1)
    ensemble.lenet5 = build("lenet5", seed=2)
    mean = (ensemble.alexnet(images) + ensemble.lenet5(images)) / 2
    assert torch.equal(ensemble(images), mean)


@pytest.mark.parametrize("kind", ["alexnet", "ensemble"])
@pytest.mark.parametrize("image_shape", [DIGITS, (3, 28, 28), (1, 1, 784)])
def test_networks_for_28x28_name_alternatives(kind, image_shape):
    with pytest.raises(TeacherError, match=r"needs images of shape \(1, 28, 28\).*small_cnn, mlp"):
        build(kind, image_shape=image_shape)


def test_lenet5_takes_images_of_any_size_and_channels():
    # LeCun et al. (1998) had 32x32 pixels: 16 maps of 5x5 go into 120 units.
    assert build("lenet5", image_shape=(3, 32, 32))[1][1].in_features == 16 * 5 * 5
    assert build("lenet5", image_shape=(1, 16, 40))[1][1].in_features == 16 * 1 * 7
    with pytest.raises(TeacherError, match="needs 16x16 pixels or more, these are 8x8"):
        build("lenet5", image_shape=DIGITS)


def test_small_cnn_needs_something_to_pool():
    with pytest.raises(TeacherError, match="these are 1x64; choose mlp or softmax"):
        build("small_cnn", image_shape=(1, 1, 64))


def test_weights_depend_on_the_seed_alone():
    digests = []
    for seed in (0, 1, 0):
        torch.rand(3)
        before = torch.random.get_rng_state()
        digests.append(tensor_digest(build("mlp", image_shape=DIGITS, seed=seed).state_dict()))
        assert torch.equal(before, torch.random.get_rng_state())
    assert digests[0] == digests[2] != digests[1]


def test_seeded_puts_the_state_back_after_an_error():
    before = torch.random.get_rng_state()
    with pytest.raises(AttributeError), seeded(5):
        torch.rand(1).nothing()
    assert torch.equal(before, torch.random.get_rng_state())
    with seeded(5):
        first = torch.rand(3)
    with seeded(5):
        assert torch.equal(torch.rand(3), first)


NETWORKS = """
import torch
from torch import nn

constant = 3


def good(image_shape, num_classes):
    channels, height, width = image_shape
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * height * width, num_classes))


def seven(image_shape, num_classes):
    return good(image_shape, 7)


def wide(image_shape, num_classes):
    return nn.Linear(image_shape[2], num_classes)


def wrong_input(image_shape, num_classes):
    return good((1, 28, 28), num_classes)


def no_module(image_shape, num_classes):
    return lambda images: images


def pair(image_shape, num_classes):
    return nn.LSTM(image_shape[2], num_classes)


class Normalised(nn.Module):
    def __init__(self, image_shape, num_classes):
        super().__init__()
        self.linear = good(image_shape, num_classes)
        self.norm = nn.BatchNorm1d(num_classes)

    def forward(self, images):
        return self.norm(self.linear(images))
"""


@pytest.fixture
def networks(tmp_path, monkeypatch):
    """A folder with a file of networks, which is the current one."""
    (tmp_path / "my_networks.py").write_text(NETWORKS)
    (tmp_path / "my_broken_networks.py").write_text("import a_package_that_is_not_there")
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in ("my_networks", "my_broken_networks"):
        sys.modules.pop(name, None)


def build_module(name):
    return build_teacher(
        module_spec(f"my_networks:{name}"), image_shape=DIGITS, num_classes=10, seed=3
    )


@pytest.mark.parametrize("name", ["good", "Normalised"])
def test_own_modules_are_found_from_the_current_folder(networks, name):
    before = list(sys.path)
    module, again = build_module(name), build_module(name)
    assert sys.path == before
    assert module.training
    assert tensor_digest(module.state_dict()) == tensor_digest(again.state_dict())
    assert module(torch.rand(4, *DIGITS)).shape == (4, 10)


def test_checking_a_module_leaves_its_statistics_alone(networks):
    norm = build_module("Normalised").norm
    assert torch.equal(norm.running_mean, torch.zeros(10))
    assert norm.num_batches_tracked == 0


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("my_networks.good", "is not an import path; give `package.file:factory`"),
        ("my_networks:", "is not an import path"),
        ("my_networks:none", "cannot be imported .*has no attribute 'none'"),
        ("my_netwroks:good", "cannot be imported .*No module named 'my_netwroks'"),
        ("my_broken_networks:good", "No module named 'a_package_that_is_not_there'"),
        ("my_networks:constant", "is a int; give a function"),
        ("my_networks:no_module", "gives a function; give an nn.Module"),
        ("my_networks:seven", r"gives 7 outputs for 10 classes; .* shape \(batch, 10\)"),
        ("my_networks:wide", r"gives \(2, 1, 8, 10\) for 2 images of 10 classes"),
        ("my_networks:pair", "fails on images of shape"),
        (
            "my_networks:wrong_input",
            r"fails on images of shape \(2, 1, 8, 8\) \(RuntimeError: .*mat1",
        ),
    ],
)
def test_own_modules_that_do_not_work_are_refused(networks, path, message):
    with pytest.raises(TeacherError, match=message) as caught:
        build_teacher(module_spec(path), image_shape=DIGITS, num_classes=10)
    assert path in str(caught.value)
    assert "\n" not in str(caught.value)


def test_digest_of_an_architecture_sees_layers_and_source(networks):
    spec = module_spec("my_networks:good")
    first = architecture_digest(spec, build_module("good"))
    assert architecture_digest(spec, build_module("good")) == first
    (networks / "my_networks.py").write_text(NETWORKS.replace("constant = 3", "constant = 4"))
    assert architecture_digest(spec, build_module("good")) != first

    mlp = TeacherSpec(kind="mlp")
    module = build("mlp", image_shape=DIGITS)
    changed = build("mlp", image_shape=DIGITS)
    changed[2] = nn.Tanh()
    assert architecture_digest(mlp, module) == architecture_digest(
        mlp, build("mlp", image_shape=DIGITS, seed=1)
    )
    assert architecture_digest(mlp, module) != architecture_digest(mlp, changed)
