"""SPSA: a gradient from two evaluations, in a random direction.

Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
approximation", IEEE Trans. Automatic Control 37, 332 (1992), eq. 2.2; how a perturbation shrinks as
in Spall, "Implementation of the simultaneous perturbation algorithm for stochastic optimization",
IEEE Trans. Aerospace and Electronic Systems 34, 817 (1998).
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.autograd.function import once_differentiable

from qkd_qiskit.errors import InputError
from qkd_qiskit.recipe.seeds import generator
from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.gradients.adaptive_shots import shot_variance
from qkd_qiskit.targets.gradients.base import (
    SampledExecutor,
    SampledFunction,
    gradients,
    members_as_rows,
)

PERTURBATION = 0.2
"""c in radians: at 4,096 shots probabilities scatter by at most 0.008, and along one angle the
difference quotient is too small by sin(c) / c, 0.7 %."""
PERTURBATION_DECAY = 0.101
"""gamma: the lowest value that convergence allows, which Spall recommends in practice."""


def perturbation_size(
    step: int, *, first: float = PERTURBATION, decay: float = PERTURBATION_DECAY
) -> float:
    """Return c_k = c / (k + 1)**gamma in radians for step k = 0, 1, ..."""
    return first / float((step + 1) ** decay)


def rademacher(*shape: int, seed: int, step: int) -> Tensor:
    """Return signs, -1 or 1 with equal chance, the same for the same seed and step (float64)."""
    bits = torch.randint(0, 2, shape, generator=generator(seed, "spsa", step))
    return (2 * bits - 1).to(torch.float64)


def spsa_gradient(
    loss: Callable[[Tensor], Tensor],
    point: Tensor,
    *,
    perturbation: float = PERTURBATION,
    directions: int = 1,
    seed: int = 0,
    step: int = 0,
) -> tuple[Tensor, Tensor]:
    """Return an estimate of a loss's gradient ``(length,)``, and the mean of its evaluations.

    Args:
        loss: Maps points ``(2 * directions, length)`` to losses ``(2 * directions,)``, in one call.
        point: ``(length,)``.
        perturbation: c, how far from the point the loss is evaluated.
        directions: Directions to average over.
        seed: Seed of the directions.
        step: Number of the step: each has directions of its own.

    Raises:
        InputError: The point is no vector, a number is out of range, or `loss` returns another
            shape.
    """
    if point.dim() != 1:
        raise InputError(f"point has shape {tuple(point.shape)}; give a vector")
    if not (0 < perturbation < math.inf and directions >= 1):
        raise InputError(
            f"perturbation is {perturbation} and directions {directions}; accepted are a number "
            "above 0 and a whole number from 1"
        )
    with torch.no_grad():
        signs = rademacher(directions, len(point), seed=seed, step=step).to(point)
        steps = perturbation * signs
        values = loss(torch.cat((point + steps, point - steps)))
        if values.shape != (2 * directions,):
            raise InputError(
                f"loss returned shape {tuple(values.shape)} for {2 * directions} points; one "
                "number for each is needed"
            )
        slopes = (values[:directions] - values[directions:]) / (2 * perturbation)
        # Spall divides by the direction's components, which for signs is to multiply.
        return (slopes[:, None] * signs).mean(dim=0), values.mean()


class SPSAExecutor(SampledExecutor):
    """A circuit's probabilities on a target, differentiable by simultaneous perturbation.

    Forward evaluates each sample at two points, +c and -c along a random direction, in one call of
    the target, and returns their mean (off by a term in c**2); backward costs nothing. Where no
    gradient is recorded, forward is one evaluation at the point itself.

    With several directions the gradient is the mean over them, a forward gradient (arXiv
    2606.09734, eq. for its estimator with Rademacher directions): from one direction, SPSA, to all
    coordinates, the parameter-shift rule, at a cost in proportion.

    Two deviations from Spall: the direction is drawn for each sample, at the same cost and with
    less scatter; and the loss's derivatives by the probabilities are exact, so that what follows
    the circuit is trained as usual.
    """

    def __init__(
        self,
        target: Target,
        compiled: CompiledCircuit,
        *,
        perturbation: float = PERTURBATION,
        decay: float = PERTURBATION_DECAY,
        seed: int = 0,
        directions: int = 1,
        **options: Any,
    ):
        """Take a target and a circuit that it compiled.

        Args:
            target: Where the circuit runs.
            compiled: What its `compile` returned.
            perturbation: c in radians at the first step.
            decay: gamma in c_k = c / (k + 1)**gamma.
            seed: Seed of the directions.
            directions: Directions of each sample, to average over.
            options: Those of `SampledExecutor`: inputs, shots, cost.

        Raises:
            InputError: Perturbation or decay is out of range.
        """
        super().__init__(target, compiled, **options)
        if not (0 < perturbation < math.inf and 0 <= decay < math.inf):
            raise InputError(
                f"perturbation is {perturbation} and decay {decay}; accepted are a number above 0 "
                "in radians and a number from 0"
            )
        if directions < 1:
            raise InputError(f"directions is {directions}; give a whole number of at least 1")
        self.perturbation, self.decay, self.seed = perturbation, decay, seed
        self.directions = directions

    def rows(self, samples: int, *, step: int, inputs: bool) -> tuple[int, ...]:
        """Return the rows of each call of a step: one with both points of each direction."""
        return (2 * self.directions * samples,)

    def _evaluate(self, inputs: Tensor, weights: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            probabilities: Tensor = SampledFunction.apply(inputs, weights[None], self)
            return probabilities
        probabilities, *_ = _Perturbation.apply(inputs, weights[None], self)
        return probabilities


class _Perturbation(torch.autograd.Function):
    """Mean probabilities at two points, with what the gradient needs: difference and direction."""

    @staticmethod
    def forward(
        inputs: Tensor, weights: Tensor, executor: SPSAExecutor
    ) -> tuple[Tensor, Tensor, Tensor]:
        rows = executor.values(inputs, weights.expand(len(inputs), -1))
        step, count = executor.cost.steps, executor.directions
        size = perturbation_size(step, first=executor.perturbation, decay=executor.decay)
        shape = rows.shape if count == 1 else (count, *rows.shape)
        drawn = rademacher(*shape, seed=executor.seed, step=step).numpy()
        signs = drawn.reshape(count, *rows.shape)
        for needed, columns in zip(
            (inputs.requires_grad, weights.requires_grad), executor.columns, strict=True
        ):
            signs[..., columns] *= needed
        points = (rows + size * signs, rows - size * signs)
        both = executor.run(np.concatenate(points).reshape(-1, rows.shape[1]))
        executor.cost.steps += 1
        plus, minus = both.reshape(2, count, len(rows), -1)
        parts = (
            ((plus + minus) / 2).mean(axis=0),
            _by_sample((plus - minus) / (2 * size)),
            _by_sample(signs),
        )
        mean, quotient, direction = (torch.from_numpy(part).to(weights) for part in parts)
        return mean, quotient, direction

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs[:2], *output)
        ctx.mark_non_differentiable(*output[1:])
        ctx.executor = inputs[2]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        inputs, weights, mean, quotient, direction = ctx.saved_tensors
        executor: SPSAExecutor = ctx.executor
        count, samples = executor.directions, len(gradient)
        along = gradient[:, None] * quotient.reshape(samples, count, -1)
        signs = direction.reshape(samples, count, -1)
        slopes = (along.sum(dim=2, keepdim=True) * signs).mean(dim=1)
        array = slopes.cpu().to(torch.float64).numpy()
        if executor.adaptive:
            _adapt(executor, array, gradient, mean)
        return *gradients(executor, array, inputs, weights), None

    @staticmethod
    def vmap(info: Any, in_dims: Any, *given: Any) -> tuple[Any, Any]:
        return members_as_rows(_Perturbation, info, in_dims, *given)


def _by_sample(parts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return what each direction has of a sample side by side: (samples, directions * width)."""
    return np.ascontiguousarray(parts.swapaxes(0, 1)).reshape(parts.shape[1], -1)


def _adapt(
    executor: SPSAExecutor, slopes: NDArray[np.float64], gradient: Tensor, mean: Tensor
) -> None:
    """Let the next step have the shots that this one's scatter asks for."""
    given, outcomes = (part.cpu().to(torch.float64).numpy() for part in (gradient, mean))
    step = executor.cost.steps - 1
    size = perturbation_size(step, first=executor.perturbation, decay=executor.decay)
    moved = np.count_nonzero(np.abs(slopes).sum(axis=0))
    # A difference quotient has the shots of two points; each direction's goes to all components.
    of_quotient = 2 * float(shot_variance(given, outcomes).mean()) / (2 * size) ** 2
    executor.adapt(
        moment=float((slopes**2).sum(axis=1).mean()),
        one_shot=of_quotient * moved / executor.directions,
        rows=2 * executor.directions * len(slopes),
    )
