"""The closed form of a student gives its logits, and once exported needs nothing of ours."""

import subprocess
import sys

import pytest
import torch
from qiskit import QuantumCircuit
from qiskit.circuit import Parameter

from qkd_qiskit.errors import CircuitError, InputError
from qkd_qiskit.recipe import StudentSpec
from qkd_qiskit.students.factory import make_student
from qkd_qiskit.students.surrogate import (
    export_onnx,
    export_surrogate,
    largest_difference,
    make_surrogate,
)

SHAPE = (1, 4, 4)
BINS = {"kind": "quantum", "head": "none", "readout": "bins"}
CASES = {
    "amplitude bins": (BINS | {"reduction": "none", "ansatz": "ry_rz_ring"}, "quadratic", 3 * 256),
    "amplitude hybrid": ({"reduction": "linear"}, "quadratic", 3 * 256),
    "amplitude mlp": ({"reduction": "linear", "head": "mlp", "qubits": 3}, "quadratic", 8 * 64),
    "learned bins": (BINS | {"reduction": "none", "readout": "learned"}, "quadratic", 3 * 256),
    "pca angle": (
        {"encoding": "angle", "reduction": "pca", "readout": "expectation", "qubits": 3},
        "fourier",
        3 * 27,
    ),
    "cnn angle": ({"encoding": "angle", "reduction": "cnn", "qubits": 2}, "fourier", 3 * 9),
    "reuploading": (
        BINS | {"encoding": "reuploading", "reduction": "avg_pool", "qubits": 2, "layers": 3},
        "fourier",
        3 * 49,
    ),
    "qubit": (
        BINS | {"encoding": "qubit", "reduction": "crop", "qubits": 2, "ansatz": "cz_line"},
        "fourier",
        3 * 3**8,
    ),
    "no entanglers": ({"kind": "no_entanglers"}, "quadratic", 3 * 256),
}


def student_of(changes, **options):
    student = make_student(
        StudentSpec(**changes), image_shape=SHAPE, num_classes=3, seed=4, **options
    )
    with torch.no_grad():
        student.weights.uniform_(-3, 3)
    student.fit(images())
    return student


def images(count=40):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)) + 0.01


@pytest.mark.parametrize("case", list(CASES))
def test_outputs_equal_those_of_the_student(case):
    changes, kind, numbers = CASES[case]
    student = student_of(changes)
    surrogate = make_surrogate(student)
    assert (surrogate.kind, surrogate.numbers) == (kind, numbers)
    assert largest_difference(surrogate, student, images()) < 1e-6
    with torch.no_grad():
        logits = student(images())
    assert float(logits.std()) > 1e-3
    torch.testing.assert_close(surrogate(images()).float(), logits, atol=1e-3, rtol=1e-3)


def test_an_own_circuit_in_angles():
    x, w = [Parameter(f"x_00{k}") for k in range(2)], Parameter("w_000")
    circuit = QuantumCircuit(2)
    circuit.ry(x[0], 0)
    circuit.rx(x[1], 1)
    circuit.cx(0, 1)
    circuit.ry(w, 1)
    circuit.rzz(x[0], 0, 1)
    circuit.ry(x[0], 0)
    student = student_of({"reduction": "linear"}, circuit=circuit)
    surrogate = make_surrogate(student)
    assert surrogate.core.degrees == (3, 1)
    assert largest_difference(surrogate, student, images()) < 1e-6
    circuit.ry(2 * x[1], 0)
    with pytest.raises(CircuitError, match="not, as it is, the angle of rotations"):
        make_surrogate(student_of({"reduction": "linear"}, circuit=circuit))


def test_what_is_too_large_is_refused_in_a_line():
    spec = {"encoding": "angle", "reduction": "linear", "qubits": 14}
    with pytest.raises(CircuitError, match=r"has 14,348,907 numbers, more than the 4,194,304"):
        make_surrogate(student_of(spec))


def test_an_exported_surrogate_needs_nothing_of_this_package(tmp_path):
    student = student_of({"reduction": "linear", "qubits": 2})
    surrogate = make_surrogate(student)
    export_surrogate(surrogate, tmp_path / "student.pt2", image_shape=SHAPE)
    torch.save(images(7), tmp_path / "images.pt")
    code = (
        "import sys, torch\n"
        "module = torch.export.load('student.pt2').module()\n"
        "torch.save(module(torch.load('images.pt')), 'logits.pt')\n"
        "assert not [name for name in sys.modules if name.startswith(('qkd', 'qiskit'))]\n"
    )
    subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, check=True)
    torch.testing.assert_close(torch.load(tmp_path / "logits.pt"), surrogate(images(7)))


def test_without_onnxscript_one_line_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    surrogate = make_surrogate(student_of({"reduction": "linear"}))
    with pytest.raises(InputError, match=r"pip install 'qkd-qiskit\[onnx\]', or leave --onnx out"):
        export_onnx(surrogate, tmp_path / "student.onnx", image_shape=SHAPE)
    assert not (tmp_path / "student.onnx").exists()


@pytest.mark.parametrize("case", ["amplitude bins", "amplitude mlp", "pca angle", "reuploading"])
def test_an_onnx_file_gives_the_logits_of_the_surrogate(case, tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    surrogate, path = make_surrogate(student_of(CASES[case][0])), tmp_path / "new" / "student.onnx"
    export_onnx(surrogate, path, image_shape=SHAPE)
    (logits,) = runtime.InferenceSession(path).run(["logits"], {"images": images(7).numpy()})
    torch.testing.assert_close(torch.as_tensor(logits), surrogate(images(7)), atol=1e-6, rtol=0)
