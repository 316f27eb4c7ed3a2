"""Memory of a simulation: refused before anything is allocated, or taken in whole cache lines."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from qkd_qiskit.errors import CircuitError

SAMPLE_BYTES = 256  # per basis state: what two layers of a circuit and one sample take at least
_SMALL = 2**28  # bytes that are not worth asking the system about


def available_bytes(device: torch.device | None = None) -> int | None:
    """Return the bytes of memory that can be had now, or None where nobody says.

    Args:
        device: Whose memory; default: the system's.
    """
    if device is not None and device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        # What torch holds of it and does not use.
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device is not None and device.type != "cpu":
        return None
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return 1024 * int(line.split()[1])
    except OSError:
        pass  # not Linux: all of the memory is the best bound there is
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def require_memory(
    num_qubits: int,
    *,
    copies: int,
    what: str,
    bytes_each: int = 16,
    base: int = 2,
    device: torch.device | None = None,
) -> None:
    """Check that so many copies of a state of ``base**num_qubits`` numbers fit into memory.

    Raises:
        CircuitError: If they do not.
    """
    needed = copies * bytes_each * base**num_qubits
    require_bytes(needed, what=f"{what} on {num_qubits} qubits", device=device)


def require_bytes(needed: int, *, what: str, device: torch.device | None = None) -> None:
    """Check that so many bytes can be had.

    Args:
        needed: How many.
        what: What for.
        device: In whose memory; default: the system's.

    Raises:
        CircuitError: If they cannot.
    """
    free = available_bytes(device) if needed > _SMALL else None
    if free is not None and needed > free:
        where = "" if device is None or device.type == "cpu" else f" on {device}"
        raise CircuitError(
            f"{what} needs about {needed / 2**30:.1f} GiB and "
            f"{free / 2**30:.1f} GiB are free{where}; use fewer qubits or a smaller batch"
        )


def empty_rows(*shape: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return an array that begins at a cache line, as torch's do; NumPy does not promise it."""
    precision = torch.float32 if dtype.itemsize == 4 else torch.float64
    array: NDArray[Any] = torch.empty(shape, dtype=precision).numpy()
    return array
