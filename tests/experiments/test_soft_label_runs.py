"""Runs that are taught by soft labels of the user's own: what they learn, and what is said."""

import logging
import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from qkd_qiskit import DataSpec, TeacherSpec, load_data, make_teacher
from qkd_qiskit.cli import main
from qkd_qiskit.data.splits import Data
from qkd_qiskit.errors import DataError, RecipeError, TeacherError
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.results import Result
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report


@pytest.fixture(scope="module")
def digits():
    """Two digits, a trained network, and its logits of all images by their bytes."""
    data = load_data(DataSpec(classes=(3, 5)))
    teacher = make_teacher(TeacherSpec(epochs=3, lr=0.05), data, cache=False)
    parts = {"train": data.pool, "test": data.test}
    logits = {name: teacher.logits(split.images, cache=False) for name, split in parts.items()}
    return (
        data,
        teacher,
        {
            "images": data.pool.images.numpy(),
            "labels": data.pool.labels.numpy(),
            "test_images": data.test.images.numpy(),
            "test_labels": data.test.labels.numpy(),
            "teacher_logits": logits["train"].numpy(),
            "teacher_logits_test": logits["test"].numpy(),
        },
    )


def without(content, *names):
    return {name: value for name, value in content.items() if name not in names}


def begin(tiny, path, content, **changes):
    np.savez(path / "own.npz", **content)
    keys = {
        "data.name": "arrays",
        "data.file": str(path / "own.npz"),
        "data.classes": None,
        "data.test_per_class": None,
        "teacher.kind": "logits",
        "targets": ["exact"],
        "seeds": 2,
    }
    return RunFolder.create(path / "run", load_recipe(tiny, keys | changes))


def test_soft_labels_teach_as_the_network_that_gave_them(tiny, tmp_path, digits):
    _, network, content = digits
    folder = begin(tiny, tmp_path, content)
    result = run(folder, command="")
    data = load_data(folder.recipe.data, seed=0)
    teacher = load_teachers(folder, data).by_seed[0]
    for split in (data.pool, data.test):
        expected = network.logits(split.images, cache=False)
        torch.testing.assert_close(teacher.logits(split.images), expected)
    right = network.logits(data.pool.images).argmax(1) == data.pool.labels
    assert result.teacher.accuracy == pytest.approx(network.accuracy)
    assert result.teacher.train_accuracy == pytest.approx(float(right.double().mean()))
    assert np.sum(result.teacher.confusion) == len(data.test)
    assert all(value is not None for value in result.arms["distilled"]["exact"].agreement)
    assert not (folder.path / "teacher.safetensors").exists()
    page = write_report(folder).read_text(encoding="utf-8")
    assert "Soft labels of your own, right on" in page
    assert "of the training images and on" in page


def test_what_is_not_known_of_the_test_images_is_said_and_not_made_up(tiny, tmp_path, digits):
    folder = begin(tiny, tmp_path, without(digits[2], "teacher_logits_test"))
    result = run(folder, command="")
    assert (result.teacher.accuracy, result.teacher.confusion) == (None, None)
    assert result.arms["distilled"]["exact"].agreement == (None, None)
    assert result.arms["distilled"]["exact"].accuracy[0] > 0.5
    assert Result.from_json(result.to_json(), where="") == result == folder.result
    page = write_report(folder).read_text(encoding="utf-8")
    assert "what they would be on the test images is not known" in page
    assert re.search(r"\bnan\b", page.lower()) is None


LOGITS_ALONE = {"distill.ce_weight": 0.0, "distill.selection": "last", "seeds": 1}


def test_students_learn_what_the_logits_say_not_the_labels(tiny, tmp_path, digits):
    accuracies = []
    for name, change in (("a", 1.0), ("b", -1.0)):
        path = tmp_path / name
        path.mkdir()
        content = without(digits[2], "teacher_logits_test")
        content["teacher_logits"] = change * content["teacher_logits"]
        folder = begin(tiny, path, content, **LOGITS_ALONE)
        accuracies.append(run(folder, command="").arms["distilled"]["exact"].accuracy[0])
    assert accuracies[0] > 0.8
    assert accuracies[1] < 0.2


