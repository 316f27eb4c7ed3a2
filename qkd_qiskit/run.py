"""Runs from Python: start one, open one, ask it for its students, figures and report.

The command is a thin layer on this. It stands above experiments and report, as a run gives both.
"""

from __future__ import annotations

from pathlib import Path

from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.repair import put_damage_aside
from qkd_qiskit.experiments.run_folder import RunFolder, new_folder
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report


class Run(TrainedRun):
    """A run: `Run.open(path)`, or what `run_experiment` gives."""

    def report(self) -> Path:
        """Write report.html into the run, and return its path.

        Raises:
            CheckpointError: The run has not ended.
            StorageError: The file could not be written.
        """
        return write_report(self.folder)

    def __repr__(self) -> str:
        state = "ended" if self.folder.result is not None else "not ended"
        arms = ", ".join(self.recipe.arms)
        return f"Run({str(self.path)!r}, {len(self.recipe.member_seeds)} seeds of {arms}; {state})"

    def _repr_html_(self) -> str | None:
        result = self.folder.result
        return None if result is None else result._repr_html_()


def run_experiment(
    recipe: Recipe | str,
    *,
    out: str | Path | None = None,
    callback: Callback | None = None,
    workers: Workers | None = None,
    command: str = "",
) -> Run:
    """Train and evaluate everything that a recipe asks for, and return the run.

    Args:
        recipe: A recipe, the name of a built-in one, or the path of a YAML file.
        out: A new or empty folder; default: a new one under runs/.
        callback: Hears of the progress.
        workers: Where students are trained; default: in this process.
        command: What was typed, for the report.

    Raises:
        InputError: Something does not fit; a new folder is then removed again.
        TrainingError: A loss term does not reach the student.
        WorkerError: Workers keep dying.
        StorageError: The disk is full, or the folder cannot be written.
    """
    if out is None:
        out = new_folder(recipe if isinstance(recipe, str) else recipe.data.name)
    wanted = load_recipe(recipe) if isinstance(recipe, str) else recipe
    folder = RunFolder.create(out, wanted)
    try:
        with folder.locked():
            run(folder, callback=callback, command=command, workers=workers)
    except InputError:
        folder.discard()
        raise
    return Run(folder)


def resume_experiment(
    path: str | Path,
    *,
    callback: Callback | None = None,
    workers: Workers | None = None,
    command: str = "",
) -> Run:
    """Go on with a run that was stopped, and return it; what is finished is not done again.

    What is damaged or missing in a run that has ended is made again.

    Args:
        path: Its folder.
        callback: As for `run_experiment`, and so are the others.
        workers: Where students are trained.
        command: What was typed.

    Raises:
        CheckpointError: There is no run in the folder.
        QKDError: As `run_experiment`.
    """
    folder = RunFolder.open(path)
    with folder.locked():
        put_damage_aside(folder)
        run(folder, callback=callback, command=command, workers=workers)
    return Run(folder)
