"""Run a program in torch: the reference, and the way on a GPU and for second derivatives.

Everything here is ordinary differentiable torch code on ``(batch, 2**num_qubits)`` tensors, so it
works under ``torch.func.vmap``, in either float precision, on any device, and twice differentiated.
The state stays real until the first phase. On the CPU it goes qubit by qubit, elsewhere by whole
layers (whole_layers.py).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qkd_qiskit.errors import InputError
from qkd_qiskit.simulator.memory import require_memory
from qkd_qiskit.simulator.program import Permutation, Phases, Program, Rotations
from qkd_qiskit.simulator.readout import Readout
from qkd_qiskit.simulator.tables import parity
from qkd_qiskit.simulator.torch_device import on_host
from qkd_qiskit.simulator.whole_layers import evolve_layers, sum_outcomes


def evolve(
    program: Program, inputs: Tensor, weights: Tensor, *, initial: Tensor | None = None
) -> Tensor:
    """Return the state at the end ``(batch, 2**num_qubits)``, up to a global phase.

    It is real where no phase acts.

    Args:
        program: The compiled circuit.
        inputs: ``(batch, num_inputs)``, with the features that depend on inputs (`extend`).
        weights: ``(num_weights,)``, with the features that depend on weights.
        initial: States to start from ``(batch, 2**num_qubits)``; default: all qubits in 0.
    """
    require_memory(
        program.num_qubits,
        copies=inputs.shape[0] * (len(program.operations) + 2),
        bytes_each=2 * weights.element_size(),
        what=f"a batch of {inputs.shape[0]} states",
        device=weights.device,
    )
    shared, per_sample = angle_values(program, inputs, weights)
    state = _ground_state(program, per_sample) if initial is None else initial
    if not on_host(weights):
        return evolve_layers(program, state, shared, per_sample).expand(inputs.shape[0], -1)
    tables = _tables(program, weights)
    half_shared, half_sample = shared / 2, per_sample / 2
    cosine, sine = torch.cos(half_shared), torch.sin(half_shared)
    cosines, sines = torch.cos(half_sample), torch.sin(half_sample)
    for operation, table in zip(program.operations, tables, strict=True):
        if isinstance(operation, Rotations):
            for qubit, angle in operation.angles:
                if angle < program.shared:
                    state = _rotate(state, cosine[angle], sine[angle], qubit=qubit)
                else:
                    column = slice(angle - program.shared, angle - program.shared + 1)
                    pair = (cosines[:, column, None], sines[:, column, None])
                    state = _rotate(state, *pair, qubit=qubit)
        elif isinstance(operation, Phases):
            state = state * _phase_factors(operation, table, half_shared, half_sample)
        else:
            state = state[:, table["source"]]
    return state.expand(inputs.shape[0], -1)


def measure(state: Tensor, readout: Readout) -> Tensor:
    """Return output values ``(batch, size)`` of states ``(batch, 2**num_qubits)``."""
    if readout.index is not None:
        if not on_host(state):
            return sum_outcomes(readout, _squared(state))
        index = torch.as_tensor(readout.index, device=state.device)
        return _sum_by(_squared(state), index, readout.size)
    real = state.real if state.is_complex() else state
    total = real.new_zeros(readout.size)
    tables = readout.tables.get(
        ("groups", state.dtype, state.device), lambda: _group_tables(readout, state)
    )
    for group, (table, flipped_states) in zip(readout.groups, tables, strict=True):
        if group.flip == 0:
            total = total + _squared(state) @ table
        else:
            flipped = state.index_select(1, flipped_states)
            if state.is_complex():
                total = total + ((flipped.conj() * state) @ table).real
            else:
                total = total + (flipped * state) @ table
    return total.expand(state.shape[0], -1)


def _group_tables(readout: Readout, like: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return per group its factors in the dtype that they are used in, and the flipped states."""
    states = torch.arange(like.shape[-1])
    found = []
    for group in readout.groups:
        real = group.flip == 0 or not like.is_complex()
        table = torch.as_tensor(group.table.real if real else group.table)
        kind = like.dtype.to_real() if real else like.dtype
        found.append((table.to(like.device, kind), (states ^ group.flip).to(like.device)))
    return found


