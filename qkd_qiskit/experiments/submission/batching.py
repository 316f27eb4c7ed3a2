"""Trained students on a device: what is sent, in which order, and what comes back.

The circuits of all students for one image lie side by side in one job, so that a device that drifts
during a job does so for both arms of a pair alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from torch import Tensor

from qkd_qiskit.experiments.simulator_check import in_order, parameter_columns
from qkd_qiskit.recipe import RuntimeSpec
from qkd_qiskit.students.circuit_student import CircuitStudent
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, content_digest
from qkd_qiskit.targets.ibm.cost_estimate import Call, Load
from qkd_qiskit.targets.ibm.fractional import fold_rzz, has_free_rzz
from qkd_qiskit.targets.ibm.job_plan import Limits, Pub, executed_shots
from qkd_qiskit.targets.ibm.target import RuntimeTarget
from qkd_qiskit.targets.ibm.usage_model import Timing, seconds_per_execution
from qkd_qiskit.targets.mitigation import confusion_from_counts, mitigate_readout

EVALUATE = "evaluate/"
LONGEST_JOB_S = 600.0
"""QPU seconds of a job: what is lost at most when one fails; its overhead of 2 s is 0.3 %."""
CALIBRATION_ROWS = 2
"""Rows of a PUB that calibrates readout: all qubits in 0, all in 1."""
MemberKey = tuple[str, int]


@dataclass(frozen=True, eq=False)
class CircuitGroup:
    """Students that share a circuit and its bases, each with weights of its own.

    Attributes:
        compiled: The circuit as the device runs it, once for each basis that is measured.
        members: Arm and seed of each student.
        students: The students, in the same order.
        calibrations: The circuit that tells the readout errors of each of `compiled`, in every job;
            empty where they are not taken back.
    """

    compiled: tuple[CompiledCircuit, ...]
    members: tuple[MemberKey, ...]
    students: tuple[CircuitStudent, ...]
    calibrations: tuple[CompiledCircuit, ...] = ()

    @property
    def num_pubs(self) -> int:
        """PUBs of a job."""
        return len(self.compiled) + len(self.calibrations)

    @property
    def rows_per_image(self) -> int:
        """Rows of a PUB that an image takes."""
        return len(self.students) * self.students[0].runs_per_image

    def loads(self, images: int) -> list[Load]:
        """Return what so many images take of the device in a job, PUB by PUB."""
        rows = [(compiled, images * self.rows_per_image) for compiled in self.compiled]
        rows += [(compiled, CALIBRATION_ROWS) for compiled in self.calibrations]
        return [
            Load(
                rows=number,
                duration_s=compiled.duration_s or 0.0,
                two_qubit_gates=compiled.two_qubit_gates,
            )
            for compiled, number in rows
        ]

    def pubs(self, images: Tensor, *, shots: int) -> list[Pub]:
        """Return all students' circuits for images, those of one image side by side.

        Each basis is a PUB of its own; those that calibrate the readout follow.
        """
        turned = np.array([[0.0], [np.pi]])
        columns = [parameter_columns(each, each.features(images)) for each in self.students]
        return [
            Pub.of(
                compiled,
                np.stack([in_order(own, compiled.parameters) for own in columns], axis=1).reshape(
                    -1, len(compiled.parameters)
                ),
                shots=shots,
            )
            for compiled in self.compiled
        ] + [Pub.of(compiled, turned, shots=shots) for compiled in self.calibrations]

    @torch.no_grad()
    def logits(
        self, counts: Sequence[NDArray[np.int64]], images: Tensor
    ) -> dict[MemberKey, Tensor]:
        """Return each student's logits `(images, num_classes)`.

        Args:
            counts: Of each PUB `(rows, 2^n)`.
            images: What was measured.

        Raises:
            TargetError: Readout says nothing about a qubit, and is to be mitigated.
        """
        shares = [each / each.sum(axis=1, keepdims=True) for each in counts]
        measured, calibrated = shares[: len(self.compiled)], shares[len(self.compiled) :]
        for index, (zeros, ones) in enumerate(calibrated):
            confusion = confusion_from_counts(zeros, ones)
            measured[index] = mitigate_readout(measured[index], confusion)
        frequencies = np.concatenate(measured, axis=1)
        by_student = frequencies.reshape(-1, len(self.students), frequencies.shape[1])
        return {
            member: student.decode(
                torch.from_numpy(by_student[:, index].copy()), student.features(images)
            )
            for index, (member, student) in enumerate(zip(self.members, self.students, strict=True))
        }


def group_students(
    students: Sequence[tuple[MemberKey, CircuitStudent]], target: Target
) -> list[CircuitGroup]:
    """Return students by circuit, compiled for a device, with what calibrates its readout.

    Gates rzz are folded into the range of fractional gates, by each student's own weights.

    Raises:
        TargetError: The device cannot run a circuit.
    """
    device = target if isinstance(target, RuntimeTarget) else None
    options = RuntimeSpec() if device is None else device.runner.options
    circuits_of: dict[str, list[QuantumCircuit]] = {}
    groups: dict[str, list[tuple[MemberKey, CircuitStudent]]] = {}
    for member, student in students:
        circuits = list(student.circuits)
        if options.fractional and any(map(has_free_rzz, circuits)):
            values = student.weights.detach().double().tolist()
            weights = dict(zip(student.weight_names, values, strict=True))
            circuits = [fold_rzz(circuit, weights) for circuit in circuits]
        key = " ".join(content_digest(circuit) for circuit in circuits)
        groups.setdefault(key, []).append((member, student))
        circuits_of[key] = circuits
    made = []
    for key, shared in groups.items():
        compiled = tuple(target.compile(circuit) for circuit in circuits_of[key])
        calibrations: tuple[CompiledCircuit, ...] = ()
        if device is not None and options.readout_mitigation:
            calibrations = tuple(device.calibration(it.measured) for it in compiled)
        group = CircuitGroup(
            compiled=compiled,
            members=tuple(member for member, _ in shared),
            students=tuple(student for _, student in shared),
            calibrations=calibrations,
        )
        made.append(group)
    return made


def images_per_job(
    groups: Sequence[CircuitGroup],
    *,
    shots: int,
    limits: Limits,
    twirled: bool = False,
    timing: Timing | None = None,
    longest_s: float = LONGEST_JOB_S,
) -> int:
    """Return how many images go into a job: whole images, at least one.

    Args:
        groups: The students.
        shots: Shots per circuit.
        limits: What a job may be at most.
        twirled: Whether gates or measurements are twirled.
        timing: The device's times.
        longest_s: QPU seconds of a job.
    """
    runs = executed_shots(shots, twirled=twirled)
    executions = runs * sum(len(group.compiled) * group.rows_per_image for group in groups)
    seconds = sum(
        runs * group.rows_per_image * seconds_per_execution(compiled.duration_s or 0.0, timing)
        for group in groups
        for compiled in group.compiled
    )
    once = runs * CALIBRATION_ROWS * sum(len(group.calibrations) for group in groups)
    fit = max(0, limits.max_executions - once) // executions
    return max(1, min(fit, int(longest_s // seconds)))


def chunks(images: int, *, per_job: int) -> Iterator[tuple[str, slice]]:
    """Yield the images of each job, with the key that it has in the journal."""
    for number, first in enumerate(range(0, images, per_job)):
        yield f"{EVALUATE}{number:04d}", slice(first, min(images, first + per_job))


def evaluation_calls(groups: Sequence[CircuitGroup], *, images: int, per_job: int) -> list[Call]:
    """Return what an evaluation takes of the device, job by job."""
    return [
        tuple(load for group in groups for load in group.loads(part.stop - part.start))
        for _, part in chunks(images, per_job=per_job)
    ]
