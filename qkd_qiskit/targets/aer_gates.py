"""Circuits in gates whose parameters Aer binds rightly."""

from functools import cache
from typing import Any

from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.targets.pass_managers import preset_pass_manager

# Of these Aer drops the values, open controls included (Qiskit/qiskit-aer, issue 2391).
_PARAMETRISED_CONTROLLED = {
    *("cp", "cr", "crx", "cry", "crz", "cu", "cu1", "cu2", "cu3", "mcphase"),
    *("mcp", "mcr", "mcrx", "mcry", "mcrz", "mcu", "mcu1", "mcu2", "mcu3"),
}


def gates_for_aer(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit in those of Aer's gates whose parameters it binds rightly."""
    return _aer_passes().run(circuit)


@cache
def _aer_passes() -> Any:
    from qiskit_aer import AerSimulator

    known = AerSimulator(method="statevector").target
    target = QiskitTarget(num_qubits=None)  # of any width; the default is 0
    for name in known.operation_names:
        if name not in _PARAMETRISED_CONTROLLED:
            target.add_instruction(known.operation_from_name(name), name=name)
    return preset_pass_manager(optimization_level=0, target=target)


def binds_wrongly(circuit: QuantumCircuit) -> bool:
    """Return whether Aer would drop values of the circuit's parameters."""
    # What Aer itself asks; a controlled gate denies it, as its angles are its base gate's.
    return any(
        instruction.is_parameterized() and not instruction.operation.is_parameterized()
        for instruction in circuit.data
    )
