"""Probabilities from Aer: a batch of parameter values goes through a V2 sampler as one PUB."""

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray
from qiskit.circuit import QuantumCircuit
from qiskit.primitives import BitArray

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
        circuit: measured circuit with a single classical register.
        values: (batch, len(parameters)) in radians.
        parameters: name of each column of `values`; a name that the circuit no longer has, as
            when the transpiler drops a rotation before a measurement, is passed over.
        simulator: an `AerSimulator`, with the noise model that belongs to the circuit.
        shots: shots per row.
        seed: seed of the whole batch; each row has its own stream.
    """
    bits = sample_registers(
        circuit, values, parameters=parameters, simulator=simulator, shots=shots, seed=seed
    )[circuit.cregs[0].name]
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
    from qiskit_aer.primitives import SamplerV2

    batch = len(values)
    live = [parameter.name for parameter in circuit.parameters]
    sampler = SamplerV2.from_backend(simulator, seed=seed)
    pub: tuple[Any, ...]
    if live:
        columns = [parameters.index(name) for name in live]
        pub = (circuit, {tuple(live): values[:, columns]}, shots)
    else:
        # Without parameters Aer runs a PUB of any shape once: all rows' shots are drawn together.
        pub = (circuit, None, shots * batch)
    data = sampler.run([pub]).result()[0].data
    return {
        name: BitArray(bits.array.reshape(batch, shots, -1), bits.num_bits)
        for name, bits in data.items()
    }


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
