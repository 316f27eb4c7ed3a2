"""Images of every layout and type."""

import numpy as np
import pytest

from qkd_qiskit.data.images import plain_images
from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import DataError

LABELS = np.arange(60) % 3


def shape_of(shape, **options):
    return plain_images(np.zeros((6, *shape)), what="images", **options).shape[1:]


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((28, 28, 3), (3, 28, 28)),
        ((28, 28, 1), (1, 28, 28)),
        ((28, 28, 4), (4, 28, 28)),
        ((28, 28, 2), (2, 28, 28)),
        ((32, 24, 3), (3, 32, 24)),
        ((4, 4, 1), (1, 4, 4)),
        ((8, 8, 16), (16, 8, 8)),
    ],
)
def test_channels_that_are_last_are_found(shape, expected, caplog):
    assert shape_of(shape) == expected
    assert "taken as (N, height, width, channels)" in caplog.text
    assert shape_of(shape, channels="first") == shape


@pytest.mark.parametrize(
    "shape",
    [
        (3, 28, 28),
        (1, 28, 28),
        (1, 1, 64),
        (3, 32, 24),
        (16, 4, 4),
        (2, 3, 3),
        (1, 8, 3),
        (3, 3, 4),
    ],
)
def test_channels_that_are_first_stay_so(shape, caplog):
    assert shape_of(shape) == shape
    assert caplog.records == []


def test_pixels_go_where_they_belong():
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)
    found = plain_images(images, what="images", channels="last")
    for channel in range(3):
        expected = images[..., channel].astype(np.float32) / np.float32(255)
        assert np.array_equal(found[:, channel], expected)
    assert found.flags.c_contiguous


@pytest.mark.parametrize("dtype", [bool, np.float16, np.int64, np.uint16, object])
def test_numbers_of_other_types_keep_their_values(dtype):
    images = np.array([[0, 1, 1], [1, 0, 1]], dtype)
    assert plain_images(images, what="images")[:, 0, 0].tolist() == [[0, 1, 1], [1, 0, 1]]


def test_text_is_refused():
    with pytest.raises(DataError, match=r"no numbers .*; leave out the columns of text"):
        plain_images(np.array([[1, "a"]], object), what="images")


def test_bytes_beside_other_numbers_are_refused():
    bytes_ = np.full((60, 4), 7, np.uint8)
    with pytest.raises(DataError, match="test images are of type float64, training images uint8"):
        Data.from_arrays(bytes_, LABELS, test=(bytes_ / 255, LABELS))


def test_a_wrong_side_is_refused():
    with pytest.raises(DataError, match="channels is 'middle'; give one of None, first, last"):
        Data.from_arrays(np.zeros((60, 3, 4, 4)), LABELS, channels="middle")
