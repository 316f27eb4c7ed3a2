"""The runs below a folder, each in a line: what it is of, how far it is, and what it gained."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Literal

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.comparisons import baseline_of
from qkd_qiskit.experiments.provenance import read_provenance
from qkd_qiskit.experiments.results import Comparison, Result
from qkd_qiskit.experiments.run_folder import RECIPE, RESULT, RunFolder
from qkd_qiskit.experiments.statistics import Gain
from qkd_qiskit.recipe.arms import BASELINE, TREATMENT
from qkd_qiskit.storage import user_path

_DEEPEST = 4  # folders below the root
State = Literal["finished", "unfinished", "damaged"]


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """A run in a line.

    Attributes:
        path: Its folder.
        recipe: Name of the recipe that it was started with, else data and kind of student.
        seeds: Number of its seeds.
        arms: Its arms.
        state: Whether it has ended; damaged where a file cannot be read.
        date: ISO date of its last change.
        target: Where the gain was measured: the first of its targets.
        baseline: The arm that distilled is compared with.
        gain: What distilled gains over it; None where the run cannot say.
        problem: Why it is damaged.
    """

    path: Path
    recipe: str = ""
    seeds: int = 0
    arms: tuple[str, ...] = ()
    state: State
    date: str
    target: str | None = None
    baseline: str | None = None
    gain: Gain | Comparison | None = None
    problem: str = ""


def list_runs(root: str | Path) -> list[RunSummary]:
    """Return the runs in a folder and in those below it, the newest first.

    Raises:
        CheckpointError: There is no such folder.
    """
    root = user_path(root)
    if not root.is_dir():
        raise CheckpointError(f"{root} is no folder; give one that holds runs, such as runs")
    runs = [summarize_run(path) for path in _run_folders(root, depth=0)]
    return sorted(sorted(runs, key=lambda run: str(run.path)), key=lambda run: run.date)[::-1]


def summarize_run(path: Path) -> RunSummary:
    """Return a run in a line."""
    try:
        folder = RunFolder.open(path)
        result, provenance = folder.result, read_provenance(folder)
    except InputError as error:
        return RunSummary(path=path, state="damaged", date=_date_of(path), problem=str(error))
    recipe = folder.recipe
    target = None if result is None else next(iter(result.targets), None)
    baseline, gain = None, None
    if result is not None and target is not None:
        baseline, gain = counting_gain(result, target)
    return RunSummary(
        path=path,
        recipe=recipe_name(result) or f"{recipe.data.name} {recipe.student.kind}",
        seeds=len(recipe.member_seeds),
        arms=recipe.arms,
        state="unfinished" if result is None else "finished",
        date=provenance.date or _date_of(path),
        target=target,
        baseline=baseline,
        gain=gain,
    )


def counting_gain(result: Result, target: str) -> tuple[str | None, Gain | Comparison | None]:
    """Return the arm that the distilled one has to beat, and by how much it does."""
    baseline = baseline_of(result.arms)
    if baseline is None or TREATMENT not in result.arms:
        return None, None
    gain = result.comparison(TREATMENT, baseline, target)
    if gain is None:  # as in results of early versions
        baseline = BASELINE
        return baseline, result.gain.get(target)
    return baseline, gain


def recipe_name(result: Result | None) -> str:
    """Return the recipe that a run was started with, by the command; empty where that is unknown.

    A recipe file has the name of the file.
    """
    if result is None:
        return ""
    try:
        program, _, *words = [*shlex.split(result.command), "", ""]
    except ValueError:
        return ""
    if program != "qkd" or result.command.startswith("qkd runs "):
        return ""
    named = [] if words[0].startswith("-") or not words[0] else [words[0]]
    return Path(named[0]).stem if named else "digits"


def _run_folders(folder: Path, *, depth: int) -> Iterator[Path]:
    if (folder / RECIPE).is_file():
        yield folder
    elif depth < _DEEPEST:
        try:
            inner = sorted(entry for entry in folder.iterdir() if entry.is_dir())
        except OSError:
            return
        for entry in inner:
            if not entry.name.startswith("."):
                yield from _run_folders(entry, depth=depth + 1)


def _date_of(path: Path) -> str:
    file = path / (RESULT if (path / RESULT).exists() else RECIPE)
    return datetime.fromtimestamp(file.stat().st_mtime, timezone.utc).date().isoformat()
