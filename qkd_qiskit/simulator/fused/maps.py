"""What a fused step needs of a circuit's angles, as sparse maps; and which circuits it refuses."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.angles import Feature
from qkd_qiskit.simulator.connector import CompiledConnector
from qkd_qiskit.simulator.fused.samples import Array
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.readout import Readout
from qkd_qiskit.simulator.run import kernel_works


def compiled_parts(
    connector: CompiledConnector, *, products: bool = False
) -> tuple[Program, Readout]:
    """Return what runs; refuse what cannot be fused.

    Args:
        connector: Whose circuit it is.
        products: Whether angles may hold products of an input and a weight.
    """
    program, readout = connector._program, connector._readout
    reason = None
    if program is None or readout is None:
        reason = "its network is not compiled, or is run with noise"
    elif not readout.diagonal:
        reason = "an observable holds X or Y"
    elif any(_is_trained(part) and not (products and part.product) for part in program.features):
        reason = "a gate angle is not affine in the weights"
    elif not kernel_works():
        reason = "the compiled kernel is not available"
    if reason is not None or program is None or readout is None:
        raise CircuitError(
            f"this connector cannot be trained in fused steps: {reason}; train it with "
            "torch.optim.AdamW instead"
        )
    return program, readout


def sparse_rows(matrix: Tensor | None, rows: int) -> tuple[Array, Array, Array]:
    """Return a matrix by its rows: first terms, columns and coefficients; None has no terms."""
    dense = np.zeros((rows, 0)) if matrix is None else matrix.numpy()
    places, columns = np.nonzero(dense)
    starts = np.searchsorted(places, np.arange(rows + 1))
    return starts.astype(np.int64), columns.astype(np.int64), dense[places, columns].copy()


def product_rows(program: Program) -> tuple[Array, Array, Array, Array]:
    """Return the products of inputs and weights in the per-sample angles, angle by angle.

    Returns:
        First products of each angle, inputs, weights and coefficients.
    """
    starts, inputs, weights, factors = [0], [], [], []
    for angle in program.angles[program.shared :]:
        for (kind, number), factor in angle.terms:
            pair = program.features[number].product if kind == "feature" else None
            if pair is not None:
                inputs.append(pair[0])
                weights.append(pair[1])
                factors.append(factor)
        starts.append(len(inputs))
    whole = (np.array(part, dtype=np.int64) for part in (starts, inputs, weights))
    first, columns, places = whole
    return first, columns, places, np.array(factors, dtype=np.float64)


def _is_trained(feature: Feature) -> bool:
    return any(kind == "weight" for kind, _ in feature.sources.values())
