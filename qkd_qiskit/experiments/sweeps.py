"""What noise and shots cost the students of a finished run.

A sweep is a list of targets: a device at several scales of its noise, or from several numbers of
shots. Each evaluation is kept in the run as any other, so that a stopped sweep goes on where it
was. RUN/bench/noise.csv and shots.csv hold a row for each student and setting, of all sweeps so
far.
"""

from __future__ import annotations

import csv
import io
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any

from qiskit import QuantumCircuit

from qkd_qiskit.errors import CheckpointError, TargetError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.evaluation import Evaluation
from qkd_qiskit.experiments.trained_run import TrainedRun
from qkd_qiskit.recipe import IDEAL_TARGETS, Recipe
from qkd_qiskit.storage import write_text
from qkd_qiskit.targets import Target
from qkd_qiskit.targets.names import split_name, without_option
from qkd_qiskit.targets.noisy import DeviceTarget

SCALES = (0.0, 0.25, 0.5, 1.0, 2.0, 4.0)
SHOTS: tuple[int | None, ...] = (64, 256, 1024, 4096, None)
DEFAULT_DEVICE = "fake_torino"
FOLDER = "bench"


@dataclass(frozen=True, kw_only=True)
class SweepRow:
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
        simulator: What drew the shots under a noise model, `density` or `aer`; empty without them,
            and in files of earlier versions, where it was Aer.
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
    simulator: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What its figures are of."""
        return self.target, self.scale, self.shots, self.arm, self.seed, self.images


COLUMNS = [field.name for field in fields(SweepRow)]
FIGURES = ("accuracy", "divergence", "calibration_error", "agreement")


@dataclass(frozen=True)
class _Setting:
    """A target of a sweep, and what it is called in a row."""

    name: str
    scale: float
    shots: int | None
    target: Target


def sweep_noise(
    run: TrainedRun,
    *,
    devices: Sequence[str] = (),
    scales: Sequence[float] = SCALES,
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[SweepRow]:
    """Evaluate the students of a run under the noise of devices, scaled, without shots.

    Args:
        run: A finished run.
        devices: Names of devices; default: those in the run's targets, as they are without options,
            or fake_torino.
        scales: What their noise is multiplied by: 0 = none, 1 = the device's.
        limit: Test images, a random part that is the same for the same run; default: all.
        callback: Hears of the progress.

    Raises:
        CheckpointError: The run has not ended, or RUN/bench/noise.csv is damaged.
        TargetError: A device is unknown, has no noise, or cannot run the circuit exactly.
    """
    _require_trained(run)
    recipe = run.recipe
    names = list(dict.fromkeys(devices or _devices_of(recipe) or [DEFAULT_DEVICE]))
    settings = []
    for name in names:
        target = Target.parse(name, shots=None, seed=recipe.seed) if name != "aer" else None
        if not isinstance(target, DeviceTarget):
            raise TargetError(f"{name} has no noise to scale; give devices such as fake_torino")
        if target.scale != 1:
            raise TargetError(f"{name}: the scale of a device is given by scales, not in its name")
        for scale in dict.fromkeys(map(float, scales)):
            settings.append(_Setting(name, scale, None, target.scaled(scale)))
    return _evaluate(run, settings, file="noise.csv", limit=limit, callback=callback)


def sweep_shots(
    run: TrainedRun,
    *,
    target: str | None = None,
    shots: Sequence[int | None] = SHOTS,
    limit: int | None = None,
    callback: Callback | None = None,
) -> list[SweepRow]:
    """Evaluate the students of a run on one target from ever more shots.

    Args:
        run: A finished run.
        target: `aer` or a device; default: the first device in the run's targets that takes shots,
            or fake_torino.
        shots: Shots per image; None = what they tend to, exact probabilities under the noise.
        limit: Test images; default: the recipe's `test_limit`, on the images of the run itself.
        callback: Hears of the progress.

    Raises:
        CheckpointError: The run has not ended, or RUN/bench/shots.csv is damaged.
        TargetError: The target is unknown, takes no shots or cannot run the circuit.
    """
    _require_trained(run)
    recipe = run.recipe
    own = [name for name in recipe.targets if name not in IDEAL_TARGETS]
    with_shots = (name for name in own if "exact" not in split_name(name)[1])
    name = target or next(with_shots, DEFAULT_DEVICE)
    sampled = Target.parse(name, seed=recipe.seed)
    if not sampled.sampled:
        raise TargetError(f"{name} takes no shots; give aer or a device such as fake_torino")
    settings = []
    for count in dict.fromkeys(shots):
        setting = sampled
        if count is None:
            ideal = "exact" if name == "aer" else name
            setting = Target.parse(without_option(ideal, "aer"), shots=None, seed=recipe.seed)
        settings.append(_Setting(name, float(getattr(setting, "scale", 0.0)), count, setting))
    limit = recipe.test_limit if limit is None else limit
    return _evaluate(run, settings, file="shots.csv", limit=limit, callback=callback)


def _require_trained(run: TrainedRun) -> None:
    """Refuse a run of which no student was trained."""
    failed = run.folder.ended().failed
    if all(str(seed) in failed.get(arm, {}) for arm, seed in run.folder.members):
        raise CheckpointError(
            f"all students of {run.path} failed while they trained; run it again with other "
            "settings: `failed` in its result.json says why"
        )


def trained_rows(run: TrainedRun, rows: Iterable[SweepRow]) -> list[SweepRow]:
    """Return the rows of students that were trained: those that failed are left out."""
    failed = run.result.failed
    return [row for row in rows if str(row.seed) not in failed.get(row.arm, {})]


def read_rows(path: Path) -> list[SweepRow]:
    """Return the rows in a file; none where it does not exist.

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
            f"sweep starts again"
        ) from error


