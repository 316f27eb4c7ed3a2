"""AdamW by torch's own function: torch's class of that name takes a second of CPU to import.

Loshchilov & Hutter, arXiv:1711.05101, algorithm 2.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor
from torch.optim.adamw import adamw

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch's


class AdamW:
    """What `torch.optim.AdamW` does, to the bit.

    Attributes:
        state: Of each parameter that has had a gradient, by torch's names: the steps taken, `step`,
            and the running means `exp_avg` and `exp_avg_sq`.
    """

    def __init__(
        self,
        parameters: Iterable[Tensor],
        *,
        weight_decay: float,
        fused: bool = False,
        state: dict[Tensor, dict[str, Tensor]] | None = None,
    ) -> None:
        """Make it for parameters.

        Args:
            parameters: What is trained; what needs no gradient is left alone.
            weight_decay: Share of a parameter, times the learning rate, that a step takes away.
            fused: Whether a step is one pass over memory in place of many.
            state: What an earlier training left; it is changed by steps.
        """
        self.parameters = list(parameters)
        self.weight_decay, self.fused = weight_decay, True if fused else None
        self.state = {} if state is None else state

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self, *, lr: float) -> None:
        """Take a step down the gradients, with a learning rate."""
        trained = [parameter for parameter in self.parameters if parameter.grad is not None]
        if not trained:
            return
        states = [self._state(parameter) for parameter in trained]
        adamw(
            trained,
            [parameter.grad for parameter in trained if parameter.grad is not None],
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=self.fused,
            has_complex=any(parameter.is_complex() for parameter in trained),
            amsgrad=False,
            beta1=BETA1,
            beta2=BETA2,
            lr=lr,
            weight_decay=self.weight_decay,
            eps=EPSILON,
            maximize=False,
        )

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        if not self.state.get(parameter):
            # Where a step is fused it is counted in float32, on the device that it runs on.
            step = torch.zeros((), dtype=torch.float32, device=parameter.device)
            self.state[parameter] = {
                "step": step if self.fused else torch.zeros(()),
                "exp_avg": torch.zeros_like(parameter, memory_format=torch.preserve_format),
                "exp_avg_sq": torch.zeros_like(parameter, memory_format=torch.preserve_format),
            }
        return self.state[parameter]
