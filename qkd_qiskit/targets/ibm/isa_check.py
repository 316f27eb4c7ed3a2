"""Whether a device can run a circuit as it stands; asked before anything is sent.

The service finds the same after a wait in the queue, and local simulation does not find it at all.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from qiskit.circuit import ParameterExpression, QuantumCircuit
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.ibm.job_plan import Pub

_ANYWHERE = frozenset({"barrier"})
_RZZ_LARGEST = math.pi / 2
_ROUNDING = 1e-10


def check_pubs(pubs: Sequence[Pub], device: QiskitTarget, *, name: str) -> None:
    """Check that a device can run PUBs: width, gates where they are, values, angles of rzz.

    Args:
        pubs: What would be sent.
        device: The device as `backend.target` describes it.
        name: Its name, for messages.

    Raises:
        TargetError: It cannot; the message says which gate or value.
    """
    checked: list[QuantumCircuit] = []
    for pub in pubs:
        if not any(pub.circuit is circuit for circuit in checked):
            check_circuit(pub.circuit, device, name=name)
            checked.append(pub.circuit)
        if not np.isfinite(pub.live).all():
            raise TargetError("values of a circuit are not finite; accepted are angles in radians")
        _check_rzz(pub)


def check_circuit(circuit: QuantumCircuit, device: QiskitTarget, *, name: str) -> None:
    """Check that a device has a circuit's qubits, and its gates where they are.

    Raises:
        TargetError: It has not, or the circuit has not one classical register.
    """
    if circuit.num_qubits > device.num_qubits:
        raise TargetError(
            f"circuit {circuit.name!r} has {circuit.num_qubits} qubits, {name} has "
            f"{device.num_qubits}; use a smaller circuit or a larger device"
        )
    if len(circuit.cregs) != 1 or not circuit.cregs[0].size:
        raise TargetError(
            f"circuit {circuit.name!r} has {len(circuit.cregs)} classical registers; give one, "
            "with a bit for each measured qubit"
        )
    for instruction in circuit.data:
        operation = instruction.operation
        where = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if operation.name in _ANYWHERE or device.instruction_supported(operation.name, where):
            continue
        gates = ", ".join(sorted(set(device.operation_names) - {"delay", "measure"}))
        raise TargetError(
            f"{name} has no {operation.name} on {_listed(where)}: compile the circuit for it "
            f"(its gates are {gates})"
        )


def _check_rzz(pub: Pub) -> None:
    angles: list[Any] = [
        instruction.operation.params[0]
        for instruction in pub.circuit.data
        if instruction.operation.name == "rzz"
    ]
    names = [parameter.name for parameter in pub.circuit.parameters]
    for angle in angles:
        for value in _values(angle, pub, names):
            if not -_ROUNDING <= value <= _RZZ_LARGEST + _ROUNDING:
                raise TargetError(
                    f"an rzz gate has the angle {value:.6g}; a device accepts 0 to pi/2: compile "
                    "the circuit without fractional gates, or fold the angle before it is compiled"
                )


def _values(angle: Any, pub: Pub, names: list[str]) -> list[float]:
    parameters = sorted(getattr(angle, "parameters", ()), key=lambda parameter: str(parameter.name))
    if not parameters:
        return [float(angle)]
    assert isinstance(angle, ParameterExpression)
    columns = [names.index(parameter.name) for parameter in parameters]
    rows = np.unique(pub.live[:, columns], axis=0)
    return [float(angle.bind(dict(zip(parameters, row, strict=True)))) for row in rows.tolist()]


def _listed(qubits: tuple[int, ...]) -> str:
    return f"qubit{'s' if len(qubits) > 1 else ''} {', '.join(map(str, qubits))}"
