"""Runs from Python: start one, open one, ask it for its students, figures and report.

The command is a thin layer on this. It stands above experiments and report, as a run gives both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.callbacks import Callback, Callbacks
from qkd_qiskit.experiments.certificate import Certificate
from qkd_qiskit.experiments.certification import MARGIN, certify, check_request
from qkd_qiskit.experiments.compression import (
    COMPRESSION,
    TeacherChoice,
    keep_compression,
    read_compression,
)
from qkd_qiskit.experiments.compression_plan import plan_compression
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.extension import begin_extension, extended_recipe
from qkd_qiskit.experiments.progress import default_callback
from qkd_qiskit.experiments.repair import put_damage_aside
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder, new_folder
from qkd_qiskit.experiments.trackers import make_tracker
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.arms import TREATMENT, OwnArms
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.conclusions import conclusions
from qkd_qiskit.report.publication import publish
from qkd_qiskit.report.report import write_report
from qkd_qiskit.students.base import WEIGHTS_FILE


class Run(TrainedRun):
    """A run: `Run.open(path)`, or what `run_experiment` gives.

    Example:
        >>> from qkd_qiskit import Run
        >>> run = Run.open("runs/digits")  # of `qkd distill`
        >>> run.student("distilled").circuit.num_qubits == run.recipe.student.qubits
        True
        >>> run.report().name
        'report.html'
    """

    def report(self) -> Path:
        """Write report.html into the run, and return its path.

        Raises:
            CheckpointError: The run has not ended.
            StorageError: The file could not be written.
        """
        return write_report(self.folder)

    def certify(
        self,
        arm: str = TREATMENT,
        *,
        margin: float = MARGIN,
        onnx: bool = False,
        callback: Callback | None = None,
    ) -> Certificate:
        """Return whether the circuit matters, fitted again without it; see the command certify.

        Args:
            arm: Whose students.
            margin: Points of test accuracy below which a model without a circuit is as good.
            onnx: Whether the closed forms are written as ONNX files too, which needs onnxscript.
            callback: Hears of the progress.

        Raises:
            InputError: The arm has no circuit, or was not trained exactly; onnxscript is missing.
            CheckpointError: The run has not ended.
            StorageError: The folder cannot be written.

        Example:
            >>> from qkd_qiskit import Run
            >>> certificate = Run.open("runs/digits").certify()
            >>> certificate.arm
            'distilled'
        """
        self.folder.ended()
        check_request(self.recipe, arm=arm, margin=margin)
        with self.folder.locked():
            return certify(
                self.folder,
                data=self.data,
                teachers_by_seed=self.teachers,
                arm=arm,
                margin=margin,
                onnx=onnx,
                callback=callback,
            )

    def compress(
        self,
        *,
        target: str,
        max_two_qubit_gates: int,
        teacher: TeacherChoice = "student",
        arm: str | None = None,
        grow_by: int | None = None,
        changes: Mapping[str, Any] | None = None,
        search_seconds: float | None = None,
        out: str | Path | None = None,
        callback: Callback | None = None,
        command: str = "",
    ) -> Run:
        """Distil into circuits that fit a device, in a run of its own; see `compress`."""
        return compress(
            self,
            target=target,
            max_two_qubit_gates=max_two_qubit_gates,
            teacher=teacher,
            arm=arm,
            grow_by=grow_by,
            changes=changes,
            search_seconds=search_seconds,
            out=out,
            callback=callback,
            command=command,
        )

    def export(self, out: str | Path) -> Path:
        """Write the run as a folder to publish, and return its path.

        Recipe, result, report, weights, bound circuits as OpenQASM 3 and QPY, and a model card.

        Raises:
            CheckpointError: The run has not ended, or the folder holds something.
            StorageError: A file could not be written.
        """
        return publish(self.folder, out)

    def extend(
        self,
        *,
        seeds: int | Sequence[int] | None = None,
        arms: Sequence[str] | None = None,
        own_arms: OwnArms | None = None,
        callback: Callback | None = None,
        workers: Workers | None = None,
        command: str = "",
    ) -> Result:
        """Add seeds and arms to the run, train what it lacks, and return the result of all.

        Nothing that is there is trained again. Stopped at any moment, it goes on when it is called
        again, or with `resume_experiment`.

        Args:
            seeds: All seeds that the run is to have, those of now among them; a number or a list.
            arms: Arms that it is to have; those of now need not be named.
            own_arms: Arms of your own, as in a recipe, to be named in `arms`.
            callback: Hears of the progress.
            workers: Where students are trained; default: in this process.
            command: What was typed, for the report.

        Raises:
            CheckpointError: The run has not ended, or was trained on a device.
            InputError: Fewer seeds than it has, or something does not fit; the run is as before.
            QKDError: As `run_experiment`.
        """
        given = {"seeds": seeds, "arms": arms, "own_arms": own_arms}
        recipe = extended_recipe(self.folder, given)
        if recipe == self.recipe and not self.folder.earlier:
            return self.folder.ended()
        with self.folder.locked():
            if recipe != self.recipe:
                self.folder = begin_extension(self.folder, recipe)
                vars(self).pop("teachers", None)
            try:
                return run(self.folder, callback=callback, command=command, workers=workers)
            except InputError:
                self.folder.abandon_extension()
                self.folder = RunFolder.open(self.path)
                raise

    def __repr__(self) -> str:
        state = "ended" if self.folder.result is not None else "not ended"
        arms = ", ".join(self.recipe.arms)
        return f"Run({str(self.path)!r}, {len(self.recipe.member_seeds)} seeds of {arms}; {state})"

    def _repr_html_(self) -> str:
        result = self.folder.result
        count = sum((self.folder.member(*it) / WEIGHTS_FILE).exists() for it in self.folder.members)
        state = f"{count} of {len(self.folder.members)} students trained"
        state += "" if result is not None else ", not ended"
        head = f"<p><strong>Run</strong> {escape(str(self.path))}: {state}</p>"
        if result is None:
            return f"{head}{self.recipe._repr_html_()}"
        answers = "".join(
            f"<li>{escape(f'{target}: {answer.sentence}')}</li>"
            for target in result.targets
            for answer in conclusions(result, target)[:1]
        )
        return f"{head}{result._repr_html_()}<ul>{answers}</ul>"


def run_experiment(
    recipe: Recipe | str,
    *,
    out: str | Path | None = None,
    callback: Callback | None = None,
    workers: Workers | None = None,
    track: str | None = None,
    command: str = "",
) -> Run:
    """Train and evaluate everything that a recipe asks for, and return the run.

    Args:
        recipe: A recipe, the name of a built-in one, or the path of a YAML file.
        out: A new or empty folder; default: a new one under runs/.
        callback: Hears of the progress, such as `Progress()`, which prints lines; default: bars in
            a notebook, elsewhere nothing.
        workers: Where students are trained; default: in this process.
        track: Where figures go as well: tensorboard, mlflow or wandb.
        command: What was typed, for the report.

    Raises:
        InputError: Something does not fit; a new folder is then removed again.
        TrainingError: A loss term does not reach the student.
        WorkerError: Workers keep dying.
        StorageError: The disk is full, or the folder cannot be written.

    Example:
        >>> from qkd_qiskit import load_recipe, run_experiment
        >>> recipe = load_recipe(
        ...     "digits",
        ...     {"seeds": 2, "distill.epochs": 3, "teacher.epochs": 3, "targets": ["exact"]},
        ... )
        >>> run = run_experiment(recipe, out="first")
        >>> run.recipe.arms
        ('label_only', 'distilled', 'classical_twin')
        >>> run.student("distilled", seed=1).circuit.num_qubits
        4
    """
    callback = _told(callback, track)
    if out is None:
        out = new_folder(recipe if isinstance(recipe, str) else recipe.data.name)
    wanted = load_recipe(recipe) if isinstance(recipe, str) else recipe
    folder = RunFolder.create(out, wanted)
    try:
        with folder.locked():
            _run(folder, callback=callback, command=command, workers=workers)
    except InputError:
        folder.discard()
        raise
    return Run(folder)


def resume_experiment(
    path: str | Path,
    *,
    callback: Callback | None = None,
    workers: Workers | None = None,
    track: str | None = None,
    command: str = "",
) -> Run:
    """Go on with a run that was stopped, and return it; what is finished is not done again.

    What is damaged or missing in a run that has ended is made again.

    Args:
        path: Its folder.
        callback: As for `run_experiment`, and so are the others.
        workers: Where students are trained.
        track: Where figures go; what has been told there is not told again.
        command: What was typed.

    Raises:
        CheckpointError: There is no run in the folder.
        QKDError: As `run_experiment`.
    """
    callback, folder = _told(callback, track), RunFolder.open(path)
    with folder.locked():
        put_damage_aside(folder)
        _run(folder, callback=callback, command=command, workers=workers)
    return Run(folder)


def compress(
    run: Run | str | Path,
    *,
    target: str,
    max_two_qubit_gates: int,
    teacher: TeacherChoice = "student",
    arm: str | None = None,
    grow_by: int | None = None,
    changes: Mapping[str, Any] | None = None,
    search_seconds: float | None = None,
    out: str | Path | None = None,
    callback: Callback | None = None,
    command: str = "",
) -> Run:
    """Distil a finished run into circuits that fit a device, and return the run of them.

    Its arms are students of one depth after the other, layers_2, layers_4, ..., each grown from the
    one before and taught without labels, up to the last that fits; and label_only students of that
    depth. They are evaluated exactly and on the target, there as measured and recalibrated.

    Args:
        run: What is compressed.
        target: A device, such as fake_torino.
        max_two_qubit_gates: How many two-qubit gates the circuits may have on it.
        teacher: Who teaches: student, of each seed that of the same seed; ensemble, of all its
            seeds; classical, the teacher of the run.
        arm: Arm of its students that teach; default: distilled.
        grow_by: Layers that one depth has more than the one before; default: 1, of ry_cz_brick 2.
        changes: Values by dotted key of the recipe, of student, distill, seeds, shots and
            test_limit; student.layers is the most layers that are tried.
        search_seconds: How long other entanglers, widths, features and sharpnesses are tried first,
            half of it in a search and half at random; None = the default or what is given.
        out: A new or empty folder; default: a new one beside the run.
        callback: As for `run_experiment`.
        command: What was typed, for the report.

    Raises:
        InputError: Something does not fit: see `compression_plan.plan_compression`.
        QKDError: As `run_experiment`.
    """
    earlier = RunFolder.open(run) if isinstance(run, str | Path) else run.folder
    recipe, compression = plan_compression(
        earlier,
        target=target,
        max_two_qubit_gates=max_two_qubit_gates,
        teacher=teacher,
        arm=arm,
        grow_by=grow_by,
        changes=changes,
        search_seconds=search_seconds,
        on_candidate=Callback().stage if callback is None else callback.stage,
    )
    if out is None:
        out = new_folder(earlier.path.name, suffix="-compress", parent=earlier.path.parent)
    folder = RunFolder.create(out, recipe)
    keep_compression(folder, compression)
    try:
        return resume_compression(folder.path, callback=callback, command=command)
    except InputError:
        if folder.result is None:
            (folder.path / COMPRESSION).unlink(missing_ok=True)
            folder.discard()
        raise


def resume_compression(
    path: str | Path, *, callback: Callback | None = None, command: str = ""
) -> Run:
    """Go on with a compression that was stopped, and return its run.

    Raises:
        CheckpointError: The folder holds no run, or one that is not compressed from another.
        QKDError: As `compress`.
    """
    compression = read_compression(RunFolder.open(path))
    if compression is None:
        raise CheckpointError(
            f"{path} holds a run that was not compressed from another ({COMPRESSION} is not "
            f"there); go on with it by qkd distill --resume {path}"
        )
    run = resume_experiment(path, callback=callback, command=command)
    run.recalibrate(compression.target, callback=callback)
    return run


def _told(callback: Callback | None, track: str | None) -> Callback:
    """Return who hears of a run."""
    shown = default_callback() if callback is None else callback
    return shown if track is None else Callbacks(shown, make_tracker(track))


def _run(folder: RunFolder, *, callback: Callback, command: str, workers: Workers | None) -> None:
    try:
        run(folder, callback=callback, command=command, workers=workers)
    except BaseException:
        callback.close()
        raise