def write_rows(path: Path, rows: Sequence[SweepRow]) -> None:
    """Write rows as CSV, whole or not at all; exact probabilities have an empty `shots`.

    Raises:
        StorageError: The file could not be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(row) for row in rows)
    write_text(path, text.getvalue())


def _devices_of(recipe: Recipe) -> list[str]:
    """Return the devices in a run's targets; what a target changes about one is left out."""
    bases = {name: split_name(name)[0] for name in recipe.targets if name not in IDEAL_TARGETS}
    own = (
        without_option(name, "aer") if base == "synthetic" else base for name, base in bases.items()
    )
    return list(dict.fromkeys(own))


def _evaluate(
    run: TrainedRun,
    settings: Sequence[_Setting],
    *,
    file: str,
    limit: int | None,
    callback: Callback | None,
) -> list[SweepRow]:
    """Evaluate all students on the targets of a sweep, and write their rows beside older ones."""
    path, folder = run.path / FOLDER / file, run.folder
    kept = {row.key: row for row in read_rows(path)}
    circuits = {arm: run.student(arm).circuits for arm in run.recipe.arms}
    for setting, circuit in itertools.product(settings, itertools.chain(*circuits.values())):
        setting.target.compile(circuit)  # what cannot run says so before the first student
    rows = []
    for setting in settings:
        key = run.evaluate_members(
            setting.target,
            folder.members,
            shots=setting.shots,
            limit=limit,
            compare_exact=True,
            callback=callback or Callback(),
        )
        for arm, seed in itertools.product(run.recipe.arms, run.recipe.member_seeds):
            rows.append(
                _cell(setting, arm, seed, circuits[arm][:1], folder.evaluations(arm, seed)[key])
            )
        kept |= {row.key: row for row in rows}
        write_rows(path, list(kept.values()))
    return rows


def _cell(
    setting: _Setting,
    arm: str,
    seed: int,
    circuits: Sequence[QuantumCircuit],
    evaluation: Evaluation,
) -> SweepRow:
    compiled = setting.target.compile(circuits[0]) if circuits else None
    return SweepRow(
        target=setting.name,
        scale=setting.scale,
        shots=setting.shots,
        fidelity=1.0 if compiled is None else compiled.fidelity,
        arm=arm,
        seed=seed,
        images=evaluation.images,
        accuracy=evaluation.accuracy,
        divergence=math.nan if evaluation.divergence is None else evaluation.divergence,
        calibration_error=evaluation.calibration_error,
        agreement=math.nan if (share := evaluation.exact_agreement) is None else share,
        simulator=evaluation.simulator or "",
    )


def _parse(row: dict[str, str]) -> SweepRow:
    return SweepRow(
        target=row["target"],
        scale=float(row["scale"]),
        shots=int(row["shots"]) if row["shots"] else None,
        fidelity=float(row["fidelity"]),
        arm=row["arm"],
        seed=int(row["seed"]),
        images=int(row["images"]),
        **{name: float(row[name]) for name in FIGURES},
        simulator=row.get("simulator", ""),
    )
