"""Where circuits run: simulators and devices behind one face, with the noise that belongs to them.

`Target.parse(name)` gives a place to run; `list_targets()` says which there are.
"""

from qkd_qiskit.hardware.calibration_files import load_snapshot, save_snapshot
from qkd_qiskit.hardware.compiled import CompiledCircuit
from qkd_qiskit.hardware.devices import DeviceTarget, synthetic
from qkd_qiskit.hardware.simulators import AerTarget, ExactTarget
from qkd_qiskit.hardware.snapshots import TargetInfo, list_targets
from qkd_qiskit.hardware.targets import Target

__all__ = [
    "AerTarget",
    "CompiledCircuit",
    "DeviceTarget",
    "ExactTarget",
    "Target",
    "TargetInfo",
    "list_targets",
    "load_snapshot",
    "save_snapshot",
    "synthetic",
]
