"""What a hybrid step computes, and the memory that it takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from qkd_qiskit.simulator.fused.samples import Array
from qkd_qiskit.simulator.kernel.angles import KernelAngles
from qkd_qiskit.simulator.memory import empty_rows, require_bytes

NO_CIRCUIT, AMPLITUDES, ANGLES, STORED = 0, 1, 2, 3
"""What the circuit starts from: nothing (there is none), amplitudes or angles that the first layer
gives, or samples prepared once."""
_STARTS = {
    "none": NO_CIRCUIT,
    "amplitudes": AMPLITUDES,
    "angles": ANGLES,
    "states": STORED,
    "inputs": STORED,
}
_PLANS = {"amplitudes": "real", "states": "real", "angles": "ground", "inputs": "ground"}
_FLOPS_PER_UPDATE = 200  # of a layer, that take as long as an update of one row of a circuit


@dataclass(frozen=True, kw_only=True)
class HybridDesign:
    """What is computed from a sample to its logits.

    Attributes:
        start: What the circuit starts from: `amplitudes` or `angles` that the first layer gives, or
            `states` or `inputs` that are stored; `none` = there is a tanh in place of a circuit.
        first: Inputs and outputs of the layer in front of the circuit, or None.
        behind: Inputs and outputs of up to two layers behind it, a tanh between them; without any,
            logits are ``gamma * log(max(p, smallest))``.
        classes: Number of logits.
        temperature: The teacher's.
        student_temperature: The student's; None = the teacher's.
        scale: What the circuit's outputs are multiplied by.
        feature_factor: Radians per feature, where these become angles.
        gamma: Fixed factor of the logarithm; None = its logarithm is trained.
        smallest: Probability below which there is no gradient.
    """

    start: str
    first: tuple[int, int] | None
    behind: tuple[tuple[int, int], ...]
    classes: int
    temperature: float
    student_temperature: float | None = None
    scale: float = 1.0
    feature_factor: float = math.pi
    gamma: float | None = 1.0
    smallest: float = 0.0

    @property
    def layers(self) -> tuple[tuple[int, int] | None, ...]:
        """Inputs and outputs of the three layers that there may be."""
        return (self.first, *self.behind, *[None] * (2 - len(self.behind)))


@dataclass(frozen=True, kw_only=True)
class Buffers:
    """Sizes of a hybrid step.

    Attributes:
        kind: Plan of the circuit, of its start.
        stored: Whether the circuit starts from stored samples.
        lanes: Numbers in a vector.
        capacity: Rows of the largest batch, with padding.
        batch: Most samples of a step.
        panels: Shape of each layer's panels.
        widths: Padded outputs of each layer.
        weights: Trained numbers of the circuit and of gamma.
        qubits: Simulated ones.
        outputs: Of the circuit.
        angles: Shared and per-sample ones.
        tables: Phase tables.
        slots: Uses of angles.
        final_complex: Whether the final state is.
        given: Amplitudes that the circuit starts from, per sample.
        cost_per_sample: In updates of one row of a circuit, about.
    """

    kind: str
    stored: bool
    lanes: int
    capacity: int
    batch: int
    panels: tuple[tuple[int, int, int], ...]
    widths: tuple[int, ...]
    weights: int
    qubits: int
    outputs: int
    angles: tuple[int, int]
    tables: int
    slots: int
    final_complex: bool
    given: int
    cost_per_sample: float

    @classmethod
    def of(
        cls,
        design: HybridDesign,
        prepared: KernelAngles | None,
        *,
        batch_size: int,
        dtype: np.dtype[Any],
    ) -> Buffers:
        """Return the sizes of a design."""
        from qkd_qiskit.simulator.fused.dense_ops import ROWS, lanes_of

        lanes = lanes_of(dtype.itemsize)
        shapes = [(0, 0) if shape is None else shape for shape in design.layers]
        panels = tuple((-(-outputs // lanes), inputs + 1, lanes) for inputs, outputs in shapes)
        kind = _PLANS.get(design.start, "ground")
        cost = 3 * sum(inputs * outputs for inputs, outputs in shapes) / _FLOPS_PER_UPDATE
        qubits = outputs = tables = slots = weights = 0
        angles, final_complex = (0, 0), False
        if prepared is not None:
            plan, _ = prepared.plan(kind)
            program = prepared.program
            qubits, outputs = plan.num_qubits, plan.size
            tables, slots, final_complex = len(plan.fixed), len(plan.slots), plan.final_complex
            angles = len(program.shared_angles.constant), len(program.sample_angles.constant)
            weights = program.num_weights
            cost += (4 + slots) * 2**qubits / lanes
        return cls(
            kind=kind,
            stored=design.start in ("states", "inputs"),
            lanes=lanes,
            capacity=-(-max(batch_size, 1) // ROWS) * ROWS,
            batch=batch_size,
            panels=panels,
            widths=tuple(count * lanes for count, _, _ in panels),
            weights=weights + (design.gamma is None),
            qubits=qubits,
            outputs=outputs,
            angles=angles,
            tables=max(1, tables),
            slots=max(1, slots),
            final_complex=final_complex,
            given=2**qubits if kind == "real" else 0,
            cost_per_sample=cost,
        )

    def numbers(self, design: HybridDesign) -> tuple[Array, Array]:
        """Return the design as the kernel takes it: whole numbers, and others."""
        whole = [
            _STARTS[design.start], len(design.behind), int(design.gamma is None), design.classes,
            self.outputs, 0 if design.first is None else design.first[1], self.given, 0,
        ]  # fmt: skip
        others = [
            design.scale, design.smallest, design.feature_factor,
            design.student_temperature or design.temperature,
            1.0 if design.gamma is None else design.gamma,
        ]  # fmt: skip
        return np.array(whole, dtype=np.int64), np.array(others, dtype=np.float64)


def buffers(sizes: Buffers, *, slots: int, dtype: np.dtype[Any]) -> tuple[Any, Any]:
    """Return buffers for activations and for the circuit, with room for so many members.

    Raises:
        CircuitError: They do not fit into memory.
    """
    from qkd_qiskit.simulator.fused.dense_ops import ROWS

    capacity, lanes, batch = sizes.capacity, sizes.lanes, sizes.batch
    first, middle, last = sizes.widths
    count = sum(width > 0 for width in sizes.widths[1:])
    inputs = sizes.panels[1][1] - 1 if count else 0
    inner = -(-inputs // lanes) * lanes
    hidden = middle if count == 2 else 0
    classes = (lanes * -(-sizes.outputs // lanes), middle, last)[count]
    states, outputs = 1 << sizes.qubits, sizes.outputs
    counted = np.arange(capacity, dtype=np.int64) * np.array([[inner], [hidden], [classes], [ROWS]])
    shapes = {
        "logits": (slots, capacity * classes),
        "slopes": (slots, capacity * classes),
        "first": (slots, capacity * first),
        "first_slopes": (1, capacity * first),
        "values": (slots, batch * outputs),
        "incoming": (batch * outputs,),
        "inner": (slots, capacity * inner),
        "inner_slopes": (capacity * inner,),
        "hidden": (slots, capacity * hidden),
        "hidden_slopes": (capacity * hidden,),
        "turned": (inner // lanes, middle + 1, lanes),
        "turned_last": (hidden // lanes, last + 1, lanes),
        "spare": (lanes,),
        "gradient": (sizes.weights,),
        "columns": (capacity * ROWS,),
    }
    shared, sampled = sizes.angles
    tiles, length = -(-batch // lanes), (1 + sizes.final_complex) * states * lanes
    quantum = {
        "tables": (sizes.tables, 2, states),
        "rows": (3 * sizes.slots * lanes,),
        "states": (4, 2 * states * lanes),
        "sums": (sizes.slots * lanes,),
        "phases": (sizes.tables * states * lanes,),
        "outputs": ((outputs + 1) * lanes,),
        "saved": (slots, tiles, length),
        "shared": (slots, shared),
        "shared_gradient": (1, shared),
        "cosines": (slots, batch * sampled),
        "sines": (slots, batch * sampled),
        "sampled": (batch * sampled,),
        "given": (slots, batch * sizes.given),
        "imag": (slots, 0),
        "to_states": (batch * sizes.given,),
        "norms": (slots, batch),
    }
    every = [*shapes.values(), *quantum.values()]
    require_bytes(
        sum(map(math.prod, every)) * dtype.itemsize, what=f"{slots} batches of {batch} samples"
    )
    made = [empty_rows(*shape, dtype=dtype) for shape in every]
    for array in made:
        array[...] = 0  # what pads a layer's outputs stays 0
    activations = made[: len(shapes)]
    offsets = np.zeros((slots, capacity), dtype=np.int64)
    return (offsets, counted, *activations), tuple(made[len(shapes) :])
