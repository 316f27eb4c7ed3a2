"""A folder to publish: a finished run without what is of this computer, with circuits and a card.

    FOLDER/
      README.md  recipe.yaml  result.json  provenance.json  report.html
      teacher.safetensors  circuit.qasm
      ARM/seed_N/  student.json  weights.safetensors  metrics.jsonl  evaluations.json
                   bound.qasm  bound.qpy

It is a run folder itself. Paths of this computer become names, the home folder becomes `~`; jobs
on devices, sweeps and checkpoints stay behind.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

from qkd_qiskit.errors import CheckpointError, StorageError
from qkd_qiskit.experiments.provenance import read_provenance
from qkd_qiskit.experiments.run_folder import (
    CIRCUIT,
    EVALUATIONS,
    METRICS,
    PROVENANCE,
    RECIPE,
    RESULT,
    TEACHER,
    TEACHERS,
    RunFolder,
)
from qkd_qiskit.recipe import Recipe
from qkd_qiskit.recipe.parsing import dump_recipe
from qkd_qiskit.report.bound_circuits import write_bound_circuits
from qkd_qiskit.report.model_card import model_card
from qkd_qiskit.report.report import write_report
from qkd_qiskit.storage import user_path, write_text
from qkd_qiskit.students.base import CARD_FILE, CIRCUIT_FILE, WEIGHTS_FILE
from qkd_qiskit.students.factory import load_student

CARD = "README.md"
_OF_A_STUDENT = (CARD_FILE, WEIGHTS_FILE, CIRCUIT_FILE, METRICS, EVALUATIONS)
_TEXTS = (".json", ".jsonl", ".qasm", ".yaml")


def publish(folder: RunFolder, out: str | Path) -> Path:
    """Write a finished run as a folder to publish, and return its path.

    Args:
        folder: The run.
        out: A new or empty folder.

    Raises:
        CheckpointError: The run has not ended, or the folder holds something.
        StorageError: A file could not be written.
    """
    folder.ended()
    out = user_path(out)
    if out.is_file() or (out.exists() and any(out.iterdir())):
        raise CheckpointError(f"{out} is there already; give a new or empty folder for --out")
    try:
        _copy(folder, out)
    except OSError as error:
        raise StorageError(f"cannot write {out}: {error.strerror or error}") from error
    published = RunFolder.open(out)
    for member in published.members:
        path = published.member(*member)
        write_bound_circuits(load_student(path), path)
    result = published.ended()
    write_report(published)
    write_text(out / CARD, model_card(published, result, read_provenance(published)))
    return out


def portable(recipe: Recipe) -> Recipe:
    """Return a recipe without paths of this computer: files are beside it, by their names."""
    data, teacher, student = recipe.data, recipe.teacher, recipe.student
    return replace(
        recipe,
        data=replace(data, root=None, file=None if data.file is None else Path(data.file).name),
        teacher=replace(
            teacher,
            checkpoint=None if teacher.checkpoint is None else TEACHER,
            run=None if teacher.run is None else Path(teacher.run).name,
        ),
        student=student if student.circuit is None else replace(student, circuit=CIRCUIT),
    )


def _copy(folder: RunFolder, out: Path) -> None:
    names = [RESULT, PROVENANCE, CIRCUIT, TEACHER]
    beside = [*folder.path.glob("tuning/**/*.json"), *folder.path.glob(f"{TEACHERS}/**/*")]
    names += [str(path.relative_to(folder.path)) for path in beside if path.is_file()]
    for arm, seed in folder.members:
        member = folder.member(arm, seed).relative_to(folder.path)
        names += [str(member / name) for name in _OF_A_STUDENT]
    for name in names:
        if (folder.path / name).exists():
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            _copy_file(folder.path / name, out / name)
    write_text(out / RECIPE, _without_home(dump_recipe(portable(folder.recipe))))


def _copy_file(source: Path, copy: Path) -> None:
    if source.suffix not in _TEXTS:
        shutil.copyfile(source, copy)
        return
    text = _without_home(source.read_text(encoding="utf-8"))
    if source.name == CARD_FILE:
        card = json.loads(text)
        # The circuit of one's own is beside it: circuit.qasm.
        card["student"]["circuit"] = None
        text = json.dumps(card, indent=2) + "\n"
    write_text(copy, text)


def _without_home(text: str) -> str:
    home = str(Path.home())
    return (
        re.sub(rf"(?<![\w/.~-]){re.escape(home)}(?=[/\s\"':]|$)", "~", text)
        if len(home) > 1
        else text
    )
