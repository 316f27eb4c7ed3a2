"""What a teacher gives for images, and logits made of it.

Distillation divides logits by a temperature. Probabilities in their place would be softened to
nearly the same number for every class, so they are turned back into logits:

===================  ====================================  ======================================
outputs              rows z (num_classes,)                 logits
===================  ====================================  ======================================
logits               any numbers                           z
probabilities        0 or more, of one sum (softmax)       log z
log_probabilities    up to 0, sum of exp z 1               z, which is logits up to a constant
sigmoid              0 to 1, each class by itself          log z - log(1 - z)
===================  ====================================  ======================================

Probabilities below 1e-12 count as 1e-12. Percentages and counts of votes are probabilities, too:
another sum than 1 adds the same number to all logits.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from typing import get_args

import torch
from torch import Tensor

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherOutputs

logger = logging.getLogger(__name__)

_SMALLEST_PROBABILITY = 1e-12
_MEANINGS: dict[TeacherOutputs, str] = {
    "logits": "logits",
    "probabilities": "probabilities",
    "log_probabilities": "log-probabilities",
    "sigmoid": "a sigmoid of each class",
}
_TINY = 1e-6  # a number above 0 that no layer gives by chance
_CLOSE = 5e-3  # half precision rounds a sum of ten probabilities to less than this
_warn_once = functools.cache(logger.warning)


def output_tensor(output: object) -> object:
    """Return the logits inside of what a network returned.

    They are the output itself, or its `logits`, as an attribute or a key, or the first of several.
    """
    if isinstance(output, Mapping):
        return output.get("logits", output)
    if isinstance(getattr(output, "logits", None), Tensor):
        return output.logits  # type: ignore[attr-defined]
    if isinstance(output, tuple | list) and output and not isinstance(output[0], list | float):
        return output[0]
    return output


def describe_output(output: object) -> str:
    """Return what a network returned, for a message: the shape of a tensor, else the type."""
    if not isinstance(output, Tensor):
        return type(output).__name__
    plain = output.layout == torch.strided and not output.is_complex()
    return f"{tuple(output.shape)}" + ("" if plain else f" of {output.dtype}, {output.layout}")


def find_outputs(values: Tensor, *, stated: TeacherOutputs | None, source: str) -> TeacherOutputs:
    """Return what a teacher's outputs are: as stated, if they can be that, else as they look.

    Args:
        values: Outputs (N, num_classes) for real images.
        stated: What the user says; None = found, and logged where they are no logits.
        source: What messages call the teacher.

    Raises:
        TeacherError: The outputs cannot be what was stated.
    """
    if stated not in (None, *get_args(TeacherOutputs)):
        raise TeacherError(
            f"outputs is {stated!r}; give one of {', '.join(get_args(TeacherOutputs))}, or None"
        )
    looks = _looks_like(values)
    if stated is None:
        if looks != "logits":
            _warn_once(
                f"{source} gives what looks like {_MEANINGS[looks]} in place of logits, and is "
                f"used so; state outputs={looks!r} (teacher.outputs) where it is, or give a "
                "network that ends in logits"
            )
        return looks
    fits = {
        "logits": looks != "probabilities",
        "probabilities": looks == "probabilities",
        "log_probabilities": looks == "log_probabilities",
        "sigmoid": bool(((values >= 0) & (values <= 1)).all()),
    }
    if not fits[stated]:
        raise TeacherError(
            f"{source} does not give {_MEANINGS[stated]} (outputs={stated!r}), but numbers from "
            f"{float(values.min()):.4g} to {float(values.max()):.4g} that look like "
            f"{_MEANINGS[looks]}; give outputs={looks!r}"
        )
    return stated


def to_logits(values: Tensor, outputs: TeacherOutputs) -> Tensor:
    """Return logits (batch, num_classes) of a teacher's outputs of that kind."""
    if outputs == "probabilities":
        return values.clamp_min(_SMALLEST_PROBABILITY).log()
    if outputs == "sigmoid":
        # In double precision, where 1 - z of the largest float32 below 1 is no rounding error.
        odds = values.double().clamp(_SMALLEST_PROBABILITY, 1 - 2.0**-25)
        return (odds.log() - (-odds).log1p()).to(values.dtype)
    return values


def _looks_like(values: Tensor) -> TeacherOutputs:
    if not values.isfinite().all() or values.shape[1] < 2:
        return "logits"
    sums = values.sum(dim=1)
    if bool((values >= 0).all()) and bool((sums > 0).all()) and _ones(sums / sums[0]):
        return "probabilities"
    # A sigmoid gives no exact zeros, unlike a ReLU, but where it saturates: next to tiny numbers.
    positive = values[values > 0]
    saturates = len(positive) > 0 and float(positive.min()) < _TINY
    if bool(((values >= 0) & (values <= 1)).all()) and (saturates or bool((values > 0).all())):
        return "sigmoid"
    if bool((values <= 0).all()) and _ones(values.exp().sum(dim=1)):
        return "log_probabilities"
    return "logits"


def _ones(sums: Tensor) -> bool:
    return bool(torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=_CLOSE))
