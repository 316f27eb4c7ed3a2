"""Exact probabilities of a compiled circuit, with the noise of the device that it runs on.

The circuit that Aer would sample (scheduled, on its used qubits, with its noise model) is evolved
as a density matrix by the simulator instead: no shots, float64, differentiable.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from qiskit.circuit import Parameter

from qkd_qiskit.errors import TargetError
from qkd_qiskit.simulator import DensityProgram, noisy_probabilities
from qkd_qiskit.targets import noise
from qkd_qiskit.targets.compiled_circuit import CompiledCircuit

MAX_QUBITS = 8
"""Used qubits up to which exact noisy probabilities are given: 4**8 numbers per state."""
_CHUNK_BYTES = 2**25  # larger batches fall out of the cache


def exact_rows(
    compiled: CompiledCircuit,
    noisy: noise.NoisyCircuit,
    values: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Return probabilities (batch, 2**num_qubits) under the noise, little-endian.

    Args:
        compiled: The circuit whose parameters are the columns of `values`.
        noisy: Its scheduled form with the noise model.
        values: (batch, len(compiled.parameters)) in radians.

    Raises:
        TargetError: The circuit uses more qubits than `MAX_QUBITS`.
    """
    inputs, weights = split_parameters(compiled)
    column = {name: number for number, name in enumerate(compiled.parameters)}
    shared = values[:, [column[name] for name in weights]]
    if len(weights) and (shared != shared[0]).any():
        inputs, weights = compiled.parameters, ()
    program = density_program(compiled, noisy, inputs=inputs, weights=weights)
    per_sample = torch.from_numpy(values[:, [column[name] for name in inputs]])
    of_all = torch.from_numpy(shared[0].copy()) if weights else per_sample.new_zeros(0)
    row_bytes = 8 * 4**program.num_qubits * (2 * len(program.blocks) + 2)
    with torch.no_grad():
        parts = [
            noisy_probabilities(program, part, of_all)
            for part in torch.split(per_sample, max(1, _CHUNK_BYTES // row_bytes))
        ]
    rows: NDArray[np.float64] = torch.cat(parts).numpy()
    return rows


def density_program(
    compiled: CompiledCircuit,
    noisy: noise.NoisyCircuit,
    *,
    inputs: Sequence[str],
    weights: Sequence[str],
) -> DensityProgram:
    """Return the program of a noisy circuit, made once per choice of inputs and weights.

    Args:
        compiled: The circuit.
        noisy: Its scheduled form with the noise model.
        inputs: Names of the parameters bound per sample, in the order of the program's inputs.
        weights: Names of the parameters that a batch shares.

    Raises:
        TargetError: The circuit uses more qubits than `MAX_QUBITS`.
    """
    if len(noisy.qubits) > MAX_QUBITS:
        raise TargetError(
            f"the circuit uses {len(noisy.qubits)} qubits of {compiled.target}: exact noisy "
            f"probabilities are given up to {MAX_QUBITS}; use shots"
        )
    key = (tuple(inputs), tuple(weights))
    if key not in noisy.programs:
        # A parameter that the transpiler dropped keeps its place: a new one of its name.
        known = {parameter.name: parameter for parameter in noisy.circuit.parameters}
        noisy.programs[key] = DensityProgram.from_circuit(
            noisy.circuit,
            noisy.channels,
            input_params=[known.get(name) or Parameter(name) for name in inputs],
            weight_params=[known.get(name) or Parameter(name) for name in weights],
        )
    program: DensityProgram = noisy.programs[key]
    return program


def split_parameters(
    compiled: CompiledCircuit, inputs: Sequence[str] | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the names of a circuit's inputs and weights.

    Args:
        compiled: The circuit.
        inputs: Names of the inputs; default: those that begin with ``x_``.

    Raises:
        TargetError: An input is no parameter of the circuit.
    """
    names = compiled.parameters
    if inputs is None:
        inputs = [name for name in names if name.startswith("x_")]
    unknown = [name for name in inputs if name not in names]
    if unknown or len(set(inputs)) < len(inputs):
        what = f"{unknown[0]!r} is no parameter" if unknown else "an input is named twice"
        raise TargetError(f"inputs: {what}; the circuit has {', '.join(names) or 'none'}")
    return tuple(inputs), tuple(name for name in names if name not in set(inputs))
