"""Feature maps: what a named layer of a network gives, and an adapter between two of them.

Any layer of the teacher can be compared with any layer of the student; names are those of
`named_modules()`, for example `filters`. Where they differ in channels, a 1x1 convolution from the
student's to the teacher's is learned beside the student (FitNets, arXiv 1412.6550, section 2.2); it
is no part of the student.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe.seeds import generator

ADAPTER = "adapter."


def make_adapter(
    student_shape: Sequence[int], teacher_shape: Sequence[int], *, seed: int
) -> dict[str, Tensor]:
    """Return the first parameters of the adapter between features of these shapes, by name.

    None are needed where the shapes agree.

    Args:
        student_shape: `(channels, ...)` of the student's features.
        teacher_shape: `(channels, ...)` of the teacher's.
        seed: Seed of the parameters.

    Raises:
        InputError: The shapes differ in more than their channels.
    """
    student, teacher = tuple(student_shape), tuple(teacher_shape)
    if student == teacher:
        return {}
    if student[1:] != teacher[1:]:
        raise InputError(
            f"the student's features have shape {student}, the teacher's {teacher}; give layers "
            "(distill.student_layer, distill.teacher_layer) that differ in channels only"
        )
    bound = 1 / math.sqrt(student[0])  # as torch initialises a convolution
    order = generator(seed, "adapter")
    shapes = {"weight": (teacher[0], student[0]), "bias": (teacher[0],)}
    return {
        ADAPTER + name: torch.empty(shape).uniform_(-bound, bound, generator=order)
        for name, shape in shapes.items()
    }


def adapt(parameters: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Return the student's features `(batch, channels, ...)` in the teacher's channels."""
    weight = parameters.get(f"{ADAPTER}weight")
    if weight is None:
        return features
    bias = parameters[f"{ADAPTER}bias"]
    mixed = torch.einsum("oc,bc...->bo...", weight, features)
    return mixed + bias.reshape(-1, *[1] * (features.ndim - 2))


def of_student(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the parameters that are the student's own."""
    return {name: value for name, value in parameters.items() if not name.startswith(ADAPTER)}
