"""Labels of every sort become classes 0, 1, ... with names, or are refused in one line."""

import tracemalloc

import numpy as np
import pytest
import torch

from qkd_qiskit.data.containers import as_array
from qkd_qiskit.data.labels import find_classes, plain_labels
from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec

NUMBERS = np.array([2, 0, 1, 1, 0, 2])
ANIMALS = ["cat", "ant", "bee", "bee", "ant", "cat"]


def classes_of(labels, **names):
    plain = plain_labels(np.asarray(labels), count=len(labels), what="images")
    classes = find_classes(plain, **names)
    return classes.numbers_of(plain, what="images").tolist(), classes.names


@pytest.mark.parametrize(
    "labels",
    [
        NUMBERS,
        NUMBERS.astype(np.uint8),
        NUMBERS.astype(float),
        NUMBERS.astype(np.float16),
        NUMBERS.astype(object),
        NUMBERS.astype(str),
        NUMBERS[:, None],
        NUMBERS[:, None].astype(float),
        np.eye(3)[NUMBERS],
        np.eye(3, dtype=bool)[NUMBERS],
    ],
)
def test_the_same_classes_in_other_forms(labels):
    assert classes_of(labels) == (NUMBERS.tolist(), ("0", "1", "2"))


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (NUMBERS + 1, ("1", "2", "3")),
        (NUMBERS * 7, ("0", "7", "14")),
        (NUMBERS * 10**9, ("0", "1000000000", "2000000000")),
        ((NUMBERS + 8).astype(str), ("8", "9", "10")),
        (np.array([3, 0, 255, 255, 0, 3], np.uint8)[[2, 1, 0, 0, 1, 2]], ("0", "3", "255")),
        (ANIMALS, ("ant", "bee", "cat")),
        (np.array(ANIMALS, object), ("ant", "bee", "cat")),
        (np.array(ANIMALS, "S"), ("ant", "bee", "cat")),
        (["007", "07", "7", "7", "07", "007"][::-1], None),
    ],
)
def test_other_labels_are_numbered_in_sorted_order_and_keep_their_names(labels, names):
    expected = NUMBERS.tolist()
    if names is None:  # text that only looks like numbers stays text
        names, expected = ("007", "07", "7"), [0, 1, 2, 2, 1, 0]
    assert classes_of(labels) == (expected, names)


def test_minus_one_and_one_are_two_classes():
    assert classes_of([1, -1, -1]) == ([1, 0, 0], ("-1", "1"))


def test_class_names_order_text_and_name_numbers():
    names = ("cat", "bee", "ant")
    assert classes_of(ANIMALS, class_names=names) == ([0, 2, 1, 1, 2, 0], names)
    assert classes_of(NUMBERS + 1, class_names=names) == (NUMBERS.tolist(), names)
    with pytest.raises(DataError, match="ant, bee, cat, and class_names are ant, bee; give"):
        classes_of(ANIMALS, class_names=("ant", "bee"))


def test_numbers_that_change_are_logged_in_one_line(caplog):
    classes_of(NUMBERS)
    assert caplog.records == []
    classes_of(NUMBERS + 1)
    (record,) = caplog.records
    assert "labels are 1, 2, 3: they become classes 0 to 2" in record.getMessage()


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (NUMBERS - 1, "run from -1 to 1; give 0 or more, and leave"),
        (NUMBERS + 0.25, "hold 2.25, which is no whole number"),
        (NUMBERS * 1e300, "hold 2e.300, which is no whole number"),
        (np.where(NUMBERS == 1, np.nan, 0), "hold NaN or infinite values, the first is number 2"),
        (np.array([-1, 0, 1], np.int64).astype(np.uint64), "a number that wrapped around"),
        (np.array([0, 10**30, 1], object), "past 64 bits"),
        (np.array([0, None, 1], object), r"mixed or missing values \(NoneType, int\)"),
        (np.array(["a", 1, 2.5], object), r"mixed or missing values \(float, int, str\)"),
        (np.array([0, 1, 2], complex), "labels are of type complex128"),
        (np.array(["2020-01-01"] * 3, "M8[D]"), "labels are of type datetime64"),
        (np.full((6, 3), 1 / 3), "not one-hot"),
        (np.ones((6, 2)), "not one-hot"),
        (np.zeros((6, 2, 2)), r"labels have shape \(6, 2, 2\)"),
        (np.zeros(6, int), "hold 1 classes up to 0"),
        (["a"] * 6, "labels hold 1 classes, a"),
    ],
)
def test_labels_that_are_no_classes_are_one_line(labels, message):
    with pytest.raises(DataError, match=message) as caught:
        classes_of(labels)
    assert "\n" not in str(caught.value)


