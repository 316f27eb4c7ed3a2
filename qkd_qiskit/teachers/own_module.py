"""Networks of the user's own: imported, checked, copied and run without trusting them.

Whatever such a network does wrong - raise, exit, recurse, change its input - ends in one line.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from qkd_qiskit.errors import InputError, TeacherError
from qkd_qiskit.recipe.import_paths import import_function, user_code
from qkd_qiskit.recipe.seeds import seeded
from qkd_qiskit.storage import Tensors, tensor_digest
from qkd_qiskit.teachers.outputs import describe_output, output_tensor

ImageShape = tuple[int, int, int]
Factory = Callable[[ImageShape, int], nn.Module]


@contextlib.contextmanager
def without_gradient() -> Iterator[None]:
    """Compute without gradients, and give tensors that can be trained on.

    Those that are made inside of a caller's `torch.inference_mode` cannot.
    """
    with torch.inference_mode(mode=False), torch.no_grad():
        yield


def import_factory(
    path: str, *, key: str = "teacher.module", error: type[InputError] = TeacherError
) -> Factory:
    """Import `package.file:factory`, also from the folder that the command was started in.

    Args:
        path: The import path.
        key: The key of a recipe that names it.
        error: What is raised.

    Raises:
        InputError: It is no such path, cannot be imported, or is no function.
    """
    return import_function(
        path, key=key, error=error, signature="(image_shape, num_classes) -> nn.Module"
    )


def build_own(path: str, *, image_shape: ImageShape, num_classes: int) -> nn.Module:
    """Return the checked network that the user's factory makes, in float32 on the CPU.

    Raises:
        TeacherError: The factory or its network fails, or has weights that are no plain tensors.
    """
    factory, source = import_factory(path), f"teacher.module: {path!r}"
    with user_code(
        f"{source} fails for image_shape {image_shape} and num_classes {num_classes}",
        advice="give a function (image_shape, num_classes) -> nn.Module",
    ):
        module = as_module(factory(image_shape, num_classes), source=source)
        module = on_cpu(module)
        plain = plain_weights(module)
    check_module(module, source=source, image_shape=image_shape, num_classes=num_classes)
    if not plain or not any(True for _ in module.parameters()):
        raise TeacherError(
            f"{source} gives a {type(module).__name__} without weights that can be trained; give a "
            "network of plain float tensors, or a trained one to Teacher.from_module in Python"
        )
    return module


def as_module(module: object, *, source: str) -> nn.Module:
    """Return a network, that of an exported program included.

    Raises:
        TeacherError: It is no nn.Module.
    """
    if isinstance(module, torch.export.ExportedProgram):
        module = module.module()
    if not isinstance(module, nn.Module):
        raise TeacherError(f"{source} gives a {type(module).__name__}; give an nn.Module")
    return module


def copy_module(module: nn.Module, *, source: str) -> nn.Module:
    """Return a frozen copy in evaluation mode, in float32 on the CPU.

    Raises:
        TeacherError: The network cannot be copied.
    """
    with user_code(
        f"{source} cannot be copied",
        advice="give a network that copy.deepcopy takes, or a torch.jit.trace of it",
    ):
        copied = on_cpu(copy.deepcopy(module, copies_of_results(module)))
        freeze(copied)
        return copied


def copies_of_results(module: nn.Module) -> dict[int, object]:
    """Return copies of the tensors that a network keeps as results, which `copy.deepcopy` refuses.

    Such as the weights that `torch.nn.utils.weight_norm` computes before each pass.
    """
    kept = [value for part in module.modules() for value in vars(part).values()]
    return {
        id(value): value.detach().clone()
        for value in kept
        if isinstance(value, Tensor) and not value.is_leaf
    }


def check_module(
    module: nn.Module, *, source: str, image_shape: ImageShape, num_classes: int
) -> None:
    """Raise where a network of your own does not give one row of numbers for each image.

    Args:
        module: What was given; its mode and statistics are left as they are.
        source: What the message calls it.
        image_shape: (channels, height, width).
        num_classes: Length of the rows.

    Raises:
        TeacherError: It fails on the images or gives something else.
    """
    training = module.training
    try:
        with (
            user_code(
                f"{source} fails on images of shape (2, {str(image_shape)[1:]}",
                advice="give a network for batches of any size of these images",
            ),
            without_gradient(),
            seeded(0),
        ):
            evaluation_mode(module)
            outputs = output_tensor(module(torch.zeros(2, *image_shape)))
    finally:
        with contextlib.suppress(NotImplementedError):  # of an exported network
            module.train(training)
    shape = tuple(outputs.shape) if isinstance(outputs, Tensor) else ()
    if shape != (2, num_classes):
        given = f"{describe_output(outputs)} for 2 images of {num_classes} classes"
        if len(shape) == 2 and shape[0] == 2:
            given = f"{shape[1]} outputs for {num_classes} classes"
        raise TeacherError(f"{source} gives {given}; give logits of shape (batch, {num_classes})")


def evaluation_mode(module: nn.Module) -> None:
    """Put a network into evaluation mode; an exported one is in the mode it was exported in."""
    with contextlib.suppress(NotImplementedError):
        module.eval()


def freeze(module: nn.Module) -> None:
    """Put a network into evaluation mode, without gradients."""
    evaluation_mode(module)
    require_gradients(module, required=False)


def require_gradients(module: nn.Module, *, required: bool = True) -> None:
    """Do what `module.requires_grad_` does, which TorchScript does not support."""
    for parameter in module.parameters():
        parameter.requires_grad_(required)


def weights(module: nn.Module) -> Tensors:
    """Return every tensor in a network's state by name, those of quantized layers as floats."""
    tensors: Tensors = {}

    def collect(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            plain = value.dequantize() if value.is_quantized else value
            tensors[name] = plain if plain.layout == torch.strided else plain.to_dense()
        elif isinstance(value, tuple | list):
            for number, part in enumerate(value):
                collect(f"{name}.{number}", part)

    for name, value in module.state_dict().items():
        collect(name, value)
    return tensors


def plain_weights(module: nn.Module) -> bool:
    """Return whether a network's state is what safetensors can keep and an optimizer can train."""
    return all(
        isinstance(value, Tensor) and not value.is_quantized and value.layout == torch.strided
        for value in module.state_dict().values()
    )


def weights_digest(module: nn.Module) -> str:
    """Return the SHA-256 of a network's weights."""
    return tensor_digest(weights(module))


def count_weights(module: nn.Module) -> int:
    """Return how many weights a network has; those of quantized layers are no parameters."""
    count = sum(parameter.numel() for parameter in module.parameters())
    if not plain_weights(module):
        names = {name for name, _ in module.named_parameters()} | dict(
            module.named_buffers()
        ).keys()
        packed = [value for name, value in weights(module).items() if name not in names]
        count += sum(value.numel() for value in packed if value.ndim)  # not scales and zero points
    return count


def device_of(module: nn.Module) -> torch.device:
    """Return where a network's first weight lies; the CPU for one without weights."""
    tensors = [*module.parameters(), *module.buffers()]
    return tensors[0].device if tensors else torch.device("cpu")


def on_cpu(module: nn.Module) -> nn.Module:
    """Move a network to the CPU; one of half or double precision becomes float32."""
    module = module.cpu()
    tensors = [*module.parameters(), *module.buffers()]
    floats = [tensor for tensor in tensors if tensor.is_floating_point()]
    other = any(tensor.dtype != torch.float32 for tensor in floats)
    return module.float() if other else module
