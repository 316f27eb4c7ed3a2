"""Tasks: which there are, and that a member's figures do not depend on who trains beside it."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.experiments.experiment import run
from qkd_qiskit.experiments.json_codec import encode
from qkd_qiskit.experiments.run_folder import RunFolder
from qkd_qiskit.experiments.tasks import SEEDS_PER_TASK, new_student, rounds, training_tasks
from qkd_qiskit.experiments.tuning import (
    TUNING_SEEDS,
    WEIGHT_DECAYS,
    Setting,
    chosen_setting,
    first_round,
    keep_tried,
    second_round,
    tuned,
)
from qkd_qiskit.recipe import ARMS
from qkd_qiskit.recipe.parsing import load_recipe
from qkd_qiskit.storage import load_tensors
from qkd_qiskit.students.reductions import PrincipalComponents
from qkd_qiskit.students.twin_layers import Components

# Arms of any student: not before a device, not of full size, not about feature maps.
HERE = [
    arm
    for arm, what in ARMS.items()
    if not what.began
    and what.kind != "classical_full"
    and arm not in ("logits_only", "features_only")
]
BASELINE = "label_only_tuned"
EXACT = {"targets": ["exact"], "seeds": 2, "distill.selection": "last"}


def weights(folder, arm, seed):
    return load_tensors(folder.member(arm, seed) / "weights.safetensors")[0]


@pytest.fixture(scope="module")
def every_arm(tiny, tmp_path_factory):
    """A run of all arms that need no device."""
    arms = [arm for arm in HERE if ARMS[arm].train_target is None]
    folder = RunFolder.create(
        tmp_path_factory.mktemp("arms") / "run", load_recipe(tiny, EXACT | {"arms": arms})
    )
    run(folder, command="qkd study tiny.yaml")
    return folder


def test_cells_hold_every_member_once():
    seeds = 2 * SEEDS_PER_TASK + 1
    recipe = load_recipe("digits", {"arms": HERE, "seeds": seeds})
    tasks = training_tasks(recipe)
    members = Counter(member for task in tasks for member in task.members)
    assert set(members) == {(arm, seed) for arm in HERE for seed in range(seeds)}
    assert set(members.values()) == {1}
    assert len({task.name for task in tasks}) == len(tasks)
    assert max(len(task.seeds) for task in tasks) == SEEDS_PER_TASK
    for task in tasks:
        assert len({ARMS[arm].population for arm in task.arms}) == 1


def test_arms_of_one_shape_and_setting_are_one_population():
    recipe = load_recipe("digits", {"arms": HERE})
    together = {arm for task in training_tasks(recipe) for arm in task.arms if len(task.arms) > 1}
    alone = {arm for arm in HERE if ARMS[arm].tuned} | {"distilled_noisy", "transfer"}
    alone |= {arm for arm in HERE if ARMS[arm].kind}  # of another shape
    alone |= {"transfer_augmented", "distilled_same_draw"}
    # Each has a teacher, or students to start from, of its own.
    alone |= {arm for arm in HERE if ARMS[arm].taught_by or ARMS[arm].start}
    assert together == set(HERE) - alone


def test_every_arm_has_its_figures(every_arm):
    result = every_arm.result
    assert list(result.arms) == [arm for arm in HERE if ARMS[arm].train_target is None]
    for by_target in result.arms.values():
        assert len(by_target["exact"].accuracy) == 2
    compared = {(entry.arm, entry.baseline) for entry in result.comparisons}
    assert ("distilled", "label_only_tuned") in compared
    assert ("distilled", "shuffled_teacher") in compared
    assert ("replicate", "label_only") in compared


def test_controls_differ_from_what_they_control(every_arm):
    """Every arm has weights of its own: none is a copy of another but what is meant to be one."""
    flat = {
        arm: torch.cat([value.flatten() for value in weights(every_arm, arm, 0).values()])
        for arm in every_arm.recipe.arms
        if ARMS[arm].kind is None and not ARMS[arm].recalibrated
    }
    copied = weights(every_arm, "recalibrated", 0)
    assert all(torch.equal(copied[k], v) for k, v in weights(every_arm, "distilled", 0).items())
    names = list(flat)
    for number, one in enumerate(names):
        for other in names[number + 1 :]:
            assert not torch.allclose(flat[one], flat[other], atol=1e-6), (one, other)


def test_other_arms_beside_it_change_nothing(every_arm, tiny, tmp_path):
    few = {"arms": ["label_only", "distilled"]}
    folder = RunFolder.create(tmp_path / "run", load_recipe(tiny, EXACT | few))
    run(folder)
    for arm in few["arms"]:
        for name, value in weights(folder, arm, 1).items():
            expected = weights(every_arm, arm, 1)[name]
            torch.testing.assert_close(value, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("arm", "same"),
    [
        (BASELINE, "label_only"),
        ("distilled_tuned", "distilled"),
        ("label_only_augmented_tuned", "label_only_augmented"),
    ],
)
def test_the_setting_of_a_tuned_arm_is_the_best_on_validation(every_arm, arm, same):
    recipe, tuning = every_arm.recipe, every_arm.result.tuning_of(arm)
    means = [sum(setting.validation_accuracy) for setting in tuning.tried]
    assert sum(tuning.chosen.validation_accuracy) == max(means)
    assert tuning.seeds == (0, 1)
    assert len(tuning.tried) == len(every_arm.result.tuning.tried)  # budgets are equal
    own = Setting(recipe.distill.lr, recipe.distill.weight_decay, recipe.distill.epochs)
    assert first_round(recipe, arm)[0] == own
    chosen = chosen_setting(every_arm, arm)
    if "augmented" not in arm:  # whose steps are those of the images alone
        assert len(every_arm.metrics(arm, 0)) == chosen.epochs
    # At least as good as the arm with the recipe's setting there, which is in the grid.
    last = [every_arm.metrics(same, seed)[-1].validation_accuracy for seed in (0, 1)]
    assert max(means) >= sum(last) - 1e-6


def test_a_tuned_arm_of_ones_own_has_a_grid_around_its_own_values(tiny, tmp_path):
    own = {"own_arms": {"mine": {"base": "distilled_tuned", "distill.lr": 0.02}}}
    recipe = load_recipe(tiny, EXACT | own | {"arms": [BASELINE, "mine"]})
    folder = RunFolder.create(tmp_path / "run", recipe)
    run(folder)
    assert first_round(recipe, "mine")[0].lr == 0.02
    tried = folder.result.tuning_of("mine").tried
    assert {file.name for file in (folder.path / "tuning" / "mine").iterdir()} == {
        f"lr_{one.lr:g}_decay_{one.weight_decay:g}_epochs_{one.epochs}.json" for one in tried
    }
    assert folder.result.tunings.keys() == {"mine"}
    assert max(one.lr for one in folder.result.tuning.tried) == pytest.approx(0.15)
    assert max(one.lr for one in tried) == pytest.approx(0.06)


def test_a_setting_at_which_a_seed_failed_is_not_chosen(tiny, tmp_path):
    folder = RunFolder.create(
        tmp_path / "run", load_recipe(tiny, {"seeds": 2, "arms": ["label_only_tuned"]})
    )
    first, second, *others = first_round(folder.recipe, BASELINE)
    keep_tried(folder, BASELINE, first, [math.nan, 0.9])
    keep_tried(folder, BASELINE, second, [0.6, 0.6])
    for setting in others:
        keep_tried(folder, BASELINE, setting, [0.5, 0.5])
    decays = second_round(folder, BASELINE)
    assert {(one.lr, one.epochs) for one in decays} == {(second.lr, second.epochs)}
    for setting in decays:
        keep_tried(folder, BASELINE, setting, [math.nan, math.nan])
    assert chosen_setting(folder, BASELINE) == second
    assert json.dumps(encode(tuned(folder, BASELINE)), allow_nan=False)


def test_tuning_takes_weight_decay_at_the_best_and_the_first_of_equals(tiny, tmp_path):
    folder = RunFolder.create(
        tmp_path / "run", load_recipe(tiny, {"seeds": 9, "arms": ["label_only_tuned"]})
    )
    first, *others = first_round(folder.recipe, BASELINE)
    for setting in others:
        keep_tried(folder, BASELINE, setting, [0.5, 0.5])
    keep_tried(folder, BASELINE, first, [0.75, 0.75])
    decays = second_round(folder, BASELINE)
    assert {first.weight_decay, *(one.weight_decay for one in decays)} == set(WEIGHT_DECAYS)
    assert {(one.lr, one.epochs) for one in decays} == {(first.lr, first.epochs)}
    for setting in decays:
        keep_tried(folder, BASELINE, setting, [0.7, 0.8])
    assert chosen_setting(folder, BASELINE) == first
    assert tuned(folder, BASELINE).seeds == tuple(range(TUNING_SEEDS))
    planned = list(rounds(folder))
    assert [len(tasks) for tasks in planned] == [len(others) + 1, len(decays), 1]


@pytest.mark.parametrize("arm", ["twin_pca", "twin_pooled", "distilled"])
def test_a_reduction_is_fitted_once_and_its_students_are_those_that_fit_alone(
    arm, tiny, monkeypatch
):
    recipe = load_recipe(tiny, {"student.reduction": "pca"})
    data = load_data(recipe.data)
    fitted = Counter()
    for kind in (Components, PrincipalComponents):

        def fit(module, images, fit=kind.fit):
            fitted[arm] += 1
            fit(module, images)

        monkeypatch.setattr(kind, "fit", fit)
    students = [new_student(recipe, data, arm=arm, seed=seed) for seed in range(3)]
    assert fitted == {arm: 1}
    for seed, student in enumerate(students):
        alone = new_student(recipe, load_data(recipe.data), arm=arm, seed=seed)
        images = data.test.images[:7]
        assert torch.equal(student(images), alone(images))
    assert replace(data, pool=data.test).fits == {}  # what was fitted to another pool is not kept
