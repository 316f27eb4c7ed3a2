"""Fast exact simulation: circuits compiled into programs, run batched and differentiably."""

from qkd_qiskit.engine.channels import Channels
from qkd_qiskit.engine.connector import CompiledConnector
from qkd_qiskit.engine.density import DensityProgram
from qkd_qiskit.engine.fused import FusedStep, Objective
from qkd_qiskit.engine.noisy import noisy_probabilities
from qkd_qiskit.engine.program import Program
from qkd_qiskit.engine.run import probabilities
from qkd_qiskit.errors import UnsupportedInstructionError

__all__ = [
    "Channels",
    "CompiledConnector",
    "DensityProgram",
    "FusedStep",
    "Objective",
    "Program",
    "UnsupportedInstructionError",
    "noisy_probabilities",
    "probabilities",
]
