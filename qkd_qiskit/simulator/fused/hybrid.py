"""``HybridStep``: training steps of students with linear layers around a circuit, fused.

A population's layers, circuit and losses forward, back, and AdamW, in machine code: what torch's
autograd, `CompiledConnector` and `torch.optim.AdamW` compute together, to rounding.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from qkd_qiskit.errors import CircuitError
from qkd_qiskit.simulator.connector import CompiledConnector
from qkd_qiskit.simulator.fused.hybrid_buffers import Buffers, HybridDesign, buffers
from qkd_qiskit.simulator.fused.maps import compiled_parts, sparse_rows
from qkd_qiskit.simulator.fused.samples import Array, circuit_samples, soft_targets
from qkd_qiskit.simulator.kernel.angles import KernelAngles
from qkd_qiskit.simulator.run import kernel_works
from qkd_qiskit.simulator.threads import in_threads, threads_for

PARTS = ("values", "exp_avg", "exp_avg_sq")
"""A trained number and AdamW's two averages, by torch's names."""

_NO_PLAN = (
    0, np.zeros((0, 8), np.int64), np.zeros(0, np.int64), 0, np.zeros(0, np.int64),
    np.zeros((0, 2, 1)), np.zeros(0, np.bool_), np.zeros(1, np.int64), np.zeros(0, np.int64),
    np.zeros(0, np.int64), np.zeros((1, 1), np.int64), False, np.zeros(1, np.int64),
    np.zeros((0, 0)),
)  # fmt: skip


@dataclass(frozen=True)
class HybridSamples:
    """Samples as the kernel takes them; `HybridStep.samples` makes them.

    Attributes:
        arrays: Flat images, the image of each sample, cosines, sines, real and imaginary parts of
            states, labels, targets and their negative entropies.
        size: Number of samples.
    """

    arrays: tuple[Array, ...]
    size: int


class HybridStep:
    """Layers and circuit weights of a population, and the state of their AdamW.

    A member's figures do not depend on its companions, and each member is trained by one thread.

    Attributes:
        design: What is computed.
        failed: ``(members,)``: whose numbers are not finite. Such a member takes no more steps, and
            its loss terms are NaN.
        steps: Optimizer steps so far.
    """

    def __init__(
        self,
        design: HybridDesign,
        connector: CompiledConnector | None,
        *,
        members: int,
        batch_size: int,
        factors: Array,
        weight_decay: float = 0.01,
        dtype: np.dtype[Any] = np.dtype(np.float32),  # noqa: B008
    ) -> None:
        """Make room for a population; `load` fills it.

        Args:
            design: What is computed.
            connector: Whose circuit and readout run; None where there is no circuit.
            members: Size of the population.
            batch_size: Most samples of a step.
            factors: Of cross-entropy and divergence ``(members, 2)``.
            weight_decay: As in torch.optim.AdamW.
            dtype: Float32 or float64.

        Raises:
            CircuitError: The circuit cannot be trained in this way, there is no compiled kernel on
                this machine, or no memory.
        """
        self._prepared = _prepared(design, connector)
        from qkd_qiskit.simulator.fused import hybrid_kernel

        self._kernel = hybrid_kernel
        self.design, self.members, self.dtype = design, members, dtype
        self.failed, self.steps = np.zeros(members, dtype=np.bool_), 0
        self._batch_size = batch_size
        self._factors = np.array(factors, dtype=np.float64, order="C").reshape(members, 2)
        self._adamw = (0.9, 0.999, 1e-8, float(weight_decay))
        self._sizes = Buffers.of(design, self._prepared, batch_size=batch_size, dtype=dtype)
        self._fields, self._maps = _NO_PLAN, _maps(self._prepared)
        if self._prepared is not None:
            self._fields = self._prepared.plan(self._sizes.kind)[1]
        self._layers = tuple(
            tuple(np.zeros((members, *shape), dtype=dtype) for _ in PARTS)
            for shape in self._sizes.panels
        )
        self._circuit = tuple(np.zeros((members, self._sizes.weights), dtype=dtype) for _ in PARTS)
        self._numbers = self._sizes.numbers(design)
        self._kept: dict[tuple[int, int], tuple[Any, Any]] = {}

    def load(
        self, numbers: Mapping[str, Mapping[str, Array]], *, rows: Array | slice = slice(None)
    ) -> None:
        """Take trained numbers of all members, or of some.

        Args:
            numbers: For each of `PARTS` the arrays ``(members, ...)`` of ``weight0``, ``bias0``
                and so on (layers in their order), ``circuit`` and ``log_gamma``, of those there
                are.
            rows: Which members.
        """
        for part, arrays in numbers.items():
            index = PARTS.index(part)
            for number, layer in enumerate(self._layers):
                if f"weight{number}" in arrays:
                    weight, bias = arrays[f"weight{number}"], arrays[f"bias{number}"]
                    layer[index][rows] = _panels(weight, bias, lanes=self._sizes.lanes)
            columns = [arrays[name] for name in ("circuit", "log_gamma") if name in arrays]
            if columns:
                flat = [each.reshape(len(each), -1) for each in columns]
                self._circuit[index][rows] = np.concatenate(flat, axis=1)

    def numbers(self) -> dict[str, dict[str, Array]]:
        """Return copies of all trained numbers, as `load` takes them."""
        found: dict[str, dict[str, Array]] = {}
        for index, part in enumerate(PARTS):
            arrays = found[part] = {}
            for number, (layer, shape) in enumerate(
                zip(self._layers, self.design.layers, strict=True)
            ):
                if shape is not None:
                    whole = (
                        layer[index].transpose(0, 1, 3, 2).reshape(self.members, -1, shape[0] + 1)
                    )
                    arrays[f"weight{number}"] = whole[:, : shape[1], :-1].copy()
                    arrays[f"bias{number}"] = whole[:, : shape[1], -1].copy()
            trained = self._circuit[index]
            if self.design.gamma is None:
                arrays["log_gamma"] = trained[:, -1].copy()
                trained = trained[:, :-1]
            if self._prepared is not None:
                arrays["circuit"] = trained.copy()
        return found

    def samples(
        self,
        labels: Tensor,
        teacher_logits: Tensor,
        *,
        images: Tensor | None = None,
        places: Tensor | None = None,
        inputs: Tensor | None = None,
        states: Tensor | None = None,
    ) -> HybridSamples:
        """Return samples, prepared once for many steps.

        Args:
            labels: ``(samples,)``.
            teacher_logits: ``(samples, classes)``.
            images: What the first layer takes ``(images, ...)``; not copied where it need not be.
            places: Which of them each sample is ``(samples,)``; default: in their order.
            inputs: The circuit's inputs ``(samples, num_inputs)``, where it starts from stored
                samples.
            states: Or its first states ``(samples, 2**num_qubits)``.
        """
        size = len(labels)
        flat = np.zeros(0, dtype=self.dtype)
        if images is not None:
            flat = np.ascontiguousarray(images.detach().numpy().reshape(-1), dtype=self.dtype)
        order = np.arange(size) if places is None else places.numpy()
        known = [np.zeros((1, size, 0), dtype=self.dtype)] * 4
        if self._prepared is not None and self._sizes.stored:
            known = circuit_samples(
                self._prepared.program,
                inputs=None if inputs is None else inputs.detach().numpy(),
                states=None if states is None else states.detach().numpy(),
                dtype=self.dtype,
            )
        targets, entropies = soft_targets(
            teacher_logits.detach().numpy(), temperature=self.design.temperature
        )
        return HybridSamples(
            (
                flat,
                np.array(order, dtype=np.int64),
                *known,
                np.array(labels.numpy(), dtype=np.int64),
                np.array(targets, dtype=self.dtype),
                np.array(entropies, dtype=self.dtype),
            ),
            size,
        )

    def epoch(self, samples: HybridSamples, order: Array, *, lr: float) -> Array:
        """Take a step per batch; return mean cross-entropy and divergence ``(members, 2)``.

        Args:
            samples: The pool.
            order: Rows of the pool in the order of their use ``(members, rows)``.
            lr: Learning rate of all steps.
        """
        rows = np.array(order, dtype=np.int64, order="C")
        means = self._run(samples, rows, phase=self._kernel.WHOLE, lr=lr)
        self.steps += -(-rows.shape[1] // self._batch_size)
        return means

    def forward(self, samples: HybridSamples, batch: Array) -> Array:
        """Return logits ``(members, rows, classes)`` of one batch, for `backward`.

        Args:
            samples: The pool.
            batch: Rows of the pool ``(members, rows)``, at most `batch_size` of them.
        """
        rows = np.array(batch, dtype=np.int64, order="C")
        self._run(samples, rows, phase=self._kernel.FORWARD, lr=0.0)
        found: Array = self._whole(self._memory(0, self.members)[0][2])[:, : rows.shape[1]]
        return found

    def backward(self, samples: HybridSamples, batch: Array, slopes: Array, *, lr: float) -> None:
        """Take the step that `forward` began.

        Args:
            samples: The same.
            batch: The same.
            slopes: Gradients of the logits.
            lr: Learning rate.
        """
        rows = np.array(batch, dtype=np.int64, order="C")
        self._whole(self._memory(0, self.members)[0][3])[:, : rows.shape[1]] = slopes
        self._run(samples, rows, phase=self._kernel.BACKWARD, lr=lr)
        self.steps += 1

    def hits(self, samples: HybridSamples) -> Array:
        """Return for each member how many samples have the largest logit at their label."""
        rows = np.arange(samples.size)[None]
        means = self._run(samples, rows, phase=self._kernel.EVALUATE, lr=0.0)
        found: Array = means[:, 0] * samples.size
        return found

    def _whole(self, flat: Array) -> Array:
        """Return a view of logits or their gradients ``(members, rows, classes)``."""
        by_row: Array = flat.reshape(self.members, self._sizes.capacity, -1)
        return by_row[:, :, : self.design.classes]

    def _run(self, samples: HybridSamples, rows: Array, *, phase: int, lr: float) -> Array:
        means, failed = np.zeros((self.members, 2)), self.failed
        if phase == self._kernel.EVALUATE:
            failed = failed.copy()
        optimizer = (float(self.steps), float(lr), *self._adamw)
        in_halves = phase in (self._kernel.FORWARD, self._kernel.BACKWARD)
        slots = self.members if in_halves else 1

        def work(number: int, members: tuple[int, int]) -> None:
            memory, quantum = self._memory(number, slots)
            self._kernel.train(
                self._fields, self._maps, self._numbers, optimizer, samples.arrays, rows,
                self._batch_size, phase, self._layers, self._circuit, memory, quantum,
                (self._factors, failed, means), members,
            )  # fmt: skip

        cost = self._sizes.cost_per_sample * rows.shape[1]
        threads = 1 if in_halves else min(threads_for(self.members * cost), self.members)
        edges = np.linspace(0, self.members, threads + 1).astype(int).tolist()
        in_threads(work, list(enumerate(itertools.pairwise(edges))))
        return means

    def _memory(self, number: int, slots: int) -> tuple[Any, Any]:
        """Return a thread's buffers, of one member or of all."""
        if (number, slots) not in self._kept:
            self._kept[number, slots] = buffers(self._sizes, slots=slots, dtype=self.dtype)
        return self._kept[number, slots]


