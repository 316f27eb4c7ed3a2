"""A synthetic drift of a calibration: the same device on a later day.

A snapshot is of one day. Where no history of a device is at hand, its quantities walk here: each
T1, T2, readout error, one-qubit and two-qubit error is multiplied by exp(x), where x begins at 0
and follows an Ornstein-Uhlenbeck walk with steps of a day,

    x(d + 1) = (1 - 1 / MEMORY_DAYS) x(d) + s sqrt(1 - (1 - 1 / MEMORY_DAYS)^2) n(d),

n standard normal and independent for each quantity, so that x forgets where it was in about
MEMORY_DAYS and its standard deviation tends to s. The spreads are chosen, not measured: changes of
a fifth to a third are what calibration pages of superconducting devices commonly show from week to
week. The gates of a qubit share one walk, both directions of a coupler too. A dead coupler is one
whose gates have error 1, as IBM marks it: circuits are routed around it.
"""

import datetime
import math
from collections.abc import Collection
from typing import Any

import numpy as np
from qiskit.transpiler import InstructionProperties, QubitProperties
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.synthetic_backends import (
    ReadoutProperties,
    SyntheticBackend,
    readout_errors,
)

MEMORY_DAYS = 10.0
"""Days after which a walk has forgotten all but 1 / e of where it was."""
SPREADS = {"t1": 0.25, "t2": 0.25, "readout": 0.2, "single": 0.25, "double": 0.3}
"""Standard deviation of the logarithm of each quantity after a long time."""
MOST_DAYS = 3650

Quantity = tuple[str, frozenset[int]]


def drifted_backend(
    backend: Any, *, day: int = 0, walk: int = 0, dead: Collection[frozenset[int]] = ()
) -> SyntheticBackend:
    """Return a device as it is so many days after its calibration.

    Args:
        backend: A `BackendV2` with a calibrated `target`.
        day: Days since the calibration.
        walk: Which of the possible walks; day 7 lies on the way to day 30 of the same.
        dead: Couplers that have failed, as pairs of qubits.

    Raises:
        TargetError: The number of days is not accepted, or there is no such coupler.
    """
    if not 0 <= day <= MOST_DAYS:
        raise TargetError(f"day is {day}; accepted are whole numbers from 0 to {MOST_DAYS}")
    properties = getattr(backend, "properties", None)
    updated = getattr(properties() if callable(properties) else None, "last_update_date", None)
    later = None if updated is None else updated + datetime.timedelta(days=day)
    return SyntheticBackend(
        drifted_device(backend.target, day=day, walk=walk, dead=dead),
        name=backend.name,
        calibrated=None if later is None else later.isoformat(),
    )


def drifted_device(
    device: QiskitTarget, *, day: int, walk: int = 0, dead: Collection[frozenset[int]] = ()
) -> QiskitTarget:
    """Return a device's description after so many days; arguments are `drifted_backend`'s."""
    factors = drift_factors(_quantities(device), day=day, walk=walk)
    couplers = {pair for name, pair in factors if name == "double"}
    for pair in dead:
        if pair not in couplers:
            listed = " and ".join(map(str, sorted(pair)))
            raise TargetError(f"dead: there is no coupler between qubits {listed}")
    made = QiskitTarget(
        num_qubits=device.num_qubits,
        dt=device.dt,
        granularity=device.granularity,
        min_length=device.min_length,
        pulse_alignment=device.pulse_alignment,
        acquire_alignment=device.acquire_alignment,
        qubit_properties=[
            _relaxing(known, *(factors[name, frozenset([qubit])] for name in ("t1", "t2")))
            for qubit, known in enumerate(device.qubit_properties)
        ],
    )
    for name in device.operation_names:
        table = {
            where: properties
            if where is None
            else _drifted(name, where, properties, factors=factors, dead=dead)
            for where, properties in (device[name] or {None: None}).items()
        }
        made.add_instruction(
            device.operation_from_name(name), None if None in table else table, name=name
        )
    return made


def drift_factors(
    quantities: Collection[Quantity], *, day: int, walk: int = 0
) -> dict[Quantity, float]:
    """Return what each quantity is multiplied by on a day.

    Args:
        quantities: Their names, of `SPREADS`, and qubits; the order makes the walks.
        day: Days since the calibration.
        walk: Seed of all walks.
    """
    kept = 1 - 1 / MEMORY_DAYS
    spreads = np.array([SPREADS[name] for name, _ in quantities])
    state = np.zeros(len(spreads))
    for number in range(day):
        step = np.random.default_rng([walk, number]).standard_normal(len(spreads))
        state = kept * state + spreads * math.sqrt(1 - kept**2) * step
    return dict(zip(quantities, np.exp(state).tolist(), strict=True))


def _quantities(device: QiskitTarget) -> list[Quantity]:
    """Return all that drifts, in an order that the description alone decides."""
    pairs = {
        frozenset(where)
        for name in device.operation_names
        for where in device[name] or {}
        if where is not None and len(where) == 2
    }
    qubits = [frozenset([qubit]) for qubit in range(device.num_qubits)]
    found = [(name, qubit) for name in ("t1", "t2", "readout", "single") for qubit in qubits]
    return found + [("double", pair) for pair in sorted(pairs, key=sorted)]


def _relaxing(known: Any, t1: float, t2: float) -> QubitProperties:
    longest = known.t1 and known.t1 * t1
    dephasing = known.t2 and known.t2 * t2
    if longest and dephasing:
        dephasing = min(dephasing, 2 * longest)
    return QubitProperties(t1=longest, t2=dephasing, frequency=known.frequency)


def _drifted(
    name: str,
    where: tuple[int, ...],
    properties: Any,
    *,
    factors: dict[Quantity, float],
    dead: Collection[frozenset[int]],
) -> Any:
    error = getattr(properties, "error", None)
    if error is None or len(where) > 2:
        return properties
    pair = frozenset(where)
    if pair in dead:
        return InstructionProperties(properties.duration, 1.0)
    if name == "measure":
        factor = factors["readout", pair]
        one, zero = (min(factor * flip, max(flip, 0.5)) for flip in readout_errors(properties))
        return ReadoutProperties(properties.duration, one_for_zero=one, zero_for_one=zero)
    factor = factors["single" if len(where) == 1 else "double", pair]
    bound = 1 - 0.5 ** len(where)
    return InstructionProperties(properties.duration, min(factor * error, max(error, bound)))
