"""Students of an earlier run teach: which, where, kept how, and when they do not fit."""

import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.functional import softmax

from qkd_qiskit import DistillSpec, Run, TeacherSpec, distill, load_data, make_student, make_teacher
from qkd_qiskit.cli import main
from qkd_qiskit.errors import CheckpointError, QKDError, RecipeError, TeacherError
from qkd_qiskit.experiments.evaluation import exact_logits, logits_on
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.parsing import dump_recipe, load_recipe, parse_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.students.factory import load_student
from qkd_qiskit.targets import Target


def taught_recipe(tiny, earlier, **changes):
    keys = {"teacher.kind": "run", "teacher.run": str(earlier.path), "targets": ["exact"]}
    arms = {"arms": ["label_only", "distilled"], "student.layers": 2}
    return load_recipe(tiny, keys | arms | {f"teacher.{key}": it for key, it in changes.items()})


def begin(tiny, earlier, path, **changes):
    return RunFolder.create(path, taught_recipe(tiny, earlier, **changes))


def logits_of(earlier, data, *, arm="distilled", seed=0):
    return exact_logits(load_student(earlier.member(arm, seed)), data.test.images)


@pytest.fixture(scope="module")
def data(finished):
    return load_data(finished.recipe.data, seed=0)


def test_students_are_taught_by_the_ensemble_of_all_seeds(tiny, finished, data, tmp_path):
    folder = begin(tiny, finished, tmp_path / "run")
    result = run(folder, command="")
    teacher = load_teachers(folder, data).by_seed[1]
    members = torch.stack([logits_of(finished, data, seed=seed) for seed in (0, 1)])
    expected = softmax(members, dim=-1).mean(dim=0)
    torch.testing.assert_close(softmax(teacher.logits(data.test.images), 1), expected)
    right = expected.argmax(dim=1) == data.test.labels
    assert result.teacher.accuracy == pytest.approx(float(right.double().mean()))
    assert len(result.teacher.members) == 2
    size = load_student(finished.member("distilled", 0)).num_parameters
    assert result.teacher.parameters == 2 * size > 0
    assert result.teacher.title == "2 × run"
    page = write_report(folder).read_text(encoding="utf-8")
    assert "An ensemble of students of the run run (arm distilled, 2 seeds)" in page
    spec = load_student(folder.member("distilled", 0)).spec
    assert spec.layers == 2 != load_student(finished.member("distilled", 0)).spec.layers


def test_one_seed_or_each_its_own(tiny, finished, data, tmp_path):
    one = begin(tiny, finished, tmp_path / "one", seed=1, arm="label_only")
    teacher = load_teachers(one, data, train=True).by_seed[0]
    torch.testing.assert_close(
        teacher.logits(data.test.images), logits_of(finished, data, arm="label_only", seed=1)
    )
    each = begin(tiny, finished, tmp_path / "each", seed="each")
    result = run(each, command="")
    teachers = load_teachers(each, data)
    for seed in (0, 1):
        expected = logits_of(finished, data, seed=seed)
        torch.testing.assert_close(teachers.by_seed[seed].logits(data.test.images), expected)
    assert len(result.teacher.accuracies) == 2
    page = write_report(each).read_text(encoding="utf-8")
    assert "Each seed is taught by the student of the same seed." in page


def test_a_noisy_circuit_teaches_what_it_gives_there(tiny, finished, data, tmp_path):
    folder = begin(tiny, finished, tmp_path / "run", seed=0, target="fake_manila:exact")
    teacher = load_teachers(folder, data, train=True).by_seed[0]
    student = load_student(finished.member("distilled", 0))
    target = Target.parse("fake_manila:exact")
    expected, _ = logits_on(student, data.test.images, target=target)
    torch.testing.assert_close(teacher.logits(data.test.images), expected)
    assert not torch.allclose(expected, logits_of(finished, data), atol=1e-3)
    shots = begin(tiny, finished, tmp_path / "shots", seed=0, target="aer")
    sampled = [
        load_teachers(shots, data, train=True).by_seed[0].logits(data.test.images, cache=False)
        for _ in range(2)
    ]
    assert torch.equal(*sampled)
    assert not torch.allclose(sampled[0], logits_of(finished, data), atol=1e-3)


def test_the_run_keeps_its_teachers_and_never_takes_changed_ones(tiny, finished, data, tmp_path):
    earlier = tmp_path / "earlier"
    shutil.copytree(finished.path, earlier)
    folder = begin(tiny, RunFolder.open(earlier), tmp_path / "run", seed=0)
    assert len(folder.recipe.teacher.digest) == 64
    assert RunFolder.open(folder.path).recipe == folder.recipe
    # Another seed's weights in the place of those that were named.
    shutil.copy2(earlier / "distilled/seed_1/weights.safetensors", earlier / "distilled/seed_0")
    with pytest.raises(TeacherError, match="have changed since this run began"):
        load_teachers(folder, data, train=True)
    shutil.copy2(
        finished.member("distilled", 0) / "weights.safetensors", earlier / "distilled/seed_0"
    )
    before = load_teachers(folder, data, train=True).by_seed[0].logits(data.test.images)
    shutil.rmtree(earlier)
    again = load_teachers(folder, data, train=True).by_seed[0].logits(data.test.images)
    assert torch.equal(before, again)
    (folder.path / "teachers/seed_0/student.json").write_text("{}")
    with pytest.raises(CheckpointError, match="does not hold the students that teach in this run"):
        load_teachers(folder, data)


