"""Arms: their losses, their images, and the soft targets of the controls."""

import pytest
import torch
from torch.nn.functional import softmax

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.distillation.schedule import step_sizes
from qkd_qiskit.errors import RecipeError
from qkd_qiskit.experiments.arms import (
    check_arms,
    class_means,
    draw_images,
    loss_weights,
    other_weights,
    shuffled,
    smoothed,
    soft_targets,
    training_spec,
)
from qkd_qiskit.recipe.parsing import load_recipe

TEMPERATURE = 3.0


@pytest.fixture
def said():
    """Logits of a teacher for 60 images of four classes, and their labels."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(60) % 4
    logits = 2 * torch.randn(60, 4, generator=random)
    logits[torch.arange(60), labels] += 3
    return logits, labels


def test_smoothed_labels_are_as_confident_as_the_teacher_on_average(said):
    logits, labels = said
    targets = softmax(smoothed(logits, labels, temperature=TEMPERATURE) / TEMPERATURE, dim=1)
    right = targets.gather(1, labels[:, None])
    expected = softmax(logits / TEMPERATURE, dim=1).gather(1, labels[:, None]).mean()
    torch.testing.assert_close(right, expected.expand_as(right))
    others = torch.ones_like(targets).scatter(1, labels[:, None], 0).bool()
    torch.testing.assert_close(targets[others], ((1 - expected) / 3).expand(180))


def test_class_means_keep_what_the_teacher_says_of_a_class(said):
    logits, labels = said
    softened = softmax(logits / TEMPERATURE, dim=1)
    targets = softmax(class_means(logits, labels, temperature=TEMPERATURE) / TEMPERATURE, dim=1)
    for label in range(4):
        rows = targets[labels == label]
        torch.testing.assert_close(rows, softened[labels == label].mean(dim=0).expand_as(rows))


def test_class_means_of_class_means_are_themselves(said):
    logits, labels = said
    once = class_means(logits, labels, temperature=TEMPERATURE)
    twice = class_means(once, labels, temperature=TEMPERATURE)
    torch.testing.assert_close(softmax(once, dim=1), softmax(twice, dim=1))


def test_a_shuffled_teacher_says_the_same_of_other_images(said):
    logits, _ = said
    mixed = shuffled(logits, seed=5)
    assert sorted(mixed.flatten().tolist()) == sorted(logits.flatten().tolist())
    assert int((mixed == logits).all(dim=1).sum()) < 10
    assert torch.equal(mixed, shuffled(logits, seed=5))


@pytest.mark.parametrize("change", [smoothed, class_means])
def test_a_teacher_that_is_certain_gives_finite_targets(change):
    logits, labels = 1000 * torch.eye(3), torch.arange(3)
    assert change(logits, labels, temperature=1.0).isfinite().all()


def test_losses_of_the_arms():
    recipe = load_recipe("digits", {"distill.ce_weight": 0.2, "distill.kd_weight": 0.7})
    assert loss_weights("label_only", recipe) == loss_weights("replicate", recipe) == (1, 0, 0)
    assert (
        loss_weights("distilled", recipe)
        == loss_weights("shuffled_teacher", recipe)
        == (0.2, 0.7, 0)
    )
    assert loss_weights("scaled_ce", recipe) == (0.2, 0, 0)
    assert loss_weights("transfer", recipe) == pytest.approx((0, 0.9, 0))


def test_transfer_sees_the_labelled_images_and_more_in_as_many_steps():
    recipe = load_recipe("digits")
    data = load_data(recipe.data)
    labelled = draw_images("distilled", recipe, data, seed=3)
    more = draw_images("transfer", recipe, data, seed=3)
    assert len(labelled) == 100
    assert len(more) == 1000
    assert set(labelled.tolist()) < set(more.tolist())
    assert training_spec("distilled", recipe, data) == recipe.distill
    spec = training_spec("transfer", recipe, data)
    assert spec.epochs < recipe.distill.epochs
    taken, usual = (
        sum(map(len, step_sizes(one, images)))
        for one, images in ((spec, 1000), (recipe.distill, 100))
    )
    assert taken == usual == 60 * 4  # batches of 32, the last of 4 images
    points = load_recipe("digits", {"data.train_per_class": None, "data.train_points": 30})
    assert len(draw_images("transfer", points, data, seed=3)) == 300
    all_of_it = load_recipe("digits", {"data.train_per_class": 100})
    smallest = int(torch.bincount(data.pool.labels).min())
    assert len(draw_images("transfer", all_of_it, data, seed=3)) == 10 * smallest


def test_an_untrained_teacher_says_something_else(tiny):
    recipe = load_recipe(tiny)
    data = load_data(recipe.data)
    zeros = torch.zeros(len(data.pool), 2)
    said = soft_targets("untrained_teacher", recipe, data, teacher_logits=zeros)
    assert said.shape == zeros.shape
    assert not torch.equal(said, zeros)
    assert torch.equal(soft_targets("distilled", recipe, data, teacher_logits=zeros), zeros)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": ["transfer"], "data.train_per_class": None}, "without labels"),
        ({"arms": ["scaled_ce"], "distill.ce_weight": 0.0}, "which is 0"),
    ],
)
def test_arms_that_do_not_fit_are_refused(changes, message):
    with pytest.raises(RecipeError, match=message):
        check_arms(load_recipe("digits", changes))


def test_other_terms_are_learned_where_there_is_a_teacher_for_them():
    change = {"distill.terms": [{"loss": "ce", "weight": 0.3}, {"loss": "dist", "weight": 0.6}]}
    recipe = load_recipe("digits", change)
    without = ("label_only", "label_only_tuned", "replicate", "scaled_ce", "features_only")
    assert {arm: other_weights(arm, recipe) for arm in without} == dict.fromkeys(without, (0.0,))
    learn = ("distilled", "shuffled_teacher", "classical_twin", "transfer", "logits_only")
    assert {arm: other_weights(arm, recipe) for arm in learn} == dict.fromkeys(learn, (0.6,))
    assert loss_weights("distilled", recipe) == (0.3, 0, 0)


def test_a_term_that_reads_labels_is_refused_where_there_are_none():
    change = {"arms": ["label_only", "transfer"], "distill.terms": [{"loss": "dkd"}]}
    with pytest.raises(RecipeError, match=r"without labels, which dkd in distill\.terms reads"):
        check_arms(load_recipe("digits", change))
    check_arms(load_recipe("digits", change | {"distill.terms": [{"loss": "dist"}]}))
