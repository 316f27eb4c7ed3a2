"""Teachers: train one, or load its weights, freeze it, and keep its logits of images.

A trained teacher and its logits are kept on disk by content: whoever asks again for the same
weights and images gets them at once.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.export import ExportedProgram

from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import InputError, TeacherError, require_kind
from qkd_qiskit.recipe import TeacherOutputs, TeacherSpec
from qkd_qiskit.recipe.seeds import derive_seed
from qkd_qiskit.recipe.unused import say_unused
from qkd_qiskit.storage import (
    CacheFolder,
    Tensors,
    cache_path,
    compute_once,
    save_tensors,
    tensor_digest,
)
from qkd_qiskit.teachers.architectures import architecture_digest, build_teacher
from qkd_qiskit.teachers.checkpoints import check_weights, load_weights
from qkd_qiskit.teachers.layer_outputs import layer_outputs
from qkd_qiskit.teachers.outputs import find_outputs, to_logits
from qkd_qiskit.teachers.own_module import (
    as_module,
    check_module,
    copy_module,
    count_weights,
    freeze,
    plain_weights,
    weights_digest,
    without_gradient,
)
from qkd_qiskit.teachers.training import (
    OnEpoch,
    batched_logits,
    say_if_changing,
    train_teacher,
    training_draw,
)

logger = logging.getLogger(__name__)

_LOOKED_AT = 256  # images that say what a network gives


@dataclass(frozen=True, eq=False)
class Teacher:
    """A trained, frozen network.

    Attributes:
        module: Network in evaluation mode, without gradients.
        kind: Architecture, as in the recipe.
        num_classes: Number of logits.
        digest: SHA-256 of the weights.
        architecture: SHA-256 of the layers, and of the source of a module of your own.
        parameters: Number of weights.
        accuracy: Share of the test images it classifies rightly.
        outputs: What `module` gives; `logits` makes logits of it.
    """

    module: nn.Module = field(repr=False)
    kind: str
    num_classes: int
    digest: str = field(repr=False)
    architecture: str = field(repr=False)
    parameters: int
    accuracy: float
    outputs: TeacherOutputs = "logits"

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
            teacher = _frozen(
                module,
                "module",
                architecture=tensor_digest({"logits": to_logits(values, outputs)}),
                num_classes=num_classes,
                outputs=outputs,
            )
            return _measured(teacher, data, cache=cache)

    def logits(self, images: torch.Tensor, *, cache: CacheFolder = None) -> torch.Tensor:
        """Return logits (N, num_classes) of images (N, channels, height, width), no gradient.

        They are computed once for the same weights and images and then read from disk, so call
        this with a whole split rather than batch by batch.

        Args:
            images: Images, float32.
            cache: Folder that keeps them; None = $QKD_CACHE, else ~/.cache/qkd_qiskit; False =
                none.

        Raises:
            TeacherError: The teacher gives NaN or infinite logits.
        """
        require_kind("images", images, torch.Tensor, accepted="a tensor, such as data.test.images")
        shape = (len(images), self.num_classes)

        def compute() -> Tensors:
            logits = batched_logits(
                self.module, images, num_classes=self.num_classes, outputs=self.outputs
            )
            broken = torch.nonzero(~torch.isfinite(logits).all(dim=1)).flatten()
            if len(broken):
                raise TeacherError(
                    f"the teacher gives NaN or infinite logits for {len(broken)} of {len(images)} "
                    f"images, the first is number {broken[0]}; check its weights"
                )
            return {"logits": logits}

        def check(tensors: Tensors) -> None:
            logits = tensors.get("logits", torch.empty(0))
            if logits.shape != shape or not torch.isfinite(logits).all():
                raise TeacherError(f"no finite logits of shape {shape}")

        key = f"{self.digest} {self.architecture} {tensor_digest({'images': images})}"
        with without_gradient():
            return compute_once("logits", key, compute=compute, check=check, cache=cache)["logits"]

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

        def compute() -> Tensors:
            return {"features": layer_outputs(self.module, images, layer=layer, owner="teacher")}

        def check(tensors: Tensors) -> None:
            features = tensors.get("features", torch.empty(0))
            if features.shape != (len(images), *shape) or not torch.isfinite(features).all():
                raise TeacherError(f"no finite features of shape {(len(images), *shape)}")

        key = f"{layer} {self.digest} {self.architecture} {tensor_digest({'images': images})}"
        with without_gradient():
            tensors = compute_once("features", key, compute=compute, check=check, cache=cache)
        return tensors["features"]


@torch.inference_mode(mode=False)
def make_teacher(
    spec: TeacherSpec,
    data: Data,
    *,
    seed: int = 0,
    cache: CacheFolder = None,
    on_epoch: OnEpoch | None = None,
) -> Teacher:
    """Return the teacher of a recipe: from its checkpoint, from the cache, or trained now.

    Args:
        spec: Architecture and how it is trained, or the checkpoint that replaces training.
        data: What it trains on (the pool) and is measured on (the test images).
        seed: Seed of its draw, initial weights, order and dropout.
        cache: Folder that keeps weights and logits; None = $QKD_CACHE, else ~/.cache/qkd_qiskit;
            False = none.
        on_epoch: Called while it trains; see `train_teacher`.

    Raises:
        TeacherError: The architecture, or a checkpoint made for other classes or images, does not
            fit the data, or training diverged.
        CheckpointError: The checkpoint is missing or damaged.
        DataError: A class has fewer images than `train_per_class`.
    """
    require_kind("spec", spec, TeacherSpec, accepted="a TeacherSpec")
    require_kind("data", data, Data, accepted="Data, from load_data or Data.from_arrays")
    say_unused(spec)
    if spec.same_draw:
        raise TeacherError(
            "teacher.same_draw: True is not accepted outside a run, where no student's draw is "
            "known; give false and replace(data, pool=data.pool[rows]) with the rows of the draw"
        )
    module = build_teacher(
        spec, image_shape=data.image_shape, num_classes=data.num_classes, seed=seed
    )
    architecture = architecture_digest(spec, module)
    if spec.checkpoint is not None:
        load_weights(module, spec.checkpoint, num_classes=data.num_classes)
    outputs = _outputs(module, spec, data)
    if spec.checkpoint is None:
        _train_once(
            module,
            spec,
            data,
            outputs=outputs,
            architecture=architecture,
            seed=seed,
            cache=cache,
            on_epoch=on_epoch,
        )
    teacher = _frozen(
        module,
        spec.kind,
        architecture=architecture,
        num_classes=data.num_classes,
        outputs=outputs,
    )
    return _measured(teacher, data, cache=cache)


@torch.inference_mode(mode=False)
def make_untrained_teacher(spec: TeacherSpec, data: Data, *, seed: int = 0) -> Teacher:
    """Return the recipe's network with other random weights, never trained: a control.

    Args:
        spec: Architecture.
        data: What it would be trained on.
        seed: Seed of its weights, which are not those that `make_teacher` starts from.
    """
    module = build_teacher(
        spec,
        image_shape=data.image_shape,
        num_classes=data.num_classes,
        seed=derive_seed(seed, "untrained teacher"),
    )
    return _frozen(
        module,
        spec.kind,
        architecture=architecture_digest(spec, module),
        num_classes=data.num_classes,
        outputs=_outputs(module, spec, data),
    )


def _outputs(module: nn.Module, spec: TeacherSpec, data: Data) -> TeacherOutputs:
    """Return what a network gives, as stated or as it looks; the built-in kinds give logits."""
    if spec.module is None:
        return "logits"
    images = data.validation.images[:_LOOKED_AT]
    values = batched_logits(module, images, num_classes=data.num_classes)
    source = f"teacher.module: {spec.module!r}"
    return find_outputs(values, stated=spec.outputs, source=source)


def _frozen(
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


def _measured(teacher: Teacher, data: Data, *, cache: CacheFolder) -> Teacher:
    """Return the teacher with its share of test images classified rightly."""
    right = teacher.logits(data.test.images, cache=cache).argmax(dim=1) == data.test.labels
    accuracy = right.double().mean().item()
    if accuracy < 1.2 / data.num_classes:
        logger.warning(
            "the teacher classifies %.1f %% of the test images rightly, no better than chance; "
            "it must have been trained on the same classes in the same order",
            100 * accuracy,
        )
    return dataclasses.replace(teacher, accuracy=accuracy)


def save_teacher(teacher: Teacher, path: str | Path) -> None:
    """Write a teacher's weights as a safetensors file that `teacher.checkpoint` can name.

    Raises:
        StorageError: The file could not be written; an older one at `path` is untouched.
        TeacherError: Its weights are no plain tensors, as those of a quantized network.
    """
    if not plain_weights(teacher.module):
        raise TeacherError(
            f"the weights of a {type(teacher.module).__name__} are no plain tensors, which is all "
            "that safetensors keeps; save the network as torch does"
        )
    metadata = {"kind": teacher.kind, "num_classes": str(teacher.num_classes)}
    save_tensors(path, teacher.module.state_dict(), metadata)


def _train_once(
    module: nn.Module,
    spec: TeacherSpec,
    data: Data,
    *,
    outputs: TeacherOutputs,
    architecture: str,
    seed: int,
    cache: CacheFolder,
    on_epoch: OnEpoch | None,
) -> None:
    """Train, or load what the same training gave before."""
    draw = data.pool[training_draw(spec, data, seed=seed)]
    how = {name: getattr(spec, name) for name in ("epochs", "batch_size", "lr", "weight_decay")} | {
        "architecture": architecture,
        "start": tensor_digest(module.state_dict()),
        "images": draw.fingerprint,
        "seed": seed,
        "torch": torch.__version__,
        "schedule": "constant, last fifth linear to 0",
    }
    if outputs != "logits":
        how["outputs"] = outputs

    def compute() -> Tensors:
        path = cache_path("teachers", key, cache=cache)
        train_teacher(
            module,
            spec,
            data,
            seed=seed,
            outputs=outputs,
            on_epoch=on_epoch,
            checkpoint=None if path is None else path.with_suffix(".unfinished"),
        )
        return module.state_dict()

    def check(tensors: Tensors) -> None:
        check_weights(tensors, module, source="cached teacher", num_classes=data.num_classes)

    key = json.dumps(how, sort_keys=True)
    module.load_state_dict(compute_once("teachers", key, compute=compute, check=check, cache=cache))
