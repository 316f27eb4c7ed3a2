"""What the compiled kernel needs of a program: its plan, and its angles as NumPy maps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from qkd_qiskit.simulator.angles import AngleMap
from qkd_qiskit.simulator.kernel.plan import Plan, make_plan
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.readout import Readout
from qkd_qiskit.simulator.statevector import evolve, measure

Array = NDArray[Any]


@dataclass(frozen=True)
class Affine:
    """``constant + values @ matrix.T`` in NumPy, without the product where it only selects.

    Attributes:
        count: Number of angles.
        constant: ``(angles,)``, or None where it is zero.
        inputs: ``(angles, num_inputs)``, or None.
        weights: ``(angles, num_weights)``, or None.
        identity: The angles are the weights themselves.
    """

    count: int
    constant: Array | None
    inputs: Array | None
    weights: Array | None
    identity: bool

    @classmethod
    def of(cls, angles: AngleMap, *, dtype: torch.dtype) -> Affine:
        """Return an angle map in NumPy."""
        inputs, weights = (
            None if part is None else part.to(dtype).numpy()
            for part in (angles.inputs, angles.weights)
        )
        constant = angles.constant.to(dtype).numpy() if angles.constant.any() else None
        identity = (
            constant is None
            and inputs is None
            and weights is not None
            and weights.shape[0] == weights.shape[1]
            and bool((weights == np.eye(len(weights))).all())
        )
        return cls(len(angles.constant), constant, inputs, weights, identity)

    def forward(self, inputs: Array, weights: Array, *, sampled: bool) -> Array:
        """Return angles ``(members, angles)``, or ``(members, batch, angles)`` per sample."""
        if self.identity:
            return weights
        shape = (1, inputs.shape[1], self.count) if sampled else (1, self.count)
        total: Array = np.zeros(shape, dtype=weights.dtype)
        if self.inputs is not None:
            total = total + inputs @ self.inputs.T
        if self.weights is not None:
            shared = weights @ self.weights.T
            total = total + (shared[:, None] if sampled else shared)
        return total if self.constant is None else total + self.constant

    def backward(self, gradient: Array, to_inputs: Array | None, to_weights: Array) -> None:
        """Add the gradients of inputs and weights, given the angles' gradient."""
        if self.inputs is not None and to_inputs is not None:
            _add(to_inputs, gradient @ self.inputs)
        if self.weights is not None:
            summed = gradient.sum(axis=1) if gradient.ndim == 3 else gradient
            _add(to_weights, summed if self.identity else summed @ self.weights)


def _add(total: Array, part: Array) -> None:
    total += part if total.shape[0] == part.shape[0] else part.sum(axis=0, keepdims=True)


class KernelAngles:
    """A program and a readout, made ready for the kernel."""

    def __init__(self, program: Program, readout: Readout) -> None:
        self.program, self.readout = program, readout
        self._plans: dict[tuple[str, int], tuple[Plan, tuple[Any, ...]]] = {}
        self._maps: dict[torch.dtype, tuple[Affine, Affine]] = {}

    def plan(self, given: str, *, within: int = 0) -> tuple[Plan, tuple[Any, ...]]:
        """Return the plan for a kind of start, and the same as the kernel takes it.

        Args:
            given: As in `make_plan`.
            within: As in `make_plan`; where it is not 0 all angles are shared, the per-sample ones
                last.
        """
        key = (given, within)
        if key not in self._plans:
            program = self.program
            if within:
                program = replace(program, shared=len(program.angles))
            plan = make_plan(program, self.readout, given=given, within=within)
            arrays = (
                plan.num_qubits, plan.steps, plan.slots, plan.shared_slots, plan.product,
                plan.fixed, plan.has_fixed, plan.term_start, plan.term_mask, plan.term_angle,
                plan.targets, plan.final_complex, plan.index, plan.matrix,
            )  # fmt: skip
            self._plans[key] = (plan, arrays)
        return self._plans[key]

    def maps(self, dtype: torch.dtype) -> tuple[Affine, Affine]:
        """Return the shared and the per-sample angles' maps."""
        if dtype not in self._maps:
            self._maps[dtype] = (
                Affine.of(self.program.shared_angles, dtype=dtype),
                Affine.of(self.program.sample_angles, dtype=dtype),
            )
        return self._maps[dtype]

    def reference(self, inputs: Tensor, weights: Tensor, states: Tensor | None) -> Tensor:
        """Return the same values by the torch path."""
        if weights.dim() == 1:
            found = evolve(self.program, inputs, weights, initial=states)
            return measure(found, self.readout)
        count = max(part.shape[0] for part in (inputs, weights, states) if part is not None)
        rows = []
        for i in range(count):
            initial = None if states is None else states[i % states.shape[0]]
            features, weight = inputs[i % inputs.shape[0]], weights[i % weights.shape[0]]
            found = evolve(self.program, features, weight, initial=initial)
            rows.append(measure(found, self.readout))
        return torch.stack(rows)
