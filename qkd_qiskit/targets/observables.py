"""Observables measured in as few bases as qubit-wise commuting Pauli strings allow."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.measured_program import MeasuredProgram

_PROJECTORS = {
    "0": ("Z", 1),
    "1": ("Z", -1),
    "+": ("X", 1),
    "-": ("X", -1),
    "r": ("Y", 1),
    "l": ("Y", -1),
}
Observable = Mapping[str, float]
"""Real coefficient of each label; qubit 0 is a label's last letter, as in Qiskit."""


@dataclass(frozen=True)
class BasisGroup:
    """Pauli strings that one measurement of each qubit gives."""

    basis: Mapping[int, str]
    """Letter, X, Y or Z, that each qubit of a string is measured in."""
    masks: NDArray[np.bool_]
    """Qubits of each string (strings, qubits)."""
    coefficients: NDArray[np.float64]
    """Coefficient of each string in each observable (strings, observables)."""


def group_observables(
    observables: Sequence[Observable], *, num_qubits: int
) -> tuple[NDArray[np.float64], list[BasisGroup]]:
    """Return each observable's identity part (observables,), and what has to be measured.

    Strings are put into the first group that agrees with them on every qubit.

    Raises:
        TargetError: a coefficient is not real.
    """
    constants = np.zeros(len(observables))
    bases: list[dict[int, str]] = []
    strings: list[dict[tuple[int, ...], NDArray[np.float64]]] = []
    for column, observable in enumerate(observables):
        for paulis, coefficient in _pauli_terms(observable):
            if not paulis:
                constants[column] += coefficient
                continue
            fits = (
                number
                for number, basis in enumerate(bases)
                if all(basis.get(qubit, letter) == letter for qubit, letter in paulis.items())
            )
            number = next(fits, len(bases))
            if number == len(bases):
                bases.append({})
                strings.append({})
            bases[number].update(paulis)
            nothing = np.zeros(len(observables))
            row = strings[number].setdefault(tuple(sorted(paulis)), nothing)
            row[column] += coefficient
    groups = []
    for basis, group in zip(bases, strings, strict=True):
        masks = np.zeros((len(group), num_qubits), dtype=np.bool_)
        for mask, qubits in zip(masks, group, strict=True):
            mask[list(qubits)] = True
        groups.append(BasisGroup(basis, masks, np.array(list(group.values()))))
    return constants, groups


def exact_means(
    program: MeasuredProgram, values: NDArray[np.float64], group: BasisGroup
) -> NDArray[np.float64]:
    """Return a group's share of the expectation values (batch, observables), without shots."""
    return program.expectations(values, group.masks) @ group.coefficients


def sampled_means(
    program: MeasuredProgram,
    values: NDArray[np.float64],
    group: BasisGroup,
    *,
    shots: int,
    rng: np.random.Generator,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return a group's share of the means, and of their variances, each (batch, observables).

    Strings of a group are read from the same shots, so that their covariance counts.
    """
    packed = program.sample(values, shots=shots, rng=rng)["meas"]
    means = np.empty((len(values), group.coefficients.shape[1]))
    variances = np.empty_like(means)
    masks = group.masks.T.astype(np.uint8)
    for row, shots_of_row in enumerate(packed):
        # Each distinct outcome once; bits come most significant first, padded to whole bytes.
        seen, counts = np.unique(shots_of_row, axis=0, return_counts=True)
        bits = np.unpackbits(seen, axis=1)[:, ::-1][:, : len(masks)]
        results = (1.0 - 2.0 * (bits @ masks & 1)) @ group.coefficients
        share = counts / counts.sum()
        means[row] = share @ results
        variances[row] = share @ (results - means[row]) ** 2 / shots
    return means, variances


def _pauli_terms(observable: Observable) -> Iterable[tuple[dict[int, str], float]]:
    """Yield letters by qubit and the coefficient; a projector becomes (1 +- P) / 2."""
    for label, coefficient in observable.items():
        if abs(complex(coefficient).imag) > 1e-12:
            raise TargetError(
                f"observable {label!r} has the coefficient {coefficient}; accepted are real ones"
            )
        choices = []
        for qubit, letter in enumerate(reversed(label)):
            if letter in _PROJECTORS:
                pauli, sign = _PROJECTORS[letter]
                choices.append([((), 0.5), (((qubit, pauli),), 0.5 * sign)])
            elif letter != "I":
                choices.append([(((qubit, letter),), 1.0)])
        for chosen in itertools.product(*choices):
            paulis = dict(pair for pairs, _ in chosen for pair in pairs)
            yield paulis, float(complex(coefficient).real) * float(np.prod([f for _, f in chosen]))
