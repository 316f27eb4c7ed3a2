"""More inputs than the labelled images: copies of them, and images that only the teacher labels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qkd_qiskit.data.augmentation import augmented_copies
from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.distillation.schedule import step_sizes
from qkd_qiskit.errors import DataError, TrainingError
from qkd_qiskit.recipe import GENERATED, LABEL_LOSSES, DistillSpec
from qkd_qiskit.recipe.seeds import generator


def with_unlabelled(data: Data) -> Data:
    """Return data whose pool ends with its unlabelled images, if there are any.

    Their labels are of the first class, and must not be read: see `require_no_labels`.
    """
    if data.unlabelled is None:
        return data
    labels = data.pool.labels
    pool = Split(
        images=torch.cat([data.pool.images, data.unlabelled]),
        labels=torch.cat([labels, labels.new_zeros(len(data.unlabelled))]),
    )
    return replace(data, pool=pool)


def draw_unlabelled(data: Data, rows: Tensor, *, share: int, seed: int) -> Tensor:
    """Return rows of the pool of `with_unlabelled`: those given, and others without labels.

    They are the unlabelled images of the data, or the others of the pool where it has none.

    Args:
        data: Where the images are.
        rows: Rows of the labelled images in the pool `(images,)`.
        share: Others for each labelled image, as far as there are.
        seed: Seed of their draw.
    """
    if data.unlabelled is None:
        others = torch.ones(len(data.pool), dtype=torch.bool)
        others[rows] = False
        free = others.nonzero().flatten()
    else:
        free = len(data.pool) + torch.arange(len(data.unlabelled))
    chosen = free[torch.randperm(len(free), generator=generator(seed, "unlabelled"))]
    return torch.cat([rows, chosen[: share * len(rows)]])


def with_copies(
    data: Data, draws: Tensor, *, spec: DistillSpec, seeds: Sequence[int]
) -> tuple[Data, Tensor]:
    """Return data whose pool holds the augmented copies of what is drawn, and their rows.

    What a seed gets depends on the seed and its draw alone. Members of one seed share the copies.

    Args:
        data: Where the images are.
        draws: Rows of the pool for each member `(members, images)`.
        spec: Kind and number of the copies.
        seeds: Seed of each member; members of a seed have the same draw.

    Raises:
        DataError: As `check_augmentation`.
    """
    if spec.augment == "none":
        return data, draws
    check_augmentation(data, spec)
    first = {seed: place for place, seed in reversed(list(enumerate(seeds)))}
    order = list(dict.fromkeys(seeds))
    images, labels = [], []
    for seed in order:
        split = data.pool[draws[first[seed]]]
        stream = generator(seed, "augmented copies")
        made = augmented_copies(split.images, spec.augment, copies=spec.copies, stream=stream)
        images.append(made.flatten(0, 1))
        labels.append(split.labels.repeat(spec.copies))
    pool = Split(images=torch.cat(images), labels=torch.cat(labels))
    rows = spec.copies * draws.shape[1]
    places = torch.tensor([order.index(seed) for seed in seeds])
    return replace(data, pool=pool), rows * places[:, None] + torch.arange(rows)


def check_augmentation(data: Data, spec: DistillSpec) -> None:
    """Check that copies can be made of data.

    Raises:
        DataError: They are points, of features that have no neighbours, and are to be moved.
    """
    generated = data.spec is not None and data.spec.name in GENERATED
    if spec.augment in ("shift", "jitter") and (generated or min(data.image_shape[1:]) < 2):
        raise DataError(
            f"distill.augment: {spec.augment!r} moves images, and the data are points of "
            f"{math.prod(data.image_shape)} features; give mixup or none"
        )


def in_usual_steps(spec: DistillSpec, *, usual: int, more: int) -> DistillSpec:
    """Return how more images are trained on in as many steps as the usual ones would take.

    Args:
        spec: How the usual images are trained on.
        usual: How many they are.
        more: How many there are.
    """
    if more == usual:
        return spec
    steps = sum(map(len, step_sizes(spec, usual)))
    return replace(spec, epochs=math.ceil(steps / math.ceil(more / spec.batch_size)), steps=steps)


def require_no_labels(spec: DistillSpec, *, reason: str) -> None:
    """Check that a loss reads no labels.

    Args:
        spec: With the loss.
        reason: Why it must not, for the message.

    Raises:
        TrainingError: It does.
    """
    readers = [term.loss for term in spec.other_terms if term.loss in LABEL_LOSSES]
    if spec.ce_weight > 0:
        readers.insert(0, "ce")
    if readers:
        raise TrainingError(
            f"{reason}, and the loss term {readers[0]} reads labels; set its weight to 0 "
            "(distill.ce_weight)"
        )
