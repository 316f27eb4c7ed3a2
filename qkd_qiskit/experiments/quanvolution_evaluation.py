"""A quanvolution on a target: every patch of every image is a circuit, for every filter."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.students.quanvolutional import QuanvolutionalStudent
from qkd_qiskit.targets import Target

_CHUNK = 2**11  # patches of one PUB


@dataclass(frozen=True, kw_only=True)
class PatchCost:
    """What feature maps cost on a target.

    Attributes:
        circuits: Circuit runs: patches times filters.
        shots: Shots of each, or None where probabilities are exact.
        two_qubit_gates: Two-qubit gates of a circuit as it runs there.
        duration_s: Duration of one shot of a circuit in seconds, where the target knows it.
    """

    circuits: int
    shots: int | None
    two_qubit_gates: int
    duration_s: float | None

    @property
    def executions(self) -> int | None:
        """Return circuit runs times shots; None where nothing is sampled."""
        return None if self.shots is None else self.circuits * self.shots


def patch_cost(
    layer: Quanvolution, images: Tensor, *, target: Target, shots: int | None = None
) -> PatchCost:
    """Return what `maps_on_target` will cost; nothing is run.

    Args:
        layer: The filters.
        images: Images `(N, channels, height, width)`.
        target: Where they would run.
        shots: Shots per circuit; default: the target's.

    Raises:
        TargetError: The target cannot run the circuit.
    """
    compiled = target.compile(layer.circuit)
    return PatchCost(
        circuits=layer.circuit_runs(images),
        shots=(shots or target.shots) if target.sampled else None,
        two_qubit_gates=compiled.two_qubit_gates,
        duration_s=compiled.duration_s,
    )


@torch.no_grad()
def patch_values(
    layer: Quanvolution, images: Tensor, *, names: Sequence[str]
) -> Iterator[NDArray[np.float64]]:
    """Yield, filter by filter, circuit parameters `(patches, parameters)` in radians.

    Args:
        layer: The filters.
        images: Images `(N, channels, height, width)`; their patches follow one another.
        names: The parameters, in the order of the columns.
    """
    inputs = [parameter.name for parameter in layer.parts.input_params]
    weights = [parameter.name for parameter in layer.parts.weight_params]
    angles = dict(zip(inputs, layer.angles(images).double(), strict=True))
    rows, columns = layer.map_shape(images)
    for weight in layer.weight.double():
        shared = {
            name: value.expand(len(images) * rows * columns)
            for name, value in zip(weights, weight, strict=True)
        }
        by_name = angles | shared
        yield torch.stack([by_name[name] for name in names], dim=1).numpy()


@torch.no_grad()
def maps_on_target(
    layer: Quanvolution,
    images: Tensor,
    *,
    target: Target,
    shots: int | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Return feature maps `(N, channels, rows, columns)` from outcome frequencies on a target.

    A chunk of images goes as one PUB for each filter, with all their patches.

    Args:
        layer: The filters.
        images: Images `(N, channels, height, width)`.
        target: Where every patch is run.
        shots: Shots per patch and filter; default: the target's.
        seed: Seed of the shots.
        on_batch: Called with the number of images just done.

    Raises:
        TargetError: The target cannot run the circuit.
    """
    rows, columns = layer.map_shape(images)
    compiled = target.compile(layer.circuit)
    streams = [
        np.random.default_rng(derive_seed(seed, "patches", target.stream_name, index))
        for index in range(len(layer.weight))
    ]
    maps = []
    for number, batch in enumerate(torch.split(images, max(1, _CHUNK // (rows * columns)))):
        channels = []
        for index, (values, stream) in enumerate(
            zip(patch_values(layer, batch, names=compiled.parameters), streams, strict=True)
        ):
            if target.simulator_of(compiled) == "density":
                probabilities = target.frequencies(compiled, values, shots=shots, rng=stream)
            else:
                own = derive_seed(seed, "patches", target.stream_name, number, index)
                probabilities = target.probabilities(compiled, values, shots=shots, seed=own)
            outputs = layer.from_probabilities(torch.as_tensor(np.asarray(probabilities)))
            channels.append(outputs.reshape(len(batch), rows, columns, -1).movedim(-1, 1))
        maps.append(torch.cat(channels, dim=1))
        if on_batch is not None:
            on_batch(len(batch))
    return torch.cat(maps).to(layer.weight.dtype)


@torch.no_grad()
def logits_on_target(
    student: QuanvolutionalStudent,
    images: Tensor,
    *,
    target: Target,
    shots: int | None = None,
    seed: int = 0,
    on_batch: Callable[[int], None] | None = None,
) -> Tensor:
    """Return logits `(N, num_classes)` of a network whose quanvolution runs on a target.

    Args:
        student: A quanvolutional student, or a teacher as `as_student` gives it.
        images: As for `maps_on_target`, and so are the others.
        target: Where.
        shots: Per patch and filter.
        seed: Of the shots.
        on_batch: Called as images are done.

    Raises:
        InputError: The student has no quanvolution.
        TargetError: The target cannot run the circuit.
    """
    if not isinstance(student.filters, Quanvolution):
        raise InputError("a convolution has no circuit to run on a target; it is exact everywhere")
    maps = maps_on_target(
        student.filters, images, target=target, shots=shots, seed=seed, on_batch=on_batch
    )
    logits: Tensor = student.classifier(maps.flatten(1))
    return logits
