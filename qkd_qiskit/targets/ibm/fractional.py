"""Gates rzz of any angle on a device that has them from 0 to pi/2 alone.

Every angle folds into that range by gates on single qubits (up to a global phase)::

    rzz(a + pi) = rzz(a) (Z x Z)          rzz(-a) = (X x 1) rzz(a) (X x 1)

Which of them are needed depends on the angle, so that they are chosen when the weights are known:
the folded circuit of one student is not that of another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from qiskit.circuit import ParameterExpression, QuantumCircuit

from qkd_qiskit.errors import TargetError


def has_free_rzz(circuit: QuantumCircuit) -> bool:
    """Return whether a circuit has a gate rzz whose angle is a parameter's."""
    return any(
        instruction.operation.name == "rzz"
        and isinstance(instruction.operation.params[0], ParameterExpression)
        for instruction in circuit.data
    )


def fold_rzz(circuit: QuantumCircuit, weights: Mapping[str, float]) -> QuantumCircuit:
    """Return the same circuit with every angle of rzz from 0 to pi/2 for these weights.

    Args:
        circuit: A circuit; its parameters stay.
        weights: Values of parameters by name, in radians.

    Raises:
        TargetError: The angle of a gate rzz depends on the image.
    """
    folded = circuit.copy_empty_like()
    for instruction in circuit.data:
        angle = instruction.operation.params[0] if instruction.operation.name == "rzz" else None
        if not isinstance(angle, ParameterExpression):
            folded.append(instruction)
            continue
        unknown = [it.name for it in angle.parameters if it.name not in weights]
        if unknown:
            raise TargetError(
                f"a gate rzz has the angle {angle}, where {unknown[0]} changes with the image; on "
                "fractional gates only weights may turn rzz: leave --fractional out"
            )
        value = float(angle.bind({it: weights[it.name] for it in angle.parameters}))
        half_turns = math.floor(value / math.pi)
        rest = value - half_turns * math.pi
        above = rest > math.pi / 2
        first, second = instruction.qubits
        if above:
            half_turns += 1  # rest - pi, from -pi/2 to 0
            folded.x(first)
        inside = angle - half_turns * math.pi
        folded.rzz(-inside if above else inside, first, second)
        if above:
            folded.x(first)
        if half_turns % 2:
            folded.z([first, second])
    return folded
