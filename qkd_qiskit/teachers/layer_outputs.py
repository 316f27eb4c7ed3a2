"""What a named layer of a network gives; names are those of `named_modules()`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from qkd_qiskit.errors import InputError
from qkd_qiskit.teachers.own_module import device_of, without_gradient

_BATCH = 256  # images


@contextmanager
def captured(module: nn.Module, layer: str, *, owner: str = "network") -> Iterator[list[Tensor]]:
    """Collect what a layer gives while the module runs, also under torch.func transforms.

    Args:
        module: The network.
        layer: Name of one of its modules.
        owner: What error messages call the network.

    Raises:
        InputError: There is no such layer.
    """
    named = dict(module.named_modules())
    if not layer or layer not in named:
        names = ", ".join(name for name in named if name)
        raise InputError(f"the {owner} has no layer {layer!r}; its layers are {names or 'none'}")
    outputs: list[Tensor] = []
    hook = named[layer].register_forward_hook(lambda _module, _given, out: outputs.append(out))
    try:
        yield outputs
    finally:
        hook.remove()


def only(outputs: Sequence[Tensor], layer: str, *, owner: str = "network") -> Tensor:
    """Return the one tensor that a layer gave.

    Raises:
        InputError: The layer was not run, or more than once, or gave something else.
    """
    if len(outputs) != 1 or not isinstance(outputs[0], Tensor) or outputs[0].ndim < 2:
        what = f"ran {len(outputs)} times" if len(outputs) != 1 else "gave no features"
        raise InputError(
            f"layer {layer!r} of the {owner} {what} in a pass over a batch; give a layer that "
            "gives one tensor (batch, ...)"
        )
    return outputs[0]


def layer_outputs(
    module: nn.Module, inputs: Tensor, *, layer: str, owner: str = "network"
) -> Tensor:
    """Return what a layer gives for inputs `(N, ...)`, without gradient, on the CPU.

    The inputs go where the network lies.

    Raises:
        InputError: As `captured` and `only`.
    """
    parts = []
    with without_gradient():
        for batch in torch.split(inputs, _BATCH):
            with captured(module, layer, owner=owner) as outputs:
                # A copy, as a network may change its input.
                module(batch.to(device_of(module), copy=True))
            parts.append(only(outputs, layer, owner=owner).float())
        return torch.cat(parts).cpu()
