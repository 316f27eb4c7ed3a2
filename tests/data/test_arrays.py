import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit.data.arrays import file_digest, read_arrays
from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec


def own(counts=(20, 30), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return {"images": rng.random((len(labels), 4, 5)), "labels": labels}


@pytest.fixture
def write(tmp_path):
    def save(**content):
        np.savez(tmp_path / "own.npz", **content)
        return tmp_path / "own.npz"

    return save


def test_a_file_is_the_same_data_as_its_arrays(write):
    arrays, spec = own(), {"name": "arrays", "validation_fraction": 0.2}
    path = write(**arrays)
    data = load_data(DataSpec(file=str(path), **spec), seed=3)
    same = Data.from_arrays(**arrays, validation_fraction=0.2, seed=3)
    assert data.fingerprint == same.fingerprint
    assert (data.name, data.image_shape) == ("own.npz", (1, 4, 5))
    assert data.class_names == ("0", "1")


def test_images_of_one_channel_may_leave_it_out():
    arrays = own()
    three = Data.from_arrays(**arrays)
    four = Data.from_arrays(arrays["images"][:, None], arrays["labels"])
    assert three.fingerprint == four.fingerprint


def test_test_images_and_names_of_a_file_are_kept_and_its_classes_can_be_chosen(write):
    test = own((3, 4, 5), seed=1)
    path = write(
        **own((20, 30, 10)),
        test_images=test["images"],
        test_labels=test["labels"],
        class_names=["cat", "dog", "eel"],
    )
    data = load_data(DataSpec(name="arrays", file=str(path), classes=(2, 0)))
    assert data.class_names == ("eel", "cat")
    kept = test["labels"] != 1
    assert torch.equal(
        data.test.images[:, 0], torch.tensor(test["images"][kept], dtype=torch.float32)
    )
    assert data.test.labels.tolist() == [0 if label == 2 else 1 for label in test["labels"][kept]]


def test_classes_past_the_tenth_can_be_chosen(write):
    path = write(**own((4,) * 12))
    data = load_data(DataSpec(name="arrays", file=str(path), classes=(11, 3)))
    assert data.class_names == ("11", "3")
    with pytest.raises(DataError, match=r"own\.npz has the classes 0 to 11"):
        load_data(DataSpec(name="arrays", file=str(path), classes=(12, 3)))


def test_a_file_that_has_changed_is_refused(write):
    path = write(**own())
    digest = file_digest(path)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    read_arrays(path, digest=digest)
    write(**own(seed=1))
    with pytest.raises(DataError, match="has changed since the run began"):
        read_arrays(path, digest=digest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": None}, r"own\.npz holds labels; write it with numpy\.savez"),
        ({"x": np.zeros(3)}, "holds images, labels, x; write it with"),
        ({"test_images": np.zeros((2, 4, 5))}, "holds images, labels, test_images; write it with"),
        (
            {"labels": np.array(["a"] * 50, object)},
            r"not an \.npz file of plain arrays, but of pickled objects; write it with",
        ),
        ({"labels": np.arange(3)}, r"own\.npz: labels have shape \(3,\) for 50 images"),
        ({"images": np.full((50, 2), np.nan)}, "50 of 50 images hold NaN"),
        ({"class_names": ["a", "b", "c"]}, "none of class 2, there are 3 class names"),
        (
            {"unlabelled": np.zeros((3, 5, 5))},
            r"unlabelled images have shape \(1, 5, 5\), training",
        ),
        ({"unlabelled": np.zeros((3, 4, 5), np.uint8)}, "unlabelled images are of type uint8"),
    ],
)
def test_files_that_do_not_fit_are_one_line(change, message, write):
    content = {name: value for name, value in (own() | change).items() if value is not None}
    with pytest.raises(DataError, match=message) as caught:
        read_arrays(write(**content))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", np.zeros(3).tobytes()])
def test_what_is_no_npz_file_is_one_line(content, tmp_path):
    path = tmp_path / "own.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"not an \.npz file of plain arrays; write it with"):
        read_arrays(path)
    np.save(tmp_path / "single.npy", np.zeros(3))
    with pytest.raises(DataError, match=r"not an \.npz file"):
        read_arrays(tmp_path / "single.npy")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    for path in (tmp_path / "none.npz", tmp_path):
        for read in (read_arrays, file_digest):
            with pytest.raises(DataError, match=r"data\.file: .* cannot be read"):
                read(path)


def test_unlabelled_images_are_scaled_with_the_others_and_chosen_by_no_class(write):
    arrays, images = own((20, 30, 40)), np.random.default_rng(1).random((7, 4, 5))
    path = write(**arrays, unlabeled=images)
    spec = DataSpec(name="arrays", file=str(path), scale="minmax", classes=(0, 2))
    data, without = load_data(spec), load_data(replace(spec, file=str(write_other(path, arrays))))
    assert without.unlabelled is None
    assert data.pool.fingerprint == without.pool.fingerprint
    assert data.fingerprint != without.fingerprint
    expected = data.scaling(torch.from_numpy(images[:, None].astype(np.float32)))
    assert torch.equal(data.unlabelled, expected)
    same = Data.from_arrays(**own((20, 30, 40)), unlabelled=images, scale="minmax")
    assert same.unlabelled.shape == (7, 1, 4, 5)
    through = same.through(torch.nn.Flatten())
    assert torch.equal(through.unlabelled.flatten(), same.unlabelled.flatten())
    assert through.unlabelled.shape == (7, 1, 1, 20)


def write_other(path, arrays):
    np.savez(path.with_name("without.npz"), **arrays)
    return path.with_name("without.npz")
