"""Any classifier as a teacher: a network, a function, one of scikit-learn, or just its outputs."""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from numbers import Number
from typing import Any, TypeGuard, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from qkd_qiskit.data.containers import as_array
from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import DataError, TeacherError, require_kind
from qkd_qiskit.recipe import TeacherAverage, TeacherOutputs
from qkd_qiskit.recipe.import_paths import user_code
from qkd_qiskit.storage import CacheFolder
from qkd_qiskit.teachers.base import Teacher, combine_teachers, table_teacher
from qkd_qiskit.teachers.outputs import find_outputs, output_tensor, to_logits

_SMALLEST = 1e-12  # of a probability: its logarithm stays finite


def as_teacher(
    source: object,
    data: Data,
    *,
    outputs: TeacherOutputs | None = None,
    average: TeacherAverage = "probabilities",
    cache: CacheFolder = None,
) -> Teacher:
    """Return whatever classifies, or several of it as an ensemble, as a teacher for the data.

    Args:
        source: A `Teacher`; an `nn.Module` or a callable from images (batch, channels, height,
            width) to outputs (batch, num_classes); a fitted scikit-learn classifier of the
            flattened images with `predict_proba`, or else `decision_function`; or an array of its
            outputs for the pool (pool, num_classes); or a list of two or more of these.
        data: What it teaches.
        outputs: What a module, a callable or an array gives; None = found, as in
            `Teacher.from_module`. A scikit-learn classifier's outputs are known.
        average: What is averaged over a list: probabilities or logits; see
            `qkd_qiskit.teachers.ensembles`.
        cache: Folder that keeps a module's logits; None = $QKD_CACHE, else ~/.cache/qkd_qiskit;
            False = none. The others' logits are not kept.

    Raises:
        TeacherError: It is none of these, fails on the images, or gives outputs of another shape.

    Example:
        >>> from sklearn.ensemble import RandomForestClassifier
        >>> from qkd_qiskit import DataSpec, as_teacher, load_data
        >>> data = load_data(DataSpec(name="digits"))
        >>> forest = RandomForestClassifier(n_estimators=30, random_state=0)
        >>> pixels = data.pool.images.flatten(1).numpy()
        >>> teacher = as_teacher(forest.fit(pixels, data.pool.labels.numpy()), data)
        >>> teacher.accuracy > 0.9
        True
    """
    require_kind("data", data, Data, accepted="Data, from load_data or Data.from_arrays")
    if isinstance(source, Teacher):
        return source
    if average not in get_args(TeacherAverage):
        raise TeacherError(
            f"average is {average!r}; give one of {', '.join(get_args(TeacherAverage))}"
        )
    if _is_several(source):
        members = [as_teacher(item, data, outputs=outputs, cache=cache) for item in source]
        if len(members) == 1:
            return members[0]
        return combine_teachers(members, data, average=average, cache=cache)
    if isinstance(source, type):
        raise TeacherError(
            f"the teacher is the class {source.__name__}; give a trained instance of it"
        )
    if isinstance(source, nn.Module | ExportedProgram):
        return Teacher.from_module(source, data, outputs=outputs, cache=cache)
    if hasattr(source, "predict_proba") or hasattr(source, "decision_function"):
        classifier = _SklearnModule(source, data)
        return Teacher.from_module(classifier, data, outputs="logits", cache=False)
    if callable(source):
        function = _Function(source, name=getattr(source, "__name__", type(source).__name__))
        return Teacher.from_module(function, data, outputs=outputs, cache=False)
    if isinstance(source, np.ndarray | Tensor | list) or hasattr(source, "to_numpy"):
        return _of_table(source, data, outputs=outputs)
    raise TeacherError(
        f"the teacher is a {type(source).__name__}; give what make_teacher returns, an nn.Module, "
        "a function of images, a fitted scikit-learn classifier with predict_proba or "
        "decision_function, logits (images, num_classes), or a list of these"
    )


def _is_several(source: object) -> TypeGuard[Sequence[object]]:
    """Return whether it is a list of teachers, and not one of numbers or of their rows."""
    if not isinstance(source, list | tuple) or not source:
        return False
    first = source[0]
    rows = isinstance(first, list | tuple) and not isinstance(next(iter(first), 0), list | tuple)
    array = isinstance(first, np.ndarray | Tensor) and first.ndim < 2
    return not (isinstance(first, Number) or rows or array)