def angle_values(program: Program, inputs: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return shared angles ``(angles,)`` and per-sample angles ``(batch, angles)`` in radians."""
    maps = program.tables.get(
        ("angles", weights.dtype, weights.device),
        lambda: (program.shared_angles.to(weights), program.sample_angles.to(weights)),
    )
    per_sample = maps[1](inputs, weights)
    return maps[0](inputs, weights), per_sample.expand(inputs.shape[0], -1)


class RequireFinite(torch.autograd.Function):
    """The identity on finite numbers; an error on others, also under ``vmap``."""

    @staticmethod
    def forward(inputs: Tensor) -> Tensor:
        """Return the inputs.

        Raises:
            InputError: If one of them is NaN or infinite.
        """
        # the sum is cheaper than isfinite().all(); 0 * x is NaN exactly where x is not finite
        if not torch.isfinite((inputs * 0).sum()):
            bad = int((~torch.isfinite(inputs)).sum())
            raise InputError(
                f"{bad} of {inputs.numel()} circuit inputs are NaN or infinite; "
                "inputs are angles in radians or finite numbers"
            )
        return inputs.view_as(inputs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep nothing."""

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Pass the gradient on."""
        return gradients[0]

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Any:
        """Pass the tangent on."""
        return tangents[0].view_as(tangents[0])

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], inputs: Tensor) -> Any:
        """Check all members at once."""
        return RequireFinite.apply(inputs), in_dims[0]


def _ground_state(program: Program, per_sample: Tensor) -> Tensor:
    batch = per_sample.shape[0] if per_sample.shape[1] else 1
    state = per_sample.new_zeros(batch, 2**program.num_qubits)
    state[:, 0] = 1
    return state


def _rotate(state: Tensor, cosine: Tensor, sine: Tensor, *, qubit: int) -> Tensor:
    pairs = state.reshape(state.shape[0], state.shape[1] >> (qubit + 1), 2, 2**qubit)
    zero, one = pairs[:, :, 0], pairs[:, :, 1]
    turned = torch.stack((cosine * zero - sine * one, sine * zero + cosine * one), dim=2)
    return turned.flatten(1)


def _phase_factors(
    phases: Phases, table: dict[str, Tensor], shared: Tensor, per_sample: Tensor
) -> Tensor:
    """Return phase factors ``(2**num_qubits,)``, or with a leading batch dimension."""
    angle = None
    if "shared" in table:
        angle = shared[table["shared"]] @ table["shared_parity"]
    if "sample" in table:
        varied = per_sample[:, table["sample"]] @ table["sample_parity"]
        angle = varied if angle is None else angle + varied
    if angle is None:
        return table["fixed"]
    factors = torch.complex(torch.cos(angle), -torch.sin(angle))
    return factors * table["fixed"] if phases.fixed is not None else factors


def _tables(program: Program, like: Tensor) -> list[dict[str, Tensor]]:
    """Return the constant tensors of each operation, for one dtype and device."""
    return program.tables.get(
        ("tables", like.dtype, like.device),
        lambda: [_table(program, operation, like) for operation in program.operations],
    )


def _table(program: Program, operation: Any, like: Tensor) -> dict[str, Tensor]:
    if isinstance(operation, Permutation):
        return {"source": torch.as_tensor(operation.source, device=like.device)}
    table: dict[str, Tensor] = {}
    if isinstance(operation, Phases):
        if operation.fixed is not None:
            precision = torch.complex128 if like.dtype == torch.float64 else torch.complex64
            table["fixed"] = torch.as_tensor(operation.fixed).to(like.device, precision)
        for name, chosen in (
            ("shared", [term for term in operation.terms if term[1] < program.shared]),
            ("sample", [term for term in operation.terms if term[1] >= program.shared]),
        ):
            if chosen:
                offset = 0 if name == "shared" else program.shared
                columns = [angle - offset for _, angle in chosen]
                table[name] = torch.tensor(columns, device=like.device)
                rows = [parity(mask, num_qubits=program.num_qubits) for mask, _ in chosen]
                table[f"{name}_parity"] = torch.stack(rows).to(like.device, like.dtype)
    return table


def _squared(state: Tensor) -> Tensor:
    if state.is_complex():
        return state.real.square() + state.imag.square()
    return state.square()


def _sum_by(values: Tensor, index: Tensor, size: int) -> Tensor:
    return values.new_zeros(values.shape[0], size).index_add(1, index, values)
