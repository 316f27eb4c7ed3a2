"""Quantum knowledge distillation with Qiskit: any torch teacher into a circuit for IBM hardware.

The public names are imported when they are first used, so that `import qkd_qiskit` is instant.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qkd_qiskit.circuits.quanvolution import Quanvolution
    from qkd_qiskit.data import Data, Split, load_data
    from qkd_qiskit.distillation import distill
    from qkd_qiskit.distillation.classifier import DistilledClassifier
    from qkd_qiskit.errors import QKDError
    from qkd_qiskit.experiments import Evaluation, evaluate, subset
    from qkd_qiskit.recipe import DataSpec, DistillSpec, Recipe, StudentSpec, TeacherSpec
    from qkd_qiskit.recipe.parsing import load_recipe
    from qkd_qiskit.run import Run, compress, run_experiment
    from qkd_qiskit.simulator import CompiledConnector
    from qkd_qiskit.students import Student, load_student, make_student
    from qkd_qiskit.targets import Target
    from qkd_qiskit.teachers import Teacher, as_teacher, make_teacher

_HOMES = {
    "CompiledConnector": "simulator",
    "Data": "data",
    "DataSpec": "recipe",
    "DistillSpec": "recipe",
    "DistilledClassifier": "distillation.classifier",
    "Evaluation": "experiments",
    "QKDError": "errors",
    "Quanvolution": "circuits.quanvolution",
    "Recipe": "recipe",
    "Run": "run",
    "Split": "data",
    "Student": "students",
    "StudentSpec": "recipe",
    "Target": "targets",
    "Teacher": "teachers",
    "TeacherSpec": "recipe",
    "as_teacher": "teachers",
    "compress": "run",
    "distill": "distillation",
    "evaluate": "experiments",
    "load_data": "data",
    "load_recipe": "recipe.parsing",
    "load_student": "students",
    "make_student": "students",
    "make_teacher": "teachers",
    "run_experiment": "run",
    "subset": "experiments",
}

__all__ = [
    "CompiledConnector",
    "Data",
    "DataSpec",
    "DistillSpec",
    "DistilledClassifier",
    "Evaluation",
    "QKDError",
    "Quanvolution",
    "Recipe",
    "Run",
    "Split",
    "Student",
    "StudentSpec",
    "Target",
    "Teacher",
    "TeacherSpec",
    "as_teacher",
    "compress",
    "distill",
    "evaluate",
    "load_data",
    "load_recipe",
    "load_student",
    "make_student",
    "make_teacher",
    "run_experiment",
    "subset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("qkd-qiskit")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
