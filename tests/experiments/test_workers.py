"""Tasks in other processes: the same bytes as in this one, whatever dies on the way."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from qkd_qiskit.errors import InputError, WorkerError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import training_tasks
from qkd_qiskit.experiments.workers import Workers, _run
from qkd_qiskit.recipe.parsing import load_recipe

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
    result = folder.result
    figures = result.arms, result.comparisons, result.tuning, result.failed
    return found, figures


@pytest.fixture(scope="module")
def alone(tiny, tmp_path_factory):
    """The study in this process."""
    path = tmp_path_factory.mktemp("alone") / "run"
    folder = RunFolder.create(path, load_recipe(tiny, STUDY))
    run(folder)
    return folder


def workers_of(process=None):
    """Return the processes that are children of our child processes."""
    children = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            pid, parent = stat.parent.name, stat.read_text().rpartition(")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(pid))
    servers = children.get(process or os.getpid(), [])
    return [worker for server in servers for worker in children.get(server, [])]


def test_processes_give_the_same_bytes_although_one_is_killed(alone, tmp_path, caplog):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    killed = []

    def kill_first():
        deadline = time.monotonic() + 120
        while not killed and time.monotonic() < deadline:
            if any(folder.path.glob("tuning/*")) and (workers := workers_of()):
                killed.append(workers[0])
                os.kill(killed[0], signal.SIGKILL)
            time.sleep(0.001)

    thread = threading.Thread(target=kill_first)
    thread.start()
    run(folder, workers=Workers(jobs=2))
    thread.join()
    assert killed
    assert "a worker process died; its tasks run again" in caplog.text
    assert contents(folder) == contents(alone)
    assert not list(folder.path.rglob("*.tmp"))


@pytest.mark.slow
def test_workers_that_keep_dying_are_given_up(alone, tmp_path, monkeypatch):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    monkeypatch.setattr("qkd_qiskit.experiments.workers._run", die)
    with pytest.raises(WorkerError, match="died 3 times without finishing a task"):
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
    (task, *_) = training_tasks(folder.recipe)
    with pytest.raises(KeyboardInterrupt):
        _run(folder.path, task, owner=os.getppid() + 1)
    assert ended == [1]
    _run(folder.path, task, owner=os.getppid())
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
        patch.setattr("qkd_qiskit.experiments.experiment.train_task", enough)
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
    """Its worker runs two tasks at a time in one process, which must not mix their randomness."""
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    run(folder, workers=Workers(cluster=cluster.scheduler_address))
    assert contents(folder) == contents(alone)


@pytest.mark.parametrize(
    "address", ["nonsense", "tcp://127.0.0.1", "http//x:1", "tcp://127.0.0.1:1"]
)
def test_a_cluster_that_is_not_there_is_said_first(address, alone, tmp_path, monkeypatch):
    monkeypatch.setattr("qkd_qiskit.experiments.workers.CONNECT_S", 0.5)
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    with pytest.raises(InputError, match=r"--cluster: .*dask scheduler") as caught:
        run(folder, workers=Workers(cluster=address))
    assert "\n" not in str(caught.value)
    assert not Path(folder.path, "teacher.safetensors").exists()


def finished(folder):
    """Files of tasks that need not be done again, with the time they were written."""
    trained = list(folder.path.glob("*/seed_*/weights.safetensors"))
    return {
        path: path.stat().st_mtime_ns for path in [*folder.path.glob("tuning/*.json"), *trained]
    }


def check_rerun(folder, alone):
    """The missing tasks are done, those that were there are left alone, and all ends alike."""
    before = finished(folder)
    assert before
    assert folder.result is None
    run(folder)
    after = finished(folder)
    assert {path: after[path] for path in before} == before
    assert len(after) > len(before)
    assert contents(folder) == contents(alone)


@pytest.mark.parametrize("stop", ["label_only and distilled and replicate", "exact"])
def test_a_stopped_study_does_the_missing_cells_only(stop, alone, tmp_path):
    class Stopping(Callback):
        def stage(self, text):
            if text == stop:
                raise KeyboardInterrupt

    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    with pytest.raises(KeyboardInterrupt):
        run(folder, callback=Stopping())
    if stop == "exact":  # one population is gone, the others are whole
        shutil.rmtree(folder.path / "classical_twin")
        shutil.rmtree(folder.path / "checkpoints")
    check_rerun(folder, alone)


def start(*words):
    code = "import sys; from qkd_qiskit.cli import main; sys.exit(main())"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen(
        [sys.executable, *(("-c", code) if words[0] == "study" else ("-m", "dask")), *words],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE if words[0] == "study" else subprocess.DEVNULL,
        text=True,
    )


def kill_when_a_cell_is_done(folder, *, watched, killed):
    deadline = time.monotonic() + 180
    while not finished(folder) and time.monotonic() < deadline and watched.poll() is None:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait()


@pytest.mark.slow
def test_a_killed_study_goes_on(alone, tmp_path):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    study = start("study", "--resume", str(folder.path), "--jobs", "2", "--quiet")
    kill_when_a_cell_is_done(folder, watched=study, killed=study)
    study.stderr.close()
    time.sleep(5)  # its workers see that it is gone
    check_rerun(folder, alone)


@contextmanager
def local_cluster(workers, *, folder):
    """Address and processes of a scheduler, which is the first, and of its workers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    words = "--no-dashboard", "--host", "127.0.0.1"
    own = "--nthreads", "1", "--local-directory", str(folder)
    processes = [start("scheduler", "--port", str(port), *words)]
    processes += [start("worker", address, "--no-nanny", *own, *words) for _ in range(workers)]
    try:
        time.sleep(10)
        yield address, processes
    finally:
        for process in processes:
            process.kill()
            process.wait()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_study_goes_on_although_a_worker_of_its_cluster_is_killed(alone, tmp_path):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    with local_cluster(2, folder=tmp_path) as (address, (_, first, second)):
        study = start("study", "--resume", str(folder.path), "--cluster", address, "--quiet")
        kill_when_a_cell_is_done(folder, watched=study, killed=first)
        before = finished(folder)
        _, said = study.communicate(timeout=200)
        assert (study.returncode, said) == (0, "")
        assert second.poll() is None
    after = finished(folder)
    assert 0 < len(before) < len(after)
    assert {path: after[path] for path in before} == before
    assert contents(folder) == contents(alone)
    assert not list(folder.path.rglob("*.tmp"))


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_killed_scheduler_is_said_and_the_study_goes_on(alone, tmp_path):
    folder = RunFolder.create(tmp_path / "run", alone.recipe)
    with local_cluster(1, folder=tmp_path) as (address, (scheduler, _)):
        study = start("study", "--resume", str(folder.path), "--cluster", address, "--quiet")
        kill_when_a_cell_is_done(folder, watched=study, killed=scheduler)
        _, said = study.communicate(timeout=120)
        assert study.returncode == 1
        assert said.startswith("qkd: the cluster was lost")
        assert said.endswith(f"to continue: qkd study --resume {folder.path}\n")
        assert said.count("\n") == 1
    check_rerun(folder, alone)
