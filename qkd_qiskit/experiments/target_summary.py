"""What result.json says of where circuits ran: targets, compiled circuits, jobs and their cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from qkd_qiskit.experiments.evaluation import Evaluation
from qkd_qiskit.experiments.json_codec import OMITTED
from qkd_qiskit.recipe import Mode
from qkd_qiskit.students.base import Student
from qkd_qiskit.targets import AerCheck, CompiledCircuit, Simulator, Target
from qkd_qiskit.targets.recalibration import Kind

Place = Literal["device", "simulation", "rehearsal"]


@dataclass(frozen=True, kw_only=True)
class CircuitCost:
    """What a circuit costs where it was compiled for, measurement included.

    Attributes:
        two_qubit_gates: Their number.
        depth: Of the circuit.
        duration_s: Of one execution in seconds; None where the target has no durations.
        fidelity: Product of 1 - error over gates and measurements, an estimate.
        layout: Physical qubit of each logical qubit.
    """

    two_qubit_gates: int
    depth: int
    duration_s: float | None
    fidelity: float
    layout: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class DeviceJobs:
    """Jobs on a device, and what they cost.

    Attributes:
        place: A real device, the Runtime client's local testing mode, or a server on this computer.
        backend: Name of the device.
        mode: How jobs were submitted.
        submitted: First and last ISO date.
        jobs: Their ids.
        pubs: Number of PUBs.
        circuits: Circuits with their values bound.
        executions: Circuits times shots.
        qpu_seconds: What the service charged; None where it has not said so for all jobs.
        expected_qpu_seconds: What was expected.
        wait_seconds: What sessions waited for this computer between jobs, which is charged too.
        calibration_date: ISO date, of a training.
        options: What `RuntimeSpec.changes` says of how they were run; None where all was plain.
    """

    place: Place
    backend: str
    mode: Mode
    submitted: tuple[str, ...]
    jobs: tuple[str, ...]
    pubs: int
    circuits: int
    executions: int
    qpu_seconds: float | None
    expected_qpu_seconds: float
    wait_seconds: float
    calibration_date: str | None = field(default=None, metadata=OMITTED)
    options: Mapping[str, object] | None = field(default=None, metadata=OMITTED)


@dataclass(frozen=True, kw_only=True)
class RecalibrationSummary:
    """The maps that have corrected the figures on a target, means over the students.

    Attributes:
        kind: Kind of the maps.
        fitted: ISO time of the first fit.
        used: ISO time at which they were applied.
        calibration_date: ISO date of the calibration at the fit.
        images: Unlabelled images that were measured.
        shots: Shots per image of these.
        qpu_seconds: QPU seconds of one student, by IBM's formula.
        correction: Root mean square of what the maps change, over the spread of exact outputs.
        agreement_before: Share of those images whose measured choice is the exact one.
        agreement: The same by maps that were fitted without the image.
    """

    kind: Kind
    fitted: str
    used: str
    calibration_date: str | None = field(default=None, metadata=OMITTED)
    images: int
    shots: int | None
    qpu_seconds: float | None
    correction: float
    agreement_before: float
    agreement: float

    @property
    def age_days(self) -> float:
        """Days from the fit to the use."""
        seconds = datetime.fromisoformat(self.used) - datetime.fromisoformat(self.fitted)
        return seconds.total_seconds() / 86_400


@dataclass(frozen=True, kw_only=True)
class TargetSummary:
    """Where students were evaluated.

    Attributes:
        shots: Shots per image; None = exact probabilities.
        calibration_date: ISO date of the calibration that the noise is from.
        seeds: Seeds that were evaluated there; None = all.
        options: What was changed about a noisy target; None without a noise model.
        circuit: What the students' circuit costs there; None where none was compiled.
        device: Jobs, where the target is a device.
        simulators: What drew the shots under a noise model, `density` or `aer`; None without shots,
            and in files of earlier versions, where it was Aer.
        check: Circuits that Aer has run too, and how near it comes; None where it drew all.
        recalibration: What has corrected the figures; None where they are as measured.
    """

    shots: int | None
    calibration_date: str | None = field(default=None, metadata=OMITTED)
    seeds: tuple[int, ...] | None = field(default=None, metadata=OMITTED)
    options: Mapping[str, object] | None = field(default=None, metadata=OMITTED)
    circuit: CircuitCost | None = field(default=None, metadata=OMITTED)
    device: DeviceJobs | None = field(default=None, metadata=OMITTED)
    simulators: tuple[Simulator, ...] | None = field(default=None, metadata=OMITTED)
    check: AerCheck | None = field(default=None, metadata=OMITTED)
    recalibration: RecalibrationSummary | None = field(default=None, metadata=OMITTED)

    @property
    def noisy(self) -> bool:
        """Whether it has a noise model."""
        return self.options is not None

    @property
    def by_aer(self) -> bool:
        """Whether Aer drew shots under a noise model."""
        if self.shots is None or not self.noisy:
            return False
        return self.simulators is None or "aer" in self.simulators


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training a population from shots has cost.

    Attributes:
        calls: Calls of the target, one PUB each.
        steps: Gradients taken.
        circuits: Circuits with their values bound.
        executions: Circuits times shots.
    """

    calls: int = 0
    steps: int = 0
    circuits: int = 0
    executions: int = 0


def describe_target(target: Target, student: Student) -> TargetSummary:
    """Return what a target is, and what a student's circuit costs there."""
    circuit = None
    if not target.ideal and student.circuits:
        circuit = describe_circuit(target.compile(student.circuits[0]))
    return TargetSummary(
        shots=target.shots if target.sampled else None,
        calibration_date=target.calibration_date,
        options=target.options or None,
        circuit=circuit,
    )


def with_simulators(summary: TargetSummary, evaluations: Iterable[Evaluation]) -> TargetSummary:
    """Return the summary of a target with what drew the shots of its figures, and Aer's check."""
    if not summary.noisy or summary.shots is None:
        return summary
    sampled = [it for it in evaluations if it.shots is not None]
    simulators: list[Simulator] = sorted({it.simulator or "aer" for it in sampled})
    checks = [it.check for it in sampled if it.check is not None]
    return replace(
        summary,
        simulators=tuple(simulators) or None,
        check=AerCheck(
            circuits=sum(check.circuits for check in checks),
            within=max(check.within for check in checks),
        )
        if checks
        else None,
    )


def describe_circuit(compiled: CompiledCircuit) -> CircuitCost:
    """Return what a circuit costs where it was compiled for."""
    return CircuitCost(
        two_qubit_gates=compiled.two_qubit_gates,
        depth=compiled.depth,
        duration_s=compiled.duration_s,
        fidelity=compiled.fidelity,
        layout=tuple(compiled.layout),
    )
