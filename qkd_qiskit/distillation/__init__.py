"""How students learn from teachers: losses, feature maps, the training loop."""

from qkd_qiskit.distillation.single_student import distill

__all__ = ["distill"]
