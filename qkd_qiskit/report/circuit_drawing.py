"""A student's circuit as one SVG element: inputs, trained angles, entangling gates.

A long state preparation is drawn as one box, and of a deep circuit only the beginning.
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass
from typing import Any

from qiskit import QuantumCircuit
from qiskit.circuit import CircuitInstruction, Gate

from qkd_qiskit.circuits import StudentCircuit
from qkd_qiskit.circuits.student_circuit import circuit_of_spec
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.report.svg import INK, INPUT_COLOUR, PAPER, RULE, TRAINED_COLOUR, inline_svg

MOST_LAYERS, FEW_LAYERS = 3, 2
MOST_DEPTH = 40  # of a circuit that has no layers: one of your own
MOST_COLUMNS = 16  # gates in a row, for the width of a page
SCALE = 0.6

_INPUT, _TRAINED = "input", "trained"
_ROTATIONS = {"rx": "R_X", "ry": "R_Y", "rz": "R_Z", "p": "P"}


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """A drawn circuit.

    Attributes:
        svg: The element.
        notes: What the drawing leaves out, as sentences.
    """

    svg: str
    notes: tuple[str, ...]


def draw_student(spec: StudentSpec, foreign: QuantumCircuit | None = None) -> Drawing:
    """Draw the circuit of a student.

    Args:
        spec: The student.
        foreign: Its circuit where that is not made from the specification: one of your own, or a
            filter's.
    """
    if foreign is not None:
        kept, notes = _beginning(foreign)
        return Drawing(svg=_svg(_marked(kept)), notes=notes)
    layers = spec.layers if spec.layers <= MOST_LAYERS else FEW_LAYERS
    parts = circuit_of_spec(spec, layers=layers)
    notes = ()
    if layers < spec.layers:
        notes = (f"The first {layers} of {spec.layers} layers are drawn.",)
    if parts.preparation:
        notes += (_preparation_note(parts),)
    return Drawing(svg=_svg(_marked(parts.circuit, preparation=parts.preparation)), notes=notes)


def _beginning(circuit: QuantumCircuit) -> tuple[QuantumCircuit, tuple[str, ...]]:
    depth = circuit.depth()
    if depth <= MOST_DEPTH:
        return circuit, ()
    kept = circuit.copy_empty_like()
    for instruction in circuit.data:
        kept.append(instruction)
        if kept.depth() > MOST_DEPTH:
            break
    return kept, (f"The first {MOST_DEPTH} of {depth} time steps are drawn.",)


def _preparation_note(parts: StudentCircuit) -> str:
    gates = [instruction.operation for instruction in parts.circuit.data[: parts.preparation]]
    rotations = sum(bool(gate.params) for gate in gates)
    return (
        f"The box is the state preparation: {rotations} rotations by the inputs and "
        f"{len(gates) - rotations} gates without a parameter."
    )


def _marked(circuit: QuantumCircuit, *, preparation: int = 0) -> QuantumCircuit:
    """Return the circuit with rotations named after what sets them, and barriers between parts.

    A part ends where inputs follow weights or weights inputs, and where a rotation follows the
    entangling gates of a layer.
    """
    drawn = QuantumCircuit(circuit.num_qubits)
    qubits = {bit: index for index, bit in enumerate(circuit.qubits)}
    part, entangled = None, False
    if preparation:
        box = Gate("preparation", circuit.num_qubits, [], label="amplitudes")
        drawn.append(box, range(circuit.num_qubits))
        part = _INPUT
    for instruction in circuit.data[preparation:]:
        if instruction.operation.name == "barrier":
            continue
        own = _part(instruction)
        if own is not None and part is not None and (own != part or entangled):
            drawn.barrier()
            entangled = False
        entangled = entangled or (own is None and len(instruction.qubits) > 1)
        part = own or part
        drawn.append(_named(instruction), [qubits[bit] for bit in instruction.qubits])
    return drawn


def _part(instruction: CircuitInstruction) -> str | None:
    names = {
        parameter.name
        for angle in instruction.operation.params
        for parameter in getattr(angle, "parameters", ())
    }
    if not names:
        return None
    return _INPUT if any(name.startswith("x_") for name in names) else _TRAINED


def _named(instruction: CircuitInstruction) -> Any:
    operation, part = instruction.operation, _part(instruction)
    if operation.name not in _ROTATIONS or part is None:
        return operation
    return Gate(f"{part}_{operation.name}", 1, operation.params)


def _svg(circuit: QuantumCircuit) -> str:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    def drawn(width: float, height: float, *, fold: int) -> tuple[Figure, Any]:
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0, 0, 1, 1))
        circuit.draw("mpl", ax=axes, style=_style(), fold=fold)
        return figure, axes

    # The drawer fits the axes it is given: drawings on any tell first how large they have to be.
    fold, (_, axes) = -1, drawn(9, 9, fold=-1)
    columns = math.ceil(axes.get_xlim()[1])
    if columns > MOST_COLUMNS:
        fold = math.ceil(columns / math.ceil(columns / MOST_COLUMNS))
        _, axes = drawn(9, 9, fold=fold)
    width, height = (SCALE * abs(high - low) for low, high in (axes.get_xlim(), axes.get_ylim()))
    text = io.StringIO()
    with rc_context({"svg.hashsalt": "circuit", "svg.fonttype": "path"}):
        figure, _ = drawn(width, height, fold=fold)
        figure.savefig(
            text, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    title = f"Circuit of the student on {circuit.num_qubits} qubits"
    return inline_svg(text.getvalue(), name="circuit", title=title)


def _style() -> dict[str, object]:
    faces = {_INPUT: INPUT_COLOUR, _TRAINED: TRAINED_COLOUR}
    colours = {
        f"{part}_{name}": (face, PAPER) for part, face in faces.items() for name in _ROTATIONS
    }
    return {
        "name": "bw",
        "margin": [1.35, 0.1, 0.1, 0.3],
        "textcolor": INK,
        "linecolor": INK,
        "gatetextcolor": INK,
        "gatefacecolor": PAPER,
        "edgecolor": INK,
        "subtextcolor": INK,
        "backgroundcolor": PAPER,
        "barrierfacecolor": RULE,
        "displaycolor": colours
        | {"preparation": (faces[_INPUT], PAPER), "cx": (INK, PAPER), "cz": (INK, INK)},
        "displaytext": {
            f"{part}_{name}": symbol for part in faces for name, symbol in _ROTATIONS.items()
        },
    }
