"""A teacher's weights from a file: checked before they are taken."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.storage import Tensors, load_tensors


def load_weights(module: nn.Module, path: str | Path, *, num_classes: int) -> None:
    """Load a safetensors file into `module`, which must have the same tensors.

    Raises:
        TeacherError: The file has tensors of other names or shapes, such as another number of
            classes, or values that are not finite.
        CheckpointError: The file is missing, a pickle or damaged.
    """
    tensors, metadata = load_tensors(path)
    source = f"teacher.checkpoint: {path}"
    if "kind" in metadata:
        source += f" (it holds a {metadata['kind']})"
    check_weights(tensors, module, source=source, num_classes=num_classes)
    module.load_state_dict(tensors)


def check_weights(tensors: Tensors, module: nn.Module, *, source: str, num_classes: int) -> None:
    """Raise a TeacherError where tensors are not the module's, or not finite.

    Args:
        tensors: By name.
        module: Whose they should be.
        source: What the message calls them.
        num_classes: Classes of the data, which are the module's outputs.
    """
    expected = module.state_dict()
    missing, unexpected = sorted(expected.keys() - tensors), sorted(tensors.keys() - expected)
    if missing or unexpected:
        raise TeacherError(
            f"{source} lacks {_some(missing)} and has {_some(unexpected)} too many; "
            "give weights of this teacher.kind, or its kind"
        )
    _check_classes(tensors, expected, source=source, num_classes=num_classes)
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise TeacherError(
                f"{source} has {name} of shape {tuple(tensor.shape)}, "
                f"{tuple(expected[name].shape)} is expected; give weights trained on images of "
                "this size with this teacher.kind"
            )
        if not torch.isfinite(tensor).all():
            raise TeacherError(
                f"{source} has NaN or infinite values in {name}; "
                "give the weights of a training that did not diverge"
            )


def _check_classes(tensors: Tensors, expected: Tensors, *, source: str, num_classes: int) -> None:
    matrices = [name for name, tensor in expected.items() if tensor.ndim == 2]
    # The last linear layer, which is the output; a network of the user's may have another order.
    last = matrices[-1] if matrices else None
    if last is None or expected[last].shape[0] != num_classes or tensors[last].ndim != 2:
        return
    outputs = tensors[last].shape[0]
    if outputs != num_classes:
        raise TeacherError(
            f"{source} gives {outputs} outputs for {num_classes} classes; give a teacher trained "
            f"on these classes, or a data.classes with {outputs}"
        )


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return shown or "nothing"
