"""A recalibrated student as one to train on: its map in its own last layer."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from qkd_qiskit.errors import InputError
from qkd_qiskit.experiments.recalibration import Recalibration
from qkd_qiskit.students.base import Student


def with_map(student: Student, recalibration: Recalibration) -> dict[str, Tensor]:
    """Return a student's parameters with which its own logits are those that a map corrects to.

    A linear last layer W p + b and a map s y + y M + c are one layer, of s W + M^T W and
    s b + M^T b + c.

    Args:
        student: A hybrid student with a linear head.
        recalibration: Its map, of logits.

    Raises:
        InputError: The student has no linear layer at its end, or the map is of the kind head.
    """
    head = getattr(student, "head", None)
    if not isinstance(head, nn.Linear) or recalibration.kind == "head":
        raise InputError(
            f"a {student.spec.kind} student without a linear last layer, or with a map of the kind "
            "head, cannot take its recalibration into its weights; train from the student as it is"
        )
    found = recalibration.map
    matrix = torch.from_numpy(found.matrix.T.copy()) + found.scale * torch.eye(head.out_features)
    offset = torch.from_numpy(found.offset.copy())
    weight, bias = head.weight.detach().double(), torch.zeros(head.out_features).double()
    if head.bias is not None:
        bias = head.bias.detach().double()
    changed = {"head.weight": matrix @ weight, "head.bias": matrix @ bias + offset}
    return {
        name: changed.get(name, value).to(value.dtype)
        for name, value in student.member_parameters().items()
    }
