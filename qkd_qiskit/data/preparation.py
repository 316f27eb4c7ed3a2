"""A data set with its images as a recipe wants them: of another size, or a network's features."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from qkd_qiskit.data.backbones import load_backbone
from qkd_qiskit.data.images import resized, with_channels
from qkd_qiskit.data.sources import Pixels, Source
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec

Labels = npt.NDArray[np.int64]


def prepare(source: Source, spec: DataSpec, *, seed: int) -> Source:
    """Return a data set with its images as `spec` wants them, or with a network's features.

    Raises:
        DataError: The network cannot be had or fails, or feature vectors are to be resized.
    """
    if spec.size is None and spec.channels is None and spec.backbone is None:
        return source
    backbone = load_backbone(spec, seed=seed)

    def prepared(images: Pixels) -> Pixels:
        pixels = torch.from_numpy(images)
        pixels = with_channels(pixels[:, None] if pixels.ndim == 3 else pixels, spec.channels)
        if backbone is not None:
            made: Pixels = backbone.features(pixels).numpy()
            return made
        if tuple(pixels.shape[1:3]) == (1, 1) and spec.size is not None:
            raise DataError(f"data.size: {spec.title} holds feature vectors, no images; give null")
        return resized(pixels, spec.image_size).numpy()

    def pair(part: tuple[Pixels, Labels] | None) -> tuple[Pixels, Labels] | None:
        return None if part is None else (prepared(part[0]), part[1])

    with torch.inference_mode(mode=False):
        return replace(
            source,
            images=prepared(source.images),
            test=pair(source.test),
            validation=pair(source.validation),
            unlabelled=None if source.unlabelled is None else prepared(source.unlabelled),
        )
