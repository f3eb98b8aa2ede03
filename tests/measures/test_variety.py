"""Copying and variety, against known answers."""

import numpy as np
import pytest

from analysis.measures import variety
from analysis.measures.fidelity import Points
from dcgan.data import faces


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def _share(real, fake):
    return variety.copied_share(real=Points.of(real), fake=Points.of(fake))


def test_copies_are_found_and_images_that_keep_their_distance_are_none(rng):
    real = rng.standard_normal((500, 20))
    assert _share(real, real[:300]) == 1
    assert _share(real, real[:300] + 0.01 * rng.standard_normal((300, 20))) == 1
    assert _share(real, real[:300] + 10) == 0
    mixed = np.concatenate([real[:60], real[:240] + 10])
    assert _share(real, mixed) == pytest.approx(0.2)


def test_new_images_of_the_real_distribution_are_near_by_chance_only(rng):
    real = rng.uniform(size=(2000, 1))
    # On a line the nearest neighbour of a random point has that point for its own nearest with probability 2/3.
    assert _share(real, rng.uniform(size=(2000, 1))) == pytest.approx(2 / 3, abs=0.05)
    assert 0.2 < _share(rng.standard_normal((2000, 20)), rng.standard_normal((1000, 20))) < 0.5


def test_an_image_is_compared_with_the_distances_around_the_one_that_it_is_near_to():
    real = np.array([[0.0], [1.0], [10.0], [14.0]])
    fake = np.array([[0.4], [1.6], [2.5], [12.5], [20.0]])  # 0.4 < 1, 0.6 < 1, 1.5 > 1, 1.5 < 4, 6 > 4
    assert _share(real, fake) == pytest.approx(3 / 5)


def test_a_real_image_that_is_there_twice_is_no_copy_of_itself(rng):
    real = rng.standard_normal((200, 8))
    assert _share(np.concatenate([real, real]), rng.standard_normal((200, 8))) == 0


def test_the_nearest_real_images_come_nearest_first(rng):
    real, fake = rng.standard_normal((1200, 6)), rng.standard_normal((700, 6))
    distances, places = variety.nearest(real=Points.of(real), fake=Points.of(fake), k=3)
    expected = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    np.testing.assert_array_equal(places, np.argsort(expected, axis=1)[:, :3])
    np.testing.assert_allclose(distances, np.sort(expected, axis=1)[:, :3])


def test_one_picture_64_times_has_no_variety_and_four_templates_have_little(rng):
    people = faces.draw(range(64), 64)
    assert variety.variety(people[:1].repeat(64, axis=0)) == 0
    templates = people[:4].repeat(16, axis=0).astype(int)
    collapsed = np.clip(templates + rng.integers(-8, 9, templates.shape), 0, 255).astype(np.uint8)
    assert variety.variety(collapsed) < 0.2 * variety.variety(people)


@pytest.mark.parametrize("size", [32, 64, 128])
def test_variety_is_the_distance_of_grey_levels_whatever_the_size(size):
    levels = np.arange(64, dtype=np.uint8)[:, None, None, None] * 4
    images = np.broadcast_to(levels, (64, size, size, 3))
    assert variety.variety(images) == pytest.approx(4 / 255)
    assert variety.variety(images[np.random.default_rng(0).permutation(64)]) == pytest.approx(4 / 255)


def test_variety_is_the_mean_over_groups_of_64_and_leaves_out_a_part_of_one():
    alike = np.zeros((64, 32, 32, 3), np.uint8)
    levels = np.broadcast_to(np.arange(64, dtype=np.uint8)[:, None, None, None] * 4, alike.shape)
    assert variety.variety(np.concatenate([alike, levels])) == pytest.approx(2 / 255)
    assert variety.variety(np.concatenate([levels, alike[:63]])) == pytest.approx(4 / 255)
