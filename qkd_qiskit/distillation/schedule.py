"""Steps of a training, and their learning rate."""

from __future__ import annotations

import math

import torch

from qkd_qiskit.recipe import DistillSpec


def step_sizes(spec: DistillSpec, images: int) -> list[list[int]]:
    """Return how many of a member's images each step of each epoch takes."""
    sizes = [len(part) for part in torch.split(torch.arange(images), spec.batch_size)]
    left = len(sizes) * spec.epochs if spec.steps is None else spec.steps
    epochs = (sizes[: max(0, left - len(sizes) * epoch)] for epoch in range(spec.epochs))
    return [epoch for epoch in epochs if epoch]


def learning_rate(spec: DistillSpec, epoch: int) -> float:
    """Return the learning rate of an epoch, counted from 0."""
    if spec.schedule == "constant":
        return spec.lr
    return spec.lr * 0.5 * (1 + math.cos(math.pi * epoch / spec.epochs))
