"""Programs of circuits that were compiled before: the students of a run share their circuit's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from qiskit.circuit import Parameter, QuantumCircuit

from qkd_qiskit.simulator.program import Program

_KEPT = 32
_WITHOUT_ANGLES = ("barrier", "measure")


@dataclass(frozen=True)
class _Compiled:
    """What a program depends on, by names, and what it is made of."""

    content: tuple[Any, ...]
    inputs: tuple[str, ...]
    weights: tuple[str, ...]
    start: int
    circuit: QuantumCircuit = field(compare=False)
    parameters: tuple[Sequence[Parameter], Sequence[Parameter]] = field(compare=False)


def program_of(
    circuit: QuantumCircuit,
    *,
    input_params: Sequence[Parameter],
    weight_params: Sequence[Parameter],
    start: int = 0,
) -> Program:
    """Return the program of a circuit, as `Program.from_circuit` makes it.

    Circuits with the same gates and parameter names share one. Those with gates of your own,
    calculated angles or a layout are compiled each time.
    """
    content = _content(circuit)
    if content is None:
        return Program.from_circuit(
            circuit, input_params=input_params, weight_params=weight_params, start=start
        )
    compiled = _Compiled(
        content=content,
        inputs=tuple(each.name for each in input_params),
        weights=tuple(each.name for each in weight_params),
        start=start,
        circuit=circuit.copy(),  # the caller may go on to change its own
        parameters=(input_params, weight_params),
    )
    return _kept(compiled)


@lru_cache(maxsize=_KEPT)
def _kept(compiled: _Compiled) -> Program:
    inputs, weights = compiled.parameters
    return Program.from_circuit(
        compiled.circuit, input_params=inputs, weight_params=weights, start=compiled.start
    )


def _content(circuit: QuantumCircuit) -> tuple[Any, ...] | None:
    """Return all that a circuit does; None where its gates and angles do not say it by name."""
    if circuit.layout is not None:
        return None
    qubits = {bit: number for number, bit in enumerate(circuit.qubits)}
    clbits = {bit: number for number, bit in enumerate(circuit.clbits)}
    steps: list[tuple[Any, ...]] = []
    for instruction in circuit.data:
        name = instruction.name
        if not (instruction.is_standard_gate() or name in _WITHOUT_ANGLES):
            return None
        angles = [angle.name if type(angle) is Parameter else angle for angle in instruction.params]
        if not all(isinstance(angle, str | float | int) for angle in angles):
            return None
        where = tuple(qubits[bit] for bit in instruction.qubits)
        steps.append((name, where, tuple(clbits[bit] for bit in instruction.clbits), *angles))
    return len(qubits), len(clbits), tuple(steps)