def _prepared(design: HybridDesign, connector: CompiledConnector | None) -> KernelAngles | None:
    """Return the circuit that runs; refuse what cannot be fused."""
    if connector is None:
        if not kernel_works():
            raise CircuitError("steps cannot be fused: the compiled kernel is not available")
        return None
    program, readout = compiled_parts(connector)
    if design.start == "angles" and program.features:
        raise CircuitError(
            "steps cannot be fused: an angle is not affine in the inputs, which a layer gives"
        )
    rest = connector._remainder
    if design.start in ("amplitudes", "states"):
        assert rest is not None
        return KernelAngles(rest, readout)
    return KernelAngles(program, readout)


def _maps(prepared: KernelAngles | None) -> tuple[Any, ...]:
    """Return the angles as sparse affine maps."""
    if prepared is None:
        none = sparse_rows(None, 0)
        return none, none, none, np.zeros(0), np.zeros(0)
    shared, sampled = prepared.program.shared_angles, prepared.program.sample_angles
    constants = [part.constant.numpy().copy() for part in (shared, sampled)]
    return (
        sparse_rows(shared.weights, len(constants[0])),
        sparse_rows(sampled.weights, len(constants[1])),
        sparse_rows(sampled.inputs, len(constants[1])),
        *constants,
    )


def _panels(weight: Array, bias: Array, *, lanes: int) -> Array:
    """Return panels ``(members, panels, inputs + 1, lanes)`` of weights and biases."""
    members, outputs, inputs = weight.shape
    count = -(-outputs // lanes)
    whole = np.zeros((members, count * lanes, inputs + 1), dtype=weight.dtype)
    whole[:, :outputs, :-1], whole[:, :outputs, -1] = weight, bias
    turned: Array = whole.reshape(members, count, lanes, inputs + 1).transpose(0, 1, 3, 2)
    return turned
