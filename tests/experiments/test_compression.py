"""A finished run compressed for a device: what is trained, counted, shown, resumed and refused."""

import json
import shutil

import pytest
import torch

import qkd_qiskit
from qkd_qiskit import Run, load_data
from qkd_qiskit.cli import main
from qkd_qiskit.errors import InputError, QKDError, RecipeError
from qkd_qiskit.experiments.callbacks import Callback
from qkd_qiskit.experiments.compression import (
    COMPRESSION,
    compression_rows,
    read_compression,
)
from qkd_qiskit.experiments.compression_plan import plan_compression
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.run import compress, resume_compression
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target

SMALL = {"student.qubits": 3, "distill.epochs": 2}
ASKED = {"target": "fake_manila", "max_two_qubit_gates": 5, "changes": SMALL}


@pytest.fixture(scope="module")
def compressed(finished, tmp_path_factory):
    return compress(Run(finished), **ASKED, out=tmp_path_factory.mktemp("compressed") / "run")


def test_every_depth_that_fits_is_trained_and_no_other(finished, compressed):
    record = read_compression(compressed.folder)
    assert [(it.layers, it.two_qubit_gates) for it in record.depths] == [(1, 2), (2, 4)]
    assert (record.refused, record.run) == (6, str(finished.path.absolute()))
    assert compressed.recipe.arms == ("label_only", "layers_1", "layers_2")
    device = Target.parse("fake_manila")
    for depth in record.depths:
        student = load_student(compressed.folder.member(depth.arm, 0))
        assert student.spec.layers == depth.layers
        assert device.compile(student.circuit).two_qubit_gates == depth.two_qubit_gates
        assert student.circuit.num_nonlocal_gates() == depth.two_qubit_gates  # nothing is routed
    assert load_student(compressed.folder.member("label_only", 0)).spec.layers == 2
    assert (
        record.teacher_gates
        == device.compile(load_student(finished.member("distilled", 0)).circuit).two_qubit_gates
    )


def test_the_student_of_its_seed_teaches_without_labels(finished, compressed):
    recipe = compressed.recipe
    assert (recipe.distill.ce_weight, recipe.distill.kd_weight) == (0, 1)
    assert recipe.arm_table["layers_1"].unlabelled
    data = load_data(recipe.data, seed=recipe.seed)
    teachers = load_teachers(compressed.folder, data)
    for seed in (0, 1):
        expected = exact_logits(load_student(finished.member("distilled", seed)), data.test.images)
        torch.testing.assert_close(teachers.by_seed[seed].logits(data.test.images), expected)


def test_rows_hold_the_means_of_all_seeds(compressed):
    result, record = compressed.result, read_compression(compressed.folder)
    assert list(result.targets) == ["exact", "fake_manila", "fake_manila, recalibrated"]
    rows = compression_rows(result, record)
    assert [row.arm for row in rows] == ["layers_1", "layers_2", "label_only"]
    for row in rows:
        for key, target in zip(("exact", "noisy", "recalibrated"), result.targets, strict=True):
            accuracies = result.arms[row.arm][target].accuracy
            assert getattr(row, key)[0] == pytest.approx(sum(accuracies) / 2)
            assert getattr(row, key)[1] is not None


