"""Frozen networks whose features take the place of the images that they see.

Features are computed once, in batches, and kept on disk by their content: the network's weights and
layers, the layer that is read, and the images. What is made of bytes becomes a float only in its
batch, so that pictures of any size never lie in memory as floats.
"""

from __future__ import annotations

import contextlib
import difflib
import hashlib
import inspect
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from qkd_qiskit.data.backbone_weights import published_weights, read_weights, take_weights
from qkd_qiskit.data.images import in_unit_range, resized
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec
from qkd_qiskit.recipe.data import RANDOM_WEIGHTS
from qkd_qiskit.recipe.import_paths import import_function, user_code
from qkd_qiskit.recipe.seeds import derive_seed, seeded
from qkd_qiskit.storage import (
    CacheFolder,
    Tensors,
    compute_once,
    tensor_digest,
)

logger = logging.getLogger(__name__)

_BATCH = 128  # images
# Of ImageNet, on which torchvision's models are trained: mean and deviation of each channel.
_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_ADVICE = "give a network for batches of these images, or other images: data.size, data.channels"


@dataclass(frozen=True, eq=False)
class Backbone:
    """A frozen network, and what is taken of it.

    Attributes:
        network: In evaluation mode.
        name: What messages call it.
        layer: Layer that is read; None = the network's own output.
        before: Whether what goes into that layer is read, in place of what comes out.
        size: Height and width that images are brought to; None = as they are.
        imagenet: Whether images are normalised as those of ImageNet, grey ones in three channels.
        code: SHA-256 of what else decides what the network does: its layers and their source.
    """

    network: nn.Module
    name: str
    layer: str | None
    before: bool
    size: tuple[int, int] | None
    imagenet: bool
    code: str

    def features(self, images: Tensor, *, cache: CacheFolder = None) -> Tensor:
        """Return features (N, 1, 1, features), float32, of images (N, channels, height, width).

        Args:
            images: Bytes, or float32.
            cache: Folder that keeps them; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False =
                none.

        Raises:
            DataError: The network fails on the images, or gives no finite features.
        """
        if tuple(images.shape[1:3]) == (1, 1):
            raise DataError(f"{self.name}: the data holds feature vectors, no images; leave it out")
        key = {
            "weights": tensor_digest(self.network.state_dict()),
            "code": self.code,
            "layer": [self.layer, self.before],
            "size": self.size,
            "imagenet": self.imagenet,
            "images": tensor_digest({"images": images}),
        }

        def check(tensors: Tensors) -> None:
            rows = tensors.get("features", torch.empty(0))
            if rows.ndim != 4 or len(rows) != len(images) or not bool(rows.isfinite().all()):
                raise DataError(f"{self.name}: no finite features for {len(images)} images")

        made = compute_once(
            "features",
            json.dumps(key, sort_keys=True),
            compute=lambda: {"features": self._compute(images)},
            check=check,
            cache=cache,
        )
        check(made)
        return made["features"]

    def _compute(self, images: Tensor) -> Tensor:
        logger.info("%s: features of %d images are computed", self.name, len(images))
        made: Tensor | None = None
        with torch.inference_mode(mode=False), torch.no_grad():
            for start in range(0, len(images), _BATCH):
                rows = self._rows(images[start : start + _BATCH])
                if made is None:
                    made = torch.empty(len(images), 1, 1, rows.shape[1])
                made[start : start + len(rows), 0, 0] = rows
        assert made is not None  # no data set is empty
        return made

    def _rows(self, images: Tensor) -> Tensor:
        """Return features (batch, features) of one batch."""
        batch = in_unit_range(resized(images, self.size)).clone()  # a network may change its input
        if self.imagenet:
            batch = batch.expand(-1, 3, -1, -1) if batch.shape[1] == 1 else batch
            mean, deviation = (torch.tensor(it).view(1, -1, 1, 1) for it in (_MEAN, _DEVIATION))
            if batch.shape[1] == 3:
                batch = (batch - mean) / deviation
        shape = tuple(batch.shape[1:])
        with (
            user_code(
                f"{self.name} fails on images of shape {shape}", advice=_ADVICE, error=DataError
            ),
            self._reading() as seen,
        ):
            given = self.network(batch.to(_device(self.network)))
        if self.layer is not None and len(seen) != 1:
            raise DataError(
                f"{self.name}: layer {self.layer!r} runs {len(seen)} times in a pass; give one "
                "that runs once (data.backbone_layer)"
            )
        return self._averaged(given if self.layer is None else seen[0], len(batch))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[list[Any]]:
        """Collect what goes into the layer, or comes out of it, while the network runs."""
        seen: list[Any] = []
        if self.layer is None:
            yield seen
            return
        layer = dict(self.network.named_modules())[self.layer]
        hook = (
            layer.register_forward_pre_hook(lambda _layer, given: seen.append(given[0]))
            if self.before
            else layer.register_forward_hook(lambda _layer, _given, made: seen.append(made))
        )
        try:
            yield seen
        finally:
            hook.remove()

    def _averaged(self, values: object, count: int) -> Tensor:
        where = f"layer {self.layer!r}" if self.layer else "the network"
        if not isinstance(values, Tensor) or values.ndim not in (2, 3, 4) or len(values) != count:
            what = (
                f"a tensor of shape {tuple(values.shape)}"
                if isinstance(values, Tensor)
                else f"a {type(values).__name__}"
            )
            raise DataError(
                f"{self.name}: {where} gives {what} for {count} images; name a layer that gives "
                "(batch, features), (batch, tokens, features) or (batch, features, height, width)"
            )
        places = {2: (), 3: (1,), 4: (2, 3)}[values.ndim]
        return (values.float().mean(dim=places) if places else values.float()).cpu()


