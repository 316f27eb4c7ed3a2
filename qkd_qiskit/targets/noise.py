"""A device's noise on the few qubits that a circuit uses.

Aer applies a noise model of 133 qubits to 133 qubits. A student uses four of them, so both the
circuit and the device's description are renumbered to the used ones, and the noise model is built
from that description by `NoiseModel.from_backend` itself: same errors, a quarter of the time. The
circuit is scheduled first, because idle qubits relax only in the delays that scheduling writes.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.transpiler import Target as QiskitTarget

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.coherent_noise import CoherentNoise, with_coherent_errors
from qkd_qiskit.targets.pass_managers import preset_pass_manager
from qkd_qiskit.targets.synthetic_backends import SyntheticBackend, scaled_device

if TYPE_CHECKING:
    from qkd_qiskit.simulator import Channels

_NO_ERROR = frozenset({"barrier", "delay"})


@dataclass(frozen=True, eq=False)
class NoisyCircuit:
    """A circuit on its used qubits only, with the noise model that belongs to it."""

    circuit: QuantumCircuit
    """Scheduled circuit (delays on used qubits), same classical bits as the circuit given."""
    noise_model: Any
    """`qiskit_aer.noise.NoiseModel` over the same, renumbered qubits; None at scale 0."""
    qubits: tuple[int, ...]
    """Physical qubit behind each qubit of `circuit`, ascending."""
    duration_s: float
    """Seconds from the first gate to the end of the measurement."""
    device: QiskitTarget
    """The device's description of these qubits, renumbered as in `circuit`, its noise scaled."""
    programs: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    """The simulator's programs that were made of it (see exact_noise.py)."""

    @cached_property
    def channels(self) -> "Channels":
        """The noise of gates, delays and measurements as the simulator takes it.

        Gate errors are those of Aer's noise model, readout errors come from the function that it is
        built with; relaxation in delays has T2 cut to 2 T1 as there.
        """
        from qkd_qiskit.simulator import Channels

        if self.noise_model is None:
            return Channels()
        used = {
            (instruction.operation.name, _where(self.circuit, instruction))
            for instruction in self.circuit.data
        }
        return Channels(
            gates={
                (name, where): error.to_quantumchannel().data
                for name, table in self.noise_model._local_quantum_errors.items()
                for where, error in table.items()
                if (name, where) in used and not error.ideal()
            },
            readout=self.readout,
            relaxation={
                qubit: (known.t1, min(known.t2, 2 * known.t1))
                for qubit, known in enumerate(self.device.qubit_properties)
            },
            dt=self.device.dt,
        )

    @cached_property
    def readout(self) -> dict[int, NDArray[np.float64]]:
        """The readout matrix A[true, measured] of each qubit that errs."""
        from qiskit_aer.noise.device import basic_device_readout_errors

        if self.noise_model is None:
            return {}
        return {
            where[0]: np.asarray(error.probabilities, dtype=float)
            for where, error in basic_device_readout_errors(target=self.device)
            if not error.ideal()
        }


def with_noise(
    circuit: QuantumCircuit,
    device: QiskitTarget,
    *,
    scale: float = 1.0,
    coherent: CoherentNoise | None = None,
) -> NoisyCircuit:
    """Return an ISA circuit restricted to its used qubits, scheduled, with its noise model.

    Args:
        circuit: Circuit in the device's basis, coupling and qubit numbers, not yet scheduled.
        device: The device as `backend.target` describes it.
        scale: What its noise is multiplied by, see `scaled_device`; 0 is no noise, in
            the same circuit.
        coherent: Errors that are added to it, times `scale`.

    Raises:
        TargetError: A used qubit or gate has no calibration.
    """
    from qiskit_aer.noise import NoiseModel

    problem = find_uncalibrated(circuit, device)
    if problem is not None:
        raise TargetError(problem)
    qubits = used_qubits(circuit)
    restricted = restrict_device(device, qubits)
    reduced = restrict_circuit(circuit, qubits)
    passes = preset_pass_manager(optimization_level=0, target=restricted, scheduling_method="alap")
    scheduled = with_coherent_errors(
        passes.scheduling.run(reduced),
        restricted,
        coherent=coherent or CoherentNoise(),
        scale=scale,
    )
    noisy = restricted if scale in (0, 1) else scaled_device(restricted, scale)
    described = SyntheticBackend(noisy, name="restricted")
    return NoisyCircuit(
        circuit=scheduled,
        noise_model=NoiseModel.from_backend(described) if scale else None,
        qubits=qubits,
        duration_s=float(reduced.estimate_duration(restricted, unit="s")),
        device=noisy,
    )


def used_qubits(circuit: QuantumCircuit) -> tuple[int, ...]:
    """Return the qubits that a gate or a measurement acts on, ascending; delays do not count."""
    used = {
        circuit.find_bit(qubit).index
        for instruction in circuit.data
        if instruction.operation.name not in _NO_ERROR
        for qubit in instruction.qubits
    }
    return tuple(sorted(used))


