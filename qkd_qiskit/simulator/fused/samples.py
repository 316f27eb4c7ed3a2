"""What a fused step learns from, prepared once for many steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from qkd_qiskit.errors import InputError
from qkd_qiskit.simulator.angles import extend
from qkd_qiskit.simulator.program import Program

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Samples:
    """DistillationData as the fused kernel takes them; `FusedStep.samples` makes them.

    Attributes:
        kind: What runs start from: the `ground` state, or given `real` or `complex` states.
        arrays: Cosines and sines of half the inputs' part of every per-sample angle, real and
            imaginary parts of given states, labels, the teacher's softened probabilities, their
            negative entropies, and the inputs where they are multiplied by weights, each
            ``(members or 1, samples, ...)``.
        members: Number of members that have samples of their own, or 1.
        order: All samples once ``(1, samples)``.
    """

    kind: str
    arrays: tuple[Array, ...]
    members: int
    order: Array

    @property
    def size(self) -> int:
        """Samples per member."""
        return int(self.order.shape[1])


def make_samples(
    program: Program,
    *,
    classes: int,
    members: int,
    dtype: np.dtype[Any],
    temperature: float,
    labels: Array,
    teacher_logits: Array,
    inputs: Array | None,
    states: Array | None,
) -> Samples:
    """Return prepared samples; see `FusedStep.samples`.

    Raises:
        InputError: If shapes do not fit, a number is not finite or a label is not a class.
    """
    labels = labels[None] if labels.ndim == 1 else labels
    size = labels.shape[-1]
    arrays = {"labels": labels, "teacher logits": teacher_logits}
    shapes: dict[str, tuple[int, ...]] = {"labels": (size,), "teacher logits": (size, classes)}
    if states is not None:
        if program.shared < len(program.angles):
            raise InputError("the circuit uses inputs after its preparation; give inputs instead")
        arrays["states"], shapes["states"] = states, (size, 2**program.num_qubits)
    else:
        arrays["inputs"] = np.zeros((size, 0)) if inputs is None else inputs
        shapes["inputs"] = (size, program.num_inputs)
    for name, shape in shapes.items():
        array = arrays[name]
        array = array[None] if array.ndim == len(shape) else array
        if array.shape not in ((1, *shape), (members, *shape)) or size == 0:
            raise InputError(
                f"{name} have shape {array.shape}; give {shape}, or {(members, *shape)} for a set "
                "per member"
            )
        if not np.isfinite(array).all():
            raise InputError(
                f"{(~np.isfinite(array)).sum()} of {array.size} {name} are NaN or infinite; "
                "give finite numbers"
            )
        arrays[name] = array
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= classes:
        raise InputError(
            f"labels are {labels.dtype} from {labels.min()} to {labels.max()}; give integers in "
            f"0..{classes - 1}"
        )
    kind = "ground" if states is None else "complex" if np.iscomplexobj(states) else "real"
    known = circuit_samples(
        program, inputs=arrays.get("inputs"), states=arrays.get("states"), dtype=dtype
    )
    targets, entropies = (
        np.array(part, dtype=dtype, order="C")
        for part in soft_targets(arrays["teacher logits"], temperature=temperature)
    )
    multiplied = any(feature.product is not None for feature in program.features)
    inputs = arrays["inputs"] if multiplied and states is None else np.zeros((1, size, 0))
    whole = (
        *known,
        np.array(labels, dtype=np.int64, order="C"),
        targets,
        entropies,
        np.array(inputs, dtype=dtype, order="C"),
    )
    return Samples(kind, whole, max(map(len, whole)), np.arange(size)[None])


def circuit_samples(
    program: Program, *, inputs: Array | None, states: Array | None, dtype: np.dtype[Any]
) -> list[Array]:
    """Return cosines and sines of half the angles, and states' real and imaginary parts.

    Args:
        program: What runs.
        inputs: The circuit's inputs ``(members or 1, samples, num_inputs)``, or without members.
        states: States to start from instead, likewise.
        dtype: Of the result.
    """
    lead = inputs if states is None else states
    assert lead is not None
    whole = lead[None] if lead.ndim == 2 else lead
    given = imag = half = np.zeros((1, whole.shape[1], 0))
    if states is None:
        half = _half_angles(program, whole)
    else:
        given, imag = whole.real, whole.imag if np.iscomplexobj(whole) else imag
    parts = np.cos(half), np.sin(half), given, imag
    return [np.array(part, dtype=dtype, order="C") for part in parts]


def soft_targets(teacher_logits: Array, *, temperature: float) -> tuple[Array, Array]:
    """Return the teacher's softened probabilities and their negative entropies, in float64."""
    soft = teacher_logits.astype(np.float64) / temperature
    soft -= soft.max(axis=-1, keepdims=True)
    soft -= np.log(np.exp(soft).sum(axis=-1, keepdims=True))
    targets = np.exp(soft)
    return targets, (targets * soft).sum(axis=-1)


def _half_angles(program: Program, inputs: Array) -> Array:
    """Return the part of half the per-sample angles in which no weight enters."""
    angles = program.sample_angles
    flat = torch.from_numpy(inputs.reshape(-1, inputs.shape[-1]).astype(np.float64))
    none = torch.zeros(program.num_weights, dtype=torch.float64)
    known, _ = extend(program.features, flat, none)
    total = angles.constant.expand(len(flat), -1)
    if angles.inputs is not None:
        total = total + known @ angles.inputs.T
    half: Array = 0.5 * total.numpy().reshape(*inputs.shape[:2], -1)
    return half


def as_array(values: ArrayLike | Tensor) -> Array:
    """Return a tensor's or a sequence's numbers."""
    if isinstance(values, Tensor):
        return values.detach().cpu().resolve_conj().numpy()
    return np.asarray(values)
