"""Circuits with measurements on the simulated targets: exact where they are small, else by Aer."""

import functools
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qiskit.circuit import Barrier, ClassicalRegister, Delay, Measure, QuantumCircuit
from qiskit.transpiler import PassManager
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler.passes import Optimize1qGatesDecomposition, RemoveResetInZeroState

from qkd_qiskit.circuits.standard_gates import to_standard_gates
from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.coherent_noise import CoherentNoise
from qkd_qiskit.targets.exact_noise import MAX_QUBITS
from qkd_qiskit.targets.measured_program import (
    Basis,
    ExactProgram,
    MeasuredProgram,
    Part,
    ShotProgram,
    final_measurements,
    registers_of,
    require_registers,
    split_parts,
    without_measurements,
)
from qkd_qiskit.targets.pass_managers import preset_pass_manager
from qkd_qiskit.targets.sampling import make_simulator, sample_registers
from qkd_qiskit.targets.synthetic_backends import readout_errors, scaled_device

if TYPE_CHECKING:
    from qkd_qiskit.simulator import Channels
    from qkd_qiskit.targets.noisy import DeviceTarget

logger = logging.getLogger(__name__)
_warn_once = functools.cache(logger.warning)

IDEAL_QUBITS = 20
"""Joined qubits up to which an ideal circuit's probabilities are listed: 2**20 numbers a row."""
_FLOW = ("if_else", "for_loop", "while_loop", "switch_case")
_ACTS = ("measure", "reset", "delay")
# Parametrised gates on one qubit only: Aer binds these, and not those of controlled gates.
_GATES = (
    *("id", "x", "y", "z", "h", "s", "sdg", "t", "tdg", "sx", "sxdg"),
    *("rx", "ry", "rz", "p", "u", "cx", "cz", "swap"),
)


def ideal_program(circuit: QuantumCircuit, *, name: str) -> MeasuredProgram:
    """Return a measured circuit without noise.

    Args:
        circuit: logical or transpiled, with measurements.
        name: the target's.

    Raises:
        TargetError: Aer would have to sample it, and cannot.
    """
    registers, names = registers_of(circuit), _names(circuit)
    plain = preset_pass_manager(optimization_level=0, basis_gates=[*_GATES, *_ACTS, *_FLOW]).run(
        to_standard_gates(circuit, gates_only=False)
    )
    plain = _without_first_resets(plain)
    sources = final_measurements(plain)
    if sources is not None:
        parts = split_parts(plain, _listed(sources, registers), names=names)
        if all(len(part.qubits) <= IDEAL_QUBITS for part in parts):
            return ExactProgram(registers, [_ideal_part(part) for part in parts])
    require_registers(circuit, name=name, steered=True)
    say_sampled(circuit, name, early=sources is None, limit=IDEAL_QUBITS)
    used = noise.restrict_circuit(plain, noise.used_qubits(plain))
    simulator = make_simulator(used.num_qubits)
    return _shots(registers, names, circuit=used, simulator=simulator)


def device_program(
    target: "DeviceTarget", circuit: QuantumCircuit, basis: Basis | None = None
) -> MeasuredProgram:
    """Return a circuit under a device's noise: as it is where it is transpiled, else compiled.

    Args:
        target: the device.
        circuit: with measurements, or with `basis` without.
        basis: what the qubits of a circuit without measurements are measured in.

    Raises:
        TargetError: the circuit does not fit the device, or the target takes readout errors back.
    """
    if target.readout_mitigation is not None:
        raise TargetError(
            f"{target.name} takes readout errors back, which is done to probabilities and not to "
            "shots: for a primitive use the target without mitigation"
        )
    device = target.backend.target
    circuit = to_standard_gates(circuit, gates_only=False)
    transpiled = is_isa(circuit, device)
    given = circuit
    if basis is not None:
        given = in_basis(circuit, basis, device=device if transpiled else None)
    return noisy_program(
        given if transpiled else _compiled(target, given),
        device,
        scale=target.scale,
        coherent=target.coherent,
        name=target.name,
        registers=registers_of(given),
        names=_names(given),
        by_aer=target.simulator == "aer",
    )


def _compiled(target: "DeviceTarget", circuit: QuantumCircuit) -> QuantumCircuit:
    require_registers(circuit, name=target.name, steered=False)
    if circuit.layout is not None:
        logger.warning(
            "circuit %r was transpiled, but not for %s: it is compiled again",
            circuit.name,
            target.name,
        )
    sources = final_measurements(circuit)
    if sources is None:
        return _without_first_resets(target.transpile(circuit))
    bare = without_measurements(circuit)
    if sources == {qubit: qubit for qubit in range(circuit.num_qubits)}:
        return target.compile(bare).circuit  # shared with the evaluation of the same circuit
    for register in circuit.cregs:
        bare.add_register(register)
    for bit, qubit in sources.items():
        bare.measure(qubit, circuit.clbits[bit])
    return target.transpile(bare)


