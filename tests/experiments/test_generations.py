"""Arms that students of other arms teach: self-distillation, generations, circuit to circuit."""

import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.trainer import DistillationData
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.experiments import tasks
from qkd_qiskit.experiments.arms import loss_weights
from qkd_qiskit.experiments.evaluation import exact_logits
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.task_examples import task_examples
from qkd_qiskit.experiments.teachers import load_teachers
from qkd_qiskit.experiments.workers import Workers
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.report.report import write_report
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.factory import load_student

ARMS = ["label_only", "distilled", "self_distilled", "generation_3", "generation_2", "shallow"]
OWN = {"shallow": {"taught_by": "distilled", "student.layers": 2}}


def make_recipe(tiny, **changes):
    return load_recipe(tiny, {"arms": ARMS, "own_arms": OWN, "targets": ["exact"], **changes})


@pytest.fixture(scope="module")
def generations(tiny, tmp_path_factory):
    folder = RunFolder.create(tmp_path_factory.mktemp("generations") / "run", make_recipe(tiny))
    run(folder, command="")
    return folder


def weights(folder, arm, seed=0):
    return load_tensors(folder.member(arm, seed) / "weights.safetensors")[0]


def test_an_arm_is_trained_after_the_one_that_teaches_it(tiny, tmp_path):
    folder = RunFolder.create(tmp_path / "run", make_recipe(tiny))
    order = [{arm for task in tasks_ for arm in task.arms} for tasks_ in tasks.rounds(folder)]
    assert order == [
        {"label_only", "distilled"},
        {"self_distilled", "generation_2", "shallow"},
        {"generation_3"},
    ]


def test_without_such_arms_all_tasks_are_one_round(finished):
    assert list(tasks.rounds(finished)) == [tasks.training_tasks(finished.recipe)]


@pytest.mark.parametrize(
    ("arm", "teacher"),
    [
        ("self_distilled", "label_only"),
        ("generation_2", "distilled"),
        ("generation_3", "generation_2"),
        ("shallow", "distilled"),
    ],
)
def test_each_student_learns_from_the_student_of_its_seed(generations, arm, teacher):
    data = load_data(generations.recipe.data, seed=0)
    (task,) = (task for task in tasks.training_tasks(generations.recipe) if arm in task.arms)
    shape = tasks.new_student(generations.recipe, data, arm=arm)
    taught_by = load_teachers(generations, data)
    examples = task_examples(generations, data, taught_by, shape=shape, members=task.members)
    logits = DistillationData.batch(examples, examples.draws)[2]
    for place, (_, seed) in enumerate(task.members):
        student = load_student(generations.member(teacher, seed))
        expected = exact_logits(student, data.pool.images[examples.draws[place]])
        torch.testing.assert_close(logits[place], expected, atol=1e-5, rtol=0)
    assert not torch.allclose(logits[0], logits[1])


def test_what_it_is_taught_is_what_it_learns(tiny, tmp_path):
    """With the teacher's logits alone a student does as its teacher, right or wrong."""
    changes = {
        "arms": ["distilled", "generation_2"],
        "distill.ce_weight": 0.0,
        "distill.epochs": 30,
        "distill.selection": "last",
        "seeds": 1,
    }
    folder = RunFolder.create(tmp_path / "run", make_recipe(tiny, **changes))
    run(folder, command="")
    data = load_data(folder.recipe.data, seed=0)
    rows = data.draw_for(folder.recipe.data, seed=0)
    choices = [
        exact_logits(load_student(folder.member(arm, 0)), data.pool.images[rows]).argmax(dim=1)
        for arm in ("distilled", "generation_2")
    ]
    assert float((choices[0] == choices[1]).double().mean()) > 0.9
    first, second = (weights(folder, arm) for arm in ("distilled", "generation_2"))
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_generations_are_compared_and_shown(generations):
    pairs = {(entry.arm, entry.baseline) for entry in generations.ended().comparisons}
    assert pairs >= {
        ("generation_2", "label_only"),
        ("generation_2", "distilled"),
        ("generation_3", "generation_2"),
        ("distilled", "self_distilled"),
        ("shallow", "distilled"),
    }
    page = write_report(generations).read_text(encoding="utf-8")
    for text in (
        "generation 2",
        "self-distilled",
        "The arm `generation 3` is taught by the students of `generation 2`, each by that of its",
        "The arm `shallow` is distilled with student.layers 2, taught by distilled.",
    ):
        assert text in page


def test_a_deep_student_teaches_a_shallow_one(generations):
    layers = {arm: load_student(generations.member(arm, 0)).spec.layers for arm in ARMS[1:]}
    assert layers["shallow"] == 2
    assert layers["distilled"] == layers["generation_3"] == 1


def test_parallel_workers_and_a_stop_end_with_the_same_weights(tiny, tmp_path, generations):
    folder = RunFolder.create(tmp_path / "run", make_recipe(tiny))
    run(folder, workers=Workers(jobs=2))
    for arm in ARMS:
        for name, value in weights(generations, arm).items():
            torch.testing.assert_close(weights(folder, arm)[name], value, atol=1e-6, rtol=0)
    for name in ("weights.safetensors", "evaluations.json"):
        (folder.member("generation_3", 1) / name).unlink()
    (folder.path / "checkpoints" / "students of generation 3.safetensors").unlink()
    before = weights(generations, "generation_3", seed=1)
    run(folder)
    for name, value in weights(folder, "generation_3", seed=1).items():
        torch.testing.assert_close(value, before[name], atol=1e-6, rtol=0)


def test_feature_maps_are_the_outside_teachers_alone(tiny):
    features = {
        "distill.feature_weight": 1.0,
        "distill.teacher_layer": "1",
        "distill.student_layer": "reduction",
    }
    recipe = make_recipe(tiny, **features)
    assert loss_weights("distilled", recipe) == (0.5, 0.5, 1.0)
    assert loss_weights("generation_2", recipe) == (0.5, 0.5, 0.0)


@pytest.mark.parametrize(
    ("arms", "own", "message"),
    [
        (["generation_2"], {}, "give the arm distilled too, which teaches generation_2"),
        (["distilled", "generation_3"], {}, "the arm generation_2 too, which teaches generation_3"),
        (["mine"], {"mine": {"taught_by": "nobody"}}, "the arm nobody too, which teaches mine"),
        (
            ["one", "two"],
            {"one": {"taught_by": "two"}, "two": {"taught_by": "one"}},
            "arms that do not teach themselves: one by two by one",
        ),
        (["mine"], {"mine": {"taught_by": "mine"}}, r"own_arms\.mine\.taught_by: 'mine' is not a"),
        (
            ["label_only", "mine"],
            {"mine": {"base": "label_only", "taught_by": "label_only"}},
            "another arm of the run, with a base that learns from the teacher's logits",
        ),
        (
            ["label_only", "mine"],
            {"mine": {"base": "untrained_teacher", "taught_by": "label_only"}},
            r"own_arms\.mine\.taught_by: 'label_only' is not accepted",
        ),
        (["mine"], {"mine": {"taught_by": 3}}, r"own_arms\.mine\.taught_by: 3 is not accepted"),
    ],
)
def test_what_cannot_teach_is_refused(tiny, arms, own, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe(tiny, {"arms": arms, "own_arms": own})


def test_an_own_arm_that_is_not_in_arms_may_name_one_that_is_not(tiny):
    own = {"mine": {"taught_by": "generation_2"}}
    assert load_recipe(tiny, {"arms": ["distilled"], "own_arms": own}).arms == ("distilled",)
