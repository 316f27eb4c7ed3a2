"""How a student runs: exactly, in the mode for training, member by member, or on another device."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe import DistillSpec
from qkd_qiskit.recipe.seeds import seeded
from qkd_qiskit.simulator.torch_device import torch_device
from qkd_qiskit.students.base import Student

logger = logging.getLogger(__name__)
_say_once = functools.cache(logger.warning)


@contextmanager
def without_shots(student: Student) -> Iterator[None]:
    """Run a student's circuit exactly where it would be sampled: for checks and validation."""
    executor = student.executor
    if executor is not None and executor.sampled:
        student.executor = None
    try:
        yield
    finally:
        student.executor = executor


def one_by_one(
    function: Callable[..., Tensor],
    parameters: Mapping[str, Tensor],
    *batch: Tensor,
    seeds: Sequence[int],
) -> Tensor:
    """Return what the function gives for each member, stacked, as vmap does.

    What layers and losses draw is a member's own, and the same after an interruption.
    """
    results = []
    for index, seed in enumerate(seeds):
        with seeded(seed, batch[0].device):
            own = {name: value[index] for name, value in parameters.items()}
            results.append(function(own, *(part[index] for part in batch)))
    return torch.stack(results)


@contextmanager
def in_training(student: Student) -> Iterator[None]:
    """Put the layers of a student into the mode for training."""
    before = student.training
    student.train()
    try:
        yield
    finally:
        student.train(before)


@contextmanager
def training_device(student: Student, spec: DistillSpec) -> Iterator[torch.device]:
    """Lay a student where it is to train, give that device, and put it back where it was.

    Raises:
        InputError: The device is not there, or the student's circuit runs on a target, which is
            the CPU's.
    """
    before = student.device
    name = "cpu" if spec.device == "auto" and student.executor is not None else spec.device
    device = before if name is None else torch_device(name)
    if device.type != "cpu":
        if student.executor is not None:
            raise InputError(
                f"device {str(device)!r} is not accepted for a student whose circuit runs on a "
                "target, on the CPU; give cpu, or distill.gradient exact"
            )
        _say_once(
            f"students train in torch on {device}; the compiled kernel, its fused steps and all "
            "targets run on the CPU alone"
        )
    student.to(device)
    try:
        yield device
    finally:
        student.to(before)
