"""Targets by name, such as ``fake_torino:scale=2:exact``."""

from typing import Any

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.base import Simulator, Target
from qkd_qiskit.targets.calibration_files import load_snapshot
from qkd_qiskit.targets.coherent_noise import CoherentNoise
from qkd_qiskit.targets.drift import drifted_backend
from qkd_qiskit.targets.ideal import AerTarget, ExactTarget
from qkd_qiskit.targets.names import device_options, split_name, synthetic_name, synthetic_options
from qkd_qiskit.targets.noisy import DeviceTarget, ReadoutMitigation
from qkd_qiskit.targets.packaged_snapshots import packaged_snapshot
from qkd_qiskit.targets.snapshots import fake_backend, unknown_target
from qkd_qiskit.targets.synthetic_backends import (
    SyntheticBackend,
    asymmetric_backend,
    synthetic_device,
)


def parse_target(
    name: str,
    *,
    shots: int | None = 4096,
    seed: int = 0,
    scale: float | None = None,
    readout_mitigation: bool | str | None = None,
) -> Target:
    """Return the target of that name; arguments and errors are those of `Target.parse`."""
    if not isinstance(name, str):
        raise TargetError(f"a target is given as {name!r}; accepted is a name such as 'exact'")
    base, given = split_name(name)
    if base in ("exact", "aer"):
        if given or scale is not None or readout_mitigation:
            raise TargetError(f"{base} is ideal and takes no options; give {base!r}")
        if base == "exact":
            return ExactTarget(seed=seed)
        if shots is None:
            raise TargetError("aer needs a number of shots; without shots use exact")
        return AerTarget(shots=shots, seed=seed)
    settings: dict[str, Any] = {}
    if base == "synthetic":
        settings, given = synthetic_options(name, given)
    options = device_options(name, given)
    if options.pop("exact", False):
        shots = None
    if scale is not None:
        options["scale"] = scale
    if readout_mitigation is not None:
        options["readout_mitigation"] = readout_mitigation
    options["coherent"] = CoherentNoise(
        overrotation=options.pop("overrotation", 0.0), zz_hz=options.pop("zz_hz", 0.0)
    )
    asymmetric = options.pop("asymmetric_readout", False)
    drift = {key: options.pop(key) for key in ("day", "walk", "dead") if key in options}
    if base == "synthetic" and (drift or asymmetric):
        raise TargetError(
            f"target {name!r}: synthetic noise has no calibration that could drift or be "
            "asymmetric; give the numbers themselves, as p2=0.02, or a device"
        )
    if base == "synthetic":
        return synthetic(**settings, shots=shots, seed=seed, **options)
    if base.startswith("ibm_") and not base.endswith(".json"):
        raise TargetError(
            f"{base} is a real device: it is reached by submission (`qkd submit`), not by "
            "evaluation; to evaluate, use exact, aer or a device that `qkd targets list` shows"
        )
    if base.endswith(".json"):
        backend = load_snapshot(base)
    elif base.startswith("fake_"):
        # The client knows each measurement's two errors, beside their mean.
        backend = (None if asymmetric else packaged_snapshot(base)) or fake_backend(base)
    else:
        raise unknown_target(base)
    if asymmetric:
        backend, base = asymmetric_backend(backend), f"{base}:readout=asymmetric"
    if drift:
        backend = drifted_backend(backend, **drift)
        base += "".join(f":{key}={given[key]}" for key in drift)
    return DeviceTarget(backend, name=base, shots=shots, seed=seed, **options)


def synthetic(
    qubits: int,
    *,
    shots: int | None = 4096,
    seed: int = 0,
    scale: float = 1.0,
    readout_mitigation: bool | ReadoutMitigation = False,
    coherent: CoherentNoise | None = None,
    simulator: Simulator = "density",
    **settings: Any,
) -> DeviceTarget:
    """Return a device with the same noise on every qubit and gate.

    Args:
        qubits: Qubits of the device.
        shots: As for `DeviceTarget`.
        seed: As for `DeviceTarget`.
        scale: As for `DeviceTarget`.
        readout_mitigation: As for `DeviceTarget`.
        coherent: As for `DeviceTarget`.
        simulator: As for `DeviceTarget`.
        settings: p1, p2, t1, t2, readout, coupling, two_qubit_gate, durations of
            `synthetic_backends.synthetic_device`.

    Raises:
        TargetError: A setting is not accepted.
    """
    name = synthetic_name({"qubits": qubits, **settings})
    backend = SyntheticBackend(synthetic_device(qubits, **settings), name=name)
    return DeviceTarget(
        backend,
        shots=shots,
        seed=seed,
        scale=scale,
        readout_mitigation=readout_mitigation,
        coherent=coherent,
        simulator=simulator,
    )
