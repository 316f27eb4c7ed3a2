"""What noise and shots cost the students of a finished run.

A cell is one student at one setting: a device at a noise scale without shots, or a target at a
number of shots. Cells are kept in RUN/bench/noise.csv and shots.csv as they are done, and found
again: a stopped benchmark goes on where it was, and a longer list adds to what is there.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from qiskit import QuantumCircuit
from torch import Tensor

from qkd_qiskit.data.splits import Split, load_data
from qkd_qiskit.errors import CheckpointError, InputError, TargetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import (
    agreement_and_divergence,
    calibration_error,
    exact_logits,
    subset,
    target_logits,
)
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe import IDEAL_TARGETS, Recipe
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.names import split_name
from qkd_qiskit.targets.noisy import DeviceTarget

SCALES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SHOTS: tuple[int | None, ...] = (64, 256, 1024, 4096, None)
DEFAULT_DEVICE = "fake_torino"
FOLDER = "bench"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One student at one setting.

    Attributes:
        target: Where its circuit ran.
        scale: What the device's noise was multiplied by.
        shots: Shots per image; None = exact probabilities.
        fidelity: Product of 1 - error over the gates and measurements of its compiled circuit; 1
            without noise, and for a student without a circuit.
        arm: Which arm it is of.
        seed: Which seed.
        images: Number of test images.
        accuracy: Share of images whose class was chosen.
        divergence: KL(teacher || student) at temperature 1, a mean in nats.
        calibration_error: Expected calibration error, as `evaluate.calibration_error`.
        agreement: Share of images with the choice of the same student without noise and shots.
    """

    target: str
    scale: float
    shots: int | None
    fidelity: float
    arm: str
    seed: int
    images: int
    accuracy: float
    divergence: float
    calibration_error: float
    agreement: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is the figures of."""
        return self.target, self.scale, self.shots, self.arm, self.seed, self.images


COLUMNS = [field.name for field in fields(Cell)]
FIGURES = ("accuracy", "divergence", "calibration_error", "agreement")


@dataclass(frozen=True)
class _Setting:
    """Where students are tested, and what that is called in a cell."""

    target: str
    scale: float
    shots: int | None
    place: Target


@dataclass(frozen=True)
class _Sweep:
    """A run's students with what they are tested on."""

    folder: RunFolder
    students: dict[tuple[str, int], Student]
    exact: dict[tuple[str, int], Tensor]
    split: Split
    teacher_logits: dict[int, Tensor]

    @property
    def circuit(self) -> QuantumCircuit | None:
        """The circuit of the run's students; None where no circuit runs."""
        circuits = (one.circuit for one in self.students.values() if one.circuit is not None)
        return next(circuits, None)


def sweep_noise(
    folder: RunFolder,
    *,
    devices: Sequence[str] = (),
    scales: Sequence[float] = SCALES,
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[Cell]:
    """The students of a run under the noise of devices, scaled, without shots.

    Args:
        folder: A finished run.
        devices: Names of devices; default: those in the run's targets, as they are without options,
            or fake_torino.
        scales: What their noise is multiplied by: 0 = none, 1 = the device's.
        limit: Test images, a random part that is the same for the same run; default: all.
        callback: Told what goes on.

    Raises:
        CheckpointError: The run has not ended, or RUN/bench/noise.csv is damaged.
        TargetError: A device is unknown, has no noise, or cannot run the circuit exactly.
    """
    folder.ended()
    recipe, callback = folder.recipe, callback or Callback()
    names = list(dict.fromkeys(devices or _devices_of(recipe) or [DEFAULT_DEVICE]))
    settings = []
    for name in names:
        place = Target.parse(name, shots=None, seed=recipe.seed) if name != "aer" else None
        if not isinstance(place, DeviceTarget):
            raise TargetError(f"{name} has no noise to scale; give devices such as fake_torino")
        if place.scale != 1:
            raise TargetError(f"{name}: the scale of a device is given by scales, not in its name")
        for scale in dict.fromkeys(map(float, scales)):
            settings.append(_Setting(name, scale, None, place.scaled(scale)))
    bench = _open(folder, limit=limit, callback=callback)
    return _run(bench, settings, file="noise.csv", callback=callback)


def sweep_shots(
    folder: RunFolder,
    *,
    target: str | None = None,
    shots: Sequence[int | None] = SHOTS,
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[Cell]:
    """The students of a run on one target from ever more shots.

    Args:
        folder: A finished run.
        target: `aer` or a device; default: the first device in the run's targets that takes shots,
            or fake_torino.
        shots: Shots per image; None = what they tend to, exact probabilities under the noise.
        limit: Test images; default: the recipe's `test_limit`, on the images of the run itself.
        callback: Told what goes on.

    Raises:
        CheckpointError: The run has not ended, or RUN/bench/shots.csv is damaged.
        TargetError: The target is unknown, takes no shots or cannot run the circuit.
    """
    folder.ended()
    recipe, callback = folder.recipe, callback or Callback()
    own = [name for name in recipe.targets if name not in IDEAL_TARGETS]
    with_shots = (name for name in own if "exact" not in split_name(name)[1])
    name = target or next(with_shots, DEFAULT_DEVICE)
    sampled = Target.parse(name, seed=recipe.seed)
    if not sampled.sampled:
        raise TargetError(f"{name} takes no shots; give aer or a device such as fake_torino")
    settings = []
    for count in dict.fromkeys(shots):
        place = sampled
        if count is None:
            ideal = "exact" if name == "aer" else name
            place = Target.parse(ideal, shots=None, seed=recipe.seed)
        settings.append(_Setting(name, float(getattr(place, "scale", 0.0)), count, place))
    limit = recipe.test_limit if limit is None else limit
    bench = _open(folder, limit=limit, callback=callback)
    return _run(bench, settings, file="shots.csv", callback=callback)


def trained_cells(folder: RunFolder, cells: Iterable[Cell]) -> list[Cell]:
    """The cells of students that were trained: those that the run counts as failed are left out."""
    failed = (folder.result or {}).get("failed", {})
    return [cell for cell in cells if str(cell.seed) not in failed.get(cell.arm, {})]


def read_cells(path: Path) -> list[Cell]:
    """The cells in a file; none where it does not exist.

    Raises:
        CheckpointError: It is damaged.
    """
    if not path.exists():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [_parse(row) for row in csv.DictReader(file)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}); delete it, and the "
            f"benchmark starts again"
        ) from error


