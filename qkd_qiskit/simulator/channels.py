"""A device's noise as the simulator takes it, and quantum channels in the Pauli basis.

In the basis of Pauli strings a density matrix is a real vector, ``r[P] = Tr(P rho)``, and a channel
a real matrix (its Pauli transfer matrix). A string's index has one base-4 digit per qubit, 0 to 3
for I, X, Y, Z, qubit 0 the lowest digit.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import CircuitError

Real = NDArray[np.float64]

_PAULIS = np.array(
    [[[1, 0], [0, 1]], [[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]],
    dtype=np.complex128,
)


@dataclass(frozen=True)
class Channels:
    """The noise of a device, as plain arrays.

    Attributes:
        gates: Superoperator of the noise after the ideal gate, per gate name and qubits in the
            gate's order: ``(4**k, 4**k)``, column-stacking, the first qubit lowest, as Qiskit's
            SuperOp. Gates that are not listed are noiseless.
        readout: Per qubit the matrix ``A[true, measured]`` of probabilities.
        relaxation: Per qubit T1 and T2 in seconds, which act during delays.
        dt: Seconds of the unit `dt` of delays.
    """

    gates: Mapping[tuple[str, tuple[int, ...]], NDArray[Any]] = field(default_factory=dict)
    readout: Mapping[int, NDArray[Any]] = field(default_factory=dict)
    relaxation: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    dt: float | None = None

    def __post_init__(self) -> None:
        for (name, qubits), superoperator in self.gates.items():
            side = 4 ** len(qubits)
            if np.shape(superoperator) != (side, side):
                raise CircuitError(
                    f"channel of {name!r} on qubits {list(qubits)} has shape "
                    f"{np.shape(superoperator)}; give a superoperator of shape {(side, side)}"
                )
        for qubit, confusion in self.readout.items():
            rows = np.asarray(confusion, dtype=float)
            if rows.shape != (2, 2) or np.abs(rows.sum(axis=1) - 1).max() > 1e-6:
                raise CircuitError(
                    f"readout of qubit {qubit} is {rows.tolist()}; give a 2x2 matrix "
                    "A[true, measured] whose rows sum to 1"
                )

    def noise(self, name: str, qubits: tuple[int, ...]) -> Real | None:
        """Return the transfer matrix of the noise after a gate, or None where there is none."""
        superoperator = self.gates.get((name, qubits))
        return None if superoperator is None else of_superoperator(superoperator)

    def delay(self, qubit: int, duration: float, unit: str) -> Real | None:
        """Return the transfer matrix of relaxation during a delay, or None where there is none.

        Raises:
            CircuitError: If the delay is given in `dt` and its length in seconds is not known.
        """
        if qubit not in self.relaxation or duration == 0:
            return None
        scale = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12, "dt": self.dt}[unit]
        if scale is None:
            raise CircuitError("a delay is given in dt; set Channels.dt to its length in seconds")
        seconds = duration * scale
        t1, t2 = self.relaxation[qubit]
        stays, coherent = float(np.exp(-seconds / t1)), float(np.exp(-seconds / t2))
        matrix = np.diag([1.0, coherent, coherent, stays])
        matrix[3, 0] = 1 - stays
        return matrix


@functools.cache
def pauli_strings(num_qubits: int) -> NDArray[np.complex128]:
    """Return the Pauli strings ``(4**num_qubits, 2**num_qubits, 2**num_qubits)``."""
    strings = []
    for digits in itertools.product(range(4), repeat=num_qubits):  # the last qubit first
        strings.append(functools.reduce(np.kron, (_PAULIS[digit] for digit in digits)))
    return np.array(strings)


def of_superoperator(superoperator: NDArray[Any]) -> Real:
    """Return the transfer matrix of a column-stacking superoperator."""
    strings = pauli_strings(round(np.log2(len(superoperator)) / 2))
    columns = strings.transpose(0, 2, 1).reshape(len(strings), -1)  # each string column-stacked
    side = strings.shape[1]
    return np.asarray((columns.conj() @ np.asarray(superoperator) @ columns.T).real / side)


def of_unitary(matrix: NDArray[Any]) -> Real:
    """Return the transfer matrix of a unitary, the first qubit lowest."""
    strings = pauli_strings(round(np.log2(len(matrix))))
    moved = matrix @ strings @ matrix.conj().T
    return np.asarray(np.einsum("iab,jba->ij", strings, moved).real / len(matrix))
