"""The specification of data as a run keeps it: absolute paths, and digests of what they name."""

from __future__ import annotations

from dataclasses import replace

from qkd_qiskit.data.arrays import file_digest
from qkd_qiskit.data.backbone_weights import weights_file_digest
from qkd_qiskit.data.folders import folder_digest
from qkd_qiskit.recipe import DataSpec
from qkd_qiskit.recipe.data import RANDOM_WEIGHTS
from qkd_qiskit.storage import absolute_path, user_path


def settled(spec: DataSpec) -> DataSpec:
    """Return a specification that is understood from any folder, and knows what it is of.

    Raises:
        DataError: A file or folder that it names cannot be read.
    """
    digest, weights, of_weights = spec.digest, spec.backbone_weights, spec.backbone_digest
    if spec.file is not None:
        digest = digest or file_digest(user_path(spec.file))
    elif spec.name == "folder" and spec.root is not None:
        digest = digest or folder_digest(spec.root)
    if spec.backbone is not None and weights not in (None, RANDOM_WEIGHTS):
        of_weights = of_weights or weights_file_digest(weights)
        weights = absolute_path(weights)
    return replace(
        spec,
        root=absolute_path(spec.root),
        file=absolute_path(spec.file),
        digest=digest,
        backbone_weights=weights,
        backbone_digest=of_weights,
    )
