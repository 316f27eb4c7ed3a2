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
from torch import Tensor

from qkd_qiskit.experiments.simulator_check import parameter_values
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit, content_digest
from qkd_qiskit.targets.ibm.cost_estimate import Call, Load
from qkd_qiskit.targets.ibm.job_plan import Limits, Pub, executed_shots
from qkd_qiskit.targets.ibm.usage_model import Timing, seconds_per_execution

EVALUATE = "evaluate/"
LONGEST_JOB_S = 600.0
"""QPU seconds of a job: what is lost at most when one fails; its overhead of 2 s is 0.3 %."""
MemberKey = tuple[str, int]


@dataclass(frozen=True, eq=False)
class CircuitGroup:
    """Students that share a circuit, each with weights of its own.

    Attributes:
        compiled: The circuit as the device runs it.
        members: Arm and seed of each student.
        students: The students, in the same order.
    """

    compiled: CompiledCircuit
    members: tuple[MemberKey, ...]
    students: tuple[QuantumStudent, ...]

    def load(self, images: int) -> Load:
        """Return what so many images take of the device."""
        return Load(
            rows=images * len(self.students),
            duration_s=self.compiled.duration_s or 0.0,
            two_qubit_gates=self.compiled.two_qubit_gates,
        )

    def pub(self, images: Tensor, *, shots: int) -> Pub:
        """Return all students' circuits for images, those of one image side by side."""
        names = self.compiled.parameters
        values = [parameter_values(student, images, names=names) for student in self.students]
        rows = np.stack(values, axis=1).reshape(-1, len(names))
        return Pub.of(self.compiled, rows, shots=shots)

    @torch.no_grad()
    def logits(self, counts: NDArray[np.int64]) -> dict[MemberKey, Tensor]:
        """Return each student's logits `(images, num_classes)` from counts `(rows, 2^n)`."""
        frequencies = counts / counts.sum(axis=1, keepdims=True)
        by_student = frequencies.reshape(-1, len(self.students), frequencies.shape[1])
        return {
            member: student.decode(torch.from_numpy(by_student[:, index].copy()))
            for index, (member, student) in enumerate(zip(self.members, self.students, strict=True))
        }


def group_students(
    students: Sequence[tuple[MemberKey, QuantumStudent]], target: Target
) -> list[CircuitGroup]:
    """Return students by circuit, compiled for a device.

    Raises:
        TargetError: The device cannot run a circuit.
    """
    groups: dict[str, list[tuple[MemberKey, QuantumStudent]]] = {}
    for member, student in students:
        groups.setdefault(content_digest(student.circuit), []).append((member, student))
    return [
        CircuitGroup(
            compiled=target.compile(shared[0][1].circuit),
            members=tuple(member for member, _ in shared),
            students=tuple(student for _, student in shared),
        )
        for shared in groups.values()
    ]


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
    executions = runs * sum(len(group.students) for group in groups)
    seconds = sum(
        runs * len(group.students) * seconds_per_execution(group.compiled.duration_s or 0.0, timing)
        for group in groups
    )
    return max(1, min(limits.max_executions // executions, int(longest_s // seconds)))


def chunks(images: int, *, per_job: int) -> Iterator[tuple[str, slice]]:
    """Yield the images of each job, with the key that it has in the journal."""
    for number, first in enumerate(range(0, images, per_job)):
        yield f"{EVALUATE}{number:04d}", slice(first, min(images, first + per_job))


def evaluation_calls(groups: Sequence[CircuitGroup], *, images: int, per_job: int) -> list[Call]:
    """Return what an evaluation takes of the device, job by job."""
    return [
        tuple(group.load(part.stop - part.start) for group in groups)
        for _, part in chunks(images, per_job=per_job)
    ]
