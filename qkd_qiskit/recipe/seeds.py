"""One seed in a recipe, an independent random stream for each purpose."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive_seed(seed: int, *purpose: str | int) -> int:
    """Return a seed of 63 bits that depends on `seed` and on every word of the purpose."""
    text = "/".join([str(seed), *map(str, purpose)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a torch generator on the CPU for a purpose, such as `generator(0, "order", epoch)`."""
    return torch.Generator().manual_seed(derive_seed(seed, *purpose))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run torch's CPU random numbers from `seed`, and put the global state back afterwards."""
    with torch.random.fork_rng(devices=[]):
        # Not torch.manual_seed: it also seeds the GPUs, which fork_rng does not put back here.
        torch.default_generator.manual_seed(seed)
        yield
