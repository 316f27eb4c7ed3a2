"""The run folder: what a run has written, and how it goes on after a stop.

    runs/NAME/
      recipe.yaml  teacher.safetensors  teacher.json  circuit.qasm  result.json  report.html
      checkpoints/POPULATION.safetensors
      ARM/seed_N/  student.json  weights.safetensors  metrics.jsonl  evaluations.json

Every file is written whole or not at all. A finished piece is found again and not done twice.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from qkd_qiskit.distill import Epoch
from qkd_qiskit.errors import CheckpointError, StorageError
from qkd_qiskit.recipe import Recipe, dump_recipe, load_recipe
from qkd_qiskit.storage import write_text

RECIPE, RESULT, REPORT = "recipe.yaml", "result.json", "report.html"
TEACHER, CIRCUIT = "teacher.safetensors", "circuit.qasm"


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
        """A new folder that holds the recipe.

        Raises:
            CheckpointError: The folder holds something already.
            StorageError: The folder cannot be written.
        """
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            what = "holds another run" if (path / RECIPE).exists() else "is not empty"
            raise CheckpointError(
                f"output folder {path} {what}; give another --out, or continue it with "
                f"--resume {path}"
            )
        write_text(path / RECIPE, dump_recipe(recipe))
        return cls(path, recipe)

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """A folder that `create` made.

        Raises:
            CheckpointError: There is no run in the folder.
            RecipeError: Its recipe cannot be read.
        """
        path = Path(path)
        if not (path / RECIPE).is_file():
            raise CheckpointError(
                f"{path} holds no run ({RECIPE} is not there); give the folder of a run, "
                f"for example runs/digits"
            )
        return cls(path, load_recipe(path / RECIPE))

    @property
    def result(self) -> dict[str, Any] | None:
        """What result.json holds, or None before the run has ended."""
        return read_json(self.path / RESULT) if (self.path / RESULT).exists() else None

    def member(self, arm: str, seed: int) -> Path:
        """Folder of one trained student."""
        return self.path / arm / f"seed_{seed}"

    def checkpoint(self, population: str) -> Path:
        """File of a population that is being trained."""
        return self.path / "checkpoints" / f"{population}.safetensors"

    def metrics(self, arm: str, seed: int) -> list[Epoch]:
        """The figures of one student, epoch by epoch."""
        path = self.member(arm, seed) / "metrics.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return [Epoch(**json.loads(line)) for line in lines if line.endswith("}")]

    def append_metrics(self, arm: str, seed: int, epoch: Epoch) -> None:
        """Write the figures of one more epoch, in place of what an interrupted run had after it."""
        path = self.member(arm, seed) / "metrics.jsonl"
        written = path.read_text(encoding="utf-8").count("\n") if path.exists() else 0
        line = json.dumps(asdict(epoch)) + "\n"
        if written == epoch.epoch - 1:
            append_line(path, line)
        else:
            kept = [figures for figures in self.metrics(arm, seed) if figures.epoch < epoch.epoch]
            write_text(path, "".join(json.dumps(asdict(item)) + "\n" for item in kept) + line)

    def evaluations(self, arm: str, seed: int) -> dict[str, Any]:
        """What has been evaluated of one student: target -> figures."""
        path = self.member(arm, seed) / "evaluations.json"
        return read_json(path) if path.exists() else {}

    def add_evaluation(self, arm: str, seed: int, *, key: str, figures: Mapping[str, Any]) -> None:
        """Keep the figures of one student on one target."""
        evaluations = self.evaluations(arm, seed) | {key: dict(figures)}
        write_json(self.member(arm, seed) / "evaluations.json", evaluations)


def new_folder(recipe_name: str, *, parent: Path = Path("runs")) -> Path:
    """A path for a new run that nothing is at: runs/digits, then runs/digits-2, ..."""
    stem = re.sub(r"[^\w.-]", "_", Path(recipe_name).stem) or "run"
    return next(path for path in _candidates(parent / stem) if not path.exists())


def _candidates(path: Path) -> Iterator[Path]:
    yield path
    number = 2
    while True:
        yield path.with_name(f"{path.name}-{number}")
        number += 1


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
    """The object in a JSON file.

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
    """Write an object as indented JSON, whole or not at all.

    Raises:
        StorageError: The file could not be written.
    """
    write_text(path, json.dumps(content, indent=2) + "\n")
