"""Run a program by the fastest way there is for its tensors."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from qkd_qiskit.simulator.angles import extend
from qkd_qiskit.simulator.program import Program
from qkd_qiskit.simulator.readout import Readout, outcome_sums
from qkd_qiskit.simulator.statevector import RequireFinite, evolve, measure
from qkd_qiskit.simulator.torch_device import on_host

logger = logging.getLogger(__name__)


def probabilities(program: Program, inputs: Tensor | None, weights: Tensor | None) -> Tensor:
    """Return outcome probabilities ``(batch, 2**bits)``, little-endian in the measured bits.

    Args:
        program: The compiled circuit.
        inputs: ``(batch, num_inputs)``; None where there are none (the batch is then 1).
        weights: ``(num_weights,)``; None where there are none. Its dtype is the computation's.
    """
    like = weights if weights is not None else inputs
    dtype = torch.float32 if like is None else like.dtype
    if inputs is None:
        inputs = torch.zeros(1, 0, dtype=dtype, device=None if like is None else like.device)
    if weights is None:
        weights = inputs.new_zeros(0)
    readout = program.tables.get("outcomes", lambda: outcome_sums(program))
    return evaluate(program, readout, inputs.to(dtype), weights)


def evaluate(
    program: Program,
    readout: Readout,
    inputs: Tensor,
    weights: Tensor,
    *,
    initial: Tensor | None = None,
    kernel: bool = True,
) -> Tensor:
    """Return output values ``(batch, readout.size)``.

    Args:
        program: The compiled circuit.
        readout: What is read out of the final state.
        inputs: ``(batch, num_inputs)``.
        weights: ``(num_weights,)``; the result has its dtype and device.
        initial: States to start from ``(batch, 2**num_qubits)``; default: all qubits in 0.
        kernel: Use the compiled CPU kernel where it can run; otherwise the torch path.

    Raises:
        InputError: If an input is not a finite number. On another device than the CPU its row is
            NaN, since a look at it would wait for the device.
    """
    if torch.compiler.is_dynamo_compiling():  # torch.compile calls the kernel, it cannot trace it
        disable: Any = torch.compiler.disable
        run: Callable[..., Tensor] = disable(evaluate)
        return run(program, readout, inputs, weights, initial=initial, kernel=kernel)
    device = weights.device.type
    if autocast_runs(device):  # angles need their precision
        with torch.autocast(device, enabled=False):
            return evaluate(program, readout, inputs, weights, initial=initial, kernel=kernel)
    suits = device == "cpu" and weights.dtype in (torch.float32, torch.float64)
    if kernel and suits and readout.diagonal and not forward_mode() and kernel_works():
        from qkd_qiskit.simulator.kernel.angles import KernelAngles
        from qkd_qiskit.simulator.kernel.autograd import run as run_kernel

        # With the read-out, which is a connector's own: programs are shared.
        prepared = readout.tables.get(
            ("prepared", id(program)), lambda: KernelAngles(program, readout)
        )
        return run_kernel(prepared, *extend(program.features, inputs, weights), initial)
    if program.num_inputs and initial is None and on_host(inputs):
        inputs = RequireFinite.apply(inputs)
    if initial is not None and on_host(initial):
        initial = RequireFinite.apply(initial)
    extended = extend(program.features, inputs, weights)
    return measure(evolve(program, *extended, initial=initial), readout)


def autocast_runs(device: str) -> bool:
    """Return whether torch chooses precisions on this kind of device, where it can."""
    available: bool = torch.amp.is_autocast_available(device)
    return available and torch.is_autocast_enabled(device)


def forward_mode() -> bool:
    """Return whether derivatives are taken forward (jvp, jacfwd, hessian), which torch does."""
    if getattr(torch.autograd.forward_ad, "_current_level", -1) >= 0:
        return True
    active = getattr(torch._C, "_are_functorch_transforms_active", None)
    if active is None or not active():
        return False
    functorch = torch._C._functorch
    stack = functorch.get_interpreter_stack() or []
    return any(level.key() == functorch.TransformType.Jvp for level in stack)


@functools.cache
def kernel_works() -> bool:
    """Return whether the compiled kernel can be used; the torch path serves where it cannot."""
    try:
        import numba

        if numba.config.DISABLE_JIT:
            raise RuntimeError("NUMBA_DISABLE_JIT is set")
        from qkd_qiskit.simulator.kernel import call  # noqa: F401
    except Exception as error:  # a broken llvmlite or an unusable cache raise many kinds
        logger.warning("the compiled kernel is not available, torch is used: %s", error)
        return False
    return True
