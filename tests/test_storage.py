import errno
import os
import pickle
import stat
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from qkd_qiskit.errors import CheckpointError, StorageError
from qkd_qiskit.storage import load_tensors, save_tensors, tensor_digest, write_atomic, write_text


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_write_text_makes_folders_and_leaves_nothing_else(tmp_path):
    write_text(tmp_path / "a" / "b.txt", "γ = 8\n")
    write_text(tmp_path / "a" / "b.txt", "γ = 4\n")
    assert (tmp_path / "a" / "b.txt").read_bytes() == "γ = 4\n".encode()
    assert files(tmp_path / "a") == ["b.txt"]


def test_written_files_have_the_users_permissions(tmp_path):
    (tmp_path / "plain").write_text("")
    write_text(tmp_path / "atomic", "")
    modes = {stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "atomic")}
    assert len(modes) == 1


@pytest.mark.parametrize(
    ("failure", "raised"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), StorageError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (TypeError("not text"), TypeError),
    ],
)
def test_failed_write_leaves_the_old_file_and_no_junk(tmp_path, failure, raised):
    path = tmp_path / "file"
    write_text(path, "old")

    def write(new: Path) -> None:
        new.write_text("half")
        raise failure

    with pytest.raises(raised):
        write_atomic(path, write)
    assert path.read_text() == "old"
    assert files(tmp_path) == ["file"]


def test_storage_error_names_file_and_reason(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        StorageError, match=r"cannot write .*file/inner: (Not a directory|File exi)"
    ):
        write_text(tmp_path / "file" / "inner", "")


def test_folder_in_the_way_is_a_storage_error(tmp_path):
    (tmp_path / "file").mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        write_text(tmp_path / "file", "")
    assert files(tmp_path) == ["file"]


@pytest.fixture
def small_disk():
    """Let no file grow past 2,000 bytes, as if the disk were full."""
    resource = pytest.importorskip("resource")  # not on Windows
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_full_disk_is_a_storage_error(tmp_path, small_disk):
    # safetensors has an error type of its own for it, text comes as an OSError.
    save_tensors(tmp_path / "tensors", {"a": torch.ones(10)})
    write_text(tmp_path / "text", "old")
    with pytest.raises(StorageError, match=r"cannot write .*tensors: .*File too large"):
        save_tensors(tmp_path / "tensors", {"a": torch.ones(1000)})
    with pytest.raises(StorageError, match=r"cannot write .*text: File too large"):
        write_text(tmp_path / "text", "x" * 3000)
    assert torch.equal(load_tensors(tmp_path / "tensors")[0]["a"], torch.ones(10))
    assert (tmp_path / "text").read_text() == "old"
    assert files(tmp_path) == ["tensors", "text"]


def test_tensors_come_back_whole(tmp_path):
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    tensors = {
        "weights": weights,
        "tied": weights,
        "transposed": weights.T,
        "half": weights.to(torch.bfloat16),
        "count": torch.tensor(7),
        "none": torch.zeros(0, 3),
    }
    save_tensors(tmp_path / "t.safetensors", tensors, {"kind": "mlp"})
    loaded, metadata = load_tensors(tmp_path / "t.safetensors")
    assert metadata == {"kind": "mlp"}
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(loaded[name], tensor)
        assert loaded[name].dtype == tensor.dtype
    assert tensor_digest(loaded) == tensor_digest(tensors)


def test_loaded_tensors_do_not_depend_on_the_file(tmp_path):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.arange(1000.0)})
    loaded, _ = load_tensors(path)
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(loaded["a"], torch.arange(1000.0))


def test_files_of_others_need_no_checksum(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "t.safetensors")
    tensors, metadata = load_tensors(tmp_path / "t.safetensors")
    assert torch.equal(tensors["a"], torch.ones(2))
    assert metadata == {}


def test_digest_depends_on_names_shapes_types_and_values():
    zeros = torch.zeros(2, 3)
    digests = {
        tensor_digest(tensors)
        for tensors in (
            {"a": zeros},
            {"b": zeros},
            {"a": zeros.reshape(3, 2)},
            {"a": zeros.to(torch.int32)},
            {"a": zeros + 1},
            {"a": zeros, "b": zeros},
        )
    }
    assert len(digests) == 6
    assert tensor_digest({"a": zeros, "b": zeros + 1}) == tensor_digest(
        {"b": zeros + 1, "a": zeros}
    )


def damage_header(content):
    return b"\xff" * 8 + content[8:]


def damage_tensor(content):
    return content[:-1] + bytes([content[-1] ^ 1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-5], "not a whole safetensors file"),
        (lambda content: content[:20], "not a whole safetensors file"),
        (lambda content: content[:3], "not a whole safetensors file"),
        (lambda content: b"", "is empty"),
        (damage_header, "not a whole safetensors file"),
        (damage_tensor, "do not match the SHA-256"),
    ],
)
def test_damaged_tensors_are_refused_in_one_line(tmp_path, damage, message):
    path = tmp_path / "t.safetensors"
    save_tensors(path, {"a": torch.randn(10, generator=torch.Generator().manual_seed(0))})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(CheckpointError, match=message) as caught:
        load_tensors(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


class Trap:
    """Unpickling this makes a folder."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("zipped", [True, False, None])
def test_pickles_are_refused_and_never_run(tmp_path, zipped):
    trap, path = tmp_path / "trap", tmp_path / "weights.pt"
    if zipped is None:
        path.write_bytes(pickle.dumps(Trap(trap)))
    else:
        torch.save(Trap(trap), path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(CheckpointError, match=r"is a pickle or torch\.save file"):
        load_tensors(path)
    assert not trap.exists()


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(CheckpointError, match=r"cannot read .*none: No such file"):
        load_tensors(tmp_path / "none")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_tensors(tmp_path)


def test_header_of_128_bytes_is_not_taken_for_a_pickle(tmp_path):
    # A pickle starts with byte 0x80, and so does a safetensors header of 128 (mod 256) bytes.
    path = tmp_path / "t.safetensors"
    for length in range(300):
        save_file({"a": torch.ones(1)}, path, metadata={"pad": "x" * length})
        if path.read_bytes()[0] == 0x80:
            break
    else:
        pytest.fail("no header of the wanted length")
    assert torch.equal(load_tensors(path)[0]["a"], torch.ones(1))
