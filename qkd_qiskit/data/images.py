"""Images of any layout and type as float32 arrays (N, channels, height, width)."""

from __future__ import annotations

import logging
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from qkd_qiskit.data.containers import Array
from qkd_qiskit.errors import DataError

logger = logging.getLogger(__name__)

Channels = Literal["first", "last"]
_BATCH = 512  # images that are brought to another size at a time
_USUAL_CHANNELS = (1, 3, 4)


def plain_images(
    images: Array, *, what: str, channels: Channels | None = None
) -> npt.NDArray[np.float32]:
    """Return images as float32 (N, channels, height, width); uint8 values are divided by 255.

    Args:
        images: (N, channels, height, width), (N, height, width, channels), (N, height, width) of
            one channel, or (N, features), which become images of shape (1, 1, features).
        what: What messages call them.
        channels: Where the channels of four axes are; None = found from their lengths, and logged
            where they are last.

    Raises:
        DataError: Another number of axes, no numbers, or values that are not finite.
    """
    if images.dtype.kind == "O":
        images = _from_objects(images, what=what)
    if images.dtype.kind not in "fiub":
        raise DataError(f"{what} are of type {images.dtype}; give real numbers")
    if images.ndim not in (2, 3, 4) or 0 in images.shape:
        raise DataError(
            f"{what} have shape {images.shape}; give (N, channels, height, width), "
            "(N, height, width) or (N, features)"
        )
    scale = 255.0 if images.dtype == np.uint8 else 1.0
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused below
        values: npt.NDArray[np.float32] = images.astype(np.float32) / np.float32(scale)
    broken = np.flatnonzero(~np.isfinite(values.reshape(len(values), -1)).all(axis=1))
    if len(broken):
        raise DataError(
            f"{len(broken)} of {len(values)} {what} hold NaN or infinite values, the first is "
            f"number {broken[0]}; mend them or leave them out"
        )
    if values.ndim == 2:
        return values[:, None, None, :]
    if values.ndim == 3:
        return values[:, None]
    if channels == "last" or (channels is None and _channels_are_last(values.shape[1:])):
        if channels is None and what == "images":  # once, not for each split
            logger.warning(
                "%s of shape %s are taken as (N, height, width, channels); where the channels are "
                "first, give Data.from_arrays(..., channels='first')",
                what,
                values.shape,
            )
        return np.ascontiguousarray(values.transpose(0, 3, 1, 2))
    return values


def _channels_are_last(shape: tuple[int, ...]) -> bool:
    """Tell (height, width, channels) from (channels, height, width) by the lengths.

    Channels are usually 1, 3 or 4, and images often square. What fits both is channels first.
    """
    first, middle, last = shape
    if first == 1 or middle == last:
        return False
    if first in _USUAL_CHANNELS:
        return last == 1 and first == middle
    return last in _USUAL_CHANNELS or first == middle


def _from_objects(images: Array, *, what: str) -> npt.NDArray[np.float64]:
    try:
        return images.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise DataError(
            f"{what} hold values that are no numbers ({error}); leave out the columns of text"
        ) from error


def require_same_type(train: Array, other: Array, *, what: str) -> None:
    """Refuse bytes beside other numbers: only bytes are divided by 255.

    Raises:
        DataError: One of the two is uint8, the other is not.
    """
    if (train.dtype == np.uint8) != (other.dtype == np.uint8):
        raise DataError(
            f"{what} are of type {other.dtype}, training images {train.dtype}, and only uint8 is "
            "divided by 255; give both in one type"
        )


def in_unit_range(images: Tensor) -> Tensor:
    """Return images as float32: bytes divided by 255, others as they are."""
    if images.dtype != torch.uint8:
        return images
    # Written where it stays: no array of whole numbers in float32 beside it.
    pixels: npt.NDArray[np.float32] = np.empty(tuple(images.shape), np.float32)
    np.divide(images.numpy(), np.float32(255), out=pixels)
    return torch.from_numpy(pixels)


def resized(images: Tensor, size: tuple[int, int] | None) -> Tensor:
    """Return images (N, channels, height, width) of another size, bytes as bytes.

    The side that is shorter beside `size` is scaled to it, bilinearly and with smoothing where it
    shrinks; the middle is cut out of the other.

    Args:
        images: Bytes, or float32.
        size: Height and width; None = as they are.
    """
    if size is None or tuple(images.shape[-2:]) == size:
        return images
    from torchvision.transforms.v2 import functional as transforms  # a second to import

    if len(images) > _BATCH:
        return torch.cat([resized(batch, size) for batch in torch.split(images, _BATCH)])
    height, width = images.shape[-2:]
    factor = max(size[0] / height, size[1] / width)
    whole = [max(size[0], round(factor * height)), max(size[1], round(factor * width))]
    scaled = transforms.resize(images, whole, antialias=True)
    middle: Tensor = transforms.center_crop(scaled, list(size))
    return middle


def with_channels(images: Tensor, channels: Literal["grey", "rgb"] | None) -> Tensor:
    """Return images (N, channels, height, width) in grey, or in three channels.

    Raises:
        DataError: They have neither one channel nor three.
    """
    count = images.shape[1]
    wanted = {"grey": 1, "rgb": 3, None: count}[channels]
    if wanted == count:
        return images
    if count not in (1, 3):
        raise DataError(
            f"data.channels: images of {count} channels cannot be made {channels}; give null"
        )
    if wanted == 3:
        return images.expand(-1, 3, -1, -1)
    from torchvision.transforms.v2 import functional as transforms  # a second to import

    return torch.cat([transforms.rgb_to_grayscale(batch) for batch in torch.split(images, _BATCH)])
