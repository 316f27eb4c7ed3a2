"""A training on a device through hundreds of faults and kills loses nothing and pays nothing twice.

The true client talks to a rehearsal. Faults are drawn from a seed; a process is killed (SIGKILL, or
SIGTERM, SIGHUP or SIGINT, which it can answer) at
a moment that is drawn too, and the next one goes on. Which requests the faults meet depends on the
machine's speed, what has to hold does not.
"""

import contextlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path

import pytest
import soak_training as soak

from qkd_qiskit.storage import load_tensors
from qkd_qiskit.targets.ibm.emulator import Faults, ServiceEmulator
from qkd_qiskit.targets.ibm.journal import read_journal

SEED = 20_260
# Every request but those for a token and for the list of devices: the client itself waits for up to
# 60 and 15 s after a fault of theirs.
ASKED = "[!tb]*"
FAULTS = (
    f"{ASKED}:429:rate=0.085",
    f"{ASKED}:429:rate=0.04:retry_after=0",
    f"{ASKED}:500:rate=0.085",
    f"{ASKED}:503:rate=0.085",
    f"{ASKED}:404:rate=0.04",
    f"{ASKED}:cut:rate=0.085",
    f"{ASKED}:delay:rate=0.03:seconds=0.02",
    "submit:500:accepted:rate=0.08",
    "submit:503:accepted:rate=0.08",
    "submit:cut:accepted:rate=0.12",
    "submit:409:accepted:rate=0.03",
    "submit:409:rate=0.02",
    "metrics:pending:rate=0.2",
    "metrics:negative:rate=0.1",
    "metrics:text:rate=0.05",
    "metrics:empty:rate=0.05",
    "results:short:rate=0.15",
    "results:lost:rate=0.1",
    "results:garbled:rate=0.1",
    "results:empty:rate=0.05",
    "results:drip:rate=0.05:seconds=0.1",
    "job:garbled:rate=0.02",
    "session:garbled:rate=0.05",
    "jobs:garbled:rate=0.05",
    "run:fail:rate=0.08",
    "run:fail:accepted:rate=0.04",
    "run:cancel:rate=0.03",
    "run:delay:rate=0.1:seconds=0.05",
    "run:expire_session:rate=0.04",
    "job:expire_session:rate=0.01",
    f"{ASKED}:401:rate=0.004",
    "job:expire_token:rate=0.004",
)


class Nursery:
    """Starts training processes that can be killed."""

    def __init__(self, log):
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, soak.__file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=dict(os.environ, OMP_NUM_THREADS="1", USAGE_DATA_OPT_OUT="True"),
        )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        with self.process:
            self.process.stdin.close()

    def train(self, folder, server, *, mode, kill_after=None, number=signal.SIGKILL):
        """Run one process to its end, or kill it; returns its status, or the signal, negative."""
        task = {
            "folder": str(folder),
            "log": str(self.log),
            "mode": mode,
            "device": soak.DEVICE.replace("fake", "ibm"),
            "environment": server.environment(),
        }
        self.process.stdin.write(json.dumps(task) + "\n")
        self.process.stdin.flush()
        child = int(self.process.stdout.readline())
        killer = None
        if kill_after is not None:
            killer = threading.Timer(kill_after, _kill, [child, number])
            killer.start()
        status = int(self.process.stdout.readline())
        if killer is not None:
            killer.cancel()
        return os.waitstatus_to_exitcode(status)


def _kill(child, number):
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, number)


def unfinished(journal):
    """Usage that is not known, or a session that could not be closed: the next process does it."""
    return bool(journal.unsettled()) or journal.session is not None


SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
KILLED = (-signal.SIGKILL, soak.INTERRUPTED)
# A signal that comes before the process has set its handlers ends it as such.
ENDS = (soak.DONE, soak.STOPPED, soak.INTERRUPTED, *(-number for number in SIGNALS))


