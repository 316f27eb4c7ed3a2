"""A run in TensorBoard, MLflow or Weights & Biases, through their own libraries.

A tracker follows what the run writes into its folder: epochs that other processes trained are
there too, and a run that goes on does not say anything twice. Where it goes, and with which
account, is set as its library wants it, by environment or log-in; nothing of that is written here.
What a tracker cannot take is said in one line, and the run goes on without it.
"""

from __future__ import annotations

import logging
import math
import os
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Any, ClassVar

from qkd_qiskit.distillation.population import EpochMetrics
from qkd_qiskit.errors import InputError, first_line
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RECIPE, RESULT, RunFolder, read_json, write_json
from qkd_qiskit.recipe import Recipe

logger = logging.getLogger(__name__)

FOLDER = "tracking"
PROJECT = "qkd_qiskit"
_EVERY_S = 1.0


@dataclass(frozen=True, kw_only=True)
class Point:
    """The figures of one student after one epoch.

    Attributes:
        member: Arm and seed: `distilled/seed_0`.
        epoch: Counted from 1.
        figures: By name, those that are finite.
    """

    member: str
    epoch: int
    figures: Mapping[str, float]


class Tracker(Callback, ABC):
    """Follows a run, and tells one library of it.

    Attributes:
        name: As `track` takes it; also the extra that installs the library.
        library: What is imported.
        folder: What is followed.
    """

    name: ClassVar[str]
    library: ClassVar[str]
    folder: RunFolder

    def __init__(self) -> None:
        try:
            self.module: Any = import_module(self.library)
        except ImportError as error:
            raise InputError(
                f"track {self.name}: its library is not installed ({first_line(error)}); "
                f"pip install 'qkd-qiskit[{self.name}]', or leave track out"
            ) from error
        self._epochs: dict[str, int] = {}
        self._run: str | None = None
        self._open, self._followed = False, 0.0

    @abstractmethod
    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Begin a run of the library's, or go on with one, and return its name there."""

    @abstractmethod
    def log(self, points: Sequence[Point]) -> None:
        """Tell of epochs."""

    @abstractmethod
    def finish(self, figures: Mapping[str, float]) -> None:
        """Tell of the figures of a run that has ended, and end."""

    @abstractmethod
    def stop(self) -> None:
        """End where the run was interrupted or failed."""

    def began(self, folder: RunFolder) -> None:
        """Begin, or go on where an earlier process was."""
        self.folder = folder
        if self._path.exists():
            state = read_json(self._path)
            self._run, self._epochs = state.get("run"), dict(state.get("epochs", {}))
        self._open = True
        settings = recipe_values(folder.recipe) | {"run": str(folder.path)}
        self._tell(lambda: setattr(self, "_run", self.start(self._run, settings)))
        self._keep()

    def stage(self, text: str) -> None:
        """Tell of what the stage before has written."""
        self._follow()

    def epoch(self, figures: Sequence[EpochMetrics], *, epochs: int) -> None:
        """Tell of epochs, at most once a second."""
        if time.monotonic() - self._followed > _EVERY_S:
            self._follow()

    def tasks(self, done: int, *, total: int) -> None:
        """Tell of what other processes have written."""
        self._follow()

    def ended(self, result: Result) -> None:
        """Tell of the rest."""
        self._follow()
        self._tell(lambda: self.finish(result_values(result)))
        self._open = False

    def close(self) -> None:
        """Tell of the rest, and end, where the run has not."""
        self._follow()
        self._tell(self.stop)
        self._open = False

    @property
    def _path(self) -> Any:
        return self.folder.path / FOLDER / f"{self.name}.json"

    def _follow(self) -> None:
        """Tell of the epochs that are new in the folder."""
        if not self._open:
            return
        points, epochs = [], dict(self._epochs)
        for arm, seed in self.folder.members:
            member = f"{arm}/seed_{seed}"
            history = self.folder.metrics(arm, seed)
            points += [_point(member, it) for it in history[epochs.get(member, 0) :]]
            epochs[member] = max(len(history), epochs.get(member, 0))
        self._followed = time.monotonic()
        if points:
            self._tell(lambda: self.log(points))
            self._epochs = epochs
            self._keep()

    def _keep(self) -> None:
        """Write what has been told, for a process that goes on."""
        if self._open:
            write_json(self._path, {"run": self._run, "epochs": self._epochs})

    def _tell(self, call: Callable[[], None]) -> None:
        """Call the library; where it fails, say so once, and leave it alone from then on."""
        if not self._open:
            return
        try:
            call()
        except Exception as error:  # any of a server, a network or a library
            self._open = False
            logger.warning("track %s: %s; the run goes on without it", self.name, first_line(error))


