"""Training of a teacher: cross entropy and AdamW, resumed where a long training was killed."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable
from pathlib import Path
from typing import TypeGuard

import torch
from torch import nn
from torch.nn import functional

from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherOutputs, TeacherSpec
from qkd_qiskit.recipe.import_paths import user_code
from qkd_qiskit.recipe.seeds import derive_seed, generator, seeded
from qkd_qiskit.storage import CacheFolder, Tensors, cache_path, compute_once, tensor_digest
from qkd_qiskit.teachers.adamw import AdamW
from qkd_qiskit.teachers.checkpoints import check_weights
from qkd_qiskit.teachers.outputs import describe_output, find_outputs, output_tensor, to_logits
from qkd_qiskit.teachers.own_module import (
    device_of,
    evaluation_mode,
    freeze,
    require_gradients,
    without_gradient,
)
from qkd_qiskit.teachers.resume import ResumableTraining

OnEpoch = Callable[[int, int, float, float], None]

_FUSED_FROM = 10_000_000  # parameters
_TRAINABLE = "give a network with gradients, or its trained weights as teacher.checkpoint"
_INFERENCE_BATCH = 256  # images; 50 MB for AlexNet's widest layer
_LOOKED_AT = 256  # images that say what a network gives
_NOTICEABLE = 0.02  # of the largest output; more than what quantized layers round by

logger = logging.getLogger(__name__)


def train_teacher(
    module: nn.Module,
    spec: TeacherSpec,
    data: Data,
    *,
    seed: int = 0,
    outputs: TeacherOutputs = "logits",
    on_epoch: OnEpoch | None = None,
    checkpoint: Path | None = None,
) -> None:
    """Train `module` in place with AdamW and cross entropy; it is left frozen, in evaluation mode.

    The learning rate is constant and falls linearly to 0 over the last fifth of the steps
    (arXiv:2311.13810 keeps it constant, at 1e-3).

    Args:
        module: Untrained network; it trains where it lies.
        spec: Epochs, batch size, learning rate, weight decay, training images per class.
        data: Its pool is drawn from; its validation images are only reported.
        seed: Seed of the draw, the order and dropout; no global random state is touched.
        outputs: What the network gives; cross entropy is that of the logits made of it.
        on_epoch: Called after each epoch with (epoch from 1, epochs, mean training loss, share of
            the validation images classified rightly).
        checkpoint: File that is written every few minutes and continued from where it exists; it is
            removed at the end.

    Raises:
        TeacherError: The loss is no longer finite, or the network cannot be trained.
        DataError: A class has fewer images than `train_per_class`.
    """
    split, device = _training_images(spec, data, seed=seed), device_of(module)
    images, labels = split.images.to(device), split.labels.to(device)
    size = sum(parameter.numel() for parameter in module.parameters())
    optimizer = AdamW(
        module.parameters(),
        weight_decay=spec.weight_decay,
        # One pass over memory in place of many: a third of AlexNet's time, nothing to the others.
        fused=size > _FUSED_FROM or device.type == "cuda",
    )
    order = generator(seed, "teacher", "order")
    # Batches of nearly one size: a last batch of one image would break batch normalisation.
    batches = math.ceil(len(split) / spec.batch_size)
    steps = batches * spec.epochs
    resumable = ResumableTraining(checkpoint, module, optimizer=optimizer)
    require_gradients(module)
    dropout = derive_seed(seed, "teacher", "dropout")
    with torch.inference_mode(mode=False), seeded(dropout, device):
        step, so_far = resumable.resume()
        # Summed where the network lies: a look at the loss of a step would wait for a GPU.
        total = torch.tensor(so_far, dtype=torch.float64, device=device)
        for epoch in range(1, spec.epochs + 1):
            drawn = torch.randperm(len(split), generator=order).to(device)
            parts = drawn.tensor_split(batches)
            done = step - (epoch - 1) * batches
            if done >= batches:
                continue
            with user_code("the teacher cannot be trained", advice=_TRAINABLE):
                module.train()
            if not done:
                total.zero_()
            for indices in parts[done:]:
                lr = spec.lr * min(1.0, 5 * (1 - step / steps))
                step += 1
                with user_code("the teacher cannot be trained", advice=_TRAINABLE):
                    logits = to_logits(_tensor(module(images[indices])), outputs)
                    loss = functional.cross_entropy(logits, labels[indices])
                    optimizer.zero_grad()
                    torch.autograd.backward(loss)
                optimizer.step(lr=lr)
                total += loss.detach().double() * len(indices)
                resumable.after_step(step, loss_sum=total)
            loss_sum = total.item()
            if not math.isfinite(loss_sum):
                raise TeacherError(
                    f"the teacher's training diverged in epoch {epoch} of {spec.epochs} (the loss "
                    f"is {loss_sum}); lower teacher.lr, which is {spec.lr}"
                )
            if on_epoch is not None:
                accuracy = _accuracy(module, data.validation, num_classes=data.num_classes)
                on_epoch(epoch, spec.epochs, loss_sum / len(split), accuracy)
    resumable.finish()
    freeze(module)


def train_once(
    module: nn.Module,
    spec: TeacherSpec,
    data: Data,
    *,
    outputs: TeacherOutputs,
    architecture: str,
    seed: int,
    cache: CacheFolder,
    on_epoch: OnEpoch | None,
) -> None:
    """Train a network, or load what the same training gave before; it is left as it was trained.

    Args:
        module: Untrained network.
        spec: As for `train_teacher`, and so are the others.
        data: What it trains on.
        outputs: What it gives.
        architecture: SHA-256 of its layers.
        seed: Seed of the draw, the order and dropout.
        cache: Folder that keeps the weights.
        on_epoch: Called after each epoch.

    Raises:
        TeacherError: As `train_teacher`.
        DataError: As `train_teacher`.
    """
    draw = _training_images(spec, data, seed=seed)
    how = {name: getattr(spec, name) for name in ("epochs", "batch_size", "lr", "weight_decay")} | {
        "architecture": architecture,
        "start": tensor_digest(module.state_dict()),
        "images": draw.fingerprint,
        "seed": seed,
        "torch": torch.__version__,
        "schedule": "constant, last fifth linear to 0",
    }
    if device_of(module).type != "cpu":  # other bits
        how["device"] = device_of(module).type
    if outputs != "logits":
        how["outputs"] = outputs

    def compute() -> Tensors:
        path = cache_path("teachers", key, cache=cache)
        train_teacher(
            module,
            spec,
            data,
            seed=seed,
            outputs=outputs,
            on_epoch=on_epoch,
            checkpoint=None if path is None else path.with_suffix(".unfinished"),
        )
        return module.state_dict()

    def check(tensors: Tensors) -> None:
        check_weights(tensors, module, source="cached teacher", num_classes=data.num_classes)

    key = json.dumps(how, sort_keys=True)
    module.load_state_dict(compute_once("teachers", key, compute=compute, check=check, cache=cache))


def training_draw(spec: TeacherSpec, data: Data, *, seed: int) -> torch.Tensor:
    """Return the rows of the pool that a teacher trains on."""
    return data.draw(spec.train_per_class, seed=derive_seed(seed, "teacher", "draw"))


def _training_images(spec: TeacherSpec, data: Data, *, seed: int) -> Split:
    """Return the images that a teacher trains on: the pool itself, not a copy, where it is all."""
    if spec.train_per_class is None:
        return data.pool
    return data.pool[training_draw(spec, data, seed=seed)]


def batched_logits(
    module: nn.Module,
    images: torch.Tensor,
    *,
    num_classes: int,
    outputs: TeacherOutputs = "logits",
) -> torch.Tensor:
    """Return logits (N, num_classes) of a network in evaluation mode, without gradient, on the CPU.

    Args:
        module: Network; images go where it lies, and what it does to them does not reach `images`.
        images: (N, channels, height, width).
        num_classes: Number of logits.
        outputs: What it gives.

    Raises:
        TeacherError: It fails, or does not give one row of real numbers for each image.
    """
    evaluation_mode(module)
    with without_gradient():
        device = device_of(module)
        logits = torch.empty(len(images), num_classes, device=device)
        for start in range(0, len(images), _INFERENCE_BATCH):
            batch = images[start : start + _INFERENCE_BATCH].to(device, copy=True)
            shape = (len(batch), num_classes)
            with user_code(
                f"the teacher fails on {len(batch)} images of shape {tuple(images.shape[1:])}",
                advice="give a network for batches of any size of these images",
            ):
                values = output_tensor(module(batch))
            if not _is_matrix(values, shape):
                raise TeacherError(
                    f"the teacher gives {describe_output(values)} for {len(batch)} images of "
                    f"{num_classes} classes; give real logits of shape {shape}"
                )
            logits[start : start + len(batch)] = to_logits(values, outputs)
    return logits.cpu()


def outputs_of(module: nn.Module, spec: TeacherSpec, data: Data) -> TeacherOutputs:
    """Return what a network gives, as stated or as it looks; the built-in kinds give logits.

    Raises:
        TeacherError: It cannot be what was stated.
    """
    if spec.module is None:
        return "logits"
    images = data.validation.images[:_LOOKED_AT]
    values = batched_logits(module, images, num_classes=data.num_classes)
    source = f"teacher.module: {spec.module!r}"
    return find_outputs(values, stated=spec.outputs, source=source)


def say_if_changing(
    module: nn.Module, images: torch.Tensor, *, values: torch.Tensor, source: str
) -> None:
    """Warn of a network whose outputs for an image depend on chance or on the other images."""
    some = max(1, min(len(images), _INFERENCE_BATCH) // 2)
    again = batched_logits(module, images[:some], num_classes=values.shape[1])
    change = float((again - values[:some]).abs().max())
    if change > _NOTICEABLE * float(values[:some].abs().max()):
        logger.warning(
            "%s gives other outputs for the same images when it is asked again, up to %.3g away: "
            "it uses random numbers or the statistics of a batch in evaluation mode, too; its "
            "outputs of one pass are taught",
            source,
            change,
        )


def _is_matrix(values: object, shape: tuple[int, int]) -> TypeGuard[torch.Tensor]:
    """Return whether values are a dense real tensor of this shape."""
    return (
        isinstance(values, torch.Tensor)
        and values.shape == shape
        and values.layout == torch.strided
        and not values.is_complex()
    )


def _tensor(output: object) -> torch.Tensor:
    values = output_tensor(output)
    assert isinstance(values, torch.Tensor)  # as in evaluation mode, which was checked
    return values


def _accuracy(module: nn.Module, split: Split, *, num_classes: int) -> float:
    logits = batched_logits(module, split.images, num_classes=num_classes)
    return (logits.argmax(dim=1) == split.labels).double().mean().item()
