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

from qkd_qiskit.experiments.simulator_check import in_order, parameter_columns
from qkd_qiskit.students.circuit_student import CircuitStudent
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
    """Students that share a circuit and its bases, each with weights of its own.

    Attributes:
        compiled: The circuit as the device runs it, once for each basis that is measured.
        members: Arm and seed of each student.
        students: The students, in the same order.
    """

    compiled: tuple[CompiledCircuit, ...]
    members: tuple[MemberKey, ...]
    students: tuple[CircuitStudent, ...]

    @property
    def rows_per_image(self) -> int:
        """Rows of a PUB that an image takes."""
        return len(self.students) * self.students[0].runs_per_image

    def loads(self, images: int) -> list[Load]:
        """Return what so many images take of the device, PUB by PUB."""
        return [
            Load(
                rows=images * self.rows_per_image,
                duration_s=compiled.duration_s or 0.0,
                two_qubit_gates=compiled.two_qubit_gates,
            )
            for compiled in self.compiled
        ]

    def pubs(self, images: Tensor, *, shots: int) -> list[Pub]:
        """Return all students' circuits for images, those of one image side by side.

        Each basis is a PUB of its own.
        """
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
        ]

    @torch.no_grad()
    def logits(
        self, counts: Sequence[NDArray[np.int64]], images: Tensor
    ) -> dict[MemberKey, Tensor]:
        """Return each student's logits `(images, num_classes)`.

        Args:
            counts: Of each basis `(rows, 2^n)`.
            images: What was measured.
        """
        frequencies = np.concatenate(
            [each / each.sum(axis=1, keepdims=True) for each in counts], axis=1
        )
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
    """Return students by circuit, compiled for a device.

    Raises:
        TargetError: The device cannot run a circuit.
    """
    groups: dict[str, list[tuple[MemberKey, CircuitStudent]]] = {}
    for member, student in students:
        key = " ".join(content_digest(circuit) for circuit in student.circuits)
        groups.setdefault(key, []).append((member, student))
    return [
        CircuitGroup(
            compiled=tuple(target.compile(circuit) for circuit in shared[0][1].circuits),
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
    executions = runs * sum(len(group.compiled) * group.rows_per_image for group in groups)
    seconds = sum(
        runs * group.rows_per_image * seconds_per_execution(compiled.duration_s or 0.0, timing)
        for group in groups
        for compiled in group.compiled
    )
    return max(1, min(limits.max_executions // executions, int(longest_s // seconds)))


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