def write_cells(path: Path, cells: Sequence[Cell]) -> None:
    """Write cells as CSV, whole or not at all; exact probabilities have an empty `shots`.

    Raises:
        StorageError: The file could not be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(cell) for cell in cells)
    write_text(path, text.getvalue())


def _devices_of(recipe: Recipe) -> list[str]:
    """The devices in a run's targets; what a target changes about one is left out."""
    places = {name: split_name(name)[0] for name in recipe.targets if name not in IDEAL_TARGETS}
    own = (name if place == "synthetic" else place for name, place in places.items())
    return list(dict.fromkeys(own))


def _open(folder: RunFolder, *, limit: int | None, callback: Callback) -> _Sweep:
    if limit is not None and limit < 1:
        raise InputError(f"limit is {limit}; give a number of test images of at least 1")
    recipe = folder.recipe
    callback.stage("data")
    data = load_data(recipe.data, seed=recipe.seed)
    split, rows = data.test, torch.arange(len(data.test))
    if limit is not None:
        split, rows = subset(data.test, limit=limit, seed=recipe.seed)
    teachers_by_seed = load_teachers(folder, data)
    students: dict[tuple[str, int], Student] = {
        (arm, seed): load_student(folder.member(arm, seed))
        for arm in recipe.arms
        for seed in recipe.member_seeds
    }
    return _Sweep(
        folder=folder,
        students=students,
        exact={key: exact_logits(student, split.images) for key, student in students.items()},
        split=split,
        teacher_logits={
            seed: teacher.logits(data.test.images)[rows]
            for seed, teacher in teachers_by_seed.by_seed.items()
        },
    )


def _run(
    bench: _Sweep, settings: Sequence[_Setting], *, file: str, callback: Callback
) -> list[Cell]:
    """All cells of the settings; those that are not in the file are computed and added to it."""
    path, circuit = bench.folder.path / FOLDER / file, bench.circuit
    kept = read_cells(path)
    found = {cell.key: cell for cell in kept}
    images = len(bench.split)
    wanted = [(setting, *key) for setting in settings for key in bench.students]
    keys = [(s.target, s.scale, s.shots, arm, seed, images) for s, arm, seed in wanted]
    missing = [one for one, key in zip(wanted, keys, strict=True) if key not in found]
    if circuit is not None:
        for setting in dict.fromkeys(one[0] for one in missing):
            setting.place.compile(circuit)  # what cannot run says so before the first cell
    for name in dict.fromkeys(setting.target for setting, _, _ in missing):
        callback.stage(name)
        of_target = [one for one in missing if one[0].target == name]
        for setting, arm, seed in of_target:
            cell = _measure(bench, setting, arm=arm, seed=seed)
            found[cell.key] = cell
            write_cells(path, list(found.values()))
            callback.evaluated(images, total=len(of_target) * images)
    return [found[key] for key in keys]


def _measure(bench: _Sweep, setting: _Setting, *, arm: str, seed: int) -> Cell:
    student, exact = bench.students[arm, seed], bench.exact[arm, seed]
    logits, fidelity = exact, 1.0
    if student.circuit is not None:
        fidelity = setting.place.compile(student.circuit).fidelity
        logits = target_logits(
            student,
            bench.split.images,
            target=setting.place,
            shots=setting.shots,
            # The shots of the run's own evaluation: its figures are found again.
            seed=derive_seed(bench.folder.recipe.seed, "evaluate", seed),
        )
    choices, labels = logits.argmax(dim=1), bench.split.labels
    _, divergence = agreement_and_divergence(logits, bench.teacher_logits[seed])
    return Cell(
        target=setting.target,
        scale=setting.scale,
        shots=setting.shots,
        fidelity=fidelity,
        arm=arm,
        seed=seed,
        images=len(labels),
        accuracy=float((choices == labels).double().mean()),
        divergence=math.nan if divergence is None else divergence,
        calibration_error=calibration_error(logits.softmax(dim=1), labels),
        agreement=float((choices == exact.argmax(dim=1)).double().mean()),
    )


def _parse(row: dict[str, str]) -> Cell:
    return Cell(
        target=row["target"],
        scale=float(row["scale"]),
        shots=int(row["shots"]) if row["shots"] else None,
        fidelity=float(row["fidelity"]),
        arm=row["arm"],
        seed=int(row["seed"]),
        images=int(row["images"]),
        **{name: float(row[name]) for name in FIGURES},
    )
