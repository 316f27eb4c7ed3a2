"""Device snapshots of qiskit-ibm-runtime, read from its files without loading the client.

The client takes more than a second of CPU to load, all of it for jobs on devices; a simulated
device needs two JSON files of it. What is made of them equals what the client makes; a snapshot
with anything that is not known here is left to the client.
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from qiskit.circuit import Instruction, Parameter
from qiskit.circuit.controlflow import ForLoopOp, IfElseOp, SwitchCaseOp, WhileLoopOp
from qiskit.circuit.library import get_standard_gate_name_mapping
from qiskit.transpiler import InstructionProperties, QubitProperties
from qiskit.transpiler import Target as QiskitTarget
from qiskit.utils.units import apply_prefix

from qkd_qiskit.targets.synthetic_backends import SyntheticBackend

_NOT_UNITARY = ("measure", "delay", "reset")
_CONTROL_FLOW = {
    "if_else": IfElseOp,
    "while_loop": WhileLoopOp,
    "for_loop": ForLoopOp,
    "switch_case": SwitchCaseOp,
}
_BOUNDED = "rzz"  # of angles that the client's passes fold

Table = dict[tuple[int, ...], InstructionProperties | None]


def packaged_snapshot(name: str) -> SyntheticBackend | None:
    """Return the device of a snapshot such as ``fake_torino``; None where the client has to."""
    short = name.removeprefix("fake_")
    if not (name.startswith("fake_") and short.isalnum()):
        return None
    package = find_spec("qiskit_ibm_runtime")
    if package is None or not package.submodule_search_locations:
        return None
    folder = Path(package.submodule_search_locations[0]) / "fake_provider" / "backends" / short
    try:
        code = (folder / f"{name}.py").read_text(encoding="utf-8")
        configuration = _read(folder / f"conf_{short}.json")
        properties = _read(folder / f"props_{short}.json")
        device = None if "def " in code else _device(configuration, properties)
    except (OSError, KeyError, ValueError):
        return None
    if device is None:
        return None
    return SyntheticBackend(device, name=name, calibrated=properties["last_update_date"])


def _read(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return content


def _device(configuration: Mapping[str, Any], properties: Mapping[str, Any]) -> QiskitTarget | None:
    """Return what both files describe; None where they have what is not known here."""
    count, known = configuration["n_qubits"], get_standard_gate_name_mapping()
    given = configuration.get("supported_instructions", list(_NOT_UNITARY))
    names = {*configuration["basis_gates"], *(name for name in given if name in _NOT_UNITARY)}
    qubits = [_values(entries) for entries in properties["qubits"]]
    gates = [(gate, _values(gate["parameters"])) for gate in properties["gates"]]
    faulty = any("operational" in values for values in [*qubits, *(own for _, own in gates)])
    if faulty or _BOUNDED in names or not names <= known.keys() or len(qubits) != count:
        return None
    tables: dict[str, Table] = {
        gate["name"]: {tuple(where): None for where in gate["coupling_map"]}
        for gate in configuration["gates"]
        if gate.get("coupling_map")
    }
    for gate, values in gates:
        tables.setdefault(gate["gate"], {})[tuple(gate["qubits"])] = InstructionProperties(
            values.get("gate_length"), values.get("gate_error")
        )
    tables["measure"] = {
        (qubit,): InstructionProperties(values.get("readout_length"), values.get("readout_error"))
        for qubit, values in enumerate(qubits)
    }
    for name in given:
        if name in _NOT_UNITARY:
            tables.setdefault(name, {(qubit,): None for qubit in range(count)})
    timing = {"dt": configuration["dt"] * 1e-9} if "dt" in configuration else {}
    device = QiskitTarget(
        num_qubits=count,
        **timing,
        **configuration.get("timing_constraints", {}),
        qubit_properties=[
            QubitProperties(values.get("T1"), values.get("T2"), values.get("frequency"))
            for values in qubits
        ],
    )
    for name in sorted(names | {"measure"}):
        device.add_instruction(known[name], tables.get(name), name=name)
    for name in sorted(name for name in given if name in _CONTROL_FLOW):
        device.add_instruction(_CONTROL_FLOW[name], name=name)
    for signature in configuration.get("instruction_signatures", ()):
        sizes = (signature["num_qubits"], signature["num_clbits"])
        parameters = [Parameter(name) for name in signature["parameters"]]
        own = Instruction(signature["name"], *sizes, parameters)
        device.add_instruction(own, tables.get(own.name), name=own.name)
    return device


def _values(entries: list[Mapping[str, Any]]) -> dict[str, float]:
    """Return values by name in seconds, Hz and shares."""
    return {entry["name"]: apply_prefix(entry["value"], entry["unit"]) for entry in entries}
