"""The twins without a circuit, which show whether the circuit is needed."""

from __future__ import annotations

import math

from torch import Tensor, nn

from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.base import Student, count_trained
from qkd_qiskit.students.reductions import TRAINED, make_reduction


class ClassicalStudent(Student):
    """The twin without a circuit: reduction, a hidden tanh layer, logits.

    The width of the hidden layer brings the number of parameters as near as possible to `matched`,
    the number of the quantum or hybrid student that the same specification describes; the kind
    classical_full takes `full_width` units instead.
    """

    def __init__(
        self,
        spec: StudentSpec,
        *,
        image_shape: tuple[int, int, int],
        num_classes: int,
        num_features: int,
        matched: int,
    ) -> None:
        super().__init__(spec, image_shape=image_shape, num_classes=num_classes)
        if spec.reduction == "none":  # what pads a circuit's amplitudes would be dead weights here
            num_features = min(num_features, math.prod(image_shape))

        def layers(width: int) -> tuple[nn.Sequential, nn.Sequential]:
            trained = spec.reduction in TRAINED
            reduction = make_reduction(
                spec.reduction,
                image_shape=image_shape,
                num_features=width if trained else num_features,
            )
            hidden = [] if trained else [nn.Linear(num_features, width)]
            return reduction, nn.Sequential(*hidden, nn.Tanh(), nn.Linear(width, num_classes))

        width = spec.full_width
        if spec.kind == "classical":
            narrow, wide = (count_trained(*layers(width)) for width in (1, 2))
            width = 1 + max(0, round((matched - narrow) / (wide - narrow)))
        self.reduction, self.network = layers(width)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return logits `(batch, num_classes)` of images or prepared features."""
        logits: Tensor = self.network(self.reduce(inputs))
        return logits
