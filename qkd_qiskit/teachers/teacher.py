"""Make a teacher from its specification: train it, or load its weights, and freeze it.

A trained teacher is kept on disk by content: whoever asks again for the same training gets its
weights at once.
"""

from __future__ import annotations

from pathlib import Path

import torch

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import TeacherError, require_kind
from qkd_qiskit.recipe import TeacherSpec
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.simulator.torch_device import torch_device
from qkd_qiskit.storage import CacheFolder, save_tensors
from qkd_qiskit.teachers.architectures import architecture_digest, build_teacher
from qkd_qiskit.teachers.base import (
    Teacher,
    combine_teachers,
    frozen_teacher,
    measured,
    table_teacher,
)
from qkd_qiskit.teachers.checkpoints import load_weights
from qkd_qiskit.teachers.ensembles import member_specs
from qkd_qiskit.teachers.own_module import plain_weights
from qkd_qiskit.teachers.training import OnEpoch, outputs_of, train_once


@torch.inference_mode(mode=False)
def make_teacher(
    spec: TeacherSpec,
    data: Data,
    *,
    seed: int = 0,
    cache: CacheFolder = None,
    device: str | torch.device = "cpu",
    on_epoch: OnEpoch | None = None,
) -> Teacher:
    """Return the teacher of a recipe: from its checkpoint, from the cache, or trained now.

    Each network of an ensemble is kept by itself.

    Args:
        spec: Architecture and how it is trained, or the checkpoint that replaces training.
        data: What it trains on (the pool) and is measured on (the test images).
        seed: Seed of its draw, initial weights, order and dropout.
        cache: Folder that keeps weights and logits; None = $QKD_CACHE, else ~/.cache/qkd_qiskit;
            False = none.
        device: Where it trains and stays: cpu, cuda, cuda:1 or auto (a GPU where there is one). Its
            logits come back on the CPU.
        on_epoch: Called while it trains; see `train_teacher`.

    Raises:
        TeacherError: The architecture, or a checkpoint made for other classes or images, does not
            fit the data, or training diverged.
        CheckpointError: The checkpoint is missing or damaged.
        DataError: A class has fewer images than `train_per_class`.
        InputError: The device is not there.

    Example:
        >>> from qkd_qiskit import DataSpec, TeacherSpec, load_data, make_teacher
        >>> data = load_data(DataSpec(name="digits"))
        >>> teacher = make_teacher(TeacherSpec(kind="softmax", epochs=20), data)
        >>> teacher.accuracy > 0.85
        True
        >>> teacher.logits(data.test.images[:3]).shape
        torch.Size([3, 10])
    """
    require_kind("spec", spec, TeacherSpec, accepted="a TeacherSpec")
    place = torch_device(device)
    require_kind("data", data, Data, accepted="Data, from load_data or Data.from_arrays")
    say_unused(spec)
    if spec.same_draw:
        raise TeacherError(
            "teacher.same_draw: True is not accepted outside a run, where no student's draw is "
            "known; give false and replace(data, pool=data.pool[rows]) with the rows of the draw"
        )
    if spec.kind == "run":
        raise TeacherError(
            f"teacher.kind: 'run' is not accepted outside a run; in Python give "
            f"Run.open({spec.run!r}).as_teacher(data, arm={spec.arm!r}, seed={spec.seed!r}, "
            f"target={spec.target!r})"
        )
    if spec.kind == "logits":
        return _of_soft_labels(data, cache=cache)
    members = [
        _make_one(single, images, seed=own, cache=cache, device=place, on_epoch=on_epoch)
        for single, images, own in member_specs(spec, data, seed=seed)
    ]
    if len(members) == 1:
        return members[0]
    return combine_teachers(members, data, average=spec.average, cache=cache)


def _of_soft_labels(data: Data, *, cache: CacheFolder) -> Teacher:
    if data.pool.teacher_logits is None:
        raise TeacherError(
            f"teacher.kind: 'logits' is not accepted for {data.name}, which has none; give an .npz "
            "file with teacher_logits (data.name arrays), or Data.from_arrays(..., teacher_logits=)"
        )
    splits = (data.pool, data.validation, data.test)
    return table_teacher(splits, data, kind="logits", cache=cache)


def _make_one(
    spec: TeacherSpec,
    data: Data,
    *,
    seed: int,
    cache: CacheFolder,
    device: torch.device | None = None,
    on_epoch: OnEpoch | None = None,
    trained: bool = True,
) -> Teacher:
    """Return a single network, measured where it is trained."""
    module = build_teacher(
        spec,
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=seed if trained else derive_seed(seed, "untrained teacher"),
    )
    if device is not None:
        module = module.to(device)
    architecture = architecture_digest(spec, module)
    if trained and spec.checkpoint is not None:
        load_weights(module, spec.checkpoint, num_classes=data.num_classes)
    outputs = outputs_of(module, spec, data)
    if trained and spec.checkpoint is None:
        train_once(
            module,
            spec,
            data,
            outputs=outputs,
            architecture=architecture,
            seed=seed,
            cache=cache,
            on_epoch=on_epoch,
        )
    teacher = frozen_teacher(
        module,
        spec.kind,
        architecture=architecture,
        num_classes=data.num_classes,
        outputs=outputs,
    )
    return measured(teacher, data, cache=cache) if trained else teacher


@torch.inference_mode(mode=False)
def make_untrained_teacher(spec: TeacherSpec, data: Data, *, seed: int = 0) -> Teacher:
    """Return the recipe's network with other random weights, never trained: a control.

    Args:
        spec: Architecture; of an ensemble as many networks.
        data: What it would be trained on.
        seed: Seed of its weights, which are not those that `make_teacher` starts from.
    """
    members = [
        _make_one(single, images, seed=own, cache=False, trained=False)
        for single, images, own in member_specs(spec, data, seed=seed)
    ]
    if len(members) == 1:
        return members[0]
    return combine_teachers(members, data, average=spec.average)


def save_teacher(teacher: Teacher, path: str | Path) -> None:
    """Write a teacher's weights as a safetensors file that `teacher.checkpoint` can name.

    Raises:
        StorageError: The file could not be written; an older one at `path` is untouched.
        TeacherError: Its weights are no plain tensors, as those of a quantized network.
    """
    if not plain_weights(teacher.module):
        raise TeacherError(
            f"the weights of a {type(teacher.module).__name__} are no plain tensors, which is all "
            "that safetensors keeps; save the network as torch does"
        )
    metadata = {"kind": teacher.kind, "num_classes": str(teacher.num_classes)}
    save_tensors(path, teacher.module.state_dict(), metadata)
