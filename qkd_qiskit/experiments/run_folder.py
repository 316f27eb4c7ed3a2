"""The run folder: what a run has written, and how it goes on after a stop.

The folder::

    runs/NAME/
      recipe.yaml  teacher.safetensors  circuit.qasm  result.json  report.html  provenance.json
      teachers/seed_N.safetensors  teachers/member_K.safetensors  teachers/seed_N/
      checkpoints/POPULATION.safetensors
      tuning/SETTING.json  tuning/ARM/SETTING.json
      ARM/seed_N/  student.json  weights.safetensors  metrics.jsonl  evaluations.json
                   recalibrations.json
      bench/  noise.csv  shots.csv  figures
      certify/ARM/  certificate.json  VARIANT/seed_N/  closed_form/seed_N.pt2  seed_N.onnx
      extension.json  while a finished run is extended: what it had before
      compression.json  of a compressed run: what it is compressed from, and the gates of each depth
      devices/NAME/  submission.json  journal.jsonl  jobs/

Every file is written whole or not at all. A finished piece is read again and not done twice.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qkd_qiskit.data.settled import settled
from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import CheckpointError, StorageError
from qkd_qiskit.experiments.evaluation import Evaluation
from qkd_qiskit.experiments.json_codec import decode, encode
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.teaching_students import students_digest, teaching_seeds
from qkd_qiskit.recipe import Recipe, TeacherSpec
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe
from qkd_qiskit.storage import absolute_path, remove_unfinished, take_lock, user_path, write_text
from qkd_qiskit.students.base import WEIGHTS_FILE

RECIPE, RESULT, REPORT = "recipe.yaml", "result.json", "report.html"
DEVICES, EVALUATIONS, LOCK = "devices", "evaluations.json", ".lock"
CERTIFY = "certify"
TEACHER, TEACHERS, CIRCUIT = "teacher.safetensors", "teachers", "circuit.qasm"
EXTENSION, PROVENANCE, METRICS = "extension.json", "provenance.json", "metrics.jsonl"


class RunFolder:
    """One run on disk.

    Attributes:
        path: The folder.
        recipe: The recipe that it was started with.
    """

    def __init__(self, path: Path, recipe: Recipe) -> None:
        self.path, self.recipe = path, recipe

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> RunFolder:
        """Make a new folder that holds the recipe, its paths made absolute.

        Raises:
            CheckpointError: The folder holds something already.
            DataError: The recipe's own data file cannot be read.
            TeacherError: The run whose students teach has no such arm or seed.
            StorageError: The folder cannot be written.
        """
        path = user_path(path)
        try:
            entries = [path] if path.is_file() else list(path.iterdir()) if path.exists() else []
        except OSError as error:
            raise StorageError(f"output folder {path}: {error.strerror or error}") from error
        if path / RECIPE in entries:
            raise _holds_another_run(path)
        if entries:
            what = "is a file" if path.is_file() else f"holds other files ({entries[0].name})"
            raise CheckpointError(f"output folder {path} {what}; give a new or empty folder")
        recipe = _settled(recipe)
        _claim(path)
        write_text(path / RECIPE, dump_recipe(recipe))
        return cls(path, recipe)

    def discard(self) -> None:
        """Remove the folder again where it holds nothing but its recipe and provenance."""
        with contextlib.suppress(OSError):
            if {entry.name for entry in self.path.iterdir()} <= {RECIPE, PROVENANCE}:
                (self.path / PROVENANCE).unlink(missing_ok=True)
                (self.path / RECIPE).unlink()
                self.path.rmdir()

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """Open a folder that `create` made.

        Raises:
            CheckpointError: There is no run in the folder.
            RecipeError: Its recipe cannot be read.
        """
        path = user_path(path)
        if not (path / RECIPE).is_file():
            raise CheckpointError(
                f"{path} holds no run ({RECIPE} is not there); give the folder of a run, "
                f"for example runs/digits"
            )
        return cls(path, load_recipe(path / RECIPE))

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from working on the run until the context ends.

        Raises:
            CheckpointError: Another process works on it.
            StorageError: The folder cannot be written.
        """
        try:
            handle = take_lock(self.path / LOCK)
        except OSError as error:
            raise StorageError(f"cannot write in {self.path}: {error.strerror or error}") from error
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # Windows keeps what is open
                (self.path / LOCK).unlink()
            os.close(handle)

    @property
    def result(self) -> Result | None:
        """What result.json holds, or None before the run, or its extension, has ended."""
        return None if (self.path / EXTENSION).exists() else self.last_result

    @property
    def last_result(self) -> Result | None:
        """What result.json holds: while a run is extended, the figures of before."""
        path = self.path / RESULT
        return Result.from_json(read_json(path), where=path) if path.exists() else None

    @property
    def earlier(self) -> frozenset[tuple[str, int]]:
        """Arm and seed of the students that a run had before the extension that goes on."""
        path = self.path / EXTENSION
        trained = read_json(path)["trained"] if path.exists() else {}
        members = [(arm, seed) for arm, seeds in trained.items() for seed in seeds]
        # What was damaged since then and put aside is trained again.
        return frozenset(it for it in members if (self.member(*it) / WEIGHTS_FILE).exists())

    def begin_extension(self, recipe: Recipe) -> RunFolder:
        """Give a finished run a recipe with more seeds or arms, and return it, not ended.

        Raises:
            StorageError: The folder cannot be written.
        """
        trained = {arm: list(self.recipe.member_seeds) for arm in self.recipe.arms}
        before = (self.path / RECIPE).read_text(encoding="utf-8")
        write_json(self.path / EXTENSION, {"recipe": before, "trained": trained})
        write_text(self.path / RECIPE, dump_recipe(recipe))
        return RunFolder(self.path, recipe)

    def abandon_extension(self) -> None:
        """Make it the run of before again, where nothing has been trained for its extension."""
        record, earlier = read_json(self.path / EXTENSION), self.earlier
        new = [member for member in self.members if member not in earlier]
        if not any(self.member(*member).exists() for member in new):
            write_text(self.path / RECIPE, record["recipe"])
            (self.path / EXTENSION).unlink()

    def forget_earlier(self, arm: str) -> None:
        """Take an arm out of what the run had before its extension: it is trained again."""
        record = read_json(self.path / EXTENSION)
        record["trained"].pop(arm, None)
        write_json(self.path / EXTENSION, record)

    def ended(self) -> Result:
        """Return what result.json holds.

        Raises:
            CheckpointError: The run has not ended, or the file is damaged.
        """
        result = self.result
        if result is None:
            raise CheckpointError(
                f"{self.path} has no {RESULT}: the run has not ended; continue it with "
                f"qkd distill --resume {self.path}"
            )
        return result

    def end(self, result: Result) -> None:
        """Write result.json, and clear away what processes that were killed on the way left.

        Raises:
            StorageError: The file could not be written.
        """
        write_json(self.path / RESULT, result.to_json())
        (self.path / EXTENSION).unlink(missing_ok=True)
        remove_unfinished(self.path)

    def member(self, arm: str, seed: int) -> Path:
        """Return the folder of one trained student."""
        return self.path / arm / f"seed_{seed}"

    @property
    def members(self) -> list[tuple[str, int]]:
        """Arm and seed of every student, seed by seed."""
        return [(arm, seed) for seed in self.recipe.member_seeds for arm in self.recipe.arms]

    def checkpoint(self, population: str) -> Path:
        """Return the file of a population that is being trained."""
        return self.path / "checkpoints" / f"{population}.safetensors"

    def metrics(self, arm: str, seed: int) -> list[EpochMetrics]:
        """Return the figures of one student, epoch by epoch."""
        path = self.member(arm, seed) / METRICS
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        figures = (_parse_epoch(line) for line in lines)
        return [epoch for epoch in figures if epoch is not None]

    def append_metrics(self, arm: str, seed: int, epoch: EpochMetrics) -> None:
        """Write the figures of one more epoch, in place of what an interrupted run had after it."""
        path = self.member(arm, seed) / METRICS
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if text.count("\n") == epoch.epoch - 1 and (not text or text.endswith("\n")):
            append_line(path, _epoch_line(epoch))
        else:
            kept = [figures for figures in self.metrics(arm, seed) if figures.epoch < epoch.epoch]
            self.write_metrics(arm, seed, [*kept, epoch])

    def write_metrics(self, arm: str, seed: int, history: Sequence[EpochMetrics]) -> None:
        """Write the figures of all epochs, in place of what is there."""
        path = self.member(arm, seed) / METRICS
        write_text(path, "".join(_epoch_line(epoch) for epoch in history))

    def evaluations(self, arm: str, seed: int) -> dict[str, Evaluation]:
        """Return the evaluations of one student by the key of their target."""
        path = self.member(arm, seed) / EVALUATIONS
        content = read_json(path) if path.exists() else {}
        return {key: decode(Evaluation, item, where=path) for key, item in content.items()}

    def add_evaluation(self, arm: str, seed: int, *, key: str, evaluation: Evaluation) -> None:
        """Keep the figures of one student on one target."""
        evaluations = self.evaluations(arm, seed) | {key: evaluation}
        write_json(self.member(arm, seed) / EVALUATIONS, encode(evaluations))

    def drop_evaluation(self, arm: str, seed: int, *, key: str) -> None:
        """Remove figures that do not hold any more."""
        kept = {name: it for name, it in self.evaluations(arm, seed).items() if name != key}
        write_json(self.member(arm, seed) / EVALUATIONS, encode(kept))


