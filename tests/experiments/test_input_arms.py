"""The arms of other inputs and of a teacher with the student's own images, in a real run."""

import json

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.experiments.arms import draw_images
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.teachers import load_same_draw_teachers, load_teachers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report

ARMS = [
    "label_only",
    "distilled",
    "distilled_same_draw",
    "augmented",
    "label_only_augmented",
    "transfer",
    "self_training",
    "transfer_augmented",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny):
    changes = {"arms": ARMS, "targets": ["exact"], "seeds": 2, "distill.copies": 3}
    folder = RunFolder.create(tmp_path_factory.mktemp("arms") / "run", load_recipe(tiny, changes))
    run(folder)
    return folder


def test_every_arm_is_trained_as_long(folder):
    assert set(folder.result.arms) == set(ARMS)
    for arm in ARMS:
        assert folder.metrics(arm, 0)
        weights = folder.member(arm, 0) / "weights.safetensors"
        assert (
            weights.read_bytes()
            != (
                folder.member("label_only" if arm != "label_only" else "distilled", 0)
                / "weights.safetensors"
            ).read_bytes()
        )


def test_a_teacher_of_the_same_draw_has_seen_that_draw(folder):
    data = load_data(folder.recipe.data, seed=folder.recipe.seed)
    alike = load_same_draw_teachers(folder, data)
    shared = load_teachers(folder, data)
    assert len(alike.teachers) == 2
    assert len(shared.teachers) == 1
    first, second = (teacher.logits(data.test.images) for teacher in alike.teachers)
    assert not torch.equal(first, second)
    assert not torch.equal(first, shared.teachers[0].logits(data.test.images))
    assert (folder.path / "teachers" / "seed_0.safetensors").exists()


def test_a_rerun_trains_nothing_again(folder):
    before = {path: path.stat().st_mtime_ns for path in folder.path.rglob("*.safetensors")}
    run(folder)
    assert before == {path: path.stat().st_mtime_ns for path in folder.path.rglob("*.safetensors")}


def test_the_report_says_what_the_teacher_has_seen(folder):
    text = write_report(folder).read_text()
    assert "The teacher has seen all labelled images" in text
    assert "self-training" in text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"distill.augment": "mixup"}, "reads labels, which mixup has none of"),
        (
            {"teacher.checkpoint": "weights.safetensors", "arms": ["distilled_same_draw"]},
            "trains teachers of its own",
        ),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, tiny, changes, message):
    recipe = load_recipe(tiny, {"targets": ["exact"]} | changes)
    from qkd_qiskit.experiments.arms import check_arms

    with pytest.raises(RecipeError, match=message):
        check_arms(recipe)


def test_students_of_unlabelled_images_of_ones_own(tmp_path, tiny, caplog):
    """All labels are used, and the arms without labels see the unlabelled images."""
    stream = np.random.default_rng(0)
    labels, others = np.arange(90) % 2, np.arange(60) % 2
    images, unlabelled = (stream.random((len(it), 6)) + it[:, None] / 2 for it in (labels, others))
    np.savez(tmp_path / "own.npz", images=images, labels=labels, unlabelled=unlabelled)
    np.savez(tmp_path / "labels.npz", images=images, labels=labels)
    changes = {
        "data.name": "arrays",
        "data.file": str(tmp_path / "own.npz"),
        "data.classes": None,
        "data.train_per_class": None,
        "data.test_per_class": None,
        "distill.unlabelled": 1,
        "arms": ["label_only", "distilled", "transfer", "self_training"],
        "targets": ["exact"],
    }
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, changes))
    run(folder)
    assert set(folder.result.arms) == set(changes["arms"])
    assert "unlabelled" not in caplog.text
    labelled = load_recipe(tiny, changes | {"arms": ["label_only"]})
    run(RunFolder.create(tmp_path / "labelled", labelled))
    assert "the data's 60 unlabelled images are not used by these arms" in caplog.text
    provenance = json.loads((folder.path / "provenance.json").read_text())
    assert set(provenance["data"]) == {"pool", "validation", "test", "unlabelled"}
    data = load_data(folder.recipe.data, seed=folder.recipe.seed)
    rows = draw_images("transfer", folder.recipe, data, seed=1)
    assert (rows >= len(data.pool)).sum() == min(60, len(data.pool))
    assert len(draw_images("distilled", folder.recipe, data, seed=1)) == len(data.pool)
    without = changes | {"data.file": str(tmp_path / "labels.npz")}
    with pytest.raises(RecipeError, match=r"leaves none; give .* unlabelled images of your own"):
        run(RunFolder.create(tmp_path / "none", load_recipe(tiny, without)))
    assert not (tmp_path / "none" / "teacher.safetensors").exists()
