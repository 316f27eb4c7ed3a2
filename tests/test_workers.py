"""Cells in other processes: the same bytes as in this one, whatever dies on the way."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from qkd_qiskit.cells import member_cells
from qkd_qiskit.errors import InputError, WorkerError
from qkd_qiskit.recipes import load_recipe
from qkd_qiskit.runs import RunFolder
from qkd_qiskit.study import run
from qkd_qiskit.workers import Workers, _run

FILES = ("weights.safetensors", "metrics.jsonl", "evaluations.json")
STUDY = {
    "arms": ["label_only", "label_only_tuned", "distilled", "replicate", "classical_twin"],
    "targets": ["exact"],
    "seeds": 3,
    "distill.selection": "last",
}


def contents(folder):
    found = {
        str(path.relative_to(folder.path)): path.read_bytes()
        for path in folder.path.rglob("*")
        if path.name in FILES or path.parent.name == "tuning"
    }
    figures = {key: folder.result[key] for key in ("arms", "comparisons", "tuning", "failed")}
    return found, figures


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """The study in this process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    folder = RunFolder.create(path, load_recipe(tiny, STUDY))
    run(folder)
    return folder


def workers_of_loky():
    from joblib.externals.loky import reusable_executor

    executor = reusable_executor._executor
    return [] if executor is None else list(executor._processes)


@pytest.fixture
def no_workers_left():
    yield
    from joblib.externals.loky import get_reusable_executor

    get_reusable_executor().shutdown(wait=True)


@pytest.mark.usefixtures("no_workers_left")
def test_processes_give_the_same_bytes_although_one_is_killed(alone, tmp_path, caplog):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    killed = []

    def kill_one():
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if any(folder.path.glob("tuning/*")) and workers_of_loky():
                killed.append(workers_of_loky()[0])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.001)

    thread = threading.Thread(target=kill_one)
    thread.start()
    run(folder, workers=Workers(jobs=2))
    thread.join()
    assert killed
    assert "a worker process died; its cells run again" in caplog.text
    assert contents(folder) == contents(alone)


@pytest.mark.slow
@pytest.mark.usefixtures("no_workers_left")
def test_workers_that_keep_dying_are_given_up(alone, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    monkeypatch.setattr("qkd_qiskit.workers._run", die)
    with pytest.raises(WorkerError, match="died 3 times without finishing a cell"):
        run(folder, workers=Workers(jobs=2))


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_without_its_owner_stops(alone, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", load_recipe_of(alone, seeds=1))
    run_teacher_only(folder, monkeypatch)
    ended = []

    def exit_now(status):
        ended.append(status)
        raise KeyboardInterrupt

    monkeypatch.setattr("os._exit", exit_now)
    (cell, *_) = member_cells(folder.recipe)
    with pytest.raises(KeyboardInterrupt):
        _run(folder.path, cell, owner=os.getppid() + 1)
    assert ended == [1]
    _run(folder.path, cell, owner=os.getppid())
    assert ended == [1]
    assert (folder.member("distilled", 0) / "weights.safetensors").exists()


def load_recipe_of(folder, **changes):
    from dataclasses import replace

    return replace(folder.recipe, arms=("label_only", "distilled"), **changes)


def run_teacher_only(folder, monkeypatch):
    class Enough(Exception):
        pass

    def enough(*_, **__):
        raise Enough

    with monkeypatch.context() as patch:
        patch.setattr("qkd_qiskit.study.train_cell", enough)
        with pytest.raises(Enough):
            run(folder)


@pytest.fixture
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", dashboard_address=None
    ) as found:
        yield found


@pytest.mark.filterwarnings("ignore")
def test_a_cluster_gives_the_same_bytes(alone, tmp_path, cluster):
    """Its worker runs two cells at a time in one process, which must not mix their randomness."""
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    run(folder, workers=Workers(cluster=cluster.scheduler_address))
    assert contents(folder) == contents(alone)


@pytest.mark.parametrize(
    "address", ["nonsense", "tcp://127.0.0.1", "http//x:1", "tcp://127.0.0.1:1"]
)
def test_a_cluster_that_is_not_there_is_said_first(address, alone, tmp_path, monkeypatch):
    monkeypatch.setattr("qkd_qiskit.workers.CONNECT_S", 0.5)
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    with pytest.raises(InputError, match=r"--cluster: .*dask scheduler") as caught:
        run(folder, workers=Workers(cluster=address))
    assert "\n" not in str(caught.value)
    assert not Path(folder.path, "teacher.safetensors").exists()
