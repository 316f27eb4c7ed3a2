"""Checkpoints of populations as files: members of several as those of one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from qkd_qiskit.storage import load_tensors, save_tensors


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """What `Population.save` wrote.

    Attributes:
        tensors: Parameters, optimizer state and history, stacked over the members.
        identity: The members, their specification and the shapes of the parameters.
        cost: What training from shots has cost; None for others.
    """

    tensors: Mapping[str, Tensor]
    identity: Mapping[str, Any]
    cost: Mapping[str, int] | None

    @property
    def members(self) -> list[tuple[str, int]]:
        """Arm and seed of each member."""
        return [(member["arm"], member["seed"]) for member in self.identity["members"]]

    @classmethod
    def load(cls, path: Path) -> Checkpoint:
        """Read a file.

        Raises:
            CheckpointError: It is damaged.
        """
        tensors, metadata = load_tensors(path)
        cost = json.loads(metadata["cost"]) if "cost" in metadata else None
        return cls(tensors, json.loads(metadata["members"]), cost)

    def save(self, path: Path) -> None:
        """Write a file, as `Population.save` does.

        Raises:
            StorageError: It could not be written.
        """
        metadata = {"members": json.dumps(self.identity, sort_keys=True)}
        if self.cost is not None:
            metadata["cost"] = json.dumps(self.cost)
        save_tensors(path, self.tensors, metadata=metadata)


def join_members(
    sources: Sequence[Checkpoint], members: Sequence[tuple[str, int]]
) -> Checkpoint | None:
    """Return the checkpoint of a population whose members come from several.

    Its cost is that of all sources. None where a member is in none of them, or they were not
    trained alike: by another specification, with other parameters or for fewer epochs.

    Args:
        sources: What there is.
        members: Arm and seed of each member.
    """
    places = {
        member: (source, row)
        for source in reversed(sources)
        for row, member in reversed(list(enumerate(source.members)))
    }
    if not all(member in places for member in members):
        return None
    chosen = [places[member] for member in members]
    first = chosen[0][0]
    if any(not _alike(source, first) for source, _ in chosen):
        return None
    tensors = {}
    for name, value in first.tensors.items():
        stack = int(name == "history")  # its first dimension is the epochs
        tensors[name] = (
            torch.stack([source.tensors[name].select(stack, row) for source, row in chosen], stack)
            if value.ndim
            else value
        )
    shapes = {name: [len(members), *shape[1:]] for name, shape in first.identity["shapes"].items()}
    identity = {
        "members": [source.identity["members"][row] for source, row in chosen],
        "spec": first.identity["spec"],
        "shapes": shapes,
    }
    used = {id(source): source for source, _ in chosen}.values()
    cost: Counter[str] = Counter()
    for source in used:
        cost.update(source.cost or {})
    return Checkpoint(tensors, identity, None if first.cost is None else dict(cost))


def _alike(one: Checkpoint, other: Checkpoint) -> bool:
    if one.identity["spec"] != other.identity["spec"] or one.tensors.keys() != other.tensors.keys():
        return False
    return len(one.tensors["history"]) == len(other.tensors["history"]) and all(
        torch.equal(value, other.tensors[name])
        for name, value in one.tensors.items()
        if not value.ndim  # the number of steps
    )
