"""Feature maps: what a named layer of a network gives, and an adapter between two of them.

Any layer of the teacher can be compared with any layer of the student; names are those of
`named_modules()`, for example `filters`. Where they differ in channels, a 1x1 convolution from the
student's to the teacher's is learned beside the student (FitNets, arXiv 1412.6550, section 2.2); it
is no part of the student.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qkd_qiskit.errors import InputError
from qkd_qiskit.seeds import generator

ADAPTER = "adapter."
_BATCH = 256  # images


@contextmanager
def captured(module: nn.Module, layer: str, *, owner: str = "network") -> Iterator[list[Tensor]]:
    """Collect what a layer gives while the module runs, also under torch.func transforms.

    Args:
        module: The network.
        layer: Name of one of its modules.
        owner: What error messages call the network.

    Raises:
        InputError: There is no such layer.
    """
    named = dict(module.named_modules())
    if not layer or layer not in named:
        names = ", ".join(name for name in named if name)
        raise InputError(f"the {owner} has no layer {layer!r}; its layers are {names or 'none'}")
    found: list[Tensor] = []
    hook = named[layer].register_forward_hook(lambda _module, _given, output: found.append(output))
    try:
        yield found
    finally:
        hook.remove()


def only(found: Sequence[Tensor], layer: str, *, owner: str = "network") -> Tensor:
    """The one tensor that a layer gave.

    Raises:
        InputError: The layer was not run, or more than once, or gave something else.
    """
    if len(found) != 1 or not isinstance(found[0], Tensor) or found[0].ndim < 2:
        what = f"ran {len(found)} times" if len(found) != 1 else "gave no features"
        raise InputError(
            f"layer {layer!r} of the {owner} {what} in a pass over a batch; give a layer that "
            "gives one tensor (batch, ...)"
        )
    return found[0]


@torch.no_grad()
def layer_outputs(
    module: nn.Module, inputs: Tensor, *, layer: str, owner: str = "network"
) -> Tensor:
    """What a layer gives for inputs `(N, ...)`, without gradient.

    Raises:
        InputError: As `captured` and `only`.
    """
    parts = []
    for batch in torch.split(inputs, _BATCH):
        with captured(module, layer, owner=owner) as found:
            module(batch)
        parts.append(only(found, layer, owner=owner))
    return torch.cat(parts)


def make_adapter(
    student_shape: Sequence[int], teacher_shape: Sequence[int], *, seed: int
) -> dict[str, Tensor]:
    """First parameters of the adapter between features of these shapes, by name.

    Empty where the shapes agree, so that none is needed.

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
    """Student's features `(batch, channels, ...)` in the teacher's channels."""
    weight = parameters.get(f"{ADAPTER}weight")
    if weight is None:
        return features
    bias = parameters[f"{ADAPTER}bias"]
    mixed = torch.einsum("oc,bc...->bo...", weight, features)
    return mixed + bias.reshape(-1, *[1] * (features.ndim - 2))


def of_student(parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters that are the student's own."""
    return {name: value for name, value in parameters.items() if not name.startswith(ADAPTER)}
