"""What learns: circuits between a reduction and a read-out, and their classical twins."""

from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.module_student import ModuleStudent
from qkd_qiskit.students.quantum import QuantumStudent

__all__ = ["ModuleStudent", "QuantumStudent", "Student", "load_student", "make_student"]