def test_a_stopped_copy_is_made_again(tiny, finished, data, tmp_path):
    folder = begin(tiny, finished, tmp_path / "run")
    with pytest.raises(CheckpointError, match="does not hold the students"):
        load_teachers(folder, data)
    (folder.path / "teachers/seed_7").mkdir(parents=True)
    assert len(load_teachers(folder, data, train=True).by_seed[0].members) == 2
    assert sorted(p.name for p in (folder.path / "teachers").glob("seed_*")) == ["seed_0", "seed_1"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"run": "nowhere"}, r"teacher\.run: .*nowhere holds no run"),
        (
            {"arm": "transfer"},
            r"teacher\.arm: 'transfer' is no arm of .*; give one of label_only, d",
        ),
        (
            {"seed": 5},
            r"teacher\.seed: 5 needs the seed 5, which .* does not have; give one of 0, 1",
        ),
        ({"ensemble": 2}, r"teacher\.ensemble: 2 is not accepted; give another kind where"),
        (
            {"seed": "some"},
            r"teacher\.seed: 'some' is not accepted; give a whole number .* or one o",
        ),
        ({"run": None}, r"teacher\.run: None is not accepted; give the folder of a run exactly"),
    ],
)
def test_what_is_not_there_is_refused_when_the_run_begins(
    tiny, finished, tmp_path, changes, message
):
    with pytest.raises(QKDError, match=message):
        begin(tiny, finished, tmp_path / "run", **changes)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.classes": [3, 5, 8]}, r"has the classes 3, 5, this run 3, 5, 8; give a run on the"),
        ({"data.classes": [5, 3]}, r"has the classes 3, 5, this run 5, 3; give a run on the same"),
        ({"data.scale": "standard"}, r"has data\.scale none, this run standard; its students"),
        ({"seed": 1}, r"of the 40 test images of this run are among the training images of"),
        (
            {"teacher.arm": "classical_twin", "teacher.target": "fake_manila"},
            r"teacher\.target: 'fake_manila' is not accepted for .*classical without a circuit",
        ),
        ({"teacher.target": "fake_nowhere"}, "fake_nowhere"),
    ],
)
def test_a_run_of_other_images_is_refused_before_training(
    tiny, finished, tmp_path, changes, message
):
    recipe = load_recipe(
        tiny,
        {"teacher.kind": "run", "teacher.run": str(finished.path), "targets": ["exact"], **changes},
    )
    folder = RunFolder.create(tmp_path / "run", recipe)
    with pytest.raises(QKDError, match=message) as raised:
        run(folder, command="")
    assert "\n" not in str(raised.value)
    assert not (folder.path / "checkpoints").exists()


def test_other_shapes_are_refused(finished, tmp_path):
    changes = {
        "data": {"name": "generated", "points": 90, "features": 8},
        "teacher": {"kind": "run", "run": str(finished.path)},
        "targets": ["exact"],
    }
    (tmp_path / "earlier").mkdir()
    shutil.copytree(finished.path, tmp_path / "earlier", dirs_exist_ok=True)
    (tmp_path / "earlier/result.json").unlink()  # its classes are then not known
    changes["teacher"]["run"] = str(tmp_path / "earlier")
    folder = RunFolder.create(tmp_path / "run", parse_recipe(changes))
    with pytest.raises(
        TeacherError, match=r"takes images of shape \(1, 8, 8\) in 2 classes, the da"
    ):
        run(folder, command="")


def test_in_python_a_run_gives_a_teacher(finished, data):
    earlier = Run.open(finished.path)
    one = earlier.as_teacher(data, seed=1)
    torch.testing.assert_close(one.logits(data.test.images), logits_of(finished, data, seed=1))
    both = earlier.as_teacher(data)
    assert [member.digest for member in both.members][1] == one.digest
    spec = replace(finished.recipe.student, layers=2)
    student = make_student(spec, image_shape=data.image_shape, num_classes=2)
    distill(student, both, data, spec=DistillSpec(epochs=1))
    assert np.isfinite(both.accuracy)
    with pytest.raises(TeacherError, match=r"teacher\.arm: 'transfer' is no arm of"):
        earlier.as_teacher(data, arm="transfer")
    spec = TeacherSpec(kind="run", run="runs/deep")
    with pytest.raises(
        TeacherError, match=r"Run\.open\('runs/deep'\)\.as_teacher\(data, arm='dist"
    ):
        make_teacher(spec, data)


def test_the_command_takes_it_and_resumes(tiny, finished, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(finished.path.parent)
    words = f"distill {tiny} --teacher.kind run --teacher.run {finished.path.name} --teacher.seed 0"
    words += f" --targets exact --seeds 1 --student.layers 2 --out {tmp_path / 'run'}"
    assert main(words.split()) == 0
    told = capsys.readouterr()
    assert "teacher (run)" in told.out + told.err
    monkeypatch.chdir(tmp_path)
    assert main(["distill", "--resume", str(tmp_path / "run")]) == 0


def test_a_recipe_without_a_run_is_written_as_ever(tiny, finished):
    text = dump_recipe(load_recipe(tiny))
    for key in ("run", "arm", "seed", "target", "digest"):
        assert f" {key}: " not in text.partition("teacher:")[2].partition("student:")[0]
    kept = dump_recipe(taught_recipe(tiny, finished, seed="each"))
    assert "seed: each" in kept
    with pytest.raises(RecipeError, match=r"teacher\.run: '.*' is not accepted"):
        load_recipe(tiny, {"teacher.run": "a"})
