"""Worker processes on this machine that start as fast as a fork, and end with who started them.

A fresh process imports the package and reads data and teachers of the run, once; the workers are
forks of it. It has a single thread, so a fork of it is safe, which one of a user's process (a
notebook, torch's threads) is not. A user's own script is not run again in it.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from typing import Any

from qkd_qiskit.errors import WorkerError, one_line

SUPPORTED = sys.platform == "linux"  # macOS forbids much in a fork, Windows has none

_START = (
    "import signal, sys, json; signal.signal(signal.SIGINT, signal.SIG_IGN); "
    "sys.path[:] = json.loads(sys.argv[1]); "
    "from qkd_qiskit.experiments.worker_processes import serve; serve(sys.argv[2:])"
)


class WorkerDiedError(Exception):
    """A worker died, and what it was doing with it."""


class Processes:
    """Workers that each call one function after the other; close them when done."""

    def __init__(self, count: int, prepare: Callable[[], object]) -> None:
        """Start so many workers.

        Args:
            count: How many.
            prepare: Called once, before the workers part: what it loads is there in each. It and
                what is called later must be importable by name.
        """
        pairs = [socket.socketpair() for _ in range(count)]
        self._server = subprocess.Popen(
            [sys.executable, "-c", _START, json.dumps(sys.path)]
            + [str(theirs.fileno()) for _, theirs in pairs],
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno() for _, theirs in pairs],
        )
        self._workers = [Connection(ours.detach()) for ours, _ in pairs]
        for _, theirs in pairs:
            theirs.close()
        assert self._server.stdin is not None
        with suppress(BrokenPipeError):  # it is dead: the first call says so
            self._server.stdin.write(pickle.dumps(prepare))
            self._server.stdin.flush()

    def run(self, calls: Sequence[Callable[[], object]]) -> Iterator[None]:
        """Make the calls, as many at once as there are workers, and yield as each ends.

        Raises:
            WorkerDiedError: A worker died.
            Exception: What a call raised.
        """
        remaining = iter(calls)
        busy = [worker for worker in self._workers if _send_next(worker, remaining)]
        while busy:
            for worker in wait(busy):
                assert isinstance(worker, Connection)
                try:
                    error = worker.recv()
                except (EOFError, ConnectionError) as ended:
                    raise WorkerDiedError("a worker process ended unexpectedly") from ended
                if error is not None:
                    raise error
                busy.remove(worker)
                yield
                if _send_next(worker, remaining):
                    busy.append(worker)

    def close(self) -> None:
        """End the workers, whatever they are doing."""
        for worker in self._workers:
            worker.close()
        assert self._server.stdin is not None
        with suppress(BrokenPipeError):
            self._server.stdin.close()
        self._server.wait()


def _send_next(worker: Connection[Any, Any], calls: Iterator[Callable[[], object]]) -> bool:
    call = next(calls, None)
    if call is None:
        return False
    try:
        worker.send(call)
    except ConnectionError as error:
        raise WorkerDiedError("a worker process ended unexpectedly") from error
    return True


def serve(handles: Sequence[str]) -> None:
    """Prepare, fork a worker for each socket, and end them once the owner closes stdin or dies."""
    prepare = pickle.load(sys.stdin.buffer)
    with suppress(Exception):  # the first call meets the same, and says it
        prepare()
    workers = [int(handle) for handle in handles]
    children = []
    for number, handle in enumerate(workers):
        child = os.fork()
        if child == 0:
            for other in workers[number + 1 :]:
                os.close(other)
            _work(Connection(handle))
            os._exit(0)
        children.append(child)
        os.close(handle)
    sys.stdin.buffer.read()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    os._exit(0)  # all that is left is the end of the interpreter, which takes its time


def _work(owner: Connection[Any, Any]) -> None:
    """Make the calls that come, and send what each raised, or None."""
    while True:
        try:
            call = owner.recv()
        except (EOFError, ConnectionError):
            return
        error: Exception | None = None
        try:
            call()
        except Exception as raised:
            error = _picklable(raised)
        owner.send(error)


def _picklable(error: Exception) -> Exception:
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # pickling calls what the error's class defines
        return WorkerError(f"a task failed with {one_line(error)}")
    return error
