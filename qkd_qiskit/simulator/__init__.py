"""Fast exact simulation: circuits compiled into programs, run batched and differentiably."""

from qkd_qiskit.errors import UnsupportedInstructionError
from qkd_qiskit.simulator.channels import Channels
from qkd_qiskit.simulator.connector import CompiledConnector
from qkd_qiskit.simulator.density.program import DensityProgram
from qkd_qiskit.simulator.density.run import noisy_probabilities
from qkd_qiskit.simulator.fused.step import FusedStep, Objective
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.run import probabilities

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
