"""Quantum knowledge distillation with Qiskit: any torch teacher into a circuit for IBM hardware.

The public names are imported when they are first used, so that `import qkd_qiskit` is instant.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qkd_qiskit.data import Data, Split, load_data
    from qkd_qiskit.distill import distill
    from qkd_qiskit.engine import CompiledConnector
    from qkd_qiskit.errors import QKDError
    from qkd_qiskit.evaluate import Evaluation, evaluate, subset
    from qkd_qiskit.hardware import Target
    from qkd_qiskit.quanvolution import Quanvolution
    from qkd_qiskit.recipe import DataSpec, DistillSpec, Recipe, StudentSpec, TeacherSpec
    from qkd_qiskit.recipes import load_recipe
    from qkd_qiskit.students import Student, load_student, make_student
    from qkd_qiskit.teachers import Teacher, make_teacher

_HOMES = {
    "CompiledConnector": "engine",
    "Data": "data",
    "DataSpec": "recipe",
    "DistillSpec": "recipe",
    "Evaluation": "evaluate",
    "QKDError": "errors",
    "Quanvolution": "quanvolution",
    "Recipe": "recipe",
    "Split": "data",
    "Student": "students",
    "StudentSpec": "recipe",
    "Target": "hardware",
    "Teacher": "teachers",
    "TeacherSpec": "recipe",
    "distill": "distill",
    "evaluate": "evaluate",
    "load_data": "data",
    "load_recipe": "recipes",
    "load_student": "students",
    "make_student": "students",
    "make_teacher": "teachers",
    "subset": "evaluate",
}

__all__ = [
    "CompiledConnector",
    "Data",
    "DataSpec",
    "DistillSpec",
    "Evaluation",
    "QKDError",
    "Quanvolution",
    "Recipe",
    "Split",
    "Student",
    "StudentSpec",
    "Target",
    "Teacher",
    "TeacherSpec",
    "distill",
    "evaluate",
    "load_data",
    "load_recipe",
    "load_student",
    "make_student",
    "make_teacher",
    "subset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Keeps `qkd_qiskit.distill` the function when the module of the same name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
