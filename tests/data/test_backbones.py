"""Features of frozen networks in the place of images: values, cache, weights, refusals."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.functional import conv2d

from qkd_qiskit import Data, DataSpec, load_data
from qkd_qiskit.data import backbone_weights, backbones
from qkd_qiskit.errors import DataError, RecipeError

OWN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3)
        self.head = nn.Linear(3, 7)

    def forward(self, images):
        return self.head(self.conv(images).relu().mean(dim=(2, 3)))


def make():
    torch.manual_seed(5)
    return Net()


def text():
    return "no network"


def tokens():
    return nn.Sequential(nn.Flatten(2), nn.Linear(64, 4))
"""
FEATURES = {"name": "digits", "backbone": "module:own_network:make"}


@pytest.fixture(autouse=True)
def own(tmp_path, monkeypatch):
    (tmp_path / "own_network.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("QKD_CACHE", str(tmp_path / "cache"))
    # Byte code is told from its source by second and size: a file that is changed at once has both.
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.delitem(sys.modules, "own_network", raising=False)
    return tmp_path


@pytest.fixture
def network():
    torch.manual_seed(5)
    made = nn.Sequential()
    made.add_module("conv", nn.Conv2d(1, 3, 3))
    made.add_module("head", nn.Linear(3, 7))
    return made


def test_features_are_what_the_network_gives(network):
    plain = load_data(DataSpec(name="digits"), seed=2)
    data = load_data(DataSpec(**FEATURES), seed=2)
    assert data.image_shape == (1, 1, 7)
    assert torch.equal(data.pool.labels, plain.pool.labels)
    maps = conv2d(plain.test.images, network.conv.weight, network.conv.bias).relu().mean(dim=(2, 3))
    expected = network.head(maps)
    torch.testing.assert_close(data.test.images[:, 0, 0], expected.detach())
    assert data.name == "features of digits"


def test_a_named_layer_is_averaged_over_places(network):
    plain = load_data(DataSpec(name="digits"), seed=2)
    data = load_data(DataSpec(**FEATURES, backbone_layer="conv"), seed=2)
    maps = conv2d(plain.pool.images, network.conv.weight, network.conv.bias)
    torch.testing.assert_close(data.pool.images[:, 0, 0], maps.mean(dim=(2, 3)).detach())
    tokens = DataSpec(name="digits", backbone="module:own_network:tokens", backbone_layer="0")
    averaged = load_data(tokens, seed=2).pool.images
    torch.testing.assert_close(averaged[:, 0, 0], plain.pool.images.flatten(2).mean(dim=1))


def test_in_python_a_network_takes_the_place_of_images(network):
    plain = load_data(DataSpec(name="digits"), seed=2)
    layer = network.conv
    data = plain.through(nn.Sequential(layer, nn.Flatten()), layer="0")
    maps = conv2d(plain.test.images, layer.weight, layer.bias)
    torch.testing.assert_close(data.test.images[:, 0, 0], maps.mean(dim=(2, 3)).detach())
    scaled = plain.through(layer, scale="minmax")
    low, high = scaled.pool.images.amin(dim=0), scaled.pool.images.amax(dim=0)
    torch.testing.assert_close(low, torch.zeros(1, 1, 3))
    torch.testing.assert_close(high, torch.ones(1, 1, 3))
    assert scaled.spec is None
    assert torch.equal(scaled.test.labels, plain.test.labels)
    with pytest.raises(DataError, match="the layer is a Conv2d; give its name, or None"):
        plain.through(network, layer=layer)


def test_they_are_computed_once_for_the_same_weights_and_images(own, monkeypatch):
    calls = []
    compute = backbones.Backbone._compute

    def counted(self, images):
        calls.append(len(images))
        return compute(self, images)

    monkeypatch.setattr(backbones.Backbone, "_compute", counted)
    first = load_data(DataSpec(**FEATURES))
    assert calls == [1797]
    assert load_data(DataSpec(**FEATURES)).fingerprint == first.fingerprint
    assert len(calls) == 1
    other = load_data(DataSpec(**FEATURES, backbone_weights="random"))
    assert len(calls) == 2
    assert other.fingerprint != first.fingerprint
    load_data(DataSpec(**FEATURES, backbone_layer="conv"))
    load_data(DataSpec(**FEATURES, size=10))
    assert len(calls) == 4
    (own / "own_network.py").write_text(OWN.replace(".relu()", ".tanh()"))
    sys.modules.pop("own_network")
    assert load_data(DataSpec(**FEATURES)).fingerprint != first.fingerprint
    assert len(calls) == 5


def test_weights_come_from_the_users_file(own, network):
    state = {"conv.weight": torch.ones(3, 1, 3, 3), "conv.bias": torch.zeros(3)}
    state |= {"head.weight": torch.eye(7, 3), "head.bias": torch.zeros(7)}
    save_file(state, own / "own.safetensors")
    torch.save({"state_dict": {f"module.{name}": it for name, it in state.items()}}, own / "own.pt")
    plain = load_data(DataSpec(name="digits"))
    mean = conv2d(plain.test.images, state["conv.weight"]).mean(dim=(1, 2, 3))
    for name in ("own.safetensors", "own.pt"):
        data = load_data(DataSpec(**FEATURES, backbone_weights=str(own / name)))
        torch.testing.assert_close(data.test.images[:, 0, 0, 2], mean)
        assert not data.test.images[..., 3:].any()


class Evil:
    def __reduce__(self):
        return print, ("this code must not run",)


@pytest.mark.parametrize(
    ("make", "line"),
    [
        (lambda path: None, r"cannot read .*own\.pt: No such file"),
        (
            lambda path: path.write_bytes(b"PK nothing"),
            r"no file of torch\.save that holds tensors",
        ),
        (lambda path: torch.save(Evil(), path), r"no file of torch\.save that holds tensors alone"),
        (lambda path: torch.save([1, 2], path), r"holds no tensors by name; save a state_dict"),
        (lambda path: torch.save({}, path), r"lacks 'conv\.bias' \(4 of 4 tensors\)"),
        (
            lambda path: torch.save(nn.Linear(2, 2).state_dict(), path),
            r"lacks 'conv\.bias' \(4 of 4 tensors\); give the weights of this network",
        ),
    ],
)
def test_weights_that_do_not_fit_are_one_line(own, make, line, capsys):
    make(own / "own.pt")
    with pytest.raises(DataError, match=line) as refused:
        load_data(DataSpec(**FEATURES, backbone_weights=str(own / "own.pt")))
    assert "\n" not in str(refused.value)
    assert "must not run" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (
            {"backbone": "resnet18"},
            r"data\.backbone: 'resnet18' is not accepted; give torchvision:",
        ),
        ({"backbone": "torchvision:resnet"}, r"no classifier 'resnet'; did you mean resnet\d+\?"),
        ({"backbone": "module:own_network:none"}, r"'own_network:none' cannot be imported"),
        ({"backbone": "module:own_network:text"}, r"gives a str; give an nn\.Module"),
        ({"backbone_layer": "con"}, r"has no layer 'con'; did you mean conv\?"),
        ({"channels": "rgb"}, r"fails on images of shape \(3, 8, 8\)"),
        ({"name": "generated"}, r"data\.backbone: .* whose points are no images"),
    ],
)
def test_networks_that_do_not_fit_are_one_line(values, line):
    with pytest.raises((DataError, RecipeError), match=line) as refused:
        load_data(DataSpec(**FEATURES | values))
    assert "\n" not in str(refused.value)