def go_through(tmp_path, *, seed, kills, longest_kill_s, modes, most=400):
    """Train with faults and kills until it is done, and without any; returns all that happened."""
    stream = random.Random(seed)
    log = tmp_path / "log.txt"
    ends = Counter()
    with Nursery(log) as nursery:
        with ServiceEmulator(soak.DEVICE) as calm:
            assert nursery.train(tmp_path / "calm", calm, mode="job") == soak.DONE
        with ServiceEmulator(soak.DEVICE, faults=Faults(FAULTS, seed=seed)) as server:
            folder, end = tmp_path / "soaked", None
            while end != soak.DONE or unfinished(read_journal(folder)):
                more = sum(ends[killed] for killed in KILLED) < kills
                end = nursery.train(
                    folder,
                    server,
                    mode=stream.choice(modes),
                    kill_after=stream.uniform(0.05, longest_kill_s) if more else None,
                    number=stream.choice(SIGNALS),
                )
                ends[end] += 1
                assert end in ENDS, log.read_text()[-3000:]
                assert sum(ends.values()) < most
            server.faults.clear()
            return {
                "ends": ends,
                "ledger": server.ledger,
                "strikes": server.faults.strikes,
                "secrets": (server.token, server.instance),
                "log": log,
                "calm": tmp_path / "calm",
                "soaked": folder,
            }


def check(found, *, least_strikes, kills):
    """All that must hold, whatever happened."""
    jobs = found["ledger"].jobs
    journal = read_journal(found["soaked"])
    totals = journal.totals()
    records = list(journal.records.values())
    # Enough happened.
    assert len(found["strikes"]) >= least_strikes
    assert sum(found["ends"][killed] for killed in KILLED) >= kills
    assert all(found["ends"][killed] for killed in KILLED)
    # No session that has run a job is left open. One whose answer was lost was never joined.
    sessions = found["ledger"].sessions.values()
    left = {one.id: one for one in sessions if one.jobs and one.accepting_jobs}
    assert not left, (left, journal.sessions, journal.session)
    # No job was submitted twice.
    tags = Counter(tag for job in jobs.values() for tag in job.tags if tag.startswith("qkd:"))
    assert set(tags.values()) == {1}
    assert not journal.duplicates
    # The server has no job that the journal lacks, and the reverse.
    assert {record.job for record in records if record.paid} == set(jobs)
    # Every job that was executed is used, and used once.
    executed = sorted(job.id for job in jobs.values() if job.executed)
    finished = [record for record in records if record.state == "finished"]
    assert executed == sorted(record.job for record in finished)
    assert len({(record.key, record.part) for record in finished}) == len(finished) == soak.STEPS
    # The journal accounts for every QPU second.
    assert not journal.unsettled()
    assert math.isclose(
        totals.usage_s, sum(job.quantum_seconds for job in jobs.values()), rel_tol=1e-12
    )
    # The same training as without faults.
    calm, steps = load_tensors(found["calm"] / soak.RESULT)
    soaked, same = load_tensors(found["soaked"] / soak.RESULT)
    assert steps == same == {"steps": str(soak.STEPS), "calls": str(soak.STEPS)}
    assert all((calm[name] == soaked[name]).all() for name in calm)
    # Nothing secret was written.
    for path in Path(found["soaked"]).parent.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in (*found["secrets"], "Bearer ", "crn:v1", "apikey "):
                assert secret.encode() not in content, path


@pytest.mark.timeout(400)
def test_a_training_survives_hundreds_of_faults_and_kills(tmp_path):
    found = go_through(
        tmp_path, seed=SEED, kills=12, longest_kill_s=2.0, modes=("job", "batch", "session")
    )
    check(found, least_strikes=200, kills=12)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("seed", range(1, 9))
def test_a_longer_soak(tmp_path, seed):
    found = go_through(
        tmp_path, seed=seed, kills=64, longest_kill_s=1.0, modes=("job", "batch", "session")
    )
    check(found, least_strikes=200, kills=64)
