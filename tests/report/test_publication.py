"""A published run: whole, loadable by Qiskit alone, and without anything of this computer."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from qiskit import qasm3, qpy
from qiskit.quantum_info import Statevector

from qkd_qiskit import Run, load_recipe, load_student, run_experiment
from qkd_qiskit.cli import main
from qkd_qiskit.errors import CheckpointError, CircuitError
from qkd_qiskit.experiments.simulator_check import parameter_values
from qkd_qiskit.report import bound_circuits
from qkd_qiskit.report.model_card import teacher_saw
from qkd_qiskit.report.publication import portable
from qkd_qiskit.targets import Target


@pytest.fixture(scope="module")
def published(finished, tmp_path_factory):
    return Run.open(Run(finished).export(tmp_path_factory.mktemp("published") / "folder"))


def statevector_probabilities(circuit, values):
    bound = circuit.assign_parameters({it: values[it.name] for it in circuit.parameters})
    return Statevector(bound).probabilities()


def assert_has_the_probabilities_of(folder, images):
    """What Qiskit loads gives what the student's circuit gives on the exact target."""
    student, target = load_student(folder), Target.parse("exact")
    compiled = target.compile(student.circuit)
    rows = parameter_values(student, images, names=compiled.parameters)
    expected = target.probabilities(compiled, rows, shots=None, seed=0)
    with (folder / "bound.qpy").open("rb") as file:
        (from_qpy,) = qpy.load(file)
    for circuit in (qasm3.load(str(folder / "bound.qasm")), from_qpy):
        assert {it.name for it in circuit.parameters} == set(student.input_names)
        for row, probabilities in zip(rows, expected, strict=True):
            found = statevector_probabilities(
                circuit, dict(zip(compiled.parameters, row, strict=True))
            )
            assert np.abs(found - probabilities).max() < 1e-9
    with torch.no_grad():
        logits = student.decode(torch.as_tensor(expected))
        assert torch.allclose(logits, student(student.features(images)), atol=1e-4)


def test_a_published_folder_is_a_run(published, finished):
    assert published.result == finished.result
    assert published.provenance == Run(finished).provenance
    assert published.recipe == finished.recipe
    for member in finished.members:
        own, copy = (load_student(it.member(*member)) for it in (finished, published.folder))
        for name, value in own.state_dict().items():
            assert torch.equal(copy.state_dict()[name], value)
    assert {path.name for path in published.path.iterdir()} == {
        *("README.md", "recipe.yaml", "result.json", "provenance.json", "report.html"),
        *("teacher.safetensors", "circuit.qasm", "label_only", "distilled", "classical_twin"),
    }


def test_qiskit_reads_circuits_that_give_the_students_probabilities(published):
    images = published.data.test.images[:5]
    for arm in ("label_only", "distilled"):
        for seed in (0, 1):
            assert_has_the_probabilities_of(published.folder.member(arm, seed), images)
    assert not list(published.folder.member("classical_twin", 0).glob("bound*"))


@pytest.mark.parametrize("encoding", ["amplitude", "reuploading", "qubit"])
def test_every_encoding_is_read(tiny, tmp_path, encoding):
    changes = {"student.encoding": encoding, "arms": ["distilled"], "seeds": 1, "student.layers": 2}
    recipe = load_recipe(tiny, changes | {"targets": ["exact"], "distill.epochs": 1})
    run = Run.open(run_experiment(recipe, out=tmp_path / "run").export(tmp_path / "out"))
    assert_has_the_probabilities_of(run.folder.member("distilled", 0), run.data.test.images[:3])


def test_an_own_circuit_and_its_path(tiny, tmp_path):
    own = 'OPENQASM 3.0;\ninclude "stdgates.inc";\ninput float[64] x_000;\ninput float[64] w_000;\n'
    (tmp_path / "own.qasm").write_text(own + "qubit[2] q;\nry(2*x_000) q[0];\nry(w_000) q[1];\n")
    changes = {"student.circuit": str(tmp_path / "own.qasm"), "arms": ["distilled"], "seeds": 1}
    recipe = load_recipe(tiny, changes | {"targets": ["exact"], "distill.epochs": 1})
    run_experiment(recipe, out=tmp_path / "run").export(tmp_path / "out")
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "own.qasm").unlink()
    for path in (tmp_path / "out").rglob("*"):
        if path.suffix in (".json", ".yaml", ".md", ".html", ".qasm"):
            assert str(tmp_path) not in path.read_text()
    run = Run.open(tmp_path / "out")
    assert_has_the_probabilities_of(run.folder.member("distilled", 0), run.data.test.images[:3])


