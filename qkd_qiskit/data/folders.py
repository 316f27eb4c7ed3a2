"""Pictures of your own: a folder for each class, read as bytes of one size.

    ROOT/CLASS/*.png                                    a third is held out for the test
    ROOT/train/CLASS/*.png, ROOT/test/CLASS/*.png       and perhaps ROOT/validation/CLASS/*.png
    ROOT/unlabelled/*.png                               beside either: pictures of no known class

Classes are in the order of their names, of their numbers where all names are numbers. What is no
picture by its ending, and what begins with a dot, is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageOps

from qkd_qiskit.data.images import resized
from qkd_qiskit.data.sources import Source
from qkd_qiskit.errors import DataError, first_line
from qkd_qiskit.storage import user_path

logger = logging.getLogger(__name__)

ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
_SPLITS = {
    "train": "train",
    "training": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}
_UNLABELLED = ("unlabelled", "unlabeled")
_GREY = ("1", "L", "LA")
_COLOUR = ("P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB")
_SIDEWAYS, _ORIENTATION = (5, 6, 7, 8), 0x0112  # of EXIF: cameras write turned pictures
_HOW = "give ROOT/CLASS/*.png, or ROOT/train/CLASS/*.png and ROOT/test/CLASS/*.png"

Pictures = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]
Files = Mapping[str, list[Path]]
"""The pictures of each class, by its name."""


@dataclass
class _Digest:
    """SHA-256 of names and contents, in the order of the names."""

    hash: hashlib._Hash = field(default_factory=hashlib.sha256)

    def add(self, path: Path, content: bytes, *, root: Path) -> None:
        name = path.relative_to(root).as_posix().encode()
        self.hash.update(b"%d %s %d\n" % (len(name), name, len(content)))
        self.hash.update(content)


def read_folder(
    root: str | Path,
    *,
    size: tuple[int, int] | None = None,
    channels: Literal["grey", "rgb"] | None = None,
    digest: str | None = None,
) -> Source:
    """Return the pictures of a folder as bytes (N, channels, height, width).

    Args:
        root: Folder of the classes, or of train, test and perhaps validation, which hold them.
        size: Height and width that they are brought to; None = all have one size.
        channels: grey or rgb; None = grey where all of them are, else rgb.
        digest: SHA-256 that they must have, as `folder_digest` gives it; None = any.

    Raises:
        DataError: There is no such folder, no or one class, a class without pictures, one that
            cannot be read, or they have different sizes or have changed.
    """
    root = user_path(root)
    splits, unlabelled = _splits(root), _unlabelled(root)
    files = [path for classes in splits.values() for paths in classes.values() for path in paths]
    files += unlabelled
    headers = {path: _header(path) for path in files}
    if size is None:
        size = _common_size(headers)
    grey = (
        all(header.grey for header in headers.values()) if channels is None else channels == "grey"
    )
    seen, names = _Digest(), list(splits["train"])
    read = {
        split: _read(
            classes, names, size=size, grey=grey, keep=lambda *it: seen.add(*it, root=root)
        )
        for split, classes in (splits | {"unlabelled": {names[0]: unlabelled}}).items()
    }
    if digest is not None and seen.hash.hexdigest() != digest:
        raise DataError(
            f"data.root: pictures in {root} have changed since the run began (data.digest); bring "
            "the old ones back, or start a new run with data.digest null"
        )
    return Source(
        *read["train"],
        read.get("test"),
        tuple(names),
        validation=read.get("validation"),
        labels_given=_numbers(names),
        unlabelled=read["unlabelled"][0] if unlabelled else None,
    )


def folder_digest(root: str | Path) -> str:
    """Return the SHA-256 of the pictures that `read_folder` reads, and of their names.

    Raises:
        DataError: As `read_folder`, for what can be seen without looking into the pictures.
    """
    root, seen = user_path(root), _Digest()
    for files in (*_splits(root).values(), {"": _unlabelled(root)}):
        for path in (path for paths in files.values() for path in paths):
            seen.add(path, _content(path), root=root)
    return seen.hash.hexdigest()


def _unlabelled(root: Path) -> list[Path]:
    """Return the pictures of no known class."""
    folders = [it for it in _folders(root) if it.name.lower() in _UNLABELLED]
    pictures = [path for folder in folders for path in _pictures(folder)]
    if folders and not pictures:
        raise DataError(
            f"data.root: {folders[0]} holds no pictures ({', '.join(ENDINGS)}), which it should "
            "without folders for classes; fill or remove it"
        )
    return pictures


def _splits(root: Path) -> dict[str, Files]:
    """Return the pictures of each split by class, train first."""
    folders = [it for it in _folders(root) if it.name.lower() not in _UNLABELLED]
    if not folders:
        held = "pictures and no folders" if _pictures(root) else "no folders"
        raise DataError(f"data.root: {root} holds {held}; {_HOW}")
    given = {_SPLITS.get(folder.name.lower(), folder.name): folder for folder in folders}
    if (
        "train" not in given
        or not set(given) <= set(_SPLITS.values())
        or not _folders(given["train"])
    ):
        return {"train": _classes(folders, root)}
    found: dict[str, Files] = {
        split: _classes(_folders(given[split]), given[split])
        for split in ("train", "validation", "test")
        if split in given
    }
    for split, files in found.items():
        strange = sorted(set(files) - set(found["train"]))
        missing = sorted(set(found["train"]) - set(files)) if split == "test" else []
        if strange or missing:
            raise DataError(
                f"data.root: {given[split]} has {'no ' if missing else ''}class "
                f"{(strange or missing)[0]!r}, {given['train']} has {'it' if missing else 'none'}; "
                "give folders of the same classes in both"
            )
    return found


def _classes(folders: list[Path], root: Path) -> Files:
    if len(folders) < 2:
        held = f"one class, {folders[0].name!r}" if folders else "no classes"
        raise DataError(f"data.root: {root} holds {held}; give a folder for each of two or more")
    names = [folder.name for folder in folders]
    if all(name.isdecimal() for name in names):
        folders = sorted(folders, key=lambda folder: int(folder.name))
    files = {folder.name: _pictures(folder) for folder in folders}
    empty = next((folder for folder in folders if not files[folder.name]), None)
    if empty is not None:
        raise DataError(
            f"data.root: {empty} holds no pictures ({', '.join(ENDINGS)}); fill or remove it"
        )
    return files


def _numbers(names: list[str]) -> tuple[int, ...] | None:
    """Return what data.classes calls the classes, where it is numbers but not 0, 1, ..."""
    if not all(name.isdecimal() for name in names):
        return None
    numbers = tuple(map(int, names))
    return None if numbers == tuple(range(len(names))) else numbers


def _folders(folder: Path) -> list[Path]:
    return [entry for entry in _entries(folder) if entry.is_dir()]


def _pictures(folder: Path) -> list[Path]:
    entries = _entries(folder)
    pictures = [it for it in entries if it.suffix.lower() in ENDINGS and it.is_file()]
    others = [it for it in entries if it not in pictures and it.is_file()] if pictures else []
    if others:
        logger.warning(
            "%s: %d files that are no pictures by their ending are passed over, such as %s",
            folder,
            len(others),
            others[0].name,
        )
    return pictures


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(f"data.root: {folder} cannot be read: {reason}; {_HOW}") from error


@dataclass(frozen=True)
class _Header:
    """What a picture says of itself before its pixels are read.

    Attributes:
        size: Height and width, as it is to be looked at.
        grey: Whether it has no colours.
    """

    size: tuple[int, int]
    grey: bool


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"data.root: {path} cannot be read as a picture ({first_line(error)}); mend or "
            "remove it"
        ) from error


def _header(path: Path) -> _Header:
    with _readable(path), Image.open(path) as picture:
        mode, (width, height) = picture.mode, picture.size
        turned = picture.getexif().get(_ORIENTATION) in _SIDEWAYS
    if mode not in (*_GREY, *_COLOUR):
        raise DataError(
            f"data.root: {path} has pixels of more than 8 bits (mode {mode}); save it with 8, or "
            "give its numbers as an array: data.name arrays"
        )
    return _Header((width, height) if turned else (height, width), mode in _GREY)


def _common_size(headers: Mapping[Path, _Header]) -> tuple[int, int]:
    first, *others = headers.items()
    size = first[1].size
    for path, header in others:
        if header.size != size:
            raise DataError(
                f"data.root: {first[0]} is {size[0]}x{size[1]}, {path} "
                f"{header.size[0]}x{header.size[1]}; give data.size, such as 32, to bring all "
                "pictures to one size"
            )
    return size


def _read(
    files: Files,
    names: list[str],
    *,
    size: tuple[int, int],
    grey: bool,
    keep: Callable[[Path, bytes], None],
) -> Pictures:
    """Return the pictures of a split and their classes, the position of each among `names`."""
    paths = [(path, names.index(name)) for name, its in files.items() for path in its]
    shape = len(paths), 1 if grey else 3, *size
    try:
        pictures: npt.NDArray[np.uint8] = np.empty(shape, np.uint8)
    except MemoryError as error:
        raise DataError(
            f"data.root: {len(paths)} pictures of {size[0]}x{size[1]} do not fit into memory; give "
            "a smaller data.size"
        ) from error
    for place, (path, _) in enumerate(paths):
        content = _content(path)
        keep(path, content)
        pictures[place] = _pixels(path, content, size=size, grey=grey)
    return pictures, np.array([label for _, label in paths], np.int64)


def _content(path: Path) -> bytes:
    with _readable(path):
        return path.read_bytes()


def _pixels(
    path: Path, content: bytes, *, size: tuple[int, int], grey: bool
) -> npt.NDArray[np.uint8]:
    """Return a picture (channels, height, width), turned as its camera meant it."""
    with _readable(path), Image.open(io.BytesIO(content)) as opened:
        # A palette with transparent entries goes by way of RGBA, which says so.
        whole = opened.convert("RGBA") if "transparency" in opened.info else opened
        picture = ImageOps.exif_transpose(whole).convert("L" if grey else "RGB")
        pixels = np.array(picture, np.uint8)
    channels = pixels[None] if grey else np.ascontiguousarray(pixels.transpose(2, 0, 1))
    made: npt.NDArray[np.uint8] = resized(torch.from_numpy(channels)[None], size)[0].numpy()
    return made
