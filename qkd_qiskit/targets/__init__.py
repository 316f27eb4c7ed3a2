"""Where circuits run: simulators and devices behind one face, with the noise that belongs to them.

`Target.parse(name)` gives a place to run; `list_targets()` says which there are.

- `targets`, `simulators`, `devices`, `remote`: the places.
- `noise`, `exact`, `mitigation`: their noise.
- `gradients`: training a circuit on one of them.
- `budget`, `jobs`, `journal`: what is sent to a device, what it costs, what became of it.
- `runtime`: IBM Quantum; `rehearsal`: a service of our own that its client takes for the real one.
"""

from qkd_qiskit.targets.base import Target
from qkd_qiskit.targets.calibration_files import load_snapshot, save_snapshot
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit
from qkd_qiskit.targets.ideal import AerTarget, ExactTarget
from qkd_qiskit.targets.noisy import DeviceTarget, synthetic
from qkd_qiskit.targets.own_backend import (
    SamplerTarget,
    target_from_backend,
    target_from_sampler,
)
from qkd_qiskit.targets.primitives import TargetEstimator, TargetSampler
from qkd_qiskit.targets.snapshots import TargetInfo, list_targets

# `base` cannot import what is built on it.
Target._from_backend = staticmethod(target_from_backend)
Target._from_sampler = staticmethod(target_from_sampler)

__all__ = [
    "AerTarget",
    "CompiledCircuit",
    "DeviceTarget",
    "ExactTarget",
    "SamplerTarget",
    "Target",
    "TargetEstimator",
    "TargetInfo",
    "TargetSampler",
    "list_targets",
    "load_snapshot",
    "save_snapshot",
    "synthetic",
]
