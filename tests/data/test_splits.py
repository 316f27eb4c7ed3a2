import numpy as np
import pytest
import torch

from qkd_qiskit.data.splits import Data, load_data
from qkd_qiskit.errors import DataError
from qkd_qiskit.recipe import DataSpec


@pytest.fixture(scope="module")
def digits():
    return load_data(DataSpec())


def rows(split):
    """Each image with its label, as something that can be put in a set."""
    return {
        (image.numpy().tobytes(), int(label))
        for image, label in zip(split.images, split.labels, strict=True)
    }


def arrays(counts=(20, 30, 40), features=5, seed=0):
    """Distinct random images with `counts` per class, in mixed order."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(len(counts)), counts))
    return rng.random((len(labels), features)), labels


class TestDigits:
    def test_shapes_types_and_range(self, digits):
        assert digits.name == "digits"
        assert digits.image_shape == (1, 8, 8)
        assert digits.class_names == tuple("0123456789")
        for split in (digits.pool, digits.validation, digits.test):
            assert split.images.dtype == torch.float32
            assert split.images.shape == (len(split), 1, 8, 8)
            assert split.labels.dtype == torch.int64
            assert split.images.min() == 0
            assert split.images.max() == 1

    def test_splits_are_a_partition_of_the_data_set(self, digits):
        from sklearn.datasets import load_digits

        bunch = load_digits()
        images = torch.from_numpy((bunch.images / 16).astype(np.float32))[:, None]
        all_rows = [rows(split) for split in (digits.pool, digits.validation, digits.test)]
        assert sum(map(len, all_rows)) == len(set().union(*all_rows)) == 1797
        expected = {
            (image.numpy().tobytes(), int(label))
            for image, label in zip(images, bunch.target, strict=True)
        }
        assert set().union(*all_rows) == expected

    def test_shares_are_stratified(self, digits):
        total = torch.bincount(torch.cat([digits.pool.labels, digits.validation.labels]))
        test = torch.bincount(digits.test.labels)
        assert ((test / (test + total) - 1 / 3).abs() < 0.01).all()
        assert ((torch.bincount(digits.validation.labels) / total - 0.1).abs() < 0.01).all()

    def test_seed_decides_the_splits(self, digits):
        assert load_data(DataSpec(), seed=0).fingerprint == digits.fingerprint
        other = load_data(DataSpec(), seed=1)
        assert other.fingerprint != digits.fingerprint
        assert rows(other.test) != rows(digits.test)

    def test_classes_are_relabelled_in_the_order_given(self, digits):
        data = load_data(DataSpec(classes=(7, 2)))
        assert data.class_names == ("7", "2")
        assert data.num_classes == 2
        full = load_data(DataSpec())
        every = rows(full.pool) | rows(full.validation) | rows(full.test)
        for split in (data.pool, data.validation, data.test):
            assert {(image, (7, 2)[label]) for image, label in rows(split)} <= every
            assert set(split.labels.tolist()) == {0, 1}

    def test_test_per_class_keeps_the_first(self, digits):
        few = load_data(DataSpec(test_per_class=3))
        for label in range(10):
            expected = digits.test.images[digits.test.labels == label][:3]
            assert torch.equal(few.test.images[few.test.labels == label], expected)
        assert few.pool.fingerprint == digits.pool.fingerprint

    def test_too_many_test_images_are_refused(self):
        with pytest.raises(DataError, match=r"class '8' has 58 test images, 59 per class"):
            load_data(DataSpec(test_per_class=59))

    def test_global_random_state_is_untouched(self):
        before = torch.random.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        load_data(DataSpec()).draw(5, seed=3)
        assert torch.equal(before[0], torch.random.get_rng_state())
        assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


class TestDraw:
    @pytest.mark.parametrize("draw", ["first", "random"])
    def test_is_class_balanced_and_in_order(self, digits, draw):
        indices = digits.draw(7, draw=draw, seed=1)
        assert torch.bincount(digits.pool.labels[indices]).tolist() == [7] * 10
        assert (indices.diff() > 0).all()

    def test_first_takes_the_first_of_each_class(self, digits):
        indices = digits.draw(4, draw="first", seed=9)
        for label in range(10):
            members = [i for i, other in enumerate(digits.pool.labels.tolist()) if other == label]
            assert [i for i in indices.tolist() if i in members] == members[:4]

    def test_random_depends_on_the_seed_alone(self, digits):
        assert torch.equal(digits.draw(5, seed=1), digits.draw(5, seed=1))
        assert not torch.equal(digits.draw(5, seed=1), digits.draw(5, seed=2))
        assert not torch.equal(digits.draw(5, seed=1), digits.draw(5, draw="first"))

    def test_small_draws_are_part_of_large_ones(self, digits):
        assert set(digits.draw(5, seed=1).tolist()) < set(digits.draw(20, seed=1).tolist())

    def test_none_is_the_whole_pool(self, digits):
        assert torch.equal(digits.draw(None, seed=1), torch.arange(len(digits.pool)))

    def test_a_class_with_too_few_images_is_named(self):
        data = Data.from_arrays(*arrays((20, 9)), test=arrays((2, 2)), class_names=("cat", "dog"))
        assert len(data.draw(8, seed=0)) == 16
        with pytest.raises(DataError, match=r"class 'dog' has 8 training images .*, 9 per class"):
            data.draw(9, seed=0)

    def test_points_ignore_classes_and_depend_on_the_seed_alone(self, digits):
        points = digits.draw_points(50, seed=1)
        assert (points.diff() > 0).all()
        assert len(points) == 50
        assert set(torch.bincount(digits.pool.labels[points]).tolist()) != {5}
        assert torch.equal(points, digits.draw_points(50, seed=1))
        assert not torch.equal(points, digits.draw_points(50, seed=2))
        assert set(points.tolist()) < set(digits.draw_points(80, seed=1).tolist())
        assert torch.equal(digits.draw_points(4, draw="first", seed=1), torch.arange(4))

    def test_points_are_spread_evenly_over_the_pool(self, digits):
        counts = torch.zeros(len(digits.pool))
        for seed in range(300):
            counts[digits.draw_points(100, seed=seed)] += 1
        expected = 300 * 100 / len(digits.pool)
        assert (counts - expected).abs().max() < 6 * expected**0.5

    def test_a_recipe_draws_points_or_per_class(self, digits):
        spec = DataSpec(train_points=30)
        assert torch.equal(digits.draw_for(spec, seed=3), digits.draw_points(30, seed=3))
        spec = DataSpec(train_per_class=3, draw="first")
        assert torch.equal(digits.draw_for(spec, seed=3), digits.draw(3, draw="first"))

    def test_more_points_than_the_pool_holds(self, digits):
        with pytest.raises(DataError, match=r"1000000 training points .* the pool has"):
            digits.draw_points(1_000_000)


class TestFromArrays:
    def test_features_become_one_row_images(self):
        images, labels = arrays()
        data = Data.from_arrays(images, labels, name="mine")
        assert data.image_shape == (1, 1, 5)
        assert data.class_names == ("0", "1", "2")
        assert [len(split) for split in (data.pool, data.validation, data.test)] == [54, 6, 30]
        found = rows(data.pool) | rows(data.validation) | rows(data.test)
        given = images.astype(np.float32)
        expected = {(row.tobytes(), int(label)) for row, label in zip(given, labels, strict=True)}
        assert found == expected

    def test_own_test_images_are_kept_as_they_are(self):
        images, labels = arrays((4, 5), seed=1)
        data = Data.from_arrays(*arrays((20, 30)), test=(images, labels))
        assert np.array_equal(data.test.images[:, 0, 0].numpy(), images.astype(np.float32))
        assert data.test.labels.tolist() == labels.tolist()
        assert len(data.pool) + len(data.validation) == 50

    def test_order_of_the_pool_is_the_order_given(self):
        images, labels = arrays()
        images[:, 0] = np.arange(len(images))
        data = Data.from_arrays(images, labels)
        for split in (data.pool, data.validation, data.test):
            assert (split.images[:, 0, 0, 0].diff() > 0).all()

    def test_bytes_are_scaled_and_other_numbers_are_not(self):
        labels = np.repeat([0, 1], 10)
        pixels = np.full((20, 2, 3, 3), 255, np.uint8)
        assert Data.from_arrays(pixels, labels).pool.images.max() == 1
        assert Data.from_arrays(pixels.astype(float), labels).pool.images.max() == 255
        assert Data.from_arrays(pixels, labels).image_shape == (2, 3, 3)

    def test_every_split_has_every_class_however_small(self):
        data = Data.from_arrays(*arrays((3, 100)), validation_fraction=0.01)
        for split in (data.pool, data.validation, data.test):
            assert set(split.labels.tolist()) == {0, 1}

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
    def test_values_that_are_not_finite_are_refused(self, value):
        images, labels = arrays()
        images[7, 2] = value
        with pytest.raises(DataError, match=r"1 of 90 images hold NaN or infinite .* number 7;"):
            Data.from_arrays(images, labels)
        with pytest.raises(DataError, match="1 of 90 test images hold NaN"):
            Data.from_arrays(*arrays(), test=(images, labels))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda x, y: (x, y[:-1]), r"labels have shape \(89,\) for 90 images"),
            (
                lambda x, y: (x, y + 0.5),
                "labels hold 1.5, which is no whole",
            ),
            (lambda x, y: (x, y - 1), "labels of the images run from -1 to 1"),
            (lambda x, y: (x, y * 0), "hold 1 classes up to 0"),
            (lambda x, y: (x[:, 0], y), r"images have shape \(90,\); give"),
            (lambda x, y: (x[:0], y[:0]), r"images have shape \(0, 5\)"),
            (lambda x, y: (x.astype(complex), y), "images are of type complex128"),
            (lambda x, y: (x[y.argsort()][19:], np.sort(y)[19:]), "class '0' has 1 images"),
        ],
    )
    def test_arrays_that_do_not_fit_are_refused(self, change, message):
        with pytest.raises(DataError, match=message) as caught:
            Data.from_arrays(*change(*arrays()))
        assert "\n" not in str(caught.value)

    def test_test_images_must_fit_the_training_images(self):
        with pytest.raises(DataError, match=r"shape \(1, 1, 4\), training images \(1, 1, 5\)"):
            Data.from_arrays(*arrays(), test=arrays(features=4))
        with pytest.raises(DataError, match="test images run from 0 to 3; give 0 to 2"):
            Data.from_arrays(*arrays(), test=arrays((5, 5, 5, 5)))
        with pytest.raises(DataError, match="test labels hold 2 classes up to 1, none of class 2"):
            Data.from_arrays(*arrays(), test=arrays((5, 5)))

    def test_number_of_names_must_be_the_number_of_classes(self):
        with pytest.raises(DataError, match="there are 2 class names"):
            Data.from_arrays(*arrays(), class_names=("a", "b"))
        with pytest.raises(DataError, match="none of class 3, there are 4 class names"):
            Data.from_arrays(*arrays(), class_names=tuple("abcd"))

    def test_fraction_must_be_a_share(self):
        with pytest.raises(DataError, match=r"validation_fraction: 1\.5 is not accepted"):
            Data.from_arrays(*arrays(), validation_fraction=1.5)


def test_fingerprint_sees_one_pixel_of_any_split():
    images, labels = arrays()
    base = Data.from_arrays(images, labels)
    seen = {base.fingerprint}
    for row in range(len(images)):
        changed = images.copy()
        changed[row, 0] += 0.25
        seen.add(Data.from_arrays(changed, labels).fingerprint)
    assert len(seen) == 1 + len(images)
    assert Data.from_arrays(images, labels, name="other").fingerprint == base.fingerprint


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_a_count_that_is_none_is_refused(count):
    data = Data.from_arrays(*arrays())
    with pytest.raises(DataError, match="give a whole number of at least 1"):
        data.draw(count)
    with pytest.raises(DataError, match="give a whole number of at least 1"):
        data.draw_points(count)
    with pytest.raises(DataError, match=r"test_per_class: .* is not accepted"):
        Data.from_arrays(*arrays(), test_per_class=count)


def test_a_draw_of_another_sort_is_refused():
    with pytest.raises(DataError, match="draw is 'last'; give one of random, first"):
        Data.from_arrays(*arrays()).draw(1, draw="last")
