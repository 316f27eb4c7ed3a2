"""Resumes a long training: its state is on disk every few minutes, and a killed one goes on."""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path

import torch
from torch import nn

from qkd_qiskit.errors import InputError, StorageError
from qkd_qiskit.storage import load_tensors, save_tensors
from qkd_qiskit.teachers.adamw import AdamW

logger = logging.getLogger(__name__)

_STEP, _LOSS, _RANDOM = "progress/step", "progress/loss_sum", "progress/random"


class ResumableTraining:
    """Weights, optimizer, random numbers and position of a training.

    A training that went on ends with the same bits as one that was never stopped; on a GPU, whose
    random numbers are not kept, dropout draws others. One that takes less than five minutes writes
    nothing.
    """

    seconds_between = 300.0

    def __init__(self, path: Path | None, module: nn.Module, *, optimizer: AdamW) -> None:
        self.path, self.module, self.optimizer = path, module, optimizer
        self.saved = time.monotonic()

    def resume(self) -> tuple[int, float]:
        """Return the steps done and the epoch's sum of losses; put torch's random state back.

        A file that is damaged or of another training costs a warning and a new start.
        """
        if self.path is None or not self.path.exists():
            return 0, 0.0
        try:
            tensors, _ = load_tensors(self.path)
            self._restore(tensors)
        except (InputError, OSError, KeyError, RuntimeError) as error:
            logger.warning("starting again, %s is no good: %s", self.path, error)
            return 0, 0.0
        return int(tensors[_STEP]), float(tensors[_LOSS])

    def after_step(self, step: int, *, loss_sum: torch.Tensor) -> None:
        """Write where the training is, if that was some minutes ago."""
        if self.path is None or time.monotonic() - self.saved < self.seconds_between:
            return
        tensors = {
            _STEP: torch.tensor(step),
            _LOSS: loss_sum,
            _RANDOM: torch.get_rng_state(),
        }
        tensors |= {f"module/{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer/{name}/{key}"] = value
        try:
            save_tensors(self.path, tensors)
        except StorageError as error:
            logger.warning("going on without a file to resume from: %s", error)
            self.path = None
        self.saved = time.monotonic()

    def finish(self) -> None:
        """Remove the file: the training has ended, and its result is kept elsewhere."""
        if self.path is not None:
            with contextlib.suppress(OSError):  # a cache that cannot be written to
                self.path.unlink(missing_ok=True)

    def _restore(self, tensors: dict[str, torch.Tensor]) -> None:
        states = {
            parameter: {
                key.removeprefix(f"optimizer/{name}/"): value
                for key, value in tensors.items()
                if key.startswith(f"optimizer/{name}/")
            }
            for name, parameter in self.module.named_parameters()
        }
        random = tensors[_RANDOM]
        weights = {name: tensors[f"module/{name}"] for name in self.module.state_dict()}
        self.module.load_state_dict(weights)
        for parameter, state in states.items():
            # All that a GPU's fused optimizer has lies there; else the steps stay on the CPU.
            moved = parameter.device.type == "cuda"
            self.optimizer.state[parameter] = {
                key: value.to(parameter.device) if moved else value for key, value in state.items()
            }
        torch.set_rng_state(random)
