"""Angles of a shallow circuit that prepares a real state approximately: layers of a staircase.

A layer is RY on every qubit and then, from the highest pair of neighbours to the lowest, a CZ with
an RY in front of the next one. It is the circuit of a matrix product state of bond dimension 2,
and further layers add to it (Ran, Phys. Rev. A 101, 032310, arXiv 1908.07958). The angles are
fitted by turning one of them at a time to where the overlap with the state is largest: the overlap
is A cos(angle / 2) + B sin(angle / 2), so that this angle is known in closed form (as in Rotosolve,
Ostaszewski et al., arXiv 1905.09692), and no step lowers the fidelity.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qkd_qiskit.simulator.kernel.compilation import compiled, inner

Real = NDArray[np.float64]
MOST_SWEEPS = 200  # forth and back over all angles
LEAST_GAIN = 1e-6  # of the overlap in a sweep, below which a fit ends
_TURN = (math.sqrt(5) - 1) / 2  # multiples of it, modulo 1, are spread evenly


def staircase(qubits: int, layers: int) -> list[tuple[int, ...]]:
    """Return the gates: `(qubit,)` is an RY with the next angle, `(low, high)` a CZ.

    Args:
        qubits: Width.
        layers: Staircases one after the other; RY on every qubit follows the last.
    """
    gates: list[tuple[int, ...]] = []
    for _ in range(layers):
        gates += [(qubit,) for qubit in range(qubits)]
        for low in reversed(range(qubits - 1)):
            gates.append((low, low + 1))
            gates += [(low,)] * (low > 0)  # the lowest is turned by what follows the layer
    return gates + [(qubit,) for qubit in range(qubits)]


def fit_angles(states: Real, *, layers: int) -> Real:
    """Return the angles `(batch, angles)` whose circuits come nearest to some states, in radians.

    What a state gets does not depend on the others. Every fit begins with the same angles; it ends
    in a local optimum.

    Args:
        states: Real, normalised, little-endian `(batch, 2^n)`.
        layers: Of the staircase.
    """
    places, partners = _gate_arrays(states.shape[1], layers)
    count = int((partners < 0).sum())
    start = np.modf(_TURN * np.arange(1, count + 1))[0]
    angles = np.tile(start, (len(states), 1))
    _fit(np.ascontiguousarray(states, dtype=np.float64), places, partners, angles)
    return angles


def states_of(angles: Real, *, qubits: int, layers: int) -> Real:
    """Return the states `(batch, 2^n)` that circuits of some angles prepare."""
    states = np.zeros((len(angles), 1 << qubits))
    places, partners = _gate_arrays(states.shape[1], layers)
    _prepare(np.ascontiguousarray(angles, dtype=np.float64), places, partners, states)
    return states


def _gate_arrays(size: int, layers: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the qubit of each gate, and the other one of a CZ or -1."""
    gates = staircase(size.bit_length() - 1, layers)
    places = np.array([gate[0] for gate in gates], dtype=np.int64)
    partners = np.array([gate[1] if len(gate) > 1 else -1 for gate in gates], dtype=np.int64)
    return places, partners


@inner
def _turn(state: Any, qubit: int, cosine: float, sine: float) -> None:
    """Apply an RY, given cosine and sine of half its angle."""
    step = 1 << qubit
    for block in range(0, state.size, 2 * step):
        for low in range(block, block + step):
            zero, one = state[low], state[low + step]
            state[low] = cosine * zero - sine * one
            state[low + step] = sine * zero + cosine * one


@inner
def _flip(state: Any, first: int, second: int) -> None:
    """Apply a CZ, which is its own inverse."""
    both = 1 << first | 1 << second
    for place in range(state.size):
        if place & both == both:
            state[place] = -state[place]


@inner
def _overlaps(bra: Any, ket: Any, qubit: int) -> tuple[float, float]:
    """Return <bra|ket>, and <bra|RY(pi)|ket> for an RY on a qubit."""
    step = 1 << qubit
    straight, turned = 0.0, 0.0
    for block in range(0, ket.size, 2 * step):
        for low in range(block, block + step):
            high = low + step
            straight += bra[low] * ket[low] + bra[high] * ket[high]
            turned += bra[high] * ket[low] - bra[low] * ket[high]
    return straight, turned


@compiled
def _prepare(angles: Any, places: Any, partners: Any, states: Any) -> None:
    """Fill the states of angles."""
    for row in range(states.shape[0]):
        state, number = states[row], 0
        state[0] = 1.0
        for gate in range(places.size):
            if partners[gate] < 0:
                half = 0.5 * angles[row, number]
                _turn(state, places[gate], math.cos(half), math.sin(half))
                number += 1
            else:
                _flip(state, places[gate], partners[gate])


@compiled
def _fit(states: Any, places: Any, partners: Any, angles: Any) -> None:
    """Improve angles until they no longer gain, a state after the other.

    `ket` holds what the gates before the present one make of |0>, `bra` what the gates behind it
    leave to be made: the state turned back by them.
    """
    size, gates = states.shape[1], places.size
    bra, ket = np.empty(size), np.empty(size)
    for row in range(states.shape[0]):
        mine = angles[row]
        ket[:], bra[:] = 0.0, states[row]
        ket[0] = 1.0
        number = mine.size - 1
        for place in range(gates):
            gate = gates - 1 - place
            if partners[gate] < 0:
                half = 0.5 * mine[number]
                _turn(bra, places[gate], math.cos(half), -math.sin(half))
                number -= 1
            else:
                _flip(bra, places[gate], partners[gate])
        before = -1.0
        for _ in range(MOST_SWEEPS):
            overlap = 0.0
            for place in range(2 * gates):
                forth = place < gates
                gate = place if forth else 2 * gates - 1 - place
                if partners[gate] >= 0:
                    _flip(bra, places[gate], partners[gate])
                    _flip(ket, places[gate], partners[gate])
                    continue
                # Between two gates number + 1 counts the angles that lie before the place.
                if forth:
                    number += 1
                half = 0.5 * mine[number]
                if forth:
                    _turn(bra, places[gate], math.cos(half), math.sin(half))
                else:
                    _turn(ket, places[gate], math.cos(half), -math.sin(half))
                straight, turned = _overlaps(bra, ket, places[gate])
                overlap = math.hypot(straight, turned)
                if overlap > 0.0:
                    half = math.atan2(turned, straight)
                    mine[number] = 2.0 * half
                if forth:
                    _turn(ket, places[gate], math.cos(half), math.sin(half))
                else:
                    _turn(bra, places[gate], math.cos(half), -math.sin(half))
                    number -= 1
            if overlap - before < LEAST_GAIN:
                break
            before = overlap
