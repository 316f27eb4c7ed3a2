"""``FusedStep``: distillation of circuits that have no trained number but their weights, fused.

One call is a whole optimizer step, or a whole epoch, of a population: circuit, loss, sweep back and
AdamW in machine code. What it computes is what `CompiledConnector`, `distillation.losses` and
`torch.optim.AdamW` compute together; for a few qubits most of their step is spent around the
kernel.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from torch import Tensor

from qkd_qiskit.errors import CheckpointError, InputError
from qkd_qiskit.simulator.connector import CompiledConnector
from qkd_qiskit.simulator.fused.maps import compiled_parts, product_rows, sparse_rows
from qkd_qiskit.simulator.fused.samples import Array, Samples, as_array, make_samples
from qkd_qiskit.simulator.kernel.angles import KernelAngles
from qkd_qiskit.simulator.memory import empty_rows, require_bytes
from qkd_qiskit.simulator.threads import in_threads, threads_for


@dataclass(frozen=True, kw_only=True)
class Objective:
    """How outputs of the circuit become logits and these a loss.

    Logits are ``factor * log(max(output, smallest) + added)``, or ``factor * output``; the terms
    are `label_loss` and `distillation_loss` of `qkd_qiskit.distillation.losses` of them.

    Attributes:
        temperature: The teacher's.
        student_temperature: The student's; None = the teacher's.
        logarithm: Whether outputs are probabilities whose logarithm is taken.
        factor: Of the logits.
        smallest: Probability below which there is no gradient.
        added: To a probability, before its logarithm is taken.
    """

    temperature: float
    student_temperature: float | None = None
    logarithm: bool = True
    factor: float = 1.0
    smallest: float = 0.0
    added: float = 0.0

    def __post_init__(self) -> None:
        for name in ("temperature", "student_temperature"):
            given = getattr(self, name)
            if given is not None and not 0 < given < math.inf:
                raise InputError(f"{name} is {given}; give a finite number above 0")


class FusedStep:
    """Circuit weights of a population, and the state of their AdamW.

    A member's figures do not depend on its companions, and each member is trained by one thread.

    Attributes:
        objective: What is minimised.
        weights: ``(members, num_weights)`` in radians, updated in place.
        failed: ``(members,)``: whose gradient or update was not finite. Such a member keeps its
            last weights from then on, and its loss terms are NaN.
        steps: Optimizer steps so far.
    """

    def __init__(
        self,
        connector: CompiledConnector,
        weights: ArrayLike | Tensor,
        *,
        objective: Objective,
        ce_weight: ArrayLike | Tensor,
        kd_weight: ArrayLike | Tensor,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        """Make a population ready for training.

        Args:
            connector: Whose circuit and readout run; its own weight is left alone.
            weights: First weights ``(members, num_weights)``, float32 or float64; copied.
            objective: What is minimised.
            ce_weight: Of the cross-entropy, one number or ``(members,)``.
            kd_weight: Of the divergence, one number or ``(members,)``.
            weight_decay: As in torch.optim.AdamW, like the next two.
            betas: Decay rates of the averages of the gradient and of its square.
            eps: Added to the root of the latter.

        Raises:
            CircuitError: The circuit cannot be trained in this way: it is not compiled or noisy, an
                observable holds X or Y, an angle is not affine in the weights for given inputs, or
                there is no compiled kernel on this machine.
            InputError: Weights of another shape, dtype or not finite.
        """
        program, readout = compiled_parts(connector, products=True)
        from qkd_qiskit.simulator.fused.kernel import train

        given = as_array(weights)
        if given.ndim != 2 or given.shape[1] != program.num_weights or given.dtype.char not in "fd":
            raise InputError(
                f"weights are {given.dtype} of shape {given.shape}; give float32 or float64 of "
                f"shape (members, {program.num_weights})"
            )
        if not np.isfinite(given).all():
            raise InputError("weights are NaN or infinite; give finite numbers")
        self.objective, self.weights = objective, np.array(given, order="C")
        self.failed, self.steps = np.zeros(len(given), dtype=np.bool_), 0
        self._first, self._second = np.zeros_like(self.weights), np.zeros_like(self.weights)
        self._factors = np.empty((len(given), 2))
        self._factors[:, 0], self._factors[:, 1] = as_array(ce_weight), as_array(kd_weight)
        self._adamw = (*map(float, betas), float(eps), float(weight_decay))
        rest = connector._remainder
        assert rest is not None
        kind = self.weights.dtype.type
        numbers = (objective.factor, objective.smallest, objective.added)
        own = objective.student_temperature or objective.temperature
        self._rule = (bool(objective.logarithm), *(kind(number) for number in (*numbers, own)))
        self._whole, self._rest = KernelAngles(program, readout), KernelAngles(rest, readout)
        self._kernel = train
        self._workers: dict[tuple[str, int], _Worker] = {}

    def samples(
        self,
        labels: ArrayLike | Tensor,
        teacher_logits: ArrayLike | Tensor,
        *,
        inputs: ArrayLike | Tensor | None = None,
        states: ArrayLike | Tensor | None = None,
    ) -> Samples:
        """Return examples, prepared once for many steps.

        Every argument may have a leading dimension of members, or none to be shared by all.

        Args:
            labels: ``(samples,)`` in 0..classes-1.
            teacher_logits: ``(samples, classes)``.
            inputs: The circuit's inputs ``(samples, num_inputs)``, if it has any.
            states: States to start from instead, after the circuit's preparation, little-endian
                ``(samples, 2**num_qubits)``; see `CompiledConnector.from_states`.

        Raises:
            InputError: If shapes do not fit, a number is not finite or a label is not a class.
        """
        prepared = self._whole if states is None else self._rest
        return make_samples(
            prepared.program,
            classes=prepared.readout.size,
            members=len(self.weights),
            dtype=self.weights.dtype,
            temperature=self.objective.temperature,
            labels=as_array(labels),
            teacher_logits=as_array(teacher_logits),
            inputs=None if inputs is None else as_array(inputs),
            states=None if states is None else as_array(states),
        )

    def step(self, samples: Samples, *, lr: float) -> Array:
        """Take one optimizer step on all samples; return the loss terms before it.

        The terms are cross-entropy and divergence ``(members, 2)``, means over samples in nats.

        Args:
            samples: The batch.
            lr: Learning rate of this step.
        """
        return self._train(samples, samples.order, samples.size, lr=lr)[0]

    def epoch(
        self, samples: Samples, order: ArrayLike | Tensor, *, batch_size: int, lr: float
    ) -> Array:
        """Take a step per batch; return the loss terms as means over the epoch's samples.

        Args:
            samples: The pool.
            order: Rows of the pool in the order of their use ``(members, rows)``, or ``(1, rows)``
                for all members; the last batch may be smaller.
            batch_size: Rows per step.
            lr: Learning rate of all steps.

        Raises:
            InputError: If the order has another shape or leaves the pool.
        """
        rows = np.array(as_array(order), dtype=np.int64, order="C")
        members = len(self.weights)
        if rows.ndim != 2 or len(rows) not in (1, members) or rows.shape[1] == 0:
            raise InputError(f"order has shape {rows.shape}; give ({members}, rows)")
        if rows.min() < 0 or rows.max() >= samples.size or batch_size < 1:
            raise InputError(
                f"order holds rows {rows.min()} to {rows.max()} in batches of {batch_size}; give "
                f"0..{samples.size - 1} in batches of at least 1"
            )
        return self._train(samples, rows, batch_size, lr=lr)[0]

    def gradients(self, samples: Samples) -> tuple[Array, Array]:
        """Return loss terms ``(members, 2)`` and gradients ``(members, num_weights)``, no step."""
        return self._train(samples, samples.order, samples.size, lr=None)

    def state(self) -> dict[str, Array]:
        """Return copies of all that `load_state` needs to go on to the same bits."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state(self, state: Mapping[str, ArrayLike | Tensor]) -> None:
        """Go on from a state.

        Raises:
            CheckpointError: It belongs to another population.
        """
        mine = self._state()
        found = {name: as_array(values) for name, values in state.items()}
        shapes, expected = (
            {name: (array.shape, str(array.dtype)) for name, array in arrays.items()}
            for arrays in (found, mine)
        )
        if shapes != expected:
            raise CheckpointError(f"the state holds {shapes}; this population needs {expected}")
        for name, array in mine.items():
            array[...] = found[name]
        self.steps = int(mine["steps"])

    def _state(self) -> dict[str, Array]:
        return {
            "weights": self.weights,
            "steps": np.array(self.steps, dtype=np.int64),
            "exp_avg": self._first,
            "exp_avg_sq": self._second,
            "failed": self.failed,
        }

    def _train(
        self, samples: Samples, order: Array, batch_size: int, *, lr: float | None
    ) -> tuple[Array, Array]:
        """Return mean terms and the last gradients of one pass over `order`; None: no steps."""
        count, length = self.weights.shape[0], order.shape[1]
        if samples.members != 1 and samples.members != count:
            raise InputError(
                f"the samples are for {samples.members} members, the population has {count}"
            )
        batch_size = min(batch_size, length)
        terms, gradients = np.zeros((count, 2)), np.zeros_like(self.weights)
        progress = (
            self.weights, self._first, self._second, self._factors, self.failed, gradients, terms,
        )  # fmt: skip
        optimizer = (float(self.steps), 0.0 if lr is None else float(lr), *self._adamw)
        gather, update = order is not samples.order, lr is not None

        def work(number: int, members: tuple[int, int]) -> None:
            worker = self._worker(samples.kind, batch_size, number)
            self._kernel(
                worker.fields, worker.maps, self._rule, optimizer, samples.arrays, order,
                batch_size, gather, update, worker.buffers, progress, members,
            )  # fmt: skip

        cost = self._worker(samples.kind, batch_size, 0).cost_per_sample
        threads = min(threads_for(count * length * cost), count)
        edges = np.linspace(0, count, threads + 1).astype(int).tolist()
        in_threads(work, list(enumerate(itertools.pairwise(edges))))
        if update:
            self.steps += -(-length // batch_size)
        return terms, gradients

    def _worker(self, kind: str, batch_size: int, number: int) -> _Worker:
        found = self._workers.get((kind, number))
        if found is None or found.batch_size < batch_size:
            prepared = self._whole if kind == "ground" else self._rest
            found = _Worker(prepared, kind, batch_size=batch_size, dtype=self.weights.dtype)
            self._workers[kind, number] = found
        return found


class _Worker:
    """One thread's buffers.

    Attributes:
        fields: The plan as the kernel takes it.
        maps: Sparse maps from weights to shared and per-sample angles, the former's constants, and
            the products of inputs and weights in the latter.
        buffers: For batches of up to `batch_size` samples.
        cost_per_sample: Row updates, about.
    """

    def __init__(
        self, prepared: KernelAngles, kind: str, *, batch_size: int, dtype: np.dtype[Any]
    ) -> None:
        from qkd_qiskit.simulator.kernel.llvm import ROW_BYTES

        program = prepared.program
        plan, self.fields = prepared.plan(kind)
        self.batch_size = batch_size
        shared, sampled = program.shared_angles, program.sample_angles
        constants, angles = shared.constant.numpy().copy(), len(sampled.constant)
        self.maps = (
            sparse_rows(shared.weights, len(constants)),
            sparse_rows(sampled.weights, angles),
            constants,
            product_rows(program),
        )
        states, lanes = 1 << plan.num_qubits, ROW_BYTES // dtype.itemsize
        self.cost_per_sample = (states * (4 + len(plan.slots))) / lanes
        tables, slots = max(1, len(plan.fixed)), max(1, len(plan.slots))
        parts = {"ground": 0, "real": 1, "complex": 2}[kind]
        shapes: list[tuple[int, ...]] = [
            (tables, 2, states),
            (3 * slots * lanes,),
            (4, 2 * states * lanes),
            (slots * lanes,),
            (tables * states * lanes,),
            ((plan.size + 1) * lanes,),
            (1, -(-batch_size // lanes), (1 + plan.final_complex) * states * lanes),
            (1, len(constants)),
            (1, len(constants)),
            (1, 0, 0, 0),
            *[(batch_size * angles,)] * 3,
            *[(batch_size * plan.size,)] * 2,
            (batch_size * states * (parts > 0),),
            (batch_size * states * (parts > 1),),
            (2, plan.size),
        ]
        require_bytes(
            sum(map(math.prod, shapes)) * dtype.itemsize,
            what=f"a batch of {batch_size} states on {plan.num_qubits} qubits",
        )
        self.buffers = tuple(empty_rows(*shape, dtype=dtype) for shape in shapes)
