"""Damage to faces: what moves, by how much, and what stays."""

import numpy as np
import pytest

from analysis.measures import damage


def test_each_face_gets_the_right_half_of_the_next_one():
    images = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), dtype=np.uint8)
    damaged = damage.swapped_halves(images)
    assert np.array_equal(damaged[:, :, :4], images[:, :, :4])
    assert np.array_equal(damaged[:, :, 4:], images[[1, 2, 0], :, 4:])
    assert damaged.dtype == np.uint8


def spotted(side):
    """A bright square with a dark spot where the left eye usually is; a detector finds no eye in it."""
    image = np.full((1, side, side, 3), 220, dtype=np.uint8)
    x, y = (round(share * side) for share in damage.EYE)
    reach = side // 32
    image[0, y - reach : y + reach, x - reach : x + reach] = 20
    return image


def darkness(image):
    """The centre (x, y) of what is darker than the rest, in px."""
    weight = 220.0 - image[..., 0]
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return (x * weight).sum() / weight.sum(), (y * weight).sum() / weight.sum()


@pytest.mark.parametrize("side", [64, 128])
def test_the_left_eye_moves_six_of_64_pixels_down_at_any_size_and_the_rest_stays(side):
    before = spotted(side)
    after = damage.moved_eye(before)
    (x, y), (new_x, new_y) = darkness(before[0]), darkness(after[0])
    assert new_x == pytest.approx(x, abs=0.1)
    assert new_y - y == pytest.approx(6 * side / 64, abs=0.1 * side / 64)
    assert before[0].min() == 20, "the original is left alone"
    faces = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    moved = damage.moved_eye(faces)
    assert np.array_equal(moved[:, :, round(0.8 * side) :], faces[:, :, round(0.8 * side) :])
    assert np.array_equal(moved[:, : side // 8], faces[:, : side // 8])


def test_no_images_give_none():
    none = np.zeros((0, 16, 16, 3), dtype=np.uint8)
    assert damage.moved_eye(none).shape == damage.swapped_halves(none).shape == none.shape