def test_columns_in_another_order_are_noticed(digits, caplog):
    content = digits[2]
    odd = Data.from_arrays(
        content["images"], content["labels"], teacher_logits=content["teacher_logits"][:, ::-1]
    )
    with caplog.at_level(logging.WARNING):
        make_teacher(TeacherSpec(kind="logits"), odd, cache=False)
    assert "no better than chance; it must have been trained on the same classes" in caplog.text


def test_a_changed_file_is_not_taken_for_the_old_one(tiny, tmp_path, digits):
    folder = begin(tiny, tmp_path, digits[2])
    changed = digits[2] | {"teacher_logits": 2 * digits[2]["teacher_logits"]}
    np.savez(tmp_path / "own.npz", **changed)
    with pytest.raises(DataError, match="has changed since the run began"):
        run(folder, command="")


def test_the_same_image_with_other_logits_is_said(digits, caplog):
    data = digits[0]
    twice = torch.cat([data.pool.images[:1], data.pool.images])
    labels = torch.cat([data.pool.labels[:1], data.pool.labels])
    logits = torch.randn(len(labels), 2)
    own = Data.from_arrays(
        twice,
        labels,
        test=(data.test.images, data.test.labels),
        teacher_logits=logits,
        validation_fraction=0.01,
    )
    with caplog.at_level(logging.WARNING):
        make_teacher(TeacherSpec(kind="logits"), own, cache=False)
    assert "1 images occur again with other outputs of the teacher" in caplog.text


def test_where_there_are_none_is_refused_before_work(tiny, tmp_path, digits):
    with pytest.raises(RecipeError, match=r"teacher\.kind: 'logits' is not accepted; give a netw"):
        load_recipe(tiny, {"teacher.kind": "logits"})
    with pytest.raises(TeacherError, match=r"'logits' is not accepted for digits, which has none"):
        make_teacher(TeacherSpec(kind="logits"), digits[0])
    folder = begin(tiny, tmp_path, without(digits[2], "teacher_logits", "teacher_logits_test"))
    with pytest.raises(TeacherError, match=r"not accepted for own\.npz, which has none; give an"):
        run(folder, command="")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher.ensemble": 2}, r"teacher\.ensemble: 2 .* teacher\.kind is logits, which trains"),
        ({"teacher.same_draw": True}, r"teacher\.same_draw: True .* another kind where"),
        ({"teacher.checkpoint": "a"}, r"teacher\.checkpoint: 'a' .* another kind where"),
        ({"arms": ["distilled", "untrained_teacher"]}, "arms without untrained_teacher where"),
        (
            {
                "distill.feature_weight": 1.0,
                "distill.teacher_layer": "a",
                "distill.student_layer": "b",
            },
            r"distill\.feature_weight: 1\.0 is not accepted; give 0 where teacher\.kind is logits",
        ),
    ],
)
def test_what_takes_a_network_is_refused(tiny, changes, message):
    own = {"data.name": "arrays", "data.file": "a.npz", "data.classes": None}
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny, own | {"teacher.kind": "logits"} | changes)


def test_the_command_ends_with_what_is_known(tiny, tmp_path, digits, capsys):
    np.savez(tmp_path / "own.npz", **without(digits[2], "teacher_logits_test"))
    words = f"distill {tiny} --data.name arrays --data.file {tmp_path}/own.npz --data.classes null"
    words += " --data.test_per_class null --teacher.kind logits --targets exact --seeds 1"
    assert main([*words.split(), "--out", str(tmp_path / "run")]) == 0
    told = capsys.readouterr()
    assert "teacher (logits)" in told.out + told.err
    assert "not known" in told.out + told.err


def test_shuffled_and_mean_labels_are_controls_of_soft_labels_too(tiny, tmp_path, digits):
    arms = ["label_only", "distilled", "shuffled_teacher", "class_mean_labels", "label_smoothing"]
    content = without(digits[2], "teacher_logits_test")
    folder = begin(tiny, tmp_path, content, arms=arms, seeds=1)
    recipe = replace(folder.recipe, targets=("exact",))
    assert set(run(folder, command="").arms) == set(recipe.arms)
