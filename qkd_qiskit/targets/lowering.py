"""Circuits as standard gates, each of which is what its name says.

Aer, the transpiler and OpenQASM decide by a gate's name what it does, Qiskit by its class. A gate
of one's own that is called ``rzz`` would be run as Qiskit's; it is replaced by its definition.
"""

from functools import cache
from typing import Any

from qiskit.circuit import ControlledGate, Gate, Instruction, QuantumCircuit
from qiskit.circuit.library import UnitaryGate, get_standard_gate_name_mapping
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler import generate_preset_pass_manager

_LIBRARIES = ("qiskit.", "qiskit_aer.")
_GENERIC = (Gate, ControlledGate, Instruction)
# Of these Aer drops the values, open controls included (Qiskit/qiskit-aer, issue 2391).
_PARAMETRISED_CONTROLLED = {
    *("cp", "cr", "crx", "cry", "crz", "cu", "cu1", "cu2", "cu3", "mcphase"),
    *("mcp", "mcr", "mcrx", "mcry", "mcrz", "mcu", "mcu1", "mcu2", "mcu3"),
}


def standard_gates(circuit: QuantumCircuit) -> QuantumCircuit:
    """Return the circuit with gates of one's own replaced by what they are defined as.

    A circuit of Qiskit's own gates is returned as it is.
    """
    definitions = [_own_definition(instruction.operation) for instruction in circuit.data]
    if all(definition is None for definition in definitions):
        return circuit
    lowered = circuit.copy_empty_like()
    for instruction, definition in zip(circuit.data, definitions, strict=True):
        if definition is None:
            lowered.append(instruction)
        else:
            lowered.compose(
                standard_gates(definition), instruction.qubits, instruction.clbits, inplace=True
            )
    return lowered


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
    return generate_preset_pass_manager(optimization_level=0, target=target)


def binds_wrongly(circuit: QuantumCircuit) -> bool:
    """Return whether Aer would drop values of the circuit's parameters."""
    # What Aer itself asks; a controlled gate denies it, as its angles are its base gate's.
    return any(
        instruction.is_parameterized() and not instruction.operation.is_parameterized()
        for instruction in circuit.data
    )


@cache
def _standard_classes() -> dict[str, type]:
    return {name: gate.base_class for name, gate in get_standard_gate_name_mapping().items()}


def _own_definition(operation: Any) -> QuantumCircuit | None:
    """Return what a gate is replaced by; None for one that every tool takes for what it is."""
    if not isinstance(operation, Instruction):
        return None
    kind = operation.base_class
    # Of a subclass of its standard gates Qiskit itself keeps no more than the gate.
    standard = _standard_classes().get(operation.name)
    if standard is not None and isinstance(operation, standard):
        return None
    if kind not in _GENERIC and kind.__module__.startswith(_LIBRARIES) and _is_writable(operation):
        return None
    definition: QuantumCircuit | None = operation.definition
    if definition is None and hasattr(operation, "__array__"):
        definition = QuantumCircuit(operation.num_qubits)
        definition.append(UnitaryGate(operation.to_matrix()), definition.qubits)
    return definition


def _is_writable(operation: Instruction) -> bool:
    """Return whether a gate of Qiskit consists of gates, as OpenQASM wants it."""
    if operation.name in _standard_classes() or not isinstance(operation, Gate):
        return True
    parts = operation.definition.data if operation.definition else ()
    return all(isinstance(part.operation, Gate) and _is_writable(part.operation) for part in parts)
