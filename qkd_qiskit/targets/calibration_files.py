"""Calibration snapshots: one JSON file per device, to simulate it where its account is not.

A file holds what a noise model is made of and nothing else: gates, couplings, errors, durations and
relaxation times. Every field is written by name from the device's description, so that no account,
instance or job data can come along.
"""

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import InstructionProperties, QubitProperties
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.synthetic_backends import ReadoutProperties, SyntheticBackend

logger = logging.getLogger(__name__)

FORMAT = "qkd_qiskit calibration snapshot 1"
_TIMING = ("granularity", "min_length", "pulse_alignment", "acquire_alignment")


def save_snapshot(backend: Any, path: str | Path) -> None:
    """Write a device's configuration and calibration to a JSON file.

    Gates that Qiskit has no definition of, and control flow, are left out.

    Args:
        backend: A `BackendV2`, such as `QiskitRuntimeService().backend("ibm_torino")`.
        path: The file, ending in ``.json``; `Target.parse` takes it as a name.

    Raises:
        TargetError: The name does not end in ``.json``, or the device describes no qubits.
        StorageError: The file could not be written.
    """
    from qkd_qiskit.storage import write_text

    if Path(path).suffix != ".json":
        raise TargetError(f"a snapshot's file name must end in .json, not {str(path)!r}")
    device = backend.target
    if not device.qubit_properties:
        raise TargetError(
            f"{backend.name} has no calibration to save: its qubits have no T1 and T2"
        )
    known = get_standard_gate_name_mapping()
    gates: dict[str, Any] = {}
    for name in sorted(device.operation_names):
        table = device[name] or {}
        if name not in known or None in table or not table:
            logger.debug("%s: %s is left out of the snapshot", backend.name, name)
            continue
        gates[name] = [
            {"qubits": list(where), **_gate_properties(properties)}
            for where, properties in sorted(table.items())
        ]
    updated = getattr(_properties(backend), "last_update_date", None)
    content = {
        "format": FORMAT,
        "name": str(backend.name),
        "calibrated": None if updated is None else updated.isoformat(),
        "configuration": {
            "num_qubits": device.num_qubits,
            "dt": device.dt,
            **{name: getattr(device, name) for name in _TIMING},
        },
        "properties": {
            "qubits": [
                {name: _written(getattr(qubit, name, None)) for name in ("t1", "t2", "frequency")}
                for qubit in device.qubit_properties
            ],
            "gates": gates,
        },
    }
    write_text(path, json.dumps(content, indent=1, allow_nan=False) + "\n")


def save_history(
    backend: Any, folder: str | Path, *, days: int, now: datetime | None = None
) -> list[Path]:
    """Write a snapshot for each day on which a device was calibrated anew.

    Args:
        backend: A device of an account, as `QiskitRuntimeService().backend("ibm_torino")`.
        folder: Where the files go, named after device and date, as ibm_torino-2026-11-01.json.
        days: How many days back.
        now: The last of them; default: today.

    Returns:
        The files, the oldest first.

    Raises:
        TargetError: The device's history cannot be had.
        StorageError: A file could not be written.
    """
    from qiskit_ibm_runtime.utils.backend_converter import convert_to_target

    last, written = now or datetime.now(timezone.utc), {}
    for back in range(days, -1, -1):
        try:
            known = backend.properties(datetime=last - timedelta(days=back))
        except (TypeError, NotImplementedError) as error:
            raise TargetError(
                f"{backend.name} has no history: it is of one day; give a device of your account, "
                f"or let a snapshot drift, as in {backend.name}:day=7"
            ) from error
        if known is None:
            continue
        day = _Day(backend.name, convert_to_target(backend.configuration(), known), known)
        path = Path(folder) / f"{backend.name}-{known.last_update_date.date().isoformat()}.json"
        if path not in written:
            save_snapshot(day, path)
            written[path] = day
    if not written:
        raise TargetError(f"{backend.name} has no calibration of the last {days} days")
    return list(written)


@dataclass(frozen=True)
class _Day:
    """A device as it was calibrated on a day."""

    name: str
    target: QiskitTarget
    known: Any

    def properties(self) -> Any:
        """Return the calibration."""
        return self.known


def load_snapshot(path: str | Path) -> SyntheticBackend:
    """Return the device that a snapshot describes.

    Raises:
        TargetError: The file is not there, is no snapshot, or describes no possible device.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise TargetError(
            f"snapshot {str(path)!r} cannot be read: {error.strerror}; give a file written by "
            "`qkd targets snapshot`"
        ) from error
    except ValueError as error:
        raise TargetError(f"snapshot {str(path)!r} is not a JSON file: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise TargetError(
            f"{str(path)!r} is no snapshot: its format is not {FORMAT!r}; give a file written by "
            "`qkd targets snapshot`"
        )
    try:
        return SyntheticBackend(
            _device(content), name=str(content["name"]), calibrated=content["calibrated"]
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise TargetError(
            f"snapshot {str(path)!r} is damaged ({reason}); write it again with "
            "`qkd targets snapshot`"
        ) from error


def _device(content: Mapping[str, Any]) -> QiskitTarget:
    configuration, properties = content["configuration"], content["properties"]
    known = get_standard_gate_name_mapping()
    count = int(configuration["num_qubits"])
    if len(properties["qubits"]) != count:
        raise ValueError(f"{len(properties['qubits'])} of {count} qubits are described")
    device = QiskitTarget(
        num_qubits=count,
        dt=configuration["dt"],
        **{name: int(configuration[name]) for name in _TIMING},
        qubit_properties=[
            QubitProperties(**{name: _read(qubit[name]) for name in ("t1", "t2", "frequency")})
            for qubit in properties["qubits"]
        ],
    )
    for name, table in properties["gates"].items():
        gate = known[name]
        instructions = {}
        for entry in table:
            where = tuple(int(qubit) for qubit in entry["qubits"])
            if len(where) != gate.num_qubits or not all(0 <= qubit < count for qubit in where):
                raise ValueError(f"{name} on qubits {list(where)}")
            instructions[where] = _instruction_properties(entry)
        device.add_instruction(gate, instructions, name=name)
    return device


def _gate_properties(properties: Any) -> dict[str, Any]:
    names = ("duration", "error", "prob_meas1_prep0", "prob_meas0_prep1")
    return {
        name: _written(getattr(properties, name)) for name in names if hasattr(properties, name)
    }


def _instruction_properties(entry: Mapping[str, Any]) -> InstructionProperties | None:
    if "duration" not in entry:
        return None
    if "prob_meas1_prep0" in entry:
        return ReadoutProperties(
            _read(entry["duration"]),
            one_for_zero=_read(entry["prob_meas1_prep0"]),
            zero_for_one=_read(entry["prob_meas0_prep1"]),
        )
    return InstructionProperties(_read(entry["duration"]), _read(entry["error"]))


def _properties(backend: Any) -> Any:
    properties = getattr(backend, "properties", None)
    return properties() if callable(properties) else None


def _written(value: float | None) -> float | str | None:
    # JSON has no infinity, and what is not a number is not known.
    if value is None or math.isnan(value):
        return None
    return "infinity" if math.isinf(value) else float(value)


def _read(value: Any) -> Any:
    if value is None:
        return None
    number = float(value)
    if math.isnan(number):
        raise ValueError("a number is NaN")
    return number
