"""A finished run that lost something makes it again, to the byte."""

import shutil

import pytest

from qkd_qiskit.errors import CheckpointError
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.run import resume_experiment

STUDENT = "distilled/seed_1"
FILES = [
    f"{STUDENT}/weights.safetensors",
    f"{STUDENT}/student.json",
    f"{STUDENT}/metrics.jsonl",
    f"{STUDENT}/evaluations.json",
    f"{STUDENT}/circuit.qasm",
    "result.json",
]


@pytest.fixture
def copied(finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("how", ["missing", "empty", "cut"])
@pytest.mark.parametrize("name", FILES)
def test_what_is_damaged_is_made_again(copied, finished, name, how, caplog):
    path = copied / name
    if not path.exists():
        pytest.skip("this student has no such file")
    whole = path.read_bytes()
    if how == "missing":
        path.unlink()
    else:
        path.write_bytes(b"" if how == "empty" else whole[: len(whole) // 2])
    run = resume_experiment(copied)
    if name == "result.json":
        assert run.result.arms == finished.result.arms
    else:
        assert path.read_bytes() == whole
        assert run.result.arms == finished.result.arms
    if how != "missing":
        assert "made again" in caplog.text


def test_a_run_whose_checkpoint_is_gone_too_trains_again(copied):
    weights = copied / STUDENT / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:100])
    shutil.rmtree(copied / "checkpoints")
    resume_experiment(copied)
    assert weights.read_bytes() == whole


def test_two_processes_do_not_work_on_one_run(copied):
    with (
        RunFolder.open(copied).locked(),
        pytest.raises(CheckpointError, match="another process works on"),
    ):
        resume_experiment(copied)
    resume_experiment(copied)
    assert not (copied / ".lock").exists()
