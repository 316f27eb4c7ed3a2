"""Where circuits run: simulators and devices with one interface, and the noise of each.

`Target.parse(name)` gives one; `list_targets()` lists them.

- `base`, `parse`, `names`: the interface, and the grammar of names.
- `ideal`, `noisy`, `exact_noise`, `noise`, `mitigation`: simulators and their noise.
- `lowering`, `transpilation`, `sampling`: what becomes of a circuit before it runs, and its shots.
- `snapshots`, `synthetic_backends`, `calibration_files`: where the noise is taken from.
- `gradients`: a circuit on a target as a torch function.
- `ibm`: IBM Quantum, its jobs and their costs, and an emulator of its service.

Torch, Aer and the Runtime client are imported where they are used, so that a list of targets does
not wait for them.
"""

from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.calibration_files import load_snapshot, save_snapshot
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.ideal import AerTarget, ExactTarget
from qkd_qiskit.targets.noisy import DeviceTarget
from qkd_qiskit.targets.parse import parse_target, synthetic
from qkd_qiskit.targets.snapshots import TargetInfo, list_targets

Target.register_parser(parse_target)

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
