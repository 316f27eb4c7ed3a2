"""The pair of the quantum-to-classical setting: filters, and a linear layer on their feature maps.

With a convolution for filters this is a plain torch network; `as_module` gives it without anything
of this package, for `state_dict`, `torch.export` and whatever reads those.
"""

from __future__ import annotations

from collections import OrderedDict

from qiskit import QuantumCircuit
from torch import Tensor, nn

from qkd_qiskit.circuits.quanvolution import Quanvolution
from qkd_qiskit.errors import CircuitError, TeacherError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.teachers.architectures import convolution, quanvolution


class QuanvolutionalStudent(Student):
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
        """Return logits `(batch, num_classes)` of images."""
        logits: Tensor = self.classifier(self.filters(inputs).flatten(1))
        return logits

    def as_module(self) -> nn.Sequential:
        """Return the network as a plain `torch.nn.Sequential`: filters, flatten, classifier."""
        parts = OrderedDict(filters=self.filters, flatten=nn.Flatten(), classifier=self.classifier)
        return nn.Sequential(parts)

    @property
    def circuit(self) -> QuantumCircuit | None:
        """Return a filter's circuit, or None for a convolution."""
        return self.filters.circuit if isinstance(self.filters, Quanvolution) else None