def load_backbone(spec: DataSpec, *, seed: int = 0) -> Backbone | None:
    """Return the network of `data.backbone` with its weights; None where there is none.

    Args:
        spec: Which network, layer and weights.
        seed: Seed of random weights, the control.

    Raises:
        DataError: There is no such network or layer, its weights cannot be read or downloaded, or
            do not fit.
    """
    if spec.backbone is None:
        return None
    kind, _, name = spec.backbone.partition(":")
    source = f"data.backbone: {spec.backbone!r}"
    theirs = kind == "torchvision"
    with seeded(derive_seed(seed, "backbone", "weights")):
        network, code = _torchvision(name) if theirs else _own(name, source=source)
    layer, before = _layer(network, spec.backbone_layer, source=source, theirs=theirs)
    weights = spec.backbone_weights
    if weights == RANDOM_WEIGHTS and not theirs:
        _draw_anew(network, seed=seed)
    elif weights is not None and weights != RANDOM_WEIGHTS:
        state = read_weights(weights, digest=spec.backbone_digest)
        take_weights(network, state, layer=layer if before else None, source=weights)
    elif weights is None and theirs:
        take_weights(
            network, published_weights(name), layer=None, source=f"torchvision's weights of {name}"
        )
    logger.info("data.backbone: %s", spec.backbone_origin)
    network.eval()
    return Backbone(network, source, layer, before, spec.image_size, theirs, code)


def own_backbone(
    network: nn.Module, *, layer: str | None, size: tuple[int, int] | None
) -> Backbone:
    """Return a network that was given in Python, a copy in evaluation mode.

    Raises:
        DataError: It is no network, cannot be copied, or has no such layer.
    """
    import copy

    if not isinstance(network, nn.Module):
        raise DataError(f"the network is a {type(network).__name__}; give an nn.Module")
    if not isinstance(layer, str | None):
        raise DataError(f"the layer is a {type(layer).__name__}; give its name, or None")
    name = f"the network {type(network).__name__}"
    with user_code(
        f"{name} cannot be copied", advice="give one that copy.deepcopy takes", error=DataError
    ):
        copied = copy.deepcopy(network).eval()
    found, _ = _layer(copied, layer, source=name, theirs=False)
    return Backbone(copied, name, found, False, size, False, _code(copied))


def _torchvision(name: str) -> tuple[nn.Module, str]:
    """Return a classifier of torchvision with random weights, and its name as its code."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"give one of {', '.join(known)}"
        raise DataError(f"data.backbone: torchvision has no classifier {name!r}; {hint}")
    return models.get_model(name, weights=None), f"torchvision {name}"


def _own(path: str, *, source: str) -> tuple[nn.Module, str]:
    factory = import_function(
        path, key="data.backbone", error=DataError, signature="() -> nn.Module"
    )
    with user_code(f"{source} fails", advice="give a function () -> nn.Module", error=DataError):
        network = factory()
    if not isinstance(network, nn.Module):
        raise DataError(f"{source} gives a {type(network).__name__}; give an nn.Module")
    return network, _code(network, factory)


def _code(network: nn.Module, *others: object) -> str:
    """Return the SHA-256 of a network's layers and of the files that its code lies in."""
    digest = hashlib.sha256(f"{network}".encode())
    for part in (type(network), *others):
        try:
            digest.update(Path(inspect.getfile(part)).read_bytes())  # type: ignore[arg-type]
        except (TypeError, OSError):  # made at run time, or built into Python
            digest.update(repr(part).encode())
    return digest.hexdigest()


def _layer(
    network: nn.Module, name: str | None, *, source: str, theirs: bool
) -> tuple[str | None, bool]:
    """Return which layer is read, and whether what goes into it is."""
    named = dict(network.named_modules())
    if name is not None:
        if not name or name not in named:
            near = difflib.get_close_matches(name, named, n=1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"its layers are {', '.join(filter(None, named))}"
            )
            raise DataError(f"data.backbone_layer: {source} has no layer {name!r}; {hint}")
        return name, False
    if not theirs:
        return None, False
    heads = [it for it, module in named.items() if isinstance(module, nn.Linear)]
    if not heads:
        raise DataError(f"{source} has no linear layer at its end; give data.backbone_layer")
    return heads[-1], True


def _draw_anew(network: nn.Module, *, seed: int) -> None:
    """Give each layer that knows how to draw its weights new ones."""
    with seeded(derive_seed(seed, "backbone", "drawn anew")):
        for module in network.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()


def _device(network: nn.Module) -> torch.device:
    first = next(network.parameters(), None)
    return torch.device("cpu") if first is None else first.device
