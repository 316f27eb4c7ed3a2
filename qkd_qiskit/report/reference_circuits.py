"""Reference students by name, and their circuits as OpenQASM 3, drawing and table.

`export_reference_circuits("circuits")` writes the files in the folder `circuits` of the project; a
test holds them to the code.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from qiskit import QuantumCircuit

from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.circuits.student_circuit import StudentCircuit, circuit_of_spec
from qkd_qiskit.errors import CircuitError, nearest
from qkd_qiskit.recipe import CLASSICAL_STUDENTS, FILTER_STUDENTS, StudentSpec
from qkd_qiskit.recipe.parsing import list_recipes, load_recipe
from qkd_qiskit.storage import write_text

COST_BACKENDS = ("fake_torino", "fake_sherbrooke", "fake_fez")
MOST_LAYERS_DRAWN = 5


@dataclass(frozen=True, kw_only=True)
class ReferenceCircuit:
    """A reference student.

    Attributes:
        description: One line: what it is.
        student: Its specification; the circuit depends on qubits, encoding, ansatz and layers.
    """

    description: str
    student: StudentSpec


REFERENCES: dict[str, ReferenceCircuit] = {
    "amplitude_4": ReferenceCircuit(
        description="16 features as amplitudes; about the most that exact preparation can carry",
        student=StudentSpec(qubits=4, encoding="amplitude", ansatz="ry_rz_ring", layers=2),
    ),
    "matrix_product_6": ReferenceCircuit(
        description="64 features as amplitudes in 15 CZ, by three staircases fitted to each image: "
        "mean fidelity 0.970 with MNIST's exact states, which take 62 CX (before routing)",
        student=StudentSpec(
            qubits=6,
            encoding="matrix_product",
            loader_layers=3,
            ansatz="ry_cz_line",
            layers=2,
            reduction="avg_pool",
        ),
    ),
    "angle_4": ReferenceCircuit(
        description="4 features as angles, entered once",
        student=StudentSpec(qubits=4, encoding="angle", ansatz="ry_rz_ring", layers=2),
    ),
    "reuploading_4": ReferenceCircuit(
        description="4 features as angles, entered again in front of every layer",
        student=StudentSpec(qubits=4, encoding="reuploading", ansatz="ry_rz_ring", layers=3),
    ),
    "qubit_4": ReferenceCircuit(
        description="a 4x4 image, one row of four rotations per qubit",
        student=StudentSpec(qubits=4, encoding="qubit", ansatz="ry_rz_ring", layers=2),
    ),
    "entangled_qubit_4": ReferenceCircuit(
        description="the same image and rotations, with CZ on a line between them",
        student=StudentSpec(qubits=4, encoding="entangled_qubit", ansatz="ry_cz_line", layers=2),
    ),
    "real_amplitudes_4": ReferenceCircuit(
        description="real gates only and a CX chain: the fewest two-qubit gates",
        student=StudentSpec(qubits=4, encoding="reuploading", ansatz="real_amplitudes", layers=3),
    ),
    "cz_line_4": ReferenceCircuit(
        description="shaped for devices: CZ on a line in two rounds, nothing is routed",
        student=StudentSpec(qubits=4, encoding="reuploading", ansatz="cz_line", layers=3),
    ),
    "heavy_hex_12": ReferenceCircuit(
        description="shaped for devices: a ring of 12 qubits, the smallest on a heavy-hex lattice",
        student=StudentSpec(qubits=12, encoding="angle", ansatz="ry_rz_ring", layers=1),
    ),
}


def list_reference_circuits() -> dict[str, ReferenceCircuit]:
    """Return every reference student by name: those of the built-in recipes, then REFERENCES.

    Recipes whose student is not this kind of circuit (a classical one, filters) are left out.
    """
    recipes = {
        name: ReferenceCircuit(
            description=f"recipe `{name}`: {about}", student=load_recipe(name).student
        )
        for name, about in list_recipes().items()
    }
    other = (*CLASSICAL_STUDENTS, *FILTER_STUDENTS)
    return {k: v for k, v in recipes.items() if v.student.kind not in other} | REFERENCES


def reference_circuit(name: str) -> StudentCircuit:
    """Return the circuit of the reference student `name`.

    Raises:
        CircuitError: There is none of this name.
    """
    zoo = list_reference_circuits()
    if name not in zoo:
        raise CircuitError(
            f"circuit {name!r} is not in the zoo; {nearest(name, zoo)}give one of {', '.join(zoo)}"
        )
    return circuit_of_spec(zoo[name].student)


def export_reference_circuits(
    directory: str | Path,
    *,
    names: Iterable[str] | None = None,
    backends: Iterable[str] = COST_BACKENDS,
) -> list[Path]:
    """Write NAME.qasm and NAME.svg per reference student, and README.md, and return their paths.

    Args:
        directory: Folder for the files; it is made where it is missing.
        names: Students to write; default: all.
        backends: Fake devices of the cost columns of the table.

    Raises:
        CircuitError: A name is not in the zoo.
        TargetError: A device is unknown, or too small for a circuit.
        StorageError: A file could not be written.
    """
    directory = Path(directory)
    chosen = list(list_reference_circuits()) if names is None else list(names)
    circuits = {name: reference_circuit(name) for name in chosen}
    written = []
    for name, student in circuits.items():
        written += [directory / f"{name}.qasm", directory / f"{name}.svg"]
        write_text(written[-2], dump_circuit(student.circuit))
        write_text(written[-1], _svg(*_drawing(name, list_reference_circuits()[name].student)))
    written.append(directory / "README.md")
    write_text(written[-1], _table(circuits, list(backends)))
    return written


def _drawn_layers(spec: StudentSpec) -> int:
    return spec.layers if spec.layers <= MOST_LAYERS_DRAWN else 2


def _drawing(name: str, spec: StudentSpec) -> tuple[QuantumCircuit, str]:
    layers = _drawn_layers(spec)
    student = circuit_of_spec(spec, layers=layers)
    weights = set(student.weight_params)
    drawn = student.circuit.copy_empty_like()
    entered = False
    for instruction in student.circuit.data:
        if not entered and weights.intersection(instruction.operation.params):
            drawn.barrier()
            entered = True
        drawn.append(instruction)
    return (
        drawn,
        name if layers == spec.layers else f"{name}: first {layers} of {spec.layers} layers",
    )


def _svg(circuit: QuantumCircuit, title: str) -> str:
    from matplotlib import pyplot, rc_context

    text = io.StringIO()
    # A fixed salt and no date: the same circuit gives the same bytes.
    with rc_context({"svg.hashsalt": title, "svg.fonttype": "path"}):
        figure = circuit.draw("mpl", fold=24)
        figure.axes[0].set_title(title)
        figure.savefig(
            text, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
        pyplot.close(figure)
    # A hundredth of a point is enough for a position; scales, which are below 1, keep all digits.
    return re.sub(r"\b([1-9]\d*\.\d\d)\d+", r"\1", text.getvalue())


def _table(circuits: dict[str, StudentCircuit], backends: list[str]) -> str:
    from qkd_qiskit.targets import Target  # it knows circuits: no import at the top goes back up

    targets = [Target.parse(backend) for backend in backends]
    zoo = list_reference_circuits()
    columns = ["student", "what it is", "qubits", "inputs", "weights", "depth", "two-qubit gates"]
    columns += [f"on {backend}" for backend in backends]
    lines = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for name, student in circuits.items():
        drawn, layers = _drawn_layers(zoo[name].student), zoo[name].student.layers
        drawing = "" if drawn == layers else f" (first {drawn} of {layers} layers)"
        costs = [target.compile(student.circuit) for target in targets]
        tasks = [
            f"[{name}]({name}.qasm), [drawing]({name}.svg){drawing}",
            zoo[name].description,
            *(
                str(number)
                for number in (
                    student.circuit.num_qubits,
                    len(student.input_params),
                    len(student.weight_params),
                    student.circuit.depth(),
                    student.circuit.num_nonlocal_gates(),
                )
            ),
            *(f"{cost.two_qubit_gates} (depth {cost.depth})" for cost in costs),
        ]
        lines.append(f"| {' | '.join(tasks)} |")
    return "\n".join([_INTRODUCTION, *lines, ""])


_INTRODUCTION = """# Circuits

The reference students as OpenQASM 3, written by `qkd circuits export`. Inputs are `x_000`, `x_001`,
... (set per image by the encoding), weights `w_000`, `w_001`, ... (trained); outcome k is
little-endian, and nothing is measured in the files. A circuit of your own with parameters named
in this way can be used as a student.

Device columns: two-qubit gates and depth with final measurements, transpiled at level 3, the best
of ten seeds by two-qubit gates, then depth.
"""