def test_every_filter_of_a_quanvolution_is_written(tmp_path):
    from qkd_qiskit import StudentSpec, make_student

    spec = StudentSpec(kind="quanvolution")
    student = make_student(spec, image_shape=(1, 8, 8), num_classes=3, seed=1)
    paths = bound_circuits.write_bound_circuits(student, tmp_path)
    assert sorted(path.name for path in paths) == sorted(
        f"bound_filter_{number}.{kind}" for number in range(3) for kind in ("qasm", "qpy")
    )
    angles = torch.tensor([[0.3, 0.1, 0.7, 0.2]])
    for number in range(3):
        circuit = qasm3.load(str(tmp_path / f"bound_filter_{number}.qasm"))
        names = [f"x_{pixel:03d}" for pixel in range(4)]
        values = dict(zip(names, angles[0].tolist(), strict=True))
        probabilities = statevector_probabilities(circuit, values)
        value = sum(p * (1 - 2 * (outcome & 1)) for outcome, p in enumerate(probabilities))
        expected = student.filters.connector(number)(angles)
        assert value == pytest.approx(expected.item(), abs=1e-6)


def test_the_card_says_what_a_reader_has_to_know(published):
    text = (published.path / "README.md").read_text()
    accuracy = 100 * published.result.teacher.accuracy
    for part in (
        "library_name: qkd-qiskit",
        "# Softmax regression distilled into a 2-qubit circuit",
        "mean of 2 seeds (0, 1)",
        f"{accuracy:.1f} % on the test images",
        "The teacher was trained on all labelled images",
        "noise calibrated 20",
        "is a best case",
        f"`{published.provenance.data['test']}`",
        "- all packages and digests: `provenance.json`",
    ):
        assert part in text, part
    mean = 100 * sum(published.result.arms["distilled"]["exact"].accuracy) / 2
    assert f"| distilled | {mean:.1f} ±" in text


def test_the_python_of_the_card_runs(published, monkeypatch):
    monkeypatch.chdir(published.path)
    blocks = re.findall(r"^```python\n(.*?)^```", Path("README.md").read_text(), re.M | re.S)
    names = {}
    for block in blocks:
        exec(block, names)
    assert names["circuit"].num_qubits == 2
    assert names["student"].qubits == 2


def test_nothing_of_this_computer_is_in_it(finished, tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    run = shutil.copytree(finished.path, tmp_path / "run")
    content = json.loads((run / "result.json").read_text())
    content["command"] = f"qkd distill {tmp_path}/secret.yaml --out={tmp_path}"
    (run / "result.json").write_text(json.dumps(content))
    out = Run.open(run).export(tmp_path / "out")
    assert Run.open(out).result.command == "qkd distill ~/secret.yaml --out=~"
    for path in out.rglob("*"):
        if path.suffix in (".json", ".yaml", ".md", ".html", ".qasm", ".jsonl"):
            assert str(tmp_path) not in path.read_text(), path


def test_paths_of_a_recipe_become_names():
    recipe = load_recipe("digits", {"data.name": "arrays", "data.file": "/data/mine/own.npz"})
    assert portable(recipe).data.file == "own.npz"
    recipe = load_recipe("mnist", {"data.root": "/data", "teacher.checkpoint": "/a/b.safetensors"})
    assert portable(recipe).data.root is None
    assert portable(recipe).teacher.checkpoint == "teacher.safetensors"


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"same_draw": True}, "the same labelled images as its students and no others"),
        ({"checkpoint": "a.safetensors"}, "was not trained in this run"),
        ({"train_per_class": 5}, "trained on 5 labelled images per class"),
        ({}, "The students have seen fewer"),
    ],
)
def test_what_the_teacher_saw_is_said(changes, expected):
    recipe = load_recipe("digits")
    recipe = replace(recipe, teacher=replace(recipe.teacher, **changes))
    assert expected in teacher_saw(recipe, sample="image")
    everything = replace(recipe, data=replace(recipe.data, train_per_class=None))
    assert "seen fewer" not in teacher_saw(everything, sample="image")


def test_what_cannot_be_published_is_refused(finished, published, tmp_path, capsys):
    run = Run(finished)
    with pytest.raises(CheckpointError, match="is there already; give a new or empty folder"):
        run.export(published.path)
    unfinished = shutil.copytree(finished.path, tmp_path / "open")
    (unfinished / "result.json").unlink()
    assert main(["export", str(unfinished), "--out", str(tmp_path / "out")]) == 2
    assert "has not ended" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["export", str(finished.path), "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "README.md").exists()


def test_a_file_that_says_another_circuit_is_refused(finished, tmp_path, monkeypatch):
    student = load_student(finished.member("distilled", 0))
    other = load_student(finished.member("label_only", 1))
    text = qasm3.dumps(bound_circuits.bound_circuits(other)["bound"])
    monkeypatch.setattr(bound_circuits.qasm3, "dumps", lambda _: text)
    with pytest.raises(CircuitError, match="what Qiskit reads back differs by"):
        bound_circuits.write_bound_circuits(student, tmp_path)


def test_what_qiskit_cannot_read_is_there_as_qpy(finished, tmp_path, monkeypatch, caplog):
    student = load_student(finished.member("distilled", 0))
    monkeypatch.setattr(bound_circuits.qasm3, "dumps", lambda _: "OPENQASM 3.0;\nnothing")
    (path,) = bound_circuits.write_bound_circuits(student, tmp_path)
    assert path.name == "bound.qpy"
    assert "it is there as QPY alone" in caplog.text
