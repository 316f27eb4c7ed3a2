"""A circuit that is measured in several bases, as one executor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, TypeVar, cast

import torch
from torch import Tensor

from qkd_qiskit.targets.gradients.base import Cost, SampledExecutor, TargetExecutor

E = TypeVar("E", bound=TargetExecutor)


class BasesExecutor(Generic[E]):
    """Executors of one circuit, each ending with another change of basis.

    Those with shots share one counter: its calls are numbered through, so that no two share the
    seed of their shots, and each basis counts as a gradient of its own.
    """

    def __init__(self, executors: Sequence[E]) -> None:
        self.executors = tuple(executors)
        """One for each basis, at least one."""

    @property
    def sampled(self) -> bool:
        """Whether probabilities are measured frequencies."""
        return self.executors[0].sampled

    @property
    def cost(self) -> Cost | None:
        """What was run so far, in all bases; None where nothing is sampled."""
        first: TargetExecutor = self.executors[0]
        return first.cost if isinstance(first, SampledExecutor) else None

    def rows(self, samples: int, *, step: int, inputs: bool) -> tuple[int, ...]:
        """Return how many rows each call of a gradient step has; see `SampledExecutor.rows`."""
        sampled = cast(Sequence[SampledExecutor], self.executors)
        return tuple(
            rows
            for number, executor in enumerate(sampled, start=step * len(sampled))
            for rows in executor.rows(samples, step=number, inputs=inputs)
        )

    def __call__(self, inputs: Tensor | None, weights: Tensor) -> Tensor:
        """Return probabilities ``(batch, bases * 2**num_qubits)``, basis after basis."""
        return torch.cat([executor(inputs, weights) for executor in self.executors], dim=-1)
