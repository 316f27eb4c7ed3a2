"""Several networks as one teacher: what is averaged, and how each of them is trained.

With the average of probabilities a student that is taught at temperature T learns from

    q = 1/M sum_m softmax(z_m / T)

as Lakshminarayanan et al. (arXiv 1612.01474) average, here at T; it is handed on as logits T log q,
whose softening by T is q again. With the average of logits q = softmax(1/M sum_m z_m / T), the
geometric mean of the same probabilities. Hinton et al. (arXiv 1503.02531, section 2) name both.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from qkd_qiskit.data.splits import Data
from qkd_qiskit.recipe import TeacherAverage, TeacherOutputs, TeacherSpec
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.teachers.outputs import output_tensor, to_logits
from qkd_qiskit.teachers.training import training_draw


def average_logits(logits: Tensor, *, average: TeacherAverage, temperature: float = 1.0) -> Tensor:
    """Return logits (N, num_classes) of an ensemble.

    Args:
        logits: Those of its members (members, N, num_classes).
        average: What is averaged.
        temperature: That the result will be softened by; it matters to probabilities alone.
    """
    if average == "logits":
        return logits.mean(dim=0)
    softened = (logits.double() / temperature).log_softmax(dim=-1)
    mean = softened.logsumexp(dim=0) - math.log(len(logits))
    return (temperature * mean).to(logits.dtype)


class EnsembleModule(nn.ModuleList):
    """The members' networks side by side, named 0, 1, ...; it gives the logits of the ensemble."""

    def __init__(
        self,
        modules: Sequence[nn.Module],
        *,
        outputs: Sequence[TeacherOutputs],
        average: TeacherAverage,
    ) -> None:
        super().__init__(modules)
        self.outputs, self.average = tuple(outputs), average

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (batch, num_classes) of images, at temperature 1."""
        given = [output_tensor(module(images)) for module in self]
        logits = [
            to_logits(values, outputs)
            for values, outputs in zip(given, self.outputs, strict=True)
            if isinstance(values, Tensor)
        ]
        return average_logits(torch.stack(logits), average=self.average)


def member_specs(
    spec: TeacherSpec, data: Data, *, seed: int
) -> list[tuple[TeacherSpec, Data, int]]:
    """Return the specification, the data and the seed of each network of a teacher.

    Those of an ensemble train on the same images: of `train_per_class` the draw of `seed`. The
    first is the network that the specification gives without an ensemble.

    Raises:
        DataError: A class has fewer images than `train_per_class`.
    """
    if spec.ensemble == 1:
        return [(spec, data, seed)]
    if spec.train_per_class is not None:
        data = replace(data, pool=data.pool[training_draw(spec, data, seed=seed)])
    single = replace(spec, ensemble=1, average="probabilities", train_per_class=None)
    seeds = [seed, *(derive_seed(seed, "ensemble", k) for k in range(1, spec.ensemble))]
    return [(single, data, own) for own in seeds]