class TensorBoard(Tracker):
    """Writes event files into the run folder: `tensorboard --logdir runs`."""

    name, library = "tensorboard", "torch.utils.tensorboard"

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Open the event file; a new run has its recipe as text."""
        self._writer = self.module.SummaryWriter(str(self.folder.path / FOLDER / self.name))
        if run is None:
            text = "\n".join(f"    {key}: {value}" for key, value in settings.items())
            self._writer.add_text("recipe", text)
        return self.name

    def log(self, points: Sequence[Point]) -> None:
        """Add a scalar for each figure."""
        for point in points:
            for key, value in point.figures.items():
                self._writer.add_scalar(f"{point.member}/{key}", value, point.epoch)
        self._writer.flush()

    def finish(self, figures: Mapping[str, float]) -> None:
        """Add the figures of the result."""
        for key, value in figures.items():
            self._writer.add_scalar(key, value)
        self._writer.close()

    def stop(self) -> None:
        """Close the event file."""
        self._writer.close()


class MLflow(Tracker):
    """Makes a run in the experiment MLFLOW_EXPERIMENT_NAME, or `qkd_qiskit`."""

    name, library = "mlflow", "mlflow"

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Create the run with the recipe as parameters, or open it again."""
        self._client = self.module.MlflowClient()
        if run is not None:
            self._client.update_run(run, status="RUNNING")
            return self._named(run)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self._client.get_experiment_by_name(name)
        number = self._client.create_experiment(name) if experiment is None else None
        created = self._client.create_run(
            experiment.experiment_id if number is None else number, run_name=self.folder.path.name
        )
        parameters = [self._entity("Param", key, str(value)) for key, value in settings.items()]
        self._client.log_batch(created.info.run_id, params=parameters)
        return self._named(created.info.run_id)

    def log(self, points: Sequence[Point]) -> None:
        """Log the figures of epochs, as many at a time as the protocol takes."""
        self._log(
            [
                (f"{point.member}/{key}", value, point.epoch)
                for point in points
                for key, value in point.figures.items()
            ]
        )

    def finish(self, figures: Mapping[str, float]) -> None:
        """Log the figures of the result and its files."""
        self._log([(key, value, 0) for key, value in figures.items()])
        for name in (RECIPE, RESULT):
            self._client.log_artifact(self._number, str(self.folder.path / name))
        self._client.set_terminated(self._number, "FINISHED")

    def stop(self) -> None:
        """Mark the run as killed."""
        self._client.set_terminated(self._number, "KILLED")

    def _named(self, number: str) -> str:
        self._number = number
        return number

    def _entity(self, kind: str, *values: Any) -> Any:
        return getattr(self.module.entities, kind)(*values)

    def _log(self, figures: Sequence[tuple[str, float, int]]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entity("Metric", re.sub(r"[^\w\-. :/]", "_", key), value, now, step)
            for key, value, step in figures
        ]
        for start in range(0, len(metrics), 1000):
            self._client.log_batch(self._number, metrics=metrics[start : start + 1000])


class WeightsAndBiases(Tracker):
    """Makes a run of the project WANDB_PROJECT, or `qkd_qiskit`; WANDB_MODE=offline works too."""

    name, library = "wandb", "wandb"

    def start(self, run: str | None, settings: Mapping[str, Any]) -> str:
        """Create the run with the recipe as configuration, or go on with it."""
        (self.folder.path / FOLDER).mkdir(exist_ok=True)
        self._wandb = self.module.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.folder.path.name,
            id=run,
            resume="allow",
            dir=str(self.folder.path / FOLDER),
            config=dict(settings),
            settings=self.module.Settings(console="off", silent=True),
        )
        for arm, seed in self.folder.members:
            self._wandb.define_metric(f"{arm}/seed_{seed}/*", step_metric="epoch")
        return str(self._wandb.id)

    def log(self, points: Sequence[Point]) -> None:
        """Log each student's epoch, with the epoch as the step."""
        for point in points:
            named = {f"{point.member}/{key}": value for key, value in point.figures.items()}
            self._wandb.log({"epoch": point.epoch, **named})

    def finish(self, figures: Mapping[str, float]) -> None:
        """Put the figures of the result into the summary."""
        self._wandb.summary.update(dict(figures))
        self._wandb.finish()

    def stop(self) -> None:
        """End the run as one that failed."""
        self._wandb.finish(exit_code=1)


TRACKERS: dict[str, type[Tracker]] = {
    kind.name: kind for kind in (TensorBoard, MLflow, WeightsAndBiases)
}


def make_tracker(name: str) -> Tracker:
    """Return the tracker of a name.

    Raises:
        InputError: There is none, or its library is not installed.
    """
    if name not in TRACKERS:
        raise InputError(f"track: {name!r} is not accepted; give one of {', '.join(TRACKERS)}")
    return TRACKERS[name]()


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """Return the settings of a recipe by their keys; lists and mappings as text."""
    values: dict[str, Any] = {}
    for key, value in asdict(recipe).items():
        inner = value if isinstance(value, dict) and key != "own_arms" else {"": value}
        for name, item in inner.items():
            plain = item is None or isinstance(item, bool | int | float | str)
            values[f"{key}.{name}".rstrip(".")] = item if plain else str(item)
    return values


def result_values(result: Result) -> dict[str, float]:
    """Return mean test accuracies as fractions, and gains in points, by name."""
    values = {}
    for arm in result.arms:
        for target in result.targets:
            rows = result.kept_rows(arm, target=target)
            accuracies = result.accuracies(arm, target, rows)
            if accuracies:
                values[f"test_accuracy/{arm}/{target}"] = math.fsum(accuracies) / len(accuracies)
    gains = {f"gain/{target}": gain.mean for target, gain in result.gain.items()}
    return values | {key: value for key, value in gains.items() if value is not None}


def _point(member: str, epoch: EpochMetrics) -> Point:
    figures = {key: value for key, value in epoch.to_json().items() if key != "epoch"}
    finite = {key: value for key, value in figures.items() if math.isfinite(value)}
    return Point(member=member, epoch=epoch.epoch, figures=finite)
