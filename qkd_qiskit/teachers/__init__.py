"""What teaches: architectures, training, checkpoints, and any classifier as a teacher."""

from qkd_qiskit.teachers.adapters import as_teacher
from qkd_qiskit.teachers.base import Teacher
from qkd_qiskit.teachers.teacher import make_teacher

__all__ = ["Teacher", "as_teacher", "make_teacher"]
