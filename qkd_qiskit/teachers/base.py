"""A teacher: a frozen network, or several that teach together, and its logits of images.

Logits are kept on disk by content: whoever asks again for the same weights and images gets them at
once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.export import ExportedProgram

from qkd_qiskit.data.splits import Data, Split
from qkd_qiskit.errors import InputError, TeacherError, require_kind
from qkd_qiskit.recipe import TeacherAverage, TeacherOutputs
from qkd_qiskit.storage import CacheFolder, tensor_digest
from qkd_qiskit.teachers.cache import cached_rows
from qkd_qiskit.teachers.ensembles import EnsembleModule, average_logits
from qkd_qiskit.teachers.layer_outputs import layer_outputs
from qkd_qiskit.teachers.output_table import OutputTable
from qkd_qiskit.teachers.outputs import find_outputs, to_logits
from qkd_qiskit.teachers.own_module import (
    as_module,
    check_module,
    copy_module,
    count_weights,
    freeze,
    weights_digest,
    without_gradient,
)
from qkd_qiskit.teachers.training import batched_logits, say_if_changing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained, frozen network, or several that teach together.

    Attributes:
        module: Network in evaluation mode, without gradients.
        kind: Architecture, as in the recipe.
        num_classes: Number of logits.
        digest: SHA-256 of the weights.
        architecture: SHA-256 of the layers, and of the source of a module of your own.
        parameters: Number of weights.
        accuracy: Share of the test images it classifies rightly; NaN where its logits for them are
            not known.
        outputs: What `module` gives; `logits` makes logits of it.
        members: The teachers of an ensemble; none of a single network.
        average: What is averaged over them.
    """

    module: nn.Module = field(repr=False)
    kind: str
    num_classes: int
    digest: str = field(repr=False)
    architecture: str = field(repr=False)
    parameters: int
    accuracy: float
    outputs: TeacherOutputs = "logits"
    members: tuple[Teacher, ...] = ()
    average: TeacherAverage = "probabilities"

    @property
    def tested(self) -> bool:
        """Whether it was measured on the test images: its logits for them are known."""
        return not math.isnan(self.accuracy)

    @classmethod
    def from_module(
        cls,
        module: nn.Module | ExportedProgram,
        data: Data,
        *,
        outputs: TeacherOutputs | None = None,
        cache: CacheFolder = None,
    ) -> Teacher:
        """Return your own trained network as a teacher: a frozen copy, measured on the test images.

        TorchScript, exported and quantized networks are taken too; those of half or double
        precision are run in float32, on the CPU.

        Args:
            module: Network that maps images (batch, channels, height, width) to logits
                (batch, num_classes), or to what `outputs` says; it is left as it is.
            data: What it teaches.
            outputs: logits, probabilities, log_probabilities or sigmoid; None = found from what it
                gives for the test images, and logged where it is not logits. See
                `qkd_qiskit.teachers.outputs`.
            cache: Folder that keeps its logits; None = $QKD_CACHE, else ~/.cache/qkd_qiskit;
                False = none.

        Raises:
            TeacherError: It is no module, cannot be copied, fails on the images, gives something
                else than was said, or gives NaN.
        """
        shape, num_classes = data.image_shape, data.num_classes
        source = getattr(module, "source", None)
        source = source if isinstance(source, str) else f"the module {type(module).__name__}"
        with without_gradient():
            module = copy_module(as_module(module, source=source), source=source)
            check_module(module, source=source, image_shape=shape, num_classes=num_classes)
            values = batched_logits(module, data.test.images, num_classes=num_classes)
            outputs = find_outputs(values, stated=outputs, source=source)
            say_if_changing(module, data.test.images, values=values, source=source)
            # What it computes is not in its weights, and its source may be nowhere: its logits of
            # the test images tell it from another in the cache.
            teacher = frozen_teacher(
                module,
                "module",
                architecture=tensor_digest({"logits": to_logits(values, outputs)}),
                num_classes=num_classes,
                outputs=outputs,
            )
            return measured(teacher, data, cache=cache)

    def logits(
        self, images: torch.Tensor, *, temperature: float = 1.0, cache: CacheFolder = None
    ) -> torch.Tensor:
        """Return logits (N, num_classes) of images (N, channels, height, width), no gradient.

        They are computed once for the same weights and images and then read from disk, so call
        this with a whole split rather than batch by batch.

        Args:
            images: Images, float32.
            temperature: That they will be softened by. Those of a single network do not depend on
                it; those of an ensemble give the mean of its members' probabilities at it.
            cache: Folder that keeps them; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False =
                none.

        Raises:
            TeacherError: The teacher gives NaN or infinite logits.
        """
        require_kind("images", images, torch.Tensor, accepted="a tensor, such as data.test.images")
        if self.members:
            given = [it.logits(images, temperature=temperature, cache=cache) for it in self.members]
            return average_logits(torch.stack(given), average=self.average, temperature=temperature)
        shape = (len(images), self.num_classes)

        def compute() -> torch.Tensor:
            logits = batched_logits(
                self.module, images, num_classes=self.num_classes, outputs=self.outputs
            )
            broken = torch.nonzero(~torch.isfinite(logits).all(dim=1)).flatten()
            if len(broken):
                raise TeacherError(
                    f"the teacher gives NaN or infinite logits for {len(broken)} of {len(images)} "
                    f"images, the first is number {broken[0]}; check its weights"
                )
            return logits

        key = f"{self.digest} {self.architecture} {tensor_digest({'images': images})}"
        return cached_rows("logits", key, shape=shape, compute=compute, cache=cache)

    def features(
        self, images: torch.Tensor, *, layer: str, cache: CacheFolder = None
    ) -> torch.Tensor:
        """Return what a layer gives (N, ...) for images, no gradient; computed once as `logits`.

        Args:
            images: Images, float32.
            layer: Name of a layer of `module`.
            cache: As for `logits`.

        Raises:
            TeacherError: The teacher has no such layer, or it gives no features.
        """
        try:
            shape = layer_outputs(self.module, images[:1], layer=layer, owner="teacher").shape[1:]
        except InputError as error:
            raise TeacherError(f"distill.teacher_layer: {error}") from error

        key = f"{layer} {self.digest} {self.architecture} {tensor_digest({'images': images})}"
        return cached_rows(
            "features",
            key,
            shape=(len(images), *shape),
            compute=lambda: layer_outputs(self.module, images, layer=layer, owner="teacher"),
            cache=cache,
        )


