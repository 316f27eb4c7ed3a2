"""Circuits into a device's gates: several transpiler seeds, the cheapest result."""

import logging
from collections.abc import Sequence

from qiskit.circuit import Parameter, QuantumCircuit
from qiskit.transpiler import Target as QiskitTarget
from qiskit.transpiler.exceptions import TranspilerError

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.noise import count_two_qubit_gates, estimate_fidelity
from qkd_qiskit.targets.pass_managers import preset_pass_manager

logger = logging.getLogger(__name__)


def best_transpilation(
    measured: QuantumCircuit,
    device: QiskitTarget,
    *,
    seeds: Sequence[int],
    name: str,
    optimization_level: int = 3,
    layout: Sequence[int] | None = None,
) -> QuantumCircuit:
    """Return the transpiled circuit with fewest two-qubit gates, then depth, then errors.

    Args:
        measured: Circuit with its measurements.
        device: The calibrated part of the device.
        seeds: Transpiler seeds to try.
        name: The device's name, for messages.
        optimization_level: Of the transpiler.
        layout: Physical qubits of the circuit's; default: what the transpiler finds.

    Raises:
        TargetError: The circuit does not fit the device.
    """
    candidates = transpile_with_seeds(
        measured,
        device,
        seeds=seeds,
        name=name,
        optimization_level=optimization_level,
        layout=layout,
    )
    best = min(
        candidates,
        key=lambda isa: (
            count_two_qubit_gates(isa),
            isa.depth(),
            -estimate_fidelity(isa, device),
        ),
    )
    logger.debug(
        "%s: best of %d transpilations has %d two-qubit gates, depth %d",
        name,
        len(candidates),
        count_two_qubit_gates(best),
        best.depth(),
    )
    return best


def transpile_with_seeds(
    measured: QuantumCircuit,
    device: QiskitTarget,
    *,
    seeds: Sequence[int],
    name: str,
    optimization_level: int = 3,
    layout: Sequence[int] | None = None,
) -> list[QuantumCircuit]:
    """Return one transpiled circuit for each seed; as `best_transpilation`."""
    try:
        return [
            preset_pass_manager(
                optimization_level=optimization_level,
                target=device,
                seed_transpiler=seed,
                initial_layout=None if layout is None else list(layout),
            ).run(measured)
            for seed in seeds
        ]
    except TranspilerError as error:
        step = max(device.acquire_alignment, device.pulse_alignment, device.granularity)
        if step > 1 and measured.get_instructions("delay"):
            raise TargetError(
                f"circuit {measured.name!r} has delays that {name} cannot time; make them "
                f"multiples of {step} dt, or leave them out"
            ) from error
        raise TargetError(
            f"circuit {measured.name!r} cannot be transpiled to the calibrated part of {name}: "
            f"{' '.join(str(error.message).split())}"
        ) from error


def initial_layout(isa: QuantumCircuit, num_qubits: int) -> tuple[int, ...]:
    """Return the physical qubit that each logical qubit starts on."""
    layout = isa.layout
    if layout is None:
        return tuple(range(num_qubits))
    return tuple(layout.initial_index_layout(filter_ancillas=True))


def measured_qubits(isa: QuantumCircuit) -> tuple[int, ...]:
    """Return the qubit that each classical bit is measured from."""
    where = {
        isa.find_bit(instruction.clbits[0]).index: isa.find_bit(instruction.qubits[0]).index
        for instruction in isa.data
        if instruction.operation.name == "measure"
    }
    return tuple(where[bit] for bit in range(len(where)))


def calibration_circuit(qubits: Sequence[int], device: QiskitTarget) -> QuantumCircuit:
    """Return a circuit that measures `qubits` into bits 0, 1, ...: in 0 or, after a turn, in 1.

    Its one parameter, `angle`, is 0 or pi radians.
    """
    angle = Parameter("angle")
    circuit = QuantumCircuit(len(qubits), len(qubits))
    circuit.rx(angle, range(len(qubits)))
    circuit.measure(range(len(qubits)), range(len(qubits)))
    return preset_pass_manager(
        optimization_level=1, target=device, initial_layout=list(qubits), seed_transpiler=0
    ).run(circuit)