def test_torchvision_normalises_and_reads_what_its_head_is_given():
    images = Data.from_arrays(
        np.random.default_rng(0).integers(0, 256, (24, 32, 32), dtype=np.uint8), np.arange(24) % 2
    )
    spec = DataSpec(backbone="torchvision:shufflenet_v2_x0_5", backbone_weights="random")
    backbone = backbones.load_backbone(spec, seed=4)
    made = backbone.features(images.test.images)
    assert made.shape == (8, 1, 1, 1024)
    pixels = images.test.images.expand(-1, 3, -1, -1)
    mean = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
    deviation = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
    with torch.no_grad():
        logits = backbone.network.fc(made[:, 0, 0])
        expected = backbone.network((pixels - mean) / deviation)
    torch.testing.assert_close(logits, expected)
    again = backbones.load_backbone(spec, seed=4).features(images.test.images, cache=False)
    assert torch.equal(again, made)
    other = backbones.load_backbone(spec, seed=5).features(images.test.images)
    assert not torch.equal(other, made)


def test_a_head_of_other_classes_is_left_out(own):
    spec = DataSpec(backbone="torchvision:shufflenet_v2_x0_5", backbone_weights="random")
    state = dict(backbones.load_backbone(spec, seed=1).network.state_dict())
    state["fc.weight"], state["fc.bias"] = torch.zeros(10, 1024), torch.zeros(10)
    save_file(state, own / "own.safetensors")
    own_file = DataSpec(
        backbone="torchvision:shufflenet_v2_x0_5", backbone_weights=str(own / "own.safetensors")
    )
    pixels = torch.rand(2, 3, 32, 32)
    made = backbones.load_backbone(own_file).features(pixels)
    assert torch.equal(made, backbones.load_backbone(spec, seed=1).features(pixels))


def test_without_a_network_the_line_says_what_to_do(monkeypatch, own, caplog):
    def refused(*_given, **_named):
        raise OSError("no route to host")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(own / "hub"))
    monkeypatch.setattr(torch.hub, "download_url_to_file", refused)
    with pytest.raises(DataError, match=r"cannot be downloaded \(no route to host\); put ") as line:
        backbones.load_backbone(DataSpec(backbone="torchvision:resnet18"))
    assert "data.backbone_weights, or random for the control" in str(line.value)
    assert "\n" not in str(line.value)
    assert "from https://" in caplog.text  # never silent about where weights are from


def test_what_torchvision_publishes_is_read_where_it_lies(monkeypatch, own, caplog):
    spec = DataSpec(backbone="torchvision:shufflenet_v2_x0_5", backbone_weights="random")
    state = backbones.load_backbone(spec, seed=1).network.state_dict()
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(own))
    (own / "checkpoints").mkdir()
    torch.save(state, own / "checkpoints" / "shufflenetv2_x0.5-f707e7126e.pth")
    theirs = backbones.load_backbone(DataSpec(backbone="torchvision:shufflenet_v2_x0_5"))
    assert torch.equal(theirs.network.fc.weight, state["fc.weight"])
    assert "IMAGENET1K_V1 of torchvision, from" in caplog.text


def test_a_changed_file_is_seen(own):
    save_file({"a": torch.zeros(1)}, own / "own.safetensors")
    digest = backbone_weights.weights_file_digest(str(own / "own.safetensors"))
    save_file({"a": torch.ones(1)}, own / "own.safetensors")
    with pytest.raises(DataError, match=r"has changed since the run began \(data\.backbone_digest"):
        backbone_weights.read_weights(str(own / "own.safetensors"), digest=digest)
