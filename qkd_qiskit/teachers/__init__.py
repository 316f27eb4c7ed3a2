"""What teaches: architectures, training, checkpoints."""

from qkd_qiskit.teachers.teacher import Teacher, make_teacher

__all__ = ["Teacher", "make_teacher"]
