"""Errors that calibrations do not list: coherent over-rotation and ZZ crosstalk.

`NoiseModel.from_backend` makes stochastic errors of every gate error. A real device also turns a
little too far, always in the same direction, and while a two-qubit gate runs its qubits talk to
their neighbours. Both are unitary: they are written into the scheduled circuit as unitary gates, so
that Aer and the simulator here run the very same circuit.

- Over-rotation by a share e: after each gate a turn by e times its angle about its own axis. sx and
  x turn by pi / 2 and pi about X, the two-qubit gates by pi / 2 about ZZ (cz) or ZX (cx, ecr).
  Virtual gates (rz) are exact.
- ZZ crosstalk of frequency f: during a two-qubit gate of duration t each of its qubits and each
  neighbour outside the gate evolve under H = 2 pi f / 4 ZZ, which is RZZ(pi f t). A neighbour that
  the circuit does not use stays in 0, where this is part of the calibrated frequency.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from qiskit.circuit import QuantumCircuit
from qiskit.circuit.library import RXGate, RZXGate, RZZGate, UnitaryGate
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError

_TURNS = {"sx": np.pi / 2, "x": np.pi, "cx": np.pi / 2, "cz": np.pi / 2, "ecr": -np.pi / 2}
_AXES = {"sx": RXGate, "x": RXGate, "cx": RZXGate, "ecr": RZXGate, "cz": RZZGate}
_EXACT = frozenset({"rz", "p", "z", "s", "sdg", "t", "tdg", "id", "barrier", "delay", "measure"})
_EXACT |= {"reset"}
MOST_OVERROTATION, MOST_ZZ_HZ = 0.5, 1e7


@dataclass(frozen=True)
class CoherentNoise:
    """What is added to a device's noise."""

    overrotation: float = 0.0
    """Share of its angle by which each gate turns too far; negative: not far enough."""
    zz_hz: float = 0.0
    """Frequency of the ZZ interaction with neighbours during two-qubit gates."""

    def __post_init__(self) -> None:
        for key, given, most, what in (
            ("overrotation", self.overrotation, MOST_OVERROTATION, "shares, as overrotation=0.01,"),
            ("zz", self.zz_hz, MOST_ZZ_HZ, "frequencies in Hz, as zz=20kHz,"),
        ):
            if not abs(given) <= most:
                raise TargetError(
                    f"{key} is {given:g}; accepted are {what} from {-most:g} to {most:g}"
                )

    @property
    def suffix(self) -> str:
        """What it adds to the name of a target."""
        name = f":overrotation={self.overrotation:.12g}" if self.overrotation else ""
        return name + (f":zz={self.zz_hz / 1e3:.12g}kHz" if self.zz_hz else "")

    @property
    def options(self) -> dict[str, float]:
        """What is recorded with results: those that are not 0."""
        known = {"overrotation": self.overrotation, "zz_hz": self.zz_hz}
        return {key: value for key, value in known.items() if value}


def with_coherent_errors(
    circuit: QuantumCircuit, device: QiskitTarget, *, coherent: CoherentNoise, scale: float
) -> QuantumCircuit:
    """Return a scheduled circuit with its coherent errors as unitary gates.

    Args:
        circuit: On the qubits of `device`, in its basis.
        device: Its gates have the durations and couplings.
        coherent: The errors.
        scale: What their angles are multiplied by.

    Raises:
        TargetError: A gate's angle is a parameter, or not known.
    """
    if not (coherent.options and scale):
        return circuit
    neighbours = _neighbours(device)
    made = circuit.copy_empty_like()
    for instruction in circuit.data:
        made.append(instruction)
        name = instruction.operation.name
        where = tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)
        if coherent.overrotation and name not in _EXACT:
            if name not in _TURNS:
                raise TargetError(
                    f"overrotation: the angle of {name} is not known; accepted are devices whose "
                    f"gates are {', '.join(_TURNS)} and virtual ones"
                )
            turn = _AXES[name](scale * coherent.overrotation * _TURNS[name])
            made.append(UnitaryGate(turn.to_matrix(), label="overrotation"), where)
        if coherent.zz_hz and len(where) == 2 and name not in _EXACT:
            angle = np.pi * scale * coherent.zz_hz * device[name][where].duration
            for pair in _spectators(where, neighbours):
                crosstalk = UnitaryGate(RZZGate(angle).to_matrix(), label="crosstalk")
                made.append(crosstalk, pair)
    return made


def _neighbours(device: QiskitTarget) -> dict[int, list[int]]:
    pairs = {
        frozenset(where)
        for name in device.operation_names
        for where in device[name] or {}
        if where is not None and len(where) == 2
    }
    return {
        qubit: sorted(next(iter(pair - {qubit})) for pair in pairs if qubit in pair)
        for qubit in range(device.num_qubits)
    }


def _spectators(
    where: tuple[int, ...], neighbours: dict[int, list[int]]
) -> Iterator[tuple[int, int]]:
    """Yield each qubit of a gate with each of its neighbours outside it."""
    for qubit in where:
        for other in neighbours[qubit]:
            if other not in where:
                yield qubit, other
