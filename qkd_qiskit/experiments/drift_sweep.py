"""What a map that was fitted on one day still brings on later ones, on a synthetic drift.

Each seed of a run lives through a walk of its own (see `targets.drift`): its student is measured,
without shots, on the day of the calibration, where its map is fitted, and on later days. There the
figures are compared as measured, with the old map and with one that was fitted on the day. A few
more unlabelled images say, without labels, whether the old map still holds.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from qkd_qiskit.data.splits import Split
from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import exact_logits, subset, target_logits
from qkd_qiskit.experiments.recalibration import (
    USUAL_IMAGES,
    Recalibration,
    fit_recalibration,
    reference_student,
)
from qkd_qiskit.experiments.recalibration_fit import unlabelled_images
from qkd_qiskit.experiments.sweeps import FOLDER
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.recipe import IDEAL_TARGETS
from qkd_qiskit.storage import write_text
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.names import split_name

DAYS = (0, 1, 3, 7, 14, 30)
CHECK_IMAGES = 20
"""Images that say whether an old map still holds."""
FILE = "drift.csv"


@dataclass(frozen=True, kw_only=True)
class DriftRow:
    """One student on one day.

    Attributes:
        device: The device on the day of its calibration.
        day: Days after it.
        arm: Whose student.
        seed: Seed of the student, and number of the walk.
        fit_images: Images of the maps.
        images: Test images.
        exact: Accuracy without noise.
        measured: Accuracy as measured.
        stale: The same with the map of day 0.
        fresh: The same with a map of the day.
        held_out: Agreement with the exact choices that the fit of day 0 promised.
        agreement: That of the map of day 0 on `CHECK_IMAGES` other images of the day.
        again: Whether `measure_again` asks for a new map.
        moved: Whether the circuit lies on other qubits than on day 0.
    """

    device: str
    day: int
    arm: str
    seed: int
    fit_images: int
    images: int
    exact: float
    measured: float
    stale: float
    fresh: float
    held_out: float
    agreement: float
    again: bool
    moved: bool

    @property
    def key(self) -> tuple[str | int, ...]:
        """What its figures are of."""
        return self.device, self.day, self.arm, self.seed, self.fit_images, self.images


def measure_again(*, held_out: float, fitted: int, agreement: float, checked: int) -> bool:
    """Return whether an old map has to be fitted again: it agrees less than its fit promised.

    That is, by more than twice the standard error of the difference of both shares; each share is
    taken with one success and one failure more, so that 1 is not taken for certain.

    Args:
        held_out: Agreement of left-out images at the fit.
        fitted: Their number.
        agreement: Agreement of other images now.
        checked: Their number.
    """
    variance = 0.0
    for share, count in ((held_out, fitted), (agreement, checked)):
        shrunk = (share * count + 1) / (count + 2)
        variance += shrunk * (1 - shrunk) / count
    return held_out - agreement > 2 * math.sqrt(variance)


def sweep_drift(
    run: TrainedRun,
    *,
    target: str | None = None,
    days: Sequence[int] = DAYS,
    images: int = USUAL_IMAGES,
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[DriftRow]:
    """Measure the students of a run on later days of a device, and return a row for each.

    Args:
        run: A finished run.
        target: A device without the option day; default: the first one in the run's targets.
        days: Days after its calibration.
        images: Unlabelled images of each fit.
        limit: Test images; default: all.
        callback: Hears of the images that are evaluated.

    Raises:
        CheckpointError: The run has not ended, or RUN/bench/drift.csv is damaged.
        InputError: No student has a circuit, or a number is not accepted.
        TargetError: The device is unknown or cannot run the circuit exactly.
    """
    callback, recipe = callback or Callback(), run.recipe
    run.folder.ended()
    usual = next((split_name(it)[0] for it in recipe.targets if it not in IDEAL_TARGETS), None)
    device = target or usual or "fake_torino"
    members = [
        (arm, seed)
        for arm, seed in run.folder.members
        if isinstance(run.student(arm, seed=seed), CircuitStudent)
    ]
    if not members:
        raise InputError(f"{run.path}: no student has a circuit that could drift")
    test = run.data.test
    test = test if limit is None else subset(test, limit=limit, seed=recipe.seed)[0]
    pool = unlabelled_images(run.data, count=images + CHECK_IMAGES, seed=recipe.seed)
    path = run.path / FOLDER / FILE
    kept = {row.key: row for row in read_drift(path)}
    callback.stage(f"drift of {device}")
    wanted, rows = [0, *sorted({*days} - {0})], []
    for arm, seed in members:
        keys = {day: (device, day, arm, seed, images, len(test)) for day in wanted}
        if not all(key in kept for key in keys.values()):
            made = _of_member(run, arm, seed, device, days=wanted, test=test, pool=pool)
            kept |= {row.key: row for row in made}
            write_drift(path, list(kept.values()))
        callback.evaluated(len(wanted) * len(test), total=len(members) * len(wanted) * len(test))
        rows += [kept[key] for day, key in keys.items() if day in days]
    return rows


def _of_member(
    run: TrainedRun,
    arm: str,
    seed: int,
    device: str,
    *,
    days: Sequence[int],
    test: Split,
    pool: Tensor,
) -> list[DriftRow]:
    student, fitted = run.student(arm, seed=seed), len(pool) - CHECK_IMAGES
    assert isinstance(student, CircuitStudent)
    reference = reference_student(run.folder, arm, seed)
    exact, rows = exact_logits(student, test.images), []
    wanted = exact_logits(reference, pool[fitted:]).argmax(dim=1)
    first: Recalibration | None = None
    layout: tuple[int, ...] = ()
    for day in days:
        there = Target.parse(f"{device}:day={day}:walk={seed}", shots=None, seed=run.recipe.seed)
        measured, of_pool = (target_logits(student, of, target=there) for of in (test.images, pool))
        fresh = fit_recalibration(
            student,
            pool[:fitted],
            reference=reference,
            logits=of_pool[:fitted],
            target=there.name,
        )
        measured_on = there.compile(student.circuit).measured
        if first is None:
            first, layout = fresh, measured_on
        choices = first.corrected(student, of_pool[fitted:]).argmax(dim=1)
        agreement = float((choices == wanted).double().mean())
        accuracies = (
            float((logits.argmax(dim=1) == test.labels).double().mean())
            for logits in (
                exact,
                measured,
                first.corrected(student, measured),
                fresh.corrected(student, measured),
            )
        )
        rows.append(
            DriftRow(
                device=device,
                day=day,
                arm=arm,
                seed=seed,
                fit_images=fitted,
                images=len(test),
                **dict(zip(("exact", "measured", "stale", "fresh"), accuracies, strict=True)),
                held_out=first.agreement,
                agreement=agreement,
                again=measure_again(
                    held_out=first.agreement,
                    fitted=fitted,
                    agreement=agreement,
                    checked=CHECK_IMAGES,
                ),
                moved=measured_on != layout,
            )
        )
    return rows


def read_drift(path: Path) -> list[DriftRow]:
    """Return the rows in a file; none where it does not exist.

    Raises:
        CheckpointError: It is damaged.
    """
    if not path.exists():
        return []
    of: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "float": float}
    of["bool"] = "True".__eq__
    kinds = {field.name: of[str(field.type)] for field in fields(DriftRow)}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return [
                DriftRow(**{key: kind(row[key]) for key, kind in kinds.items()})
                for row in csv.DictReader(file)
            ]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}: {error}); delete it, and the "
            f"sweep starts again"
        ) from error


def write_drift(path: Path, rows: Sequence[DriftRow]) -> None:
    """Write rows as CSV, whole or not at all.

    Raises:
        StorageError: The file could not be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([field.name for field in fields(DriftRow)])
    writer.writerows(astuple(row) for row in rows)
    write_text(path, text.getvalue())
