"""provenance.json: when, where and with what a run was made, for whoever has to account for it.

It holds no secret, no name of a user or computer and no absolute path into a home folder. Figures
and weights do not depend on it: runs that are equal otherwise differ here.
"""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path

import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.experiments.json_codec import decode
from qkd_qiskit.experiments.run_folder import PROVENANCE, RunFolder, read_json, write_json

_GIT_SECONDS = 5


@dataclass(frozen=True, kw_only=True)
class GitState:
    """The repository of the folder that a command was given in.

    Attributes:
        commit: Hash of its commit.
        modified: Whether tracked files differ from it.
    """

    commit: str
    modified: bool


@dataclass(frozen=True, kw_only=True)
class Session:
    """One process that worked on a run: the first, one that went on, or an extension.

    Attributes:
        began: UTC date and time, ISO 8601.
        ended: Likewise; None where it was stopped, or goes on.
        command: What was typed; may be empty.
        python: Implementation and version.
        platform: Operating system, its version and the architecture.
        cpu: Name of the processor.
        cores: Cores that the process could use.
        threads: Threads of torch.
        jobs: Processes that trained; None on a cluster.
        git: Of the folder that it ran in; None without one.
        packages: Version of every installed package.
    """

    began: str
    ended: str | None = None
    command: str = ""
    python: str
    platform: str
    cpu: str
    cores: int
    threads: int
    jobs: int | None = 1
    git: GitState | None = None
    packages: Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """What provenance.json holds.

    Attributes:
        data: SHA-256 over images and labels of each split, by its name.
        sessions: Processes that worked on the run, the first one first.
    """

    data: Mapping[str, str] = field(default_factory=dict)
    sessions: tuple[Session, ...] = ()

    @property
    def date(self) -> str | None:
        """ISO date of the last session that ended; None where none did."""
        ended = [session.ended for session in self.sessions if session.ended]
        return ended[-1][:10] if ended else None


def read_provenance(folder: RunFolder) -> Provenance:
    """Return what is known of how a run was made; of one of an early version nothing.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder.path / PROVENANCE
    return decode(Provenance, read_json(path), where=path) if path.exists() else Provenance()


def begin_session(folder: RunFolder, data: Data, *, command: str, jobs: int | None) -> None:
    """Write that a process has begun to work on a run.

    Raises:
        StorageError: The file could not be written.
    """
    known = read_provenance(folder)
    session = replace(describe_process(), command=_without_home(command), jobs=jobs)
    _write(
        folder,
        Provenance(
            data=data.fingerprints,
            sessions=(*known.sessions, session),
        ),
    )


def end_session(folder: RunFolder) -> None:
    """Write that the process that began last has ended its work.

    Raises:
        StorageError: The file could not be written.
    """
    known = read_provenance(folder)
    *before, last = known.sessions
    _write(folder, replace(known, sessions=(*before, replace(last, ended=_now()))))


def describe_process() -> Session:
    """Return a session that begins now, in this process."""
    return Session(
        began=_now(),
        python=f"{platform.python_implementation()} {platform.python_version()}",
        platform=platform.platform(),
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        git=git_state(),
        packages=dict(
            sorted(
                {item.name: item.version for item in distributions() if item.name}.items(),
                key=lambda entry: entry[0].lower(),
            )
        ),
    )


def git_state(folder: Path | None = None) -> GitState | None:
    """Return the commit of a folder; None where there is none, or no git.

    Args:
        folder: The folder; default: the one that the process is in.
    """
    commit = _git("rev-parse", "HEAD", folder=folder)
    if not commit:
        return None
    changes = _git("status", "--porcelain", "--untracked-files=no", folder=folder)
    return GitState(commit=commit, modified=bool(changes))


def _git(*words: str, folder: Path | None) -> str | None:
    environment = os.environ | {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0"}
    try:
        done = subprocess.run(
            ["git", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_GIT_SECONDS,
            check=False,
        )
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _without_home(command: str) -> str:
    home = str(Path.home())
    return command.replace(home, "~") if len(home) > 1 else command


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def _write(folder: RunFolder, provenance: Provenance) -> None:
    write_json(folder.path / PROVENANCE, vars(provenance))