def restrict_circuit(circuit: QuantumCircuit, qubits: Iterable[int]) -> QuantumCircuit:
    """Return the circuit on `qubits` alone, renumbered in the order given.

    Delays and barriers are cut down to these qubits; every gate must lie within them.
    """
    position = {circuit.qubits[qubit]: index for index, qubit in enumerate(qubits)}
    reduced = QuantumCircuit(len(position), global_phase=circuit.global_phase)
    for register in circuit.cregs:
        reduced.add_register(register)
    for instruction in circuit.data:
        kept = [position[qubit] for qubit in instruction.qubits if qubit in position]
        if not kept:
            continue
        if instruction.operation.name == "barrier":
            reduced.barrier(kept)
        else:
            reduced.append(instruction.operation, kept, instruction.clbits)
    return reduced


def restrict_device(device: QiskitTarget, qubits: Iterable[int]) -> QiskitTarget:
    """Return the device's description on `qubits` alone, renumbered in the order given."""
    position = {qubit: index for index, qubit in enumerate(qubits)}
    return _rebuild(device, position, keep=lambda where, _: all(q in position for q in where))


def calibrated_part(device: QiskitTarget) -> QiskitTarget:
    """Return the device without gates of error 1 and qubits of unknown relaxation times.

    An error of 1 is how IBM marks a gate that could not be calibrated; the transpiler does not
    always keep away from it.
    """
    lost = {
        qubit
        for qubit, known in enumerate(device.qubit_properties or ())
        if not (_positive(getattr(known, "t1", None)) and _positive(getattr(known, "t2", None)))
    }

    def keep(where: tuple[int, ...], properties: Any) -> bool:
        error = getattr(properties, "error", None)
        return lost.isdisjoint(where) and (error is None or 0 <= error < 1)

    return _rebuild(device, {qubit: qubit for qubit in range(device.num_qubits)}, keep=keep)


def _rebuild(
    device: QiskitTarget,
    position: dict[int, int],
    *,
    keep: Callable[[tuple[int, ...], Any], bool],
) -> QiskitTarget:
    described = device.qubit_properties
    rebuilt = QiskitTarget(
        num_qubits=len(position),
        dt=device.dt,
        granularity=device.granularity,
        min_length=device.min_length,
        pulse_alignment=device.pulse_alignment,
        acquire_alignment=device.acquire_alignment,
        qubit_properties=[described[qubit] for qubit in position] if described else None,
    )
    for name in device.operation_names:
        kept = {
            tuple(position[qubit] for qubit in where): properties
            for where, properties in (device[name] or {}).items()
            if where is not None and keep(where, properties)
        }
        if kept:
            rebuilt.add_instruction(device.operation_from_name(name), kept, name=name)
    return rebuilt


def find_uncalibrated(circuit: QuantumCircuit, device: QiskitTarget) -> str | None:
    """Return what the device does not know about the circuit's qubits and gates, or None."""
    described = device.qubit_properties
    for qubit in used_qubits(circuit):
        for name in ("t1", "t2"):
            if not _positive(getattr(described[qubit], name, None) if described else None):
                return _uncalibrated(f"qubit {qubit} has no {name.upper()}")
    for name, where, known in _calibrated(circuit, device):
        error = getattr(known, "error", None)
        if error is None or not 0 <= error < 1:
            return _uncalibrated(f"{name} on {_listed(where)} has error {error}")
        duration = getattr(known, "duration", None)
        if duration is None or not math.isfinite(duration):
            return _uncalibrated(f"{name} on {_listed(where)} has duration {duration}")
    return None


def estimate_fidelity(
    circuit: QuantumCircuit, device: QiskitTarget, *, scale: float = 1.0
) -> float:
    """Return the product of 1 - error over all gates and measurements of an ISA circuit.

    Errors are those of the device's calibration times `scale`, 1 where there is none; idle time
    does not enter.
    """
    errors = [getattr(known, "error", None) for _, _, known in _calibrated(circuit, device)]
    return float(
        math.prod(0.0 if error is None else 1.0 - min(1.0, scale * error) for error in errors)
    )


def count_two_qubit_gates(circuit: QuantumCircuit) -> int:
    """Return how many gates of the circuit act on two or more qubits."""
    return sum(
        len(instruction.qubits) > 1 and instruction.operation.name != "barrier"
        for instruction in circuit.data
    )


def _calibrated(
    circuit: QuantumCircuit, device: QiskitTarget
) -> Iterator[tuple[str, tuple[int, ...], Any]]:
    """Yield name, qubits and `InstructionProperties` of each gate and measurement."""
    # A description hands out a copy at each access: each operation's table is taken once.
    tables = {name: device[name] or {} for name in circuit.count_ops() if name not in _NO_ERROR}
    for instruction in circuit.data:
        name = instruction.operation.name
        if name not in _NO_ERROR:
            where = _where(circuit, instruction)
            yield name, where, tables[name].get(where)


def _where(circuit: QuantumCircuit, instruction: Any) -> tuple[int, ...]:
    return tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits)


def _positive(value: float | None) -> bool:
    return value is not None and value > 0  # infinite for a synthetic qubit that never relaxes


def _listed(qubits: tuple[int, ...]) -> str:
    return f"qubit{'s' if len(qubits) > 1 else ''} {', '.join(map(str, qubits))}"


def _uncalibrated(what: str) -> str:
    return (
        f"{what} in the device's calibration: a circuit can only be simulated on calibrated "
        "qubits; use another device, a newer snapshot or a smaller circuit"
    )
