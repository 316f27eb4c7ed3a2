"""The journal of a run's jobs: what was meant, sent, read and paid, and nothing ever taken back.

`journal.jsonl` in the run folder, one JSON object a line, appended and synced to the disk:

- ``intent``, before a job is sent: key, part, attempt, a tag that no other job has, the digest of
  what is sent, its sizes and the QPU seconds expected;
- ``submitted``: the job's id;
- ``finished``: digest of its counts, which lie in ``jobs/KEY.safetensors``, and QPU seconds;
- ``failed``: what the job ended with, and QPU seconds; ``abandoned``: it was never accepted;
- ``usage``: QPU seconds that the service reported later; ``duplicate``: a second job of one tag;
- ``session``: one opened or closed.

Each line ends with a checksum. A last line that was cut short by a crash is dropped: what it held
is requested of the service again. Every other damage is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qkd_qiskit.errors import CheckpointError, InputError, StorageError
from qkd_qiskit.storage import (
    load_tensors,
    save_tensors,
    sync_folder,
    take_lock,
    tensor_digest,
)
from qkd_qiskit.targets.ibm.job_records import (
    JOURNAL,
    JobRecord,
    Records,
    Totals,
    format_line,
    read_journal,
    read_lines,
)

__all__ = ["JobRecord", "Journal", "Records", "Totals", "check_key", "read_journal"]

LOCK, RESULTS = "journal.lock", "jobs"

_KEY = re.compile(r"[\w=-][\w.=-]*(/[\w=-][\w.=-]*)*")


class Journal(Records):
    """The journal of a run folder, open for writing by this process alone."""

    def __init__(self, folder: str | Path) -> None:
        """Open or begin the journal, and drop a last line that was cut short.

        Raises:
            CheckpointError: Another process works on the run, or the journal is damaged.
            StorageError: It cannot be written.
        """
        super().__init__()
        self.folder = Path(folder)
        self.path = self.folder / JOURNAL
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = take_lock(self.folder / LOCK)
        except OSError as error:
            raise StorageError(
                f"cannot write in {self.folder}: {error.strerror or error}"
            ) from None
        try:
            whole = read_lines(self.path, self)
            self._file = self.path.open("ab", buffering=0)
            self._file.truncate(whole)
            sync_folder(self.folder)
        except OSError as error:
            os.close(self._lock)
            raise StorageError(f"cannot write {self.path}: {error.strerror or error}") from None
        except CheckpointError:
            os.close(self._lock)
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process work on the run."""
        self._file.close()
        with contextlib.suppress(OSError):
            os.close(self._lock)

    def append(self, event: str, **content: Any) -> None:
        """Write one line, and return when it is on the disk.

        Raises:
            StorageError: It could not be written; the journal is as it was.
        """
        time = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        entry = {"event": event, "time": time, **content}
        before = self._file.seek(0, os.SEEK_END)
        try:
            _write_all(self._file, format_line(entry))
            os.fsync(self._file.fileno())
        except OSError as error:
            with contextlib.suppress(OSError):
                self._file.truncate(before)
            raise StorageError(
                f"cannot write {self.path}: {error.strerror or error}; make room and go on"
            ) from None
        self.apply(entry)

    def intend(self, record: JobRecord) -> JobRecord:
        """Write down what will be sent, before it is."""
        self.append("intent", **record.intent)
        return record

    def save_counts(self, record: JobRecord, counts: Sequence[NDArray[np.int64]]) -> str:
        """Write a job's counts to the disk and return their digest.

        Raises:
            StorageError: They could not be written.
        """
        tensors = {f"pub_{index:03d}": torch.from_numpy(rows) for index, rows in enumerate(counts)}
        save_tensors(self.result_path(record), tensors, metadata={"digest": record.digest})
        return tensor_digest(tensors)

    def load_counts(self, record: JobRecord) -> list[NDArray[np.int64]] | None:
        """Return a finished job's counts, or None where they are missing or damaged."""
        try:
            tensors, _ = load_tensors(self.result_path(record))
        except CheckpointError:
            return None
        if tensor_digest(tensors) != record.result:
            return None
        return [tensors[name].numpy() for name in sorted(tensors)]

    def result_path(self, record: JobRecord) -> Path:
        """Return the file of a job's counts."""
        part = "" if record.parts == 1 else f".part{record.part}"
        return self.folder / RESULTS / f"{record.key}{part}.safetensors"


def check_key(key: str) -> None:
    """Check that a key can name a file.

    Raises:
        InputError: It cannot.
    """
    if not _KEY.fullmatch(key) or len(key) > 200:
        raise InputError(
            f"job key {key!r} is not accepted; give letters, digits, '_', '-', '=', '.' and '/', "
            "for example train/000012"
        )


def _write_all(file: Any, data: bytes) -> None:
    while data:
        data = data[file.write(data) :]
