"""Where torch computes: on the CPU, or on a GPU by its name."""

from __future__ import annotations

import re

import torch
from torch import Tensor

from qkd_qiskit.errors import InputError

_NAMES = re.compile(r"cpu|auto|cuda(:\d{1,3})?")


def torch_device(name: str | torch.device) -> torch.device:
    """Return the device of torch with this name.

    Args:
        name: cpu, cuda, cuda:1 (the second GPU), auto (cuda where there is one, else cpu), or a
            device of torch of any kind.

    Raises:
        InputError: There is no such name, or no such GPU.
    """
    if isinstance(name, torch.device):
        device = name
    elif isinstance(name, str) and _NAMES.fullmatch(name):
        automatic = "cuda" if torch.cuda.is_available() else "cpu"
        device = torch.device(automatic if name == "auto" else name)
    else:
        raise InputError(f"device is {name!r}; give cpu, cuda, cuda:1 or another number, or auto")
    if device.type != "cuda":
        return device
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if (device.index or 0) >= count:
        have = f"GPUs that torch can use: {count}" if count else "torch finds no GPU here"
        raise InputError(f"device {str(device)!r} is not there ({have}); give cpu or auto")
    return device


def on_host(tensor: Tensor) -> bool:
    """Return whether values can be looked at without waiting for another device."""
    return tensor.device.type == "cpu"
