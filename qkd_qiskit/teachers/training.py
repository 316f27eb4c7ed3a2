"""Training of a teacher: cross entropy and AdamW, resumed where a long training was killed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.recipe.seeds import derive_seed, generator, seeded
from qkd_qiskit.teachers.resume import Progress

OnEpoch = Callable[[int, int, float, float], None]

_FUSED_FROM = 10_000_000  # parameters
_INFERENCE_BATCH = 256  # images; 50 MB for AlexNet's widest layer


def train_teacher(
    module: nn.Module,
    spec: TeacherSpec,
    data: Data,
    *,
    seed: int = 0,
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train `module` in place with AdamW and cross entropy; it is left frozen, in evaluation mode.

    The learning rate is constant and falls linearly to 0 over the last fifth of the steps
    (arXiv:2311.13810 keeps it constant, at 1e-3).

    Args:
        module: Untrained network.
        spec: Epochs, batch size, learning rate, weight decay, training images per class.
        data: Its pool is drawn from; its validation images are only reported.
        seed: Seed of the draw, the order and dropout; no global random state is touched.
        on_epoch: Called after each epoch with (epoch from 1, epochs, mean training loss, share of
            the validation images classified rightly).
        checkpoint: File that is written every few minutes and continued from where it exists; it is
            removed at the end.

    Raises:
        TeacherError: The loss is no longer finite.
        DataError: A class has fewer images than `train_per_class`.
    """
    split = data.pool[training_draw(spec, data, seed=seed)]
    size = sum(parameter.numel() for parameter in module.parameters())
    optimizer = torch.optim.AdamW(
        module.parameters(),
        lr=spec.lr,
        weight_decay=spec.weight_decay,
        # One pass over memory in place of many: a third of AlexNet's time, nothing to the others.
        fused=True if size > _FUSED_FROM else None,
    )
    order = generator(seed, "teacher", "order")
    # Batches of nearly one size: a last batch of one image would break batch normalisation.
    batches = math.ceil(len(split) / spec.batch_size)
    steps = batches * spec.epochs
    progress = Progress(checkpoint, module, optimizer=optimizer)
    module.requires_grad_()
    with seeded(derive_seed(seed, "teacher", "dropout")):
        step, loss_sum = progress.resume()
        for epoch in range(1, spec.epochs + 1):
            parts = torch.randperm(len(split), generator=order).tensor_split(batches)
            done = step - (epoch - 1) * batches
            if done >= batches:
                continue
            module.train()
            loss_sum = loss_sum if done else 0.0
            for indices in parts[done:]:
                optimizer.param_groups[0]["lr"] = spec.lr * min(1.0, 5 * (1 - step / steps))
                step += 1
                batch = split[indices]
                loss = functional.cross_entropy(module(batch.images), batch.labels)
                optimizer.zero_grad()
                torch.autograd.backward(loss)
                optimizer.step()
                loss_sum += loss.item() * len(batch)
                progress.after_step(step, loss_sum=loss_sum)
            if not math.isfinite(loss_sum):
                raise TeacherError(
                    f"the teacher's training diverged in epoch {epoch} of {spec.epochs} (the loss "
                    f"is {loss_sum}); lower teacher.lr, which is {spec.lr}"
                )
            if on_epoch is not None:
                accuracy = _accuracy(module, data.validation, num_classes=data.num_classes)
                on_epoch(epoch, spec.epochs, loss_sum / len(split), accuracy)
    progress.finish()
    module.eval().requires_grad_(requires_grad=False)


def training_draw(spec: TeacherSpec, data: Data, *, seed: int) -> torch.Tensor:
    """Return the rows of the pool that a teacher trains on."""
    return data.draw(spec.train_per_class, seed=derive_seed(seed, "teacher", "draw"))


@torch.no_grad()
def batched_logits(module: nn.Module, images: torch.Tensor, *, num_classes: int) -> torch.Tensor:
    """Return logits (N, num_classes) of a network in evaluation mode, without gradient."""
    module.eval()
    logits = torch.empty(len(images), num_classes)
    for start in range(0, len(images), _INFERENCE_BATCH):
        batch = images[start : start + _INFERENCE_BATCH]
        logits[start : start + len(batch)] = module(batch)
    return logits


def _accuracy(module: nn.Module, split: Split, *, num_classes: int) -> float:
    logits = batched_logits(module, split.images, num_classes=num_classes)
    return (logits.argmax(dim=1) == split.labels).double().mean().item()
