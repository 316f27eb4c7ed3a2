"""Where circuits run: simulators and devices behind one face, with the noise that belongs to them.

Public names: `Target` and its rooms, `CompiledCircuit`, `list_targets`.
"""

from qkd_qiskit.hardware.devices import TargetInfo
from qkd_qiskit.hardware.targets import (
    AerTarget,
    CompiledCircuit,
    DeviceTarget,
    ExactTarget,
    Target,
    list_targets,
)

__all__ = [
    "AerTarget",
    "CompiledCircuit",
    "DeviceTarget",
    "ExactTarget",
    "Target",
    "TargetInfo",
    "list_targets",
]
