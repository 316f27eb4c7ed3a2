"""The student that is left where a circuit is taken out: its features straight to a head."""

from __future__ import annotations

import math

from torch import Tensor

from qkd_qiskit.circuits import StudentCircuit
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student
from qkd_qiskit.students.quantum import make_head, num_features
from qkd_qiskit.students.reductions import make_reduction


class StudentWithoutCircuit(Student):
    """The student that a specification describes, its features going straight to a head.

    Where amplitudes are encoded the features are normalised, as the circuit would have them. A
    head that the student does not have is a linear layer. Of the kind linear_probe the reduction
    is not trained, and the head is a linear layer.

    Attributes:
        head: From features to logits.
    """

    def __init__(
        self,
        spec: StudentSpec,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        parts: StudentCircuit,
    ) -> None:
        """Draw the parameters from torch's global random numbers."""
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        self._encoding, size = parts.encoding, num_features(parts)
        self._normalised = self._encoding is not None and self._encoding.prepares_state
        self.reduction = make_reduction(
            spec.reduction, image_shape=image_shape, num_features=size, pad=self._normalised
        )
        head = "mlp" if spec.head == "mlp" and spec.kind == "no_circuit" else "linear"
        self.head = make_head(head, inputs=size, num_classes=num_classes, width=spec.head_width)
        if spec.kind == "linear_probe":
            self.reduction.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images or prepared features."""
        features = self.reduce(inputs)
        if self._normalised and self._encoding is not None:
            # Amplitudes are of the order of 1 / sqrt(features); a layer expects numbers around 1.
            features = self._encoding.amplitudes(features) * math.sqrt(features.shape[-1])
        logits: Tensor = self.head(features)
        return logits
