"""Which simulated devices there are: the snapshots that qiskit-ibm-runtime carries."""

import difflib
import json
import logging
import re
import warnings
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from qkd_qiskit.errors import TargetError

logger = logging.getLogger(__name__)

_TWO_QUBIT_GATES = ("cz", "ecr", "cx")


@dataclass(frozen=True)
class TargetInfo:
    """What `qkd targets list` says of one target."""

    name: str
    """The name that `Target.parse` takes."""
    num_qubits: int | None
    """Qubits of the device; None where there is no limit but memory."""
    two_qubit_gate: str | None
    """The device's native two-qubit gate; None for a simulator or a device of one qubit."""
    calibration_date: str | None
    """ISO date of the calibration that the noise is taken from; None without noise."""


def list_targets() -> tuple[TargetInfo, ...]:
    """Return every target that circuits can be evaluated on: simulators first, then devices.

    Reads the snapshots' files rather than building 68 backends: 0.2 s instead of many seconds.
    """
    simulators = tuple(TargetInfo(name, None, None, None) for name in ("exact", "aer"))
    return simulators + tuple(_describe(kind) for _, kind in sorted(_snapshots().items()))


def fake_backend(name: str) -> Any:
    """Return the `BackendV2` of a device snapshot such as ``fake_torino``.

    Raises:
        TargetError: There is no such snapshot; the message lists near names.
    """
    kind = _snapshots().get(name)
    if kind is None:
        raise unknown_target(name)
    # Some snapshots warn that their errors are not typical: for the log, not for the terminal.
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        backend = kind()
    for warning in caught:
        logger.warning("%s", warning.message)
    return backend


def unknown_target(name: str) -> TargetError:
    """Return the error for a name that is no target, with the nearest names that are."""
    known = ["exact", "aer", *_snapshots()]
    wanted = re.sub(r"[^a-z0-9]+", "_", name.strip().lower())
    near = difflib.get_close_matches(f"fake_{wanted.removeprefix('fake_')}", known, cutoff=0.75)
    near += difflib.get_close_matches(wanted, known, cutoff=0.6)
    hint = f"did you mean {', '.join(list(dict.fromkeys(near))[:3])}? " if near else ""
    return TargetError(
        f"unknown target {name!r}: {hint}accepted are exact, aer, the devices that "
        "`qkd targets list` shows, a snapshot's .json file and synthetic:qubits=5:p2=0.01"
    )


@cache
def _snapshots() -> dict[str, Any]:
    from qiskit_ibm_runtime import fake_provider
    from qiskit_ibm_runtime.fake_provider.fake_backend import FakeBackendV2

    kinds: list[Any] = [
        kind
        for kind in vars(fake_provider).values()
        if isinstance(kind, type) and issubclass(kind, FakeBackendV2) and kind is not FakeBackendV2
    ]
    return {kind.backend_name: kind for kind in kinds}


def _describe(kind: Any) -> TargetInfo:
    folder = Path(kind.dirname)
    configuration = json.loads((folder / kind.conf_filename).read_text(encoding="utf-8"))
    properties = (folder / kind.props_filename).read_text(encoding="utf-8")
    # One field of up to 0.5 MB of JSON per device: searched, not parsed.
    updated = re.search(r'"last_update_date":\s*"(\d{4}-\d\d-\d\d)', properties)
    gates = configuration["basis_gates"]
    return TargetInfo(
        name=kind.backend_name,
        num_qubits=configuration["n_qubits"],
        two_qubit_gate=next((gate for gate in _TWO_QUBIT_GATES if gate in gates), None),
        calibration_date=updated.group(1) if updated else None,
    )
