"""What learns: circuits between a reduction and a read-out, and their classical twins."""

from qkd_qiskit.students.base import Student
from qkd_qiskit.students.factory import load_student, make_student
from qkd_qiskit.students.module_student import ModuleStudent
from qkd_qiskit.students.quantum import QuantumStudent
from qkd_qiskit.students.reference import list_reference_students

__all__ = [
    "ModuleStudent",
    "QuantumStudent",
    "Student",
    "list_reference_students",
    "load_student",
    "make_student",
]
