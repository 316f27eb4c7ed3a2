"""Copies of images: what moves, what stays, and that the same stream gives the same copies."""

import pytest
import torch

from qkd_qiskit.data.augmentation import augmented_copies
from qkd_qiskit.recipe.seeds import generator


def copies(images, kind, number=5, seed=0):
    return augmented_copies(images, kind, copies=number, stream=generator(seed, "test"))


@pytest.fixture
def images():
    return torch.rand(6, 2, 8, 8, generator=generator(1, "images"))


@pytest.mark.parametrize("kind", ["shift", "jitter", "mixup"])
def test_the_first_copy_is_the_image_and_the_others_are_not(images, kind):
    made = copies(images, kind)
    assert made.shape == (5, 6, 2, 8, 8)
    assert torch.equal(made[0], images)
    assert all(not torch.equal(copy, images) for copy in made[1:])
    assert torch.equal(made, copies(images, kind))
    assert not torch.equal(made[1], copies(images, kind, seed=1)[1])
    assert made.min() >= 0
    assert made.max() <= 1


def test_a_shift_is_by_whole_pixels_and_fills_with_zeros():
    image = torch.zeros(1, 1, 28, 28)
    image[0, 0, 13, 13] = 1.0
    made = copies(image, "shift", number=200)[:, 0, 0]
    places = made.flatten(1).argmax(dim=1)
    assert torch.equal(made.flatten(1).sum(dim=1), torch.ones(200))
    assert {int(place) // 28 for place in places} == set(range(11, 16))
    assert {int(place) % 28 for place in places} == set(range(11, 16))


def test_channels_move_together(images):
    images[:, 1] = images[:, 0]
    for kind in ("shift", "jitter"):
        made = copies(images, kind)
        assert torch.equal(made[:, :, 0], made[:, :, 1])


def test_a_jitter_turns_and_keeps_a_centred_disc():
    rows, columns = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    disc = (((rows - 13.5) ** 2 + (columns - 13.5) ** 2) < 36).float()[None, None]
    made = copies(disc, "jitter", number=50)[:, 0, 0]
    # Mass: the scale is within 10 %, so the area within 21 %.
    ratio = made.sum(dim=(1, 2)) / disc.sum()
    assert ratio.min() > 0.75
    assert ratio.max() < 1.3
    centre = (made * rows).sum(dim=(1, 2)) / made.sum(dim=(1, 2))
    assert (centre - 13.5).abs().max() < 2.6


def test_a_jitter_of_images_that_are_not_square_is_a_rotation():
    """A bar that is turned keeps its length in pixels, whatever the shape of the image."""
    image = torch.zeros(1, 1, 20, 60)
    image[0, 0, 9:11, 20:40] = 1.0
    mass = copies(image, "jitter", number=60)[:, 0, 0].sum(dim=(1, 2)) / image.sum()
    assert mass.min() > 0.75
    assert mass.max() < 1.3


def test_mixtures_are_between_two_images_of_the_draw(images):
    made = copies(images, "mixup", number=3)[1]
    for mixture in made:
        flat, all_images = mixture.flatten(), images.flatten(1)
        best = min(
            float((flat - (share * first + (1 - share) * second)).abs().max())
            for share in torch.linspace(0, 1, 201)
            for first in all_images
            for second in all_images
        )
        assert best < 0.006