def combine_teachers(
    members: Sequence[Teacher],
    data: Data,
    *,
    average: TeacherAverage = "probabilities",
    cache: CacheFolder = None,
) -> Teacher:
    """Return several teachers as one, measured on the test images where all of them know these.

    Args:
        members: Two or more teachers of the same classes.
        data: What they teach.
        average: What is averaged; see `qkd_qiskit.teachers.ensembles`.
        cache: As for `make_teacher`.

    Raises:
        TeacherError: A teacher has another number of classes than the data.
    """
    for member in members:
        if member.num_classes != data.num_classes:
            raise TeacherError(
                f"a teacher of the ensemble has {member.num_classes} outputs for "
                f"{data.num_classes} classes; give teachers of the classes of the data"
            )
    kinds = {member.kind for member in members}
    known = [f"{member.digest} {member.architecture}" for member in members]
    teacher = Teacher(
        module=EnsembleModule(
            [member.module for member in members],
            outputs=[member.outputs for member in members],
            average=average,
        ),
        kind=members[0].kind if len(kinds) == 1 else "ensemble",
        num_classes=data.num_classes,
        digest=hashlib.sha256("\n".join(known).encode()).hexdigest(),
        architecture=f"ensemble {average}",
        parameters=sum(member.parameters for member in members),
        accuracy=math.nan,
        members=tuple(members),
        average=average,
    )
    if not all(member.tested for member in members):
        return teacher
    return measured(teacher, data, cache=cache)


def frozen_teacher(
    module: nn.Module,
    kind: str,
    *,
    architecture: str,
    num_classes: int,
    outputs: TeacherOutputs,
) -> Teacher:
    """Return the network as a teacher that is not measured yet."""
    freeze(module)
    return Teacher(
        module=module,
        kind=kind,
        num_classes=num_classes,
        digest=weights_digest(module),
        # Logits that were kept before probabilities were told from logits are other logits.
        architecture=architecture if outputs == "logits" else f"{architecture} {outputs}",
        parameters=count_weights(module),
        accuracy=math.nan,
        outputs=outputs,
    )


def table_teacher(splits: Sequence[Split], data: Data, *, kind: str, cache: CacheFolder) -> Teacher:
    """Return logits that were computed elsewhere as a teacher of the images that they are for.

    Args:
        splits: Images with `teacher_logits`.
        data: What is taught. Its test images measure the teacher where they are among the splits;
            else its accuracy is NaN, and its pool shows whether it knows the classes.
        kind: What the teacher is called.
        cache: As for `Teacher.from_module`.
    """
    table = OutputTable(splits)
    teacher = Teacher(
        module=table,
        kind=kind,
        num_classes=data.num_classes,
        digest=table.digest,
        architecture="table of outputs",
        parameters=0,
        accuracy=math.nan,
    )
    if table.knows(data.test.images):
        return measured(teacher, data, cache=cache)
    _share_right(teacher, data.pool, what="training", cache=cache)
    return teacher


def measured(teacher: Teacher, data: Data, *, cache: CacheFolder) -> Teacher:
    """Return the teacher with its share of test images classified rightly."""
    accuracy = _share_right(teacher, data.test, what="test", cache=cache)
    return dataclasses.replace(teacher, accuracy=accuracy)


def _share_right(teacher: Teacher, split: Split, *, what: str, cache: CacheFolder) -> float:
    """Return the share of images classified rightly, and warn of one that is chance."""
    right = teacher.logits(split.images, cache=cache).argmax(dim=1) == split.labels
    accuracy = right.double().mean().item()
    if accuracy < 1.2 / teacher.num_classes:
        logger.warning(
            "the teacher classifies %.1f %% of the %s images rightly, no better than chance; "
            "it must have been trained on the same classes in the same order",
            100 * accuracy,
            what,
        )
    return accuracy
