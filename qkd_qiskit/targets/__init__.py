"""Where circuits run: simulators and devices with one interface, and the noise of each.

`Target.parse(name)` gives one; `list_targets()` lists them.

- `base`, `parse`, `names`: the interface, and the grammar of names.
- `ideal`, `noisy`, `exact_noise`, `noise`, `mitigation`: simulators and their noise.
- `lowering`, `transpilation`, `sampling`, `shot_drawing`: what becomes of a circuit before it
  runs, and its shots: those of Aer, and those drawn from known probabilities.
- `aer_check`: what Aer says of those probabilities.
- `snapshots`, `synthetic_backends`, `calibration_files`: where the noise is taken from.
- `gradients`: a circuit on a target as a torch function.
- `ibm`: IBM Quantum, its jobs and their costs, and an emulator of its service.

Torch, Aer and the Runtime client are imported where they are used, so that a list of targets does
not wait for them.
"""

from qkd_qiskit.targets.aer_check import AerCheck, check_with_aer
from qkd_qiskit.targets.base import Simulator, Target
from qkd_qiskit.targets.calibration_files import load_snapshot, save_snapshot
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.ideal import AerTarget, ExactTarget
from qkd_qiskit.targets.noisy import DeviceTarget
from qkd_qiskit.targets.own_backend import (
    SamplerTarget,
    target_from_backend,
    target_from_sampler,
)
from qkd_qiskit.targets.parse import parse_target, synthetic
from qkd_qiskit.targets.primitives import TargetEstimator, TargetSampler
from qkd_qiskit.targets.snapshots import TargetInfo, list_targets

# `base` cannot import what is built on it.
Target.register(parse=parse_target, backend=target_from_backend, sampler=target_from_sampler)

__all__ = [
    "AerCheck",
    "AerTarget",
    "CompiledCircuit",
    "DeviceTarget",
    "ExactTarget",
    "SamplerTarget",
    "Simulator",
    "Target",
    "TargetEstimator",
    "TargetInfo",
    "TargetSampler",
    "check_with_aer",
    "list_targets",
    "load_snapshot",
    "save_snapshot",
    "synthetic",
]
