"""Tasks in parallel processes: on this machine, or on a Dask cluster that sees the run folder.

Workers speak through the run folder alone. Whatever dies (a worker, the scheduler, this process),
what was finished stays, and what was not is done again from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import InputError, WorkerError, first_line
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation_set import evaluate_members
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import (
    RunContext,
    TrainingTask,
    is_finished,
    new_student,
    run_targets,
    train_task,
)
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.experiments.worker_processes import SUPPORTED, Processes, WorkerDiedError
from qkd_qiskit.targets import Target

logger = logging.getLogger(__name__)

MOST_DEATHS = 3  # of workers, without a task finished between them
CONNECT_S = 10
_STEP = 16  # images of a step in the precision of training, not that of small batches
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class Workers:
    """Where tasks run.

    Attributes:
        jobs: Processes on this machine; 1 = this process alone.
        cluster: Address of a Dask scheduler, tcp://HOST:PORT, in place of them.
    """

    jobs: int = 1
    cluster: str | None = None

    @property
    def parallel(self) -> bool:
        """Whether tasks run in other processes."""
        return self.jobs > 1 or self.cluster is not None

    def check(self) -> None:
        """Raise where the cluster cannot be reached.

        Raises:
            InputError: Dask is not installed, or nothing answers at the address.
        """
        if self.cluster is not None:
            with connected(self.cluster):
                pass


def run_tasks(
    folder: RunFolder,
    tasks: Sequence[TrainingTask],
    *,
    submit: Submit,
    targets: Sequence[Target],
    callback: Callback,
) -> None:
    """Train and evaluate the tasks that are not finished, wherever the workers are.

    Args:
        folder: The run.
        tasks: Of one round.
        submit: What `pool` gives.
        targets: Where the students are evaluated.
        callback: Hears how many are done.

    Raises:
        WorkerError: Workers keep dying, or the cluster was lost.
        InputError: The cluster does not answer.
        QKDError: What a task raised.
    """
    deaths = 0
    while missing := [task for task in tasks if not is_finished(folder, task, targets)]:
        done = len(tasks) - len(missing)
        try:
            for _ in submit(folder, missing):
                done, deaths = done + 1, 0
                callback.tasks(done, total=len(tasks))
        except WorkerDiedError as error:
            deaths += 1
            if deaths >= MOST_DEATHS:
                raise WorkerError(
                    f"worker processes died {deaths} times without finishing a task ({error}); "
                    f"where memory is short, give fewer --jobs"
                ) from error
            logger.warning("a worker process died; its tasks run again")


Submit = Callable[[RunFolder, Sequence[TrainingTask]], Iterator[None]]


@contextmanager
def pool(workers: Workers) -> Iterator[Submit]:
    """Yield a function that runs tasks and yields as each ends; its workers live until then.

    Raises:
        InputError: The cluster does not answer.
    """
    if workers.cluster is not None:
        with connected(workers.cluster) as client:
            yield partial(_on_cluster, client)
    elif not SUPPORTED:
        yield partial(_with_joblib, workers.jobs)
    else:
        team = _Team(workers.jobs)
        try:
            yield team.run
        finally:
            team.close()


class _Team:
    """Worker processes, started when the first tasks come and again after one has died."""

    def __init__(self, jobs: int) -> None:
        self._jobs = jobs
        self._processes: Processes | None = None

    def run(self, folder: RunFolder, tasks: Sequence[TrainingTask]) -> Iterator[None]:
        path = folder.path.absolute()
        if self._processes is None:
            self._processes = Processes(self._jobs, partial(_prepare, path))
        try:
            yield from self._processes.run([partial(_run, path, task) for task in tasks])
        except WorkerDiedError:
            self.close()
            raise

    def close(self) -> None:
        if self._processes is not None:
            self._processes.close()
            self._processes = None


def _with_joblib(jobs: int, folder: RunFolder, tasks: Sequence[TrainingTask]) -> Iterator[None]:
    from joblib import Parallel, delayed, parallel_config
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    path = folder.path.absolute()
    with parallel_config(backend="loky", inner_max_num_threads=1):
        run = Parallel(n_jobs=jobs, return_as="generator_unordered")
        try:
            yield from run(delayed(_run)(path, task, owner=os.getpid()) for task in tasks)
        except TerminatedWorkerError as error:
            raise WorkerDiedError(first_line(error)) from error


def _on_cluster(client: Any, folder: RunFolder, tasks: Sequence[TrainingTask]) -> Iterator[None]:
    from distributed import as_completed
    from distributed.scheduler import KilledWorker

    path = folder.path.absolute()
    futures = [client.submit(_run, path, task, pure=False) for task in tasks]
    try:
        for future in as_completed(futures, loop=client.loop):
            future.result()
            yield
    except KilledWorker as error:
        raise WorkerDiedError(first_line(error)) from error
    except CancelledError as error:
        raise WorkerError("the cluster was lost: its scheduler does not answer any more") from error
    finally:
        client.cancel(futures)


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Yield a client of the Dask scheduler at an address.

    Raises:
        InputError: Dask is not installed, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise InputError(
            "--cluster needs Dask, which is not installed; pip install 'qkd-qiskit[cluster]'"
        ) from error
    accepted = "give the address that `dask scheduler` prints, such as tcp://10.0.0.1:8786"
    if not re.fullmatch(r"\w+://\S+:\d+", address):
        raise InputError(f"--cluster: {address!r} is no address; {accepted}")
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in ("distributed", "tornado", "asyncio"):
            # What goes wrong is raised, in one line.
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    try:
        client = Client(address, timeout=CONNECT_S, set_as_default=False)
    except (OSError, ValueError) as error:
        raise InputError(
            f"--cluster: no Dask scheduler answers at {address!r} ({first_line(error)}); {accepted}"
        ) from error
    try:
        yield client
    finally:
        with suppress(OSError, TimeoutError):
            client.close(timeout=1)


def _prepare(path: Path) -> None:
    """Load what every task of a run needs: data, teachers, and the kernel by a step of a student.

    Two workers that start at the same time would otherwise both compile it, on a new machine.
    """
    torch.set_num_threads(1)
    context = _context(path)
    recipe = context.folder.recipe
    student = new_student(recipe, context.data, arm=recipe.arms[0])
    if student.circuit is not None:
        student(context.data.pool.images[:_STEP]).sum().backward()


def _run(path: Path, task: TrainingTask, *, owner: int | None = None) -> None:
    """Train and evaluate one task, in a worker process.

    Args:
        path: The run folder.
        task: What is trained and evaluated.
        owner: Process that started this one; without it the worker stops. None = something else
            stops it.
    """
    # Global random state and threads are a process's own: tasks of one process take turns.
    with _one_at_a_time:
        torch.set_num_threads(1)
        context, callback = _context(path), _Watch(owner)
        train_task(context, task, callback=callback)
        if task.setting is None:
            for target in context.targets:
                evaluate_members(
                    context.folder,
                    target,
                    task.members,
                    data=context.data,
                    teachers_by_seed=context.teachers_by_seed,
                    callback=callback,
                )


@lru_cache(maxsize=1)
def _context(path: Path) -> RunContext:
    """Return data and teacher of a run, read once for all tasks that a worker is given."""
    folder = RunFolder.open(path)
    recipe = folder.recipe
    data = load_data(recipe.data, seed=recipe.seed)
    return RunContext(
        folder=folder,
        data=data,
        teachers_by_seed=load_teachers(folder, data),
        targets=run_targets(folder),
    )


class _Watch(Callback):
    """Ends a worker whose owner is gone: another run may go on in the same folder."""

    def __init__(self, owner: int | None) -> None:
        self.owner = owner

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        self._look()

    def evaluated(self, images: int, *, total: int) -> None:
        self._look()

    def _look(self) -> None:
        if self.owner is not None and os.getppid() != self.owner:
            os._exit(1)
