"""What a run was compressed from, for what, and what came of it; see `compression_plan`."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from qkd_qiskit.experiments.json_codec import OMITTED, decode, encode
from qkd_qiskit.experiments.recalibration import SUFFIX
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder, read_json, write_json
from qkd_qiskit.experiments.statistics import mean_interval
from qkd_qiskit.recipe.arms import BASELINE

COMPRESSION = "compression.json"
TeacherChoice = Literal["student", "ensemble", "classical"]
Method = Literal["default", "halving", "random"]


@dataclass(frozen=True, kw_only=True)
class CompressedDepth:
    """Students of one depth.

    Attributes:
        arm: Their arm in the run.
        layers: Their layers.
        two_qubit_gates: Of their circuit on the target, after transpiling.
    """

    arm: str
    layers: int
    two_qubit_gates: int


@dataclass(frozen=True, kw_only=True)
class SearchedStudent:
    """The best student of one way to search.

    Attributes:
        method: halving, random, or default: what would be trained without a search.
        tried: Candidates that were looked at.
        qubits: Its qubits, and so are the next five its settings.
        ansatz: See above.
        layers: See above.
        features: See above.
        sharpness: See above.
        two_qubit_gates: Of its circuit on the device.
        selection: Accuracy under the exact noise on the half that chose, a mean over seeds.
        confirmation: The same on the other half.
    """

    method: Method
    tried: int
    qubits: int
    ansatz: str
    layers: int
    features: int | None
    sharpness: float | None
    two_qubit_gates: int
    selection: float
    confirmation: float


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, and random search with as many seconds.

    Attributes:
        seconds: What each of the two was given.
        target: Whose exact noise candidates were chosen under.
        images: Validation images of the half that chose, and of the other.
        seeds: Seeds of each candidate.
        best: The default, the best of the search and the best of random search.
        chosen: Which of them is compressed into: the best on the half that chose.
    """

    seconds: float
    target: str
    images: tuple[int, int]
    seeds: int
    best: tuple[SearchedStudent, ...]
    chosen: Method


@dataclass(frozen=True, kw_only=True)
class Compression:
    """What a run was compressed from, and for what.

    Attributes:
        run: Folder of the earlier run.
        teacher: What of it teaches: its students one by one, all as an ensemble, or its teacher.
        arm: Arm of its students.
        target: Device that the circuits are for.
        max_two_qubit_gates: How many two-qubit gates they may have there.
        depths: What is trained, from the smallest.
        refused: Two-qubit gates of the next depth, which has too many; None where none was tried.
        teacher_gates: Two-qubit gates that the earlier circuit takes there; None where it has none,
            or does not fit.
        search: How its students were chosen; None = they are the default or what was given.
    """

    run: str
    teacher: TeacherChoice
    arm: str
    target: str
    max_two_qubit_gates: int
    depths: tuple[CompressedDepth, ...]
    refused: int | None = field(default=None, metadata=OMITTED)
    teacher_gates: int | None = field(default=None, metadata=OMITTED)
    search: Search | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class CompressionRow:
    """Accuracy at a number of two-qubit gates: mean over seeds, and half of its 95 % interval.

    Attributes:
        arm: Whose.
        two_qubit_gates: Of its circuit on the target.
        exact: Without noise and shots, on all test images.
        noisy: On the target.
        recalibrated: On the target, corrected without labels.
    """

    arm: str
    two_qubit_gates: int
    exact: tuple[float, float | None]
    noisy: tuple[float, float | None]
    recalibrated: tuple[float, float | None]


def keep_compression(folder: RunFolder, compression: Compression) -> None:
    """Write into a run what it is compressed from."""
    write_json(folder.path / COMPRESSION, encode(compression))


def read_compression(folder: RunFolder) -> Compression | None:
    """Return what a run is compressed from; None of other runs.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = folder.path / COMPRESSION
    return decode(Compression, read_json(path), where=path) if path.exists() else None


def compression_rows(result: Result, compression: Compression) -> list[CompressionRow]:
    """Return gates and accuracies of every depth, then of the label-only students of the last.

    Args:
        result: Of the compressed run, recalibrated on the target.
        compression: Of the same run.
    """
    target, last = compression.target, compression.depths[-1]
    depths = [*compression.depths, replace(last, arm=BASELINE)]
    return [
        CompressionRow(
            arm=depth.arm,
            two_qubit_gates=depth.two_qubit_gates,
            exact=_mean(result, depth.arm, "exact"),
            noisy=_mean(result, depth.arm, target),
            recalibrated=_mean(result, depth.arm, target + SUFFIX),
        )
        for depth in depths
    ]


def _mean(result: Result, arm: str, target: str) -> tuple[float, float | None]:
    """Return the mean of all seeds: few layers that learn little have not failed."""
    return mean_interval(result.accuracies(arm, target, range(len(result.seeds))))
