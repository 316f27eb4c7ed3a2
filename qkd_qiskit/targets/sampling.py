"""Probabilities from Aer: a batch of parameter values goes through a V2 sampler as one PUB."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray

from qkd_qiskit.errors import TargetError
from qkd_qiskit.targets.aer_gates import binds_wrongly

_SHOT_BYTES = 256  # measured: Aer hands out each shot as a text of its own
_OUTCOME_BYTES = 24  # one count and two frequencies
_SMALL_BYTES = 2**28  # not worth asking the system about
# Up to here a density matrix is cheaper than 4,096 noisy trajectories.
_DENSITY_QUBITS = 10
_MAX_THREADS = 8


def make_simulator(num_qubits: int, *, noise_model: Any = None) -> Any:
    """Return an `AerSimulator` for circuits of `num_qubits` qubits.

    Rows of a batch run on the available cores, each on one: Aer splits a small circuit over
    threads at ten times its cost. Counts do not depend on the number of cores.
    """
    from qiskit_aer import AerSimulator

    if noise_model is None:
        method = "statevector"
    else:
        method = "density_matrix" if num_qubits <= _DENSITY_QUBITS else "automatic"
    threads = min(_available_cores(), _MAX_THREADS)
    return AerSimulator(
        method=method,
        noise_model=noise_model,
        max_parallel_threads=threads,
        max_parallel_experiments=threads,
    )


def sample_probabilities(
    circuit: QuantumCircuit,
    values: NDArray[np.float64],
    *,
    parameters: tuple[str, ...],
    simulator: Any,
    shots: int,
    seed: int,
) -> NDArray[np.float64]:
    """Return measured frequencies (batch, 2**bits) of one register, bit 0 the least significant.

    Args:
        circuit: Measured circuit with a single classical register.
        values: (batch, len(parameters)) in radians.
        parameters: Name of each column of `values`; a name that the circuit no longer has, as
            when the transpiler drops a rotation before a measurement, is passed over.
        simulator: An `AerSimulator`, with the noise model that belongs to the circuit.
        shots: Shots per row.
        seed: Seed of the whole batch; each row has its own stream.
    """
    register = circuit.cregs[0]
    _require_memory(len(values), shots=shots, bits=register.size)
    bits = sample_registers(
        circuit, values, parameters=parameters, simulator=simulator, shots=shots, seed=seed
    )[register.name]
    frequencies: NDArray[np.float64] = count_outcomes(bits) / shots
    return frequencies


def sample_registers(
    circuit: QuantumCircuit,
    values: NDArray[np.float64],
    *,
    parameters: tuple[str, ...],
    simulator: Any,
    shots: int,
    seed: int,
) -> dict[str, BitArray]:
    """Return the measured bits of each register, of shape (batch,); as `sample_probabilities`."""
    from qiskit_aer import AerError
    from qiskit_aer.primitives import SamplerV2

    batch = len(values)
    _require_memory(batch, shots=shots)
    sampler = SamplerV2.from_backend(simulator, seed=seed)
    pubs = _pubs(circuit, values, parameters=parameters, shots=shots)
    try:
        results = [result.data for result in sampler.run(pubs).result()]
    except (AerError, ArithmeticError, TypeError) as error:  # the last: of an angle's value
        raise TargetError(
            f"circuit {circuit.name!r} cannot be simulated: {' '.join(str(error).split())}"
        ) from error
    return {
        register.name: BitArray(
            np.concatenate([data[register.name].array for data in results]).reshape(
                batch, shots, -1
            ),
            register.size,
        )
        for register in circuit.cregs
    }


def _pubs(
    circuit: QuantumCircuit,
    values: NDArray[np.float64],
    *,
    parameters: tuple[str, ...],
    shots: int,
) -> list[tuple[Any, ...]]:
    live = [parameter.name for parameter in circuit.parameters]
    if not live:
        # Without parameters Aer runs a PUB of any shape once: all rows' shots are drawn together.
        return [(circuit, None, shots * len(values))]
    columns = values[:, [parameters.index(name) for name in live]]
    if binds_wrongly(circuit):
        bound = (circuit.assign_parameters(dict(zip(live, row, strict=True))) for row in columns)
        return [(row, None, shots) for row in bound]
    return [(circuit, {tuple(live): columns}, shots)]


def _require_memory(rows: int, *, shots: int, bits: int = 0) -> None:
    """Check that shots and outcome probabilities fit into memory.

    Raises:
        TargetError: They do not.
    """
    needed = rows * (shots * _SHOT_BYTES + (2**bits * _OUTCOME_BYTES if bits else 0))
    if needed <= _SMALL_BYTES:
        return
    from qkd_qiskit.simulator.memory import available_bytes

    free = available_bytes()
    if free is not None and needed > free:
        gib = min(needed, 2**90) / 2**30  # what is beyond would not fit a float
        raise TargetError(
            f"{rows} rows of {shots} shots on {bits} bits need about {gib:,.1f} GiB and "
            f"{free / 2**30:,.1f} GiB are free; use fewer shots, rows or qubits, or exact "
            "probabilities"
        )


def count_outcomes(bits: BitArray) -> NDArray[np.int64]:
    """Return how often each outcome came (batch, 2**bits), bit 0 the least significant."""
    # A BitArray packs each shot into bytes, the most significant byte first.
    packed = bits.array.reshape(-1, bits.num_shots, bits.array.shape[-1])
    weights = 256 ** np.arange(packed.shape[-1] - 1, -1, -1)
    outcomes = packed.astype(np.int64) @ weights
    rows = np.arange(len(packed))[:, None] << bits.num_bits
    counts = np.bincount((outcomes + rows).ravel(), minlength=len(packed) << bits.num_bits)
    return counts.reshape(len(packed), -1).astype(np.int64)


def _available_cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every platform
        return os.cpu_count() or 1
