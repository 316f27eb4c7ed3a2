"""What a teacher gives for images, and logits made of it.

Distillation divides logits by a temperature. Probabilities in their place would be softened to
nearly the same number for every class, so they are turned back into logits:

===================  ====================================  ======================================
outputs              rows z (num_classes,)                 logits
===================  ====================================  ======================================
logits               any numbers                           z
probabilities        0 to 1, sum 1 (softmax)               log z
log_probabilities    up to 0, sum of exp z 1               z, which is logits up to a constant
sigmoid              0 to 1, each class by itself          log z - log(1 - z)
===================  ====================================  ======================================

Probabilities below 1e-12 count as 1e-12.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping

import torch
from torch import Tensor

from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherOutputs

logger = logging.getLogger(__name__)

_SMALLEST_PROBABILITY = 1e-12
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
    if isinstance(output, tuple | list) and output:
        return output[0]
    return output


def find_outputs(values: Tensor, *, stated: TeacherOutputs | None, source: str) -> TeacherOutputs:
    """Return what a teacher's outputs are: as stated, if they can be that, else as they look.

    Args:
        values: Outputs (N, num_classes) for real images.
        stated: What the user says; None = found, and logged where they are no logits.
        source: What messages call the teacher.

    Raises:
        TeacherError: The outputs cannot be what was stated.
    """
    looks = _looks_like(values)
    if stated is None:
        if looks != "logits":
            _warn_once(
                f"{source} gives {looks.replace('_', '-')} where logits are expected; they are "
                f"turned into logits: state outputs={looks!r} (teacher.outputs), or logits if not"
            )
        return looks
    fits = {
        "logits": looks != "probabilities",
        "probabilities": looks == "probabilities",
        "log_probabilities": looks == "log_probabilities",
        "sigmoid": bool(((values >= 0) & (values <= 1)).all()),
    }
    if stated not in fits:
        raise TeacherError(f"outputs is {stated!r}; give one of {', '.join(fits)}")
    if not fits[stated]:
        raise TeacherError(
            f"{source} is said to give {stated} (outputs), but gives {looks}, from "
            f"{float(values.min()):.4g} to {float(values.max()):.4g}; give outputs={looks!r}"
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
    in_unit_interval = bool(((values >= 0) & (values <= 1)).all())
    if in_unit_interval and _ones(values.sum(dim=1)):
        return "probabilities"
    # A sigmoid gives no exact zeros, unlike a ReLU.
    if in_unit_interval and bool((values > 0).all()):
        return "sigmoid"
    if bool((values <= 0).all()) and _ones(values.exp().sum(dim=1)):
        return "log_probabilities"
    return "logits"


def _ones(sums: Tensor) -> bool:
    return bool(torch.allclose(sums, torch.ones_like(sums), rtol=0, atol=_CLOSE))
