"""Settings that do nothing beside the others of their section, so that they can be said.

They are not refused: a recipe keeps its points when another data set is named over it.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import fields

from qkd_qiskit.recipe.data import GENERATED, DataSpec
from qkd_qiskit.recipe.models import (
    CLASS_BINS,
    FILTER_STUDENTS,
    UNTRAINED_TEACHERS,
    StudentSpec,
    TeacherSpec,
)

logger = logging.getLogger(__name__)
_warn_once = functools.cache(logger.warning)
_ON_DISK = ("mnist", "fashion_mnist", "cifar10", "folder")


def say_unused(spec: DataSpec | TeacherSpec | StudentSpec) -> None:
    """Warn, once for each, of settings that differ from their default and do nothing."""
    section = type(spec).__name__.removesuffix("Spec").lower()
    for why, names in _unused(spec).items():
        given = [
            f"{section}.{field.name}"
            for field in fields(spec)
            if field.name in names and getattr(spec, field.name) != field.default
        ]
        if given:
            does = "do" if len(given) > 1 else "does"
            _warn_once(f"{' and '.join(given)} {does} nothing where {section}.{why}")


def _unused(spec: DataSpec | TeacherSpec | StudentSpec) -> dict[str, tuple[str, ...]]:
    """Return the names of what is not read, by the setting that is why."""
    unused: dict[str, tuple[str, ...]] = {}
    if isinstance(spec, DataSpec):
        if spec.name not in GENERATED:
            unused[f"name is {spec.name}"] = (
                *("points", "features", "informative", "noise_features", "difficulty"),
                *(() if spec.name in _ON_DISK else ("root",)),
            )
        else:
            unused[f"name is {spec.name}"] = ("size", "channels")
        if spec.file is None and spec.name != "folder":
            unused["file is null"] = ("digest",)
        if spec.backbone is None:
            unused["backbone is null"] = ("backbone_layer", "backbone_weights", "backbone_digest")
        if spec.train_per_class is None and spec.train_points is None:
            unused["train_per_class and data.train_points are null"] = ("draw",)
    elif isinstance(spec, TeacherSpec):
        training = ("epochs", "batch_size", "lr", "weight_decay", "train_per_class")
        if spec.checkpoint is not None:
            unused["checkpoint is given"] = training[:-1]
        given = training if spec.kind in UNTRAINED_TEACHERS else ()
        if spec.kind == "run":
            unused["kind is run"] = given
        if spec.kind != "run":
            unused[f"kind is {spec.kind}"] = (*given, "arm", "seed", "target", "digest")
        if spec.kind == "run" and spec.seed != "all":
            unused["seed is not all"] = ("average",)
        elif spec.kind != "run" and spec.ensemble == 1:
            unused["ensemble is 1"] = ("average",)
    elif spec.kind in FILTER_STUDENTS:
        names = tuple(field.name for field in fields(spec))
        unused[f"kind is {spec.kind}"] = names[1:]
    elif spec.kind == "module":
        # A classical twin has the reduction and the width.
        read = ("kind", "module", "reduction", "full_width")
        names = tuple(field.name for field in fields(spec) if field.name not in read)
        unused["kind is module"] = names
    else:
        if spec.circuit is not None:
            names = ("encoding", "features", "loader_layers", "ansatz", "layers")
            unused["circuit is given"] = names
        else:
            readers = {"features": "trained_reuploading", "loader_layers": "matrix_product"}
            names = tuple(name for name, reader in readers.items() if spec.encoding != reader)
            unused[f"encoding is {spec.encoding}"] = names
        if spec.head != "mlp":
            unused[f"head is {spec.head}"] = ("head_width",)
        if spec.readout not in CLASS_BINS:
            unused[f"readout is {spec.readout}"] = ("sharpness",)
    return unused