def test_labels_of_other_splits_are_numbered_alike():
    images = np.random.default_rng(0).random((60, 5))
    labels = np.array(["b", "a", "c"] * 20)
    data = Data.from_arrays(images, labels, test=(images[:4], ["c", "a", "b", "b"]))
    assert data.test.labels.tolist() == [2, 0, 1, 1]
    for test, message in (
        (["c", "a", "b", "d"], "labels of the test images hold 'd', which is no class; give a, b"),
        ([0, 1, 2, 2], "test images are numbers, those of the training images text"),
        (["a", "b", "b", "a"], "test labels hold 2 classes up to 1, none of class 2"),
    ):
        with pytest.raises(DataError, match=message):
            Data.from_arrays(images, labels, test=(images[:4], test))


@pytest.mark.parametrize("largest", [3_000_000, 10**15])
def test_large_labels_take_no_memory(largest):
    images = np.random.default_rng(0).random((60, 8))
    tracemalloc.start()
    data = Data.from_arrays(images, np.where(np.arange(60) < 30, 0, largest))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert data.class_names == ("0", str(largest))
    assert peak < 2**20


def test_classes_of_a_recipe_are_the_labels_of_the_file(tmp_path):
    images = np.arange(60.0)[:, None] + np.zeros(4)
    np.savez(tmp_path / "own.npz", images=images / 60, labels=np.arange(60) % 3 + 1)
    spec = {"name": "arrays", "file": str(tmp_path / "own.npz")}
    data = load_data(DataSpec(classes=(3, 1), **spec))
    assert data.class_names == ("3", "1")
    rows = (data.pool.images[:, 0, 0, 0] * 60).round().long() % 3 + 1
    assert rows.tolist() == [(3, 1)[label] for label in data.pool.labels]
    with pytest.raises(DataError, match=r"own\.npz has the classes \[1, 2, 3\]"):
        load_data(DataSpec(classes=(0, 1), **spec))


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ([np.int64(0), np.int64(1)], [0, 1]),
        ([torch.tensor(0), torch.tensor(1)], [0, 1]),
        ([b"ant", b"bee"], ["ant", "bee"]),
    ],
)
def test_objects_are_read_for_what_they_hold(labels, expected):
    column = np.empty(2, dtype=object)
    for index, label in enumerate(labels):
        column[index] = label
    assert (
        plain_labels(as_array(column, what="labels"), count=2, what="images").tolist() == expected
    )


def test_numbers_beside_text_are_refused():
    with pytest.raises(DataError, match=r"mixed or missing values \(int, str\)"):
        plain_labels(as_array(["a", 1], what="labels"), count=2, what="images")


@pytest.mark.parametrize(("dtype", "bits"), [(np.float16, 11), (np.float32, 24)])
def test_floats_past_what_their_type_tells_apart_are_refused(dtype, bits):
    assert dtype(2**bits) == dtype(2**bits + 1)
    with pytest.raises(DataError, match=rf"below 2\*\*{bits}"):
        plain_labels(np.array([0, 2**bits + 1], dtype=dtype), count=2, what="images")
