"""Reductions against what they are defined as."""

import pytest
import torch
from sklearn.decomposition import PCA

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.students.reductions import PrincipalComponents, make_reduction


def ramp(height=4, width=4, channels=1):
    count = channels * height * width
    return torch.arange(2 * count, dtype=torch.float32).reshape(2, channels, height, width)


@pytest.mark.parametrize("name", ["linear", "crop", "pca", "avg_pool", "max_pool", "cnn", "none"])
def test_every_reduction_gives_the_number_of_features_asked_for(name):
    module = make_reduction(name, image_shape=(1, 4, 4), num_features=16 if name == "none" else 4)
    if name == "pca":
        module[0].fit(torch.rand(20, 1, 4, 4))
    assert module(ramp()).shape == (2, 16 if name == "none" else 4)
    trained = sum(parameter.numel() for parameter in module.parameters())
    assert (trained > 0) == (name in ("linear", "cnn"))


def test_pools_and_crops():
    image = ramp()
    blocks = image.reshape(2, 2, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(2, 4, 4)
    for name, expected in (("avg_pool", blocks.mean(2)), ("max_pool", blocks.max(2).values)):
        module = make_reduction(name, image_shape=(1, 4, 4), num_features=4)
        assert torch.equal(module(image), expected)
    crop = make_reduction("crop", image_shape=(1, 4, 4), num_features=4)
    assert torch.equal(crop(image), image[:, 0, 1:3, 1:3].flatten(1))
    hollow = torch.nn.functional.pad(torch.zeros(1, 1, 2, 2), (1, 1, 1, 1), value=1.0)
    assert crop(hollow).tolist() == [pytest.approx([1e-3] * 4)]
    tall = make_reduction("crop", image_shape=(1, 4, 6), num_features=6)
    assert torch.equal(tall(ramp(4, 6)), ramp(4, 6)[:, 0, 1:3, 1:4].flatten(1))


def test_pca_is_scikit_learns_scaled_to_the_unit_interval():
    images = torch.rand(50, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    module = PrincipalComponents(pixels=16, num_features=3).double()
    module.fit(images)
    scores = torch.as_tensor(PCA(3).fit_transform(images.flatten(1).double().numpy()))
    low, high = scores.min(dim=0).values, scores.max(dim=0).values
    expected = (scores - low) / (high - low)
    found = module(images.double())
    for column in range(3):  # the sign of a component is free
        mine, theirs = found[:, column], expected[:, column]
        assert min((mine - theirs).abs().max(), (mine - (1 - theirs)).abs().max()) < 1e-6
    assert found.min() == 0
    assert found.max() == 1
    assert module(10 * images.double()).max() <= 1


def test_a_component_that_does_not_vary_stays_at_one_value():
    images = torch.rand(50, 1, 4, 4)
    images[:, :, 1:] = 0.5  # four pixels vary, so the fifth component is noise
    module = PrincipalComponents(pixels=16, num_features=6)
    module.fit(images)
    assert module(images)[:, 4:].max() < 1e-3


def test_pca_asks_for_images():
    module = PrincipalComponents(pixels=16, num_features=4)
    with pytest.raises(CircuitError, match="fit"):
        module(ramp())
    with pytest.raises(CircuitError, match="4 components cannot be taken from 2 images"):
        module.fit(ramp())


def test_missing_features_are_zeros_where_that_is_allowed():
    images = ramp()
    padded = make_reduction("none", image_shape=(1, 4, 4), num_features=32, pad=True)(images)
    assert torch.equal(padded[:, :16], images.flatten(1))
    assert not padded[:, 16:].any()
    for features, pad in ((32, False), (8, True)):
        with pytest.raises(CircuitError, match=f"16 features and this encoding takes {features}"):
            make_reduction("none", image_shape=(1, 4, 4), num_features=features, pad=pad)


@pytest.mark.parametrize(
    ("name", "shape", "features", "message"),
    [
        ("none", (1, 4, 4), 8, "16 features"),
        ("crop", (1, 4, 4), 17, "16 pixels"),
        ("avg_pool", (1, 4, 4), 7, "not a rectangle"),
        ("cnn", (1, 3, 3), 2, "at least 4x4"),
        ("wavelet", (1, 4, 4), 4, "unknown"),
    ],
)
def test_what_cannot_be_reduced_is_refused(name, shape, features, message):
    with pytest.raises(CircuitError, match=message):
        make_reduction(name, image_shape=shape, num_features=features)
