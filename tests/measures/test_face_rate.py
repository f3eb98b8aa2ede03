"""The share of images with a face: the detector on known images, and the threshold's rules."""

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.measures import face_rate
from dcgan.data import faces

strictnesses = st.lists(st.integers(0, 120), min_size=1, max_size=200).map(np.array)


@pytest.fixture(scope="module")
def drawn():
    return faces.draw(range(12), 64)


@pytest.fixture(scope="module")
def noise():
    return np.random.default_rng(0).integers(0, 256, (10, 64, 64, 3), dtype=np.uint8)


def test_faces_are_found_and_noise_gradients_and_plain_images_hold_none(drawn, noise):
    found = face_rate.strictness(drawn)
    assert np.mean(found >= 1) > 0.8
    gradient = np.broadcast_to(np.linspace(0, 255, 64).astype(np.uint8)[:, None], (1, 64, 64, 3))
    nothing = face_rate.strictness(np.concatenate([noise, gradient, np.full_like(gradient, 128)]))
    assert np.count_nonzero(nothing) <= 1
    assert nothing.max() < np.median(found)


def test_a_face_that_fills_the_image_is_found(drawn):
    close = drawn[:6, 10:58, 8:56]
    assert np.mean(face_rate.strictness(close) >= 1) > 0.6


def test_a_face_is_found_at_every_size_of_image():
    for size in (32, 64, 128):
        found = face_rate.strictness(faces.draw(range(6), size))
        assert np.count_nonzero(found) >= 4, size


def test_one_pass_answers_what_a_pass_at_each_setting_would(drawn, noise):
    cascade = face_rate._cascade()
    least = round(face_rate.MIN_FACE * face_rate.SIDE)
    for image in (*drawn[:4], drawn[5, ::-1], *noise[:2]):
        (strictness,) = face_rate.strictness(image[None])
        for setting in {1, 2, 3, 5, 10, strictness, strictness + 1} - {0}:
            found = cascade.detectMultiScale(
                face_rate._seen(image),
                scaleFactor=face_rate.SCALE_FACTOR,
                minNeighbors=int(setting),
                minSize=(least, least),
            )
            assert (len(found) > 0) == (strictness >= setting)


def test_an_images_strictness_depends_on_that_image_only_and_not_on_the_threads(drawn):
    all_at_once = face_rate.strictness(drawn[:6])
    assert all_at_once.dtype.kind == "i"
    assert face_rate.strictness(drawn[5::-1]).tolist() == all_at_once[::-1].tolist()
    before = cv2.getNumThreads()
    try:
        cv2.setNumThreads(1)
        assert face_rate.strictness(drawn[:6]).tolist() == all_at_once.tolist()
        cv2.setNumThreads(3)
        assert face_rate.strictness(drawn[:6]).tolist() == all_at_once.tolist()
        assert cv2.getNumThreads() == 3, "left as it was found"
    finally:
        cv2.setNumThreads(before)


def test_no_images_have_no_strictness():
    assert face_rate.strictness(np.empty((0, 64, 64, 3), dtype=np.uint8)).tolist() == []


def test_images_are_read_as_rgb_and_seen_whole_within_their_border():
    red = np.zeros((40, 40, 3), dtype=np.uint8)
    red[..., 0] = 255
    seen = face_rate._seen(red)
    assert set(seen.flat) == {76}, "the luma of red; of blue it is 29"
    side = face_rate.SIDE + 2 * round(face_rate.BORDER * face_rate.SIDE)
    assert seen.shape == (side, side)


@given(strictnesses, st.floats(0.01, 1))
def test_the_setting_is_the_strictest_that_accepts_the_share_asked_for(real, accepts):
    setting = face_rate.strictest(real, accepts=accepts)
    if setting is None:
        assert np.mean(real >= 1) < accepts
    else:
        assert setting >= 1
        assert np.mean(real >= setting) >= accepts - 1e-9
        assert np.mean(real >= setting + 1) < accepts


def test_known_images_have_known_settings_and_counts():
    real = np.array([0, *range(1, 50)])
    assert face_rate.strictest(real) == 1, "one in fifty may be rejected"
    assert face_rate.strictest(real, accepts=1) is None
    assert face_rate.strictest(real, accepts=0.5) == 25
    assert face_rate.strictest(np.full(10, 7)) == 7


def test_the_measure_does_not_apply_where_too_few_real_images_have_a_face():
    assert face_rate.strictest(np.array([0] * 3 + [50] * 97)) is None
    assert face_rate.strictest(np.array([], dtype=int)) is None
