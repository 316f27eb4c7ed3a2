"""Where images come from: scikit-learn's digits, and files as torchvision keeps them.

MNIST's archives are read as they lie, so a read-only folder that holds only the `.gz` files will
do. What a sound file is stands here as it does in torchvision, which is loaded where something is
to be downloaded: that takes 2 seconds of CPU.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import hashlib
import http.client
import importlib.util
import io
import logging
import os
import shutil
import socket
import tempfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qkd_qiskit.errors import DataError, StorageError, first_line
from qkd_qiskit.storage import user_path, write_atomic

logger = logging.getLogger(__name__)

Pixels = npt.NDArray[np.float32] | npt.NDArray[np.uint8]
_DOWNLOAD_TIMEOUT = 30.0  # seconds without an answer


@dataclass(frozen=True)
class Archives:
    """The files of a data set like MNIST.

    Attributes:
        name: What torchvision calls the data set, and the folder of its files.
        md5: MD5 sum of each archive: images and labels to train with, and to test with.
        classes: Name of each class.
    """

    name: str
    md5: Mapping[str, str]
    classes: tuple[str, ...]


ARCHIVES = {
    "mnist": Archives(
        "MNIST",
        {
            "train-images-idx3-ubyte.gz": "f68b3c2dcbeaaa9fbdd348bbdeb94873",
            "train-labels-idx1-ubyte.gz": "d53e105ee54ea40749a09fcbcd1e9432",
            "t10k-images-idx3-ubyte.gz": "9fb629c4189551a2d022fa330f9573f3",
            "t10k-labels-idx1-ubyte.gz": "ec29112dd5afa0611ce80d1b7f02629c",
        },
        tuple(str(digit) for digit in range(10)),
    ),
    "fashion_mnist": Archives(
        "FashionMNIST",
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        },
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
    ),
}


@dataclass(frozen=True)
class Source:
    """A data set as published.

    Attributes:
        images: Training images (N, height, width) or (N, channels, height, width), float32 in
            [0, 1], or bytes, which count from 0 to 255.
        labels: Their classes (N,), int64.
        test: Test images and labels of the official split, or None where there is none.
        class_names: Name of each class.
        validation: Validation images and labels of the set's own, or None.
        labels_given: The number that the set itself gives each class; None = 0, 1, ...
        teacher_logits: A teacher's logits of the training images (N, classes), or None.
        teacher_logits_test: The same of the test images of the official split.
        unlabelled: Images whose classes nobody knows, as `images`, or None.
    """

    images: Pixels
    labels: npt.NDArray[np.int64]
    test: tuple[Pixels, npt.NDArray[np.int64]] | None
    class_names: tuple[str, ...]
    validation: tuple[Pixels, npt.NDArray[np.int64]] | None = None
    labels_given: tuple[int, ...] | None = None
    teacher_logits: npt.NDArray[np.float32] | None = None
    teacher_logits_test: npt.NDArray[np.float32] | None = None
    unlabelled: Pixels | None = None


def read_digits() -> Source:
    """Return scikit-learn's 1,797 digits of 8x8 pixels, which have no official split.

    They are read from its file: to load the library takes a second of CPU.

    Raises:
        DataError: scikit-learn has no such file.
    """
    package = importlib.util.find_spec("sklearn")
    folders = [] if package is None else package.submodule_search_locations or []
    path = next((Path(folder) / "datasets" / "data" / "digits.csv.gz" for folder in folders), None)
    if path is None or not path.is_file():
        raise DataError(
            f"data.name: digits is not in scikit-learn ({path or 'which is not installed'}); "
            "install it again: pip install --force-reinstall scikit-learn"
        )
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = np.loadtxt(file, delimiter=",")
    images = (rows[:, :-1].reshape(-1, 8, 8) / 16.0).astype(np.float32)
    labels = rows[:, -1].astype(np.int64)
    return Source(images, labels, None, tuple(str(label) for label in range(10)))


def read_mnist(name: str, *, root: str | Path | None = None) -> Source:
    """Return MNIST or Fashion-MNIST: 60,000 training and 10,000 test images of 28x28 pixels.

    Args:
        name: mnist or fashion_mnist.
        root: Folder that holds MNIST/raw or FashionMNIST/raw; default: $QKD_DATA, else
            ~/.cache/qkd_qiskit/data. Files that are missing are downloaded into it.

    Raises:
        DataError: Files are missing and cannot be downloaded, or a file is damaged.
    """
    archives, root = ARCHIVES[name], data_root(root)
    folder = root / archives.name / "raw"
    missing = [
        file
        for file in archives.md5
        if not _is_file(folder / file) and not _is_file((folder / file).with_suffix(""))
    ]
    if missing:
        _download(name, root, folder, missing=missing)
    train_images, train_labels, test_images, test_labels = (
        _read_idx(folder / file, md5=md5) for file, md5 in archives.md5.items()
    )
    return Source(
        *_pair(train_images, train_labels, folder=folder, part="train"),
        _pair(test_images, test_labels, folder=folder, part="t10k"),
        archives.classes,
    )


def read_cifar10(*, root: str | Path | None = None) -> Source:
    """Return CIFAR-10: 50,000 training and 10,000 test images of 3x32x32.

    The files are not downloaded. They are pickles, which are opened only where their MD5 sums are
    those that torchvision knows.

    Args:
        root: Folder that holds cifar-10-batches-py; default as for `read_mnist`.

    Raises:
        DataError: Files are missing or are not the published ones.
    """
    from torchvision import datasets

    root = data_root(root)
    try:
        parts = [datasets.CIFAR10(root, train=train) for train in (True, False)]
    except (RuntimeError, OSError) as error:
        raise DataError(
            f"data.name: cifar10 is not whole in {root / datasets.CIFAR10.base_folder}; unpack "
            f"{datasets.CIFAR10.filename} into {root}, or name another folder with --data.root DIR "
            "or the environment variable QKD_DATA; data.name: digits needs no files"
        ) from error
    train, test = (
        (
            np.ascontiguousarray(part.data.transpose(0, 3, 1, 2)),
            np.asarray(part.targets, np.int64),
        )
        for part in parts
    )
    return Source(*train, test, tuple(parts[0].classes))


def data_root(root: str | Path | None) -> Path:
    """Return the folder of the data sets that come as files."""
    return user_path(root or os.environ.get("QKD_DATA") or "~/.cache/qkd_qiskit/data")


def _is_file(path: Path) -> bool:
    """Say no, rather than fail, where a folder may not be looked into."""
    try:
        return path.is_file()
    except OSError:
        return False


def _pair(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], *, folder: Path, part: str
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    if len(images) != len(labels) or not len(labels) or labels.max() > 9:
        raise DataError(
            f"{folder}/{part}-*: {len(images)} images, {len(labels)} labels up to "
            f"{labels.max(initial=0)}; as many of both and labels 0 to 9 are expected: "
            f"delete the {part}-* files to have them downloaded again, or replace them"
        )
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _read_idx(archive: Path, *, md5: str) -> npt.NDArray[np.uint8]:
    """Read one IDX file: the `.gz` archive where it is there, else the unpacked file."""
    path = archive if _is_file(archive) else archive.with_suffix("")
    try:
        content = path.read_bytes()
        if path == archive:
            if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
                raise _damaged(path, f"its MD5 is not {md5}")
            content = gzip.decompress(content)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise _damaged(path, str(error)) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    # Big-endian header: two zero bytes, 8 (unsigned bytes), the number of axes, then their lengths.
    axes = 3 if "images" in path.name else 1
    header = 4 + 4 * axes
    if len(content) < header or content[:4] != bytes((0, 0, 8, axes)):
        start = content[:4].hex() or "nothing"
        raise _damaged(path, f"it starts with {start}, not 000008{axes:02x}")
    shape = tuple(int(length) for length in np.frombuffer(content, ">u4", axes, offset=4))
    if axes == 3 and shape[1:] != (28, 28):
        raise _damaged(path, f"its images are {shape[1]}x{shape[2]}, not 28x28")
    expected = header + int(np.prod(shape))
    if len(content) != expected:
        raise _damaged(path, f"it has {len(content)} bytes, its header says {expected}")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is damaged: {reason}; delete it to have it downloaded again, or replace it"
    )


def _download(name: str, root: Path, folder: Path, *, missing: Sequence[str]) -> None:
    """Let torchvision fetch files; they appear in `folder` once they are whole and checked."""
    from torchvision import datasets

    archives = ARCHIVES[name]
    mirrors: list[str] = getattr(datasets, archives.name).mirrors
    try:
        _require_writable(folder)
        with tempfile.TemporaryDirectory(prefix="qkd_") as staging:
            for file in missing:
                logger.info("downloading %s of %s into %s", file, name, folder)
                _fetch(file, archives.md5[file], mirrors=mirrors, staging=staging)
            for file in missing:
                write_atomic(
                    folder / file, functools.partial(shutil.copyfile, Path(staging) / file)
                )
    except (OSError, RuntimeError, ValueError, http.client.HTTPException, StorageError) as error:
        reason = first_line(error)
        files = ", ".join(archives.md5)
        raise DataError(
            f"data.name: {name} is not in {root} and cannot be downloaded ({reason}); put {files} "
            f"into {folder}, or name the folder that holds {folder.parent.name}/raw with "
            "--data.root DIR or the environment variable QKD_DATA; data.name: digits needs no files"
        ) from error


def _fetch(file: str, md5: str, *, mirrors: list[str], staging: str) -> None:
    from torchvision.datasets.utils import download_url

    failure: Exception = RuntimeError("no mirror is known")
    for mirror in mirrors:
        try:
            with quiet_network():
                download_url(mirror + file, staging, filename=file, md5=md5)
        except (OSError, RuntimeError, http.client.HTTPException) as error:
            failure = error
        else:
            return
    raise failure


def _require_writable(folder: Path) -> None:
    """Find out before a long download, and without making folders, whether it could be kept."""
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(f"{existing} is not a folder that can be written to")


@contextlib.contextmanager
def quiet_network() -> Iterator[None]:
    """Keep torchvision's progress bar off the terminal, and give up where nothing answers."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(_DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        socket.setdefaulttimeout(before)