def _holds_another_run(path: Path) -> CheckpointError:
    return CheckpointError(
        f"output folder {path} holds another run; give another --out, or continue that run with "
        f"--resume {path}"
    )


def _claim(path: Path) -> None:
    """Make the file of the recipe, which only one of two runs that start at once can."""
    try:
        path.mkdir(parents=True, exist_ok=True)
        (path / RECIPE).touch(exist_ok=False)
    except FileExistsError as error:
        if (path / RECIPE).exists():
            raise _holds_another_run(path) from error
        raise StorageError(f"output folder {path}: {error.strerror}") from error
    except OSError as error:
        raise StorageError(f"output folder {path}: {error.strerror or error}") from error


def _settled(recipe: Recipe) -> Recipe:
    """Return the recipe as it is understood from any folder, with the digest of its data."""
    teacher = recipe.teacher
    if teacher.run is not None:
        teacher = replace(teacher, run=absolute_path(teacher.run))
        teacher = replace(teacher, digest=teacher.digest or _teaching_digest(teacher, recipe))
    return replace(
        recipe,
        data=settled(recipe.data),
        arms=recipe.arms_with_probe,
        teacher=replace(teacher, checkpoint=absolute_path(teacher.checkpoint)),
        student=replace(recipe.student, circuit=absolute_path(recipe.student.circuit)),
    )


