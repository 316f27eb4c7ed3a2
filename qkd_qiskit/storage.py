"""Files that are either whole or not there: atomic writes, and tensors with a checksum.

Everything a run or a cache keeps goes through `write_atomic`: a killed process or a full disk
leaves the old file as it was. Tensors are kept as safetensors, never as pickles, which can run
code when they are read.

`compute_once` keeps tensors on disk by what they were computed from, in $QKD_CACHE, else
~/.cache/qkd_qiskit; that folder may be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from qkd_qiskit.errors import CheckpointError, InputError, StorageError, first_line

logger = logging.getLogger(__name__)

Tensors = dict[str, torch.Tensor]
CacheFolder = str | Path | Literal[False] | None

_CHECKSUM = "sha256"
_TEMPORARY = ".tmp"
_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Put a whole new file at `path`, or leave what was there.

    Args:
        path: Where the file goes; missing folders above it are made.
        write: Writes the content to the path it is given, a new file in the same folder.

    Raises:
        StorageError: The file could not be written; an older one at `path` is untouched.
    """
    path = Path(path)
    # Not tempfile: its files are private to the user (0600) and would stay so after the rename.
    temporary = path.with_name(
        f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}{_TEMPORARY}"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        with temporary.open("rb+") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StorageError(
            f"cannot write {path}: {error.strerror or error}; what was there before is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left of files in a folder that nobody writes to any more."""
    for temporary in folder.rglob(f".*{_TEMPORARY}"):
        with contextlib.suppress(OSError):
            temporary.unlink()


def sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut, where the system can (Windows cannot)."""
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text with `write_atomic`.

    Raises:
        StorageError: The file could not be written; an older one at `path` is untouched.
    """
    write_atomic(path, lambda new: new.write_bytes(text.encode()))


def tensor_digest(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes, whatever the order of the mapping."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        if tensor.numel():  # bytes of an empty tensor cannot be viewed
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_tensors(
    path: str | Path,
    tensors: Mapping[str, torch.Tensor],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors and text metadata as one safetensors file, atomically and with a checksum.

    Raises:
        StorageError: The file could not be written; an older one at `path` is untouched.
    """
    # A copy of each: safetensors refuses tensors that share memory, such as tied weights.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {**(metadata or {}), _CHECKSUM: tensor_digest(copies)}

    def write(new: Path) -> None:
        try:
            save_file(copies, new, metadata=header)
        except SafetensorError as error:
            raise OSError(str(error)) from error

    write_atomic(path, write)


def load_tensors(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Read a safetensors file: its tensors on the CPU, and its metadata.

    A checksum that `save_tensors` left is verified; files from elsewhere need none.

    Raises:
        CheckpointError: The file is missing, a pickle, truncated or damaged.
    """
    path = Path(path)
    _refuse_other_formats(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            # A copy: the tensors that safetensors gives read from the mapped file when used.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a whole safetensors file ({first_line(error)}); "
            "it is damaged or cut short: write it again or give another file"
        ) from error
    checksum = metadata.pop(_CHECKSUM, None)
    if checksum is not None and checksum != tensor_digest(tensors):
        raise CheckpointError(
            f"{path} is damaged: its tensors do not match the SHA-256 in its header; "
            "write it again or give another file"
        )
    return tensors, metadata


def _refuse_other_formats(path: Path) -> None:
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder; give a safetensors file")
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise CheckpointError(
            f"cannot read {path}: {error.strerror or error}; give a safetensors file"
        ) from error
    if not start:
        raise CheckpointError(f"{path} is empty; give a safetensors file")
    # torch.save writes a zip archive, and before that a bare pickle.
    if start.startswith(b"PK") or (start[:1] == b"\x80" and start[8:] != b"{"):
        raise CheckpointError(
            f"{path} is a pickle or torch.save file, which can run code when it is read; "
            "convert it once with safetensors.torch.save_file(model.state_dict(), path)"
        )


def user_path(path: str | Path) -> Path:
    """Return a path that a user typed, with the home folder in the place of ~.

    Raises:
        InputError: It begins with ~ and the name of no user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise InputError(f"{path} begins with the home folder of nobody; give a folder") from error


def absolute_path(path: str | None) -> str | None:
    """Return a path that a user typed as it is understood from any folder; None stays None."""
    return None if path is None else str(user_path(path).absolute())


def sha256_of(path: str | Path) -> str:
    """Return the SHA-256 of a file.

    Raises:
        OSError: It cannot be read.
        ValueError: There is a null byte in the path.
    """
    with Path(path).open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def cache_path(kind: str, key: str, *, cache: CacheFolder = None) -> Path | None:
    """Return where `compute_once` keeps its result; None where it keeps nothing."""
    if cache is False:
        return None
    if cache is not None and not isinstance(cache, str | Path):
        raise InputError(f"cache is {cache!r}; give a folder, None or False")
    folder = user_path(cache or os.environ.get("QKD_CACHE") or "~/.cache/qkd_qiskit")
    return folder / kind / f"{hashlib.sha256(key.encode()).hexdigest()}.safetensors"


def compute_once(
    kind: str,
    key: str,
    *,
    compute: Callable[[], Tensors],
    check: Callable[[Tensors], None],
    cache: CacheFolder = None,
) -> Tensors:
    """Return what `compute` gives, from disk where it was kept under the same key.

    Args:
        kind: Folder inside the cache, and the word for it in warnings.
        key: All that the result depends on.
        compute: Makes the tensors.
        check: Raises an InputError for tensors that cannot be the result; they are made again, as
            those of a damaged file are.
        cache: Folder; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False = keep nothing. One that
            cannot be written to costs a warning.
    """
    path = cache_path(kind, key, cache=cache)
    if path is None:
        return compute()
    try:
        if path.exists():
            tensors, _ = load_tensors(path)
            check(tensors)
            return tensors
    except (InputError, OSError) as error:
        logger.warning("computing %s again, what the cache holds is no good: %s", kind, error)
    tensors = compute()
    try:
        save_tensors(path, tensors)
    except StorageError as error:
        logger.warning("going on without the cache, set QKD_CACHE to a folder: %s", error)
    return tensors


def take_lock(path: Path) -> int:
    """Return a file handle that holds a lock until it is closed, or the process dies.

    Raises:
        CheckpointError: Another process holds it, or this one does.
        OSError: The file cannot be opened.
    """
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            import fcntl
        except ImportError:  # Windows
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        else:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = os.fstat(handle).st_ino == path.stat().st_ino  # not one that was just taken away
    except OSError as error:
        held = error.errno in _NO_LOCKS
        if held:
            logger.warning("%s: no locks in this file system: run one process at a time", path)
    if not held:
        os.close(handle)
        raise CheckpointError(
            f"another process works on {path.parent}; wait until it has ended, or stop it"
        ) from None
    return handle
