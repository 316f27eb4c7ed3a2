"""Run a program with noise: exact, differentiable evolution of a density matrix.

On the CPU the compiled kernel of kernel.py runs; elsewhere, and for second derivatives, the
same in torch, from reference.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from qkd_qiskit.simulator.angles import extend
from qkd_qiskit.simulator.density.program import DensityProgram
from qkd_qiskit.simulator.density.reference import torch_values
from qkd_qiskit.simulator.memory import require_memory
from qkd_qiskit.simulator.run import autocast_runs, forward_mode, kernel_works
from qkd_qiskit.simulator.statevector import RequireFinite
from qkd_qiskit.simulator.torch_device import on_host

if TYPE_CHECKING:
    from qkd_qiskit.simulator.density.plan import NoisyAngleMap

_MAX_READOUT = 2**24  # numbers in the outputs' Pauli vectors, which the kernel keeps
_MAX_PREPARED = 8  # outputs whose tables are kept per program


def noisy_probabilities(
    program: DensityProgram, inputs: Tensor | None, weights: Tensor | None
) -> Tensor:
    """Return outcome probabilities ``(batch, 2**bits)``, little-endian in the measured bits.

    Args:
        program: The compiled circuit with noise.
        inputs: ``(batch, num_inputs)``; None where there are none (the batch is then 1).
        weights: ``(num_weights,)``; None where there are none. Its dtype is the computation's.

    Raises:
        InputError: If an input is not a finite number.
    """
    like = weights if weights is not None else inputs
    if like is None:
        like = torch.zeros(0)
    inputs = like.new_zeros(1, 0) if inputs is None else inputs.to(like.dtype)
    weights = like.new_zeros(0) if weights is None else weights
    return noisy_values(program, inputs, weights)


def noisy_values(
    program: DensityProgram,
    inputs: Tensor,
    weights: Tensor,
    *,
    outputs: Tensor | None = None,
    kernel: bool = True,
) -> Tensor:
    """Return output values ``(batch, size)``: outcome probabilities times a matrix.

    Args:
        program: The compiled circuit with noise.
        inputs: ``(batch, num_inputs)``.
        weights: ``(num_weights,)``.
        outputs: Weight of each outcome in each output ``(outcomes, size)``; default: identity.
        kernel: Use the compiled CPU kernel where it can run; otherwise all runs in torch.

    Raises:
        InputError: If an input is not a finite number; see `evaluate`.
    """
    if torch.compiler.is_dynamo_compiling():  # torch.compile calls the kernel, it cannot trace it
        disable: Any = torch.compiler.disable
        run: Callable[..., Tensor] = disable(noisy_values)
        return run(program, inputs, weights, outputs=outputs, kernel=kernel)
    if autocast_runs(weights.device.type):  # angles need their precision
        with torch.autocast(weights.device.type, enabled=False):
            return noisy_values(program, inputs, weights, outputs=outputs, kernel=kernel)
    if kernel and not forward_mode() and _kernel_suits(program, inputs, weights, outputs=outputs):
        from qkd_qiskit.simulator.kernel.autograd import run as run_kernel

        return run_kernel(_prepared(program, outputs), *extend(program.features, inputs, weights))
    require_memory(
        program.num_qubits,
        copies=inputs.shape[0] * (2 * len(program.blocks) + 2),
        bytes_each=weights.element_size(),
        what=f"a batch of {inputs.shape[0]} noisy states",
        base=4,
        device=weights.device,
    )
    if program.num_inputs and on_host(inputs):
        inputs = RequireFinite.apply(inputs)
    extended = extend(program.features, inputs, weights)
    return torch_values(program, *extended, outputs=outputs)


def _kernel_suits(
    program: DensityProgram, inputs: Tensor, weights: Tensor, *, outputs: Tensor | None
) -> bool:
    """Return whether the compiled kernel can take these tensors."""
    on_cpu = inputs.device.type == weights.device.type == "cpu"
    if not on_cpu or inputs.dtype != weights.dtype:
        return False
    if weights.dtype not in (torch.float32, torch.float64):
        return False
    if outputs is not None and not _constant(outputs):
        return False
    size = program.num_outcomes if outputs is None else outputs.shape[1]
    fits = program.num_qubits > 0 and size << 2 * program.num_qubits <= _MAX_READOUT
    return fits and kernel_works()


def _constant(outputs: Tensor) -> bool:
    """Return whether outputs are plain numbers on the CPU, which nothing is derived by."""
    functorch = getattr(torch._C, "_functorch", None)
    wrapped = functorch is None or functorch.is_functorch_wrapped_tensor(outputs)
    return not wrapped and not outputs.requires_grad and outputs.device.type == "cpu"


def _prepared(program: DensityProgram, outputs: Tensor | None) -> NoisyAngleMap:
    """Return what the kernel needs, made once per outputs."""
    from qkd_qiskit.simulator.density.plan import NoisyAngleMap

    kept: dict[Any, NoisyAngleMap] = program.tables.get("prepared", dict)
    given = None if outputs is None else outputs.numpy()
    key = None if given is None else (given.shape, given.dtype.str, given.tobytes())
    found = kept.get(key)
    if found is None:
        if len(kept) >= _MAX_PREPARED:
            kept.clear()
        readout = program.readout_matrix()
        if given is not None:
            readout = given.T.astype(np.float64) @ readout
        reference = functools.partial(torch_values, program, outputs=outputs)
        found = kept[key] = NoisyAngleMap(program, readout, reference)
    return found