def noisy_program(
    isa: QuantumCircuit,
    device: QiskitTarget,
    *,
    scale: float,
    coherent: CoherentNoise | None = None,
    name: str,
    registers: Mapping[str, tuple[int, ...]],
    names: tuple[str, ...],
    by_aer: bool = False,
) -> MeasuredProgram:
    """Return a transpiled circuit under the noise of its physical qubits.

    Qubits that are measured and have no gates only misread; they need no simulation.

    Args:
        isa: circuit in the device's basis, coupling and qubit numbers, with measurements.
        device: the device as `backend.target` describes it.
        scale: what its noise is multiplied by.
        coherent: errors that are added to it.
        name: the target's.
        registers: classical bits of the circuit that was given.
        names: its parameters, the columns of `values`.
        by_aer: whether Aer draws the shots, however narrow the circuit is.

    Raises:
        TargetError: a used qubit or gate has no calibration, or the circuit has control flow.
    """
    require_registers(isa, name=name, steered=False)
    sources = final_measurements(isa)
    parts: list[Part] = []
    if sources is not None:
        sources = _listed(sources, registers)
        parts = split_parts(isa, sources, names=names)
    widest = max((len(part.qubits) for part in parts), default=0)
    if by_aer or sources is None or widest > MAX_QUBITS:
        noisy = _with_noise(isa, device, scale=scale, coherent=coherent)
        if not by_aer:
            say_sampled(isa, name, early=sources is None, limit=MAX_QUBITS)
        simulator = make_simulator(len(noisy.qubits), noise_model=noisy.noise_model)
        return _shots(registers, names, circuit=noisy.circuit, simulator=simulator)
    idle = [part for part in parts if not _has_gates(part.circuit)]
    known = _misread(idle, device, scale=scale)
    if len(idle) == len(parts):
        return ExactProgram(registers, known)
    resting = {part.qubits[0] for part in idle}
    noisy = _with_noise(_without_measuring(isa, resting), device, scale=scale, coherent=coherent)
    place = {qubit: index for index, qubit in enumerate(noisy.qubits)}
    read = {bit: place[qubit] for bit, qubit in sources.items() if qubit not in resting}
    channels = noisy.channels
    joined = split_parts(noisy.circuit, read, names=names)
    return ExactProgram(registers, known + [_noisy_part(part, channels) for part in joined])


def is_isa(circuit: QuantumCircuit, device: QiskitTarget) -> bool:
    """Return whether a circuit is as wide as a device and made of its gates where it has them."""
    return circuit.num_qubits == device.num_qubits and all(
        isinstance(instruction.operation, Barrier)
        or _supported(
            instruction.operation,
            tuple(circuit.find_bit(qubit).index for qubit in instruction.qubits),
            device,
        )
        for instruction in circuit.data
    )


def in_basis(
    circuit: QuantumCircuit, basis: Basis, *, device: QiskitTarget | None = None
) -> QuantumCircuit:
    """Return a circuit with qubit i measured into bit i of a register `meas`.

    Args:
        circuit: without measurements.
        basis: what qubits are measured in; those that are not listed in Z.
        device: whose gates the change of basis is written in, where the circuit is transpiled:
            then only the listed qubits are measured.

    Raises:
        TargetError: the circuit has measurements.
    """
    if any(instruction.operation.name == "measure" for instruction in circuit.data):
        raise TargetError(
            f"circuit {circuit.name!r} is measured; an estimator takes a circuit without "
            "measurements, the observables say what is measured"
        )
    change = QuantumCircuit(circuit.num_qubits)
    for qubit, letter in sorted(basis.items()):
        if letter == "Y":
            change.sdg(qubit)
        if letter in "XY":
            change.h(qubit)
    if device is not None:
        change = PassManager([Optimize1qGatesDecomposition(target=device)]).run(change)
    measured = QuantumCircuit(circuit.num_qubits, name=circuit.name)
    for item in (*circuit.data, *change.data):
        source = change if item.qubits[0] in change.qubits else circuit
        places = [source.find_bit(qubit).index for qubit in item.qubits]
        measured.append(item.operation, places, copy=False)
    register = ClassicalRegister(circuit.num_qubits, "meas")
    measured.add_register(register)
    for qubit in range(circuit.num_qubits) if device is None else sorted(basis):
        measured.measure(qubit, register[qubit])
    return measured


def _ideal_part(part: Part) -> Part:
    from qkd_qiskit.simulator import Program, probabilities

    if not _has_gates(part.circuit):
        return replace(part, known=np.eye(1, 2))
    size = 16 * 2 ** len(part.qubits)
    return replace(part, compile=Program.from_circuit, evaluate=probabilities, row_bytes=size)


