"""Devices that are only a description: what a noise model, a snapshot or a sweep is made of."""

import copy
import datetime
import functools
import math
from dataclasses import dataclass
from typing import Any

from qiskit.circuit import Delay, Measure, Parameter
from qiskit.circuit.library import CXGate, CZGate, ECRGate, RZGate, SXGate, XGate
from qiskit.providers import BackendV2, Options
from qiskit.transpiler import InstructionProperties, QubitProperties
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError

MAX_QUBITS = 256
"""Qubits up to which a device is described."""
_DT = 1e-9
_TWO_QUBIT_GATES = {"cz": CZGate, "cx": CXGate, "ecr": ECRGate}


class SyntheticBackend(BackendV2):  # type: ignore[misc]
    """A backend that is only its description: what `NoiseModel.from_backend` reads."""

    def __init__(self, target: QiskitTarget, *, name: str, calibrated: str | None = None):
        """Take a description, a name and the ISO date or time of its calibration."""
        super().__init__(name=name)
        self._target = target
        self._calibrated = calibrated and datetime.datetime.fromisoformat(calibrated)

    @property
    def target(self) -> QiskitTarget:
        """The description."""
        return self._target

    @property
    def max_circuits(self) -> None:
        """None: no limit."""
        return

    def properties(self) -> Any:
        """Return an object with `last_update_date`, or None where it is not known."""
        return self._calibrated and _Dated(self._calibrated)

    @classmethod
    def _default_options(cls) -> Options:
        return Options()

    def run(self, run_input: Any, **options: Any) -> Any:
        """Refuse: a description runs nothing."""
        raise NotImplementedError(f"{self.name} is a description; run it with a DeviceTarget")


@dataclass(frozen=True)
class _Dated:
    last_update_date: datetime.datetime


class ReadoutProperties(InstructionProperties):  # type: ignore[misc]
    """Properties of a measurement whose two errors differ, as Aer reads them."""

    def __new__(cls, duration: float, *, one_for_zero: float, zero_for_one: float) -> Any:
        """Make the properties; their error is the mean of both."""
        made = super().__new__(cls, duration, (one_for_zero + zero_for_one) / 2)
        made.prob_meas1_prep0, made.prob_meas0_prep1 = one_for_zero, zero_for_one
        return made

    def __init__(self, duration: float, *, one_for_zero: float, zero_for_one: float):
        """Take the duration in seconds, P(1 | prepared 0) and P(0 | prepared 1)."""

    def __reduce__(self) -> tuple[Any, ...]:
        made = functools.partial(
            ReadoutProperties,
            one_for_zero=self.prob_meas1_prep0,
            zero_for_one=self.prob_meas0_prep1,
        )
        return made, (self.duration,)


def readout_errors(properties: Any) -> tuple[float, float]:
    """Return P(measured 1 | prepared 0) and P(measured 0 | prepared 1)."""
    return (
        float(getattr(properties, "prob_meas1_prep0", properties.error)),
        float(getattr(properties, "prob_meas0_prep1", properties.error)),
    )


def asymmetric_backend(backend: Any) -> "SyntheticBackend":
    """Return a backend whose measurements have the two errors that its calibration lists.

    A `Target` of Qiskit keeps their mean alone.

    Raises:
        TargetError: The calibration does not list them.
    """
    properties = getattr(backend, "properties", None)
    known: Any = properties() if callable(properties) else None
    device = copy.deepcopy(backend.target)
    for where, measured in (device["measure"] or {}).items():
        if hasattr(measured, "prob_meas1_prep0"):
            continue  # of a snapshot: it has both
        try:
            flips = [
                float(known.qubit_property(where[0], f"prob_meas{bit}_prep{1 - bit}")[0])
                for bit in (1, 0)
            ]
        except Exception as error:
            raise TargetError(
                f"{backend.name}: readout=asymmetric needs both errors of each measurement, which "
                f"its calibration does not list for qubit {where[0]}; leave the option out"
            ) from error
        device.update_instruction_properties(
            "measure",
            where,
            ReadoutProperties(measured.duration, one_for_zero=flips[0], zero_for_one=flips[1]),
        )
    updated = getattr(known, "last_update_date", None)
    date = None if updated is None else updated.isoformat()
    return SyntheticBackend(device, name=backend.name, calibrated=date)


def scaled_device(device: QiskitTarget, scale: float) -> QiskitTarget:
    """Return the description with its noise multiplied by `scale`, above 0.

    - T1 and T2 are divided by `scale`: relaxation acts as if all took `scale` times as long.
    - A gate's average infidelity is multiplied by it. The noise model fills what relaxation does
      not explain with depolarising noise, up to complete depolarisation, (d - 1) / d.
    - Each readout flip probability is multiplied by it, up to 1/2, which says nothing.

    Every result is a description that a device could have, so its channels are completely positive
    and trace preserving; a larger scale is never less noisy. Scale 1 is the device.
    """
    scaled = QiskitTarget(
        num_qubits=device.num_qubits,
        dt=device.dt,
        granularity=device.granularity,
        min_length=device.min_length,
        pulse_alignment=device.pulse_alignment,
        acquire_alignment=device.acquire_alignment,
        qubit_properties=[
            QubitProperties(
                t1=known.t1 and known.t1 / scale,
                t2=known.t2 and known.t2 / scale,
                frequency=known.frequency,
            )
            for known in device.qubit_properties or ()
        ]
        or None,
    )
    for name in device.operation_names:
        scaled.add_instruction(
            device.operation_from_name(name),
            {
                where: _scaled(name, where, properties, scale)
                for where, properties in (device[name] or {}).items()
            },
            name=name,
        )
    return scaled


