from pathlib import Path

import pytest

from qkd_qiskit import make_student
from qkd_qiskit.circuits import build_circuit
from qkd_qiskit.circuits.openqasm import dump_circuit
from qkd_qiskit.errors import CircuitError, StorageError, TargetError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.recipe.parsing import list_recipes, load_recipe
from qkd_qiskit.report.reference_circuits import (
    COST_BACKENDS,
    ReferenceCircuit,
    export_reference_circuits,
    list_reference_circuits,
    reference_circuit,
)
from qkd_qiskit.targets import Target

CIRCUITS = Path(__file__).parents[2] / "circuits"
EXPORT = "run: qkd circuits export circuits"


def test_the_zoo_holds_the_built_in_recipes_whose_student_is_a_circuit():
    with_circuit = {
        name for name in list_recipes() if load_recipe(name).student.kind in ("quantum", "hybrid")
    }
    assert with_circuit == set(list_reference_circuits()) & set(list_recipes())
    assert "slides_q2c" not in list_reference_circuits()  # a convolution


@pytest.mark.parametrize("name", list_reference_circuits())
def test_the_files_of_the_zoo_are_those_of_the_code(name):
    kept = CIRCUITS / f"{name}.qasm"
    assert kept.is_file(), EXPORT
    assert kept.read_text() == dump_circuit(reference_circuit(name).circuit), EXPORT
    assert (CIRCUITS / f"{name}.svg").stat().st_size < 1_000_000
    assert f"[{name}]({name}.qasm)" in (CIRCUITS / "README.md").read_text(), EXPORT


def test_nothing_else_is_in_the_folder_of_the_zoo():
    suffixes = (".qasm", ".svg")
    expected = {f"{name}{suffix}" for name in list_reference_circuits() for suffix in suffixes} | {
        "README.md"
    }
    assert {path.name for path in CIRCUITS.iterdir()} == expected, EXPORT


def test_an_export_is_repeatable_byte_by_byte(tmp_path):
    first = export_reference_circuits(tmp_path / "a", names=["angle_4"], backends=["fake_manila"])
    second = export_reference_circuits(tmp_path / "b", names=["angle_4"], backends=["fake_manila"])
    assert [path.name for path in first] == ["angle_4.qasm", "angle_4.svg", "README.md"]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in second]
    assert "on fake_manila" in first[-1].read_text()


def test_a_deep_circuit_is_drawn_by_its_first_layers(tmp_path, monkeypatch):
    deep = ReferenceCircuit(
        description="deep", student=StudentSpec(qubits=2, ansatz="ry_rz_ring", layers=30)
    )
    monkeypatch.setattr("qkd_qiskit.report.reference_circuits.REFERENCES", {"deep": deep})
    export_reference_circuits(tmp_path, names=["deep"], backends=[])
    assert "(first 2 of 30 layers)" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "deep.svg").stat().st_size < 100_000
    assert "w_119" in (tmp_path / "deep.qasm").read_text()


def test_costs_on_a_line_are_those_of_the_circuit():
    chain = build_circuit(qubits=3, encoding="angle", ansatz="real_amplitudes", layers=2).circuit
    compiled = Target.parse("fake_manila").compile(chain)
    assert compiled.two_qubit_gates == chain.num_nonlocal_gates() == 4


@pytest.mark.slow
@pytest.mark.parametrize("backend", COST_BACKENDS)
@pytest.mark.parametrize(
    "name", [name for name in list_reference_circuits() if name.endswith("_4")]
)
def test_four_qubit_references_stay_affordable_on_devices(name, backend):
    assert Target.parse(backend).compile(reference_circuit(name).circuit).two_qubit_gates <= 40


def test_unknown_names_and_unwritable_folders_are_refused(tmp_path):
    with pytest.raises(CircuitError, match=r"'lion' is not in the zoo; give one of .*angle_4"):
        reference_circuit("lion")
    with pytest.raises(TargetError, match="fake_lion"):
        export_reference_circuits(tmp_path / "zoo", names=["angle_4"], backends=["fake_lion"])
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot write"):
        export_reference_circuits(tmp_path / "file", names=["angle_4"], backends=[])


@pytest.mark.parametrize(
    "name",
    ["cz_line_4", "heavy_hex_12", "real_amplitudes_4", "matrix_product_6", "entangled_qubit_4"],
)
def test_students_shaped_for_devices_are_not_routed(name):
    circuit = reference_circuit(name).circuit
    assert (
        Target.parse("fake_torino").compile(circuit).two_qubit_gates == circuit.num_nonlocal_gates()
    )


@pytest.mark.parametrize("name", ["digits_device", "mnist_device", "fashion_mnist_device"])
def test_recipes_for_devices_stay_within_fifty_gates_and_train_nothing_but_the_circuit(name):
    spec = load_recipe(name).student
    compiled = Target.parse("fake_torino").compile(reference_circuit(name).circuit)
    assert compiled.two_qubit_gates == 48
    assert 4 <= spec.qubits <= 8
    assert (spec.kind, spec.head, spec.reduction) == ("quantum", "none", "pca")
    student = make_student(spec, image_shape=(1, 8, 8), num_classes=10)
    assert student.num_parameters == len(student.weights)