def test_a_depth_begins_as_the_one_before(finished, tmp_path):
    still = {**SMALL, "distill.lr": 1e-9, "seeds": [1], "distill.epochs": 1}
    recipe, _ = plan_compression(finished, **ASKED | {"changes": still})
    run = qkd_qiskit.run_experiment(recipe, out=tmp_path / "run")
    images = run.data.test.images
    first, second = (exact_logits(run.student(f"layers_{n}"), images) for n in (1, 2))
    torch.testing.assert_close(first, second, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(second, exact_logits(run.student("label_only"), images), atol=1e-2)


def test_an_ensemble_or_the_classical_teacher_teach(finished):
    ensemble, _ = plan_compression(finished, **ASKED, teacher="ensemble")
    assert (ensemble.teacher.kind, ensemble.teacher.seed) == ("run", "all")
    classical, record = plan_compression(finished, **ASKED, teacher="classical")
    assert classical.teacher.checkpoint == str(finished.path.absolute() / "teacher.safetensors")
    assert (classical.teacher.kind, record.teacher) == (finished.recipe.teacher.kind, "classical")


def test_where_all_images_are_labelled_the_teacher_labels_them_anew(tiny, finished, tmp_path):
    shutil.copytree(finished.path, tmp_path / "whole")
    whole = load_recipe(tiny, {"data.train_per_class": None})
    folder = RunFolder(tmp_path / "whole", whole)
    recipe, _ = plan_compression(folder, **ASKED)
    assert recipe.own_arms["layers_1"]["base"] == "distilled"
    assert recipe.distill_of("layers_1").ce_weight == 0


def test_a_compression_that_was_stopped_goes_on_to_the_same_figures(finished, compressed, tmp_path):
    class Stop(Callback):
        def stage(self, name):
            if name == "layers_2":
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compress(Run(finished), **ASKED, out=tmp_path / "run", callback=Stop())
    run = resume_compression(tmp_path / "run")
    for arm in compressed.recipe.arms:
        for target in compressed.result.targets:
            mine, other = (it.result.arms[arm][target].accuracy for it in (run, compressed))
            assert mine == other


def test_the_command_shows_gates_and_accuracies(finished, tmp_path, capsys):
    words = [
        "compress",
        str(finished.path),
        "--target",
        "fake_manila",
        "--max-two-qubit-gates",
        "2",
    ]
    words += ["--student.qubits", "3", "--distill.epochs", "1", "--out", str(tmp_path / "run")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "compressed for fake_manila" in shown
    assert "The next depth takes 4 two-qubit gates; at most 2 were asked for." in shown
    assert "layers 1" in shown
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Two-qubit gates and accuracy" in page
    assert "two-qubit gates after transpiling" in page
    assert main(["compress", "--resume", str(tmp_path / "run"), "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert content["compression"]["depths"][0]["two_qubit_gates"] == 2
    assert [row["arm"] for row in content["rows"]] == ["layers_1", "label_only"]


def test_other_commands_take_the_run(compressed, tmp_path, capsys):
    path = tmp_path / "run"
    shutil.copytree(compressed.path, path)
    assert main(["evaluate", str(path), "--target", "fake_lima", "--shots", "20"]) == 0
    assert main(["recalibrate", str(path), "--target", "fake_lima", "--shots", "20"]) == 0
    words = ["--backend", "fake_manila", "--dry-run", "--shots", "20", "--limit", "5"]
    assert main(["submit", str(path), *words]) == 0
    assert "QPU" in capsys.readouterr().out
    page = write_report(RunFolder.open(path)).read_text(encoding="utf-8")
    assert "Two-qubit gates and accuracy" in page


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"max_two_qubit_gates": 1}, "takes 2 on fake_manila: give 2 or more"),
        ({"max_two_qubit_gates": 0}, "--max-two-qubit-gates: 0 is not accepted"),
        ({"grow_by": 0}, "--grow-by: 0 is not accepted"),
        ({"target": "exact"}, "'exact' has no coupling map"),
        ({"target": "aer"}, "'aer' has no coupling map"),
        ({"target": "fake_nowhere"}, "fake_nowhere"),
        ({"teacher": "me"}, "--teacher: 'me' is not accepted; give student, ensemble, classical"),
        ({"arm": "transfer"}, "has no arm 'transfer'; give one of label_only"),
        ({"changes": {"student.qubits": 12}}, "fake_manila has 5"),
        ({"changes": {"student.ansatz": "ry_rz_ring"}}, "such as ry_cz_line"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_line(finished, changes, part):
    with pytest.raises(QKDError, match=part) as caught:
        plan_compression(finished, **ASKED | changes)
    assert "\n" not in str(caught.value)


def test_keys_of_the_run_are_not_changed(finished):
    with pytest.raises(RecipeError, match=r"data.name: data and teacher are those of the run"):
        plan_compression(finished, **ASKED | {"changes": {"data.name": "mnist"}})


def test_the_most_layers_can_be_given(finished):
    changes = {**SMALL, "student.layers": 3}
    asked = {"max_two_qubit_gates": 50, "changes": changes}
    _, record = plan_compression(finished, **ASKED | asked, grow_by=2)
    assert ([it.layers for it in record.depths], record.refused) == ([2], None)


def test_a_quantum_student_grows_by_a_whole_line_of_bricks(finished):
    changes = {"student.kind": "quantum", "student.qubits": 4, "student.features": 20}
    recipe, record = plan_compression(
        finished, target="fake_manila", max_two_qubit_gates=10, changes=changes
    )
    student = recipe.student
    assert (student.encoding, student.ansatz) == ("trained_reuploading", "ry_cz_brick")
    assert (student.reduction, student.head, student.readout) == ("pca", "none", "bins")
    assert [(it.layers, it.two_qubit_gates) for it in record.depths] == [(2, 3), (4, 6), (6, 9)]
    features = [recipe.student_of(it.arm).features for it in record.depths]
    assert features == [16, 20, 20]


def test_a_run_that_was_taught_by_students_has_no_classical_teacher(compressed):
    with pytest.raises(InputError, match="not by a classical teacher; give student or ensemble"):
        plan_compression(compressed.folder, **ASKED, arm="layers_2", teacher="classical")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["RUN"], "--target and --max-two-qubit-gates missing"),
        (["RUN", "--resume", "DIR"], "leave one of them out"),
        (["--resume", "RUN"], "was not compressed from another"),
        (["RUN", "--target", "fake_manila", "--max-two-qubit-gates", "x"], "whole number"),
        (["RUN", "--data.name", "mnist"], "data.name"),
    ],
)
def test_wrong_words_are_one_line(finished, words, part, capsys):
    given = [str(finished.path) if word == "RUN" else word for word in words]
    assert main(["compress", *given]) == 2
    error = capsys.readouterr().err
    assert part in error
    assert error.count("\n") == 1


def test_nothing_is_left_of_what_was_refused(finished, tmp_path, monkeypatch):
    def refuse(*args, **options):
        raise InputError("no")

    monkeypatch.setattr("qkd_qiskit.run.run", refuse)
    with pytest.raises(InputError, match="no"):
        compress(Run(finished), **ASKED, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert COMPRESSION == "compression.json"
