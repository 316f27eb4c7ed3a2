"""Scaling of features against scikit-learn, and the hint that it is needed."""

import numpy as np
import pytest
import torch
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from qkd_qiskit.data.scaling import scale_hint
from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError, RecipeError
from qkd_qiskit.recipe import DataSpec
from qkd_qiskit.recipe.parsing import parse_recipe

RNG = np.random.default_rng(0)
LABELS = np.arange(90) % 3
FEATURES = RNG.random((90, 4)) * [1, 1000, 0, 1e-5] + [0, 5000, 7, 3]


@pytest.mark.parametrize(
    ("scale", "scaler"), [("standard", StandardScaler), ("minmax", MinMaxScaler)]
)
def test_features_are_scaled_as_by_scikit_learn_on_the_pool(scale, scaler):
    plain = Data.from_arrays(FEATURES, LABELS)
    scaled = Data.from_arrays(FEATURES, LABELS, scale=scale)
    fitted = scaler().fit(plain.pool.images.flatten(1).double())
    for part in ("pool", "validation", "test"):
        expected = fitted.transform(getattr(plain, part).images.flatten(1).double())
        found = getattr(scaled, part).images
        assert found.dtype == torch.float32
        np.testing.assert_allclose(found.flatten(1), expected, atol=2e-5)
        assert torch.equal(getattr(scaled, part).labels, getattr(plain, part).labels)
    assert torch.equal(scaled.scaling(plain.test.images), scaled.test.images)


def test_images_are_scaled_channel_by_channel():
    images = RNG.random((90, 2, 3, 3)) * np.array([1, 50])[:, None, None]
    data = Data.from_arrays(images, LABELS, scale="standard")
    assert repr(data.scaling) == "Scaling(offset=Tensor(1, 2, 1, 1), divisor=Tensor(1, 2, 1, 1))"
    pool = data.pool.images
    torch.testing.assert_close(pool.mean(dim=(0, 2, 3)), torch.zeros(2), atol=1e-5, rtol=0)
    torch.testing.assert_close(pool.std(dim=(0, 2, 3), correction=0), torch.ones(2))


def test_none_keeps_every_byte():
    data = load_data(DataSpec())
    assert data.scaling is None
    assert load_data(DataSpec(scale="none")).fingerprint == data.fingerprint
    assert load_data(DataSpec(scale="minmax")).fingerprint == data.fingerprint  # it fills 0 to 1
    assert load_data(DataSpec(scale="standard")).fingerprint != data.fingerprint


@pytest.mark.parametrize(
    ("factor", "message"),
    [
        ([1, 255, 1, 1], "features run from .* to 25.*; set data.scale to minmax or standard"),
        ([1e-3] * 4, "features run from"),
        ([1, 1e-4, 1, 1], "some features vary 1.* times as much as others"),
        ([-40, 1, 1, 1], "features run from -3"),
    ],
)
def test_features_that_circuits_cannot_use_are_logged_in_one_line(factor, message, caplog):
    features = RNG.random((90, 4)) * factor
    Data.from_arrays(features, LABELS, name="mine")
    (record,) = caplog.records
    assert record.getMessage().startswith("mine: ")
    assert "\n" not in record.getMessage()
    caplog.clear()
    Data.from_arrays(features, LABELS, scale="minmax")
    assert caplog.records == []


@pytest.mark.parametrize("name", ["digits", "generated"])
def test_features_of_the_built_in_sets_are_not_logged(name, caplog):
    load_data(DataSpec(name=name))
    assert caplog.records == []


def test_a_wrong_scale_is_refused_alike_in_python_and_in_a_recipe():
    with pytest.raises(DataError, match="scale: 'robust' is not accepted; give one of none"):
        Data.from_arrays(FEATURES, LABELS, scale="robust")
    with pytest.raises(RecipeError, match=r"data\.scale: 'robust' is not accepted; give one of"):
        parse_recipe({"data": {"scale": "robust"}, "arms": ["label_only"]})


@pytest.mark.parametrize(
    ("values", "message"),
    [(0.0, "all features are 0, which"), (1.0, "all features are 1, which")],
)
def test_features_that_do_not_vary_are_hinted_at(values, message):
    assert message in scale_hint(torch.full((9, 1, 2, 2), values))
