"""A teacher's outputs in the user's own file: beside their images through splits, and checked."""

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec


def own(counts=(20, 30, 10), seed=0):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    images = rng.random((len(labels), 4, 5), dtype=np.float32)
    return {"images": images, "labels": labels, "teacher_logits": marked(images)}


def marked(images):
    """Logits that tell which image they are for."""
    return np.stack([images[:, 0, 0], images[:, 1, 1], images[:, 2, 2]], axis=1) * 10 - 4


@pytest.fixture
def write(tmp_path):
    def save(**content):
        np.savez(tmp_path / "own.npz", **content)
        return {"name": "arrays", "file": str(tmp_path / "own.npz")}

    return save


def assert_beside(split, columns=(0, 1, 2)):
    expected = marked(split.images[:, 0].numpy())[:, list(columns)]
    torch.testing.assert_close(split.teacher_logits, torch.from_numpy(expected))


def test_every_image_keeps_its_logits_through_splits_and_draws(write):
    data = load_data(DataSpec(**write(**own()), train_per_class=3, validation_fraction=0.3))
    assert len(data.test) == 20
    for split in (data.pool, data.validation, data.test, data.pool[data.draw(3, seed=1)]):
        assert_beside(split)


def test_chosen_classes_keep_their_columns_in_their_order(write):
    data = load_data(DataSpec(**write(**own()), classes=(2, 0), test_per_class=2))
    for split in (data.pool, data.validation, data.test):
        assert split.teacher_logits.shape == (len(split), 2)
        assert_beside(split, columns=(2, 0))


@pytest.mark.parametrize("name", ["teacher_logits_test", "test_teacher_logits"])
def test_test_images_of_their_own_may_have_logits_or_not(write, name):
    test = own(seed=1)
    parts = {"test_images": test["images"], "test_labels": test["labels"]}
    assert load_data(DataSpec(**write(**own(), **parts))).test.teacher_logits is None
    data = load_data(DataSpec(**write(**own(), **parts, **{name: test["teacher_logits"]})))
    assert_beside(data.test)
    assert_beside(data.pool)


def test_validation_images_of_their_own_have_none(write):
    held = own(seed=1)
    parts = {"validation_images": held["images"], "validation_labels": held["labels"]}
    data = load_data(DataSpec(**write(**own(), **parts)))
    assert data.validation.teacher_logits is None
    assert_beside(data.pool)


def test_probabilities_become_their_logarithms(write):
    content = own()
    logits = torch.from_numpy(content.pop("teacher_logits"))
    probabilities = torch.softmax(logits.double(), 1).numpy()
    probabilities[0] = [1.0, 0.0, 0.0]
    data = load_data(DataSpec(**write(**content, teacher_probabilities=probabilities)))
    everything = torch.cat([s.teacher_logits for s in (data.pool, data.validation, data.test)])
    assert everything.isfinite().all()
    sums = everything.exp().sum(dim=1)
    torch.testing.assert_close(sums, torch.ones_like(sums))
    assert float(everything.min()) == pytest.approx(np.log(1e-12), rel=1e-5)


def test_scaled_images_keep_their_logits(write):
    plain = load_data(DataSpec(**write(**own())))
    scaled = load_data(DataSpec(**write(**own()), scale="standard"))
    assert torch.equal(scaled.pool.teacher_logits, plain.pool.teacher_logits)
    assert not torch.equal(scaled.pool.images, plain.pool.images)


def test_arrays_from_python_are_as_those_of_a_file(write):
    content, test = own(), own(seed=1)
    parts = {"test_images": test["images"], "test_labels": test["labels"]}
    data = load_data(
        DataSpec(**write(**content, **parts, teacher_logits_test=test["teacher_logits"])), seed=3
    )
    same = Data.from_arrays(
        **content,
        test=(test["images"], test["labels"]),
        teacher_logits_test=test["teacher_logits"],
        seed=3,
    )
    for split, other in ((data.pool, same.pool), (data.test, same.test)):
        assert torch.equal(split.teacher_logits, other.teacher_logits)


def changed(row, value):
    logits = own()["teacher_logits"]
    logits[row] = value
    return logits


PROBABILITIES = np.full((60, 3), 1 / 3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"teacher_logits": np.zeros((59, 3))},
            r"teacher_logits have shape \(59, 3\); give \(60, 3\), a row for each of the training",
        ),
        ({"teacher_logits": np.zeros((60, 4))}, r"shape \(60, 4\); give \(60, 3\)"),
        ({"teacher_logits": np.zeros(60)}, r"shape \(60,\); give \(60, 3\)"),
        (
            {"teacher_logits": changed(7, np.nan)},
            "teacher_logits hold NaN or infinite values in 1 of 60 rows, the first is number 7",
        ),
        ({"teacher_logits": changed(0, np.inf)}, "hold NaN or infinite values in 1 of 60 rows"),
        (
            {"teacher_logits": PROBABILITIES},
            "teacher_logits are 0 or more and of sum 1 .* name them teacher_probabilities",
        ),
        (
            {"teacher_logits": None, "teacher_probabilities": 5 + np.zeros((60, 3))},
            "teacher_probabilities are no probabilities: .* sums from 15 to 15; give rows of sum 1",
        ),
        (
            {"teacher_probabilities": PROBABILITIES},
            "teacher_logits and teacher_probabilities are both given; give one",
        ),
        ({"teacher_logits": np.full((60, 3), "a")}, "teacher_logits are of type <U1; give real n"),
        (
            {"teacher_logits_test": np.zeros((60, 3))},
            "teacher_logits_test are given without test images",
        ),
        (
            {
                "teacher_logits": None,
                "teacher_logits_test": np.zeros((60, 3)),
                "test_images": own()["images"],
                "test_labels": own()["labels"],
            },
            "teacher_logits_test are given without teacher_logits, from which a student learns",
        ),
        (
            {
                "teacher_logits_test": np.zeros((6, 3)),
                "test_images": own()["images"],
                "test_labels": own()["labels"],
            },
            r"teacher_logits_test have shape \(6, 3\); give \(60, 3\), .* of the test images",
        ),
        (
            {"teacher_logit": np.zeros((60, 3))},
            "holds images, labels, teacher_logits, teacher_logi",
        ),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(write, content, message):
    given = {name: value for name, value in (own() | content).items() if value is not None}
    with pytest.raises(DataError, match=message) as raised:
        load_data(DataSpec(**write(**given)))
    assert "\n" not in str(raised.value)
    assert "own.npz" in str(raised.value)


def test_pickled_logits_are_not_opened(write):
    content = own() | {"teacher_logits": np.array([[1, None, 2]] * 60, dtype=object)}
    with pytest.raises(DataError, match=r"is not an \.npz file of plain arrays, but of pickled"):
        load_data(DataSpec(**write(**content)))
