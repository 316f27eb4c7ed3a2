"""The section on the circuit: its size, its drawing and what it becomes on a device."""

from __future__ import annotations

from pathlib import Path

from qkd_qiskit.circuits.openqasm import load_circuit
from qkd_qiskit.errors import CircuitError
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import CIRCUIT, RunFolder
from qkd_qiskit.report.circuit_drawing import draw_student
from qkd_qiskit.report.html import Markup, element, halves, section
from qkd_qiskit.report.tables import cost_table
from qkd_qiskit.report.text import count


def circuit_section(folder: RunFolder, result: Result) -> Markup:
    """Return what the circuit is, and what it costs on each device."""
    size, spec = result.student, folder.recipe.student
    if spec.kind == "quanvolution":
        text = "Every filter runs this circuit on every patch of an image, with its own weights."
        return section("Circuit", element("p", text), _drawing(folder), cost_table(result))
    if size.qubits is None:
        return section("Circuit", element("p", "The student is classical and has no circuit."))
    made = {"encoding": spec.encoding, "ansatz": f"{spec.ansatz}, {count(spec.layers, 'layer')}"}
    if spec.circuit is not None:
        made = {"circuit": f"your own, {Path(spec.circuit).name}"}
    measured = spec.readout if spec.observables is None else ", ".join(spec.observables)
    made["read-out"] = f"{measured}, head: {spec.head}"
    if spec.kind == "module":
        made = {"network": f"your own, {spec.module}"}
    facts = {
        "qubits": count(size.qubits),
        **made,
        "circuit weights": count(size.weights or 0),
        "trained parameters in all": count(size.parameters),
        "two-qubit gates": f"{count(size.two_qubit_gates or 0)} before transpiling",
        "depth": f"{count(size.depth or 0)} before transpiling",
    }
    return section("Circuit", halves(facts), _drawing(folder), cost_table(result))


def _drawing(folder: RunFolder) -> Markup:
    spec = folder.recipe.student
    try:
        # The specification alone does not make these circuits.
        kept = spec.circuit is not None or spec.kind in ("quanvolution", "module")
        drawing = draw_student(spec, load_circuit(folder.path / CIRCUIT).circuit if kept else None)
    except CircuitError as error:
        return element("p", f"The circuit cannot be drawn: {error}", class_="note")
    legend = element(
        "p",
        element("span", element("span", class_="swatch box input"), "set by the image"),
        element("span", element("span", class_="swatch box trained"), "trained"),
        class_="legend",
    )
    caption = " ".join([*drawing.notes, f"The whole circuit is in {CIRCUIT}."])
    figure = element("div", Markup(drawing.svg), class_="scroll")
    return element("figure", legend, figure, element("figcaption", caption))