def teaching_run(spec: TeacherSpec) -> RunFolder:
    """Return the earlier run whose students teach.

    Raises:
        CheckpointError: There is no run in its folder.
        RecipeError: Its recipe cannot be read.
    """
    assert spec.run is not None  # as the specification has seen to
    try:
        return RunFolder.open(spec.run)
    except CheckpointError as error:
        raise CheckpointError(f"teacher.run: {error}") from error


def _teaching_digest(spec: TeacherSpec, recipe: Recipe) -> str:
    earlier = teaching_run(spec)
    seeds = teaching_seeds(spec, earlier.recipe, seeds=recipe.member_seeds)
    return students_digest(earlier.member(spec.arm, seed) for seed in seeds)


def new_folder(recipe_name: str, *, suffix: str = "", parent: Path = Path("runs")) -> Path:
    """Return a path for a new run that nothing is at: runs/digits, then runs/digits-2, ..."""
    stem = re.sub(r"[^\w.-]", "_", Path(recipe_name).stem) or "run"
    return next(path for path in numbered_paths(parent / f"{stem}{suffix}") if not path.exists())


def numbered_paths(path: Path) -> Iterator[Path]:
    """Yield the path, then with -2, -3, ... behind it."""
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


def _epoch_line(epoch: EpochMetrics) -> str:
    return json.dumps(encode(epoch.to_json()), allow_nan=False) + "\n"


def _parse_epoch(line: str) -> EpochMetrics | None:
    """Return the figures in a line, or None for one that was cut short."""
    try:
        figures = json.loads(line)
        known = {key: math.nan if item is None else item for key, item in figures.items()}
        return EpochMetrics.from_json(known)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None


def append_line(path: Path, line: str) -> None:
    """Append one line to a file.

    Raises:
        StorageError: The line could not be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8") as file:
            file.write(line)
    except OSError as error:
        raise StorageError(f"cannot write {path}: {error.strerror or error}") from error


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({error}); delete it and run --resume to write it again"
        ) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no object; delete it and run --resume")
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as indented JSON, whole or not at all; what is not finite is null.

    Raises:
        StorageError: The file could not be written.
    """
    write_text(path, json.dumps(encode(content), indent=2, allow_nan=False) + "\n")
