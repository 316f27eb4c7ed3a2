"""Any classifier as a teacher: a network, a function, one of scikit-learn, or just its outputs."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import TeacherError
from qkd_qiskit.recipe import TeacherOutputs
from qkd_qiskit.storage import CacheFolder, tensor_digest
from qkd_qiskit.teachers.outputs import find_outputs, to_logits
from qkd_qiskit.teachers.teacher import Teacher

_SMALLEST = 1e-12  # of a probability: its logarithm stays finite


def as_teacher(
    source: object,
    data: Data,
    *,
    outputs: TeacherOutputs | None = None,
    cache: CacheFolder = None,
) -> Teacher:
    """Return whatever classifies as a teacher for the data.

    Args:
        source: A `Teacher`; an `nn.Module` or a callable from images (batch, channels, height,
            width) to outputs (batch, num_classes); a fitted scikit-learn classifier of the
            flattened images with `predict_proba`, or else `decision_function`; or an array of its
            outputs for the pool (pool, num_classes).
        data: What it teaches.
        outputs: What a module, a callable or an array gives; None = found, as in
            `Teacher.from_module`. A scikit-learn classifier's outputs are known.
        cache: Folder that keeps a module's logits; None = $QKD_CACHE, else ~/.cache/qkd_qiskit;
            False = none. The others' logits are not kept.

    Raises:
        TeacherError: It is none of these, fails on the images, or gives outputs of another shape.
    """
    if isinstance(source, Teacher):
        return source
    if isinstance(source, nn.Module):
        return Teacher.from_module(source, data, outputs=outputs, cache=cache)
    if hasattr(source, "predict_proba") or hasattr(source, "decision_function"):
        classifier = _SklearnModule(source, data)
        return Teacher.from_module(classifier, data, outputs="logits", cache=False)
    if callable(source):
        function = _Function(source, name=getattr(source, "__name__", type(source).__name__))
        return Teacher.from_module(function, data, outputs=outputs, cache=False)
    if isinstance(source, np.ndarray | Tensor | list):
        return _of_table(_OutputTable(source, data, outputs=outputs), data)
    raise TeacherError(
        f"the teacher is a {type(source).__name__}; give what make_teacher returns, an nn.Module, "
        "a function of images, a fitted scikit-learn classifier, or logits (images, num_classes)"
    )


class _Function(nn.Module):
    """A function of images, as a module without weights."""

    def __init__(self, function: Callable[[Tensor], Any], *, name: str) -> None:
        super().__init__()
        self.function, self.name = function, name

    def __deepcopy__(self, memo: dict[int, object]) -> _Function:
        return self  # a function has no weights of ours, and may refuse to be copied

    def forward(self, images: Tensor) -> Tensor:
        outputs = torch.as_tensor(self.function(images))
        return outputs.to(images.dtype)


class _SklearnModule(nn.Module):
    """A fitted scikit-learn classifier of flattened images; logits are log p or decision values."""

    def __init__(self, classifier: Any, data: Data) -> None:
        super().__init__()
        self.classifier = classifier
        known = getattr(classifier, "classes_", None)
        if known is None:
            raise TeacherError(
                f"the {type(classifier).__name__} is not fitted; call its fit(X, y) with images "
                f"flattened to {int(np.prod(data.image_shape))} features"
            )
        labels = [self._label(name, data) for name in np.asarray(known).tolist()]
        if None in labels:
            raise TeacherError(
                f"the {type(classifier).__name__} knows the classes {list(known)}, the data has "
                f"{list(data.class_names)}; fit it with these labels"
            )
        self.columns = torch.tensor(labels)
        self.num_classes = data.num_classes

    @staticmethod
    def _label(name: object, data: Data) -> int | None:
        """Return the label that a class of the classifier is: by its name, else by its number."""
        if str(name) in data.class_names:
            return data.class_names.index(str(name))
        number = isinstance(name, int | float) and float(name).is_integer()
        return int(name) if number and 0 <= name < data.num_classes else None  # type: ignore[operator, call-overload]

    def __deepcopy__(self, memo: dict[int, object]) -> _SklearnModule:
        return self  # what is fitted is only read

    def forward(self, images: Tensor) -> Tensor:
        features = images.flatten(1).numpy()
        if hasattr(self.classifier, "predict_proba"):
            known = torch.as_tensor(self.classifier.predict_proba(features)).clamp_min(_SMALLEST)
            logits = torch.full((len(images), self.num_classes), _SMALLEST, dtype=known.dtype)
            logits[:, self.columns] = known
            return logits.log().to(images.dtype)
        values = torch.as_tensor(np.atleast_1d(self.classifier.decision_function(features)))
        if values.ndim == 1:  # of two classes: the second's against the first's
            values = torch.stack([-values / 2, values / 2], dim=1)
        logits = torch.full((len(images), self.num_classes), float(values.min()) - 1)
        logits[:, self.columns] = values.to(logits.dtype)
        return logits


class _OutputTable(nn.Module):
    """Outputs that were computed elsewhere, looked up by the bytes of an image of the pool."""

    def __init__(self, outputs_of_pool: Any, data: Data, *, outputs: TeacherOutputs | None) -> None:
        super().__init__()
        table = torch.as_tensor(np.asarray(outputs_of_pool)).float()
        expected = (len(data.pool), data.num_classes)
        if tuple(table.shape) != expected:
            raise TeacherError(
                f"the teacher's outputs have shape {tuple(table.shape)}; give {expected}, one row "
                "for each image of the pool (data.pool.images, in that order)"
            )
        kind = find_outputs(table, stated=outputs, source="the array of outputs")
        self.table = to_logits(table, kind)
        self.rows = {_bytes(image): row for row, image in enumerate(data.pool.images)}

    def forward(self, images: Tensor) -> Tensor:
        rows = [self.rows.get(_bytes(image)) for image in images]
        if None in rows:
            raise TeacherError(
                "a teacher that is an array of outputs knows the images of its pool alone; give a "
                "module or a function to be asked for others"
            )
        return self.table[torch.tensor(rows)]


def _of_table(table: _OutputTable, data: Data) -> Teacher:
    """Return a table as a teacher; its accuracy on the test images is not known."""
    return Teacher(
        module=table,
        kind="outputs",
        num_classes=data.num_classes,
        digest=tensor_digest({"logits": table.table}),
        architecture="outputs of a pool",
        parameters=0,
        accuracy=math.nan,
    )


def _bytes(image: Tensor) -> bytes:
    return image.contiguous().numpy().tobytes()
