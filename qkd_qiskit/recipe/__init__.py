"""Everything a run is, as frozen dataclasses; `recipe.parsing` reads and writes them as YAML.

They check themselves when they are made, so a value that exists is a valid one.
"""

from qkd_qiskit.recipe.arms import ARMS, Arm
from qkd_qiskit.recipe.data import GENERATED, DatasetName, DataSpec
from qkd_qiskit.recipe.models import (
    CHANGED_CIRCUITS,
    CLASS_BINS,
    CLASSICAL_STUDENTS,
    FILTER_STUDENTS,
    IMAGE_TEACHERS,
    TWINS,
    UNTRAINED_TEACHERS,
    WITHOUT_CIRCUIT,
    Ansatz,
    Encoding,
    Head,
    Readout,
    Reduction,
    StudentKind,
    StudentSpec,
    TeacherAverage,
    TeacherKind,
    TeacherOutputs,
    TeacherSpec,
)
from qkd_qiskit.recipe.recipe import Recipe
from qkd_qiskit.recipe.runtime import Decoupling, Mode, RuntimeSpec
from qkd_qiskit.recipe.training import (
    IDEAL_TARGETS,
    LABEL_LOSSES,
    DistillSpec,
    Gradient,
    LossName,
    LossTerm,
)

__all__ = [
    "ARMS",
    "CHANGED_CIRCUITS",
    "CLASSICAL_STUDENTS",
    "CLASS_BINS",
    "FILTER_STUDENTS",
    "GENERATED",
    "IDEAL_TARGETS",
    "IMAGE_TEACHERS",
    "LABEL_LOSSES",
    "TWINS",
    "UNTRAINED_TEACHERS",
    "WITHOUT_CIRCUIT",
    "Ansatz",
    "Arm",
    "DataSpec",
    "DatasetName",
    "Decoupling",
    "DistillSpec",
    "Encoding",
    "Gradient",
    "Head",
    "LossName",
    "LossTerm",
    "Mode",
    "Readout",
    "Recipe",
    "Reduction",
    "RuntimeSpec",
    "StudentKind",
    "StudentSpec",
    "TeacherAverage",
    "TeacherKind",
    "TeacherOutputs",
    "TeacherSpec",
]