def _scaled(name: str, where: tuple[int, ...], properties: Any, scale: float) -> Any:
    error = getattr(properties, "error", None)
    if error is None:
        return properties
    if name == "measure":
        flips = [_capped(flip, scale, bound=0.5) for flip in readout_errors(properties)]
        return ReadoutProperties(properties.duration, one_for_zero=flips[0], zero_for_one=flips[1])
    bound = 1 - 0.5 ** len(where)
    return InstructionProperties(properties.duration, _capped(error, scale, bound=bound))


def _capped(error: float, scale: float, *, bound: float) -> float:
    # What is beyond the bound already stays there, so that scale 1 is always the device.
    return min(scale * error, max(error, bound))


def synthetic_device(
    qubits: int,
    *,
    p1: float = 0.0,
    p2: float = 0.0,
    t1: float = math.inf,
    t2: float = math.inf,
    readout: float | tuple[float, float] = 0.0,
    coupling: str = "line",
    two_qubit_gate: str = "cz",
    durations: tuple[float, float, float] = (32e-9, 80e-9, 1e-6),
) -> QiskitTarget:
    """Return the description of a device with the same noise everywhere.

    Its gates are rz (virtual: no noise, no time), sx, x and the two-qubit gate.

    Args:
        qubits: Qubits of the device.
        p1: Depolarising probability of sx and x: rho becomes (1 - p) rho + p / d.
        p2: Depolarising probability of the two-qubit gate.
        t1: Relaxation time in seconds, which acts during gates and delays.
        t2: Dephasing time in seconds, at most 2 t1.
        readout: Flip probability, or P(1 | prepared 0) and P(0 | prepared 1).
        coupling: Line (neighbours) or all (every pair).
        two_qubit_gate: Cz, cx or ecr.
        durations: Seconds of sx and x, of the two-qubit gate and of a measurement.

    Raises:
        TargetError: A number is out of range, or coupling or gate is not known.
    """
    flips = (readout, readout) if isinstance(readout, int | float) else tuple(readout)
    relaxing = t1 > 0 and t2 > 0 and (t2 <= 2 * t1)
    for accepted, key, given, what in (
        (
            qubits in range(1, MAX_QUBITS + 1),
            "qubits",
            qubits,
            f"a whole number from 1 to {MAX_QUBITS}",
        ),
        (0 <= p1 <= 1, "p1", p1, "a probability from 0 to 1"),
        (0 <= p2 <= 1, "p2", p2, "a probability from 0 to 1"),
        (relaxing, "t1, t2", (t1, t2), "seconds above 0 with t2 at most 2 t1"),
        (
            len(flips) == 2 and all(0 <= flip <= 0.5 for flip in flips),
            "readout",
            readout,
            "one or two probabilities from 0 to 0.5",
        ),
        (coupling in ("line", "all"), "coupling", coupling, "line or all"),
        (
            two_qubit_gate in _TWO_QUBIT_GATES,
            "two_qubit_gate",
            two_qubit_gate,
            ", ".join(_TWO_QUBIT_GATES),
        ),
        (min(durations) >= 0, "durations", durations, "three times in seconds"),
    ):
        if not accepted:
            raise TargetError(f"synthetic noise: {key} is {given}; accepted: {what}")
    device = QiskitTarget(
        num_qubits=qubits,
        dt=_DT,
        qubit_properties=[QubitProperties(t1=t1, t2=t2) for _ in range(qubits)],
    )
    singles = [(qubit,) for qubit in range(qubits)]
    pairs = [
        (low, high)
        for low in range(qubits)
        for high in range(low + 1, qubits)
        if coupling == "all" or high == low + 1
    ]
    pairs += [(high, low) for low, high in pairs]
    single, double = (
        InstructionProperties(duration, _infidelity(p, duration, t1=t1, t2=t2, qubits=count))
        for p, duration, count in ((p1, durations[0], 1), (p2, durations[1], 2))
    )
    measured = ReadoutProperties(durations[2], one_for_zero=flips[0], zero_for_one=flips[1])
    device.add_instruction(
        RZGate(Parameter("angle")), dict.fromkeys(singles, InstructionProperties(0.0, 0.0))
    )
    device.add_instruction(SXGate(), dict.fromkeys(singles, single))
    device.add_instruction(XGate(), dict.fromkeys(singles, single))
    if pairs:
        device.add_instruction(_TWO_QUBIT_GATES[two_qubit_gate](), dict.fromkeys(pairs, double))
    device.add_instruction(Measure(), dict.fromkeys(singles, measured))
    device.add_instruction(Delay(Parameter("duration")), dict.fromkeys(singles))
    return device


def _infidelity(p: float, duration: float, *, t1: float, t2: float, qubits: int) -> float:
    """Return the average infidelity of depolarisation and relaxation: a gate's error."""
    dimension = 2.0**qubits
    process = ((1 + 2 * math.exp(-duration / t2) + math.exp(-duration / t1)) / 4) ** qubits
    relaxed = (dimension * process + 1) / (dimension + 1)
    return 1 - ((1 - p) * relaxed + p / dimension)