class _Function(nn.Module):
    """A function of images, as a module without weights."""

    def __init__(self, function: Callable[[Tensor], Any], *, name: str) -> None:
        super().__init__()
        self.function, self.source = function, f"the function {name}"

    def __deepcopy__(self, memo: dict[int, object]) -> _Function:
        return self  # a function has no weights of ours, and may refuse to be copied

    def forward(self, images: Tensor) -> Tensor:
        return _as_tensor(output_tensor(self.function(images)), what=f"outputs of {self.source}")


class _SklearnModule(nn.Module):
    """A fitted scikit-learn classifier of flattened images; logits are log p or decision values."""

    def __init__(self, classifier: Any, data: Data) -> None:
        super().__init__()
        self.classifier, self.source = classifier, f"the {type(classifier).__name__}"
        known = getattr(classifier, "classes_", None)
        if known is None:
            raise TeacherError(
                f"the {type(classifier).__name__} is not fitted; call its fit(X, y) with images "
                f"flattened to {int(np.prod(data.image_shape))} features"
            )
        self.num_classes = data.num_classes
        readings = _readings(np.asarray(known, dtype=object).tolist(), data)
        if not readings:
            raise TeacherError(
                f"the {type(classifier).__name__} knows the classes "
                f"{reprlib.repr(np.asarray(known, dtype=object).tolist())}, the data has "
                f"{reprlib.repr(list(data.class_names))}; fit it with these labels"
            )
        self.columns = readings[0]
        if len(readings) > 1:  # names such as 1, 2 may be numbers of classes, too
            self.columns = max(readings, key=lambda columns: self._accuracy(columns, data))

    def _accuracy(self, columns: Tensor, data: Data) -> float:
        """Return the share of the validation images it classifies rightly by that reading."""
        self.columns = columns
        with user_code(
            f"the {type(self.classifier).__name__} fails on images of shape {data.image_shape}",
            advice="fit it with images flattened to as many features",
        ):
            choices = self(data.validation.images).argmax(dim=1)
        return float((choices == data.validation.labels).double().mean())

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
        if values.ndim == 2 and values.shape[1] != len(self.columns):
            raise TeacherError(
                f"the decision_function of the {type(self.classifier).__name__} gives "
                f"{values.shape[1]} values for {len(self.columns)} classes; set "
                "decision_function_shape='ovr'"
            )
        if values.ndim == 1:  # of two classes: the second's against the first's
            values = torch.stack([-values / 2, values / 2], dim=1)
        logits = torch.full((len(images), self.num_classes), float(values.min()) - 1)
        logits[:, self.columns] = values.to(logits.dtype)
        return logits


def _readings(known: list[object], data: Data) -> list[Tensor]:
    """Return what a classifier's classes may be: their names, or their numbers."""
    names = {name: label for label, name in enumerate(data.class_names)}
    by_name = [names.get(str(name)) for name in known]
    numbers = range(data.num_classes)
    by_number = [
        int(name) if isinstance(name, int | float) and name in numbers else None for name in known
    ]
    readings = [
        torch.tensor(labels)
        for labels in (by_name, by_number)
        if None not in labels and len(set(labels)) == len(known)
    ]
    same = len(readings) == 2 and torch.equal(*readings)
    return readings[:1] if same else readings


def _of_table(outputs_of_pool: Any, data: Data, *, outputs: TeacherOutputs | None) -> Teacher:
    """Return outputs for the pool as a teacher."""
    table = _as_tensor(outputs_of_pool, what="the teacher's outputs")
    expected = (len(data.pool), data.num_classes)
    if tuple(table.shape) != expected:
        raise TeacherError(
            f"the teacher's outputs have shape {tuple(table.shape)}; give {expected}, one row "
            "for each image of the pool (data.pool.images, in that order)"
        )
    broken = (~table.isfinite().all(dim=1)).nonzero().flatten()
    if len(broken):
        raise TeacherError(
            f"the teacher's outputs are NaN or infinite in {len(broken)} of {len(table)} rows, "
            f"the first is number {broken[0]}; give finite ones"
        )
    kind = find_outputs(table, stated=outputs, source="the array of outputs")
    pool = replace(data.pool, teacher_logits=to_logits(table, kind))
    return table_teacher([pool], data, kind="outputs", cache=False)


def _as_tensor(values: Any, *, what: str) -> Tensor:
    """Return numbers of any container and type as a float32 tensor."""
    try:
        array = as_array(values, what=what)
    except DataError as error:
        raise TeacherError(str(error)) from error
    if array.dtype.kind not in "fiub":
        raise TeacherError(f"{what} are of type {array.dtype}; give real numbers")
    with np.errstate(over="ignore"):  # what overflows is infinite, and refused by who asks
        return torch.from_numpy(array.astype(np.float32))
