import gzip
import hashlib
import os
import pickle
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torchvision import datasets
from torchvision.datasets import utils

from qkd_qiskit.data import sources
from qkd_qiskit.data.splits import load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec

FILES = list(sources.ARCHIVES["mnist"].md5)


def idx(values):
    header = bytes((0, 0, 8, values.ndim)) + np.array(values.shape, ">u4").tobytes()
    return header + values.tobytes()


def small_mnist(seed=0):
    """IDX contents of 8 training and 3 test images per class."""
    rng = np.random.default_rng(seed)
    contents = {}
    for part, per_class in (("train", 8), ("t10k", 3)):
        labels = rng.permutation(np.repeat(np.arange(10, dtype=np.uint8), per_class))
        images = rng.integers(0, 256, (len(labels), 28, 28), dtype=np.uint8)
        contents[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        contents[f"{part}-labels-idx1-ubyte.gz"] = idx(labels)
    return contents


def write_archives(folder, contents, patch):
    """Write the archives and make their MD5 sums those that are expected."""
    folder.mkdir(parents=True)
    for name in FILES:
        (folder / name).write_bytes(gzip.compress(contents[name], mtime=0))
    declare(folder, patch)


def declare(folder, patch):
    sums = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in FILES}
    patch.setitem(sources.ARCHIVES, "mnist", replace(sources.ARCHIVES["mnist"], md5=sums))
    patch.setattr(datasets.MNIST, "mirrors", ["https://one.invalid/", "https://two.invalid/"])


@pytest.fixture
def raw(tmp_path, monkeypatch):
    """A folder with the four archives of a small data set that passes for MNIST."""
    folder = tmp_path / "root" / "MNIST" / "raw"
    write_archives(folder, small_mnist(), monkeypatch)
    return folder