def _noisy_part(part: Part, channels: "Channels") -> Part:
    from qkd_qiskit.simulator import Channels, DensityProgram, noisy_probabilities

    place = {qubit: index for index, qubit in enumerate(part.qubits)}
    own = Channels(
        gates={
            (name, tuple(place[qubit] for qubit in where)): channel
            for (name, where), channel in channels.gates.items()
            if place.keys() >= set(where)
        },
        readout={place[q]: matrix for q, matrix in channels.readout.items() if q in place},
        relaxation={place[q]: times for q, times in channels.relaxation.items() if q in place},
        dt=channels.dt,
    )

    def compile(circuit: QuantumCircuit, **parameters: Any) -> DensityProgram:
        return DensityProgram.from_circuit(circuit, own, **parameters)

    size = 8 * 4 ** len(part.qubits) * (2 * part.circuit.num_nonlocal_gates() + 2)
    return replace(part, compile=compile, evaluate=noisy_probabilities, row_bytes=size)


def _misread(parts: list[Part], device: QiskitTarget, *, scale: float) -> list[Part]:
    """Return qubits that stay in 0, read with their errors."""
    qubits = [part.qubits[0] for part in parts]
    described = noise.restrict_device(device, qubits)
    if scale not in (0, 1):
        described = scaled_device(described, scale)
    table = described["measure"] if qubits else {}
    made = []
    for index, part in enumerate(parts):
        properties = table.get((index,))
        if getattr(properties, "error", None) is None:
            raise TargetError(
                f"qubit {qubits[index]} is measured and its readout has no calibration; measure "
                "only the qubits that the circuit uses"
            )
        flip = readout_errors(properties)[0] if scale else 0.0
        made.append(replace(part, known=np.array([[1 - flip, flip]])))
    return made


def _with_noise(
    circuit: QuantumCircuit, device: QiskitTarget, *, scale: float, coherent: CoherentNoise | None
) -> noise.NoisyCircuit:
    problem = noise.find_uncalibrated(circuit, device)
    if problem is not None:
        raise TargetError(problem)
    calibrated = noise.calibrated_part(device)
    return noise.with_noise(circuit, calibrated, scale=scale, coherent=coherent)


def _shots(
    registers: Mapping[str, tuple[int, ...]],
    names: tuple[str, ...],
    *,
    circuit: QuantumCircuit,
    simulator: Any,
) -> ShotProgram:
    run = functools.partial(sample_registers, circuit, parameters=names, simulator=simulator)
    return ShotProgram(registers, run)


def say_sampled(circuit: QuantumCircuit, name: str, *, early: bool, limit: int) -> None:
    """Say, once, that Aer samples a circuit, and why.

    Args:
        circuit: what is sampled.
        name: the target's.
        early: whether it is measured before its end.
        limit: qubits up to which its probabilities would be exact.
    """
    why = "is measured before its end" if early else f"is on more than {limit} qubits"
    _warn_once("circuit %r %s: Aer samples it for %s", circuit.name, why, name)


def _listed(sources: Mapping[int, int], registers: Mapping[str, tuple[int, ...]]) -> dict[int, int]:
    """Return the sources of bits that are in a register; only these are returned to a user."""
    kept = {bit for register in registers.values() for bit in register}
    return {bit: qubit for bit, qubit in sources.items() if bit in kept}


def _without_measuring(circuit: QuantumCircuit, qubits: set[int]) -> QuantumCircuit:
    kept = circuit.copy_empty_like()
    for item in circuit.data:
        lost = (
            isinstance(item.operation, Measure) and circuit.find_bit(item.qubits[0]).index in qubits
        )
        if not lost:
            kept.append(item, copy=False)
    return kept


def _without_first_resets(circuit: QuantumCircuit) -> QuantumCircuit:
    # `initialize` begins with them, on qubits that are in 0 already.
    return PassManager([RemoveResetInZeroState()]).run(circuit)


def _has_gates(circuit: QuantumCircuit) -> bool:
    return any(not isinstance(item.operation, Measure | Barrier | Delay) for item in circuit.data)


def _names(circuit: QuantumCircuit) -> tuple[str, ...]:
    return tuple(parameter.name for parameter in circuit.parameters)


def _supported(operation: Any, qubits: tuple[int, ...], device: QiskitTarget) -> bool:
    if operation.name not in device.operation_names:
        return False
    known = device.operation_from_name(operation.name)
    if isinstance(known, type):  # control flow
        return isinstance(operation, known)
    # A gate of one's own may have the name of a device's.
    same = getattr(operation, "base_class", None) is getattr(known, "base_class", None)
    return same and bool(device.instruction_supported(operation.name, qubits))
