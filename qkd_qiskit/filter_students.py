"""The pair of the quantum-to-classical setting: filters, and a linear layer on their feature maps.

With a convolution for filters this is a plain torch network; `as_module` gives it without anything
of this package, for `state_dict`, `torch.export` and whatever reads those.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.architectures import convolution, quanvolution
from qkd_qiskit.errors import CircuitError, InputError, TeacherError
from qkd_qiskit.quanvolution import Quanvolution
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students import Student
from qkd_qiskit.teachers import Teacher

_KINDS = {
    "quanvolution": "quanvolution",
    "random_quanvolution": "quanvolution",
    "convolution": "convolution",
}


class FilterStudent(Student):
    """Three filters of 2x2 pixels, stride 2, and a linear layer.

    Attributes:
        filters: A `Quanvolution` or a `torch.nn.Conv2d`.
        classifier: The linear layer.
    """

    def __init__(
        self, spec: StudentSpec, *, image_shape: tuple[int, int, int], num_classes: int
    ) -> None:
        """Draw the parameters from torch's global random numbers.

        Raises:
            CircuitError: The images are smaller than a filter.
        """
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        make = quanvolution if spec.kind == "quanvolution" else convolution
        try:
            network = make(image_shape, num_classes)
        except TeacherError as error:
            raise CircuitError(str(error)) from error
        self.filters: nn.Module = network.get_submodule("filters")
        self.classifier: nn.Module = network.get_submodule("classifier")

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits `(batch, num_classes)` of images."""
        logits: Tensor = self.classifier(self.filters(inputs).flatten(1))
        return logits

    def as_module(self) -> nn.Sequential:
        """The same network as a plain `torch.nn.Sequential`: filters, flatten, classifier."""
        parts = OrderedDict(filters=self.filters, flatten=nn.Flatten(), classifier=self.classifier)
        return nn.Sequential(parts)

    @property
    def circuit(self) -> QuantumCircuit | None:
        """A filter's circuit, or None for a convolution."""
        return self.filters.circuit if isinstance(self.filters, Quanvolution) else None


def as_student(teacher: Teacher, *, image_shape: tuple[int, int, int]) -> FilterStudent:
    """A teacher of this pair as a student, so that `evaluate` can run it on a target.

    Args:
        teacher: Of the kind quanvolution, random_quanvolution or convolution.
        image_shape: (channels, height, width) of the images it takes.

    Raises:
        InputError: The teacher is of another kind.
    """
    if teacher.kind not in _KINDS:
        raise InputError(
            f"a teacher of kind {teacher.kind} has no filters of its own; give one of "
            f"{', '.join(_KINDS)}"
        )
    spec = StudentSpec(kind=_KINDS[teacher.kind])  # type: ignore[arg-type]
    student = FilterStudent(spec, image_shape=image_shape, num_classes=teacher.num_classes)
    with torch.no_grad():
        state = teacher.module.state_dict()
        for name, parameter in student.named_parameters():
            parameter.copy_(state[name])
    return student
