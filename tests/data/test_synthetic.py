"""Generated data: what its classes are, that no linear classifier finds them, and difficulty."""

import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import load_data
from qkd_qiskit.data.synthetic import best_accuracy, class_corners, generate, image_size
from qkd_qiskit.errors import DataError, RecipeError
from qkd_qiskit.recipe import DataSpec, TeacherSpec
from qkd_qiskit.recipe.synthetic import Generator
from qkd_qiskit.teachers.teacher import make_teacher

NAMES = ("generated", "extended_xor")


@pytest.mark.parametrize("name", NAMES)
class TestPoints:
    def test_shape_range_and_balance(self, name):
        data = load_data(DataSpec(name=name, points=600))
        assert data.image_shape == (1, 8, 8)
        assert data.class_names == ("class 0", "class 1", "class 2")
        labels = torch.cat([data.pool.labels, data.validation.labels, data.test.labels])
        assert torch.bincount(labels).tolist() == [200] * 3
        assert len(data.test) == 201  # a third of each class
        for split in (data.pool, data.validation, data.test):
            assert split.images.dtype == torch.float32
            assert 0 <= split.images.min() < split.images.max() <= 1

    def test_seed_decides_points_and_difficulty_scales_their_noise(self, name):
        easy, again, other = (
            load_data(DataSpec(name=name, points=300), seed=seed) for seed in (1, 1, 2)
        )
        assert easy.fingerprint == again.fingerprint != other.fingerprint
        hard = load_data(DataSpec(name=name, points=300, difficulty=1.0), seed=1)
        assert torch.equal(hard.pool.labels, easy.pool.labels)
        assert hard.fingerprint != easy.fingerprint

    def test_classes_share_no_corner(self, name):
        for seed in range(5):
            corners = class_corners(Generator(name=name), seed=seed)
            every = [tuple(corner) for group in corners for corner in group]
            assert len(set(every)) == len(every)
            assert set(np.unique(every)) == {-1.0, 1.0}

    def test_the_best_classifier_falls_with_difficulty(self, name):
        best = [
            best_accuracy(Generator(name=name, difficulty=difficulty))
            for difficulty in (0.0, 0.25, 0.5, 0.75, 1.0)
        ]
        assert best[0] > 0.999
        assert (np.diff(best[1:]) < -0.05).all()
        assert best[-1] > 0.5

    def test_a_linear_classifier_is_clearly_worse_than_the_teacher(self, name):
        kinds = ("softmax", "mlp")
        accuracy = {kind: [] for kind in kinds}
        for difficulty in (0.0, 0.5, 1.0):
            spec = DataSpec(name=name, difficulty=difficulty, points=4000, test_per_class=400)
            data = load_data(spec)
            for kind in kinds:
                teacher = TeacherSpec(kind=kind, epochs=15, lr=0.01, weight_decay=0.1)
                accuracy[kind].append(make_teacher(teacher, data, cache=False).accuracy)
        gaps = np.subtract(accuracy["mlp"], accuracy["softmax"])
        assert gaps[0] > 0.25
        assert (gaps > 0.05).all()
        assert (np.diff(accuracy["mlp"]) < -0.05).all()


def test_every_class_of_generated_has_no_side():
    """A corner and its opposite: their mean is the centre, whatever the seed."""
    for seed in range(5):
        for group in class_corners(Generator(name="generated"), seed=seed):
            assert (group[0] == -group[1]).all()
            assert len(group) == 4


def test_extended_xor_of_two_numbers_is_xor():
    generator = Generator(name="extended_xor", num_classes=2, informative=2)
    same, different = class_corners(generator)
    assert {tuple(corner) for corner in same} == {(-1, -1), (1, 1)}
    assert {tuple(corner) for corner in different} == {(-1, 1), (1, -1)}


def test_features_show_the_hidden_numbers_and_noise_features_do_not():
    generator = Generator(
        name="extended_xor", features=9, informative=2, noise_features=3, num_classes=2
    )
    features = generate(generator, points=4000).images.reshape(4000, 9)
    strength = np.abs(np.corrcoef(features.T)) > 0.3
    companions = sorted(strength.sum(axis=1) - 1)
    assert companions == [0, 0, 0, 2, 2, 2, 2, 2, 2]  # two numbers, shown three times each


def test_features_that_fill_no_square_are_a_row():
    assert image_size(64) == (8, 8)
    assert image_size(10) == (1, 10)
    data = load_data(DataSpec(name="generated", points=60, features=10))
    assert data.image_shape == (1, 1, 10)


def test_classes_can_be_left_out_and_unknown_ones_are_named():
    data = load_data(DataSpec(name="generated", points=90, classes=(2, 0)))
    assert data.class_names == ("class 2", "class 0")
    with pytest.raises(DataError, match=r"data\.classes: \[0, 3\] .* generated has the classes"):
        load_data(DataSpec(name="generated", points=90, classes=(0, 3)))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"difficulty": 1.5}, r"data\.difficulty: 1\.5 .* from 0 to 1"),
        ({"difficulty": float("nan")}, r"data\.difficulty: nan"),
        ({"informative": 3}, r"data\.informative: 3 .* give 4 to 12"),
        ({"name": "extended_xor", "informative": 1}, r"data\.informative: 1 .* give 2 to 12"),
        ({"informative": 13}, r"data\.informative: 13 "),
        ({"features": 3}, r"data\.features: 3 .* at least 4"),
        ({"noise_features": 61}, r"data\.noise_features: 61 .* give 0 to 60"),
        ({"noise_features": -1}, r"data\.noise_features: -1"),
        ({"points": 10}, r"data\.points: 10 .* at least 30"),
    ],
)
def test_numbers_that_do_not_go_together_are_named(values, message):
    with pytest.raises(RecipeError, match=message) as caught:
        DataSpec(**({"name": "generated"} | values))
    assert "\n" not in str(caught.value)


def test_more_points_than_were_generated():
    data = load_data(DataSpec(name="generated", points=90))
    with pytest.raises(DataError, match="1000 training points"):
        data.draw_for(DataSpec(name="generated", train_points=1000), seed=0)
