"""Data as users hold it: torch, pandas, data sets, data loaders and other people's .npz files."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from qkd_qiskit.data.arrays import file_digest, read_arrays
from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec

RNG = np.random.default_rng(0)
FEATURES = RNG.random((60, 4)).astype(np.float32)
LABELS = np.arange(60) % 3
EXPECTED = Data.from_arrays(FEATURES, LABELS).fingerprint


class Rows(Dataset):
    """A data set of pairs of numpy rows and plain numbers."""

    def __init__(self, fail_at=None):
        self.fail_at = fail_at

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        if index == self.fail_at:
            raise SystemExit(4)
        return FEATURES[index], int(LABELS[index])


class Named(Rows):
    classes = ("ant", "bee", "cat")


class Stream(IterableDataset):
    def __iter__(self):
        return zip(FEATURES, LABELS, strict=True)


TENSORS = TensorDataset(torch.from_numpy(FEATURES), torch.from_numpy(LABELS))


@pytest.mark.parametrize(
    "given",
    [
        (FEATURES, LABELS),
        [FEATURES.tolist(), LABELS.tolist()],
        (torch.from_numpy(FEATURES).requires_grad_(), torch.from_numpy(LABELS)),
        (torch.from_numpy(FEATURES).double(), torch.from_numpy(LABELS).float()),
        TENSORS,
        Rows(),
        Stream(),
        DataLoader(TENSORS, batch_size=7),
        DataLoader(TENSORS, batch_size=7, shuffle=True, drop_last=True),
        DataLoader(Rows(), batch_size=None),
        DataLoader(Stream(), batch_size=7),
    ],
)
def test_every_container_holds_the_same_data(given):
    before = torch.random.get_rng_state()
    assert Data.from_arrays(given).fingerprint == EXPECTED
    assert torch.equal(torch.random.get_rng_state(), before) or isinstance(given, DataLoader)


def test_half_precision_is_read():
    values = torch.tensor(FEATURES).bfloat16()
    data = Data.from_arrays(values, LABELS)
    assert data.fingerprint == Data.from_arrays(values.float(), LABELS).fingerprint


def test_pandas_is_asked_for_its_numbers():
    class Frame:  # as a DataFrame or a Series, which need not be installed
        def __init__(self, values):
            self.values = values

        def to_numpy(self):
            return self.values

    data = Data.from_arrays(Frame(FEATURES.astype(object)), Frame(LABELS.astype(object)))
    assert data.fingerprint == EXPECTED


def test_pandas_frames_are_read():
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(FEATURES)
    names = pandas.Series(LABELS).map({0: "ant", 1: "bee", 2: "cat"})
    for labels in (names, names.astype("category"), names.to_frame()):
        data = Data.from_arrays(frame, labels)
        assert data.class_names == ("ant", "bee", "cat")
        assert data.fingerprint == EXPECTED
    nullable = pandas.Series(LABELS, dtype="Int64")
    assert Data.from_arrays(frame, nullable).fingerprint == EXPECTED
    nullable[3] = None
    with pytest.raises(DataError, match=r"labels (hold NaN|are of mixed)"):
        Data.from_arrays(frame, nullable)
    with pytest.raises(DataError, match="leave out the columns of text"):
        Data.from_arrays(frame.assign(name="x"), LABELS)


def test_class_names_of_a_data_set_are_kept():
    assert Data.from_arrays(Named()).class_names == Named.classes
    assert Data.from_arrays(DataLoader(Named())).class_names == Named.classes
    names = ("x", "y", "z")
    assert Data.from_arrays(Named(), class_names=names).class_names == names


def test_a_sampler_chooses_the_images():
    subset = Subset(TENSORS, range(30))
    expected = Data.from_arrays(FEATURES[:30], LABELS[:30]).fingerprint
    assert Data.from_arrays(subset).fingerprint == expected
    loader = DataLoader(TENSORS, sampler=range(30), batch_size=4)
    assert Data.from_arrays(loader).fingerprint == expected


def test_splits_of_ones_own_are_kept():
    validation, test = (FEATURES[:5], LABELS[:5]), TensorDataset(*TENSORS[6:12])
    data = Data.from_arrays(FEATURES[20:], LABELS[20:], validation=validation, test=test)
    assert [len(part) for part in (data.pool, data.validation, data.test)] == [40, 5, 6]
    assert np.array_equal(data.pool.images[:, 0, 0], FEATURES[20:])
    assert data.validation.labels.tolist() == LABELS[:5].tolist()
    held_out = Data.from_arrays(FEATURES, LABELS, validation=validation)
    assert [len(part) for part in (held_out.pool, held_out.test)] == [39, 21]
    with pytest.raises(DataError, match=r"validation_fraction is 0\.3, but the data has"):
        Data.from_arrays(FEATURES, LABELS, validation=validation, validation_fraction=0.3)
    with pytest.raises(DataError, match="validation images have shape"):
        Data.from_arrays(FEATURES, LABELS, validation=(FEATURES[:, :2], LABELS))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (FEATURES, r"the images are a ndarray without labels; give \(images, labels\), or a torch"),
        (Rows(fail_at=3), r"the Rows of images cannot be read \(SystemExit: 4\)"),
        (DataLoader(Rows(fail_at=3)), "the DataLoader of images cannot be read"),
        (TensorDataset(torch.zeros(3, 2)), "gives a tuple that is no pair"),
        (TensorDataset(*[torch.zeros(0, 2)] * 2), "the TensorDataset of images is empty"),
        (([[1, 2], [3]], [0, 1]), "images are a list that is no array .*rows of equal length"),
    ],
)
def test_what_holds_no_images_and_labels_is_one_line(given, message):
    with pytest.raises(DataError, match=message) as caught:
        Data.from_arrays(given)
    assert "\n" not in str(caught.value)


def split_arrays(count, seed, channels=3):
    rng = np.random.default_rng(seed)
    shape = (count, 8, 8, channels)
    return rng.integers(0, 256, shape, dtype=np.uint8), (np.arange(count) % 3).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    def save(**content):
        np.savez(tmp_path / "own.npz", **content)
        return DataSpec(name="arrays", file=str(tmp_path / "own.npz"))

    return save


@pytest.mark.parametrize(
    "names",
    [
        ("train_images", "train_labels", "val_images", "val_labels", "test_images", "test_labels"),
        ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test"),
        ("X_train", "Y_train", "X_val", "Y_val", "X_test", "Y_test"),
        ("X", "y", "validation_images", "validation_labels", "X_test", "y_test"),
    ],
)
def test_files_of_medmnist_and_keras_are_read(names, write):
    parts = [split_arrays(count, seed) for seed, count in enumerate((30, 9, 12))]
    columns = [part for images, labels in parts for part in (images, labels[:, None])]
    spec = write(**dict(zip(names, columns, strict=True)))
    data = load_data(spec)
    assert data.image_shape == (3, 8, 8)
    for split, (images, labels) in zip((data.pool, data.validation, data.test), parts, strict=True):
        expected = images.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255)
        assert np.array_equal(split.images, expected)
        assert split.labels.tolist() == labels.tolist()
    chosen = load_data(dataclasses.replace(spec, classes=(2, 0)))
    assert [len(part) for part in (chosen.pool, chosen.validation, chosen.test)] == [20, 6, 8]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"X": FEATURES, "images": FEATURES, "y": LABELS}, "holds X, images, y; write it with"),
        ({"X": FEATURES, "y": LABELS, "val_images": FEATURES}, "holds X, y, val_images; write"),
        ({"X": FEATURES, "y": LABELS.astype(object)}, "but of pickled objects; write it with"),
    ],
)
def test_files_that_are_not_clear_are_one_line(content, message, write):
    with pytest.raises(DataError, match=message) as caught:
        load_data(write(**content))
    assert "\n" not in str(caught.value)


def test_a_null_byte_in_a_path_is_one_line():
    for read in (read_arrays, file_digest):
        with pytest.raises(DataError, match=r"data\.file: .*; write it with"):
            read("a\0b.npz")


IMAGES = RNG.random((60, 3, 6, 5)).astype(np.float32)
COLOURED = TensorDataset(torch.from_numpy(IMAGES), torch.from_numpy(LABELS))


class OneHot(Dataset):
    def __len__(self):
        return len(LABELS)

    def __getitem__(self, index):
        return IMAGES[index], np.eye(3)[LABELS[index]]


@pytest.mark.parametrize("given", [COLOURED, Subset(COLOURED, range(60)), OneHot()])
def test_images_of_a_data_set_keep_their_shape(given):
    data = Data.from_arrays(given)
    assert data.image_shape == (3, 6, 5)
    assert data.fingerprint == Data.from_arrays(IMAGES, LABELS).fingerprint


def test_a_sampler_of_some_images_is_kept_to():
    sampler = torch.utils.data.RandomSampler(TENSORS, num_samples=30)
    data = Data.from_arrays(DataLoader(TENSORS, batch_size=10, sampler=sampler))
    assert len(data.pool) + len(data.validation) + len(data.test) == 30


def test_a_data_set_of_dictionaries_is_one_line():
    class Named(Rows):
        def __getitem__(self, index):
            return {"image": FEATURES[index], "label": LABELS[index]}

    with pytest.raises(DataError, match="the Named of images gives a dict that is no pair"):
        Data.from_arrays(Named())


@pytest.mark.parametrize("part", ["images", "labels"])
def test_masked_values_are_not_read(part):
    given = {"images": FEATURES, "labels": LABELS}
    given[part] = np.ma.masked_array(given[part], given[part] == given[part].flat[0])
    with pytest.raises(DataError, match=f"{part} are a masked array that hides"):
        Data.from_arrays(**given)


def test_an_array_of_arrays_is_stacked():
    column = np.empty(60, dtype=object)
    column[:] = list((FEATURES * 255).astype(np.uint8))
    expected = Data.from_arrays((FEATURES * 255).astype(np.uint8), LABELS)
    assert Data.from_arrays(column, LABELS).fingerprint == expected.fingerprint


def test_a_sparse_matrix_is_read():
    sparse = pytest.importorskip("scipy.sparse")
    assert Data.from_arrays(sparse.csr_matrix(FEATURES), LABELS).fingerprint == EXPECTED


def test_pandas_categories_keep_their_order_and_rows_theirs():
    pandas = pytest.importorskip("pandas")
    names = np.array(["low", "mid", "high"])[LABELS]
    order = pandas.CategoricalDtype(["low", "none", "mid", "high"], ordered=True)
    frame, labels = pandas.DataFrame(FEATURES), pandas.Series(names, dtype=order)
    data = Data.from_arrays(frame, labels)
    assert data.class_names == ("low", "mid", "high")
    assert torch.equal(data.pool.labels, Data.from_arrays(FEATURES, LABELS).pool.labels)
    with pytest.raises(DataError, match="those of the images in another order"):
        Data.from_arrays(frame, labels[::-1])
    later = labels.set_axis(range(100, 160))  # another table, in the same order
    assert Data.from_arrays(frame, later).fingerprint == data.fingerprint


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"a", "b", "c"}, "give a list of text"),
        ({0: "a", 1: "b", 2: "c"}, "give a list of text"),
        ("abc", "give a list of text"),
        (3, "give a list of text"),
        (["a", None, "b"], "give a list of text"),
        (["a", "a", "b"], "give each class a name of its own"),
    ],
)
def test_class_names_that_are_no_names_are_refused(names, message):
    with pytest.raises(DataError, match=message):
        Data.from_arrays(FEATURES, LABELS, class_names=names)


@pytest.mark.parametrize("names", [np.array(["a", "b", "c"]), [b"a", b"b", b"c"], ("a", "b", "c")])
def test_class_names_of_any_sequence_are_text(names):
    assert Data.from_arrays(FEATURES, LABELS, class_names=names).class_names == ("a", "b", "c")
