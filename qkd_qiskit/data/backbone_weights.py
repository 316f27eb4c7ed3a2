"""Weights of frozen networks: from a file, without unpickling, or as torchvision publishes them."""

from __future__ import annotations

import http.client
import logging
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from qkd_qiskit.data.sources import quiet_network
from qkd_qiskit.errors import CheckpointError, DataError, StorageError, first_line
from qkd_qiskit.recipe.data import RANDOM_WEIGHTS
from qkd_qiskit.storage import load_tensors, sha256_of, user_path

logger = logging.getLogger(__name__)

_PARALLEL = "module."  # what torch.nn.DataParallel writes before each name


def weights_file_digest(path: str) -> str:
    """Return the SHA-256 of a file of weights.

    Raises:
        DataError: It cannot be read.
    """
    try:
        return sha256_of(user_path(path))
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        reason = getattr(error, "strerror", None) or first_line(error)
        raise DataError(
            f"data.backbone_weights: {path} cannot be read: {reason}; give a file of weights, "
            f"{RANDOM_WEIGHTS} or null"
        ) from error


def read_weights(given: str, *, digest: str | None) -> Mapping[str, Tensor]:
    """Return tensors by name from a file; nothing in it is unpickled but tensors and containers."""
    path = user_path(given)
    if digest is not None and path.is_file() and sha256_of(path) != digest:
        raise DataError(
            f"data.backbone_weights: {path} has changed since the run began "
            "(data.backbone_digest); bring the old file back, or start a new run"
        )
    if path.suffix == ".safetensors" or not path.is_file():
        try:
            return load_tensors(path)[0]
        except CheckpointError as error:
            raise DataError(f"data.backbone_weights: {error}") from error
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever the file holds
        raise DataError(
            f"data.backbone_weights: {path} is no file of torch.save that holds tensors alone "
            f"({type(error).__name__}); save network.state_dict(), or a safetensors file"
        ) from error
    for name in ("state_dict", "model", "network"):
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    tensors = isinstance(content, Mapping) and all(
        isinstance(it, Tensor) for it in content.values()
    )
    if not tensors:
        raise DataError(
            f"data.backbone_weights: {path} holds no tensors by name; save a state_dict"
        )
    state: Mapping[str, Tensor] = content
    return state


def published_weights(name: str) -> Mapping[str, Tensor]:
    """Return the weights that torchvision publishes for a model, downloaded where need be."""
    from torchvision import models

    weights = models.get_model_weights(name).DEFAULT
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
    if not path.is_file():
        logger.warning("downloading the weights %s of %s from %s", weights, name, weights.url)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            known = path.stem.rpartition("-")[2]  # the first digits of its SHA-256
            with quiet_network():
                torch.hub.download_url_to_file(weights.url, str(path), known, progress=False)
        except (OSError, RuntimeError, http.client.HTTPException, StorageError) as error:
            raise DataError(
                f"data.backbone: the weights of torchvision's {name} are not in {path.parent} and "
                f"cannot be downloaded ({first_line(error)}); put {path.name} there, give a file "
                "with data.backbone_weights, or random for the control"
            ) from error
    logger.warning("data.backbone: weights %s of torchvision, from %s", weights, path)
    return read_weights(str(path), digest=None)


def take_weights(
    network: nn.Module, state: Mapping[str, Tensor], *, layer: str | None, source: str
) -> None:
    """Copy weights by name; those of the head, which is not used, are left out.

    Raises:
        DataError: One is missing, unknown or of another shape.
    """
    own = network.state_dict()
    if state and all(name.startswith(_PARALLEL) for name in state):
        state = {name.removeprefix(_PARALLEL): value for name, value in state.items()}
    head = f"{layer}." if layer else None
    kept = {
        name: value for name, value in state.items() if head is None or not name.startswith(head)
    }
    needed = {name for name in own if head is None or not name.startswith(head)}
    missing = sorted(it for it in needed - set(kept) if not it.endswith("num_batches_tracked"))
    strange = sorted(set(kept) - needed)
    shaped = [it for it in kept if it in own and kept[it].shape != own[it].shape]
    problem: dict[str, list[str]] = {
        "lacks": missing,
        "has unknown": strange,
        "has another shape of": shaped,
    }
    for what, names in problem.items():
        if names:
            raise DataError(
                f"data.backbone_weights: {source} {what} {names[0]!r} ({len(names)} of {len(own)} "
                "tensors); give the weights of this network"
            )
    network.load_state_dict(kept, strict=False)