@pytest.fixture
def offline(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(utils, "download_url", refuse)


def load(raw, **spec):
    return load_data(DataSpec(name="mnist", root=str(raw.parents[1]), **spec))


def unpack(path):
    path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()


def test_archives_are_read_where_they_lie(raw):
    data = load(raw)
    contents = small_mnist()
    pixels = np.frombuffer(contents["t10k-images-idx3-ubyte.gz"], np.uint8, offset=16)
    expected = torch.from_numpy(pixels.reshape(30, 1, 28, 28) / np.float32(255))
    assert torch.equal(data.test.images, expected)
    labels = np.frombuffer(contents["t10k-labels-idx1-ubyte.gz"], np.uint8, offset=8)
    assert data.test.labels.tolist() == labels.tolist()
    assert len(data.pool) + len(data.validation) == 80
    assert data.class_names == tuple("0123456789")
    assert sorted(path.name for path in raw.iterdir()) == sorted(FILES)


@pytest.mark.parametrize("name", sources.ARCHIVES)
def test_what_is_expected_is_what_torchvision_expects(name):
    archives = sources.ARCHIVES[name]
    theirs = getattr(datasets, archives.name)
    assert list(archives.md5.items()) == theirs.resources
    # Theirs are called "0 - zero" and so on.
    assert list(archives.classes) == [label.split(" - ")[0] for label in theirs.classes]


def test_files_that_are_there_are_read_without_torchvision(raw):
    command = (
        "import sys; from qkd_qiskit import DataSpec, load_data; "
        f"load_data(DataSpec(name='mnist', root={str(raw.parents[1])!r})); "
        "print('torchvision' in sys.modules)"
    )
    mend = (
        "from dataclasses import replace; from qkd_qiskit.data import sources; "
        "sources.ARCHIVES['mnist'] = replace(sources.ARCHIVES['mnist'], "
        f"md5={sources.ARCHIVES['mnist'].md5!r}); "
    )
    shown = subprocess.run(
        [sys.executable, "-c", mend + command], check=True, capture_output=True, text=True
    )
    assert shown.stdout == "False\n"


def test_torchvision_reads_the_same(raw, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(raw, copy / "MNIST" / "raw")
    for name in FILES:
        unpack(copy / "MNIST" / "raw" / name)
    reference = datasets.MNIST(copy, train=False)
    data = load(raw)
    assert torch.equal((data.test.images[:, 0] * 255).round().to(torch.uint8), reference.data)
    assert torch.equal(data.test.labels, reference.targets)


def test_unpacked_files_will_do(raw, offline):
    expected = load(raw).fingerprint
    for name in FILES[1:]:
        unpack(raw / name)
    assert load(raw).fingerprint == expected


def test_root_comes_from_the_environment(raw, monkeypatch):
    expected = load(raw).fingerprint
    monkeypatch.setenv("QKD_DATA", str(raw.parents[1]))
    assert load_data(DataSpec(name="mnist")).fingerprint == expected


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["flip", "cut", "empty"])
def test_damaged_archives_are_named(raw, name, damage):
    path = raw / name
    content = path.read_bytes()
    middle = len(content) // 2
    flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
    path.write_bytes({"flip": flipped, "cut": content[:-9], "empty": b""}[damage])
    with pytest.raises(DataError, match=r"is damaged: its MD5 is not .*; delete it") as caught:
        load(raw)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("damage", ["cut", "not gzip"])
def test_archives_that_cannot_be_unpacked_are_named(raw, damage, monkeypatch):
    path = raw / FILES[0]
    content = path.read_bytes()
    path.write_bytes(content[:-20] if damage == "cut" else b"<html>" + content)
    declare(raw, monkeypatch)
    with pytest.raises(DataError, match=f"{FILES[0]} is damaged: "):
        load(raw)


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (0, lambda content: content[:-1], r"it has 62735 bytes, its header says 62736"),
        (0, lambda content: content + b"\0", r"it has 62737 bytes, its header says 62736"),
        (0, lambda content: content[:10], "it starts with 00000803, not 00000803|damaged"),
        (0, lambda content: b"", "it starts with nothing, not 00000803"),
        (0, lambda content: b"\x89PNG" + content[4:], "it starts with 89504e47"),
        (0, lambda content: idx(np.zeros((80, 14, 14), np.uint8)), "14x14, not 28x28"),
        (1, lambda content: idx(np.zeros((80, 1), np.uint8)), "00000802, not 00000801"),
        (1, lambda content: content[:-1], "it has 87 bytes, its header says 88"),
        (1, lambda content: idx(np.zeros(79, np.uint8)), "80 images, 79 labels"),
        (1, lambda content: idx(np.full(80, 10, np.uint8)), "labels up to 10"),
    ],
)
def test_unpacked_files_are_checked(raw, file, change, message, offline):
    path = raw / FILES[file]
    unpack(path)
    plain = path.with_suffix("")
    plain.write_bytes(change(plain.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        load(raw)
    assert str(raw) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_files_are_one_clear_line(tmp_path, offline):
    root = tmp_path / "nowhere" / "deep"
    with pytest.raises(DataError) as caught:
        load_data(DataSpec(name="fashion_mnist", root=str(root)))
    message = str(caught.value)
    for part in ("fashion_mnist", str(root), *FILES, "--data.root", "QKD_DATA", "no route to host"):
        assert part in message
    assert "\n" not in message
    assert list(tmp_path.iterdir()) == []


class Mirror:
    """Stands in for torchvision's download: serves archives, noisily."""

    def __init__(self, archives, *, down=()):
        self.archives, self.down, self.served = archives, down, []

    def __call__(self, url, root, *, filename, md5):
        print("100%|####|")
        assert socket.getdefaulttimeout() is not None
        Path(root, filename).write_bytes(self.archives[filename])
        if any(part in url for part in self.down):
            raise RuntimeError("File not found or corrupted.")
        self.served.append(url)


@pytest.fixture
def archives(raw):
    return {name: (raw / name).read_bytes() for name in FILES}


def test_missing_files_are_downloaded_without_a_word(raw, archives, monkeypatch, capfd):
    expected = load(raw).fingerprint
    mirror = Mirror(archives, down=["one"])
    monkeypatch.setattr(utils, "download_url", mirror)
    (raw / FILES[1]).unlink()
    unpack(raw / FILES[2])
    assert load(raw).fingerprint == expected
    assert mirror.served == [f"https://two.invalid/{FILES[1]}"]
    assert capfd.readouterr() == ("", "")
    assert socket.getdefaulttimeout() is None
    shutil.rmtree(raw.parents[1])
    assert load(raw).fingerprint == expected
    assert sorted(path.name for path in raw.iterdir()) == sorted(FILES)


def test_failed_download_leaves_nothing(raw, archives, monkeypatch, tmp_path):
    monkeypatch.setattr(utils, "download_url", Mirror(archives, down=[FILES[3]]))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    root = tmp_path / "other"
    with pytest.raises(DataError, match="not found or corrupted"):
        load_data(DataSpec(name="mnist", root=str(root)))
    assert not root.exists()


def test_a_root_that_cannot_be_written_is_found_before_downloading(raw, archives, monkeypatch):
    mirror = Mirror(archives)
    monkeypatch.setattr(utils, "download_url", mirror)
    (raw / FILES[0]).unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(DataError, match="is not a folder that can be written to"):
        load(raw)
    file = raw / FILES[1]
    with pytest.raises(DataError, match="is not a folder that can be written to"):
        load_data(DataSpec(name="mnist", root=str(file)))
    assert mirror.served == []


REAL = Path(os.environ.get("QKD_DATA") or "/nonexistent")


@pytest.mark.parametrize(
    ("name", "folder", "first_test_classes", "mean"),
    [
        ("mnist", "MNIST", ("7", "2", "1", "0", "4"), 0.1307),
        (
            "fashion_mnist",
            "FashionMNIST",
            ("Ankle boot", "Pullover", "Trouser", "Trouser", "Shirt"),
            0.2860,
        ),
    ],
)
def test_published_files(name, folder, first_test_classes, mean):
    if not (REAL / folder / "raw").is_dir():
        pytest.skip(f"QKD_DATA does not hold {folder}/raw")
    data = load_data(DataSpec(name=name))
    assert len(data.pool) + len(data.validation) == 60_000
    assert len(data.test) == 10_000
    assert data.image_shape == (1, 28, 28)
    assert tuple(data.class_names[label] for label in data.test.labels[:5]) == first_test_classes
    training = torch.cat([data.pool.images, data.validation.images])
    assert training.mean().item() == pytest.approx(mean, abs=1e-4)


@pytest.fixture
def batches(tmp_path, monkeypatch):
    """A folder with 3 training and 1 test image per class that passes for CIFAR-10."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)

    def write(name, content):
        (folder / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((folder / name).read_bytes()).hexdigest()]

    def batch(name, images):
        pixels = rng.integers(0, 256, (images, 3 * 32 * 32), dtype=np.uint8)
        return write(name, {"data": pixels, "labels": [row % 10 for row in range(images)]})

    names = ["airplane", *"bcdefghij"]
    meta = write("batches.meta", {"label_names": names})
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [batch("data_batch_1", 30)])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [batch("test_batch", 10)])
    monkeypatch.setattr(
        datasets.CIFAR10, "meta", {"filename": meta[0], "key": "label_names", "md5": meta[1]}
    )
    return folder


def test_cifar10_has_three_channels_and_keeps_its_pixels(batches):
    data = load_data(DataSpec(name="cifar10", root=str(batches.parent)))
    assert data.image_shape == (3, 32, 32)
    assert data.class_names[0] == "airplane"
    assert len(data.test) == 10
    content = pickle.loads((batches / "test_batch").read_bytes())
    expected = torch.from_numpy(content["data"].astype(np.float32) / 255).reshape(10, 3, 32, 32)
    assert torch.equal(data.test.images, expected)
    assert data.test.labels.tolist() == content["labels"]


def test_cifar10_that_is_missing_or_changed_is_refused_before_it_is_unpickled(batches):
    (batches / "test_batch").write_bytes(b"cos\nsystem\n(S'touch owned'\ntR.")
    for root in (batches.parent, batches):
        with pytest.raises(DataError, match=r"cifar10 is not whole in .*--data\.root"):
            load_data(DataSpec(name="cifar10", root=str(root)))


def test_digits_are_scikit_learns_to_the_last_bit():
    read, theirs = sources.read_digits(), load_digits()
    assert read.images.tobytes() == (theirs.images / 16.0).astype(np.float32).tobytes()
    assert (read.images.shape, read.images.dtype) == ((1797, 8, 8), np.float32)
    assert read.labels.tobytes() == theirs.target.astype(np.int64).tobytes()


def test_a_library_without_its_digits_is_named(monkeypatch):
    monkeypatch.setattr(sources.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(DataError, match="pip install --force-reinstall scikit-learn"):
        sources.read_digits()
